from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from neuromodd.errors import SensorAbsentError
from neuromodd.sensors.cgroup import CgroupSensor, parse_usage_us

Write = Callable[[Path, str], Path]

CPU_STAT = """\
usage_usec 36502741000
user_usec 27321480000
system_usec 9181261000
nice_usec 0
core_sched.force_idle_usec 0
"""


@pytest.fixture
def root(sysfs: Path, write: Write) -> Path:
    """A cgroup v2 hierarchy without groups."""
    return write(sysfs / "fs/cgroup/cgroup.controllers", "cpu io memory\n").parent


@pytest.fixture
def add_group(root: Path, write: Write) -> Callable[[str, int], Path]:
    return lambda name, usage_us: write(root / name / "cpu.stat", f"usage_usec {usage_us}\n")


@pytest.fixture
def sensor(sysfs: Path, now: list[float]) -> Iterator[CgroupSensor]:
    sensor = CgroupSensor(sysfs_root=sysfs, clock=lambda: now[0])
    yield sensor
    sensor.close()


def test_usage_is_in_microseconds() -> None:
    assert parse_usage_us(CPU_STAT) == 36502741000


@pytest.mark.parametrize("text", ["", "user_usec 5\n", "usage_usec\n", "usage_usec x\n", "usage_usec -1\n"])
def test_a_usage_that_is_not_told_is_none(text: str) -> None:
    assert parse_usage_us(text) is None


def test_groups_are_named_by_their_folders(
    sensor: CgroupSensor, add_group: Callable[[str, int], Path]
) -> None:
    add_group("system.slice", 5)
    add_group("user.slice", 7)
    assert sensor.read().usage_us == {"system.slice": 5, "user.slice": 7}


def test_groups_further_down_are_part_of_those_above(
    sensor: CgroupSensor, add_group: Callable[[str, int], Path]
) -> None:
    add_group("system.slice", 5)
    add_group("system.slice/ssh.service", 3)
    assert sensor.read().usage_us == {"system.slice": 5}


def test_the_root_itself_is_no_group(sensor: CgroupSensor, add_group: Callable[[str, int], Path]) -> None:
    add_group(".", 9)
    add_group("system.slice", 5)
    assert sensor.read().usage_us == {"system.slice": 5}


def test_a_second_reading_is_fresh(sensor: CgroupSensor, add_group: Callable[[str, int], Path]) -> None:
    add_group("system.slice", 5)
    sensor.read()
    add_group("system.slice", 6)
    assert sensor.read().usage_us == {"system.slice": 6}


def test_a_group_that_does_not_tell_its_usage_is_left_out(
    sensor: CgroupSensor, root: Path, write: Write, add_group: Callable[[str, int], Path]
) -> None:
    add_group("system.slice", 5)
    write(root / "user.slice/cpu.stat", "nr_periods 0\n")
    assert sensor.read().usage_us == {"system.slice": 5}


def test_a_group_that_can_not_be_read_is_left_out(
    sensor: CgroupSensor, root: Path, add_group: Callable[[str, int], Path]
) -> None:
    add_group("system.slice", 5)
    (root / "user.slice/cpu.stat").mkdir(parents=True)
    assert sensor.read().usage_us == {"system.slice": 5}


@pytest.mark.parametrize(("later_s", "names"), [(59.0, {"a"}), (60.0, {"a", "b"})])
def test_new_groups_are_looked_for_every_minute(
    sensor: CgroupSensor,
    add_group: Callable[[str, int], Path],
    now: list[float],
    later_s: float,
    names: set[str],
) -> None:
    add_group("a", 1)
    sensor.read()
    add_group("b", 2)
    now[0] += later_s
    assert sensor.read().usage_us.keys() == names


def test_a_group_that_is_gone_is_missing_and_not_zero(
    sensor: CgroupSensor, root: Path, add_group: Callable[[str, int], Path], now: list[float]
) -> None:
    add_group("a", 1)
    add_group("b", 2)
    sensor.read()
    (root / "b/cpu.stat").unlink()
    now[0] += 60.0
    assert sensor.read().usage_us == {"a": 1}


def test_cgroup_v1_means_absent(sensor: CgroupSensor, sysfs: Path, write: Write) -> None:
    write(sysfs / "fs/cgroup/cpu/cpu.stat", "nr_periods 0\n")
    with pytest.raises(SensorAbsentError, match="no cgroup v2"):
        sensor.read()


@pytest.mark.usefixtures("root")
def test_a_hierarchy_without_accounting_means_absent(sensor: CgroupSensor) -> None:
    with pytest.raises(SensorAbsentError, match="accounting"):
        sensor.read()


def test_a_hierarchy_that_appears_later_is_found_at_once(
    sensor: CgroupSensor, sysfs: Path, write: Write
) -> None:
    with pytest.raises(SensorAbsentError):
        sensor.read()
    write(sysfs / "fs/cgroup/cgroup.controllers", "cpu\n")
    write(sysfs / "fs/cgroup/a/cpu.stat", CPU_STAT)
    assert sensor.read().usage_us == {"a": 36502741000}


def test_a_sensor_that_was_closed_holds_no_file(
    sensor: CgroupSensor, add_group: Callable[[str, int], Path]
) -> None:
    path = add_group("a", 1)
    sensor.read()
    held = [link for link in Path("/proc/self/fd").iterdir() if link.exists() and link.samefile(path)]
    sensor.close()
    left = [link for link in Path("/proc/self/fd").iterdir() if link.exists() and link.samefile(path)]
    assert (len(held), len(left)) == (1, 0)


def test_on_this_machine_usage_does_not_run_back_or_there_is_no_hierarchy() -> None:
    sensor = CgroupSensor(sysfs_root=Path("/sys"))
    try:
        first, second = sensor.read().usage_us, sensor.read().usage_us
    except SensorAbsentError:
        root = Path("/sys/fs/cgroup")
        assert not ((root / "cgroup.controllers").exists() and any(root.glob("*/cpu.stat")))
        return
    finally:
        sensor.close()
    assert all(second[name] >= first[name] for name in first.keys() & second.keys())
