"""Network interfaces: /proc/net/dev."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from neuromodd.core.readings import InterfaceCounters, NetworkReading
from neuromodd.errors import SensorAbsentError
from neuromodd.sensors.files import HeldFile, Rescan, read_or_absent

_LOOPBACK = "lo"
_OWN_PROCFS = Path("/proc")


def parse_net_dev(text: str) -> dict[str, InterfaceCounters]:
    """The counters of every interface in /proc/net/dev; errors and drops are those of both directions.

    Raises:
        ValueError: a line is not in the kernel's format.
    """
    interfaces = {}
    # Two lines of headings come first.
    for line in text.splitlines()[2:]:
        name, _, numbers = line.rpartition(":")
        fields = numbers.split()
        try:
            interfaces[name.strip()] = InterfaceCounters(
                receive_bytes=int(fields[0]),
                transmit_bytes=int(fields[8]),
                errors=int(fields[2]) + int(fields[10]),
                drops=int(fields[3]) + int(fields[11]),
            )
        except IndexError:
            raise ValueError(f"net/dev: got {line[:40]!r}, expected 16 numbers") from None
    return interfaces


def net_dev_path(procfs_root: Path) -> Path:
    """Where to read the interfaces.

    `net` is a link to the reader's own network namespace. Where the host's /proc is mounted in a
    container, the host's own is that of its first process.
    """
    first_process = procfs_root / "1/net/dev"
    if procfs_root != _OWN_PROCFS and os.access(first_process, os.R_OK):
        return first_process
    return procfs_root / "net/dev"


class NetworkSensor:
    """Counters of the physical interfaces, or where none is physical, of all but the loopback."""

    name = "network"

    def __init__(
        self,
        *,
        procfs_root: Path,
        sysfs_root: Path,
        include_loopback: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._procfs_root = procfs_root
        self._class = sysfs_root / "class/net"
        self._include_loopback = include_loopback
        self._rescan = Rescan(clock)
        self._file: HeldFile | None = None
        self._physical: dict[str, bool] = {}

    def read(self) -> NetworkReading:
        """Read the counters of each interface that counts.

        Raises:
            SensorAbsentError: there is no net/dev, or no interface in it that counts.
            OSError: it can't be read.
            ValueError: it is not in the kernel's format.
        """
        if self._rescan.due():
            self._physical.clear()
            self.close()
        if self._file is None:
            self._file = HeldFile(net_dev_path(self._procfs_root))
        interfaces = parse_net_dev(read_or_absent(self._file))
        chosen = {name for name in interfaces if self._is_physical(name)} or interfaces.keys() - {_LOOPBACK}
        if self._include_loopback:
            chosen = chosen | {_LOOPBACK}
        counted = {name: counters for name, counters in interfaces.items() if name in chosen}
        if not counted:
            raise SensorAbsentError(f"{self._file.path}: no interface but the loopback")
        return NetworkReading(interfaces=counted)

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _is_physical(self, name: str) -> bool:
        known = self._physical.get(name)
        if known is None:
            known = self._physical[name] = (self._class / name / "device").exists()
        return known
