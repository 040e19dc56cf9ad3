"""The anomalies of a recording, and what had become normal at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from neuromodd.core.anomaly import Anomaly, ChannelMoment, Moment

KEPT = 200


@dataclass(kw_only=True)
class Episode:
    """An anomaly from its beginning, perhaps before the recording, to its end.

    Attributes:
        anomaly: as it was told last.
        since_utc: when it began.
        seen_utc: when it was seen last.
        until_utc: when it was over; None if it was not.
    """

    anomaly: Anomaly
    since_utc: datetime
    seen_utc: datetime
    until_utc: datetime | None = None

    @property
    def seconds(self) -> float:
        """How long it held, as far as it was seen; a clock that was set back makes it no less than 0."""
        return max(((self.until_utc or self.seen_utc) - self.since_utc).total_seconds(), 0.0)


@dataclass(kw_only=True)
class Anomalies:
    """Takes in moment by moment. Mutable.

    Attributes:
        count: of all anomalies.
        seconds: that those held which are no longer kept.
        newest: the channels of the last moment; empty before the first.
    """

    count: int = 0
    seconds: float = 0.0
    newest: Sequence[ChannelMoment] = ()
    _kept: list[Episode] = field(default_factory=list)
    _current: Episode | None = None

    def take(self, moment: Moment, time_utc: datetime) -> None:
        """Take in a moment; the time is that of its frame."""
        self.newest = moment.channels
        told = moment.change or moment.episode
        if told is None:
            # One that was forgotten has no end of its own.
            self._end(time_utc)
            return
        if self._current is None or (told.phase == "begin" and moment.change is not None):
            self._end(time_utc)
            self._begin(told, time_utc)
        if self._current is not None:
            self._current.seen_utc = time_utc
        if told.phase == "end" and self._current is not None:
            self._current.anomaly = told
            self._end(time_utc)

    @property
    def episodes(self) -> list[Episode]:
        """Those that are kept, the strangest if there were too many; in order of time."""
        return sorted(self._kept, key=lambda of: of.since_utc)

    @property
    def seconds_in_all(self) -> float:
        """How long there was one."""
        return self.seconds + sum(of.seconds for of in self._kept)

    def _begin(self, told: Anomaly, time_utc: datetime) -> None:
        self.count += 1
        self._current = Episode(anomaly=told, since_utc=told.since_utc or time_utc, seen_utc=time_utc)
        if len(self._kept) >= KEPT:
            weakest = min(self._kept, key=lambda of: of.anomaly.surprise)
            self.seconds += weakest.seconds
            self._kept.remove(weakest)
        self._kept.append(self._current)

    def _end(self, time_utc: datetime) -> None:
        if self._current is not None:
            self._current.until_utc = time_utc
            self._current = None
