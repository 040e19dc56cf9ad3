"""Pressure stall information: /proc/pressure."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from neuromodd.core.readings import PressureReading
from neuromodd.errors import SensorAbsentError
from neuromodd.sensors.files import HeldFile

_LINE = re.compile(r"^(some|full) .*\btotal=(\d+)", re.MULTILINE)

# The processors' "full" is 0 by definition outside a cgroup.
_WANTED = {"cpu": ("some",), "memory": ("some", "full"), "io": ("some", "full")}

# A kernel without PSI has no such file; one that was booted with it off refuses to read it.
_WITHOUT_PSI = frozenset({errno.ENOENT, errno.EOPNOTSUPP})


def parse_pressure(text: str) -> dict[str, int]:
    """The total stall times of one resource in microseconds, by `some` and `full`.

    Raises:
        ValueError: the text has neither.
    """
    stalled_us = {share: int(total) for share, total in _LINE.findall(text)}
    if not stalled_us:
        raise ValueError(f"pressure: got {text[:40]!r}, expected a line of some or full")
    return stalled_us


class PressureSensor:
    """How long tasks have waited for a processor, memory or I/O."""

    name = "pressure"

    def __init__(self, *, procfs_root: Path) -> None:
        self._files = {resource: HeldFile(procfs_root / "pressure" / resource) for resource in _WANTED}

    def read(self) -> PressureReading:
        """Read the stall times; a resource that can't be read is missing from them.

        Raises:
            SensorAbsentError: the kernel keeps no pressure information.
            OSError: no resource could be read.
            ValueError: none is in the kernel's format.
        """
        stalled_us: dict[str, int] = {}
        faults: list[OSError | ValueError] = []
        for resource, file in self._files.items():
            try:
                totals = parse_pressure(file.read())
            except (OSError, ValueError) as error:
                faults.append(error)
                continue
            for share in _WANTED[resource]:
                if share in totals:
                    stalled_us[f"{resource}_{share}"] = totals[share]
        if not stalled_us:
            _raise_for(faults)
        return PressureReading(stalled_us=stalled_us)

    def close(self) -> None:
        """Close every file; a later read opens them again."""
        for file in self._files.values():
            file.close()


def _raise_for(faults: list[OSError | ValueError]) -> None:
    for fault in faults:
        if not isinstance(fault, OSError) or fault.errno not in _WITHOUT_PSI:
            raise fault
    raise SensorAbsentError("pressure: the kernel keeps no pressure stall information")
