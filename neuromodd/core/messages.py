"""Tick -> messages: the topic grammar and every payload of the MQTT contract, version 1.

Topics are `<prefix>/<node>/<name>`; payloads are JSON in UTF-8 with units in their names, null for "not
measured", never NaN. `status` alone is a bare word.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AwareDatetime, ConfigDict, Field

from neuromodd.core.brain import Tick
from neuromodd.core.diagnostics import Evidence, Fault
from neuromodd.core.encoding import CHANNELS
from neuromodd.core.frame import TelemetryFrame
from neuromodd.core.record import NonNegative, Ratio, Record
from neuromodd.core.rewards import RewardEvent

SCHEMA_VERSION = 1

ONLINE = b"online"
OFFLINE = b"offline"

Level = Annotated[float, Field(ge=0.0, le=1.0)]
TempoLevel = Annotated[float, Field(ge=0.0, le=2.0)]


class TopicRule(NamedTuple):
    """How a topic is published; `state_like` messages may be replaced by newer ones while they wait."""

    qos: Literal[0, 1]
    retain: bool
    state_like: bool


TOPICS: dict[str, TopicRule] = {
    "status": TopicRule(qos=1, retain=True, state_like=True),
    "info": TopicRule(qos=1, retain=True, state_like=True),
    "telemetry": TopicRule(qos=0, retain=False, state_like=True),
    "state": TopicRule(qos=0, retain=True, state_like=True),
    "spikes": TopicRule(qos=0, retain=False, state_like=True),
    "reward": TopicRule(qos=1, retain=False, state_like=False),
    "fault": TopicRule(qos=1, retain=True, state_like=False),
    "health": TopicRule(qos=0, retain=True, state_like=True),
}


class Message(NamedTuple):
    """One publication: the topic's last level (`state`), and the payload."""

    name: str
    payload: bytes

    @property
    def rule(self) -> TopicRule:
        """QoS, retention and replaceability of its topic."""
        return TOPICS[self.name]


def topic(prefix: str, node: str, name: str) -> str:
    """The full topic of `name`."""
    return f"{prefix}/{node}/{name}"


class Levels(Record):
    """Tonic levels."""

    dopamine: Level
    cortisol: Level
    acetylcholine: Level
    tempo: TempoLevel


class PhasicLevels(Record):
    """What events left, each in [-1, 1]."""

    dopamine: float
    cortisol: float
    acetylcholine: float


class ModulatorsPayload(Record):
    """The four levels, clip(tonic + phasic), and their parts."""

    dopamine: Level
    cortisol: Level
    acetylcholine: Level
    tempo: TempoLevel
    tonic: Levels
    phasic: PhasicLevels


class Flags(Record):
    """stress: cortisol above 0.5; reward: dopamine above 0.6; focus: acetylcholine above 0.7."""

    stress: bool
    reward: bool
    focus: bool


class Surprise(Record):
    """Prediction error of each channel, null where it is absent; `total` is the mean of the present."""

    total: Ratio | None
    channels: dict[str, Ratio | None]


class Rates(Record):
    """Spikes a step (1 ms of network time) of each neuron in this tick."""

    lif: tuple[Ratio, ...]
    izhikevich: tuple[Ratio, ...]


class StatePayload(Record):
    """`state`: what the nervous system is doing; `step` counts network steps since the first start."""

    node: str
    sequence: int
    time_utc: AwareDatetime
    step: int
    modulators: ModulatorsPayload
    flags: Flags
    surprise: Surprise
    rates: Rates


class SpikesPayload(Record):
    """`spikes`: spike counts and potentials of the tick."""

    node: str
    sequence: int
    time_utc: AwareDatetime
    step: int
    steps: int
    input_spikes: tuple[int, ...]
    lif_spikes: tuple[int, ...]
    izhikevich_spikes: tuple[int, ...]
    lif_potentials: tuple[float, ...]


class _RewardPayload(Record):
    id: str
    time_utc: AwareDatetime
    node: str
    origin: Literal["detected", "external"]
    replayed: bool


class WorkAcceptedPayload(_RewardPayload):
    """`reward`, a piece of work was done."""

    kind: Literal["WorkAccepted"]
    latency_ms: NonNegative | None
    units: NonNegative | None
    source: str | None


class BreakthroughFoundPayload(_RewardPayload):
    """`reward`, something was better than ever."""

    kind: Literal["BreakthroughFound"]
    metric: str | None
    value: float | None
    previous_best: float | None


class SourceSwitchPayload(_RewardPayload):
    """`reward`, the host's work comes from somewhere else."""

    kind: Literal["SourceSwitch"]
    previous: str | None
    current: str | None


class FaultPayload(Record):
    """`fault`: the class that holds, its canonical code, and what speaks for it."""

    model_config = ConfigDict(serialize_by_alias=True)

    node: str
    fault_class: str = Field(serialization_alias="class", validation_alias="class")
    code: str
    confidence: Ratio
    evidence: tuple[Evidence, ...]
    since_utc: AwareDatetime | None


class HostFacts(Record):
    """What does not change while the host is up."""

    kernel: str
    architecture: str
    cpu_model: str | None
    cpu_count: int | None
    memory_total_bytes: int | None
    gpus: tuple[str, ...]


class InfoPayload(Record):
    """`info`: who publishes here, and what it can measure."""

    node: str
    version: str
    boot_id: str | None
    started_utc: AwareDatetime
    interval_s: float
    steps_per_tick: int
    dimensions: dict[str, int]
    host: HostFacts
    sensors: tuple[str, ...]
    schemas: dict[str, int]


class SensorHealth(Record):
    """One sensor: `absent` has nothing to measure here, `failed` raised, `hung` is past its deadline."""

    state: Literal["ok", "absent", "failed", "hung"]
    error: str | None
    failures: int
    duration_ms: NonNegative | None


class MqttHealth(Record):
    """The connection; `dropped` counts messages that gave way to newer ones or to the bound of the queue."""

    connected: bool
    connections: int
    published: int
    dropped: int
    waiting_events: int
    error: str | None


class CheckpointHealth(Record):
    """Checkpoints; `age_s` is the time since the last that reached the disk, null before the first."""

    age_s: NonNegative | None
    written: int
    failures: int
    error: str | None


class RecorderHealth(Record):
    """Recordings: `file` is being written, null before the first frame and after a failure.

    `frames` counts those handed to the operating system since the start, `dropped` those that are missing
    in the recordings, `total_bytes` is the size of all recordings in the directory.
    """

    file: str | None
    frames: int
    dropped: int
    total_bytes: int
    failures: int
    error: str | None


class TicksHealth(Record):
    """Ticks since the start; `late` began over 50 ms after their due time, `missed` never took place.

    The lateness quantiles are of the last 600 ticks.
    """

    count: int
    late: int
    missed: int
    gaps: int
    lateness_p50_ms: NonNegative | None
    lateness_p99_ms: NonNegative | None


class HealthPayload(Record):
    """`health`: how the daemon itself is doing; `recorder` is null unless it is enabled.

    `faults` counts how often each class of `fault` has begun since the first start.
    """

    node: str
    time_utc: AwareDatetime
    uptime_s: NonNegative
    ticks: TicksHealth
    sensors: dict[str, SensorHealth]
    mqtt: MqttHealth
    checkpoint: CheckpointHealth
    recorder: RecorderHealth | None
    faults: dict[str, int]
    sinks_failed: dict[str, int]


REWARD_PAYLOADS: dict[str, type[_RewardPayload]] = {
    "WorkAccepted": WorkAcceptedPayload,
    "BreakthroughFound": BreakthroughFoundPayload,
    "SourceSwitch": SourceSwitchPayload,
}

_PAYLOADS: dict[str, type[Record]] = {
    "info": InfoPayload,
    "telemetry": TelemetryFrame,
    "state": StatePayload,
    "spikes": SpikesPayload,
    "fault": FaultPayload,
    "health": HealthPayload,
}

SCHEMA_NAMES = (*_PAYLOADS, "reward")


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema of the payload of topic `name`.

    Raises:
        KeyError: no topic of that name has a JSON payload.
    """
    if name == "reward":
        found = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "RewardPayload",
            "oneOf": [_inner(payload) for payload in REWARD_PAYLOADS.values()],
        }
    else:
        found = _PAYLOADS[name].json_schema()
    return {**found, "$id": f"urn:neuromodd:schema:{name}:{SCHEMA_VERSION}"}


def _inner(payload: type[Record]) -> dict[str, Any]:
    return payload.model_json_schema(mode="serialization")


def telemetry_message(frame: TelemetryFrame) -> Message:
    """The frame as it is."""
    return Message("telemetry", frame.to_json().encode())


def state_message(tick: Tick) -> Message:
    """Modulators, flags, surprise and rates of the tick."""
    levels = tick.modulators
    payload = StatePayload(
        node=tick.frame.node,
        sequence=tick.frame.sequence,
        time_utc=tick.frame.time_utc,
        step=tick.result.step,
        modulators=ModulatorsPayload(
            **levels.model_dump(),
            tonic=Levels(**tick.tonic.model_dump()),
            phasic=PhasicLevels(**tick.phasic.model_dump()),
        ),
        flags=Flags(stress=tick.stressed, reward=tick.rewarded, focus=tick.focused),
        surprise=Surprise(
            total=tick.surprise_total,
            channels=dict(zip(CHANNELS, tick.result.prediction_error, strict=True)),
        ),
        rates=Rates(lif=tick.result.lif_rates, izhikevich=tick.result.izhikevich_rates),
    )
    return Message("state", payload.to_json().encode())


def spikes_message(tick: Tick) -> Message:
    """Spike counts and potentials of the tick."""
    payload = SpikesPayload(
        node=tick.frame.node,
        sequence=tick.frame.sequence,
        time_utc=tick.frame.time_utc,
        step=tick.result.step,
        steps=tick.result.steps,
        input_spikes=tick.result.input_spikes,
        lif_spikes=tick.result.lif_spikes,
        izhikevich_spikes=tick.result.izhikevich_spikes,
        lif_potentials=tick.potentials,
    )
    return Message("spikes", payload.to_json().encode())


def reward_message(event: RewardEvent, *, replayed: bool = False) -> Message:
    """One event; `replayed` when it is sent later than it happened."""
    payload = REWARD_PAYLOADS[event.kind].from_dict({**event.model_dump(), "replayed": replayed})
    return Message("reward", payload.to_json().encode())


def fault_message(node: str, fault: Fault) -> Message:
    """The classification that holds."""
    payload = FaultPayload(
        **{"class": fault.fault_class.value},
        node=node,
        code=fault.fault_class.code,
        confidence=fault.confidence,
        evidence=fault.evidence,
        since_utc=fault.since_utc,
    )
    return Message("fault", payload.to_json().encode())


def record_message(name: str, payload: InfoPayload | HealthPayload) -> Message:
    """`info` or `health`, which the daemon fills in."""
    return Message(name, payload.to_json().encode())


def tick_messages(tick: Tick, *, spikes: bool) -> Iterable[Message]:
    """All that one tick has to say, in the order in which it is published."""
    yield telemetry_message(tick.frame)
    yield state_message(tick)
    if spikes:
        yield spikes_message(tick)
    for event in tick.events:
        yield reward_message(event)
    if tick.fault_changed:
        yield fault_message(tick.frame.node, tick.fault)
