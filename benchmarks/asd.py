"""The Application Server Dataset: 5-minute rows of 19 metrics, with labelled segments and their metrics.

From Z. Li et al., "Multivariate Time Series Anomaly Detection and Interpretation using Hierarchical
Inter-Metric and Temporal Embedding" (KDD 2021). Counted is what an operator would see: alarms near to one
another are one event, an event far from every segment is false, and a segment is found or not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ROWS_A_DAY = 288
EVENT_ROWS = 12
"""Alarms at most so far apart are one event."""

NEAR_ROWS = 12
"""An event is not false if it comes as near to a segment as this."""

EARLY_ROWS = 2
"""So much before its begin an alarm finds a segment."""

LIMITS = (0.1, 0.2, 0.5, 1.0)
"""False events a machine and day that are put up with."""

LEVELS = 800
"""So many thresholds are tried: quantiles of the upper half of all scores that occur."""

TOP = 3


class Segment(NamedTuple):
    """First and last row, and the metrics that were strange, from 1."""

    first: int
    last: int
    metrics: frozenset[int]


class Machine(NamedTuple):
    """One machine: rows without labels, rows with them, and the segments of these."""

    name: str
    train: Floats
    test: Floats
    segments: tuple[Segment, ...]


def machines(directory: Path) -> Iterator[Machine]:
    """The machines of a folder with an `asd-N.npz` (train, test) and an `asd-N.json` (segments) for each."""
    for path in sorted(directory.glob("asd-*.npz"), key=lambda of: int(of.stem.removeprefix("asd-"))):
        with np.load(path) as data:
            train, test = data["train"].astype(np.float64), data["test"].astype(np.float64)
        labels = json.loads(path.with_suffix(".json").read_text())
        segments = tuple(Segment(first, last, frozenset(metrics)) for first, last, metrics in labels)
        yield Machine(path.stem, train, test, segments)


class Counts(NamedTuple):
    """Under one threshold: segments found, and false events."""

    found: int
    false: int


def count(scores: Sequence[Floats], segments: Sequence[Sequence[Segment]], threshold: float) -> Counts:
    """What an operator would have seen of all machines under one threshold."""
    found = false = 0
    for of, here in zip(scores, segments, strict=True):
        alarms = np.flatnonzero(of >= threshold)
        for segment in here:
            at = int(np.searchsorted(alarms, max(segment.first - EARLY_ROWS, 0)))
            found += at < len(alarms) and int(alarms[at]) <= segment.last
        false += sum(
            not any(
                first <= segment.last + NEAR_ROWS and last >= segment.first - NEAR_ROWS for segment in here
            )
            for first, last in events(alarms)
        )
    return Counts(found, false)


def events(alarms: NDArray[np.int64]) -> list[tuple[int, int]]:
    """First and last row of each event."""
    if not len(alarms):
        return []
    apart = np.flatnonzero(np.diff(alarms) > EVENT_ROWS)
    firsts, lasts = alarms[np.r_[0, apart + 1]], alarms[np.r_[apart, len(alarms) - 1]]
    return [(int(first), int(last)) for first, last in zip(firsts, lasts, strict=True)]


class Best(NamedTuple):
    """The most that is found under a limit of false events.

    Attributes:
        found: segments.
        false: events.
        threshold: for all machines; None if nothing is found.
        alarmed_ratio: share of all rows that are alarms. Where it is large, events have grown together, and
            there are few false ones for the wrong reason.
    """

    found: int
    false: int
    threshold: float | None
    alarmed_ratio: float


def curve(scores: Sequence[Floats], segments: Sequence[Sequence[Segment]]) -> dict[float, Best]:
    """The most segments that can be found under each limit with one threshold."""
    days = sum(map(len, scores)) / ROWS_A_DAY
    together = np.concatenate(scores)
    levels = np.quantile(np.unique(together), np.linspace(0.5, 1.0, LEVELS))
    best = dict.fromkeys(LIMITS, Best(0, 0, None, 0.0))
    for level in levels:
        counts = count(scores, segments, float(level))
        for limit in LIMITS:
            if counts.false <= limit * days and counts.found > best[limit].found:
                alarmed = float(np.mean(together >= level))
                best[limit] = Best(counts.found, counts.false, float(level), alarmed)
    return best


def attributed(channels: Sequence[Floats], segments: Sequence[Sequence[Segment]]) -> int:
    """Segments among whose strangest metrics there is one of those labelled."""
    hit = 0
    for of, here in zip(channels, segments, strict=True):
        for segment in here:
            largest = of[segment.first : segment.last + 1].max(axis=0)
            strangest = np.argsort(-largest)[:TOP] + 1
            hit += not segment.metrics.isdisjoint(int(metric) for metric in strangest)
    return hit
