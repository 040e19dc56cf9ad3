// The four modulators: level, tonic and phasic part, history.

import { Axis } from "./axis.js";
import { colour } from "./colours.js";
import { bodyOf, find, make, write } from "./elements.js";
import { range, written } from "./format.js";
import { dot, extent, fill, pieces, stroke } from "./lines.js";
import { Plot } from "./plot.js";
import { Reading } from "./reading.js";
import { shapeOf, valueOf } from "./store.js";

export class Modulators {
  constructor(screen) {
    this.screen = screen;
    this.store = screen.store;
    this.body = bodyOf("modulators");
    this.lanes = [];
    write(
      find("modulators-note"),
      "The level is the tonic part, from telemetry (dashed), and the phasic part, from rewards.",
    );
  }

  update(changes) {
    if (changes.has("hello")) this.build();
    this.axis?.update();
    for (const lane of this.lanes) lane.update();
  }

  build() {
    const columns = this.store.columns.filter(({ group }) => group === "modulators");
    const shape = shapeOf(columns);
    if (shape === this.shape) return;
    this.shape = shape;
    this.screen.clear(this.body);
    this.axis = new Axis(this.store);
    this.lanes = columns.map((column) => new Lane(this.screen, column));
    this.body.append(
      make("div", { "data-charts": true }, ...this.lanes.map(({ element }) => element)),
      make("div", { class: "lane broad" }, make("span"), this.axis.element),
    );
    this.lanes[0]?.plot.slider.setAttribute("tabindex", "0");
  }
}

class Lane {
  constructor(screen, column) {
    this.store = screen.store;
    this.column = column;
    const part = (kind) => this.store.named(column.name.replace("modulators.", `modulators.${kind}.`));
    this.tonic = part("tonic");
    this.parts = [
      ["tonic", this.tonic],
      ["phasic", part("phasic")],
    ].filter(([, of]) => of);
    this.readings = [column, ...this.parts.map(([, of]) => of)].map((of) => new Reading(of));
    this.plot = new Plot(screen, {
      name: column.label,
      kind: "tall",
      paint: (pen, plot) => this.paint(pen, plot),
      summary: () => this.summary(),
      lines: (row) => this.lines(row),
    });
    this.bar = make("span", { class: "bar" });
    this.element = make(
      "div",
      { class: "lane modulator", "data-ink": column.label },
      this.title(),
      this.plot.element,
      make("div", { class: "level" }, this.readings[0].element, make("span", { class: "meter" }, this.bar)),
    );
  }

  title() {
    const parts = this.parts.map(([kind], at) => make("li", {}, `${kind} `, this.readings[at + 1].element));
    return make(
      "div",
      { class: "title" },
      make("h3", {}, this.column.label),
      make("ul", { class: "parts" }, ...parts),
    );
  }

  update() {
    const row = this.store.newest;
    for (const reading of this.readings) reading.show(valueOf(row, reading.column));
    const { low, high } = this.column;
    const level = valueOf(row, this.column) ?? low;
    this.bar.style.width = `${(((level - low) / (high - low)) * 100).toFixed(1)}%`;
  }

  paint(pen, plot) {
    const ink = colour(`--${this.column.label}`);
    const { low, high } = this.column;
    const y = (value) => plot.height - 3 - ((value - low) / (high - low)) * (plot.height - 6);
    pen.fillStyle = colour("--grid");
    for (const share of [0, 0.5, 1])
      pen.fillRect(0, Math.round(y(low + share * (high - low))), plot.width, 1);
    const found = pieces(plot, this.column, y);
    pen.globalAlpha = 0.13;
    fill(pen, found, { ink, base: y(low) });
    pen.globalAlpha = 1;
    const dashed = { ink: colour("--faint"), width: 1, dash: [3, 3] };
    if (this.tonic) stroke(pen, pieces(plot, this.tonic, y), dashed);
    stroke(pen, found, { ink, width: 2 });
    dot(pen, plot, this.column, y, ink);
    this.paintScale(pen, y);
  }

  paintScale(pen, y) {
    const { low, high } = this.column;
    pen.font = `10px ${colour("--font")}`;
    pen.fillStyle = colour("--muted");
    pen.textBaseline = "top";
    pen.fillText(high, 2, y(high) + 2);
    pen.textBaseline = "alphabetic";
    pen.fillText(low, 2, y(low) - 2);
  }

  summary() {
    const seen = extent(this.store.rows, this.column);
    if (!seen) return `${this.column.label}: no history yet`;
    const now = written(valueOf(this.store.newest, this.column), this.column);
    return `${this.column.label} over ten minutes: now ${now}, from ${range(...seen, this.column)}`;
  }

  lines(row) {
    const of = (column) => written(valueOf(row, column), column);
    return [[this.column.label, of(this.column)], ...this.parts.map(([kind, column]) => [kind, of(column)])];
  }
}
