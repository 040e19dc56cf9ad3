"""What a `health` payload says, in a few words: the broker, the sensors, the checkpoint, and what fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from neuromodd.dashboard.measures import number, text

SENSORS_LIMIT = 64
ERROR_LIMIT = 100


class Condition(NamedTuple):
    """How a daemon is doing, as it said itself.

    Attributes:
        heard_s: when it said so, by our clock.
        protocol: of MQTT, that it speaks.
        waiting: messages in its outbox.
        dropped: messages that gave way.
        sensors: how many of them are `ok`, `absent`, `failed` and `hung`.
        checkpoint_age_s: at that moment; None before the first.
        written: checkpoints since its start.
        uptime_s: since its start.
        late, missed, gaps: ticks, since its start.
        lateness_ms: of one in a hundred of the newest ticks, or more.
        failing: a text for each thing that fails, the worst first.
    """

    heard_s: float
    protocol: str
    waiting: int
    dropped: int
    sensors: dict[str, int]
    checkpoint_age_s: float | None
    written: int
    uptime_s: float | None
    late: int
    missed: int
    gaps: int
    lateness_ms: float | None
    failing: tuple[str, ...]

    @classmethod
    def of(cls, values: Mapping[str, Any], heard_s: float) -> Condition:
        """What a payload says; whatever in it does not fit is as if it was not there."""
        states = [state for _, state, _ in _sensors(values)]
        return cls(
            heard_s=heard_s,
            protocol=text(_at(values, "mqtt", "protocol"), 8),
            waiting=_count(values, "mqtt", "outbox", "waiting"),
            dropped=_count(values, "mqtt", "dropped"),
            sensors={state: states.count(state) for state in ("ok", "absent", "failed", "hung")},
            checkpoint_age_s=number(values, "checkpoint", "age_s"),
            written=_count(values, "checkpoint", "written"),
            uptime_s=number(values, "uptime_s"),
            late=_count(values, "ticks", "late"),
            missed=_count(values, "ticks", "missed"),
            gaps=_count(values, "ticks", "gaps"),
            lateness_ms=number(values, "ticks", "lateness_p99_ms"),
            failing=tuple(_failing(values)),
        )

    def up_s(self, now_s: float) -> float | None:
        """How long the daemon has been running."""
        return None if self.uptime_s is None else self.uptime_s + now_s - self.heard_s

    def checkpoint_s(self, now_s: float) -> float | None:
        """How old its newest checkpoint may be: it says so only now and then."""
        return None if self.checkpoint_age_s is None else self.checkpoint_age_s + now_s - self.heard_s


def _failing(values: Mapping[str, Any]) -> Iterator[str]:
    for place, name in (
        ("checkpoint", "checkpoint"),
        ("mqtt", "broker"),
        ("recorder", "recorder"),
        ("web", "web view"),
    ):
        if error := text(_at(values, place, "error"), ERROR_LIMIT):
            yield f"{name}: {error}"
    if error := text(_at(values, "mqtt", "outbox", "error"), ERROR_LIMIT):
        yield f"outbox: {error}"
    for name, state, error in _sensors(values):
        if state in ("failed", "hung"):
            yield f"sensor {name} {state}{f': {error}' if error else ''}"
    sinks = values.get("sinks_failed")
    for name in list(sinks)[:SENSORS_LIMIT] if isinstance(sinks, dict) else ():
        if count := _count(sinks, name):
            yield f"sink {text(name, 20)} failed {count} times"


def _sensors(values: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    sensors = values.get("sensors")
    for name, of in list(sensors.items())[:SENSORS_LIMIT] if isinstance(sensors, dict) else ():
        yield text(name, 20), text(_at(of, "state"), 10), text(_at(of, "error"), ERROR_LIMIT)


def _at(values: object, *path: str) -> object:
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
    return values


def _count(values: object, *path: str) -> int:
    return int(number(values, *path) or 0.0)
