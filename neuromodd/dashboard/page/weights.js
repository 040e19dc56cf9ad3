// The weights as a table that is a heat map, with what has changed in words and signs.

import { find, make, say } from "./elements.js";
import { minute } from "./format.js";

const FULL = 1.5;
const TOLD = 0.005;
const MARKED = 0.1;

export class Weights {
  constructor(place) {
    this.place = place;
    this.cells = [];
  }

  set(weights, dimensions) {
    if (!weights) return;
    const { now, before, channels } = weights;
    if (this.cells.length !== now.length || this.cells[0]?.length !== now[0].length) this.build(now, channels);
    const since = Date.parse(weights.before_utc) / 1000;
    now.forEach((row, neuron) =>
      row.forEach((weight, channel) => {
        const change = before ? weight - before[neuron][channel] : 0;
        this.fill(this.cells[neuron][channel], weight, change);
      }),
    );
    const some = now.length < dimensions.lif_neurons ? ` The first ${now.length} of ${dimensions.lif_neurons.toLocaleString()} neurons.` : "";
    say(
      find("weights-note"),
      `How much each neuron listens to each channel; below it what has changed since ${minute(since)}.${some}`,
    );
  }

  build(now, channels) {
    const name = (at) => channels[at % channels.length].replaceAll("_", " ");
    const head = make("tr", {}, make("td"), ...now[0].map((_, at) => make("th", { scope: "col" }, make("span", {}, name(at)))));
    this.cells = [];
    const rows = now.map((row, neuron) => {
      const cells = row.map(() => make("td", {}, make("span"), make("small")));
      this.cells.push(cells);
      return make("tr", {}, make("th", { scope: "row" }, name(neuron)), ...cells);
    });
    const label = "Weights: a row a neuron, a column a channel";
    this.place.replaceChildren(
      make("table", { class: "heat", "aria-label": label }, make("thead", {}, head), make("tbody", {}, ...rows)),
    );
  }

  fill(cell, weight, change) {
    const share = Math.min(Math.max(weight / FULL, 0), 1);
    cell.style.setProperty("--share", share.toFixed(3));
    cell.classList.toggle("strong", share > 0.5);
    say(cell.firstChild, weight.toFixed(2));
    cell.dataset.value = String(weight);
    const told = Math.abs(change) >= TOLD;
    cell.classList.toggle("changed", Math.abs(change) >= MARKED);
    say(cell.lastChild, told ? `${change > 0 ? "▲" : "▼"}${Math.abs(change).toFixed(2).replace(/^0/, "")}` : "");
  }
}
