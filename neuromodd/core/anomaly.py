"""Moments and anomalies: an episode from where it is noticed to where the host is itself again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from pydantic import AwareDatetime

from neuromodd.core.record import NonNegative, Ratio, Record

DECADES = 10.0
"""Surprise 1 is a probability of 1e-10."""

CALM_SHARE = 0.6
"""Of the threshold: a moment below is calm. The score of a moment in an episode goes no higher."""

CALM_ROWS = 20
"""An episode is over after so many calm moments in a row."""

CHANNELS_TOLD = 8
"""Of the channels of an episode the strangest are told."""


def probability(surprise: float) -> float:
    """How probable it is that a normal moment is at least this strange: 10 ** (-10 * surprise)."""
    return float(10.0 ** (-DECADES * surprise))


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


class Episodes:
    """Makes one episode of strange moments that follow each other.

    Attributes:
        current: the episode that goes on, as it was at its begin.
    """

    def __init__(self) -> None:
        self.current: Anomaly | None = None
        self._calm = 0
        self._highest = 0.0
        self._strangest: dict[str, AnomalyChannel] = {}

    def follow(
        self,
        surprise: float | None,
        channels: Sequence[ChannelMoment],
        strangest: Callable[[int], ChannelMoment],
        now: datetime | None,
        threshold: float,
    ) -> tuple[float | None, Anomaly | None]:
        """The score of a moment, and the episode that begins or ends with it.

        A moment that nothing can be said of neither begins an episode nor calms one.

        Args:
            surprise: of all channels.
            channels: each of them.
            strangest: what a channel, by its place, was at its strangest in the rows that surprise is of.
            now: the moment's time.
            threshold: surprise from which an episode begins.
        """
        if surprise is None:
            return None, None
        calm = CALM_SHARE * threshold
        if self.current is None:
            return surprise, self._begin(
                surprise, channels, strangest, now, calm
            ) if surprise >= threshold else None
        self._highest = max(self._highest, surprise)
        if surprise >= calm:
            self._remember(channels, strangest, calm)
        self._calm = 0 if surprise >= calm else self._calm + 1
        return min(surprise, calm), self._end(now) if self._calm >= CALM_ROWS else None

    def _begin(
        self,
        surprise: float,
        channels: Sequence[ChannelMoment],
        strangest: Callable[[int], ChannelMoment],
        now: datetime | None,
        calm: float,
    ) -> Anomaly:
        self._calm, self._highest, self._strangest = 0, surprise, {}
        self._remember(channels, strangest, calm)
        if not self._strangest:
            # None of them is strange alone: what is strange is that they are so together.
            self._remember(channels, strangest, 0.0)
        told = self._told()
        self.current = Anomaly(
            phase="begin",
            since_utc=now,
            time_utc=now,
            duration_s=0.0,
            surprise=surprise,
            channels=told,
            sentence=sentence(told),
        )
        return self.current

    def _end(self, now: datetime | None) -> Anomaly | None:
        held, self.current = self.current, None
        if held is None:
            return None
        lasted_s = 0.0
        if now is not None and held.since_utc is not None:
            lasted_s = max((now - held.since_utc).total_seconds(), 0.0)
        told = self._told()
        return held.model_copy(
            update={
                "phase": "end",
                "time_utc": now,
                "duration_s": lasted_s,
                "surprise": self._highest,
                "channels": told,
                "sentence": sentence(told),
            }
        )

    def _remember(
        self, channels: Sequence[ChannelMoment], strangest: Callable[[int], ChannelMoment], least: float
    ) -> None:
        for at, of in enumerate(channels):
            if of.surprise is None or of.surprise < least:
                continue
            before = self._strangest.get(of.name)
            if before is None or of.surprise > before.surprise:
                told = strangest(at)._replace(surprise=of.surprise)
                self._strangest[of.name] = AnomalyChannel(**told._asdict())

    def _told(self) -> tuple[AnomalyChannel, ...]:
        return tuple(sorted(self._strangest.values(), key=lambda of: -of.surprise)[:CHANNELS_TOLD])

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "current": None if self.current is None else self.current.model_dump(mode="json"),
            "calm": self._calm,
            "highest": self._highest,
            "strangest": [of.model_dump(mode="json") for of in self._strangest.values()],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.current = None if state["current"] is None else Anomaly.from_dict(state["current"])
        self._calm = int(state["calm"])
        self._highest = float(state["highest"])
        strangest = [AnomalyChannel.from_dict(of) for of in state["strangest"]]
        self._strangest = {of.name: of for of in strangest}


def sentence(channels: Sequence[AnomalyChannel]) -> str:
    """What is strange, in plain words; the first three channels, and how many more there are."""
    told = [_clause(of) for of in channels[:3]]
    left = len(channels) - len(told)
    if left:
        told.append(f"{left} more")
    if not told:
        return "the channels differ from what is usual, each a little"
    return told[0] if len(told) == 1 else f"{', '.join(told[:-1])} and {told[-1]}"


def _clause(of: AnomalyChannel) -> str:
    observed = "missing" if of.observed is None else _spelt(of.observed)
    if of.low is None or of.high is None:
        return f"{of.name} is {observed}"
    low, high = _spelt(of.low), _spelt(of.high)
    usual = f"about {low}" if low == high else f"{low} to {high}"
    return f"{of.name} is {observed} where {usual} is usual"


def _spelt(value: float) -> str:
    """Three significant digits, without an exponent where people read none."""
    # Rounded as text, then written as a number: 1.23e+06 becomes 1230000.
    return f"{float(f'{value:.3g}'):.12g}"
