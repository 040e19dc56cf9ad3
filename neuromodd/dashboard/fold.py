"""Streams of numbers, folded into a bounded number of columns on a time axis.

A week at ten frames a second has six million frames, and a picture some thousand pixels. A column keeps the
lowest, the highest and the mean of each level, so that no peak is lost, and the sum of each count. When
there are too many columns, each two become one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS_MAX = 1500
"""As many as a wide picture has pixels; there are more than half of them in a long recording."""

FINEST_S = 1.0 / 16.0
"""Width of the first columns; wider ones are twice, four times ... as wide."""

ROWS_AT_ONCE = 2048

BOUND = 1e100
"""Levels beyond it are cut off there, so that no sum of them is infinite."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns:
    """What became of the frames, in order of time; a column without frames is left out.

    Attributes:
        width_s: of a column.
        index: start of each column in widths since the epoch, (n,).
        frames: how many each holds, (n,).
        low: lowest known value of each level, NaN where none is known, (n, levels).
        high: highest, likewise.
        total: sum of the known values, (n, levels).
        known: how many are known, (n, levels).
        sums: of the counts, (n, counts).
    """

    width_s: float
    index: NDArray[np.int64]
    frames: NDArray[np.int64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    total: NDArray[np.float64]
    known: NDArray[np.int64]
    sums: NDArray[np.float64]

    @property
    def start_s(self) -> NDArray[np.float64]:
        """When each column begins, in seconds since the epoch."""
        return self.index.astype(np.float64) * self.width_s

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean of the known values of each level, NaN where none is known."""
        return _ratio(self.total, self.known)

    @property
    def mean_of_all(self) -> NDArray[np.float64]:
        """Mean of each level over all columns, a frame counting as much as any other."""
        return _ratio(self.total.sum(axis=0), self.known.sum(axis=0))


class Fold:
    """Takes frames one by one, in whatever order. Mutable.

    Args:
        levels: how many numbers of a frame are levels.
        counts: how many are counts.
        columns_max: no more columns than this are kept.
    """

    def __init__(self, *, levels: int, counts: int, columns_max: int = COLUMNS_MAX) -> None:
        self._columns_max = columns_max
        self._columns = Columns(
            width_s=FINEST_S,
            index=np.empty(0, np.int64),
            frames=np.empty(0, np.int64),
            low=np.empty((0, levels)),
            high=np.empty((0, levels)),
            total=np.empty((0, levels)),
            known=np.empty((0, levels), np.int64),
            sums=np.empty((0, counts)),
        )
        self._times_s: list[float] = []
        self._levels: list[Sequence[float]] = []
        self._counts: list[Sequence[float]] = []

    def column_of(self, time_s: float) -> int:
        """The column in which a time lies for now; it may become wider."""
        return math.floor(time_s / self._columns.width_s)

    def add(self, time_s: float, levels: Sequence[float], counts: Sequence[float]) -> None:
        """Take in a frame.

        Args:
            time_s: since the epoch.
            levels: NaN for what is not known.
            counts: never NaN.
        """
        self._times_s.append(time_s)
        self._levels.append(levels)
        self._counts.append(counts)
        if len(self._times_s) >= ROWS_AT_ONCE:
            self._fold()

    def widen(self, levels: int) -> None:
        """Take frames of more levels from now on; in those so far the new ones are not known."""
        if self._times_s:
            self._fold()
        before = self._columns
        more = levels - before.low.shape[1]
        unknown = np.full((len(before.index), more), math.nan)
        none = np.zeros((len(before.index), more), np.int64)
        self._columns = replace(
            before,
            low=np.hstack((before.low, unknown)),
            high=np.hstack((before.high, unknown)),
            total=np.hstack((before.total, none)),
            known=np.hstack((before.known, none)),
        )

    def columns(self) -> Columns:
        """What came so far."""
        if self._times_s:
            self._fold()
        return self._columns

    def _fold(self) -> None:
        before, width_s = self._columns, self._columns.width_s
        levels = np.clip(np.array(self._levels), -BOUND, BOUND)
        known = ~np.isnan(levels)
        came = Columns(
            width_s=width_s,
            index=np.floor(np.array(self._times_s) / width_s).astype(np.int64),
            frames=np.ones(len(levels), np.int64),
            low=levels,
            high=levels,
            total=np.where(known, levels, 0.0),
            known=known.astype(np.int64),
            sums=np.array(self._counts, np.float64),
        )
        for rows in (self._times_s, self._levels, self._counts):
            rows.clear()
        names = ("index", "frames", "low", "high", "total", "known", "sums")
        joined = {name: np.concatenate((getattr(before, name), getattr(came, name))) for name in names}
        self._columns = _grouped(Columns(width_s=width_s, **joined))
        while len(self._columns.index) > self._columns_max:
            wider = replace(
                self._columns, width_s=2.0 * self._columns.width_s, index=self._columns.index >> 1
            )
            self._columns = _grouped(wider)


def _grouped(columns: Columns) -> Columns:
    """The same with one column for each index, sorted."""
    order = np.argsort(columns.index, kind="stable")
    index = columns.index[order]
    first = np.flatnonzero(np.r_[True, index[1:] != index[:-1]])
    return Columns(
        width_s=columns.width_s,
        index=index[first],
        frames=np.add.reduceat(columns.frames[order], first),
        # fmin and fmax pass over NaN where there is a number.
        low=np.fmin.reduceat(columns.low[order], first),
        high=np.fmax.reduceat(columns.high[order], first),
        total=np.add.reduceat(columns.total[order], first),
        known=np.add.reduceat(columns.known[order], first),
        sums=np.add.reduceat(columns.sums[order], first),
    )


def _ratio(total: NDArray[np.float64], known: NDArray[np.int64]) -> NDArray[np.float64]:
    shares = np.full(total.shape, math.nan)
    np.divide(total, known, out=shares, where=known > 0)
    return shares
