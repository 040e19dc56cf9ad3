// The daemon's own health: broker, ticks, checkpoints, sensors.

import { make, say } from "./elements.js";
import { DASH, lasting } from "./format.js";

const count = (number, one, many) => `${number.toLocaleString()} ${number === 1 ? one : many}`;

function broker(mqtt) {
  if (mqtt.taken_over) return ["bad", "another daemon has our name"];
  const waiting = mqtt.outbox.waiting ? `, ${count(mqtt.outbox.waiting, "event waits", "events wait")}` : "";
  if (!mqtt.connected) return ["bad", `away${waiting}${mqtt.error ? `: ${mqtt.error}` : ""}`];
  if (mqtt.error) return ["bad", `connected${waiting}, but ${mqtt.error}`];
  return ["well", `connected with MQTT ${mqtt.protocol}${waiting}`];
}

function checkpoint(of) {
  if (of.error) return ["bad", of.error];
  return ["well", of.age_s === null ? "none written yet" : `${lasting(of.age_s)} old when last told, ${of.written} written`];
}

function ticks(of) {
  const p99 = of.lateness_p99_ms === null ? DASH : `${of.lateness_p99_ms.toFixed(1)} ms`;
  const words = `${of.count.toLocaleString()}; ${of.missed} missed, ${count(of.gaps, "gap", "gaps")}; late by ${p99} at most in 99 of 100`;
  return [of.missed > of.count / 20 ? "bad" : "well", words];
}

function outbox(of) {
  return of.error ? ["bad", of.error] : null;
}

function recorder(of) {
  if (of === null) return null;
  return of.error ? ["bad", of.error] : ["well", `${of.frames.toLocaleString()} frames, ${of.dropped} missing`];
}

const MARKS = { well: "✓", bad: "✗", none: "○" };
const STATES = { ok: "well", absent: "none", failed: "bad", hung: "bad" };

export class Health {
  constructor(section) {
    this.list = section.querySelector("dl");
    this.body = make("tbody");
    const head = make("tr", {}, ...["Sensor", "State", "Took", "Failures"].map((name) => make("th", { scope: "col" }, name)));
    this.absent = make("details", {}, make("summary"), make("dl"));
    section
      .querySelector(".wide")
      .append(make("table", { class: "sensors", "aria-label": "Sensors" }, make("thead", {}, head), this.body), this.absent);
  }

  set(health) {
    if (!health) return;
    const parts = [
      ["Broker", broker(health.mqtt)],
      ["Outbox", outbox(health.mqtt.outbox)],
      ["Checkpoint", checkpoint(health.checkpoint)],
      ["Ticks", ticks(health.ticks)],
      ["Recorder", recorder(health.recorder)],
      ["Up for", ["well", lasting(health.uptime_s)]],
    ].filter(([, judged]) => judged !== null);
    this.list.replaceChildren(
      ...parts.flatMap(([name, [kind, words]]) => [
        make("dt", {}, name),
        make("dd", { class: kind }, make("span", { class: "mark", "aria-hidden": "true" }, MARKS[kind]), ` ${words}`),
      ]),
    );
    const sensors = Object.entries(health.sensors);
    const absent = sensors.filter(([, sensor]) => sensor.state === "absent");
    this.body.replaceChildren(...sensors.filter((of) => !absent.includes(of)).map((of) => this.row(...of)));
    this.absent.hidden = !absent.length;
    say(this.absent.firstChild, `${count(absent.length, "sensor finds", "sensors find")} nothing to measure here`);
    this.absent.lastChild.replaceChildren(
      ...absent.flatMap(([name, sensor]) => [make("dt", {}, name), make("dd", {}, sensor.error?.replace(`${name}: `, "") ?? "absent")]),
    );
  }

  row(name, sensor) {
    const kind = STATES[sensor.state] ?? "bad";
    const state = make("td", { class: kind }, make("span", { class: "mark", "aria-hidden": "true" }, MARKS[kind]), ` ${sensor.state}`);
    if (sensor.error) state.append(make("small", {}, ` ${sensor.error}`));
    const took = sensor.duration_ms === null ? DASH : `${sensor.duration_ms.toFixed(2)} ms`;
    return make("tr", {}, make("th", { scope: "row" }, name), state, make("td", {}, took), make("td", {}, String(sensor.failures)));
  }
}

/** The badge of the connection to the daemon. */
export function link(element, state) {
  const words = { live: "live", stale: "stale", lost: "lost", connecting: "connecting" };
  say(element, words[state]);
  element.className = `badge ${state}`;
}
