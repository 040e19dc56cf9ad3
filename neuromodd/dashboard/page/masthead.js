// The head of the page: which host, which tick, what holds now.

import { clock, seconds } from "./clock.js";
import { find, make, mark, write } from "./elements.js";
import { count, lasting } from "./format.js";
import { gravity } from "./happenings.js";
import { Reading } from "./reading.js";
import { glyph } from "./shapes.js";
import { valueOf } from "./store.js";

export class Masthead {
  constructor(screen) {
    this.store = screen.store;
    this.flags = [];
    const zone = find("zone");
    const pressed = () => mark(zone, "aria-pressed", String(clock.utc));
    zone.addEventListener("click", () => {
      clock.turn();
      pressed();
      screen.change("zone");
    });
    pressed();
  }

  update(changes) {
    if (changes.has("hello")) this.build();
    const row = this.store.newest;
    for (const flag of this.flags) this.flag(flag, valueOf(row, flag.column));
    if (row) {
      write(find("tick"), `${clock.moment(row[1])} ${clock.utc ? "UTC" : ""} · tick ${count(row[0])}`);
      mark(document.documentElement, "data-sequence", String(row[0]));
    }
    this.fault();
    this.about();
  }

  build() {
    write(find("node"), this.store.daemon.node ?? "neuromodd");
    const columns = this.store.columns.filter((column) => column.group === "flags");
    this.flags = columns.map((column) => ({ column, reading: new Reading(column), element: make("li") }));
    for (const { column, reading, element } of this.flags)
      element.append(`${column.label} `, reading.element);
    find("flags").replaceChildren(...this.flags.map(({ element }) => element));
  }

  flag({ reading, element }, value) {
    reading.show(value);
    write(reading.digits, value === null ? "–" : value ? "on" : "off");
    element.classList.toggle("on", Boolean(value));
  }

  fault() {
    const { fault, newest } = this.store;
    const shown = find("fault");
    shown.hidden = !fault;
    if (!fault) return;
    const grave = gravity(fault);
    if (shown.dataset.kind !== grave) shown.replaceChildren(glyph(grave), make("span"));
    mark(shown, "data-kind", grave);
    // By the host's clock, not the reader's.
    const age = newest && fault.since_utc ? Math.max(newest[1] - seconds(fault.since_utc), 0) : null;
    write(shown.lastChild, ` ${fault.code}${grave === "bad" && age !== null ? ` for ${lasting(age)}` : ""}`);
  }

  about() {
    const { daemon, info } = this.store;
    if (!daemon.version) return;
    const host = info.host ?? {};
    const parts = [
      `neuromodd ${daemon.version}`,
      `since ${clock.moment(seconds(daemon.started_utc))}`,
      `a tick each ${daemon.interval_s} s`,
      host.cpu_model,
      host.kernel,
    ];
    write(find("about"), `${parts.filter(Boolean).join(" · ")}. Times are ${clock.utc ? "UTC" : "local"}.`);
  }
}
