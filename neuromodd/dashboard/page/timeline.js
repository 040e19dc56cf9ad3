// Rewards, faults and anomalies on the axis of time, and as a list with their evidence.

import { episodes, words } from "./anomalies.js";
import { Axis } from "./axis.js";
import { clock } from "./clock.js";
import { colour } from "./colours.js";
import { bodyOf, find, make, write } from "./elements.js";
import { gravity, spans, told } from "./happenings.js";
import { Plot } from "./plot.js";
import { glyph, SHAPES } from "./shapes.js";

const REWARDS_Y = 15;
const FAULTS_Y = 39;
const ANOMALIES_Y = 65;
const BAR_PX = 14;

const TRACKS = ["rewards", "fault", "anomaly"];

const LIST = "List of rewards, faults and anomalies";

export class Timeline {
  constructor(screen) {
    this.screen = screen;
    this.store = screen.store;
    this.build();
  }

  build() {
    this.plot = new Plot(this.screen, {
      name: "Rewards, faults and anomalies",
      kind: "timeline",
      paint: (pen) => this.paint(pen),
      summary: () => this.summary(),
      lines: (row) => this.lines(row),
      choose: (step) => this.hop(step),
    });
    this.plot.slider.setAttribute("tabindex", "0");
    this.axis = new Axis(this.store);
    this.list = make("ol", { class: "events" });
    bodyOf("events").append(
      make(
        "div",
        { class: "lane", "data-charts": true },
        make("ul", { class: "title tracks" }, ...TRACKS.map((name) => make("li", {}, name))),
        this.plot.element,
        make("span"),
      ),
      make("div", { class: "lane" }, make("span"), this.axis.element),
      make(
        "div",
        { class: "scroll", tabindex: "0", role: "region", "aria-label": LIST },
        this.list,
      ),
    );
  }

  update(changes) {
    this.axis.update();
    if (["hello", "events", "zone"].some((part) => changes.has(part))) this.fill();
  }

  fill() {
    const { events } = this.store;
    this.known = events.map((event) => told(event, this.store));
    this.list.replaceChildren(...this.known.map(entry).reverse());
    const rewards = events.filter(({ topic }) => topic === "reward").length;
    const faults = this.known.filter(({ kind }) => kind === "bad").length;
    const anomalies = this.known.filter(({ kind }) => kind === "anomaly").length;
    const some = (number, name, many = `${name}s`) => `${number} ${number === 1 ? name : many}`;
    write(
      find("events-note"),
      events.length
        ? `${some(rewards, "reward")}, ${some(faults, "fault")} and ` +
            `${some(anomalies, "anomaly", "anomalies")} since the daemon began, newest first.`
        : "There have been none since the daemon began.",
    );
    this.list.parentElement.hidden = !events.length;
  }

  paint(pen) {
    for (const span of spans(this.store)) this.paintSpan(pen, span);
    for (const episode of episodes(this.store)) this.paintEpisode(pen, episode);
    pen.fillStyle = colour("--grid");
    pen.fillRect(0, REWARDS_Y, this.plot.width, 1);
    for (const { topic, kind, at } of this.known ?? []) {
      const x = this.plot.x(at);
      if (topic === "reward" && x >= -8 && x <= this.plot.width)
        SHAPES[kind]?.draw(pen, x, REWARDS_Y, colour(SHAPES[kind].ink));
    }
  }

  paintEpisode(pen, { payload, from, to }) {
    const [left, right] = [Math.max(this.plot.x(from), 0), Math.min(this.plot.x(to), this.plot.width)];
    if (right < 0 || left > this.plot.width) return;
    pen.fillStyle = colour("--anomaly");
    pen.fillRect(left, ANOMALIES_Y - BAR_PX / 2, Math.max(right - left, 3), BAR_PX);
    pen.font = `600 10px ${colour("--font")}`;
    const strange = `≠ ${payload.channels.map(({ name }) => words(name)).join(", ")}`;
    if (pen.measureText(strange).width + 8 > right - left) return;
    pen.fillStyle = colour("--on-anomaly");
    pen.textBaseline = "middle";
    pen.fillText(strange, left + 4, ANOMALIES_Y + 0.5);
  }

  paintSpan(pen, { fault, from, to }) {
    const [left, right] = [Math.max(this.plot.x(from), 0), Math.min(this.plot.x(to), this.plot.width)];
    if (right < 0 || left > this.plot.width) return;
    const grave = gravity(fault);
    const [top, height] =
      grave === "bad" ? [FAULTS_Y - BAR_PX / 2, BAR_PX] : [FAULTS_Y - 1, grave === "ok" ? 2 : 4];
    pen.fillStyle = colour(`--${grave}`);
    pen.fillRect(left, top, Math.max(right - left - (grave === "bad" ? 1 : 0), 2), height);
    if (grave !== "bad") return;
    pen.font = `600 10px ${colour("--font")}`;
    if (pen.measureText(fault.code).width + 8 > right - left) return;
    pen.fillStyle = colour("--on-bad");
    pen.textBaseline = "middle";
    pen.fillText(fault.code, left + 4, FAULTS_Y + 0.5);
  }

  /** Up and down go from event to event. */
  hop(step) {
    const [begin, end] = this.store.span;
    const { rows } = this.store;
    const places = this.known
      .filter(({ at }) => at >= begin && at <= end)
      .map(({ at }) => this.store.nearest(at));
    if (!places.length) return true;
    const row = this.plot.pointed();
    const here = row ? rows.indexOf(row) : Infinity;
    const next = step > 0 ? places.find((place) => place > here) : places.findLast((place) => place < here);
    if (next !== undefined) this.plot.read(rows[next]);
    return true;
  }

  lines(row) {
    const near = Math.max(this.store.interval * 0.75, (3 * this.store.window) / Math.max(this.plot.width, 1));
    const close = this.known.filter(({ at, topic }) => topic === "reward" && Math.abs(at - row[1]) <= near);
    const held = spans(this.store).findLast(({ from }) => from <= row[1] + 0.001)?.fault;
    const rewards = close.map(({ title, detail }) => [title, detail]);
    const strange = episodes(this.store).filter(
      ({ from, to }) => from <= row[1] + near && to >= row[1] - near,
    );
    return [
      ...rewards,
      ["fault", held ? held.code : "not known"],
      ...strange.map(({ payload }) => ["anomaly", payload.sentence]),
    ];
  }

  summary() {
    const [begin] = this.store.span;
    const recent = (this.known ?? []).filter(({ at }) => at >= begin);
    const rewards = recent.filter(({ topic }) => topic === "reward").length;
    const bad = recent.filter(({ kind }) => kind === "bad").map(({ code }) => code);
    const now = this.store.fault ? `; now ${this.store.fault.code}` : "";
    const faults = bad.length ? `faults ${bad.join(", ")}` : "no fault";
    const strange = episodes(this.store).filter(({ to }) => to >= begin).length;
    const anomalies = `${strange || "no"} ${strange > 1 ? "anomalies" : "anomaly"}`;
    const holds = this.store.holds ? ", an anomaly" : "";
    return `In ten minutes ${rewards} rewards, ${faults} and ${anomalies}${now}${holds}`;
  }
}

function entry({ topic, title, kind, at, detail, origin, evidence }) {
  const proof = evidence.map(({ reading, value, rule }) =>
    make("li", {}, make("code", {}, reading), " ", make("b", {}, value), ` — ${rule}`),
  );
  return make(
    "li",
    { "data-topic": topic, "data-kind": kind },
    make("time", { datetime: new Date(at * 1000).toISOString() }, clock.moment(at)),
    glyph(kind),
    make(
      "div",
      {},
      make(
        "p",
        {},
        make("b", {}, title),
        detail ? ` ${detail}` : null,
        origin ? make("span", { class: "tag" }, origin) : null,
      ),
      proof.length ? make("ul", { class: "evidence" }, ...proof) : null,
    ),
  );
}
