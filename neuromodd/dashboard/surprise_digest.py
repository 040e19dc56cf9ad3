"""What is kept of surprises to draw them: columns of a bounded number, and the strangest anomalies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np

from neuromodd.core.anomaly import Anomaly, ChannelMoment, Moment
from neuromodd.dashboard.fold import COLUMNS_MAX, Columns, Fold

if TYPE_CHECKING:
    from numpy.typing import NDArray

PARTS = 4
"""Numbers of a channel: observed, low, high, surprise."""

CELLS_MAX = 250_000
"""Where there are many channels, there are fewer columns."""

COLUMNS_MIN = 100

EPISODES_KEPT = 400


@dataclass(frozen=True, kw_only=True)
class Episode:
    """An anomaly and where it lies on the axis.

    Attributes:
        begin: seconds since 1970, or the number of the row.
        end: likewise.
        anomaly: as it was told last.
    """

    begin: float
    end: float
    anomaly: Anomaly


class SurpriseDigest:
    """Takes rows and what they led to, one by one. Mutable.

    Args:
        names: of the channels.
        timed: whether the rows have times; else the axis counts them.
        threshold: surprise from which an anomaly begins.

    Attributes:
        rows: how many came.
        anomalies: how many began.
        begin: where the axis begins.
        end: where it ends.
        strangest: where each channel was strangest, and what it was like; None where nothing can be told.
    """

    def __init__(self, names: Sequence[str], *, timed: bool, threshold: float) -> None:
        self.names, self.timed, self.threshold = tuple(names), timed, threshold
        self.rows = self.anomalies = 0
        self.begin, self.end = math.inf, -math.inf
        self.strangest: list[tuple[float, ChannelMoment] | None] = [None] * len(names)
        self._most = [-1.0] * len(names)
        levels = PARTS * len(names) + 1
        columns = max(COLUMNS_MIN, min(COLUMNS_MAX, CELLS_MAX // levels))
        self._fold = Fold(levels=levels, counts=0, columns_max=columns)
        self._episodes: list[Episode] = []
        self._since: float | None = None
        self._going: Anomaly | None = None

    def take(self, number: int, time_s: float | None, moment: Moment) -> None:
        """Take in a row; its number counts where it has no time."""
        at = float(number) if time_s is None else time_s
        self.rows += 1
        self.begin, self.end = min(self.begin, at), max(self.end, at)
        levels = [
            math.nan if of is None else of
            for channel in moment.channels
            for of in (channel.observed, channel.low, channel.high, channel.surprise)
        ]
        for of, channel in enumerate(moment.channels):
            if channel.surprise is not None and channel.surprise > self._most[of]:
                self._most[of] = channel.surprise
                self.strangest[of] = (at, channel)
        levels.append(math.nan if moment.surprise is None else moment.surprise)
        self._fold.add(at, levels, ())
        if moment.change is not None:
            self._follow(at, moment.change)
        self._going = moment.episode

    def _follow(self, at: float, change: Anomaly) -> None:
        if change.phase == "begin":
            self._since = at
            self.anomalies += 1
            return
        begin = self.begin if self._since is None else self._since
        self.anomalies += self._since is None
        self._since = None
        self._episodes.append(Episode(begin=begin, end=max(at, begin), anomaly=change))
        if len(self._episodes) > 2 * EPISODES_KEPT:
            self._episodes = self._strangest()

    def _strangest(self) -> list[Episode]:
        found = sorted(self._episodes, key=lambda of: -of.anomaly.surprise)[:EPISODES_KEPT]
        return sorted(found, key=attrgetter("begin"))

    def episodes(self) -> list[Episode]:
        """The strangest in order, with the one that goes on at the end."""
        found = self._strangest()
        if self._going is not None:
            begin = self.begin if self._since is None else self._since
            found.append(Episode(begin=begin, end=max(self.end, begin), anomaly=self._going))
        return found

    def columns(self) -> Columns:
        """What came so far; `observed`, `low`, `high` and `surprise` of each channel, then that of all."""
        return self._fold.columns()

    def strangest_first(self) -> list[int]:
        """The channels: those with the largest surprise before the others, of equals the oftener strange."""
        mean = np.nan_to_num(self.columns().mean_of_all[3 : PARTS * len(self.names) : PARTS])
        return sorted(range(len(self.names)), key=lambda of: (-self._most[of], -mean[of]))


def column(columns: NDArray[np.float64], channel: int, part: int) -> NDArray[np.float64]:
    """One number of a channel in all columns."""
    return columns[:, PARTS * channel + part]
