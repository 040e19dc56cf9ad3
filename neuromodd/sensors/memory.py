"""Main memory and swap: /proc/meminfo."""

from __future__ import annotations

import re
from pathlib import Path

from neuromodd.core.frame import MemorySample
from neuromodd.sensors.files import HeldFile, read_or_absent

_LINE = re.compile(r"^(MemTotal|MemAvailable|SwapTotal|SwapFree):\s*(\d+) kB", re.MULTILINE)


def parse_meminfo(text: str) -> MemorySample:
    """Turn /proc/meminfo into a sample; a kernel that does not tell what is available leaves that None.

    Raises:
        ValueError: the text tells no total.
    """
    sizes = {key: int(kibibytes) * 1024 for key, kibibytes in _LINE.findall(text)}
    total = sizes.get("MemTotal")
    if not total:
        raise ValueError(f"meminfo: got MemTotal {total}, expected kB above 0")
    available = sizes.get("MemAvailable")
    return MemorySample(
        used_ratio=_used_ratio(available, total),
        available_bytes=available,
        total_bytes=total,
        swap_used_ratio=_used_ratio(sizes.get("SwapFree"), sizes.get("SwapTotal")),
    )


def _used_ratio(free: int | None, total: int | None) -> float | None:
    # Inside some containers the total is the container's and what is free is the host's.
    return max(0.0, 1.0 - free / total) if total and free is not None else None


class MemorySensor:
    """How full main memory and swap are."""

    name = "memory"

    def __init__(self, *, procfs_root: Path) -> None:
        self._meminfo = HeldFile(procfs_root / "meminfo")

    def read(self) -> MemorySample:
        """Read what is used and available now.

        Raises:
            SensorAbsentError: there is no /proc/meminfo.
            OSError: it can't be read.
            ValueError: it is not in the kernel's format.
        """
        return parse_meminfo(read_or_absent(self._meminfo))

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        self._meminfo.close()
