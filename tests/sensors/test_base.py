from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import structlog
from structlog.typing import EventDict

from neuromodd.errors import SensorAbsentError
from neuromodd.sensors.base import ABSENT_RETRY_S, Sampler, Sensor, SensorStatus

PATIENT_S = 30.0
"""A deadline that a sensor of these tests meets on any machine."""

SHORT_S = 0.2
"""One that a stuck sensor misses without holding up the test."""


class FakeSensor:
    """Answers as it is told: with a value, or by raising. Counts how often it is asked."""

    def __init__(self, name: str, answer: object = 1) -> None:
        self.name = name
        self.answer = answer
        self.asked = 0
        self.closed = threading.Event()

    def read(self) -> object:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def close(self) -> None:
        self.closed.set()


class StuckSensor(FakeSensor):
    """Does not return from its first reading until it is released."""

    def __init__(self, name: str = "stuck") -> None:
        super().__init__(name, "fresh")
        self.released = threading.Event()

    def read(self) -> object:
        self.asked += 1
        if not self.released.is_set():
            self.released.wait()
            return "late"
        return "fresh"


Build = Callable[..., Sampler]


@pytest.fixture
def build(now: list[float]) -> Iterator[Build]:
    """Makes samplers on the clock `now`; whatever is stuck is released at the end."""
    samplers: list[Sampler] = []
    stuck: list[StuckSensor] = []

    def make(*sensors: Sensor, deadline_s: float = PATIENT_S) -> Sampler:
        stuck.extend(sensor for sensor in sensors if isinstance(sensor, StuckSensor))
        samplers.append(Sampler(sensors, deadline_s=deadline_s, clock=lambda: now[0]))
        return samplers[-1]

    before = set(threading.enumerate())
    yield make
    for sensor in stuck:
        sensor.released.set()
    for sampler in samplers:
        sampler.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(10.0)


async def values(sampler: Sampler) -> dict[str, object]:
    return {name: reading.value for name, reading in (await sampler.sample()).items()}


def states(sampler: Sampler) -> dict[str, str]:
    return {name: status.state for name, status in sampler.statuses.items()}


def sampler_threads() -> int:
    return sum(thread.name == "neuromodd-sampler" for thread in threading.enumerate())


async def threads_come_down_to(count: int) -> bool:
    for _ in range(2000):
        if sampler_threads() == count:
            return True
        await asyncio.sleep(0.005)
    return False


async def sample_until(sampler: Sampler, state: str, name: str = "stuck") -> list[dict[str, object]]:
    """All samples up to the one that finds the sensor in `state`."""
    samples, deadline_s = [], time.monotonic() + 10.0
    while time.monotonic() < deadline_s:
        samples.append(await values(sampler))
        if states(sampler)[name] == state:
            return samples
        await asyncio.sleep(0.005)
    pytest.fail(f"{name} was never {state}")


# All is well


async def test_a_sample_has_the_reading_of_every_sensor(build: Build) -> None:
    sampler = build(FakeSensor("a", 1), FakeSensor("b", 2))
    assert await values(sampler) == {"a": 1, "b": 2}


async def test_sensors_are_read_in_their_order(build: Build) -> None:
    sampler = build(FakeSensor("c"), FakeSensor("a"), FakeSensor("b"))
    assert list(await values(sampler)) == ["c", "a", "b"]


async def test_a_reading_has_the_time_at_which_it_was_taken(build: Build, now: list[float]) -> None:
    class Slow(FakeSensor):
        def read(self) -> object:
            now[0] += 0.5
            return super().read()

    sampler = build(Slow("a"), Slow("b"))
    readings = await sampler.sample()
    assert [reading.at_s for reading in readings.values()] == [1000.5, 1001.0]


async def test_sensors_are_not_read_on_the_loop(build: Build) -> None:
    class Where(FakeSensor):
        def read(self) -> object:
            return threading.current_thread()

    assert (await values(build(Where("a"))))["a"] is not threading.current_thread()


async def test_all_samples_are_read_by_one_thread(build: Build) -> None:
    class Where(FakeSensor):
        def read(self) -> object:
            return threading.get_ident()

    sampler = build(Where("a"), Where("b"))
    idents = [ident for _ in range(3) for ident in (await values(sampler)).values()]
    assert len(set(idents)) == 1


async def test_a_sensor_that_reads_is_ok(build: Build) -> None:
    sampler = build(FakeSensor("a"))
    await sampler.sample()
    assert (sampler.statuses["a"].state, sampler.statuses["a"].failures) == ("ok", 0)


async def test_the_duration_of_a_reading_is_told(build: Build) -> None:
    class Slow(FakeSensor):
        def read(self) -> object:
            time.sleep(0.02)
            return 1

    sampler = build(Slow("a"))
    await sampler.sample()
    assert 20.0 <= (sampler.statuses["a"].duration_ms or 0.0) < 10_000.0


async def test_without_sensors_a_sample_is_empty(build: Build) -> None:
    assert await build().sample() == {}


# Absent


async def test_an_absent_sensor_has_no_reading(build: Build) -> None:
    sampler = build(FakeSensor("a", SensorAbsentError("no such")), FakeSensor("b"))
    assert await values(sampler) == {"b": 1}


async def test_an_absent_sensor_is_told_with_its_reason(build: Build) -> None:
    sampler = build(FakeSensor("a", SensorAbsentError("no such")))
    await sampler.sample()
    assert (sampler.statuses["a"].state, sampler.statuses["a"].error) == ("absent", "no such")


async def test_absence_is_no_failure(build: Build) -> None:
    sampler = build(FakeSensor("a", SensorAbsentError("no such")))
    await sampler.sample()
    assert sampler.statuses["a"].failures == 0


async def test_absent_sensors_are_not_found(build: Build) -> None:
    failing, absent = FakeSensor("a", OSError("no")), FakeSensor("b", SensorAbsentError("no such"))
    sampler = build(failing, absent, FakeSensor("c"))
    await sampler.sample()
    assert sampler.found == ("a", "c")


@pytest.mark.parametrize(("later_s", "asked"), [(ABSENT_RETRY_S - 0.1, 1), (ABSENT_RETRY_S, 2)])
async def test_an_absent_sensor_is_asked_again_after_a_minute(
    build: Build, now: list[float], later_s: float, asked: int
) -> None:
    sensor = FakeSensor("a", SensorAbsentError("no such"))
    sampler = build(sensor)
    await sampler.sample()
    now[0] += later_s
    await sampler.sample()
    assert sensor.asked == asked


async def test_a_sensor_that_appears_is_read_from_then_on(build: Build, now: list[float]) -> None:
    sensor = FakeSensor("a", SensorAbsentError("no such"))
    sampler = build(sensor)
    await sampler.sample()
    sensor.answer = 7
    now[0] += ABSENT_RETRY_S
    await sampler.sample()
    assert await values(sampler) == {"a": 7}


# Failed


async def test_a_sensor_that_fails_leaves_the_others_alone(build: Build) -> None:
    sampler = build(FakeSensor("a"), FakeSensor("b", ValueError("odd")), FakeSensor("c"))
    assert await values(sampler) == {"a": 1, "c": 1}


async def test_a_failure_is_told_with_its_kind_and_reason(build: Build) -> None:
    sampler = build(FakeSensor("a", ValueError("odd")))
    await sampler.sample()
    assert (sampler.statuses["a"].state, sampler.statuses["a"].error) == ("failed", "ValueError: odd")


async def test_failures_are_counted(build: Build) -> None:
    sampler = build(FakeSensor("a", OSError("no")))
    for _ in range(3):
        await sampler.sample()
    assert sampler.statuses["a"].failures == 3


async def test_a_sensor_that_recovers_keeps_its_count(build: Build) -> None:
    sensor = FakeSensor("a", OSError("no"))
    sampler = build(sensor)
    await sampler.sample()
    sensor.answer = 1
    await sampler.sample()
    expected = SensorStatus(state="ok", failures=1, duration_ms=sampler.statuses["a"].duration_ms)
    assert sampler.statuses["a"] == expected


async def test_a_failing_sensor_is_asked_each_time(build: Build) -> None:
    sensor = FakeSensor("a", OSError("no"))
    sampler = build(sensor)
    for _ in range(3):
        await sampler.sample()
    assert sensor.asked == 3


# What is logged


async def logged(sampler: Sampler, sensor: FakeSensor, *answers: object) -> list[EventDict]:
    """What is logged while the sensor gives these answers."""
    with structlog.testing.capture_logs() as entries:
        for answer in answers:
            sensor.answer = answer
            await sampler.sample()
    return entries


async def test_a_sensor_that_is_well_is_not_mentioned(build: Build) -> None:
    sensor = FakeSensor("a")
    assert await logged(build(sensor), sensor, 1, 2, 3) == []


async def test_a_lasting_failure_is_logged_once(build: Build) -> None:
    sensor = FakeSensor("a")
    entries = await logged(build(sensor), sensor, *[OSError("no")] * 5)
    expected = {"event": "sensor_failed", "log_level": "warning", "sensor": "a", "error": "OSError: no"}
    assert entries == [expected]


async def test_another_reason_is_logged_again(build: Build) -> None:
    sensor = FakeSensor("a")
    entries = await logged(build(sensor), sensor, OSError("no"), OSError("still no"))
    assert [entry["error"] for entry in entries] == ["OSError: no", "OSError: still no"]


async def test_a_recovery_is_logged_once(build: Build) -> None:
    sensor = FakeSensor("a")
    entries = await logged(build(sensor), sensor, OSError("no"), 1, 1)
    assert [entry["event"] for entry in entries] == ["sensor_failed", "sensor_back"]


async def test_a_sensor_that_was_never_there_is_no_news(build: Build) -> None:
    sensor = FakeSensor("a")
    entries = await logged(build(sensor), sensor, *[SensorAbsentError("no such")] * 2)
    assert [(entry["event"], entry["log_level"]) for entry in entries] == [("sensor_absent", "debug")]


async def test_a_sensor_that_goes_away_is_said_and_no_warning(build: Build) -> None:
    sensor = FakeSensor("a")
    entries = await logged(build(sensor), sensor, 1, SensorAbsentError("gone"))
    assert [(entry["event"], entry["log_level"]) for entry in entries] == [("sensor_absent", "info")]


# Hung


async def test_sensors_after_a_stuck_one_are_read_in_the_same_sample(build: Build) -> None:
    sampler = build(FakeSensor("a"), StuckSensor(), FakeSensor("c"), deadline_s=SHORT_S)
    assert await values(sampler) == {"a": 1, "c": 1}


async def test_two_stuck_sensors_do_not_hide_the_third(build: Build) -> None:
    sampler = build(StuckSensor("a"), StuckSensor("b"), FakeSensor("c"), deadline_s=SHORT_S)
    assert await values(sampler) == {"c": 1}


async def test_each_sensor_has_a_deadline_of_its_own(build: Build) -> None:
    class Slow(FakeSensor):
        def read(self) -> object:
            time.sleep(0.25)
            return 1

    sampler = build(*(Slow(name) for name in "abc"), deadline_s=0.7)
    assert len(await values(sampler)) == 3


async def test_a_sensor_past_its_deadline_is_hung(build: Build) -> None:
    sampler = build(StuckSensor(), deadline_s=SHORT_S)
    await sampler.sample()
    expected = SensorStatus(state="hung", error=f"no answer within {SHORT_S} s", failures=1)
    assert sampler.statuses["stuck"] == expected


async def test_a_sensor_that_is_stuck_is_not_asked_again(build: Build) -> None:
    sensor = StuckSensor()
    sampler = build(sensor, deadline_s=SHORT_S)
    for _ in range(5):
        await sampler.sample()
    assert sensor.asked == 1


async def test_a_sensor_that_is_stuck_delays_one_sample_only(build: Build) -> None:
    sampler = build(StuckSensor(), FakeSensor("a"), deadline_s=SHORT_S)
    await sampler.sample()
    begin_s = time.monotonic()
    for _ in range(20):
        await sampler.sample()
    assert time.monotonic() - begin_s < 20 * SHORT_S


async def test_a_stuck_sensor_costs_one_thread_however_long_it_lasts(build: Build) -> None:
    before = sampler_threads()
    sampler = build(StuckSensor(), FakeSensor("a"), deadline_s=SHORT_S)
    for _ in range(20):
        await sampler.sample()
    assert sampler_threads() - before == 2


async def test_a_sensor_that_returns_is_back(build: Build) -> None:
    sensor = StuckSensor()
    sampler = build(sensor, deadline_s=SHORT_S)
    await sampler.sample()
    sensor.released.set()
    assert (await sample_until(sampler, "ok"))[-1] == {"stuck": "fresh"}


async def test_a_value_that_comes_too_late_is_never_delivered(build: Build) -> None:
    sensor = StuckSensor()
    sampler = build(sensor, FakeSensor("a", "a"), deadline_s=SHORT_S)
    await sampler.sample()
    sensor.released.set()
    samples = await sample_until(sampler, "ok") + [await values(sampler)]
    assert "late" not in {value for sample in samples for value in sample.values()}


async def test_the_thread_of_a_sensor_that_returned_ends(build: Build) -> None:
    before = sampler_threads()
    sensor = StuckSensor()
    sampler = build(sensor, FakeSensor("a"), deadline_s=SHORT_S)
    await sampler.sample()
    sensor.released.set()
    await sample_until(sampler, "ok")
    assert await threads_come_down_to(before + 1)


async def test_a_hang_and_its_end_are_logged_once_each(build: Build) -> None:
    sensor = StuckSensor()
    sampler = build(sensor, deadline_s=SHORT_S)
    with structlog.testing.capture_logs() as entries:
        for _ in range(3):
            await sampler.sample()
        sensor.released.set()
        await sample_until(sampler, "ok")
    assert [entry["event"] for entry in entries] == ["sensor_hung", "sensor_back"]


def test_a_sensor_that_returns_after_the_loop_has_closed_disturbs_nobody(build: Build) -> None:
    sensor = StuckSensor()
    sampler = build(sensor, deadline_s=SHORT_S)
    asyncio.run(sampler.sample())
    before = set(threading.enumerate())
    sensor.released.set()
    for thread in before:
        if thread.name == "neuromodd-sampler":
            thread.join(10.0)
    assert not any(thread.is_alive() for thread in before if thread.name == "neuromodd-sampler")


# The end


async def test_closing_closes_every_sensor(build: Build) -> None:
    sensors = [FakeSensor("a"), FakeSensor("b", OSError("no")), FakeSensor("c")]
    sampler = build(*sensors)
    await sampler.sample()
    sampler.close()
    assert all(sensor.closed.wait(10.0) for sensor in sensors)


async def test_closing_leaves_a_stuck_sensor_alone(build: Build) -> None:
    stuck, other = StuckSensor(), FakeSensor("a")
    sampler = build(stuck, other, deadline_s=SHORT_S)
    await sampler.sample()
    sampler.close()
    assert other.closed.wait(10.0)
    assert not stuck.closed.is_set()


async def test_closing_closes_the_others_where_the_last_sensor_is_stuck(build: Build) -> None:
    other, stuck = FakeSensor("a"), StuckSensor()
    sampler = build(other, stuck, deadline_s=SHORT_S)
    await sampler.sample()
    sampler.close()
    assert other.closed.wait(1.0)


async def test_closing_ends_the_thread(build: Build) -> None:
    before = sampler_threads()
    sensor = FakeSensor("a")
    sampler = build(sensor)
    await sampler.sample()
    sampler.close()
    assert await threads_come_down_to(before)
