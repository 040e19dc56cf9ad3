// Telemetry: a card for each part of the host, a line with its history for each reading.

import { colour } from "./colours.js";
import { bodyOf, find, make, write } from "./elements.js";
import { parts, range, short, written } from "./format.js";
import { dot, extent, fill, pieces, scale, stroke } from "./lines.js";
import { Plot } from "./plot.js";
import { Reading } from "./reading.js";
import { shapeOf, valueOf } from "./store.js";

const TITLES = {
  cpu: "CPU",
  memory: "Memory",
  gpus: "GPU",
  power: "Power",
  thermal: "Temperatures",
  fans: "Fans",
  voltages: "Voltages",
  pressure: "Pressure stall",
  disk: "Disk",
  network: "Network",
  limits: "Limits",
  work: "Work",
  fpga: "FPGA",
  frame: "Tick",
};

/** What the groups are called in a list of what is missing. */
const ABSENT = {
  ...Object.fromEntries(Object.entries(TITLES).map(([group, title]) => [group, title.toLowerCase()])),
  cpu: "CPU",
  fpga: "FPGA",
  gpus: "GPUs",
  limits: "limits of a container",
};

export class Telemetry {
  constructor(screen) {
    this.screen = screen;
    this.store = screen.store;
    this.body = bodyOf("telemetry");
    this.lines = [];
  }

  update(changes) {
    if (changes.has("hello") || changes.has("columns")) this.build();
    const row = this.store.newest;
    const moved = changes.has("rows") || changes.has("hello");
    for (const line of this.lines) {
      line.reading.show(valueOf(row, line.column));
      if (moved) line.measure(this.store.rows);
    }
  }

  build() {
    const cards = this.cards();
    this.note(cards);
    const shape = shapeOf(cards.flatMap(({ columns }) => columns));
    if (shape === this.shape) return;
    this.shape = shape;
    this.screen.clear(this.body);
    this.lines = [];
    this.body.append(...cards.map((card) => this.card(card)));
  }

  note(cards) {
    const there = new Set(cards.map(({ group }) => group));
    const missing = Object.keys(ABSENT)
      .filter((group) => !there.has(group))
      .map((group) => ABSENT[group]);
    const absent = missing.length
      ? ` Not measured on this host: ${missing.join(", ")}; “neuromodd doctor” says why.`
      : "";
    write(find("telemetry-note"), `Beside each line its highest and lowest of ten minutes.${absent}`);
  }

  /** What has ever been measured, by group, each GPU for itself. */
  cards() {
    const groups = this.store.columns
      .filter(({ name }) => name.startsWith("telemetry."))
      .map(({ group }) => group);
    const order = new Set([...Object.keys(TITLES), ...groups]);
    return [...order].flatMap((group) => {
      const devices = new Map();
      for (const column of this.store.measured(group)) {
        const device = group === "gpus" ? (/\[(.*)\]/.exec(column.name)?.[1] ?? "") : "";
        devices.set(device, [...(devices.get(device) ?? []), column]);
      }
      return [...devices].map(([device, columns]) => ({ group, device, columns }));
    });
  }

  card({ group, device, columns }) {
    const title = `${TITLES[group] ?? group}${device ? ` ${device}` : ""}`;
    const shown = columns.map((column) => new Line(this.screen, column, title));
    shown[0].plot.slider.setAttribute("tabindex", "0");
    this.lines.push(...shown);
    return make(
      "section",
      { class: "card", "aria-label": title },
      make("h3", {}, title),
      make("ul", { "data-charts": true }, ...shown.map((line) => line.element)),
    );
  }
}

class Line {
  constructor(screen, column, title) {
    this.store = screen.store;
    this.column = column;
    this.label = column.label.startsWith(`${title} `) ? column.label.slice(title.length + 1) : column.label;
    this.title = title;
    this.reading = new Reading(column);
    this.seen = null;
    this.ends = [make("span"), make("span")];
    this.plot = new Plot(screen, {
      name: `${title}, ${this.label}`,
      kind: "spark",
      paint: (pen, plot) => this.paint(pen, plot),
      summary: () => this.summary(),
      lines: (row) => [[this.label, written(valueOf(row, column), column)]],
    });
    this.element = make(
      "li",
      { class: "line" },
      make("span", { class: "name" }, this.label),
      this.reading.element,
      this.plot.element,
      make("span", { class: "ends", "aria-hidden": "true" }, ...this.ends),
    );
  }

  measure(rows) {
    this.seen = extent(rows, this.column);
    const [low, high] = this.seen ?? [0, 0];
    const [least, most] = [low, high].map((value) => parts(value, this.column)[0]);
    const still = least === most && parts(low, this.column)[1] === parts(high, this.column)[1];
    write(this.ends[0], still ? "" : short(high, this.column));
    write(this.ends[1], still ? "" : short(low, this.column));
  }

  paint(pen, plot) {
    const [low, high] = scale(this.column, this.seen);
    const y = (value) => plot.height - 2 - ((value - low) / (high - low)) * (plot.height - 4);
    const found = pieces(plot, this.column, y);
    pen.fillStyle = colour("--grid");
    pen.fillRect(0, plot.height - 1, plot.width, 1);
    if (this.column.low !== null) {
      pen.globalAlpha = 0.14;
      fill(pen, found, { ink: colour("--series"), base: y(low) });
      pen.globalAlpha = 1;
    }
    stroke(pen, found, { ink: colour("--series"), width: 1.25 });
    dot(pen, plot, this.column, y, colour("--series"));
  }

  summary() {
    const of = `${this.title}, ${this.label}, over ten minutes`;
    if (!this.seen) return `${of}: not measured`;
    const now = written(valueOf(this.store.newest, this.column), this.column);
    return `${of}: now ${now}, from ${range(...this.seen, this.column)}`;
  }
}
