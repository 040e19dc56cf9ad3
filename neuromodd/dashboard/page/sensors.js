// The sensors: those that measure or should, in a table; those that find nothing here, folded away with the
// reason.

import { make, write } from "./elements.js";
import { count } from "./format.js";
import { state } from "./state.js";

const KINDS = { failed: "bad", hung: "warn", ok: "good" };

const ORDER = Object.keys(KINDS);

export class Sensors {
  constructor() {
    const head = ["Sensor", "State", "ms", "Failures"].map((title) => make("th", { scope: "col" }, title));
    this.rows = make("tbody");
    this.table = make("table", { class: "sensors" }, make("thead", {}, make("tr", {}, ...head)), this.rows);
    this.summary = make("summary");
    this.absent = make("dl", { class: "absent" });
    this.folded = make("details", {}, this.summary, this.absent);
    this.element = make("div", {}, this.table, this.folded);
  }

  /** Show the statuses of `health`, those in trouble first. */
  show(statuses) {
    const all = Object.entries(statuses);
    const absent = all.filter(([, { state: of }]) => of === "absent");
    const present = all.filter(([, { state: of }]) => of !== "absent");
    present.sort(([, one], [, other]) => ORDER.indexOf(one.state) - ORDER.indexOf(other.state));
    this.table.hidden = !present.length;
    this.folded.hidden = !absent.length;
    this.rows.replaceChildren(...present.map(row));
    write(this.summary, `${absent.length} ${absent.length === 1 ? "finds" : "find"} nothing to measure here`);
    this.absent.replaceChildren(...absent.map(reason));
  }
}

function row([name, { state: of, duration_ms: took, failures, error }]) {
  return make(
    "tr",
    { "data-sensor": name },
    make("th", { scope: "row" }, name, error ? make("span", { class: "error" }, ` ${error}`) : null),
    make("td", {}, state(KINDS[of] ?? "warn", of)),
    make("td", {}, took === null ? "–" : took.toFixed(1)),
    make("td", {}, count(failures)),
  );
}

function reason([name, { error }]) {
  // Most begin with the sensor's own name.
  const why = (error ?? "nothing found").replace(`${name}: `, "");
  return make("div", { "data-sensor": name }, make("dt", {}, name), make("dd", {}, why));
}
