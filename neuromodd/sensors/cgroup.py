"""Processor time of the top-level control groups (cgroup v2): who does the host's work."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from neuromodd.core.readings import CgroupReading
from neuromodd.errors import SensorAbsentError
from neuromodd.sensors.files import HeldFile

RESCAN_S = 60.0


def parse_usage_us(text: str) -> int | None:
    """`usage_usec` in the text of a cpu.stat; None if it is not there."""
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == "usage_usec" and value.isdigit():
            return int(value)
    return None


def is_v2(root: Path) -> bool:
    """Whether a cgroup v2 hierarchy is mounted there."""
    try:
        # Read and not only looked for, so that `neuromodd capture` takes it along.
        (root / "cgroup.controllers").read_bytes()
    except OSError:
        return False
    return True


class CgroupSensor:
    """Reads `cpu.stat` of each group right below the root (`system.slice`, `user.slice`, `docker`)."""

    name = "cgroup"

    def __init__(self, *, sysfs_root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = sysfs_root / "fs" / "cgroup"
        self._clock = clock
        self._files: dict[str, HeldFile] = {}
        self._scanned_s: float | None = None

    def read(self) -> CgroupReading:
        """Usage of each group.

        Raises:
            SensorAbsentError: there is no cgroup v2 hierarchy with processor accounting.
        """
        now_s = self._clock()
        if self._scanned_s is None or now_s - self._scanned_s >= RESCAN_S:
            self._scan()
            self._scanned_s = now_s
        usage_us = {}
        for group, file in list(self._files.items()):
            try:
                usage = parse_usage_us(file.read())
            except OSError:
                # The group is gone; a new one of that name is found by the next scan.
                self._files.pop(group).close()
                continue
            if usage is not None:
                usage_us[group] = usage
        if not usage_us:
            self._scanned_s = None
            raise SensorAbsentError("no cgroup v2 hierarchy with processor accounting")
        return CgroupReading(usage_us=usage_us)

    def close(self) -> None:
        """Close all files."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _scan(self) -> None:
        if not is_v2(self._root):
            raise SensorAbsentError("no cgroup v2 hierarchy")
        found = {path.parent.name: path for path in self._root.glob("*/cpu.stat")}
        for group in self._files.keys() - found.keys():
            self._files.pop(group).close()
        for group in found.keys() - self._files.keys():
            self._files[group] = HeldFile(found[group])
