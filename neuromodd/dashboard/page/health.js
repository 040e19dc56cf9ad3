// How the daemon itself is doing: broker, checkpoints, ticks, sensors.

import { clock, seconds } from "./clock.js";
import { bodyOf, find, make, write } from "./elements.js";
import { count, lasting } from "./format.js";
import { Sensors } from "./sensors.js";
import { state } from "./state.js";

export class Health {
  constructor(screen) {
    this.store = screen.store;
    this.facts = make("dl", { class: "facts" });
    this.sensors = new Sensors();
    bodyOf("health").append(this.facts, this.sensors.element);
  }

  update(changes) {
    if (!["hello", "health", "zone"].some((part) => changes.has(part))) return;
    const { health } = this.store;
    write(
      find("health-note"),
      health ? `As of ${clock.moment(seconds(health.time_utc))}.` : "Nothing is known yet.",
    );
    const facts = [broker, checkpoint, ticks, recorder, sinks].map((fact) => health && fact(health));
    this.facts.replaceChildren(...facts.filter(Boolean).map(shown));
    this.sensors.show(health?.sensors ?? {});
  }
}

function shown({ name, kind, text, more, error }) {
  const said = more.filter(Boolean).join(" · ");
  return make(
    "div",
    { "data-fact": name.toLowerCase() },
    make("dt", {}, name),
    make(
      "dd",
      {},
      state(kind, text),
      " ",
      said ? make("span", { class: "more" }, said) : null,
      error ? make("span", { class: "error" }, error) : null,
    ),
  );
}

const some = (number, text) => (number ? `${count(number)} ${text}` : null);

function broker({ mqtt }) {
  const { outbox, inbound } = mqtt;
  const refused = Object.values(inbound?.refused ?? {}).reduce((sum, number) => sum + number, 0);
  const waits =
    outbox.oldest_age_s === null ? "waiting" : `waiting, the oldest for ${lasting(outbox.oldest_age_s)}`;
  return {
    name: "Broker",
    kind: mqtt.connected ? (mqtt.error || outbox.error ? "warn" : "good") : "bad",
    text: mqtt.connected ? "connected" : mqtt.taken_over ? "session taken over" : "not connected",
    more: [
      mqtt.protocol && `MQTT ${mqtt.protocol}`,
      `${count(mqtt.published)} published`,
      some(mqtt.dropped, "dropped"),
      some(outbox.waiting, waits),
      some(outbox.dropped, "events lost"),
      inbound && `${count(inbound.taken)} ${inbound.taken === 1 ? "request" : "requests"} taken`,
      some(refused, "refused"),
    ],
    error: [mqtt.error, outbox.error].filter(Boolean).join("; "),
  };
}

function checkpoint({ checkpoint: of, time_utc: at }) {
  const never = of.age_s === null;
  return {
    name: "Checkpoint",
    kind: of.error ? "bad" : never ? "none" : "good",
    text: never ? "none yet" : `at ${clock.moment(seconds(at) - of.age_s)}`,
    more: [`${count(of.written)} written`, some(of.failures, "failed")],
    error: of.error,
  };
}

function ticks({ ticks: of, uptime_s: uptime }) {
  const quantile = (value) => (value === null ? "–" : value.toFixed(value < 10 ? 2 : 0));
  return {
    name: "Ticks",
    kind: of.missed ? "warn" : "good",
    text: count(of.count),
    more: [
      some(of.late, "late"),
      some(of.missed, "missed"),
      some(of.gaps, of.gaps === 1 ? "gap" : "gaps"),
      `lateness ${quantile(of.lateness_p50_ms)} ms, p99 ${quantile(of.lateness_p99_ms)} ms`,
      `up ${lasting(uptime)}`,
    ],
  };
}

function recorder({ recorder: of }) {
  if (!of) return null;
  return {
    name: "Recorder",
    kind: of.error ? "bad" : "good",
    text: of.error ? "failed" : "recording",
    more: [`${count(of.frames)} frames`, some(of.dropped, "dropped"), some(of.failures, "failures"), of.file],
    error: of.error,
  };
}

function sinks({ sinks_failed: failed }) {
  const named = Object.entries(failed ?? {});
  if (!named.length) return null;
  return {
    name: "Sinks",
    kind: "bad",
    text: "failed",
    more: named.map(([name, times]) => `${name} ${count(times)}`),
  };
}
