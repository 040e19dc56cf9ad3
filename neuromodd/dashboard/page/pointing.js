// One cursor for all charts: by pointer, or by the arrow keys on a chart in focus, which read it out.

import { announce } from "./elements.js";
import { clock } from "./format.js";

/**
 * Let `element` move the cursor of the store.
 *
 * `area(event)` is the rectangle whose width is the span of time, or null; `lines()` are the lines that up and down
 * choose among; `words(line, row)` says one at a row.
 */
export function pointing(element, store, { area, lines, words, redraw }) {
  let line = 0;
  const move = (time) => {
    store.cursor = time;
    redraw();
  };
  element.addEventListener("pointermove", (event) => {
    const place = area(event);
    if (!place || !store.newest) return;
    const [begin, end] = store.span;
    const share = Math.min(Math.max((event.clientX - place.left) / place.width, 0), 1);
    move(begin + share * (end - begin));
  });
  element.addEventListener("pointerleave", () => move(null));
  element.addEventListener("blur", () => move(null));
  element.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || !store.newest) return;
    const rows = store.rows;
    const now = rows.indexOf(store.pointed);
    const page = Math.max(Math.round(60 / (store.hello.row_interval_s || 1)), 1);
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -page, PageDown: page, Home: -rows.length, End: rows.length };
    const all = lines();
    if (event.key in steps) {
      const at = Math.min(Math.max(now + steps[event.key], 0), rows.length - 1);
      move(rows[at][1]);
    } else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      line += event.key === "ArrowUp" ? -1 : 1;
    } else if (event.key === "Escape") {
      move(null);
    } else return;
    event.preventDefault();
    line = Math.min(Math.max(line, 0), all.length - 1);
    if (all.length) announce(`${words(all[line], store.pointed)}, ${store.cursor === null ? "now" : clock(store.pointed[1])}`);
  });
}
