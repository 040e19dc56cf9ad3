from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from neuromodd.core.readings import DiskCounters
from neuromodd.errors import SensorAbsentError
from neuromodd.sensors.disk import DiskSensor, parse_diskstats, without_counted_paths

Write = Callable[[Path, str], Path]


def line(name: str, *, sectors_read: int = 0, sectors_written: int = 0, busy_ms: int = 0) -> str:
    return (
        f"   8       0 {name} 30 8 {sectors_read} 71 20 9 {sectors_written} 46 0 {busy_ms} 119 1 0 8 0 2 1\n"
    )


SDA = line("sda", sectors_read=2000, sectors_written=400, busy_ms=1500)


@pytest.fixture
def add_disk(add_device: Callable[..., Path]) -> Callable[[str], Path]:
    return lambda name: add_device(f"block/{name}", f"pci0000:00/{name}-controller")


@pytest.fixture
def sensor(procfs: Path, sysfs: Path, now: list[float]) -> Iterator[DiskSensor]:
    sensor = DiskSensor(procfs_root=procfs, sysfs_root=sysfs, clock=lambda: now[0])
    yield sensor
    sensor.close()


def test_sectors_are_512_bytes_and_busy_time_is_that_of_the_device() -> None:
    counters = DiskCounters(read_bytes=2000 * 512, write_bytes=400 * 512, busy_ms=1500)
    assert parse_diskstats(SDA) == {"sda": counters}


def test_a_kernel_before_4_18_tells_fewer_fields() -> None:
    assert parse_diskstats("   8 0 sda 30 8 2000 71 20 9 400 46 0 1500 119\n")["sda"].busy_ms == 1500


def test_a_line_of_a_foreign_format_is_refused() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        parse_diskstats("   8 0 sda a b c d e f g h i j k l\n")


def test_only_disks_with_a_device_count(
    sensor: DiskSensor,
    procfs: Path,
    write: Write,
    add_disk: Callable[[str], Path],
    add_device: Callable[..., Path],
) -> None:
    names = ("sda", "sda1", "nvme0n1", "dm-0", "md127", "loop0", "zram0")
    write(procfs / "diskstats", "".join(map(line, names)))
    add_disk("sda")
    add_disk("nvme0n1")
    for virtual in ("dm-0", "md127", "loop0", "zram0"):
        add_device(f"block/{virtual}", None)
    assert set(sensor.read().disks) == {"sda", "nvme0n1"}


def test_a_name_with_a_slash_is_found_in_sysfs(
    sensor: DiskSensor, procfs: Path, write: Write, add_disk: Callable[[str], Path]
) -> None:
    write(procfs / "diskstats", line("cciss/c0d0"))
    add_disk("cciss!c0d0")
    assert set(sensor.read().disks) == {"cciss/c0d0"}


def test_without_sysfs_disks_are_told_by_their_names(sensor: DiskSensor, procfs: Path, write: Write) -> None:
    disks = {"sda", "sdab", "vda", "xvdb", "hda", "nvme1n2", "mmcblk0", "dasda"}
    others = {"sda1", "vda15", "nvme1n2p1", "mmcblk0p2", "mmcblk0boot0", "dm-0", "loop7", "sr0", "ram3"}
    write(procfs / "diskstats", "".join(map(line, sorted(disks | others))))
    assert set(sensor.read().disks) == disks


def test_a_disk_that_is_plugged_in_counts_at_once(
    sensor: DiskSensor, procfs: Path, write: Write, add_disk: Callable[[str], Path]
) -> None:
    add_disk("sda")
    write(procfs / "diskstats", SDA)
    sensor.read()
    add_disk("sdb")
    write(procfs / "diskstats", SDA + line("sdb"))
    assert set(sensor.read().disks) == {"sda", "sdb"}


def test_a_disk_that_is_unplugged_is_missing_and_not_zero(
    sensor: DiskSensor, procfs: Path, write: Write, add_disk: Callable[[str], Path]
) -> None:
    add_disk("sda")
    add_disk("sdb")
    write(procfs / "diskstats", SDA + line("sdb"))
    sensor.read()
    write(procfs / "diskstats", SDA)
    assert set(sensor.read().disks) == {"sda"}


@pytest.mark.parametrize(("later_s", "counted"), [(59.0, True), (60.0, False)])
def test_what_a_name_stands_for_is_looked_up_every_minute(
    sensor: DiskSensor,
    procfs: Path,
    write: Write,
    add_disk: Callable[[str], Path],
    now: list[float],
    later_s: float,
    counted: bool,
) -> None:
    add_disk("sda")
    folder = add_disk("sdb")
    write(procfs / "diskstats", SDA + line("sdb"))
    sensor.read()
    (folder / "device").unlink()
    now[0] += later_s
    assert ("sdb" in sensor.read().disks) is counted


def test_a_namespace_that_counts_hides_its_paths() -> None:
    counters = DiskCounters(read_bytes=512, write_bytes=0, busy_ms=1)
    disks = {"nvme0n1": counters, "nvme0c0n1": counters, "nvme0c1n1": counters}
    assert without_counted_paths(disks) == {"nvme0n1": counters}


def test_paths_count_where_their_namespace_does_not() -> None:
    counters, nothing = DiskCounters(512, 0, 1), DiskCounters(0, 0, 0)
    disks = {"nvme0n1": nothing, "nvme0c0n1": counters}
    assert without_counted_paths(disks) == disks


def test_no_diskstats_file_means_absent(sensor: DiskSensor) -> None:
    with pytest.raises(SensorAbsentError):
        sensor.read()


def test_no_physical_disk_means_absent(
    sensor: DiskSensor, procfs: Path, write: Write, add_device: Callable[..., Path]
) -> None:
    write(procfs / "diskstats", line("loop0"))
    add_device("block/loop0", None)
    with pytest.raises(SensorAbsentError, match="no physical disk"):
        sensor.read()


def test_a_diskstats_that_can_not_be_read_is_a_failure(sensor: DiskSensor, procfs: Path) -> None:
    (procfs / "diskstats").mkdir()
    with pytest.raises(IsADirectoryError):
        sensor.read()


def test_disks_of_this_machine_have_read_what_psutil_says() -> None:
    sensor = DiskSensor(procfs_root=Path("/proc"), sysfs_root=Path("/sys"))
    try:
        disks = sensor.read().disks
    except SensorAbsentError:
        disks = {}
    sensor.close()
    known = psutil.disk_io_counters(perdisk=True, nowrap=False)
    read = {name: counters.read_bytes for name, counters in disks.items()}
    assert read == pytest.approx({name: known[name].read_bytes for name in read}, rel=0.05, abs=1 << 24)
