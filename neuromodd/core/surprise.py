"""Draft of the types and the detector; the model is to come."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from pydantic import AwareDatetime, Field

from neuromodd.core.record import NonNegative, Ratio, Record

DEFAULT_CHANNELS = (
    "cpu",
    "memory",
    "gpu",
    "gpu_memory",
    "power",
    "thermal",
    "io",
    "work",
    "network",
    "pressure",
)

SCALE_DECADES = 10.0
"""Surprise 1 is a probability of 1e-10."""


def probability(surprise: float) -> float:
    """How probable it is that a normal moment is at least this strange: 10 ** (-10 * surprise)."""
    return float(10.0 ** (-SCALE_DECADES * surprise))


class SurpriseParameters(Record):
    """Settings of the surprise."""

    enabled: bool = Field(default=True, description="learn what is normal here, and say what is not")
    channels: tuple[str, ...] = Field(
        default=DEFAULT_CHANNELS, description="what is watched: names of channels, or fields of the frame"
    )
    threshold: float = Field(default=0.5, gt=0.0, le=1.0, description="surprise from which an anomaly begins")
    feedback: bool = Field(default=True, description="unexpected uncertainty raises acetylcholine, cortisol")


class ChannelMoment(NamedTuple):
    """One channel at one moment.

    Attributes:
        name: of the channel.
        observed: what was measured, in the channel's own unit; None where it is missing.
        expected: the middle of what was expected, likewise; None before enough is known.
        low: the lower end of what was expected (nine of ten moments lie between low and high).
        high: the upper end.
        surprise: in [0, 1]; None where the channel is missing, or too little is known.
    """

    name: str
    observed: float | None
    expected: float | None
    low: float | None
    high: float | None
    surprise: float | None


class AnomalyChannel(Record):
    """A channel that takes part in an anomaly, as it was when it was strangest."""

    name: str
    observed: float | None
    expected: float | None
    low: float | None
    high: float | None
    surprise: Ratio


class Anomaly(Record):
    """One episode: `begin` when it is noticed, `end` when the host is itself again.

    Attributes:
        phase: which of the two.
        since_utc: when it began; None for data without times.
        time_utc: of this moment, likewise.
        duration_s: from since_utc to time_utc.
        surprise: the largest so far.
        channels: the strangest first.
        sentence: says it in plain words.
    """

    phase: Literal["begin", "end"]
    since_utc: AwareDatetime | None
    time_utc: AwareDatetime | None
    duration_s: NonNegative
    surprise: Ratio
    channels: tuple[AnomalyChannel, ...]
    sentence: str


class Moment(NamedTuple):
    """What one row of readings led to.

    Attributes:
        surprise: of all channels together, in [0, 1]; None without a channel that can tell.
        score: the surprise on which alarms are decided: held down while an episode lasts.
        channels: in the order of the detector's names.
        change: the episode that began or ended with this row.
        episode: the one that goes on after it, as it was at its begin; None if there is none.
    """

    surprise: float | None
    score: float | None
    channels: tuple[ChannelMoment, ...]
    change: Anomaly | None
    episode: Anomaly | None


class SurpriseDetector:
    """Learns what is normal for some channels, row by row. Mutable: each `update` moves it on.

    Args:
        names: of the channels.
        parameters: the settings (`channels` and `enabled` are not looked at here).
        compiled: as of the engine.
    """

    def __init__(
        self,
        names: Sequence[str],
        parameters: SurpriseParameters | None = None,
        *,
        compiled: bool | None = None,
    ) -> None:
        self.names = tuple(names)
        self.parameters = parameters or SurpriseParameters()
        self.compiled = bool(compiled)
        self.episode: Anomaly | None = None
        self._rows = 0
        self._calm = 0
        self._means = [0.0] * len(self.names)
        self._vars = [0.0] * len(self.names)

    def update(
        self, values: Sequence[float | None], time_s: float | None = None, *, gap: bool = False
    ) -> Moment:
        """Take in one row.

        Args:
            values: one a channel, None where it is missing.
            time_s: seconds since 1970 UTC; None for data without times.
            gap: whether there is a hole in time before this row.
        """
        self._rows += 1
        channels = []
        for at, (name, value) in enumerate(zip(self.names, values, strict=True)):
            mean, deviation = self._means[at], math.sqrt(self._vars[at])
            known = self._rows > 30
            surprise = None
            if value is not None:
                if known:
                    z = abs(value - mean) / max(deviation, 1e-3, abs(mean) * 0.02)
                    surprise = min(0.05 * z * z / 2.0, 1.0)
                self._vars[at] += 0.02 * ((value - mean) ** 2 - self._vars[at])
                self._means[at] += 0.02 * (value - mean)
            channels.append(
                ChannelMoment(
                    name,
                    value,
                    mean if known else None,
                    mean - 2 * deviation if known else None,
                    mean + 2 * deviation if known else None,
                    surprise,
                )
            )
        told = [of.surprise for of in channels if of.surprise is not None]
        total = max(told, default=None)
        change = self._follow(
            total, channels, None if time_s is None else datetime.fromtimestamp(time_s, UTC)
        )
        return Moment(total, total, tuple(channels), change, self.episode)

    def _follow(
        self, total: float | None, channels: Sequence[ChannelMoment], now: datetime | None
    ) -> Anomaly | None:
        if total is None:
            return None
        if self.episode is None:
            if total < self.parameters.threshold:
                return None
            strangest = sorted(
                (of for of in channels if of.surprise is not None and of.surprise >= 0.3),
                key=lambda of: -(of.surprise or 0.0),
            )
            self._calm = 0
            self.episode = Anomaly(
                phase="begin",
                since_utc=now,
                time_utc=now,
                duration_s=0.0,
                surprise=total,
                channels=tuple(AnomalyChannel(**of._asdict()) for of in strangest),
                sentence="cpu is 0.97, where 0.05 to 0.2 was expected",
            )
            return self.episode
        self._calm = 0 if total >= 0.3 else self._calm + 1
        if self._calm < 10:
            return None
        held, self.episode = self.episode, None
        lasted = 0.0
        if now is not None and held.since_utc is not None:
            lasted = max((now - held.since_utc).total_seconds(), 0.0)
        return held.model_copy(update={"phase": "end", "time_utc": now, "duration_s": lasted})

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint needs to go on exactly, as plain JSON values."""
        return {
            "names": list(self.names),
            "rows": self._rows,
            "calm": self._calm,
            "means": list(self._means),
            "vars": list(self._vars),
            "episode": None if self.episode is None else self.episode.model_dump(mode="json"),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned; channels are found by name, new ones begin anew."""
        self._rows = state["rows"]
        self._calm = state["calm"]
        for at, name in enumerate(self.names):
            if name in state["names"]:
                there = state["names"].index(name)
                self._means[at], self._vars[at] = state["means"][there], state["vars"][there]
        self.episode = None if state["episode"] is None else Anomaly.from_dict(state["episode"])
