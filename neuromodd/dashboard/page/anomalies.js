// Anomalies: the spans of time that they held, and the one that holds now with what is strange about it.

import { seconds } from "./clock.js";
import { find, make, mark, write } from "./elements.js";
import { lasting, level, NONE, odds, written } from "./format.js";
import { valueOf } from "./store.js";

/** The name of a channel for people; a path in the frame is one as it is. */
export const words = (name) => (name.includes(".") ? name : name.replaceAll("_", " "));

/** A reading of a channel in its own unit. */
export const read = (value, name, store) =>
  value === null ? NONE : written(value, { name, unit: store.surprise?.units[name] ?? "" });

/** What was expected of a channel: nine of ten moments lie between both ends. */
export function expected({ name, low, high }, store) {
  if (low === null || high === null) return NONE;
  return `${read(low, name, store)} to ${read(high, name, store)}`;
}

/** The spans that anomalies held, oldest first; that of the one that holds ends now. */
export function episodes(store) {
  const found = store.events
    .filter(({ topic, payload }) => topic === "anomaly" && payload.phase === "end")
    .map(({ payload }) => ({ payload, from: began(payload), to: seconds(payload.time_utc) }));
  const { holds, newest } = store;
  if (holds) found.push({ payload: holds, from: began(holds), to: newest[1] });
  return found;
}

const began = ({ since_utc: since, time_utc: at }) => seconds(since) ?? seconds(at);

const HEAD = ["Channel", "Observed", "Expected", "Surprise", "Now"];

export class Alarm {
  constructor(screen) {
    this.store = screen.store;
    this.now = [];
    this.shown = null;
  }

  update() {
    const { holds, newest } = this.store;
    find("anomaly").hidden = !holds;
    if (!holds) {
      this.shown = null;
      return;
    }
    if (holds !== this.shown) this.build(holds);
    this.shown = holds;
    // By the host's clock, not the reader's.
    write(find("anomaly-age"), ` for ${lasting(Math.max(newest[1] - began(holds), 0))}`);
    for (const { column, cell } of this.now) {
      const value = column && valueOf(newest, column);
      write(cell, level(value));
      mark(cell, "data-value", JSON.stringify(value));
    }
  }

  build(holds) {
    const { store } = this;
    write(find("anomaly-sentence"), `${holds.sentence}.`);
    write(
      find("anomaly-note"),
      `Surprise ${level(holds.surprise)}: of normal moments here, ${odds(holds.surprise)} is as strange.`,
    );
    this.now = holds.channels.map(({ name }) => ({
      column: store.named(`state.surprise.channels.${name}`),
      cell: make("td"),
    }));
    const rows = holds.channels.map((channel, at) =>
      make(
        "tr",
        { "data-channel": channel.name },
        make("th", { scope: "row" }, words(channel.name)),
        make("td", {}, read(channel.observed, channel.name, store)),
        make("td", {}, expected(channel, store)),
        make("td", {}, level(channel.surprise)),
        this.now[at].cell,
      ),
    );
    const head = HEAD.map((title) => make("th", { scope: "col" }, title));
    find("anomaly-channels").replaceChildren(
      make("thead", {}, make("tr", {}, ...head)),
      make("tbody", {}, ...rows),
    );
    find("anomaly-channels").hidden = !rows.length;
  }
}
