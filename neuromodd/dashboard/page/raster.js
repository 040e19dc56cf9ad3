// The spike raster: a line a neuron, a column a row of the history, the darker the more it fired.

import { Axis, Canvas } from "./canvas.js";
import { find, make, say } from "./elements.js";
import { clock } from "./format.js";
import { pointing } from "./pointing.js";

const LINE_PX = 14;
const GAP_PX = 6;
const FULL = 0.2;

const KINDS = { lif: "LIF", izhikevich: "Izhikevich" };

export class Raster {
  constructor(place, store, redraw) {
    this.store = store;
    this.canvas = new Canvas(1);
    this.axis = new Axis();
    this.names = make("ul", { class: "neurons" });
    this.element = make(
      "div",
      { class: "chart", tabindex: "0", role: "group", "aria-label": "Spikes: ten minutes, arrow keys read them out" },
      make("div", { class: "raster-body" }, this.names, make("div", { class: "raster-field" }, this.canvas.element)),
      this.axis.element,
    );
    place.append(this.element);
    pointing(this.element, store, {
      area: () => this.canvas.element.getBoundingClientRect(),
      lines: () => this.columns ?? [],
      words: (column, row) => {
        const rate = store.value(row, column.place);
        return `${column.title} ${rate === null ? "no value" : `${rate.toFixed(3)} spikes a step`}`;
      },
      redraw,
    });
  }

  set(columns, dimensions) {
    const names = [...columns.map((column) => [column.place, column.name]), ...Object.values(dimensions)].join();
    if (names === this.shownNames) return;
    this.shownNames = names;
    let y = 0;
    let before = null;
    this.columns = columns.map((column) => {
      const kind = column.name.split(".")[2];
      if (before !== null && kind !== before) y += GAP_PX;
      before = kind;
      const line = { ...column, kind, y, title: `${KINDS[kind]} ${column.name.split(".")[3]}, ${column.label}` };
      y += LINE_PX;
      return line;
    });
    this.canvas.height = y;
    this.canvas.element.style.height = `${y}px`;
    this.names.replaceChildren(
      ...this.columns.map((column, at) => {
        const first = at > 0 && this.columns[at - 1].kind !== column.kind;
        return make("li", { title: column.title, class: first ? "next" : null }, column.label);
      }),
    );
    const count = (kind) => this.columns.filter((column) => column.kind === kind).length;
    const parts = [
      [count("lif"), dimensions.lif_neurons, "LIF"],
      [count("izhikevich"), dimensions.izhikevich_neurons, "Izhikevich"],
    ].map(([some, all, name]) => (some < all ? `the first ${some} of ${all.toLocaleString()} ${name} neurons` : `${all} ${name} neurons`));
    say(find("raster-scale"), `Black is a spike in every ${Math.round(1 / FULL)}th step of 1 ms, or more. From the top: ${parts.join(", ")}.`);
  }

  draw(colours) {
    const { store, canvas } = this;
    if (!this.columns || !canvas.begin()) return;
    const context = canvas.context;
    const width = Math.max((canvas.width * (store.hello.row_interval_s ?? 1)) / (store.hello.window_s ?? 600), 1);
    context.fillStyle = colours.base;
    for (const column of this.columns) context.fillRect(0, column.y + LINE_PX - 1, canvas.width, 1);
    context.fillStyle = colours.ink;
    for (const row of store.rows) {
      const x = canvas.x(row[1], store.span) - width;
      for (const column of this.columns) {
        const rate = row[column.place + 2] ?? 0;
        if (!rate) continue;
        // Dots of equal ink look equal: one spike has to be seen.
        context.globalAlpha = Math.min(0.25 + 0.75 * (rate / FULL), 1);
        context.fillRect(x, column.y + 1, Math.max(width - 0.25, 0.75), LINE_PX - 3);
      }
    }
    context.globalAlpha = 1;
    canvas.cursor(store.cursor, store.span, colours.cursor);
    this.axis.draw(store.span);
    const row = store.pointed;
    if (!row) return;
    const firing = this.columns.filter((column) => (row[column.place + 2] ?? 0) > 0).length;
    const at = store.cursor === null ? "" : ` at ${clock(row[1])}`;
    canvas.element.title = `${firing} of ${this.columns.length} neurons fired${at}`;
  }
}
