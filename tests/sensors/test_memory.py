from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from neuromodd.errors import SensorAbsentError
from neuromodd.sensors.memory import MemorySensor, parse_meminfo

MEMINFO = """\
MemTotal:       16000000 kB
MemFree:         1000000 kB
MemAvailable:    4000000 kB
Buffers:          200000 kB
SwapCached:            0 kB
SwapTotal:       2000000 kB
SwapFree:        1500000 kB
HugePages_Total:       0
"""


def test_what_is_not_available_is_used() -> None:
    assert parse_meminfo(MEMINFO).used_ratio == 0.75


def test_sizes_are_in_bytes() -> None:
    sample = parse_meminfo(MEMINFO)
    assert (sample.total_bytes, sample.available_bytes) == (16000000 * 1024, 4000000 * 1024)


def test_swap_that_is_not_free_is_used() -> None:
    assert parse_meminfo(MEMINFO).swap_used_ratio == 0.25


def test_without_swap_its_use_is_none() -> None:
    text = MEMINFO.replace("2000000", "0").replace("1500000", "0")
    assert parse_meminfo(text).swap_used_ratio is None


def test_an_availability_that_is_not_told_is_none() -> None:
    sample = parse_meminfo("MemTotal: 16000000 kB\nMemFree: 1000000 kB\n")
    assert (sample.used_ratio, sample.available_bytes) == (None, None)


def test_more_available_than_there_is_means_that_nothing_is_used() -> None:
    assert parse_meminfo("MemTotal: 1000 kB\nMemAvailable: 2000 kB\n").used_ratio == 0.0


@pytest.mark.parametrize("text", ["", "MemTotal: 0 kB\n", "MemFree: 5 kB\n"])
def test_a_meminfo_without_a_total_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="MemTotal"):
        parse_meminfo(text)


def test_no_meminfo_file_means_absent(procfs: Path) -> None:
    with pytest.raises(SensorAbsentError):
        MemorySensor(procfs_root=procfs).read()


def test_a_meminfo_that_can_not_be_read_is_a_failure(procfs: Path) -> None:
    (procfs / "meminfo").mkdir()
    with pytest.raises(IsADirectoryError):
        MemorySensor(procfs_root=procfs).read()


def test_a_second_reading_is_fresh(procfs: Path, write: Callable[[Path, str], Path]) -> None:
    write(procfs / "meminfo", MEMINFO)
    sensor = MemorySensor(procfs_root=procfs)
    sensor.read()
    write(procfs / "meminfo", MEMINFO.replace("4000000", "8000000"))
    assert sensor.read().used_ratio == 0.5
    sensor.close()


def test_this_machine_has_the_memory_that_psutil_says() -> None:
    sensor = MemorySensor(procfs_root=Path("/proc"))
    assert sensor.read().total_bytes == psutil.virtual_memory().total
    sensor.close()
