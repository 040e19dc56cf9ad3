// A chart over time: a sharp canvas, described in words, and a slider over it that reads it out.

import { episodes } from "./anomalies.js";
import { clock } from "./clock.js";
import { colour } from "./colours.js";
import { make, mark } from "./elements.js";

const MINUTE_S = 60;

/** The words of a chart are renewed no more often: nobody reads them by the second. */
const WORDS_MS = 5000;

/** From one stroke of a hatching to the next. */
const HATCH_PX = 7;

const KEYS = {
  ArrowLeft: (plot, event) => plot.step(event.shiftKey ? -10 : -1),
  ArrowRight: (plot, event) => plot.step(event.shiftKey ? 10 : 1),
  PageUp: (plot) => plot.leap(MINUTE_S),
  PageDown: (plot) => plot.leap(-MINUTE_S),
  Home: (plot) => plot.step(-Infinity),
  End: (plot) => plot.step(Infinity),
  ArrowUp: (plot) => plot.choose(-1),
  ArrowDown: (plot) => plot.choose(1),
  Escape: (plot) => plot.release(),
};

export class Plot {
  /**
   * `name` is what it shows, `kind` its height. `paint(pen, plot)` draws it, `summary()` says it in words,
   * `lines(row)` are names and texts of what it says at an instant. `choose(step)` goes to another line of
   * it and is false where there is none.
   */
  constructor(screen, { name, kind, paint, summary, lines, choose }) {
    Object.assign(this, {
      screen,
      paint,
      summary,
      lines,
      choose: (step) => choose?.(step) || this.leave(step),
    });
    this.canvas = make("canvas", { role: "img", "aria-label": name });
    this.slider = make("div", {
      class: "slider",
      role: "slider",
      tabindex: "-1",
      "aria-label": `${name}, over time`,
      "aria-valuemin": 0,
      "aria-valuemax": 0,
      "aria-valuenow": 0,
      "aria-valuetext": "now",
    });
    this.element = make("div", { class: `plot ${kind}` }, this.canvas, this.slider);
    this.width = this.height = 0;
    this.described = -Infinity;
    this.listen();
    screen.add(this);
  }

  get store() {
    return this.screen.store;
  }

  listen() {
    const { cursor } = this.screen;
    this.slider.addEventListener("pointermove", (event) => this.follow(event));
    this.slider.addEventListener("pointerdown", (event) => this.follow(event));
    this.slider.addEventListener("pointerleave", () => cursor.point(null, this));
    this.slider.addEventListener("blur", () => cursor.point(null, this));
    this.slider.addEventListener("keydown", (event) => {
      if (!KEYS[event.key] || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      KEYS[event.key](this, event);
    });
  }

  /** Where an instant is, in pixels from the left. */
  x(time) {
    const [begin, end] = this.store.span;
    return ((time - begin) / (end - begin)) * this.width;
  }

  /** The row that is pointed at; null if none is. */
  pointed() {
    const { time } = this.screen.cursor;
    return time === null ? null : (this.store.rows[this.store.nearest(time)] ?? null);
  }

  follow(event) {
    const [begin, end] = this.store.span;
    this.under = event.offsetY;
    const row = this.store.rows[this.store.nearest(begin + (event.offsetX / this.width) * (end - begin))];
    if (row) this.screen.cursor.point(row[1], this);
  }

  /** Go some rows on, from now if nothing is pointed at. */
  step(rows) {
    const { store, screen } = this;
    if (!store.newest) return;
    const last = store.rows.length - 1;
    const at = screen.cursor.time === null ? last : store.nearest(screen.cursor.time);
    this.read(store.rows[Math.min(Math.max(at + rows, 0), last)]);
  }

  leap(seconds) {
    const row = this.pointed() ?? this.store.newest;
    if (row) this.read(this.store.rows[this.store.nearest(row[1] + seconds)]);
  }

  /** Point at a row, and say what it says to who cannot see it. */
  read(row) {
    const [begin] = this.store.span;
    const said = this.lines(row)
      .map(([name, text]) => (name ? `${name} ${text}` : text))
      .join(", ");
    mark(this.slider, "aria-valuemax", String(this.store.window));
    mark(this.slider, "aria-valuenow", String(Math.round(row[1] - begin)));
    mark(this.slider, "aria-valuetext", `${said}, at ${clock.second(row[1])}`);
    this.screen.cursor.point(row[1], this);
  }

  release() {
    mark(this.slider, "aria-valuetext", "now");
    this.screen.cursor.point(null, this);
  }

  /** Go to the chart above or below, in the same section. */
  leave(step) {
    const sliders = [...this.slider.closest("[data-charts]").querySelectorAll(".slider")];
    const next = sliders[sliders.indexOf(this.slider) + step];
    if (!next) return;
    const row = this.pointed();
    next.focus();
    if (row) this.screen.of(next)?.read(row);
  }

  /** Draw it all, if it can be seen. */
  draw() {
    const ratio = devicePixelRatio || 1;
    const [width, height] = [Math.round(this.width * ratio), Math.round(this.height * ratio)];
    if (!width || !height) return;
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
    const pen = this.canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, this.width, this.height);
    this.drawTime(pen);
    this.paint(pen, this);
    this.drawCursor(pen);
  }

  /** Say in words what it shows, whether it is in sight or not. */
  describe() {
    const now = performance.now();
    // While the history comes in, they would be of its first part.
    if (!this.store.complete) this.described = -Infinity;
    if (!this.store.complete || now - this.described < WORDS_MS) return;
    this.described = now;
    mark(this.canvas, "aria-label", this.summary());
  }

  drawTime(pen) {
    pen.fillStyle = colour("--gap");
    for (const [from, to] of this.store.gaps) {
      const left = Math.max(this.x(from), 0);
      pen.fillRect(left, 0, this.x(to) - left, this.height);
    }
    for (const { from, to } of episodes(this.store)) this.drawEpisode(pen, from, to);
    pen.fillStyle = colour("--grid");
    for (const tick of ticks(this.store.span)) pen.fillRect(Math.round(this.x(tick)), 0, 1, this.height);
  }

  /** The span of an anomaly: shaded, hatched and with edges, to be told from a gap without colours. */
  drawEpisode(pen, from, to) {
    const [left, right] = [Math.max(this.x(from), 0), Math.min(this.x(to), this.width)];
    if (right < 0 || left > this.width) return;
    const width = Math.max(right - left, 2);
    pen.fillStyle = colour("--anomaly-ground");
    pen.fillRect(left, 0, width, this.height);
    if (width > HATCH_PX) this.hatch(pen, left, width);
    pen.fillStyle = colour("--anomaly");
    pen.fillRect(left, 0, 1, this.height);
    if (right < this.width - 1) pen.fillRect(left + width - 1, 0, 1, this.height);
  }

  hatch(pen, left, width) {
    pen.save();
    pen.beginPath();
    pen.rect(left, 0, width, this.height);
    pen.clip();
    pen.strokeStyle = colour("--anomaly");
    pen.globalAlpha = 0.25;
    pen.beginPath();
    for (let x = left - this.height; x < left + width; x += HATCH_PX) {
      pen.moveTo(x, this.height);
      pen.lineTo(x + this.height, 0);
    }
    pen.stroke();
    pen.restore();
  }

  drawCursor(pen) {
    const row = this.pointed();
    if (!row) return;
    pen.fillStyle = colour("--cursor");
    pen.fillRect(Math.min(Math.round(this.x(row[1])), this.width - 1), 0, 1, this.height);
  }
}

/** The instants that the axis names: each second minute. */
export function ticks([begin, end]) {
  const step = Math.max(Math.round((end - begin) / 300), 1) * MINUTE_S;
  const found = [];
  for (let at = Math.ceil(begin / step) * step; at <= end; at += step) found.push(at);
  return found;
}
