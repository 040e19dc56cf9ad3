"""Tick -> messages: the topic grammar of the MQTT contract, version 1, and how its payloads are filled in.

Topics are `<prefix>/<node>/<name>`; payloads are JSON in UTF-8 with units in their names, null for "not
measured", never NaN. `status` alone is a bare word.
"""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import Any, Literal, NamedTuple

from neuromodd.core.anomaly import Anomaly, Moment, probability
from neuromodd.core.brain import Tick
from neuromodd.core.diagnostics import Fault
from neuromodd.core.encoding import CHANNELS
from neuromodd.core.frame import TelemetryFrame
from neuromodd.core.modulators import NeuroModulators
from neuromodd.core.payloads import (
    REWARD_PAYLOADS,
    AnomalyPayload,
    FaultPayload,
    HealthPayload,
    InfoPayload,
)
from neuromodd.core.rewards import EPOCH, RewardEvent, event_id

ONLINE = b"online"
OFFLINE = b"offline"

TELEMETRY_DIGITS = 5
"""Significant digits of a float in `telemetry`: more than any sensor has, and a third of the bytes."""

WHOLE = 10.0 ** (TELEMETRY_DIGITS - 1)
"""From here on a rounded number has no fraction."""

EXACT = 2.0**53
"""Up to here a whole number is the same as an integer and as a double."""

CLOCKS_LIMIT = 4
"""Beyond so many logical processors `telemetry` has no list of their clocks: it would be half of it."""

UNROUNDED = frozenset({"energy_joules", "monotonic_s"})
"""What only grows: people want its differences."""


class TopicRule(NamedTuple):
    """How a topic is published.

    Attributes:
        qos: quality of service.
        retain: whether the broker keeps the newest.
        state_like: whether a message may be replaced by a newer one while it waits; else it goes through
            the outbox.
        expires: whether the broker forgets it after `mqtt.state_expiry_s` (MQTT 5).
    """

    qos: Literal[0, 1]
    retain: bool
    state_like: bool
    expires: bool


TOPICS: dict[str, TopicRule] = {
    "status": TopicRule(qos=1, retain=True, state_like=True, expires=False),
    "info": TopicRule(qos=1, retain=True, state_like=True, expires=False),
    "telemetry": TopicRule(qos=0, retain=False, state_like=True, expires=True),
    "state": TopicRule(qos=0, retain=True, state_like=True, expires=True),
    "spikes": TopicRule(qos=0, retain=False, state_like=True, expires=True),
    "reward": TopicRule(qos=1, retain=False, state_like=False, expires=False),
    "fault": TopicRule(qos=1, retain=True, state_like=False, expires=False),
    "anomaly": TopicRule(qos=1, retain=False, state_like=False, expires=False),
    "health": TopicRule(qos=0, retain=True, state_like=True, expires=True),
}
"""What the daemon publishes."""

REQUEST_TOPICS: dict[str, Literal[0, 1]] = {"in/reward": 1, "in/work": 0, "in/command": 0}
"""What the daemon subscribes to when `mqtt.inbound.enabled`, and at which quality of service.

Rewards may wait at the broker while the daemon is away. A work rate or a command that comes late is worse
than none: at quality of service 0 a broker neither keeps nor repeats them.
"""


class Message(NamedTuple):
    """One publication: the topic below the node's (`state`), and the payload."""

    name: str
    payload: bytes


class Event(NamedTuple):
    """One publication that must not be lost: its id, its topic, and its payload but for `replayed`."""

    id: str
    name: str
    payload: dict[str, Any]

    def encoded(self, *, replayed: bool) -> bytes:
        """The payload as it is published; `replayed` when it is sent later than it happened."""
        return encoded({**self.payload, "replayed": replayed})


def topic(prefix: str, node: str, name: str) -> str:
    """The full topic of `name`."""
    return f"{prefix}/{node}/{name}"


def telemetry_event(frame: TelemetryFrame) -> Event:
    """The frame, its floats rounded, and without the clock of each of many processors."""
    values = rounded(frame.model_dump(mode="json"))
    if frame.cpu is not None and len(frame.cpu.core_frequencies_hz or ()) > CLOCKS_LIMIT:
        values["cpu"]["core_frequencies_hz"] = None
    return Event(f"{frame.boot_id}:{frame.sequence}", "telemetry", values)


def state_values(tick: Tick) -> dict[str, Any]:
    """Modulators, flags, surprise, errors and rates of the tick: the JSON values of a `StatePayload`.

    Not by way of one: whatever is in a tick has been checked, and each tick has its state.
    """
    frame, result = tick.frame, tick.result
    return {
        "node": frame.node,
        "sequence": frame.sequence,
        "time_utc": None if frame.time_utc is None else _utc(frame.time_utc),
        "step": result.step,
        "modulators": {
            **_levels(tick.modulators),
            "tonic": _levels(tick.tonic),
            "phasic": {
                "dopamine": tick.phasic.dopamine,
                "cortisol": tick.phasic.cortisol,
                "acetylcholine": tick.phasic.acetylcholine,
            },
        },
        "flags": {
            "stress": tick.stressed,
            "reward": tick.rewarded,
            "focus": tick.focused,
            "anomaly": tick.anomalous,
        },
        "surprise": _surprise(tick.surprise),
        "prediction_error": {
            "total": tick.error_total,
            "channels": dict(zip(CHANNELS, result.prediction_error, strict=True)),
        },
        "rates": {"lif": result.lif_rates, "izhikevich": result.izhikevich_rates},
    }


def state_message(tick: Tick) -> Message:
    """The state of the tick."""
    return Message("state", encoded(state_values(tick)))


def spikes_values(tick: Tick) -> dict[str, Any]:
    """Spike counts and potentials of the tick: the JSON values of a `SpikesPayload`."""
    frame, result = tick.frame, tick.result
    return {
        "node": frame.node,
        "sequence": frame.sequence,
        "time_utc": None if frame.time_utc is None else _utc(frame.time_utc),
        "step": result.step,
        "steps": result.steps,
        "input_spikes": result.input_spikes,
        "lif_spikes": result.lif_spikes,
        "izhikevich_spikes": result.izhikevich_spikes,
        "lif_potentials": tick.potentials,
    }


def spikes_message(tick: Tick) -> Message:
    """The spikes of the tick."""
    return Message("spikes", encoded(spikes_values(tick)))


def reward_event(event: RewardEvent) -> Event:
    """One reward; it has an id once the brain has taken it."""
    payload = REWARD_PAYLOADS[event.kind].from_dict({**event.model_dump(), "replayed": False})
    values = payload.model_dump(mode="json", exclude={"replayed"})
    return Event(values["id"], "reward", values)


def fault_event(node: str, fault: Fault) -> Event:
    """The classification that holds. Its id is made of what began when: it is the same after a restart."""
    since_utc: datetime = fault.since_utc or EPOCH
    identity = event_id(
        time_utc=since_utc,
        node=node,
        boot_id=None,
        sequence=0,
        kind=f"fault:{fault.fault_class.value}:{since_utc.isoformat()}",
        ordinal=0,
    )
    payload = FaultPayload(
        **{"class": fault.fault_class.value},
        id=identity,
        time_utc=since_utc,
        node=node,
        code=fault.fault_class.code,
        confidence=fault.confidence,
        evidence=fault.evidence,
        since_utc=fault.since_utc,
        replayed=False,
    )
    values = payload.model_dump(mode="json", exclude={"replayed"})
    return Event(identity, "fault", values)


def anomaly_event(node: str, anomaly: Anomaly) -> Event:
    """The begin or the end of an anomaly. Its ids are made of its times: the same after a restart."""
    since_utc: datetime = anomaly.since_utc or EPOCH
    time_utc: datetime = anomaly.time_utc or since_utc

    def identity(at_utc: datetime, kind: str) -> str:
        kind = f"anomaly:{kind}:{since_utc.isoformat()}"
        return event_id(time_utc=at_utc, node=node, boot_id=None, sequence=0, kind=kind, ordinal=0)

    payload = AnomalyPayload(
        id=identity(time_utc, anomaly.phase),
        episode=identity(since_utc, "episode"),
        phase=anomaly.phase,
        time_utc=time_utc,
        node=node,
        since_utc=since_utc,
        duration_s=anomaly.duration_s,
        surprise=anomaly.surprise,
        probability=probability(anomaly.surprise),
        channels=anomaly.channels,
        sentence=anomaly.sentence,
        replayed=False,
    )
    values = payload.model_dump(mode="json", exclude={"replayed"})
    return Event(payload.id, "anomaly", values)


def record_message(name: str, payload: InfoPayload | HealthPayload) -> Message:
    """`info` or `health`, which the daemon fills in."""
    return Message(name, payload.to_json().encode())


def encoded(values: dict[str, Any]) -> bytes:
    """A payload of these values."""
    return _ENCODER.encode(values).encode()


_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _levels(levels: NeuroModulators) -> dict[str, float | None]:
    return {
        "dopamine": levels.dopamine,
        "cortisol": levels.cortisol,
        "acetylcholine": levels.acetylcholine,
        "tempo": levels.tempo,
    }


def _surprise(moment: Moment | None) -> dict[str, Any]:
    if moment is None:
        return {"total": None, "probability": None, "channels": {}}
    total = moment.surprise
    return {
        "total": total,
        "probability": None if total is None else probability(total),
        "channels": {of.name: of.surprise for of in moment.channels},
    }


def _utc(time: datetime) -> str:
    """As the records write it."""
    return time.isoformat().replace("+00:00", "Z")


def rounded(value: Any) -> Any:  # noqa: ANN401 - parsed JSON
    """A JSON value with its floats as `telemetry` has them."""
    # By class, not isinstance: this visits every value of every frame.
    kind = value.__class__
    if kind is float:
        short = float(f"{value:.{TELEMETRY_DIGITS}g}")
        # Where no digit is left for a fraction, `.0` says nothing; 300 digits would not either.
        if WHOLE <= abs(short) < EXACT:
            return int(short)
        # The largest doubles have no double above to be rounded to.
        return short if math.isfinite(short) else value
    if kind is dict:
        return {name: of if of is None or name in UNROUNDED else rounded(of) for name, of in value.items()}
    if kind is list:
        return [rounded(of) for of in value]
    return value
