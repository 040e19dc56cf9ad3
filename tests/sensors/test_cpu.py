from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from neuromodd.errors import SensorAbsentError
from neuromodd.sensors.cpu import CpuSensor, parse_cpuinfo, parse_loadavg, parse_processors, parse_stat

Write = Callable[[Path, str], Path]

STAT = """\
cpu  1000 20 300 5000 60 7 8 9 400 10
cpu0 600 10 200 2500 30 4 4 5 200 5
cpu1 400 10 100 2500 30 3 4 4 200 5
intr 123456 0 9 0
ctxt 987654
btime 1700000000
processes 4321
procs_running 2
procs_blocked 0
softirq 1000 1 2 3
"""

CPUINFO_X86 = """\
processor\t: 0
model name\t: A processor @ 3.00GHz
cpu MHz\t\t: 1200.000
flags\t\t: fpu

processor\t: 1
model name\t: A processor @ 3.00GHz
cpu MHz\t\t: 3000.500
flags\t\t: fpu
"""

CPUINFO_ARM = "processor\t: 0\nBogoMIPS\t: 108.00\nCPU part\t: 0xd08\n"
CPUINFO_S390 = "processor 0: version = 00\ncpu MHz dynamic : 5200\ncpu MHz static : 5200\n"


@pytest.fixture
def host(procfs: Path, write: Write) -> Path:
    write(procfs / "stat", STAT)
    write(procfs / "loadavg", "0.75 0.50 0.25 2/345 6789\n")
    return procfs


@pytest.fixture
def sensor(host: Path, sysfs: Path, now: list[float]) -> Iterator[CpuSensor]:
    sensor = CpuSensor(procfs_root=host, sysfs_root=sysfs, clock=lambda: now[0])
    yield sensor
    sensor.close()


@pytest.fixture
def add_policy(sysfs: Path, write: Write) -> Callable[..., Path]:
    def add(number: int, current: str, maximum: int, **lists: str) -> Path:
        folder = sysfs / f"devices/system/cpu/cpufreq/policy{number}"
        for name, processors in lists.items():
            write(folder / name, f"{processors}\n")
        write(folder / "scaling_cur_freq", f"{current}\n")
        write(folder / "cpuinfo_max_freq", f"{maximum}\n")
        return folder

    return add


def test_waiting_for_io_is_not_busy() -> None:
    assert parse_stat(STAT).busy_ticks == 1000 + 20 + 300 + 7 + 8 + 9


def test_guest_time_counts_once() -> None:
    assert parse_stat(STAT).total_ticks == 1000 + 20 + 300 + 5000 + 60 + 7 + 8 + 9


def test_context_switches_come_from_their_own_line() -> None:
    assert parse_stat(STAT).context_switches == 987654


def test_context_switches_that_are_not_told_are_none() -> None:
    assert parse_stat("cpu 1 2 3 4 5 6 7 8\n").context_switches is None


@pytest.mark.parametrize("text", ["", "cpu 1 2 3\n", "cpu0 1 2 3 4 5 6 7 8\n", "cpu a b c d e f g h\n"])
def test_a_stat_without_the_sum_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_stat(text)


def test_the_load_is_that_of_one_minute() -> None:
    assert parse_loadavg("0.75 0.50 0.25 2/345 6789\n") == 0.75


def test_cpuinfo_gives_the_mean_frequency() -> None:
    assert parse_cpuinfo(CPUINFO_X86) == 2100.25e6


@pytest.mark.parametrize("text", [CPUINFO_ARM, CPUINFO_S390])
def test_cpuinfo_of_other_machines_tells_no_frequency(text: str) -> None:
    assert parse_cpuinfo(text) is None


def test_a_reading_holds_counters_and_load(sensor: CpuSensor) -> None:
    reading = sensor.read()
    assert (reading.busy_ticks, reading.total_ticks, reading.load_1m) == (1344, 6404, 0.75)


def test_the_frequency_is_the_mean_over_the_policies(
    sensor: CpuSensor, add_policy: Callable[..., Path]
) -> None:
    add_policy(0, "1200000", 3600000)
    add_policy(4, "1800000", 2400000)
    assert sensor.read().frequency_hz == 1.5e9


def test_the_maximum_frequency_is_the_largest_of_the_policies(
    sensor: CpuSensor, add_policy: Callable[..., Path]
) -> None:
    add_policy(0, "1200000", 3600000)
    add_policy(4, "1800000", 2400000)
    assert sensor.read().frequency_max_hz == 3.6e9


def test_a_policy_that_is_off_does_not_count(sensor: CpuSensor, add_policy: Callable[..., Path]) -> None:
    add_policy(0, "1200000", 3600000)
    add_policy(4, "<unknown>", 3600000)
    assert sensor.read().frequency_hz == 1.2e9


def test_a_frequency_that_no_policy_tells_is_none(sensor: CpuSensor, add_policy: Callable[..., Path]) -> None:
    add_policy(0, "<unknown>", 3600000)
    assert sensor.read().frequency_hz is None


def test_a_policy_that_goes_away_is_forgotten(
    sensor: CpuSensor, add_policy: Callable[..., Path], sysfs: Path, now: list[float]
) -> None:
    add_policy(0, "1200000", 2400000)
    add_policy(4, "1800000", 3600000)
    sensor.read()
    folder = sysfs / "devices/system/cpu/cpufreq"
    (folder / "policy4").rename(folder / "away4")
    now[0] += 60.0
    reading = sensor.read()
    assert (reading.frequency_hz, reading.frequency_max_hz) == (1.2e9, 2.4e9)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0-3,8\n", [0, 1, 2, 3, 8]),
        ("0 1 2\n", [0, 1, 2]),
        ("5\n", [5]),
        ("0-1,64-65\n", [0, 1, 64, 65]),
        ("\n", []),
    ],
)
def test_a_list_of_processors_is_read_in_both_forms(text: str, expected: list[int]) -> None:
    assert parse_processors(text) == expected


def test_each_processor_has_the_frequency_of_its_policy(
    sensor: CpuSensor, add_policy: Callable[..., Path]
) -> None:
    add_policy(0, "1200000", 2400000, affected_cpus="0 2", related_cpus="0 2")
    add_policy(1, "1800000", 3600000, affected_cpus="1 3", related_cpus="1 3")
    assert sensor.read().core_frequencies_hz == (1.2e9, 1.8e9, 1.2e9, 1.8e9)


def test_processors_are_in_the_order_of_their_numbers(
    sensor: CpuSensor, add_policy: Callable[..., Path]
) -> None:
    for number in range(12):
        add_policy(number, f"{1000000 + number}", 2400000)
    assert sensor.read().core_frequencies_hz == tuple(1e9 + 1e3 * number for number in range(12))


@pytest.mark.parametrize(
    ("affected", "related", "present", "expected"),
    [
        ("0", "0 1", None, (1.2e9, None)),
        ("", "0 1", None, (None, None)),
        (None, "0 1", None, (1.2e9, 1.2e9)),
        ("0 1", None, None, (1.2e9, 1.2e9)),
        (None, None, None, (1.2e9,)),
        ("0", "0", "0-2", (1.2e9, None, None)),
    ],
)
def test_a_processor_that_is_off_has_no_frequency(
    sensor: CpuSensor,
    add_policy: Callable[..., Path],
    sysfs: Path,
    write: Write,
    affected: str | None,
    related: str | None,
    present: str | None,
    expected: tuple[float | None, ...],
) -> None:
    lists = {"affected_cpus": affected, "related_cpus": related}
    add_policy(0, "1200000", 2400000, **{name: text for name, text in lists.items() if text is not None})
    if present is not None:
        write(sysfs / "devices/system/cpu/present", f"{present}\n")
    assert sensor.read().core_frequencies_hz == expected


def test_a_policy_that_fails_leaves_its_processors_without_frequency(
    sensor: CpuSensor, add_policy: Callable[..., Path]
) -> None:
    add_policy(0, "1200000", 2400000, affected_cpus="0 1")
    add_policy(2, "<unknown>", 2400000, affected_cpus="2 3")
    assert sensor.read().core_frequencies_hz == (1.2e9, 1.2e9, None, None)


def test_without_cpufreq_there_are_no_frequencies_of_processors(
    sensor: CpuSensor, host: Path, write: Write
) -> None:
    write(host / "cpuinfo", CPUINFO_X86)
    assert sensor.read().core_frequencies_hz is None


# Thermal throttling


@pytest.fixture
def add_processor(sysfs: Path, write: Write) -> Callable[..., Path]:
    """Adds one logical processor with its counts; returns the folder of these."""

    def add(
        number: int, threads: str, *, package: int = 0, core_count: int = 0, package_count: int = 0
    ) -> Path:
        folder = sysfs / f"devices/system/cpu/cpu{number}"
        write(folder / "topology/thread_siblings_list", f"{threads}\n")
        write(folder / "topology/physical_package_id", f"{package}\n")
        write(folder / "thermal_throttle/core_throttle_count", f"{core_count}\n")
        return write(folder / "thermal_throttle/package_throttle_count", f"{package_count}\n").parent

    return add


def test_the_threads_of_a_core_count_once(sensor: CpuSensor, add_processor: Callable[..., Path]) -> None:
    for number, threads in enumerate(("0,2", "1,3", "0,2", "1,3")):
        add_processor(number, threads, core_count=10 if threads == "0,2" else 1)
    assert sensor.read().throttles == 11


def test_a_package_counts_once(sensor: CpuSensor, add_processor: Callable[..., Path]) -> None:
    for number in range(4):
        add_processor(number, str(number), package=number // 2, package_count=100 * (number // 2) + 5)
    assert sensor.read().throttles == 5 + 105


def test_the_newer_list_of_threads_is_preferred(
    sensor: CpuSensor, add_processor: Callable[..., Path], sysfs: Path, write: Write
) -> None:
    for number in (0, 1):
        add_processor(number, str(number), core_count=3)
        write(sysfs / f"devices/system/cpu/cpu{number}/topology/core_cpus_list", "0-1\n")
    assert sensor.read().throttles == 3


def test_a_processor_without_topology_is_a_core_of_its_own(
    sensor: CpuSensor, sysfs: Path, write: Write
) -> None:
    for number in (0, 1):
        folder = sysfs / f"devices/system/cpu/cpu{number}/thermal_throttle"
        write(folder / "core_throttle_count", "4\n")
    assert sensor.read().throttles == 8


def test_a_machine_that_counts_no_throttling_tells_none(sensor: CpuSensor) -> None:
    assert sensor.read().throttles is None


def test_throttles_are_counted_afresh_at_each_reading(
    sensor: CpuSensor, add_processor: Callable[..., Path]
) -> None:
    add_processor(0, "0", core_count=1)
    sensor.read()
    add_processor(0, "0", core_count=2)
    assert sensor.read().throttles == 2


def test_a_core_that_can_not_be_read_leaves_no_sum_of_the_others(
    sensor: CpuSensor, add_processor: Callable[..., Path]
) -> None:
    add_processor(0, "0", core_count=1)
    folder = add_processor(1, "1", core_count=2)
    (folder / "core_throttle_count").write_text("\n")
    assert sensor.read().throttles is None


def test_after_a_processor_was_switched_off_the_count_starts_anew(
    sensor: CpuSensor, add_processor: Callable[..., Path], sysfs: Path, write: Write, now: list[float]
) -> None:
    online = write(sysfs / "devices/system/cpu/online", "0-1\n")
    add_processor(0, "0", core_count=1)
    folder = add_processor(1, "1", core_count=2)
    found = [sensor.read().throttles]
    online.write_text("0\n")
    folder.rename(folder.with_name("away"))
    now[0] += 60.0
    found += [sensor.read().throttles, sensor.read().throttles]
    assert found == [3, None, 1]


def test_without_cpufreq_the_frequency_comes_from_cpuinfo(
    sensor: CpuSensor, host: Path, write: Write
) -> None:
    write(host / "cpuinfo", CPUINFO_X86)
    reading = sensor.read()
    assert (reading.frequency_hz, reading.frequency_max_hz) == (2100.25e6, None)


@pytest.mark.parametrize(("later_s", "expected_hz"), [(9.0, 2100.25e6), (10.0, 800e6)])
def test_cpuinfo_is_read_every_ten_seconds(
    sensor: CpuSensor, host: Path, write: Write, now: list[float], later_s: float, expected_hz: float
) -> None:
    write(host / "cpuinfo", CPUINFO_X86)
    sensor.read()
    write(host / "cpuinfo", "cpu MHz\t\t: 800.000\n")
    now[0] += later_s
    assert sensor.read().frequency_hz == expected_hz


def test_a_machine_that_tells_no_frequency_has_none(sensor: CpuSensor) -> None:
    assert sensor.read().frequency_hz is None


def test_a_missing_load_does_not_fail_the_rest(sensor: CpuSensor, host: Path) -> None:
    (host / "loadavg").unlink()
    reading = sensor.read()
    assert (reading.load_1m, reading.busy_ticks) == (None, 1344)


def test_no_stat_file_means_absent(sensor: CpuSensor, host: Path) -> None:
    (host / "stat").unlink()
    with pytest.raises(SensorAbsentError):
        sensor.read()


def test_a_stat_that_can_not_be_read_is_a_failure(sensor: CpuSensor, host: Path) -> None:
    (host / "stat").unlink()
    (host / "stat").mkdir()
    with pytest.raises(IsADirectoryError):
        sensor.read()


def test_a_sensor_reads_on_after_it_was_closed(sensor: CpuSensor) -> None:
    before = sensor.read()
    sensor.close()
    assert sensor.read() == before


def test_this_machine_has_been_busy_as_long_as_psutil_says() -> None:
    sensor = CpuSensor(procfs_root=Path("/proc"), sysfs_root=Path("/sys"))
    reading = sensor.read()
    sensor.close()
    times = psutil.cpu_times()
    busy_s = times.user + times.nice + times.system + times.irq + times.softirq + times.steal
    assert reading.busy_ticks is not None
    assert reading.busy_ticks / os.sysconf("SC_CLK_TCK") == pytest.approx(busy_s, rel=0.02, abs=2.0)
