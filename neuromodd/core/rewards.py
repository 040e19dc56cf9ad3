"""RewardEvent: what the host is rewarded or upset by, and how it is detected in frames."""

from __future__ import annotations

import hashlib
import json
import math
import sys
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self, cast

from pydantic import AwareDatetime, Field

from neuromodd.core.frame import GpuSample, TelemetryFrame
from neuromodd.core.record import NonNegative, Ratio, Record
from neuromodd.errors import InvalidRecordError, InvalidValueError, shortened

Origin = Literal["detected", "external"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

RESTART_S = 60.0
"""A restart that took longer than this is time in which nobody watched."""


class RewardEvent(Record):
    """One of WorkAccepted, BreakthroughFound and SourceSwitch, told apart by `kind`.

    Attributes:
        kind: the name of the class.
        id: a uuid7; a repeated message has the same.
        time_utc: when it happened.
        node: where.
        origin: `detected` in the host's own telemetry, or `external`, from a program of the user's.
    """

    kind: str
    id: str | None = None
    time_utc: AwareDatetime | None = None
    node: str | None = None
    origin: Origin = "external"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The event that `text` describes, of the class that its `kind` names.

        Raises:
            InvalidRecordError: not JSON, an unknown kind, or a field is missing or out of range.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            raise InvalidRecordError(cls.__name__, [f"got {shortened(text)}, expected JSON"]) from None
        if not isinstance(values, dict):
            raise InvalidRecordError(cls.__name__, [f"got {shortened(values)}, expected a JSON object"])
        return cls.from_dict(values)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The event that parsed JSON describes, of the class that its `kind` names.

        Raises:
            InvalidRecordError: an unknown kind, or a field is missing or out of range.
        """
        if cls is not RewardEvent:
            return super().from_dict(values)
        kind = values.get("kind")
        if not isinstance(kind, str) or kind not in KINDS:
            fault = f"kind: got {shortened(kind)}, expected one of {', '.join(KINDS)}"
            raise InvalidRecordError(cls.__name__, [fault])
        return cast("Self", KINDS[kind].from_dict(values))


class WorkAccepted(RewardEvent):
    """A piece of work was done.

    Attributes:
        latency_ms: how long it took; None where nobody measured, which counts as 0.
        units: how much work it was; for a busy episode the work rate summed over its seconds.
        source: who did it.
    """

    kind: Literal["WorkAccepted"] = "WorkAccepted"
    latency_ms: NonNegative | None = None
    units: NonNegative | None = None
    source: str | None = None


class BreakthroughFound(RewardEvent):
    """Something was better than ever: `value` of `metric`, against `previous_best`."""

    kind: Literal["BreakthroughFound"] = "BreakthroughFound"
    metric: str | None = None
    value: float | None = None
    previous_best: float | None = None


class SourceSwitch(RewardEvent):
    """The host's work comes from somewhere else: names joined by commas, sorted."""

    kind: Literal["SourceSwitch"] = "SourceSwitch"
    previous: str | None = None
    current: str | None = None


KINDS: dict[str, type[RewardEvent]] = {
    "WorkAccepted": WorkAccepted,
    "BreakthroughFound": BreakthroughFound,
    "SourceSwitch": SourceSwitch,
}


class RewardParameters(Record):
    """Settings of the detection."""

    busy_on_ratio: Ratio = Field(
        default=0.5, description="CPU or GPU utilisation at which a busy episode begins"
    )
    busy_off_ratio: Ratio = Field(default=0.3, description="utilisation under which it ends")
    busy_ticks: int = Field(
        default=3, ge=1, le=3600, description="ticks in a row that it takes to begin or end"
    )
    work_units: float | None = Field(
        default=None, gt=0.0, description="a WorkAccepted every so many units of work"
    )
    breakthrough_ratio: float = Field(
        default=1.1, gt=1.0, description="times the best so far that is a breakthrough"
    )
    breakthrough_history_s: NonNegative = Field(
        default=3600.0, description="work observed before there is a best"
    )
    breakthrough_interval_s: NonNegative = Field(
        default=60.0, description="at least between two breakthroughs"
    )
    source_ticks: int = Field(
        default=3, ge=1, le=3600, description="ticks in a row that make a new work source"
    )


def event_id(
    *, time_utc: datetime, node: str, boot_id: str | None, sequence: int, kind: str, ordinal: int
) -> str:
    """A uuid7 (RFC 9562), the same on every replay: milliseconds of `time_utc`, then a hash of the rest."""
    seed = "\x1f".join((node, boot_id or "", str(sequence), kind, str(ordinal)))
    noise = int.from_bytes(hashlib.blake2b(seed.encode(), digest_size=10).digest(), "big")
    milliseconds = (time_utc - EPOCH) // timedelta(milliseconds=1) & (1 << 48) - 1
    bits = milliseconds << 80 | 0x7 << 76 | (noise >> 62 & 0xFFF) << 64 | 0b10 << 62 | noise & (1 << 62) - 1
    return str(uuid.UUID(int=bits))


def stamped(event: RewardEvent, frame: TelemetryFrame, ordinal: int) -> RewardEvent:
    """`event` with id, time and node, those that it lacks taken from the frame in which it became known.

    Args:
        event: detected, or from outside.
        frame: the frame.
        ordinal: tells the events of one frame apart.

    Raises:
        InvalidValueError: the frame has no `time_utc`, without which an event has no id.
    """
    if frame.time_utc is None:
        raise InvalidValueError("RewardEvent.time_utc", None, "the time of its frame, ids are made of it")
    identity = event_id(
        time_utc=frame.time_utc,
        node=frame.node,
        boot_id=frame.boot_id,
        sequence=frame.sequence,
        kind=event.kind,
        ordinal=ordinal,
    )
    given = {"id": event.id, "time_utc": event.time_utc, "node": event.node}
    lacking = {"id": identity, "time_utc": frame.time_utc, "node": frame.node}
    return event.model_copy(update={name: lacking[name] for name, value in given.items() if value is None})


class RewardDetector:
    """Finds RewardEvents in the frames of one host.

    Mutable; `state` and `restore` carry it through a checkpoint.
    """

    def __init__(self, parameters: RewardParameters | None = None) -> None:
        self.parameters = parameters or RewardParameters()
        self._episode = _BusyEpisode()
        self._best = _BestWork()
        self._sources = _Sources()
        self._resumed = False

    def update(self, frame: TelemetryFrame, elapsed_s: float) -> list[RewardEvent]:
        """The events that `frame`, `elapsed_s` seconds after the last, makes known.

        Raises:
            InvalidValueError: the frame has no `time_utc`, without which an event has no id.
        """
        watched_s = self._watched_s(frame, elapsed_s)
        found: list[RewardEvent] = [
            *self._episode.update(frame, watched_s, self.parameters),
            *self._best.update(frame, elapsed_s, watched_s, self.parameters),
            *self._sources.update(frame, self.parameters),
        ]
        detected = [event.model_copy(update={"origin": "detected"}) for event in found]
        return [stamped(event, frame, ordinal) for ordinal, event in enumerate(detected)]

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "episode": vars(self._episode).copy(),
            "best": vars(self._best).copy(),
            "sources": vars(self._sources).copy(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        for part in ("episode", "best", "sources"):
            target = vars(getattr(self, f"_{part}"))
            target.update({name: state[part][name] for name in target})
        self._resumed = True

    def _watched_s(self, frame: TelemetryFrame, elapsed_s: float) -> float:
        """How much of the time since the last frame was watched: nothing of a gap or of a long restart."""
        resumed, self._resumed = self._resumed, False
        restarted = resumed and frame.interval_s is None and elapsed_s > RESTART_S
        return 0.0 if frame.gap or restarted else elapsed_s


class _BusyEpisode:
    """Busy for some ticks, then idle for some ticks: work was done."""

    def __init__(self) -> None:
        self.busy = False
        self.ticks = 0
        self.units = 0.0
        self.source: str | None = None
        self.pending_units = 0.0

    def update(
        self, frame: TelemetryFrame, watched_s: float, parameters: RewardParameters
    ) -> list[RewardEvent]:
        events: list[RewardEvent] = []
        rate = frame.work.rate if frame.work is not None else None
        units = 0.0 if rate is None else rate * watched_s
        busiest = _busiest(frame)
        if busiest is not None:
            source, level = busiest
            idle, busy = level < parameters.busy_off_ratio, level >= parameters.busy_on_ratio
            towards_change = idle if self.busy else busy
            self.ticks = self.ticks + 1 if towards_change else 0
            if self.busy or towards_change:
                self.units = _sum(self.units, units)
                self.source = self.source if self.busy else source
            else:
                self.units = 0.0
            if self.ticks >= parameters.busy_ticks:
                if self.busy:
                    events.append(WorkAccepted(units=self.units, source=self.source))
                    self.units = 0.0
                self.busy, self.ticks = not self.busy, 0
        if parameters.work_units is not None:
            self.pending_units = _sum(self.pending_units, units)
            if self.pending_units >= parameters.work_units:
                rest = math.fmod(self.pending_units, parameters.work_units)
                whole, self.pending_units = self.pending_units - rest, rest
                events.append(WorkAccepted(units=whole, source=frame.work.source if frame.work else None))
        return events


class _BestWork:
    """The best work rate of one source, and whether it was just beaten."""

    def __init__(self) -> None:
        self.source: str | None = None
        self.best = 0.0
        self.observed_s = 0.0
        self.since_last_s: float | None = None

    def update(
        self, frame: TelemetryFrame, elapsed_s: float, watched_s: float, parameters: RewardParameters
    ) -> list[RewardEvent]:
        if self.since_last_s is not None:
            self.since_last_s += elapsed_s
        if frame.work is None or frame.work.rate is None:
            return []
        if frame.work.source != self.source:
            # Rates of different sources have different units.
            self.source, self.best, self.observed_s = frame.work.source, 0.0, 0.0
        rate, previous = frame.work.rate, self.best
        self.best = max(rate, previous)
        known = self.observed_s >= parameters.breakthrough_history_s
        self.observed_s += watched_s
        rested = self.since_last_s is None or self.since_last_s >= parameters.breakthrough_interval_s
        if not (known and rested and previous > 0.0 and rate >= parameters.breakthrough_ratio * previous):
            return []
        self.since_last_s = 0.0
        return [BreakthroughFound(metric="work.rate", value=rate, previous_best=previous)]


class _Sources:
    """The work sources by kind (power, gpus, compute, cgroup), and whether they changed for good.

    A kind that can't be told at the moment stays what it was; one seen for the first time is no change.
    """

    def __init__(self) -> None:
        self.current: dict[str, str] = {}
        self.candidate: dict[str, str] = {}
        self.ticks = 0

    def update(self, frame: TelemetryFrame, parameters: RewardParameters) -> list[RewardEvent]:
        seen = _work_sources(frame)
        self.current = {**seen, **self.current}
        seen = {**self.current, **seen}
        if seen == self.current:
            self.ticks = 0
            return []
        self.ticks = self.ticks + 1 if seen == self.candidate and self.ticks else 1
        self.candidate = seen
        if self.ticks < parameters.source_ticks:
            return []
        previous, self.current, self.ticks = self.current, seen, 0
        return [SourceSwitch(previous=_listed(previous), current=_listed(seen))]


def _sum(units: float, more: float) -> float:
    # A rate from outside may be as large as a double: the sum must stay one.
    return min(units + more, sys.float_info.max)


def _busiest(frame: TelemetryFrame) -> tuple[str, float] | None:
    levels = [(f"gpus.{gpu.index}", gpu.utilization_ratio) for gpu in frame.gpus or ()]
    if frame.cpu is not None:
        levels.append(("cpu", frame.cpu.utilization_ratio))
    known = [(source, level) for source, level in levels if level is not None]
    return max(known, key=lambda pair: pair[1], default=None)


def _work_sources(frame: TelemetryFrame) -> dict[str, str]:
    seen = {}
    if frame.power is not None and frame.power.on_mains is not None:
        seen["power"] = "mains" if frame.power.on_mains else "battery"
    if frame.gpus is not None:
        reached = [gpu for gpu in frame.gpus if not gpu.lost]
        seen["gpus"] = ",".join(sorted(f"gpu:{_place(gpu)}" for gpu in reached))
        computing = [gpu for gpu in reached if gpu.compute_processes is not None]
        if computing:
            busy = sorted(f"compute:{_place(gpu)}" for gpu in computing if gpu.compute_processes)
            seen["compute"] = ",".join(busy)
    if frame.work is not None and frame.work.cgroup is not None:
        seen["cgroup"] = f"cgroup:{frame.work.cgroup}"
    return seen


def _place(gpu: GpuSample) -> str | int:
    # A GPU that sleeps from the start has no uuid until it is woken: that is no other GPU.
    return gpu.pci_bus_id or gpu.uuid or gpu.index


def _listed(sources: Mapping[str, str]) -> str:
    return ",".join(sorted(name for name in sources.values() if name))
