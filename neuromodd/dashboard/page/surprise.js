// Surprise: how improbable the moment is on this host, in all and by channel.

import { episodes } from "./anomalies.js";
import { Axis } from "./axis.js";
import { colour } from "./colours.js";
import { bodyOf, find, make, write } from "./elements.js";
import { level, rarity, written } from "./format.js";
import { dot, extent, fill, pieces, stroke } from "./lines.js";
import { Plot } from "./plot.js";
import { Reading } from "./reading.js";
import { shapeOf, valueOf } from "./store.js";

/** The scale goes at least so far, or a calm host would look excited. */
const LEAST = 0.6;

const isTotal = ({ name }) => name === "state.surprise.total";

export class Surprise {
  constructor(screen) {
    this.screen = screen;
    this.store = screen.store;
    this.body = bodyOf("surprise");
    this.lanes = [];
    this.high = LEAST;
    this.odds = make("span", { class: "unit odds" });
  }

  update(changes) {
    if (changes.has("hello") || changes.has("columns")) this.build();
    if (changes.has("rows") || changes.has("hello")) this.measure();
    this.axis?.update();
    const row = this.store.newest;
    for (const { column, reading } of this.lanes) {
      const value = valueOf(row, column);
      reading.show(value);
      if (isTotal(column)) write(this.odds, value === null ? "" : rarity(value));
    }
  }

  build() {
    const all = this.store.columns.filter((column) => column.group === "surprise");
    const shown = this.store.measured("surprise");
    this.silent = all.filter((column) => !shown.includes(column)).map(({ label }) => label);
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
    const { surprise } = this.store;
    if (!surprise) return write(find("surprise-note"), "It is disabled (surprise.enabled).");
    const highs = this.lanes.map(({ column }) => extent(this.store.rows, column)?.[1] ?? 0);
    const most = Math.max(LEAST, surprise.threshold, ...highs);
    this.high = Math.min(Math.ceil(most * 10 - 1e-9) / 10, 1);
    const silent = this.silent?.length
      ? ` Not measured, or still being learned: ${this.silent.join(", ")}.`
      : "";
    return write(
      find("surprise-note"),
      "How rare such a moment is on this host: 0.3 is one in a thousand, 0.5 one in 100\u202f000. " +
        `From ${level(surprise.threshold)} in all (dashed) an anomaly begins; the time of one is hatched. ` +
        `Each line goes from 0 to ${this.high}.${silent}`,
    );
  }

  lane(column) {
    const total = isTotal(column);
    const plot = new Plot(this.screen, {
      name: `surprise, ${column.label}`,
      kind: total ? "tall" : "low",
      paint: (pen, of) => this.paint(pen, of, column),
      summary: () => this.summary(column),
      lines: (row) => this.lines(row, column),
    });
    const reading = new Reading(column);
    const value = total ? make("div", { class: "level" }, reading.element, this.odds) : reading.element;
    const element = make(
      "div",
      { class: total ? "lane total" : "lane" },
      make("h3", { class: "title", title: column.label }, column.label),
      plot.element,
      value,
    );
    return { column, plot, reading, element };
  }

  paint(pen, plot, column) {
    const total = isTotal(column);
    const y = (value) => plot.height - 1 - (Math.min(value, this.high) / this.high) * (plot.height - 3);
    const found = pieces(plot, column, y);
    const ink = colour(total ? "--ink" : "--series");
    pen.fillStyle = colour("--grid");
    pen.fillRect(0, plot.height - 1, plot.width, 1);
    pen.globalAlpha = 0.25;
    fill(pen, found, { ink, base: plot.height - 1 });
    pen.globalAlpha = 1;
    if (total) this.paintThreshold(pen, plot, y);
    stroke(pen, found, { ink, width: 1.25 });
    dot(pen, plot, column, y, ink);
  }

  paintThreshold(pen, plot, y) {
    const threshold = this.store.surprise?.threshold;
    if (threshold === undefined) return;
    const at = Math.round(y(threshold)) + 0.5;
    const line = [
      [0, at],
      [plot.width, at],
    ];
    stroke(pen, [line], { ink: colour("--anomaly"), width: 1, dash: [5, 3] });
    pen.font = `10px ${colour("--font")}`;
    pen.fillStyle = colour("--muted");
    pen.textBaseline = "bottom";
    pen.fillText(`${threshold}: an anomaly`, 2, at - 1);
    pen.textBaseline = "alphabetic";
  }

  lines(row, column) {
    const value = valueOf(row, column);
    const strange = episodes(this.store).some(({ from, to }) => from <= row[1] + 0.001 && to >= row[1]);
    return [
      [column.label, written(value, column)],
      ...(value === null ? [] : [["", rarity(value)]]),
      ...(strange ? [["", "an anomaly"]] : []),
    ];
  }

  summary(column) {
    const now = valueOf(this.store.newest, column);
    const high = extent(this.store.rows, column)?.[1] ?? null;
    const said = (value) => (value === null ? "not measured" : `${level(value)}, ${rarity(value)}`);
    return `Surprise of ${column.label} over ten minutes: now ${said(now)}; at most ${said(high)}`;
  }
}
