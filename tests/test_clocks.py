"""Clocks that are set back, leap or stand still under whatever waits, ages or counts by them."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromodd.clocks import Steady, SteadyLoop
from neuromodd.config import SensorSettings, Settings
from neuromodd.core.frame import TelemetryFrame
from neuromodd.core.readings import InterfaceCounters, NetworkReading
from neuromodd.eye import Due, Eye, beats
from neuromodd.mqtt import LONG_DELAY_S, SHORT_DELAY_S, Backoff
from neuromodd.pace import Pace
from neuromodd.sensors.base import Sampler

T = TypeVar("T")
HOUR_S = 3600.0
FOREVER_S = 10.0
"""What nothing here takes unless it is stuck."""


class Clock:
    """A clock that is set by hand, and moves by sleeping."""

    def __init__(self, now_s: float = 50_000.0) -> None:
        self.now_s = now_s
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


# A clock that never goes back


def test_a_steady_clock_is_the_one_beneath(clock: Clock) -> None:
    steady = Steady(clock)
    seen = [steady()]
    clock.now_s += 2.5
    assert [*seen, steady()] == [50_000.0, 50_002.5]


def test_a_steady_clock_passes_a_leap_on(clock: Clock) -> None:
    steady = Steady(clock)
    steady()
    clock.now_s += HOUR_S
    assert steady() == 50_000.0 + HOUR_S


def test_a_steady_clock_goes_on_from_where_it_stood_when_the_one_beneath_is_set_back(clock: Clock) -> None:
    steady = Steady(clock)
    steady()
    clock.now_s -= HOUR_S
    seen = [steady()]
    clock.now_s += 3.0
    assert [*seen, steady()] == [50_000.0, 50_003.0]


@settings(derandomize=True, deadline=None)
@given(st.lists(st.floats(-1e9, 1e9)))
def test_a_steady_clock_never_goes_back(readings: list[float]) -> None:
    following = iter(readings)
    steady = Steady(lambda: next(following))
    seen = [steady() for _ in readings]
    assert seen == sorted(seen)


def test_threads_do_not_make_a_steady_clock_run_fast() -> None:
    steady = Steady(time.monotonic)

    def read(_: int) -> None:
        for _ in range(20_000):
            steady()

    with ThreadPoolExecutor(max_workers=4) as threads:
        list(threads.map(read, range(4)))
    before_s = time.monotonic()
    assert before_s <= steady() <= time.monotonic()


def on_steady_loop(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    with asyncio.Runner(loop_factory=SteadyLoop) as runner:
        return runner.run(work())


@pytest.mark.parametrize("leap_s", [-5 * HOUR_S, 5 * HOUR_S])
def test_timers_of_the_loop_ring_although_the_monotonic_clock_leaps(
    leap_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead_s = [0.0]
    real = time.monotonic
    # The loop's own `time` module alone: whoever measures here is not to be shifted.
    shifted = SimpleNamespace(**{**vars(time), "monotonic": lambda: real() + ahead_s[0]})
    monkeypatch.setattr("asyncio.base_events.time", shifted)

    async def leap() -> list[str]:
        rang: list[str] = []
        loop = asyncio.get_running_loop()
        loop.call_later(0.05, rang.append, "set before")
        ahead_s[0] += leap_s
        loop.call_later(0.05, rang.append, "set after")
        end_s = real() + FOREVER_S
        while len(rang) < 2 and real() < end_s:
            # What comes from elsewhere wakes a loop that would sleep for hours.
            await asyncio.to_thread(threading.Event().wait, 0.02)
        return rang

    assert on_steady_loop(leap) == ["set before", "set after"]


# The grid of ticks


@pytest.fixture
def asleep(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock, by which the grid sleeps."""
    monkeypatch.setattr("neuromodd.eye.asyncio", SimpleNamespace(sleep=clock.sleep))
    return clock


@pytest.mark.parametrize("leap_s", [9.0, HOUR_S, 31_536_000.0])
async def test_after_a_leap_there_is_one_late_beat_and_no_storm(asleep: Clock, leap_s: float) -> None:
    grid = beats(lambda: 1.0, Steady(asleep))
    await anext(grid)
    asleep.now_s += leap_s + 0.25
    found = [await anext(grid) for _ in range(4)]
    assert found == [Due(leap_s - 0.75, int(leap_s) - 1), *[Due(0.0, 0)] * 3]


async def test_after_the_clock_was_set_back_the_next_beat_comes_within_an_interval(asleep: Clock) -> None:
    grid = beats(lambda: 1.0, Steady(asleep))
    await anext(grid)
    asleep.now_s -= HOUR_S
    asleep.slept.clear()
    assert [await anext(grid) for _ in range(3)] == [Due(0.0, 0)] * 3
    assert sum(asleep.slept) == pytest.approx(3.0)


# Looks


class StoppedNetwork:
    """A network of 1,000 bytes a second; something may happen while it is being read."""

    name = "network"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.meanwhile: Callable[[], None] = lambda: None

    def read(self) -> NetworkReading:
        happen, self.meanwhile = self.meanwhile, lambda: None
        happen()
        received = int(self._clock.now_s * 1000.0)
        return NetworkReading(interfaces={"eth0": InterfaceCounters(received, 0, 0, 0)})

    def close(self) -> None:
        """Nothing is held."""


class Looks:
    """An eye that looks once a second at that network, by a clock that is set by hand."""

    def __init__(self, clock: Clock, procfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        steady = Steady(clock)
        monkeypatch.setattr("neuromodd.eye.boot_s", clock)
        monkeypatch.setattr("neuromodd.eye.clock_s", steady)
        self.clock, self.network = clock, StoppedNetwork(clock)
        settings = Settings(node="lab", sensors=SensorSettings(procfs_root=procfs, sysfs_root=procfs))
        self.eye = Eye(settings, [self.network])

    async def look(self) -> TelemetryFrame:
        self.clock.now_s += 1.0
        return await self.eye.look(sequence=0, lateness_ms=0.0)

    async def looks(self, count: int) -> list[tuple[bool, float | None]]:
        """Whether each of so many is a gap, and its rate."""
        found: list[tuple[bool, float | None]] = []
        for _ in range(count):
            frame = await self.look()
            rate = None if frame.network is None else frame.network.receive_bytes_per_s
            found.append((frame.gap, rate if rate is None else round(rate)))
        return found


@pytest.fixture
async def looks(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    looks = Looks(clock, tmp_path, monkeypatch)
    await looks.look()
    yield looks
    looks.eye.close()


@pytest.mark.parametrize("leap_s", [10.0, 5 * HOUR_S, -0.5 * HOUR_S])
async def test_a_leap_in_the_midst_of_a_look_is_one_gap_and_in_no_rate(looks: Looks, leap_s: float) -> None:
    def leap() -> None:
        looks.clock.now_s += leap_s

    looks.network.meanwhile = leap
    found = await looks.looks(4)
    assert [gap for gap, _ in found] == [True, False, False, False]
    assert [rate for _, rate in found] == [None, 1000, 1000, 1000]


async def test_a_look_that_was_stopped_is_of_the_time_after_the_stop(looks: Looks) -> None:
    def stop() -> None:
        looks.clock.now_s += HOUR_S

    looks.network.meanwhile = stop
    assert (await looks.look()).monotonic_s == looks.clock.now_s


@pytest.mark.parametrize("leap_s", [-HOUR_S, HOUR_S])
async def test_after_a_leap_an_absent_sensor_is_looked_for_again_in_its_time(
    clock: Clock, leap_s: float
) -> None:
    class Absent:
        name = "absent"
        asked = 0

        def read(self) -> object:
            self.asked += 1
            from neuromodd.errors import SensorAbsentError

            raise SensorAbsentError("no such file")

        def close(self) -> None:
            """Nothing is held."""

    sensor = Absent()
    sampler = Sampler([sensor], deadline_s=FOREVER_S, clock=Steady(clock))
    await sampler.sample()
    clock.now_s += leap_s
    await sampler.sample()
    clock.now_s += 60.0
    await sampler.sample()
    sampler.close()
    # Asleep for an hour it may have come; set back by one, a minute is a minute.
    assert sensor.asked == (3 if leap_s > 0.0 else 2)


class Slow:
    """A sensor whose reading takes some real time."""

    name = "slow"

    def __init__(self, takes_s: float) -> None:
        self._takes_s = takes_s
        self.reading = threading.Event()

    def read(self) -> object:
        self.reading.set()
        threading.Event().wait(self._takes_s)
        return NetworkReading(interfaces={})

    def close(self) -> None:
        """Nothing is held."""


async def test_a_process_that_stood_still_blames_no_sensor(clock: Clock) -> None:
    sensor = Slow(0.4)
    sampler = Sampler([sensor], deadline_s=0.2, clock=clock)
    sampling = asyncio.create_task(sampler.sample())
    await asyncio.to_thread(sensor.reading.wait, FOREVER_S)
    # As a stop of the whole process does, this keeps the loop from hearing of what is done meanwhile; the
    # deadline ends first, but half a second too late for it to say anything of the sensor.
    time.sleep(0.35)  # noqa: ASYNC251 - see above
    assert await sampling
    assert sampler.statuses["slow"].state == "ok"
    sampler.close()


async def test_a_sensor_that_hangs_after_the_process_stood_still_is_hung(clock: Clock) -> None:
    sensor = Slow(1.5)
    sampler = Sampler([sensor], deadline_s=0.2, clock=clock)
    sampling = asyncio.create_task(sampler.sample())
    await asyncio.to_thread(sensor.reading.wait, FOREVER_S)
    time.sleep(0.35)  # noqa: ASYNC251 - as above
    await sampling
    assert sampler.statuses["slow"].state == "hung"
    sampler.close()


async def test_over_a_clock_that_was_set_back_no_reading_lasts_less_than_nothing(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = iter([1000.0, 1000.0 - HOUR_S])
    monkeypatch.setattr("neuromodd.sensors.base.time", SimpleNamespace(monotonic=lambda: next(readings)))
    sampler = Sampler([Slow(0.0)], deadline_s=FOREVER_S, clock=clock)
    await sampler.sample()
    assert sampler.statuses["slow"].duration_ms == 0.0
    sampler.close()


# So many a second, and delays between attempts


@pytest.mark.parametrize("leap_s", [-HOUR_S, HOUR_S])
def test_over_a_leap_no_more_than_a_burst_pass(clock: Clock, leap_s: float) -> None:
    pace = Pace(2.0, burst=3.0, clock=clock)
    pace.take(3)
    clock.now_s += leap_s
    assert [pace.take() for _ in range(4)].count(True) <= 3


@pytest.mark.parametrize(
    ("leap_s", "longest_s"), [(-HOUR_S, SHORT_DELAY_S), (0.0, SHORT_DELAY_S), (HOUR_S, LONG_DELAY_S)]
)
def test_over_a_leap_the_delays_between_attempts_stay_within_their_bounds(
    clock: Clock, leap_s: float, longest_s: float
) -> None:
    backoff = Backoff(random.Random(7))  # noqa: S311 - as the daemon's: jitter
    for _ in range(20):
        backoff.delay_s(clock.now_s)
    clock.now_s += leap_s
    assert all(0.0 <= backoff.delay_s(clock.now_s) <= longest_s for _ in range(50))
