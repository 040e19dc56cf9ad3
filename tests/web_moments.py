"""Moments and anomalies that are made up: what is shown of them depends on no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from neuromodd.core.anomaly import Anomaly, AnomalyChannel, ChannelMoment, Moment
from neuromodd.core.brain import Tick
from neuromodd.core.surprise import DEFAULT_CHANNELS

START = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)
SENTENCE = "cpu is 97 %, where 5 to 20 % was expected; network is 120 MB/s, where 1 to 3 MB/s was expected"

STRANGE = (
    AnomalyChannel(name="cpu", observed=0.97, expected=0.1, low=0.05, high=0.2, surprise=0.62),
    AnomalyChannel(name="network", observed=1.2e8, expected=2e6, low=1e6, high=3e6, surprise=0.41),
)


def anomaly(
    phase: Literal["begin", "end"] = "begin",
    *,
    since_s: float = 0.0,
    duration_s: float = 0.0,
    surprise: float = 0.64,
    channels: Sequence[AnomalyChannel] = STRANGE,
    sentence: str = SENTENCE,
) -> Anomaly:
    """One that began so many seconds after the start, and is as long as that."""
    since_utc = START + timedelta(seconds=since_s)
    return Anomaly(
        phase=phase,
        since_utc=since_utc,
        time_utc=since_utc + timedelta(seconds=duration_s),
        duration_s=duration_s,
        surprise=surprise,
        channels=tuple(channels),
        sentence=sentence,
    )


def moment(
    surprise: float | None = 0.05,
    *,
    names: Sequence[str] = DEFAULT_CHANNELS,
    of: Mapping[str, float | None] | None = None,
    learning: Sequence[str] = (),
    missing: Sequence[str] = ("gpu", "gpu_memory"),
    change: Anomaly | None = None,
    episode: Anomaly | None = None,
) -> Moment:
    """A calm one, but for what is told."""

    def channel(name: str) -> ChannelMoment:
        if name in missing:
            return ChannelMoment(name, None, 0.1, 0.05, 0.2, None)
        if name in learning:
            return ChannelMoment(name, 0.1, None, None, None, None)
        return ChannelMoment(name, 0.1, 0.1, 0.05, 0.2, (of or {}).get(name, 0.03))

    return Moment(surprise, surprise, tuple(channel(name) for name in names), change, episode)


def felt(tick: Tick, moment: Moment | None) -> Tick:
    """The tick, with another surprise."""
    return tick.model_copy(update={"surprise": moment})


def episode(ticks: Sequence[Tick], begin: int, end: int | None) -> list[Tick]:
    """The ticks, with an anomaly from one to another of them; None goes on."""
    since_s = _seconds(ticks[begin])
    began = anomaly(since_s=since_s)
    found = []
    for at, tick in enumerate(ticks):
        holds = at >= begin and (end is None or at < end)
        change = began if at == begin else None
        if at == end:
            change = anomaly("end", since_s=since_s, duration_s=_seconds(tick) - since_s)
        strange = {"cpu": 0.62, "network": 0.41} if holds else None
        found.append(
            felt(
                tick,
                moment(
                    0.64 if holds else 0.04 + 0.03 * (at % 4),
                    of=strange,
                    change=change,
                    episode=began if holds else None,
                ),
            )
        )
    return found


def _seconds(tick: Tick) -> float:
    time_utc = tick.frame.time_utc
    assert time_utc is not None
    return (time_utc - START).total_seconds()
