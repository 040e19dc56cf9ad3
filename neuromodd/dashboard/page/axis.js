// The axis of time below charts: the times of day of its ticks. For the eye alone; each chart tells its times
// in words.

import { clock } from "./clock.js";
import { make, write } from "./elements.js";
import { ticks } from "./plot.js";

/** A time of day and the room around it. */
const LABEL_PX = 50;

export class Axis {
  constructor(store) {
    this.store = store;
    this.element = make("div", { class: "axis", "aria-hidden": "true" });
    this.width = 0;
    this.sizes = new ResizeObserver(([entry]) => {
      this.width = entry.contentRect.width;
      this.update();
    });
    this.sizes.observe(this.element);
  }

  update() {
    const { span } = this.store;
    const all = this.store.newest ? ticks(span) : [];
    const room = Math.max(Math.floor(this.width / LABEL_PX), 1);
    const every = Math.ceil(all.length / room) * ((all[1] ?? 0) - (all[0] ?? 0));
    const times = every ? all.filter((time) => time % every === 0) : all;
    const { children } = this.element;
    while (children.length > times.length) children[children.length - 1].remove();
    while (children.length < times.length) this.element.append(make("span"));
    times.forEach((time, at) => {
      const share = (time - span[0]) / (span[1] - span[0]);
      write(children[at], clock.minute(time));
      children[at].style.left = `${(share * 100).toFixed(3)}%`;
      children[at].hidden = share < 0.03 || share > 0.97;
    });
  }
}
