from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest

from neuromodd.config import SensorName, SensorSettings, Settings
from neuromodd.core.frame import TelemetryFrame
from neuromodd.eye import Due, Eye, beats, build_sensors


class Clock:
    """A clock that moves by sleeping alone, each time a little too far."""

    def __init__(self, now_s: float = 1000.0, oversleep_s: float = 0.0) -> None:
        self.now_s = now_s
        self.oversleep_s = oversleep_s

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds + self.oversleep_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("neuromodd.eye.asyncio", SimpleNamespace(sleep=clock.sleep))
    return clock


async def test_the_first_beat_comes_after_one_interval(clock: Clock) -> None:
    await anext(beats(lambda: 2.0, clock))
    assert clock.now_s == 1002.0


async def test_a_thousand_beats_with_a_slow_body_do_not_drift(clock: Clock) -> None:
    clock.oversleep_s = 0.01
    grid = beats(lambda: 0.1, clock)
    for _ in range(1000):
        await anext(grid)
        clock.now_s += 0.05
    assert clock.now_s == pytest.approx(1000.0 + 1000 * 0.1 + 0.01 + 0.05)


async def test_a_beat_that_wakes_up_late_says_by_how_much(clock: Clock) -> None:
    clock.oversleep_s = 0.25
    assert await anext(beats(lambda: 1.0, clock)) == Due(lateness_s=0.25, missed=0)


async def test_a_beat_in_time_is_not_late(clock: Clock) -> None:
    assert await anext(beats(lambda: 1.0, clock)) == Due(lateness_s=0.0, missed=0)


async def test_a_body_that_overruns_makes_the_next_beat_late(clock: Clock) -> None:
    grid = beats(lambda: 1.0, clock)
    await anext(grid)
    clock.now_s += 1.25
    assert await anext(grid) == Due(lateness_s=0.25, missed=0)


async def test_beats_that_never_took_place_are_counted(clock: Clock) -> None:
    grid = beats(lambda: 1.0, clock)
    await anext(grid)
    clock.now_s += 4.25
    assert await anext(grid) == Due(lateness_s=3.25, missed=3)


async def test_beats_that_never_took_place_are_not_made_up_for(clock: Clock) -> None:
    grid = beats(lambda: 1.0, clock)
    await anext(grid)
    clock.now_s += 4.25
    await anext(grid)
    assert await anext(grid) == Due(lateness_s=0.0, missed=0)
    assert clock.now_s == 1006.0


async def test_an_interval_changed_on_the_way_counts_from_the_last_due_time(clock: Clock) -> None:
    interval = [1.0]
    grid = beats(lambda: interval[0], clock)
    await anext(grid)
    clock.now_s += 0.1
    interval[0] = 0.25
    times = []
    for _ in range(3):
        await anext(grid)
        times.append(clock.now_s)
    assert times == [1001.25, 1001.5, 1001.75]


async def test_an_interval_shortened_after_it_ran_out_beats_at_once_and_makes_up_for_nothing(
    clock: Clock,
) -> None:
    interval = [10.0]
    grid = beats(lambda: interval[0], clock)
    await anext(grid)
    clock.now_s += 5.5
    interval[0] = 2.0
    assert await anext(grid) == Due(lateness_s=0.0, missed=0)


async def test_an_interval_shortened_during_a_long_one_takes_effect_soon(clock: Clock) -> None:
    grid = beats(lambda: 3600.0 if clock.now_s < start_s + 10.0 else 2.0, clock)
    start_s = clock.now_s
    await anext(grid)
    assert clock.now_s <= start_s + 12.0


# Sensors and frames


def settings(procfs: Path, sysfs: Path, **values: object) -> Settings:
    sensors = SensorSettings(procfs_root=procfs, sysfs_root=sysfs, **values)
    return Settings(node="lab", sensors=sensors)


@pytest.fixture
def bare_eye(tmp_path: Path) -> Iterator[Eye]:
    """The eye of a machine without anything to measure."""
    (tmp_path / "sys").mkdir()
    proc = tmp_path / "proc"
    (proc / "sys/kernel/random").mkdir(parents=True)
    (proc / "sys/kernel/random/boot_id").write_text("boot-a\n")
    eye = Eye(settings(proc, tmp_path / "sys", disabled=("nvml",)))
    yield eye
    eye.close()


def test_every_sensor_that_has_a_name_in_the_settings_is_built() -> None:
    names = [sensor.name for sensor in build_sensors(Settings())]
    assert sorted(names) == sorted(get_args(SensorName))


@pytest.mark.parametrize("name", get_args(SensorName))
def test_a_disabled_sensor_is_not_built(name: str, tmp_path: Path) -> None:
    names = {sensor.name for sensor in build_sensors(settings(tmp_path, tmp_path, disabled=(name,)))}
    assert names == set(get_args(SensorName)) - {name}


async def test_where_nothing_can_be_measured_every_group_is_none(bare_eye: Eye) -> None:
    frame = await bare_eye.look(sequence=3, lateness_ms=1.5)
    bare = TelemetryFrame(
        node="lab",
        sequence=3,
        time_utc=frame.time_utc,
        monotonic_s=frame.monotonic_s,
        boot_id="boot-a",
        lateness_ms=1.5,
    )
    assert frame == bare


async def test_where_nothing_can_be_measured_no_sensor_is_found(bare_eye: Eye) -> None:
    await bare_eye.look(sequence=0, lateness_ms=None)
    assert bare_eye.sampler.found == ()


async def test_the_interval_is_the_time_between_two_looks(bare_eye: Eye) -> None:
    first = await bare_eye.look(sequence=0, lateness_ms=None)
    second = await bare_eye.look(sequence=1, lateness_ms=None)
    assert second.interval_s == pytest.approx(second.monotonic_s - first.monotonic_s)


async def test_a_look_at_this_machine_finds_its_memory() -> None:
    eye = Eye(settings(Path("/proc"), Path("/sys"), disabled=("nvml",)))
    try:
        frame = await eye.look(sequence=0, lateness_ms=None)
    finally:
        eye.close()
    assert frame.memory is not None
