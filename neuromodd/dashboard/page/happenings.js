// Rewards, faults and anomalies in words.

import { expected, read, words } from "./anomalies.js";
import { seconds } from "./clock.js";
import { lasting, level, odds } from "./format.js";

const number = (value) => (Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(6))));

const given = (value) => value !== null && value !== undefined;

const KINDS = {
  WorkAccepted: {
    title: "Work accepted",
    detail: ({ units, source, latency_ms: latency }) => [
      given(units) && `${number(units)} ${units === 1 ? "unit" : "units"}`,
      given(source) && `from ${source}`,
      given(latency) && `in ${number(latency)} ms`,
    ],
  },
  BreakthroughFound: {
    title: "Breakthrough found",
    detail: ({ metric, value, previous_best: before }) => [
      given(metric) && metric,
      given(value) && number(value),
      given(before) && `best before ${number(before)}`,
    ],
  },
  SourceSwitch: {
    title: "Source of work switched",
    detail: ({ previous, current }) => [`${previous ?? "nothing"} → ${current ?? "nothing"}`],
  },
};

/** How bad a fault class is: "ok", "unsure" or "bad". */
export function gravity(fault) {
  if (fault.class === "HealthyStandby") return "ok";
  return fault.class === "UnknownAmbiguity" ? "unsure" : "bad";
}

const TITLES = { ok: "No fault", unsure: "Too little to tell a fault by" };

function ofFault(fault) {
  const grave = gravity(fault);
  return {
    title: TITLES[grave] ?? `Fault: ${fault.class}`,
    code: fault.code,
    kind: grave,
    detail: `${fault.code}, confidence ${Math.round(fault.confidence * 100)} %`,
    evidence: fault.evidence.map(({ reading, value, rule }) => ({
      reading,
      rule,
      value: typeof value === "number" ? number(value) : String(value),
    })),
  };
}

function ofReward(reward) {
  const kind = KINDS[reward.kind];
  return {
    title: kind?.title ?? reward.kind,
    kind: reward.kind,
    detail: (kind?.detail(reward) ?? []).filter(Boolean).join(", "),
    origin: reward.origin,
    evidence: [],
  };
}

function ofAnomaly(anomaly, store) {
  const ended = anomaly.phase === "end";
  return {
    title: ended ? `Anomaly over after ${lasting(anomaly.duration_s)}:` : "Anomaly:",
    kind: ended ? "calm" : "anomaly",
    detail: anomaly.sentence,
    origin: `surprise ${level(anomaly.surprise)}, ${odds(anomaly.surprise)}`,
    evidence: anomaly.channels.map((channel) => ({
      reading: words(channel.name),
      value: read(channel.observed, channel.name, store),
      rule: `${expected(channel, store)} was expected; surprise ${level(channel.surprise)}`,
    })),
  };
}

const WORDS = { fault: ofFault, anomaly: ofAnomaly, reward: ofReward };

/** What there is to say of an event of the stream. */
export function told({ topic, payload }, store) {
  const all = (WORDS[topic] ?? ofReward)(payload, store);
  return { ...all, topic, at: seconds(payload.time_utc) };
}

/** The spans of time that each fault class held, oldest first; the last goes on. */
export function spans({ events, fault, newest }) {
  const changes = events.filter(({ topic }) => topic === "fault").map(({ payload }) => payload);
  if (!changes.length && fault) changes.push(fault);
  return changes.map((payload, at) => ({
    fault: payload,
    from: seconds(payload.time_utc),
    to: at + 1 < changes.length ? seconds(changes[at + 1].time_utc) : (newest?.[1] ?? Infinity),
  }));
}
