// Surprise: how far each channel is from what the network expects of it.

import { Axis } from "./axis.js";
import { colour } from "./colours.js";
import { bodyOf, find, make, write } from "./elements.js";
import { written } from "./format.js";
import { dot, extent, fill, pieces, stroke } from "./lines.js";
import { Plot } from "./plot.js";
import { Reading } from "./reading.js";
import { shapeOf, valueOf } from "./store.js";

/** The scale goes at least so far, or a calm host would look excited. */
const LEAST = 0.1;

const isTotal = ({ name }) => name.endsWith(".total");

export class Surprise {
  constructor(screen) {
    this.screen = screen;
    this.store = screen.store;
    this.body = bodyOf("surprise");
    this.lanes = [];
    this.high = LEAST;
  }

  update(changes) {
    if (changes.has("hello") || changes.has("columns")) this.build();
    if (changes.has("rows") || changes.has("hello")) this.measure();
    this.axis?.update();
    const row = this.store.newest;
    for (const lane of this.lanes) lane.reading.show(valueOf(row, lane.column));
  }

  build() {
    const all = this.store.columns.filter((column) => column.group === "surprise");
    const shown = this.store.measured("surprise");
    this.absent = all
      .filter((column) => !shown.includes(column) && !isTotal(column))
      .map(({ label }) => label);
    const shape = shapeOf(shown);
    if (shape === this.shape) return;
    this.shape = shape;
    this.screen.clear(this.body);
    this.lanes = shown.map((column) => this.lane(column));
    this.axis = new Axis(this.store);
    this.body.append(
      make("div", { "data-charts": true }, ...this.lanes.map(({ element }) => element)),
      make("div", { class: "lane" }, make("span"), this.axis.element),
    );
    this.lanes[0]?.plot.slider.setAttribute("tabindex", "0");
  }

  measure() {
    const highs = this.lanes.map(({ column }) => extent(this.store.rows, column)?.[1] ?? 0);
    this.high = Math.min(Math.max(LEAST, Math.ceil(Math.max(0, ...highs) * 10) / 10), 1);
    const absent = this.absent?.length ? ` Not measured here: ${this.absent.join(", ")}.` : "";
    write(
      find("surprise-note"),
      `How far each channel is from what was expected of it; the scale goes from 0 to ${this.high}.${absent}`,
    );
  }

  lane(column) {
    const total = isTotal(column);
    const plot = new Plot(this.screen, {
      name: `surprise, ${column.label}`,
      kind: "low",
      paint: (pen, of) => this.paint(pen, of, column, total ? "--ink" : "--series"),
      summary: () => this.summary(column),
      lines: (row) => [[column.label, written(valueOf(row, column), column)]],
    });
    const reading = new Reading(column);
    const element = make(
      "div",
      { class: total ? "lane total" : "lane" },
      make("h3", { class: "title" }, column.label),
      plot.element,
      reading.element,
    );
    return { column, plot, reading, element };
  }

  paint(pen, plot, column, name) {
    const y = (value) => plot.height - 1 - (Math.min(value, this.high) / this.high) * (plot.height - 3);
    const found = pieces(plot, column, y);
    const ink = colour(name);
    pen.globalAlpha = 0.25;
    fill(pen, found, { ink, base: plot.height - 1 });
    pen.globalAlpha = 1;
    stroke(pen, found, { ink, width: 1.25 });
    dot(pen, plot, column, y, ink);
  }

  summary(column) {
    const now = written(valueOf(this.store.newest, column), column);
    const high = extent(this.store.rows, column)?.[1] ?? null;
    return `Surprise of ${column.label} over ten minutes: now ${now}, at most ${written(high, column)}`;
  }
}
