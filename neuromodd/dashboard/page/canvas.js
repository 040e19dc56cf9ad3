// Canvases that are sharp on every display, and the common time axis.

import { make } from "./elements.js";
import { minute } from "./format.js";

export class Canvas {
  constructor(height) {
    this.element = make("canvas", { "aria-hidden": "true" });
    this.element.style.height = `${height}px`;
    this.height = height;
    this.width = 0;
    this.context = this.element.getContext("2d");
  }

  /** Clear it, and fit it to its place; false while it has none. */
  begin() {
    const width = this.element.clientWidth;
    const scale = window.devicePixelRatio || 1;
    if (!width) return false;
    if (this.element.width !== Math.round(width * scale) || this.element.height !== Math.round(this.height * scale)) {
      this.element.width = Math.round(width * scale);
      this.element.height = Math.round(this.height * scale);
    }
    this.width = width;
    this.context.setTransform(scale, 0, 0, scale, 0, 0);
    this.context.clearRect(0, 0, width, this.height);
    return true;
  }

  x(time, [begin, end]) {
    return ((time - begin) / (end - begin || 1)) * this.width;
  }

  /** A vertical line where the reader points. */
  cursor(time, span, colour) {
    if (time === null) return;
    const x = Math.min(Math.max(Math.round(this.x(time, span)), 0), this.width - 1);
    this.context.fillStyle = colour;
    this.context.fillRect(x, 0, 1, this.height);
  }

  /** A line through the values of a column, interrupted where there is none or where time is missing. */
  line(rows, value, span, [low, high], gap, colour) {
    const context = this.context;
    const room = this.height - 4;
    const y = (of) => this.height - 2 - ((Math.min(Math.max(of, low), high) - low) / (high - low || 1)) * room;
    context.beginPath();
    let before = null;
    let alone = null;
    const dot = () => {
      if (alone) context.rect(alone[0] - 0.75, alone[1] - 0.75, 1.5, 1.5);
    };
    for (const row of rows) {
      const of = value(row);
      if (of === null) {
        dot();
        before = alone = null;
        continue;
      }
      const at = [this.x(row[1], span), y(of)];
      if (before !== null && row[1] - before <= gap) {
        context.lineTo(...at);
        alone = null;
      } else {
        dot();
        context.moveTo(...at);
        alone = at;
      }
      before = row[1];
    }
    dot();
    context.strokeStyle = colour;
    context.lineWidth = 1.25;
    context.lineJoin = "round";
    context.stroke();
  }
}

/** The colours of the style sheet, which differ by light and dark. */
export function colours() {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(
    ["line", "base", "cursor", "ink", "alarm", "good", "paper"].map((name) => [name, style.getPropertyValue(`--${name}`).trim()]),
  );
}

/** Three times of day below a chart. */
export class Axis {
  constructor() {
    this.places = [make("span"), make("span"), make("span")];
    this.element = make("p", { class: "axis quiet", "aria-hidden": "true" }, ...this.places);
  }

  draw([begin, end]) {
    [begin, (begin + end) / 2, end].forEach((time, at) => {
      this.places[at].textContent = end ? minute(time) : "";
    });
  }
}
