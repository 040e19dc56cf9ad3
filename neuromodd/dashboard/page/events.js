// Rewards and faults: a strip on the time axis, and a list with what speaks for each.

import { Axis, Canvas } from "./canvas.js";
import { find, make } from "./elements.js";
import { lasting, short, utc, when } from "./format.js";

const known = (value, text) => (value === null || value === undefined ? null : text(value));

function joined(parts) {
  return parts.filter((part) => part !== null && part !== "").join(", ");
}

const REWARDS = {
  WorkAccepted: (of) => [
    "Work accepted",
    joined([known(of.units, (units) => `${short(units)} units`), known(of.source, (source) => `by ${source}`), known(of.latency_ms, (ms) => `${short(ms)} ms`)]),
  ],
  BreakthroughFound: (of) => [
    "Breakthrough",
    joined([known(of.metric, (metric) => metric), known(of.value, (value) => short(value)), known(of.previous_best, (best) => `the best before was ${short(best)}`)]),
  ],
  SourceSwitch: (of) => ["Source switched", `from ${of.previous ?? "none"} to ${of.current ?? "none"}`],
};

/** Title, words and evidence of an event, and what it is: a reward, a fault, or the end of one. */
export function told({ topic, payload }) {
  if (topic === "reward") {
    const [title, words] = (REWARDS[payload.kind] ?? (() => [payload.kind, ""]))(payload);
    const origin = payload.origin === "external" ? "told from outside" : "";
    return { kind: "reward", title, words: joined([words, origin]), evidence: [] };
  }
  const well = payload.code === "STATUS_OK";
  const share = `${Math.round(payload.confidence * 100)} %`;
  return {
    kind: well ? "well" : "fault",
    title: well ? "No fault" : `${payload.class} (${payload.code})`,
    words: well ? `by the ${share} of the rules that have readings here` : `confidence ${share}`,
    evidence: payload.evidence,
  };
}

const MARKS = { reward: "●", fault: "▲", well: "○" };

export class Events {
  constructor(section, store) {
    this.store = store;
    this.list = section.querySelector("ol");
    this.canvas = new Canvas(22);
    this.axis = new Axis();
    section.querySelector(".strip").append(this.canvas.element, this.axis.element);
  }

  /** All of them anew. */
  reset() {
    this.list.replaceChildren();
    for (const event of this.store.events) this.add(event);
  }

  add(event) {
    const { kind, title, words, evidence } = told(event);
    const seconds = Date.parse(event.payload.time_utc) / 1000;
    const item = make(
      "li",
      { class: kind, "data-id": event.payload.id },
      make("span", { class: "mark", "aria-hidden": "true" }, MARKS[kind]),
      make("time", { datetime: event.payload.time_utc, title: utc(seconds) }, when(seconds)),
      make("strong", {}, title),
      words ? make("span", {}, ` ${words}`) : null,
    );
    if (evidence.length) {
      const lines = evidence.map((of) => make("li", {}, make("code", {}, of.reading), ` ${of.value}: ${of.rule}`));
      item.append(make("ul", { class: "evidence", "aria-label": "Evidence" }, ...lines));
    }
    this.list.prepend(item);
    while (this.list.children.length > this.store.events.length) this.list.lastChild.remove();
    find("no-events").hidden = true;
  }

  draw(colours) {
    const { canvas, store } = this;
    if (!canvas.begin()) return;
    const context = canvas.context;
    context.fillStyle = colours.base;
    context.fillRect(0, canvas.height - 1, canvas.width, 1);
    context.font = "13px system-ui, sans-serif";
    context.textAlign = "center";
    for (const event of store.events) {
      const time = Date.parse(event.payload.time_utc) / 1000;
      // Of a time ahead of the host's, if its clock was set back.
      if (time < store.span[0] || time > store.span[1] + store.gap) continue;
      const { kind } = told(event);
      context.fillStyle = { reward: colours.good, fault: colours.alarm, well: colours.ink }[kind];
      context.fillText(MARKS[kind], Math.min(Math.max(canvas.x(time, store.span), 6), canvas.width - 6), 15);
    }
    canvas.cursor(store.cursor, store.span, colours.cursor);
    this.axis.draw(store.span);
  }
}

/** What the badge of the fault that holds says. */
export function badge(fault, now) {
  if (!fault || fault.code === "STATUS_OK") return "";
  if (!fault.since_utc) return fault.code;
  // By the host's clock, not the reader's.
  return `${fault.code} for ${lasting(Math.max(now - Date.parse(fault.since_utc) / 1000, 0))}`;
}
