from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from neuromodd.errors import SensorAbsentError
from neuromodd.sensors.cpu import CpuSensor, parse_cpuinfo, parse_loadavg, parse_stat

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
    def add(number: int, current: str, maximum: int) -> Path:
        folder = sysfs / f"devices/system/cpu/cpufreq/policy{number}"
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
