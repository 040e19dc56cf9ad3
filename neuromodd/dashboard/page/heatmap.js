// A table of numbers on colours, which the arrow keys walk through.

import { make, mark, write } from "./elements.js";

/** More columns than that leave no room for digits. */
const ROOMY = 12;

const MOVES = {
  ArrowLeft: (row, column) => [row, column - 1],
  ArrowRight: (row, column) => [row, column + 1],
  ArrowUp: (row, column) => [row - 1, column],
  ArrowDown: (row, column) => [row + 1, column],
  Home: (row) => [row, 0],
  End: (row, _, last) => [row, last],
};

export class HeatMap {
  /** `kind` is "sequential" or "diverging"; `told(column, row, text)` says one cell in words. */
  constructor({ name, rows, columns, kind, told }) {
    Object.assign(this, { rows, columns, told });
    this.caption = make("caption", {}, name);
    this.cells = rows.map(() => columns.map(() => make("td", { role: "gridcell", tabindex: "-1" })));
    this.cells[0][0].setAttribute("tabindex", "0");
    const head = columns.map((column) => make("th", { scope: "col" }, make("span", {}, column)));
    const body = this.cells.map((cells, at) =>
      make("tr", {}, make("th", { scope: "row" }, rows[at]), ...cells),
    );
    const dense = columns.length > ROOMY || rows.length > ROOMY * 2;
    this.table = make(
      "table",
      { role: "grid", class: `heat ${kind}${dense ? " dense" : ""}` },
      this.caption,
      make("thead", {}, make("tr", {}, make("td"), ...head)),
      make("tbody", {}, ...body),
    );
    this.line = make("p", { class: "readout", "aria-hidden": "true" });
    this.element = make("div", { class: "map" }, this.table, this.line);
    this.listen();
  }

  listen() {
    this.table.addEventListener("keydown", (event) => {
      const place = this.placeOf(event.target);
      if (!place || !MOVES[event.key] || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      const [row, column] = MOVES[event.key](...place, this.columns.length - 1);
      const next = this.cells[row]?.[column];
      if (!next) return;
      event.target.setAttribute("tabindex", "-1");
      next.setAttribute("tabindex", "0");
      next.focus();
    });
    for (const kind of ["focusin", "pointerover"]) {
      this.table.addEventListener(kind, (event) => this.point(this.placeOf(event.target)));
    }
    for (const kind of ["focusout", "pointerleave"]) {
      this.table.addEventListener(kind, () => this.point(this.placeOf(document.activeElement)));
    }
  }

  placeOf(cell) {
    const row = this.cells.findIndex((cells) => cells.includes(cell));
    return row < 0 ? null : [row, this.cells[row].indexOf(cell)];
  }

  point(place) {
    this.place = place;
    const text =
      place && this.said ? this.told(place[1], place[0], this.said(this.values[place[0]][place[1]])) : "";
    write(this.line, text);
  }

  title(text) {
    write(this.caption, text);
  }

  /**
   * Show the values: `most` has the full colour, what is under `least` none. `text` writes a cell, `said` the
   * line below the map.
   */
  fill(values, { most, least = 0, text, said }) {
    Object.assign(this, { values, said });
    values.forEach((row, at) =>
      row.forEach((value, column) => {
        const cell = this.cells[at]?.[column];
        if (!cell) return;
        const size = Math.abs(value);
        const share = size < least ? 0 : Math.min(size / most, 1);
        write(cell, text(value));
        mark(cell, "data-value", String(value));
        mark(cell, "data-sign", value < 0 ? "minus" : "plus");
        cell.style.setProperty("--share", `${(share * 100).toFixed(0)}%`);
      }),
    );
    this.point(this.place ?? null);
  }
}
