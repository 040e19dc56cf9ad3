"""The kernel: its cells, what it learns and forgets, and that the sums of synapses fit them."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

from neuromodd.core import associations as model
from neuromodd.core.surprise import FIRST_ROWS, RELAID_ROWS, SurpriseDetector

MIDNIGHT_S = 1_699_920_000.0


def kernel(detector: SurpriseDetector) -> model.State:
    """What moves in a detector."""
    return detector._s


def fed(rows: Sequence[Sequence[float | None]]) -> SurpriseDetector:
    detector = SurpriseDetector([f"c{at}" for at in range(len(rows[0]))])
    for at, row in enumerate(rows):
        detector.update(row, MIDNIGHT_S + 300.0 * at)
    return detector


def walk(rows: int, seed: int = 0) -> list[list[float]]:
    """Two channels: one of noise, one that strays further and further."""
    source = random.Random(seed)  # noqa: S311 - noise, no secret
    place, told = 0.0, []
    for _ in range(rows):
        place += source.gauss(0.01, 0.3)
        told.append([source.gauss(10.0, 1.0), place])
    return told


def weights_of(s: model.State, at: int) -> list[float]:
    return [float(w) for w in s.weights[at * model.CELLS : (at + 1) * model.CELLS]]


def visits(s: model.State, channel: int, rows: range) -> list[float]:
    """What each row of synapses remembers, in visits."""
    first = channel * model.ROWS
    return [s.total[first + row] / s.growth[first + row] if s.growth[first + row] else 0.0 for row in rows]


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (-1e308, 0),
        (-0.001, 0),
        (0.0, 1),
        (0.999, 1),
        (1.0, 2),
        (19.999, model.INNER),
        (20.0, model.CELLS - 1),
        (1e308, model.CELLS - 1),
    ],
)
def test_a_value_falls_in_one_cell(value: float, cell: int) -> None:
    assert model.cell_of(value, 0.0, 1.0) == cell


def test_each_context_has_a_row_of_its_own() -> None:
    hours = [model.row_of(0, -1, -1, hour) for hour in range(model.HOURS)]
    lasts = [model.row_of(1, last, -1, -1) for last in range(model.CELLS)]
    pairs = [
        model.row_of(2, last, before, -1) for before in range(model.CELLS) for last in range(model.CELLS)
    ]
    assert [*hours, *lasts, *pairs] == list(range(model.ROWS))


@pytest.mark.parametrize("context", range(3))
def test_a_context_of_which_nothing_is_known_does_not_hold(context: int) -> None:
    assert model.row_of(context, -1, -1, -1) == -1


def test_a_pair_does_not_hold_after_a_single_value() -> None:
    assert model.row_of(2, 3, -1, 0) == -1


@pytest.mark.parametrize("rows", [FIRST_ROWS, RELAID_ROWS[0] - 10, RELAID_ROWS[0] + 10, RELAID_ROWS[1] + 10])
def test_the_sum_of_a_row_is_that_of_its_synapses(rows: int) -> None:
    """But for the quarter that a value in an outermost cell gives to no neighbour."""
    s = kernel(fed(walk(rows)))
    for at, total in enumerate(s.total):
        assert total * 0.75 * (1 - 1e-5) <= sum(weights_of(s, at)) <= total * (1 + 1e-5)


@pytest.mark.parametrize("relaid", RELAID_ROWS)
def test_laying_cells_anew_keeps_what_the_channel_remembers(relaid: int) -> None:
    """Of hours, of last cells and of pairs: the sums in visits stay, whatever rows they move to."""
    rows = walk(relaid + 5)
    detector = fed(rows[: relaid - 5])
    s, own = kernel(detector), model.NUMBERS
    checked = 0
    for at in range(relaid - 5, relaid + 5):
        laid = s.channel[own + model.LO]
        kinds = [range(model.LAST_ROWS), range(model.LAST_ROWS, model.PAIR_ROWS)]
        kinds.append(range(model.PAIR_ROWS, model.ROWS))
        before = [sum(visits(s, 1, kind)) for kind in kinds]
        detector.update(rows[at], MIDNIGHT_S + 300.0 * at)
        if s.channel[own + model.LO] != laid:
            after = [sum(visits(s, 1, kind)) for kind in kinds]
            checked += 1
            # The row itself adds a visit and takes a thousandth of another row.
            for was, now in zip(before, after, strict=True):
                assert was < now <= was + 1.0
    assert checked == 1


@pytest.mark.parametrize("relaid", RELAID_ROWS)
def test_cells_laid_anew_cover_all_that_was_seen(relaid: int) -> None:
    s = kernel(fed(walk(relaid + 1)))
    for channel in range(2):
        n = s.channel[channel * model.NUMBERS : (channel + 1) * model.NUMBERS]
        top = n[model.LO] + n[model.WIDTH] * model.INNER
        assert n[model.LO] <= n[model.LOWEST] <= n[model.HIGHEST] <= top


def test_after_1_152_readings_cells_stay_that_fit() -> None:
    rows = [[math.sin(at / 7.0), math.cos(at / 11.0)] for at in range(3000)]
    s = kernel(fed(rows[: RELAID_ROWS[1] + 1]))
    later = kernel(fed(rows))
    for place in (model.LO, model.WIDTH, model.NUMBERS + model.LO, model.NUMBERS + model.WIDTH):
        assert later.channel[place] == s.channel[place]


def test_the_ends_of_a_row_hold_all_its_synapses() -> None:
    s = kernel(fed(walk(2000)))
    for at in range(len(s.total)):
        told = [cell for cell, weight in enumerate(weights_of(s, at)) if weight > 0.0]
        assert all(s.begin[at] <= cell < s.end[at] for cell in told)


def test_memory_of_a_last_cell_is_bounded() -> None:
    s = kernel(fed([[5.0]] * 8000))
    assert max(visits(s, 0, range(model.LAST_ROWS, model.ROWS))) == pytest.approx(model.MEMORY_ROWS, rel=0.01)


def test_growth_is_scaled_back_before_it_is_too_large() -> None:
    s = kernel(fed([[5.0]] * 20_000))
    assert max(s.growth) <= model.STRONG
    assert max(visits(s, 0, range(model.LAST_ROWS, model.ROWS))) == pytest.approx(model.MEMORY_ROWS, rel=1e-4)


def test_what_always_follows_is_no_error_and_what_never_did_is_one() -> None:
    detector = fed([[float(at % 4)] for at in range(1200)])
    s = kernel(detector)
    detector.update([0.0], MIDNIGHT_S + 300.0 * 1200)
    expected = s.window[int(s.channel[model.AT]) - 1]
    detector.update([3.0], MIDNIGHT_S + 300.0 * 1201)
    unexpected = s.window[int(s.channel[model.AT]) - 1]
    assert expected < 0.03
    assert unexpected > 3 * expected


def test_a_missing_value_breaks_what_follows_what() -> None:
    detector = fed([[float(at % 4)] for at in range(800)])
    s = kernel(detector)
    learned = [*s.total]
    detector.update([None])
    assert s.channel[model.LAST] == s.channel[model.BEFORE] == -1.0
    assert [*s.total] == learned


def test_a_gap_breaks_what_follows_what() -> None:
    detector = fed([[float(at % 4)] for at in range(800)])
    s = kernel(detector)
    pairs = visits(s, 0, range(model.LAST_ROWS, model.ROWS))
    detector.update([0.0], MIDNIGHT_S + 300.0 * 800, gap=True)
    assert visits(s, 0, range(model.LAST_ROWS, model.ROWS)) == pairs
    assert s.channel[model.BEFORE] == -1.0
    assert s.channel[model.LAST] >= 0.0


def test_the_sums_of_a_window_are_those_of_its_errors() -> None:
    """Those of the usual ones take a value outside all that was seen for an error like others."""
    detector = fed(walk(1500))
    s = kernel(detector)
    for at, row in enumerate([[1e6, -1e6], *walk(20, seed=1)], start=1500):
        detector.update(row, MIDNIGHT_S + 300.0 * at)
        for channel in range(3):
            window = s.window[channel * model.WINDOW : (channel + 1) * model.WINDOW]
            own = channel * model.NUMBERS
            assert s.channel[own + model.SUM] == pytest.approx(math.fsum(window), abs=1e-12)
            usual = math.fsum(min(error, 1.0) for error in window)
            assert s.channel[own + model.USUAL_SUM] == pytest.approx(usual, abs=1e-12)


@pytest.mark.parametrize("cell", range(model.CELLS))
def test_a_value_excites_its_cell_and_both_neighbours(cell: int) -> None:
    detector = fed([[float(at % 4)] for at in range(300)])
    s = kernel(detector)
    middle = s.channel[model.LO] + (cell - 0.5) * s.channel[model.WIDTH]
    hour = 13
    for at in range(hour * model.CELLS, (hour + 1) * model.CELLS):
        s.weights[at] = 0.0
    detector.update([middle], MIDNIGHT_S + 3600.0 * hour)
    growth = s.growth[hour]
    expected = {cell - 1: 0.25, cell: 0.5, cell + 1: 0.25}
    told = [weight / growth for weight in weights_of(s, hour)]
    assert told == pytest.approx([expected.get(of, 0.0) for of in range(model.CELLS)])
