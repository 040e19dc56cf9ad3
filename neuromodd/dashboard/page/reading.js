// A value on the page: its digits and unit for people, its name and exact value for programs.

import { make, mark, write } from "./elements.js";
import { parts } from "./format.js";

export class Reading {
  constructor(column) {
    this.column = column;
    this.digits = make("span", { class: "digits" });
    this.unit = make("span", { class: "unit" });
    this.element = make("span", { class: "reading", "data-name": column.name }, this.digits, " ", this.unit);
  }

  /** Show a value; null is "not measured". */
  show(value) {
    const exact = JSON.stringify(value);
    if (this.element.dataset.value === exact) return;
    mark(this.element, "data-value", exact);
    const [digits, unit] = parts(value, this.column);
    write(this.digits, digits);
    write(this.unit, value === null ? "not measured" : unit);
    this.unit.classList.toggle("unseen", value === null);
  }
}
