"""The fold against the plain way: all frames kept, and sorted into columns at the end."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from typing import NamedTuple

import numpy as np
import pytest

from neuromodd.dashboard.fold import BOUND, FINEST_S, Fold


class Row(NamedTuple):
    time_s: float
    levels: tuple[float, ...]
    counts: tuple[float, ...]


def rows(count: int, seed: int, *, span_s: float = 4000.0) -> list[Row]:
    """Frames in no order, some of their levels not known, the last never."""
    rng = random.Random(seed)  # noqa: S311 - test data

    def level() -> float:
        return math.nan if rng.random() < 0.2 else rng.uniform(-5.0, 5.0)

    return [
        Row(
            1.7e9 + rng.uniform(0.0, span_s),
            (level(), level(), math.nan),
            (rng.randrange(4), rng.randrange(4)),
        )
        for _ in range(count)
    ]


def folded(taken: list[Row], columns_max: int) -> Fold:
    fold = Fold(levels=3, counts=2, columns_max=columns_max)
    for row in taken:
        fold.add(*row)
    return fold


@pytest.mark.parametrize("columns_max", [1, 7, 64, 5000])
def test_columns_are_what_sorting_all_frames_gives(columns_max: int) -> None:
    taken = rows(5000, seed=columns_max)
    columns = folded(taken, columns_max).columns()
    kept: dict[int, list[Row]] = defaultdict(list)
    for row in taken:
        kept[math.floor(row.time_s / columns.width_s)].append(row)
    assert columns.index.tolist() == sorted(kept)
    for at, index in enumerate(columns.index.tolist()):
        assert columns.frames[at] == len(kept[index])
        assert columns.sums[at].tolist() == [sum(row.counts[of] for row in kept[index]) for of in range(2)]
        for of in range(3):
            known = [row.levels[of] for row in kept[index] if not math.isnan(row.levels[of])]
            expected = (min(known), max(known), sum(known) / len(known)) if known else (math.nan,) * 3
            found = (columns.low[at, of], columns.high[at, of], columns.mean[at, of])
            assert found == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("columns_max", [1, 7, 64, 5000])
def test_there_are_never_more_columns_than_allowed(columns_max: int) -> None:
    assert 1 <= len(folded(rows(5000, seed=1), columns_max).columns().index) <= columns_max


def test_columns_are_no_wider_than_they_need_be() -> None:
    columns = folded(rows(5000, seed=2), 64).columns()
    # Half as wide, a full span would not fit.
    assert 4000.0 / (columns.width_s / 2.0) > 64


def test_few_frames_keep_their_own_columns() -> None:
    fold = Fold(levels=1, counts=0)
    for at in range(20):
        fold.add(at * 0.5, (1.0,), ())
    assert fold.columns().start_s.tolist() == [at * 0.5 for at in range(20)]
    assert fold.columns().width_s == FINEST_S


def test_a_clock_that_jumps_by_decades_costs_no_resolution() -> None:
    fold = Fold(levels=1, counts=0)
    for at in range(100):
        fold.add(float(at), (1.0,), ())
        fold.add(1.7e9 + at, (1.0,), ())
    assert (len(fold.columns().index), fold.columns().width_s) == (200, FINEST_S)


def test_the_mean_over_all_counts_every_frame_alike() -> None:
    taken = rows(3000, seed=3)
    known = [row.levels[0] for row in taken if not math.isnan(row.levels[0])]
    mean = folded(taken, 16).columns().mean_of_all
    assert mean[0] == pytest.approx(sum(known) / len(known))
    assert math.isnan(mean[2])


def test_the_largest_doubles_do_not_add_up_to_infinity() -> None:
    fold = Fold(levels=1, counts=0, columns_max=1)
    for at in range(10):
        fold.add(float(at), (1.7e308,), ())
    assert fold.columns().mean.tolist() == [[pytest.approx(BOUND)]]


def test_asking_in_between_changes_nothing() -> None:
    taken, asked = rows(3000, seed=4), Fold(levels=3, counts=2, columns_max=32)
    for at, row in enumerate(taken):
        asked.add(*row)
        if at % 500 == 0:
            asked.columns()
    once, often = folded(taken, 32).columns(), asked.columns()
    assert once.width_s == often.width_s
    assert np.array_equal(once.index, often.index)
    assert np.array_equal(once.high, often.high, equal_nan=True)
    assert np.array_equal(once.sums, often.sums)
