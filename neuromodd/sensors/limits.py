"""What control groups (v2) allow this process: the size of the container that it runs in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

from neuromodd.core.readings import LimitsReading
from neuromodd.errors import SensorAbsentError
from neuromodd.sensors.cgroup import is_v2
from neuromodd.sensors.files import HeldFile, Rescan

_UNLIMITED = "max"

Limit = TypeVar("Limit", int, float)
Group = TypeVar("Group")


def parse_own_path(text: str) -> PurePosixPath | None:
    """The process's group in the v2 hierarchy from the text of /proc/self/cgroup; None under v1 alone.

    A group outside of the process's cgroup namespace has `..` in its path, which leads nowhere.
    """
    for line in text.splitlines():
        if line.startswith("0::/"):
            return PurePosixPath(line.removeprefix("0::/"))
    return None


def parse_cpu_max(text: str) -> float | None:
    """The quota of a cpu.max, in processors; None if it is unlimited.

    Raises:
        ValueError: the text is not a quota and a period.
    """
    quota, _, period = text.strip().partition(" ")
    return None if quota == _UNLIMITED else int(quota) / _positive(period)


def parse_memory_max(text: str) -> int | None:
    """The limit of a memory.max, in bytes; None if it is unlimited.

    Raises:
        ValueError: the text is not a number.
    """
    limit = text.strip()
    return None if limit == _UNLIMITED else int(limit)


def parse_throttling(text: str) -> tuple[int | None, int | None]:
    """Periods, and those of them that ran into the quota, from a cpu.stat; None for what it does not tell.

    Raises:
        ValueError: one of them is not a number.
    """
    counts = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
    periods, throttled = counts.get("nr_periods"), counts.get("nr_throttled")
    return (None if periods is None else int(periods), None if throttled is None else int(throttled))


def _positive(text: str) -> int:
    number = int(text)
    if number <= 0:
        raise ValueError(f"got {number}, expected > 0")
    return number


class CpuGroup(NamedTuple):
    """One group that may have a processor limit."""

    limit: HeldFile
    stat: HeldFile


class MemoryGroup(NamedTuple):
    """One group that may have a memory limit."""

    limit: HeldFile
    usage: HeldFile


def group_folders(root: Path, own: PurePosixPath) -> list[Path]:
    """The folders of the process's group and of those above it, from the root of the hierarchy down.

    The root alone, where the group is not below it: in a container without a cgroup namespace of its own
    the path is the host's, and what is mounted is the container's.
    """
    folder = root / own
    if ".." in own.parts or not folder.is_dir():
        return [root]
    return [root, *(root / above for above in reversed(own.parents[:-1])), folder] if own.parts else [root]


def _tightest(
    limits: Iterable[tuple[Limit | None, Group]],
) -> tuple[Limit | None, Group | None]:
    """The smallest limit and who has it; of equal ones the first, which is the group further up."""
    known = [(limit, group) for limit, group in limits if limit is not None]
    return min(known, key=lambda pair: pair[0]) if known else (None, None)


class LimitsSensor:
    """The tightest limits on processors and memory of this process's control groups."""

    name = "limits"

    def __init__(
        self, *, procfs_root: Path, sysfs_root: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._own = procfs_root / "self/cgroup"
        self._root = sysfs_root / "fs/cgroup"
        self._rescan = Rescan(clock)
        self._cpu: list[CpuGroup] = []
        self._memory: list[MemoryGroup] = []
        self._throttled_by: Path | None = None

    def read(self) -> LimitsReading:
        """Read the limits of every level, and what the group with the tightest one has used of it.

        Raises:
            SensorAbsentError: there is no cgroup v2 hierarchy, or no limit in it.
            OSError: a limit can't be read; the others might be wider.
            ValueError: it is not in the kernel's format.
        """
        if self._rescan.due():
            self._scan()
        if not self._cpu and not self._memory:
            self._rescan.soon()
            raise SensorAbsentError(f"{self._root}: no cgroup v2 hierarchy with limits")
        try:
            reading = self._limits()
        except (OSError, ValueError) as error:
            # The process has been moved to another group, and its old one was removed.
            self._rescan.consider(error)
            raise
        if reading == LimitsReading():
            raise SensorAbsentError(f"{self._root}: no control group limit on this process")
        return reading

    def close(self) -> None:
        """Close every file; a later read opens them again."""
        for cpu in self._cpu:
            cpu.limit.close()
            cpu.stat.close()
        for memory in self._memory:
            memory.limit.close()
            memory.usage.close()

    def _scan(self) -> None:
        self.close()
        folders = self._folders()
        self._cpu = [
            CpuGroup(limit=HeldFile(folder / "cpu.max"), stat=HeldFile(folder / "cpu.stat"))
            for folder in folders
            if (folder / "cpu.max").exists()
        ]
        self._memory = [
            MemoryGroup(limit=HeldFile(folder / "memory.max"), usage=HeldFile(folder / "memory.current"))
            for folder in folders
            if (folder / "memory.max").exists()
        ]

    def _folders(self) -> Sequence[Path]:
        if not is_v2(self._root):
            return ()
        try:
            own = parse_own_path(self._own.read_text("utf-8", "replace"))
        except OSError:
            own = None
        return [self._root] if own is None else group_folders(self._root, own)

    def _limits(self) -> LimitsReading:
        cores, cpu = _tightest((parse_cpu_max(group.limit.read()), group) for group in self._cpu)
        limit_bytes, memory = _tightest(
            (parse_memory_max(group.limit.read()), group) for group in self._memory
        )
        periods, throttled = self._throttling(cpu)
        return LimitsReading(
            cpu_limit_cores=cores,
            cpu_periods=periods,
            cpu_throttled_periods=throttled,
            memory_limit_bytes=limit_bytes,
            memory_used_bytes=None if memory is None else memory.usage.read_integer(),
        )

    def _throttling(self, group: CpuGroup | None) -> tuple[int | None, int | None]:
        path = None if group is None else group.stat.path
        known, self._throttled_by = self._throttled_by, path
        # Another group's counters are no growth of those before; None makes the next ones the first.
        if group is None or (known is not None and known != path):
            return None, None
        return parse_throttling(group.stat.read())
