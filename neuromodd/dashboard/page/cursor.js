// The instant that the reader points at: one for all charts, so that they can be compared.

import { clock } from "./clock.js";
import { find, make } from "./elements.js";

export class Cursor {
  constructor(moved) {
    this.time = null;
    this.plot = null;
    this.moved = moved;
    this.tip = find("tip");
  }

  /** Point at an instant from a chart; null lets go. */
  point(time, plot) {
    if (time === null && this.plot !== plot && plot) return;
    this.time = time;
    this.plot = time === null ? null : plot;
    this.moved();
  }

  /** Let go of what has left the charts on the left. */
  forget(begin) {
    if (this.time !== null && this.time < begin) this.point(null, this.plot);
  }

  /** Write what the chart says of that instant beside it. */
  show() {
    const row = this.plot?.pointed();
    if (!row) {
      this.tip.hidden = true;
      return;
    }
    const lines = this.plot
      .lines(row)
      .map(([name, text]) =>
        make("p", {}, name ? make("span", { class: "key" }, name) : null, make("b", {}, text)),
      );
    this.tip.replaceChildren(make("p", { class: "when" }, clock.second(row[1])), ...lines);
    this.tip.hidden = false;
    this.place(row);
  }

  place(row) {
    const box = this.plot.element.getBoundingClientRect();
    const width = this.tip.offsetWidth;
    const at = box.left + this.plot.x(row[1]);
    const left = at + 14 + width > innerWidth - 8 ? at - 14 - width : at + 14;
    const above = box.top - this.tip.offsetHeight - 6;
    this.tip.style.left = `${Math.max(left, 8)}px`;
    this.tip.style.top = `${above > 4 ? above : box.bottom + 6}px`;
  }
}
