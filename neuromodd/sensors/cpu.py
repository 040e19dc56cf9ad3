"""The processors: /proc/stat, /proc/loadavg, the cpufreq policies and the counts of thermal throttling."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from neuromodd.core.readings import CpuReading
from neuromodd.sensors.files import HeldFile, Rescan, read_integer, read_or_absent, read_word

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


def parse_processors(text: str) -> list[int]:
    """The numbers in a list of processors, in either of the kernel's forms: `0-3,8` or `0 1 2 3 8`.

    Raises:
        ValueError: the text is no such list.
    """
    numbers: list[int] = []
    for part in text.replace(",", " ").split():
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


class Policy(NamedTuple):
    """One cpufreq policy, whose processors run at one frequency; `online` are those that run at all."""

    frequency: HeldFile
    processors: list[int]
    online: list[int]


def find_policies(cpu_root: Path) -> list[Policy]:
    """Enumerate the cpufreq policies below `devices/system/cpu`."""
    policies = []
    for folder in sorted(cpu_root.glob("cpufreq/policy*")):
        affected = _read_processors(folder / "affected_cpus")
        processors = _read_processors(folder / "related_cpus") or affected
        processors = processors or [int(folder.name.removeprefix("policy"))]
        online = processors if affected is None else affected
        policies.append(Policy(HeldFile(folder / "scaling_cur_freq"), processors, online))
    return policies


def find_throttle_counts(cpu_root: Path) -> list[Path]:
    """The files that count thermal throttling: one of each core, whose threads share it, and package."""
    counts: dict[tuple[str, str], Path] = {}
    folders = cpu_root.glob("cpu[0-9]*/thermal_throttle")
    for folder in sorted(folders, key=lambda folder: int(folder.parent.name.removeprefix("cpu"))):
        topology = folder.parent / "topology"
        threads = read_word(topology / "core_cpus_list") or read_word(topology / "thread_siblings_list")
        package = read_word(topology / "physical_package_id") or ""
        counts.setdefault(("core", threads or folder.parent.name), folder / "core_throttle_count")
        counts.setdefault(("package", package), folder / "package_throttle_count")
    return [path for path in counts.values() if path.exists()]


def _read_processors(path: Path) -> list[int] | None:
    """The processors that a file lists; None if it is missing or no list."""
    try:
        return parse_processors(path.read_text("utf-8", "replace"))
    except (OSError, ValueError):
        return None


class CpuSensor:
    """Time, context switches, load, frequencies and thermal throttling of the processors."""

    name = "cpu"

    def __init__(
        self, *, procfs_root: Path, sysfs_root: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stat = HeldFile(procfs_root / "stat")
        self._loadavg = HeldFile(procfs_root / "loadavg")
        self._cpuinfo = procfs_root / "cpuinfo"
        self._cpu_root = sysfs_root / "devices/system/cpu"
        self._rescan = Rescan(clock)
        self._cpuinfo_due = Rescan(clock, interval_s=_CPUINFO_INTERVAL_S)
        self._policies: list[Policy] = []
        self._processors: list[int] = []
        self._throttle_counts: list[HeldFile] = []
        self._online: list[int] | None = None
        self._recounted = False
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
        frequency_hz, core_frequencies_hz = self._frequencies()
        return CpuReading(
            busy_ticks=times.busy_ticks,
            total_ticks=times.total_ticks,
            context_switches=times.context_switches,
            load_1m=self._load(),
            frequency_hz=frequency_hz,
            frequency_max_hz=self._frequency_max_hz,
            core_frequencies_hz=core_frequencies_hz,
            throttles=self._throttles(),
        )

    def close(self) -> None:
        """Close every file; a later read opens them again."""
        policies = (policy.frequency for policy in self._policies)
        for file in (self._stat, self._loadavg, *policies, *self._throttle_counts):
            file.close()

    def _scan(self) -> None:
        for policy in self._policies:
            policy.frequency.close()
        self._policies = find_policies(self._cpu_root)
        members = {number for policy in self._policies for number in policy.processors}
        self._processors = sorted(members.union(_read_processors(self._cpu_root / "present") or ()))
        limits = [
            khz
            for policy in self._policies
            if (khz := read_integer(policy.frequency.path.with_name("cpuinfo_max_freq")))
        ]
        self._frequency_max_hz = max(limits) * 1e3 if limits else None
        self._scan_throttle_counts()

    def _scan_throttle_counts(self) -> None:
        # Cores come and go with their processors only, and asking each for its threads takes milliseconds.
        online = _read_processors(self._cpu_root / "online")
        if online is not None and online == self._online:
            return
        for file in self._throttle_counts:
            file.close()
        self._recounted = self._online is not None
        self._online = online
        self._throttle_counts = [HeldFile(path) for path in find_throttle_counts(self._cpu_root)]

    def _load(self) -> float | None:
        try:
            return parse_loadavg(self._loadavg.read())
        except (OSError, ValueError):
            return None

    def _frequencies(self) -> tuple[float | None, tuple[float | None, ...] | None]:
        """The mean over the policies, and the frequency of each processor."""
        if not self._policies:
            return self._cpuinfo_frequency(), None
        known = []
        cores: dict[int, float] = {}
        for policy in self._policies:
            if khz := self._policy_khz(policy.frequency):
                known.append(khz)
                cores.update(dict.fromkeys(policy.online, khz * 1e3))
        mean = sum(known) / len(known) * 1e3 if known else None
        return mean, tuple(map(cores.get, self._processors))

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

    def _throttles(self) -> int | None:
        # The sum over other cores than before is no growth of it.
        recounted, self._recounted = self._recounted, False
        if recounted or not self._throttle_counts:
            return None
        try:
            return sum(file.read_integer() for file in self._throttle_counts)
        except (OSError, ValueError) as error:
            self._rescan.consider(error)
            return None
