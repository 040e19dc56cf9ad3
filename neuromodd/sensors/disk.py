"""Whole physical disks: /proc/diskstats."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from neuromodd.core.readings import DiskCounters, DiskReading
from neuromodd.errors import SensorAbsentError
from neuromodd.sensors.files import HeldFile, Rescan, read_or_absent

# The kernel's unit in this file, whatever the disk's own sectors are.
_SECTOR_BYTES = 512
_FIELDS = 13

# Where sysfs can't tell: SCSI and SATA (sd), IDE (hd), virtio (vd), Xen (xvd), NVMe namespaces,
# SD cards and eMMC, mainframe disks (dasd). None of them ends like one of its partitions.
_DISK_NAME = re.compile(r"(?:sd|hd|vd|xvd|dasd)[a-z]+|nvme\d+n\d+|mmcblk\d+")

# One path (of controller 1) to the namespace nvme0n2; the kernel shows it beside the namespace.
_NVME_PATH = re.compile(r"(nvme\d+)c\d+(n\d+)")


def parse_diskstats(text: str) -> dict[str, DiskCounters]:
    """The counters of every block device in /proc/diskstats, partitions and virtual ones too.

    Raises:
        ValueError: a line holds something else than numbers and a name.
    """
    devices = {}
    for line in text.splitlines():
        fields = line.split(None, _FIELDS)
        # Partitions had 7 fields in kernels before 2.6.25.
        if len(fields) >= _FIELDS:
            devices[fields[2]] = DiskCounters(
                read_bytes=int(fields[5]) * _SECTOR_BYTES,
                write_bytes=int(fields[9]) * _SECTOR_BYTES,
                busy_ms=int(fields[12]),
            )
    return devices


def without_counted_paths(disks: Mapping[str, DiskCounters]) -> dict[str, DiskCounters]:
    """Leave out the paths of those NVMe namespaces that count the same I/O themselves.

    Before Linux 6.4 a namespace with several paths counted nothing and its paths counted everything.
    """
    kept = {}
    for name, counters in disks.items():
        path = _NVME_PATH.fullmatch(name)
        namespace = disks.get(path[1] + path[2]) if path else None
        if namespace is None or not any(namespace):
            kept[name] = counters
    return kept


class DiskSensor:
    """Bytes and busy time of the physical disks; partitions, device mapper, RAID and loops are left out."""

    name = "disk"

    def __init__(
        self, *, procfs_root: Path, sysfs_root: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._diskstats = HeldFile(procfs_root / "diskstats")
        self._block = sysfs_root / "block"
        self._rescan = Rescan(clock)
        self._physical: dict[str, bool] = {}
        self._has_sysfs = False

    def read(self) -> DiskReading:
        """Read the counters of each physical disk.

        Raises:
            SensorAbsentError: there is no /proc/diskstats, or no physical disk in it.
            OSError: it can't be read.
            ValueError: it is not in the kernel's format.
        """
        devices = parse_diskstats(read_or_absent(self._diskstats))
        if self._rescan.due():
            # A name may since have gone to another device.
            self._physical.clear()
            self._has_sysfs = self._block.is_dir()
        disks = {name: counters for name, counters in devices.items() if self._is_physical(name)}
        if not disks:
            raise SensorAbsentError(f"{self._diskstats.path}: no physical disk")
        return DiskReading(disks=without_counted_paths(disks))

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        self._diskstats.close()

    def _is_physical(self, name: str) -> bool:
        known = self._physical.get(name)
        if known is None:
            known = self._has_device(name) if self._has_sysfs else _DISK_NAME.fullmatch(name) is not None
            self._physical[name] = known
        return known

    def _has_device(self, name: str) -> bool:
        # Names with a slash (cciss/c0d0) are spelt with an exclamation mark in sysfs.
        return (self._block / name.replace("/", "!") / "device").exists()
