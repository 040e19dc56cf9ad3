from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromodd.pace import Pace


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def slept(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Sleeps take no time but the clock's; what they were."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.now_s += seconds

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return slept


def test_a_burst_may_pass_at_once(clock: Clock) -> None:
    pace = Pace(2.0, burst=3.0, clock=clock)
    assert [pace.take() for _ in range(4)] == [True, True, True, False]


def test_after_a_burst_so_many_pass_a_second(clock: Clock) -> None:
    pace = Pace(2.0, burst=3.0, clock=clock)
    pace.take(3)
    clock.now_s += 1.0
    assert [pace.take() for _ in range(3)] == [True, True, False]


def test_what_was_not_used_adds_up_to_a_burst_and_no_more(clock: Clock) -> None:
    pace = Pace(2.0, burst=3.0, clock=clock)
    clock.now_s += 1e9
    assert [pace.take(3), pace.take()] == [True, False]


def test_who_may_not_pass_takes_nothing(clock: Clock) -> None:
    pace = Pace(2.0, burst=3.0, clock=clock)
    assert [pace.take(4), pace.take(3)] == [False, True]


def test_a_clock_that_goes_back_gives_nothing_and_takes_nothing(clock: Clock) -> None:
    pace = Pace(1.0, burst=2.0, clock=clock)
    pace.take()
    clock.now_s -= 1e6
    assert [pace.take(), pace.take()] == [True, False]


def test_after_a_clock_went_back_the_rate_holds(clock: Clock) -> None:
    pace = Pace(1.0, burst=1.0, clock=clock)
    pace.take()
    clock.now_s -= 1e6
    pace.take()
    clock.now_s += 1.0
    assert [pace.take(), pace.take()] == [True, False]


def test_a_burst_of_less_than_one_lets_one_pass(clock: Clock) -> None:
    pace = Pace(0.01, burst=0.1, clock=clock)
    assert [pace.take(), pace.take()] == [True, False]
    clock.now_s += 100.0
    assert pace.take()


async def test_within_a_burst_nobody_waits(clock: Clock, slept: list[float]) -> None:
    await Pace(2.0, burst=3.0, clock=clock).wait(3)
    assert slept == []


async def test_beyond_a_burst_each_waits_for_its_own(clock: Clock, slept: list[float]) -> None:
    pace = Pace(2.0, burst=3.0, clock=clock)
    await pace.wait(3)
    await pace.wait(4)
    await pace.wait(1)
    assert slept == [2.0, 0.5]


async def test_more_than_a_burst_may_pass_in_its_time(clock: Clock, slept: list[float]) -> None:
    await Pace(2.0, burst=3.0, clock=clock).wait(13)
    assert slept == [5.0]


async def test_who_is_cancelled_while_waiting_has_taken_nothing(clock: Clock) -> None:
    pace = Pace(1.0, burst=20.0, clock=clock)
    await pace.wait(20)
    for _ in range(50):
        waiting = asyncio.create_task(pace.wait(20))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait((waiting,))
    clock.now_s += 20.0
    assert pace.take(20)


@settings(derandomize=True, deadline=None)
@given(
    rate_per_s=st.floats(0.1, 1000.0),
    burst=st.floats(1.0, 100.0),
    steps=st.lists(st.tuples(st.floats(0.0, 10.0), st.integers(1, 30)), max_size=50),
)
def test_in_any_time_no_more_pass_than_rate_and_burst_allow(
    rate_per_s: float, burst: float, steps: list[tuple[float, int]]
) -> None:
    clock = Clock()
    pace = Pace(rate_per_s, burst=burst, clock=clock)
    passed, began_s = 0, clock.now_s
    for after_s, count in steps:
        clock.now_s += after_s
        passed += count if pace.take(count) else 0
        assert passed <= burst + rate_per_s * (clock.now_s - began_s) + 1e-6
