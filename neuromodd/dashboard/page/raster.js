// The spike raster: a line for each neuron, a stroke for each tick in which it fired. Height and depth grow
// with the root of its rate: one spike of a tick's twenty can be seen, and more are told from it.

import { Axis } from "./axis.js";
import { colour } from "./colours.js";
import { bodyOf, find, make, write } from "./elements.js";
import { count, level } from "./format.js";
import { extent } from "./lines.js";
import { Plot } from "./plot.js";
import { Reading } from "./reading.js";
import { shapeOf, valueOf } from "./store.js";

const LANE_PX = 17;
const LEAST_RATE = 0.1;

const KINDS = [
  ["lif", "LIF", "Above"],
  ["izhikevich", "Izhikevich", "below"],
];

function neuron(column, columns) {
  const [kind, number] = column.name.split(".").slice(-2);
  // Of a large network many neurons listen to the same.
  const twins = columns.filter(({ name, label }) => label === column.label && name.includes(`.${kind}.`));
  const name = twins.length > 1 ? `${number} ${column.label}` : column.label;
  return { column, kind, name, reading: new Reading(column) };
}

const label = ({ name, kind }) =>
  make("li", { "data-kind": kind }, name, make("span", { class: "unseen" }, `, ${kind}`));

export class Raster {
  constructor(screen) {
    this.screen = screen;
    this.store = screen.store;
    this.body = bodyOf("spikes");
    this.neurons = [];
    this.chosen = 0;
  }

  update(changes) {
    if (changes.has("hello")) this.build();
    if (changes.has("hello") || changes.has("rows") || changes.has("info")) this.measure();
    this.axis?.update();
    const row = this.store.newest;
    for (const { column, reading } of this.neurons) reading.show(valueOf(row, column));
  }

  build() {
    const columns = this.store.columns.filter(({ group }) => group === "rates");
    const shape = shapeOf(columns);
    if (shape === this.shape) return;
    this.shape = shape;
    this.screen.clear(this.body);
    this.neurons = columns.map((column) => neuron(column, columns));
    this.chosen = 0;
    this.plot = new Plot(this.screen, {
      name: "Spikes",
      kind: "raster",
      paint: (pen) => this.paint(pen),
      summary: () => this.summary(),
      lines: (row) => this.lines(row),
      choose: (step) => this.choose(step),
    });
    this.plot.slider.setAttribute("tabindex", "0");
    this.plot.element.style.height = `${this.neurons.length * LANE_PX}px`;
    this.axis = new Axis(this.store);
    this.body.append(
      make(
        "div",
        { class: "lane neurons", "data-charts": true },
        make("ol", { class: "title" }, ...this.neurons.map(label)),
        this.plot.element,
        make("ol", { class: "rates" }, ...this.neurons.map(({ reading }) => make("li", {}, reading.element))),
      ),
      make("div", { class: "lane" }, make("span"), this.axis.element),
    );
  }

  measure() {
    const highs = this.neurons.map(({ column }) => extent(this.store.rows, column)?.[1] ?? 0);
    this.high = Math.max(LEAST_RATE, ...highs);
    const { info, daemon } = this.store;
    const dimensions = daemon.dimensions ?? {};
    const shown = KINDS.map(([kind, name, where]) => {
      const there = this.neurons.filter((one) => one.kind === kind).length;
      const all = dimensions[`${kind}_neurons`] ?? there;
      return `${where} ${all > there ? `the first ${there} of ${count(all)}` : all} ${name} neurons`;
    });
    const steps = info.steps_per_tick ? ` in its ${info.steps_per_tick} steps` : "";
    write(
      find("spikes-note"),
      `${shown.join(", ")}. A stroke is a tick with spikes${steps}, the highest ${level(this.high)} a step.`,
    );
  }

  paint(pen) {
    const { plot, store } = this;
    const stroke = Math.max((store.interval / store.window) * plot.width * 0.8, 1);
    const pixel = 1 / (devicePixelRatio || 1);
    this.neurons.forEach(({ column, kind }, lane) => {
      const base = (lane + 1) * LANE_PX - 1;
      const ink = colour(kind === "lif" ? "--lif" : "--bank");
      pen.fillStyle = colour(this.firstOf(lane) ? "--edge" : "--grid");
      pen.fillRect(0, lane * LANE_PX - (lane ? pixel : 0), plot.width, pixel);
      pen.fillStyle = ink;
      for (const row of store.rows) {
        const rate = valueOf(row, column);
        if (!rate) continue;
        const share = Math.sqrt(rate / this.high);
        pen.globalAlpha = 0.35 + 0.65 * share;
        pen.fillRect(plot.x(row[1]) - stroke, base, stroke, -share * (LANE_PX - 3));
      }
      pen.globalAlpha = 1;
    });
    this.paintChosen(pen);
  }

  paintChosen(pen) {
    if (this.screen.cursor.plot !== this.plot) return;
    pen.strokeStyle = colour("--cursor");
    pen.lineWidth = 1;
    pen.strokeRect(0.5, this.pointedLane() * LANE_PX + 0.5, this.plot.width - 1, LANE_PX - 2);
  }

  firstOf(lane) {
    return lane > 0 && this.neurons[lane].kind !== this.neurons[lane - 1].kind;
  }

  pointedLane() {
    const { under } = this.plot;
    if (under !== undefined && under !== null) {
      this.chosen = Math.floor(under / LANE_PX);
      this.plot.under = null;
    }
    this.chosen = Math.min(Math.max(this.chosen, 0), this.neurons.length - 1);
    return this.chosen;
  }

  choose(step) {
    const next = this.pointedLane() + step;
    if (next < 0 || next >= this.neurons.length) return true;
    this.chosen = next;
    this.plot.read(this.plot.pointed() ?? this.store.newest);
    return true;
  }

  lines(row) {
    const { column, name, kind } = this.neurons[this.pointedLane()] ?? {};
    if (!column) return [];
    const sort = KINDS.find(([of]) => of === kind)?.[1] ?? kind;
    return [[`${name} (${sort})`, this.said(valueOf(row, column))]];
  }

  said(rate) {
    if (rate === null) return "not measured";
    const { info, interval } = this.store;
    const steps = Math.round((info.steps_per_tick ?? 0) * (interval / (info.interval_s || interval)));
    const spikes = Math.round(rate * steps);
    return steps
      ? `${spikes} ${spikes === 1 ? "spike" : "spikes"} in ${steps} steps`
      : `${level(rate)} a step`;
  }

  summary() {
    const row = this.store.newest;
    const firing = this.neurons.filter(({ column }) => valueOf(row, column) > 0).map(({ name }) => name);
    const now = firing.length ? `now firing: ${firing.join(", ")}` : "now none fires";
    return `Spikes of ${this.neurons.length} neurons over ten minutes; ${now}`;
  }
}
