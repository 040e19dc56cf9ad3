// Rows of a name, a value and its last ten minutes: modulators, surprise, telemetry.

import { Axis, Canvas } from "./canvas.js";
import { make, say } from "./elements.js";
import { shown } from "./format.js";
import { pointing } from "./pointing.js";

/** The ends of a scale: those that the column tells, else what is seen, with room. */
export function scale(column, rows) {
  if (column.low !== null && column.high !== null) return [column.low, column.high];
  let low = Infinity;
  let high = -Infinity;
  for (const row of rows) {
    const value = row[column.place + 2] ?? null;
    if (value === null) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return [0, 1];
  if (column.low !== null) return [column.low, high > column.low ? high * 1.05 : column.low + 1];
  const room = Math.max((high - low) * 0.1, Math.abs(high) * 0.01, 1e-6);
  return [low - room, high + room];
}

class Line {
  constructor(column, height, level) {
    this.column = column;
    this.canvas = new Canvas(height);
    this.value = make("output", { "data-name": column.name });
    this.note = make("small");
    this.level = level ? make("span", { class: "level", "aria-hidden": "true" }, make("span")) : null;
    this.element = make(
      "tr",
      {},
      make("th", { scope: "row" }, column.label),
      make("td", { class: "value" }, this.value, this.note, this.level),
      make("td", { class: "trend" }, this.canvas.element),
    );
  }

  draw(store, colours, note) {
    const { column } = this;
    const row = store.pointed;
    const value = store.value(row, column.place);
    const newest = store.value(store.newest, column.place);
    say(this.value, shown(value, column));
    this.value.dataset.value = newest === null ? "" : String(newest);
    say(this.note, note ?? "");
    const ends = scale(column, store.rows);
    if (this.level) {
      const share = value === null ? 0 : (value - ends[0]) / (ends[1] - ends[0]);
      this.level.firstChild.style.width = `${Math.min(Math.max(share, 0), 1) * 100}%`;
    }
    const canvas = this.canvas;
    if (!canvas.begin()) return;
    canvas.context.fillStyle = colours.base;
    canvas.context.fillRect(0, canvas.height - 1, canvas.width, 1);
    canvas.line(store.rows, (of) => of[column.place + 2] ?? null, store.span, ends, store.gap, colours.line);
    canvas.cursor(store.cursor, store.span, colours.cursor);
  }
}

/** A table of such rows with a time axis, that arrow keys read out. */
export class Rows {
  constructor(place, store, { label, height = 28, level = false, note = () => null, redraw }) {
    this.store = store;
    this.options = { height, level };
    this.note = note;
    this.lines = [];
    this.axis = new Axis();
    this.body = make("tbody");
    const widths = make("colgroup", {}, make("col", { class: "name" }), make("col", { class: "number" }), make("col"));
    this.table = make("table", { class: "lines", "aria-label": label }, widths, this.body);
    this.element = make(
      "div",
      { class: "chart", tabindex: "0", role: "group", "aria-label": `${label}: ten minutes, arrow keys read them out` },
      this.table,
      this.axis.element,
    );
    place.append(this.element);
    pointing(this.element, store, {
      area: () => this.lines[0]?.canvas.element.getBoundingClientRect(),
      lines: () => this.lines,
      words: (line, row) => `${line.column.label} ${shown(store.value(row, line.column.place), line.column)}`,
      redraw,
    });
  }

  /** Show these columns. */
  set(columns) {
    // After a restart the same name may stand elsewhere.
    const names = columns.map((column) => [column.place, column.name, column.unit]).join();
    if (names === this.names) return;
    this.names = names;
    this.lines = columns.map((column) => new Line(column, this.options.height, this.options.level));
    this.body.replaceChildren(...this.lines.map((line) => line.element));
  }

  draw(colours) {
    for (const line of this.lines) line.draw(this.store, colours, this.note(line.column));
    this.axis.draw(this.store.span);
  }
}
