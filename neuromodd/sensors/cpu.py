"""The processors: /proc/stat, /proc/loadavg and the cpufreq policies."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from neuromodd.core.readings import CpuReading
from neuromodd.sensors.files import HeldFile, Rescan, read_integer, read_or_absent

# The kernel asks every processor for its frequency: milliseconds of work on a host with a hundred.
_CPUINFO_INTERVAL_S = 10.0

_MHZ_LINE = re.compile(r"^cpu MHz\s*:\s*(\d+(?:\.\d+)?)", re.MULTILINE)
_CONTEXT_SWITCHES_LINE = re.compile(r"^ctxt (\d+)", re.MULTILINE)


class CpuTimes(NamedTuple):
    """What /proc/stat counts since boot; the times in clock ticks."""

    busy_ticks: int
    total_ticks: int
    context_switches: int | None


def parse_stat(text: str) -> CpuTimes:
    """Take the sum of all processors and the context switches from /proc/stat.

    Idle and waiting for I/O are idle. Guest time is left out, as the kernel already counts it in user
    and nice.

    Raises:
        ValueError: the text does not begin with the sum of all processors.
    """
    first, _, rest = text.partition("\n")
    label, *fields = first.split()
    if label != "cpu":
        raise ValueError(f"stat: got {label!r}, expected 'cpu' first")
    user, nice, system, idle, iowait, irq, softirq, steal = map(int, fields[:8])
    busy = user + nice + system + irq + softirq + steal
    found = _CONTEXT_SWITCHES_LINE.search(rest)
    return CpuTimes(busy, busy + idle + iowait, int(found[1]) if found else None)


def parse_loadavg(text: str) -> float:
    """Take the one-minute load average from /proc/loadavg.

    Raises:
        ValueError: the text does not begin with a number that a load can be.
    """
    load = float(text.partition(" ")[0])
    if not 0.0 <= load < float("inf"):
        raise ValueError(f"loadavg: got {load}, expected a finite number >= 0")
    return load


def parse_cpuinfo(text: str) -> float | None:
    """The mean of the frequencies in /proc/cpuinfo, in Hz; None where it tells none, as off x86."""
    megahertz = [float(found) for found in _MHZ_LINE.findall(text)]
    return sum(megahertz) / len(megahertz) * 1e6 if megahertz else None


class CpuSensor:
    """Time, context switches, load and frequency of all processors together."""

    name = "cpu"

    def __init__(
        self, *, procfs_root: Path, sysfs_root: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stat = HeldFile(procfs_root / "stat")
        self._loadavg = HeldFile(procfs_root / "loadavg")
        self._cpuinfo = procfs_root / "cpuinfo"
        self._cpufreq = sysfs_root / "devices/system/cpu/cpufreq"
        self._rescan = Rescan(clock)
        self._cpuinfo_due = Rescan(clock, interval_s=_CPUINFO_INTERVAL_S)
        self._policies: list[HeldFile] = []
        self._frequency_max_hz: float | None = None
        self._cpuinfo_hz: float | None = None

    def read(self) -> CpuReading:
        """Read the counters and what holds right now; load or frequency is None if it can't be read.

        Raises:
            SensorAbsentError: there is no /proc/stat.
            OSError: /proc/stat can't be read.
            ValueError: it is not in the kernel's format.
        """
        times = parse_stat(read_or_absent(self._stat))
        if self._rescan.due():
            self._scan()
        return CpuReading(
            busy_ticks=times.busy_ticks,
            total_ticks=times.total_ticks,
            context_switches=times.context_switches,
            load_1m=self._load(),
            frequency_hz=self._policy_frequency() if self._policies else self._cpuinfo_frequency(),
            frequency_max_hz=self._frequency_max_hz,
        )

    def close(self) -> None:
        """Close every file; a later read opens them again."""
        for file in (self._stat, self._loadavg, *self._policies):
            file.close()

    def _scan(self) -> None:
        for file in self._policies:
            file.close()
        folders = sorted(self._cpufreq.glob("policy*"))
        self._policies = [HeldFile(folder / "scaling_cur_freq") for folder in folders]
        limits = [khz for folder in folders if (khz := read_integer(folder / "cpuinfo_max_freq"))]
        self._frequency_max_hz = max(limits) * 1e3 if limits else None

    def _load(self) -> float | None:
        try:
            return parse_loadavg(self._loadavg.read())
        except (OSError, ValueError):
            return None

    def _policy_frequency(self) -> float | None:
        kilohertz = [khz for file in self._policies if (khz := self._policy_khz(file))]
        return sum(kilohertz) / len(kilohertz) * 1e3 if kilohertz else None

    def _policy_khz(self, file: HeldFile) -> int | None:
        try:
            return file.read_integer()
        except (OSError, ValueError) as error:
            self._rescan.consider(error)
            return None

    def _cpuinfo_frequency(self) -> float | None:
        if self._cpuinfo_due.due():
            try:
                self._cpuinfo_hz = parse_cpuinfo(self._cpuinfo.read_text("utf-8", "replace"))
            except OSError:
                self._cpuinfo_hz = None
        return self._cpuinfo_hz
