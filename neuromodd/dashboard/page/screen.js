// When things are drawn: at most once a frame, what can be seen and has changed.

import { whenTurned } from "./colours.js";
import { Cursor } from "./cursor.js";

export class Screen {
  constructor() {
    this.store = null;
    this.views = [];
    this.changes = new Set();
    this.plots = new Map();
    this.queued = false;
    this.cursor = new Cursor(() => this.change("cursor"));
    this.sizes = new ResizeObserver((entries) => entries.forEach((entry) => this.resized(entry)));
    this.sight = new IntersectionObserver((entries) => entries.forEach((entry) => this.sighted(entry)), {
      rootMargin: "120px",
    });
    whenTurned(() => this.change("look"));
    document.addEventListener("visibilitychange", () => this.queue());
    addEventListener("resize", () => this.change("look"));
    addEventListener("scroll", () => this.cursor.plot && this.change("cursor"), { passive: true });
  }

  /** Have a chart drawn from now on. */
  add(plot) {
    this.plots.set(plot.element, plot);
    this.sizes.observe(plot.element);
    this.sight.observe(plot.element);
  }

  /** Forget the charts below an element. */
  clear(element) {
    for (const [shown, plot] of this.plots) {
      if (!element.contains(shown)) continue;
      if (this.cursor.plot === plot) this.cursor.point(null, plot);
      this.plots.delete(shown);
      this.sizes.unobserve(shown);
      this.sight.unobserve(shown);
    }
    element.replaceChildren();
  }

  /** The chart that a slider belongs to. */
  of(slider) {
    return this.plots.get(slider.parentElement);
  }

  resized({ target, contentRect }) {
    const plot = this.plots.get(target);
    if (!plot) return;
    plot.width = contentRect.width;
    plot.height = contentRect.height;
    plot.stale = true;
    this.queue();
  }

  sighted({ target, isIntersecting }) {
    const plot = this.plots.get(target);
    if (!plot) return;
    plot.seen = isIntersecting;
    this.queue();
  }

  /** Note that a part of what is shown is another. */
  change(part) {
    this.changes.add(part);
    this.queue();
  }

  queue() {
    if (this.queued || document.hidden) return;
    this.queued = true;
    requestAnimationFrame(() => this.render());
  }

  render() {
    this.queued = false;
    const changes = new Set(this.changes);
    this.changes.clear();
    this.cursor.forget(this.store.span[0]);
    for (const view of this.views) view.update(changes);
    for (const plot of this.plots.values()) {
      plot.stale ||= changes.size > 0;
      if (changes.has("rows") || changes.has("hello")) plot.describe();
      if (!plot.stale || !plot.seen) continue;
      plot.stale = false;
      plot.draw();
    }
    this.cursor.show();
  }
}
