from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest

from neuromodd.core.readings import LimitsReading
from neuromodd.errors import SensorAbsentError
from neuromodd.sensors.limits import (
    LimitsSensor,
    parse_cpu_max,
    parse_memory_max,
    parse_own_path,
    parse_throttling,
)

Write = Callable[[Path, str], Path]
AddGroup = Callable[..., Path]

CPU_STAT = """\
usage_usec 36502741
user_usec 27321480
system_usec 9181261
nr_periods 400
nr_throttled 30
throttled_usec 123456
nr_bursts 0
burst_usec 0
"""

HYBRID = """\
9:name=systemd:/user.slice
4:memory:/user.slice
0::/user.slice/session-1.scope
"""


@pytest.fixture
def root(sysfs: Path, write: Write) -> Path:
    """A cgroup v2 hierarchy without groups."""
    return write(sysfs / "fs/cgroup/cgroup.controllers", "cpu io memory\n").parent


@pytest.fixture
def add_group(root: Path, write: Write) -> AddGroup:
    """Adds the group of that path, or the root itself of a container's namespace."""

    def add(
        path: str,
        *,
        cpu: str | None = None,
        periods: tuple[int, int] = (0, 0),
        memory: str | None = None,
        used_bytes: int = 0,
    ) -> Path:
        folder = root / path
        folder.mkdir(exist_ok=True)
        if cpu is not None:
            write(folder / "cpu.max", f"{cpu}\n")
            write(folder / "cpu.stat", f"nr_periods {periods[0]}\nnr_throttled {periods[1]}\n")
        if memory is not None:
            write(folder / "memory.max", f"{memory}\n")
            write(folder / "memory.current", f"{used_bytes}\n")
        return folder

    return add


@pytest.fixture
def move(procfs: Path, write: Write) -> Callable[[str], Path]:
    """Says in which group the process is."""
    return lambda path: write(procfs / "self/cgroup", f"0::{path}\n")


@pytest.fixture
def sensor(procfs: Path, sysfs: Path, now: list[float]) -> Iterator[LimitsSensor]:
    sensor = LimitsSensor(procfs_root=procfs, sysfs_root=sysfs, clock=lambda: now[0])
    yield sensor
    sensor.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0::/\n", "."),
        ("0::/system.slice/neuromodd.service\n", "system.slice/neuromodd.service"),
        (HYBRID, "user.slice/session-1.scope"),
        ("0::/a:b\n", "a:b"),
    ],
)
def test_the_own_group_is_on_the_line_of_the_v2_hierarchy(text: str, expected: str) -> None:
    assert parse_own_path(text) == PurePosixPath(expected)


@pytest.mark.parametrize("text", ["", "4:memory:/user.slice\n"])
def test_under_v1_alone_there_is_no_own_group(text: str) -> None:
    assert parse_own_path(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("max 100000\n", None), ("150000 100000\n", 1.5), ("5000 10000\n", 0.5)],
)
def test_a_processor_limit_is_quota_over_period(text: str, expected: float | None) -> None:
    assert parse_cpu_max(text) == expected


@pytest.mark.parametrize("text", ["", "150000\n", "150000 0\n", "much 100000\n"])
def test_a_processor_limit_of_a_foreign_format_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_cpu_max(text)


@pytest.mark.parametrize(("text", "expected"), [("max\n", None), ("536870912\n", 536870912), ("0\n", 0)])
def test_a_memory_limit_is_in_bytes(text: str, expected: int | None) -> None:
    assert parse_memory_max(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [(CPU_STAT, (400, 30)), ("usage_usec 5\n", (None, None)), ("nr_periods 7\n", (7, None))],
)
def test_throttling_is_counted_in_periods(text: str, expected: tuple[int | None, int | None]) -> None:
    assert parse_throttling(text) == expected


def test_a_container_has_its_limits_at_the_root_of_its_namespace(
    sensor: LimitsSensor, add_group: AddGroup, move: Callable[[str], Path]
) -> None:
    move("/")
    add_group(".", cpu="150000 100000", periods=(400, 30), memory="1000", used_bytes=250)
    assert sensor.read() == LimitsReading(
        cpu_limit_cores=1.5,
        cpu_periods=400,
        cpu_throttled_periods=30,
        memory_limit_bytes=1000,
        memory_used_bytes=250,
    )


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (("max 100000", "200000 100000", "150000 100000"), (1.5, 3)),
        (("max 100000", "100000 100000", "150000 100000"), (1.0, 2)),
        (("max 100000", "max 100000", "150000 100000"), (1.5, 3)),
        (("max 100000", "100000 100000", "max 100000"), (1.0, 2)),
        (("max 100000", "100000 100000", "50000 50000"), (1.0, 2)),
    ],
)
def test_of_all_levels_the_tightest_quota_counts(
    sensor: LimitsSensor,
    add_group: AddGroup,
    move: Callable[[str], Path],
    limits: tuple[str, str, str],
    expected: tuple[float, int],
) -> None:
    move("/a/b")
    for level, (path, cpu) in enumerate(zip((".", "a", "a/b"), limits, strict=True), start=1):
        add_group(path, cpu=cpu, periods=(10 * level, level))
    reading = sensor.read()
    assert (reading.cpu_limit_cores, reading.cpu_throttled_periods) == expected


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (("max", "900"), (900, 30)),
        (("800", "900"), (800, 20)),
        (("900", "800"), (800, 30)),
        (("800", "800"), (800, 20)),
    ],
)
def test_of_all_levels_the_tightest_memory_limit_counts(
    sensor: LimitsSensor,
    add_group: AddGroup,
    move: Callable[[str], Path],
    limits: tuple[str, str],
    expected: tuple[int, int],
) -> None:
    move("/a/b")
    for level, (path, memory) in enumerate(zip(("a", "a/b"), limits, strict=True), start=2):
        add_group(path, memory=memory, used_bytes=10 * level)
    reading = sensor.read()
    assert (reading.memory_limit_bytes, reading.memory_used_bytes) == expected


def test_groups_beside_the_own_do_not_count(
    sensor: LimitsSensor, add_group: AddGroup, move: Callable[[str], Path]
) -> None:
    move("/a")
    add_group("a", memory="900")
    add_group("b", memory="100")
    assert sensor.read().memory_limit_bytes == 900


def test_a_limit_that_is_not_set_is_none_beside_one_that_is(
    sensor: LimitsSensor, add_group: AddGroup, move: Callable[[str], Path]
) -> None:
    move("/a")
    add_group("a", cpu="max 100000", periods=(5, 5), memory="900", used_bytes=1)
    assert sensor.read() == LimitsReading(memory_limit_bytes=900, memory_used_bytes=1)


@pytest.mark.parametrize("path", ["/system.slice/docker-0123.scope", "/../other", "/a (deleted)"])
def test_a_path_that_is_not_below_the_mount_leads_to_its_root(
    sensor: LimitsSensor, add_group: AddGroup, move: Callable[[str], Path], path: str
) -> None:
    move(path)
    add_group(".", memory="900", used_bytes=5)
    assert sensor.read().memory_limit_bytes == 900


def test_without_a_word_on_the_own_group_it_is_the_root(sensor: LimitsSensor, add_group: AddGroup) -> None:
    add_group(".", memory="900", used_bytes=5)
    assert sensor.read().memory_limit_bytes == 900


def test_a_second_reading_is_fresh(
    sensor: LimitsSensor, add_group: AddGroup, move: Callable[[str], Path]
) -> None:
    move("/a")
    add_group("a", cpu="100000 100000", periods=(1, 1), memory="900", used_bytes=5)
    sensor.read()
    add_group("a", cpu="200000 100000", periods=(2, 1), memory="800", used_bytes=6)
    assert sensor.read() == LimitsReading(
        cpu_limit_cores=2.0,
        cpu_periods=2,
        cpu_throttled_periods=1,
        memory_limit_bytes=800,
        memory_used_bytes=6,
    )


def test_counters_of_another_group_are_a_beginning_and_no_growth(
    sensor: LimitsSensor, add_group: AddGroup, move: Callable[[str], Path]
) -> None:
    move("/a/b")
    add_group("a", cpu="200000 100000", periods=(1000, 900))
    add_group("a/b", cpu="100000 100000", periods=(10, 1))
    found = [sensor.read().cpu_periods]
    add_group("a/b", cpu="max 100000", periods=(11, 1))
    found += [sensor.read().cpu_periods, sensor.read().cpu_periods]
    assert found == [10, None, 1000]


@pytest.mark.parametrize(("later_s", "limit_bytes"), [(59.0, 900), (60.0, 700)])
def test_the_own_group_is_looked_up_every_minute(
    sensor: LimitsSensor,
    add_group: AddGroup,
    move: Callable[[str], Path],
    now: list[float],
    later_s: float,
    limit_bytes: int,
) -> None:
    add_group("a", memory="900")
    add_group("b", memory="700")
    move("/a")
    sensor.read()
    move("/b")
    now[0] += later_s
    assert sensor.read().memory_limit_bytes == limit_bytes


def test_a_group_that_is_removed_fails_until_the_new_one_is_looked_up(
    sensor: LimitsSensor, add_group: AddGroup, move: Callable[[str], Path], root: Path, now: list[float]
) -> None:
    folder = add_group("a", memory="900")
    add_group("b", memory="700")
    move("/a")
    sensor.read()
    sensor.close()
    folder.rename(root / "away")
    move("/b")
    with pytest.raises(FileNotFoundError):
        sensor.read()
    now[0] += 5.0
    assert sensor.read().memory_limit_bytes == 700


def test_a_limit_that_can_not_be_read_is_not_taken_for_none(
    sensor: LimitsSensor, add_group: AddGroup, move: Callable[[str], Path]
) -> None:
    move("/a")
    add_group(".", memory="900")
    add_group("a", memory="little")
    with pytest.raises(ValueError, match="little"):
        sensor.read()


def test_no_limit_at_any_level_means_absent(
    sensor: LimitsSensor, add_group: AddGroup, move: Callable[[str], Path]
) -> None:
    move("/a/b")
    for path in ("a", "a/b"):
        add_group(path, cpu="max 100000", memory="max")
    with pytest.raises(SensorAbsentError, match="no control group limit"):
        sensor.read()


def test_cgroup_v1_means_absent(sensor: LimitsSensor, sysfs: Path, write: Write) -> None:
    write(sysfs / "fs/cgroup/memory/memory.limit_in_bytes", "900\n")
    with pytest.raises(SensorAbsentError, match="no cgroup v2"):
        sensor.read()


@pytest.mark.usefixtures("root")
def test_a_hierarchy_without_controllers_for_the_process_means_absent(
    sensor: LimitsSensor, move: Callable[[str], Path]
) -> None:
    move("/")
    with pytest.raises(SensorAbsentError, match="no cgroup v2 hierarchy with limits"):
        sensor.read()


def test_on_this_machine_limits_are_positive_or_there_are_none() -> None:
    sensor = LimitsSensor(procfs_root=Path("/proc"), sysfs_root=Path("/sys"))
    try:
        reading = sensor.read()
    except SensorAbsentError:
        return
    finally:
        sensor.close()
    limits = [reading.cpu_limit_cores, reading.memory_limit_bytes]
    assert all(limit > 0 for limit in limits if limit is not None)
