"""Every payload that the daemon publishes, as a record; `messages` fills them in.

Units are in the names, null is "not measured". Fields may be added in version 1, never renamed or removed.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, ConfigDict, Field

from neuromodd.core.anomaly import AnomalyChannel
from neuromodd.core.fault_rules import Evidence
from neuromodd.core.frame import TelemetryFrame
from neuromodd.core.record import NonNegative, Ratio, Record

Level = Annotated[float, Field(ge=0.0, le=1.0)]
Signed = Annotated[float, Field(ge=-1.0, le=1.0)]
TempoLevel = Annotated[float, Field(ge=0.0, le=2.0)]


class TelemetryPayload(TelemetryFrame):
    """`telemetry`: the frame, floats to 5 significant digits; `replayed` if it was kept in an outage."""

    replayed: bool


class Levels(Record):
    """Tonic levels."""

    dopamine: Level
    cortisol: Level
    acetylcholine: Level
    tempo: TempoLevel


class PhasicLevels(Record):
    """What events left, each in [-1, 1]."""

    dopamine: Signed
    cortisol: Signed
    acetylcholine: Signed


class ModulatorsPayload(Record):
    """The four levels, clip(tonic + phasic), and their parts."""

    dopamine: Level
    cortisol: Level
    acetylcholine: Level
    tempo: TempoLevel
    tonic: Levels
    phasic: PhasicLevels


class Flags(Record):
    """stress: cortisol above 0.5; reward: dopamine above 0.6; focus: acetylcholine above 0.7.

    anomaly: between the `begin` and the `end` of one.
    """

    stress: bool
    reward: bool
    focus: bool
    anomaly: bool


class Surprise(Record):
    """How strange it is, in all and by `surprise.channels`: 0.3 is one normal moment in a thousand.

    `probability`, 10^(-10 total), is that of a normal moment to be at least this strange. Null is "not
    measured", and "too little known yet"; if surprise is disabled, there are no channels.
    """

    total: Ratio | None
    probability: Ratio | None
    channels: dict[str, Ratio | None]


class PredictionError(Record):
    """How far the network's channels are from what it expects, null where absent; `total` is the mean."""

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
    prediction_error: PredictionError
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
    """`fault`: the class that holds, its canonical code, and what speaks for it.

    `id` stands for its beginning at `time_utc`: the message that a new connection begins with repeats it.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    id: str
    time_utc: AwareDatetime
    node: str
    fault_class: str = Field(serialization_alias="class", validation_alias="class")
    code: str
    confidence: Ratio
    evidence: tuple[Evidence, ...]
    since_utc: AwareDatetime | None
    replayed: bool


class AnomalyPayload(Record):
    """`anomaly`: the begin or the end of an episode in which the host is not as it is used to be.

    Attributes:
        id: of this message; a repeat has the same.
        episode: the same in the begin and the end of one episode.
        phase: which of the two.
        time_utc: when it was noticed.
        since_utc: when the episode began.
        duration_s: from since_utc to time_utc.
        surprise: the largest so far.
        probability: of a normal moment to be that strange, 10^(-10 surprise).
        channels: that take part, the strangest first: what was observed when it was strangest, what had been
            expected, and between what bounds nine moments in ten had been.
        sentence: says it in plain words.
    """

    id: str
    episode: str
    phase: Literal["begin", "end"]
    time_utc: AwareDatetime
    node: str
    since_utc: AwareDatetime
    duration_s: NonNegative
    surprise: Ratio
    probability: Ratio
    channels: tuple[AnomalyChannel, ...]
    sentence: str
    replayed: bool


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


class OutboxHealth(Record):
    """What waits for the broker: rewards, changes of fault, anomalies, and telemetry if it is kept.

    Attributes:
        waiting: messages.
        waiting_bytes: of their payloads.
        oldest_age_s: since the oldest was put there, of this boot; null if none waits.
        dropped: since the start, for one of the outbox's bounds.
        error: why it is kept in memory only; null if it is on the disk.
    """

    waiting: int
    waiting_bytes: int
    oldest_age_s: NonNegative | None
    dropped: int
    error: str | None


class InboundHealth(Record):
    """Requests since the start: taken, and refused by the kind of trouble."""

    taken: int
    refused: dict[str, int]


class MqttHealth(Record):
    """The connection.

    Attributes:
        connected: whether there is one.
        protocol: `5` or `3.1.1`, as last spoken; null before the first connection.
        connections: since the start.
        published: messages since the start.
        dropped: states that gave way to newer ones, and events that gave way to the outbox's bounds.
        waiting_events: as `outbox.waiting`.
        outbox: what waits, and how.
        inbound: null unless it is enabled.
        taken_over: whether another client with our id has the session; we try again after a while.
        error: what is wrong with the connection, or what the broker does not let us do.
    """

    connected: bool
    protocol: Literal["5", "3.1.1"] | None
    connections: int
    published: int
    dropped: int
    waiting_events: int
    outbox: OutboxHealth
    inbound: InboundHealth | None
    taken_over: bool
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


class WebHealth(Record):
    """The web view: how many pages are open, and why nobody can open one."""

    pages: int
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
    """`health`: how the daemon itself is doing; `recorder` and `web` are null unless they are enabled.

    `faults` counts how often each class of `fault` has begun since the first start, `anomalies` how many
    anomalies have.
    """

    node: str
    time_utc: AwareDatetime
    uptime_s: NonNegative
    ticks: TicksHealth
    sensors: dict[str, SensorHealth]
    mqtt: MqttHealth
    checkpoint: CheckpointHealth
    recorder: RecorderHealth | None
    web: WebHealth | None = None
    faults: dict[str, int]
    anomalies: int = Field(default=0, ge=0)
    sinks_failed: dict[str, int]


REWARD_PAYLOADS: dict[str, type[_RewardPayload]] = {
    "WorkAccepted": WorkAcceptedPayload,
    "BreakthroughFound": BreakthroughFoundPayload,
    "SourceSwitch": SourceSwitchPayload,
}
