"""The Numenta Anomaly Benchmark: its files, and its scores.

The rules are those of A. Lavin and S. Ahmad, "Evaluating Real-Time Anomaly Detection Algorithms: the Numenta
Anomaly Benchmark" (2015): a window around each anomaly, in which only the best of the detections counts, and
the better the earlier it is; detections outside cost the more the farther they are behind a window; one
threshold for all files, the best there is. What the paper leaves open is as in the benchmark's own program.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PROBATION_RATIO, PROBATION_ROWS = 0.15, 750
"""Nothing counts within the first rows: a share of the file, but so many at most."""

STEEPNESS, FAR = 5.0, 3.0
"""Of the sigmoid; what lies farther behind a window, in its widths, is wholly wrong."""

NOTHING = 1.1
"""A threshold that no score reaches."""


class Profile(NamedTuple):
    """What a hit gives, what a false alarm costs, and what a missed window costs."""

    hit: float
    false: float
    missed: float


PROFILES = {
    "standard": Profile(1.0, 0.11, 1.0),
    "reward low FP": Profile(1.0, 0.22, 1.0),
    "reward low FN": Profile(1.0, 0.11, 2.0),
}

PUBLISHED = {"ARTime": 74.9, "HTM": 70.1, "CAD OSE": 69.9, "windowed Gaussian": 39.7}
"""Standard scores over all 58 files, from the benchmark's scoreboard (github.com/numenta/NAB)."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A file of the benchmark.

    Attributes:
        key: its name in the labels, `category/name.csv`.
        path: where it is.
        windows: first and last second of each.
    """

    key: str
    path: Path
    windows: tuple[tuple[str, str], ...]

    @property
    def half(self) -> int:
        """Which of two halves of the files it is in, by its name alone."""
        return zlib.crc32(self.path.name.encode()) >> 1 & 1


def corpus(directory: Path) -> list[Labelled]:
    """The files that are there and have labels, in the layout of the benchmark or right below `directory`."""
    labels = directory / "labels" / "combined_windows.json"
    data = directory / "data"
    if not labels.exists():
        labels, data = directory / "combined_windows.json", directory
    found = []
    for key, windows in sorted(json.loads(labels.read_text()).items()):
        if (data / key).is_file():
            spans = tuple((begin[:19], end[:19]) for begin, end in windows)
            found.append(Labelled(key=key, path=data / key, windows=spans))
    return found


# Scoring


class Weighed(NamedTuple):
    """The rows of a file that count.

    Attributes:
        scores: of the detector.
        window: which window a row is in, -1 for none.
        weight: in a window what a detection is worth, in (0, 1]; else what it costs, in [-1, 0].
        windows: how many the file has.
    """

    scores: Floats
    window: NDArray[np.int64]
    weight: Floats
    windows: int


def sigmoid(distance: Floats | float) -> Floats:
    """1 far before the right end of a window, 0 there, -1 far behind it."""
    return np.tanh(-0.5 * STEEPNESS * np.asarray(distance, np.float64))


def weigh(times: Sequence[str], scores: Sequence[float], windows: Sequence[tuple[str, str]]) -> Weighed:
    """Find out what each row of a file would be worth.

    Args:
        times: as in the file, to the second.
        scores: one a row.
        windows: first and last time of each, in order.
    """
    rows = len(times)
    window, weight = np.full(rows, -1), np.full(rows, -1.0)
    end, width = None, 0
    cursor = 0
    for number, (begin_at, end_at) in enumerate(windows):
        begin = times.index(begin_at, cursor)
        # Where a clock was set back, times are there twice: as the program does it, the width is from the
        # first of each, and the window closes at the first of its last times after it was entered.
        right = times.index(end_at)
        width_here = right - times.index(begin_at) + 1
        close = times.index(end_at, begin)
        _behind(weight, cursor, begin, end, width)
        inside = np.arange(begin, close + 1)
        weight[inside] = sigmoid((inside - right - 1) / width_here) / sigmoid(-1.0)
        window[inside] = number
        end, width, cursor = close, width_here, close + 1
    _behind(weight, cursor, rows, end, width)
    first = int(np.ceil(min(np.floor(PROBATION_RATIO * rows), PROBATION_ROWS)))
    taken = np.asarray(scores, np.float64)
    return Weighed(taken[first:], window[first:], weight[first:], len(windows))


def _behind(weight: Floats, begin: int, until: int, end: int | None, width: int) -> None:
    """What detections cost behind the last window; before the first one all is wholly wrong."""
    if end is not None:
        distance = (np.arange(begin, until) - end) / (width - 1.0)
        weight[begin:until] = np.where(distance > FAR, -1.0, sigmoid(distance))


class Scored(NamedTuple):
    """The result over some files.

    Attributes:
        score: 0 if nothing was ever flagged, 100 if all windows at once and nothing else.
        threshold: from which a row was flagged.
        hit: windows with a flagged row.
        windows: that count: with a row after the probation.
        false: flagged rows outside of windows.
        raw: the sum behind the score.
    """

    score: float
    threshold: float
    hit: int
    windows: int
    false: int
    raw: float


def score(files: Sequence[Weighed], profile: Profile, threshold: float | None = None) -> Scored:
    """The score over files under one threshold: the given one, or else the best there is."""
    scores = np.concatenate([np.empty(0), *(of.scores for of in files)])
    changes = np.concatenate([np.empty(0), *_changes(files, profile)])
    count = sum(len(np.unique(of.window[of.window >= 0])) for of in files)
    nothing = -profile.missed * count
    order = np.argsort(-scores, kind="stable")
    falling, sums = scores[order], nothing + np.cumsum(changes[order])
    # Rows of one score are flagged together.
    last = np.flatnonzero(np.r_[falling[1:] != falling[:-1], [True] * min(len(falling), 1)])
    thresholds = np.r_[NOTHING, falling[last]]
    totals = np.r_[nothing, sums[last]]
    best = int(np.argmax(totals)) if threshold is None else np.count_nonzero(thresholds >= threshold) - 1
    level, raw = float(thresholds[best]) if threshold is None else threshold, float(totals[best])
    perfect = profile.hit * sum(of.windows for of in files)
    return Scored(
        score=100.0 * (raw - nothing) / (perfect - nothing) if perfect > nothing else 0.0,
        threshold=level,
        hit=sum(len(np.unique(of.window[(of.window >= 0) & (of.scores >= level)])) for of in files),
        windows=count,
        false=sum(int(np.count_nonzero((of.window < 0) & (of.scores >= level))) for of in files),
        raw=raw,
    )


def _changes(files: Sequence[Weighed], profile: Profile) -> Iterator[Floats]:
    """By how much the sum grows when each row is flagged after all of larger scores."""
    for of in files:
        change = profile.false * of.weight
        for number in range(of.windows):
            rows = np.flatnonzero(of.window == number)
            falling = rows[np.argsort(-of.scores[rows], kind="stable")]
            best = np.maximum.accumulate(np.r_[-profile.missed, profile.hit * of.weight[falling]])
            change[falling] = np.diff(best)
        yield change


def crossed(files: Mapping[Labelled, Weighed], profile: Profile) -> tuple[Scored, Scored, float]:
    """Each half of the files under the threshold that was best on the other, and the score of both."""
    halves = [[weighed for file, weighed in files.items() if file.half == half] for half in (0, 1)]
    chosen = [score(half, profile).threshold for half in halves]
    first, second = (score(half, profile, chosen[1 - at]) for at, half in enumerate(halves))
    nothing = -profile.missed * (first.windows + second.windows)
    perfect = profile.hit * sum(of.windows for of in files.values())
    return first, second, 100.0 * (first.raw + second.raw - nothing) / (perfect - nothing)
