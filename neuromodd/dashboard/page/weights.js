// The weights as two heat maps: what they are, and how they have changed.

import { clock, seconds } from "./clock.js";
import { bodyOf, find, make, write } from "./elements.js";
import { count, lasting, level, signed } from "./format.js";
import { HeatMap } from "./heatmap.js";

/** The least change that is worth a word; weights go from 0 to 2. */
const NOTABLE = 0.005;
const NAMED = 3;

export class Weights {
  constructor(screen) {
    this.screen = screen;
    this.store = screen.store;
    this.body = bodyOf("weights");
    this.shape = null;
  }

  update(changes) {
    if (!["hello", "weights", "look"].some((part) => changes.has(part))) return;
    const { weights } = this.store;
    write(find("weights-note"), weights ? this.note(weights) : "None are known yet.");
    if (!weights) {
      this.body.replaceChildren();
      this.shape = null;
      return;
    }
    const shape = JSON.stringify([weights.channels, weights.now.length]);
    if (shape !== this.shape) this.build(weights);
    this.shape = shape;
    this.fill(weights);
  }

  build({ channels, now }) {
    const columns = now[0].map((_, at) => (channels[at] ?? String(at)).replaceAll("_", " "));
    const rows = now.map((_, at) => this.neuron(at, now.length));
    const told = (column, row, text) => `${columns[column]} to ${rows[row]}: ${text}`;
    this.levels = new HeatMap({ name: "Weights now", rows, columns, kind: "sequential", told });
    this.deltas = new HeatMap({ name: "Change", rows, columns, kind: "diverging", told });
    this.changed = make("p", { class: "note" });
    this.body.replaceChildren(
      make("div", { class: "maps" }, this.levels.element, this.deltas.element),
      this.changed,
    );
  }

  neuron(at, all) {
    const label = this.store.named(`state.rates.lif.${at}`)?.label ?? "neuron";
    return all > 8 ? `${at} ${label}` : label;
  }

  note({ now }) {
    const all = this.store.daemon.dimensions?.lif_neurons ?? now.length;
    const which = all > now.length ? ` The first ${now.length} of ${count(all)} neurons.` : "";
    return `From each channel (column) to each LIF neuron (row).${which}`;
  }

  fill({ now, before, time_utc: at, before_utc: since }) {
    const most = Math.max(...now.flat(), 0.001);
    this.levels.fill(now, { most, text: (value) => value.toFixed(2), said: level });
    const deltas = before
      ? now.map((row, i) => row.map((value, j) => value - (before[i]?.[j] ?? value)))
      : null;
    const widest = Math.max(...(deltas ?? [[0]]).flat().map(Math.abs), NOTABLE * 2);
    const [from, to] = [seconds(since), seconds(at)];
    this.levels.title(`At ${clock.moment(to)}, from 0 to ${most.toFixed(2)}`);
    this.deltas.element.hidden = deltas === null;
    if (deltas === null) return write(this.changed, "Nothing is known of before.");
    // Without the 0 before the point, it fits on a phone.
    const brief = (value) => (Math.abs(value) < NOTABLE ? "·" : signed(value, 2).replace("0.", "."));
    this.deltas.fill(deltas, {
      most: widest,
      least: NOTABLE,
      text: brief,
      said: (value) => signed(value, 3),
    });
    this.deltas.title(`Change in ${lasting(Math.max(to - from, 0))}, up to ±${widest.toFixed(2)}`);
    return write(this.changed, this.greatest(deltas, from));
  }

  /** The greatest changes in words. */
  greatest(deltas, from) {
    const all = deltas.flatMap((row, i) => row.map((delta, j) => ({ delta, i, j })));
    const most = all
      .filter(({ delta }) => Math.abs(delta) >= NOTABLE)
      .sort((one, other) => Math.abs(other.delta) - Math.abs(one.delta))
      .slice(0, NAMED);
    if (!most.length) return `No weight has changed notably since ${clock.moment(from)}.`;
    const { rows, columns } = this.deltas;
    const named = most.map(({ delta, i, j }) => `${columns[j]} → ${rows[i]} ${signed(delta, 3)}`);
    return `Most since ${clock.moment(from)}: ${named.join("; ")}.`;
  }
}
