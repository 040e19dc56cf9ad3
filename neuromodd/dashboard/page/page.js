// The page: what the stream says goes into the store, and the store is drawn, once a frame at most.

import { colours } from "./canvas.js";
import { announce, find, make, say } from "./elements.js";
import { badge, Events, told } from "./events.js";
import { clock, lasting, utc, when } from "./format.js";
import { Health, link } from "./health.js";
import { Raster } from "./raster.js";
import { Rows } from "./rows.js";
import { Store } from "./store.js";
import { Stream } from "./stream.js";
import { Weights } from "./weights.js";

const GROUPS = {
  cpu: "Processor",
  memory: "Memory",
  pressure: "Pressure: share of the time in which tasks waited",
  disk: "Disks",
  network: "Network",
  power: "Power",
  gpus: "GPUs",
  thermal: "Temperatures",
  fans: "Fans",
  voltages: "Voltages",
  limits: "Limits of this container or service",
  work: "Work",
  fpga: "FPGA build",
  frame: "How late the tick began",
};
const FLAGS = ["stress", "reward", "focus"];

const store = new Store();
const section = (id, place) => find(id).querySelector(place);

let asked = false;
function redraw() {
  if (asked || document.hidden) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    draw();
  });
}

const modulators = new Rows(section("modulators", ".rows"), store, { label: "Modulators", height: 44, level: true, note: parts, redraw });
const surprise = new Rows(section("surprise", ".rows"), store, { label: "Surprise", height: 24, level: true, redraw });
const raster = new Raster(section("spikes", ".raster"), store, redraw);
const weights = new Weights(section("weights", ".wide"));
const events = new Events(find("events"), store);
const health = new Health(find("health"));
const telemetry = new Map();

/** The parts of a modulator's level, below it. */
function parts(column) {
  const of = (part) => store.value(store.pointed, store.at(`state.modulators.${part}.${column.label}`));
  const tonic = of("tonic");
  const phasic = of("phasic");
  if (tonic === null) return null;
  if (phasic === null) return `tonic ${tonic.toFixed(2)}`;
  return `tonic ${tonic.toFixed(2)} ${phasic < 0 ? "−" : "+"} phasic ${Math.abs(phasic).toFixed(2)}`;
}

/** Which columns there are to show; those without a value in ten minutes are left out. */
function arrange() {
  const measured = (column) => store.seen.has(column.place);
  modulators.set(store.group("modulators"));
  surprise.set(store.group("surprise").filter((column) => measured(column) || column.label === "total"));
  raster.set(store.group("rates"), store.hello.dimensions);
  const absent = [];
  for (const [group, title] of Object.entries(GROUPS)) {
    const columns = store.group(group).filter(measured);
    if (!columns.length) {
      absent.push(title.split(":")[0].toLowerCase());
      telemetry.get(group)?.place.remove();
      telemetry.delete(group);
      continue;
    }
    if (!telemetry.has(group)) {
      const place = make("section", { class: "group", "data-group": group, "aria-label": title }, make("h3", {}, title));
      telemetry.set(group, { place, rows: new Rows(place, store, { label: title, height: 22, redraw }) });
      const after = Object.keys(GROUPS).slice(Object.keys(GROUPS).indexOf(group) + 1).map((name) => telemetry.get(name)?.place);
      section("telemetry", ".groups").insertBefore(place, after.find((of) => of) ?? null);
    }
    telemetry.get(group).rows.set(columns);
  }
  const note = find("absent");
  note.hidden = !absent.length;
  say(note, `Not measured on this host: ${absent.join(", ")}. “neuromodd doctor” says why.`);
}

let arranged = -1;
function draw() {
  if (!store.newest) return;
  if (arranged !== store.seen.size) {
    arranged = store.seen.size;
    arrange();
  }
  const palette = colours();
  for (const view of [modulators, surprise, raster, events, ...[...telemetry.values()].map((of) => of.rows)]) view.draw(palette);
  document.documentElement.dataset.sequence = String(store.newest[0]);
  const pointed = store.pointed;
  const time = find("clock");
  say(time, store.cursor === null ? when(pointed[1]) : `at ${clock(pointed[1])}`);
  time.title = `tick ${pointed[0]}, ${utc(pointed[1])}`;
  flags(store.newest);
  fault();
}

function flags(row) {
  const raised = FLAGS.filter((name) => store.value(row, store.at(`state.flags.${name}`)) === 1);
  const list = find("flags");
  if (list.dataset.shown === raised.join()) return;
  list.dataset.shown = raised.join();
  list.replaceChildren(...raised.map((name) => make("li", { class: `badge ${name}` }, name)));
}

function fault() {
  const words = badge(store.fault, store.newest[1]);
  const element = find("fault");
  element.hidden = !words;
  element.className = `badge ${store.fault?.code?.startsWith("ERR") ? "error" : "warning"}`;
  say(element, words);
}

function begin(hello) {
  // A daemon of another version has another page.
  if (store.hello.version && store.hello.version !== hello.version) location.reload();
  store.reset(hello);
  arranged = -1;
  document.title = `${hello.node} · neuromodd`;
  say(find("node"), hello.node);
  say(find("version"), `neuromodd ${hello.version}.`);
  events.reset();
  find("no-events").hidden = store.events.length > 0;
  weights.set(store.weights, hello.dimensions);
  health.set(store.health);
}

function stale(state, silence) {
  const element = find("stale");
  const over = state === "stale" || state === "lost";
  document.body.className = state === "connecting" ? "waiting" : over ? "over" : "";
  element.hidden = !over;
  if (!over || !store.newest) return;
  const why = state === "lost" ? "The daemon does not answer; trying again." : "No ticks arrive.";
  say(element, `Stale: nothing new since ${clock(store.newest[1])}, ${lasting(silence)} ago. ${why}`);
}

const stream = new Stream(store, {
  hello: begin,
  rows: (rows) => rows.forEach((row) => store.addRow(row)),
  live: () => {
    store.live = true;
    // It may have stopped ticking long before this page was opened.
    stream.aged(store.hello.alive?.tick_age_s ?? 0);
    redraw();
  },
  row: (row) => {
    store.addRow(row);
    redraw();
  },
  columns: (columns) => {
    store.setColumns(columns);
    arranged = -1;
  },
  weights: (of) => {
    store.weights = of;
    weights.set(of, store.hello.dimensions);
  },
  event: (event) => {
    store.addEvent(event);
    events.add(event);
    const { title, words } = told(event);
    announce(words ? `${title}, ${words}` : title);
    redraw();
  },
  health: (of) => {
    store.health = of;
    health.set(of);
  },
  info: (of) => {
    store.info = of;
  },
  changed: (state, before) => {
    link(find("link"), state);
    stale(state, stream?.silence ?? 0);
    if (state === before || before === "connecting") return;
    if (state === "live") announce("Live again.");
    if (state === "stale" || state === "lost") announce("What is shown is stale.");
  },
});

document.addEventListener("visibilitychange", redraw);
new ResizeObserver(redraw).observe(document.body);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
