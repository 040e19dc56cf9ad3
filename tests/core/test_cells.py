"""The cells of a channel, over weeks."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest

from neuromodd.core import associations as model
from neuromodd.core.engine import numba_installed
from neuromodd.core.surprise import SurpriseDetector
from neuromodd.errors import InvalidValueError

MINUTES_A_WEEK = 7 * 24 * 60


class Channel:
    """One channel, a reading a minute."""

    def __init__(self) -> None:
        # The same bits either way, and a week of minutes takes a while in plain Python.
        self.detector = SurpriseDetector(["x"], compiled=numba_installed())
        self.rng = random.Random(1)  # noqa: S311 - test data
        self.minutes = 0

    def live(self, minutes: int, reading: Callable[[random.Random], float]) -> int:
        """Take in so many readings; how many anomalies began."""
        begun = 0
        for _ in range(minutes):
            self.minutes += 1
            change = self.detector.update([reading(self.rng)], 60.0 * self.minutes).change
            begun += change is not None and change.phase == "begin"
        return begun

    def number(self, at: int) -> float:
        return float(self.detector._s.channel[at])


@pytest.fixture
def started() -> Channel:
    """A channel that saw the rush of a start."""
    channel = Channel()
    channel.live(2000, lambda rng: abs(rng.gauss(0.0, 3e8)))
    return channel


def quiet(rng: random.Random) -> float:
    return rng.gauss(1e5, 2e4)


def test_after_a_quiet_week_cells_are_as_narrow_as_it_was(started: Channel) -> None:
    wide = started.number(model.WIDTH)
    started.live(2 * MINUTES_A_WEEK, quiet)
    assert started.number(model.WIDTH) < wide / 1000.0


def test_what_a_start_would_have_hidden_is_strange_then(started: Channel) -> None:
    started.live(2 * MINUTES_A_WEEK + 1000, quiet)
    assert started.live(20, lambda _: 5e6) == 1


def test_a_daily_rhythm_keeps_its_cells() -> None:
    channel = Channel()
    days_and_nights = lambda rng: rng.gauss(1.0 if channel.minutes % 1440 < 720 else 9.0, 0.3)  # noqa: E731
    channel.live(2000, days_and_nights)
    width = channel.number(model.WIDTH)
    channel.live(2 * MINUTES_A_WEEK, days_and_nights)
    assert channel.number(model.WIDTH) == width


def test_cells_grow_to_a_new_normal_far_outside(started: Channel) -> None:
    started.live(2000, lambda rng: rng.gauss(1e11, 1e9))
    top = started.number(model.LO) + model.INNER * started.number(model.WIDTH)
    assert started.number(model.LO) < 1.0e5
    assert top > 1.0e11


def test_a_state_with_cells_that_have_seen_nothing_of_late_can_be_kept(started: Channel) -> None:
    started.live(2 * MINUTES_A_WEEK, quiet)
    state = json.loads(json.dumps(started.detector.state(), allow_nan=False))
    other = SurpriseDetector(["x"])
    other.restore(state)
    assert json.loads(json.dumps(other.state())) == state


@pytest.mark.parametrize("compiled", [False, True] if numba_installed() else [False])
def test_the_largest_numbers_that_there_are_can_be_learned(compiled: bool) -> None:
    detector = SurpriseDetector(["x"], compiled=compiled)
    for at in range(700):
        moment = detector.update([(-1.0) ** at * 1e308], 300.0 * at)
    assert moment.surprise is not None


def test_the_rounding_of_a_constant_is_no_news() -> None:
    detector = SurpriseDetector(["x"])
    for at in range(1500):
        flutter = (at - 700) / 50 * 2.3e-16 if at >= 700 and not at % 50 else 0.0
        assert detector.update([5.0 * (1.0 + flutter)], 300.0 * at).change is None


@pytest.mark.parametrize(
    ("place", "number"), [(model.LAST, 99.0), (model.AT, 99.0), (model.AT, 0.5), (model.WIDTH, 0.0)]
)
def test_a_state_with_numbers_out_of_range_is_refused_and_leaves_nothing(place: int, number: float) -> None:
    detector = SurpriseDetector(["x"])
    for at in range(400):
        detector.update([at % 7.0], 300.0 * at)
    state = detector.state()
    state["channels"]["x"]["numbers"][place] = number
    with pytest.raises(InvalidValueError):
        detector.restore(state)
    assert detector.state() == SurpriseDetector(["x"]).state()


@pytest.mark.parametrize("time_s", [1e20, -1e12, float("nan")])
def test_a_time_that_no_calendar_has_is_refused_and_nothing_moves(time_s: float) -> None:
    detector = SurpriseDetector(["x"])
    detector.update([1.0], 0.0)
    before = detector.state()
    with pytest.raises(InvalidValueError):
        detector.update([2.0], time_s)
    assert detector.state() == before


def test_a_gap_is_remembered_from_the_beginning_on() -> None:
    with_gap, without = SurpriseDetector(["x"]), SurpriseDetector(["x"])
    for at in range(400):
        with_gap.update([at % 7.0], 300.0 * at, gap=at == 100)
        without.update([at % 7.0], 300.0 * at)
    assert with_gap.state()["channels"] != without.state()["channels"]
