"""A machine of files whose counters move, and what may befall its sensors.

The files are those of a workstation with two GPUs (tests/data/machines); NVML is the stub of the tests.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from measuring import ROOT

sys.path.append(str(ROOT / "tests"))
from machine_files import machine_text, unpack

COUNTERS = ("proc/stat", "proc/diskstats", "proc/1/net/dev")
NUMBER = re.compile(r"(?<=\s)\d+(?=\s|$)")
BUSY = "0 nvmlDeviceGetUtilizationRates.gpu 97\n0 nvmlDeviceGetComputeRunningProcesses 1\n"
IDLE = "0 nvmlDeviceGetUtilizationRates.gpu 0\n0 nvmlDeviceGetComputeRunningProcesses 0\n"


class Trouble(NamedTuple):
    """One thing that goes wrong for a while: what the driver says, or what becomes of a file or link."""

    name: str
    driver: str = ""
    garbled: str | None = None
    emptied: str | None = None
    unlinked: str | None = None


TROUBLES = (
    Trouble("a GPU is lost", driver="0 * !15\n"),
    Trouble("/proc/stat is garbled", garbled="proc/stat"),
    Trouble("a call of a GPU's driver hangs", driver="0 nvmlDeviceGetPowerUsage ~hang\n"),
    Trouble("/proc/meminfo is empty", emptied="proc/meminfo"),
    Trouble("the driver knows nothing", driver="- nvmlDeviceGetCount !999\n0 * !999\n1 * !999\n"),
    Trouble("a disk's temperature is gone", unlinked="sys/class/hwmon/hwmon3"),
    Trouble("a GPU answers slowly", driver="1 nvmlDeviceGetTemperature/0 ~30 38\n"),
    Trouble("/proc/net/dev is garbled", garbled="proc/1/net/dev"),
    Trouble("a temperature is no number", garbled="sys/class/hwmon/hwmon0/temp1_input"),
)


class TroubledMachine:
    """Files in `folder`, to be read by a daemon in `environ` with `options`."""

    def __init__(self, folder: Path) -> None:
        self._root = unpack(machine_text("workstation"), folder / "machine")
        self._rng = random.Random(0)  # noqa: S311 - a load, no secret
        self._scenario = self._root / "nvml.txt"
        self._healthy = self._scenario.read_text()
        self._driver = ""
        self._spoilt: set[str] = set()
        self._temperatures = sorted(self._root.glob("sys/class/hwmon/*/temp*_input"))
        self._counters = {name: (self._root / name).read_text() for name in COUNTERS}
        library = folder / "nvml" / "libnvidia-ml.so.1"
        library.parent.mkdir()
        source = ROOT / "tests" / "sensors" / "nvml_stub.c"
        subprocess.run(["gcc", "-std=gnu17", "-O1", "-shared", "-fPIC", "-o", library, source], check=True)
        self.environ = os.environ | {
            "LD_LIBRARY_PATH": str(library.parent),
            "NVML_STUB_SCENARIO": str(self._scenario),
        }

    @property
    def options(self) -> list[str]:
        """Where the daemon finds the files."""
        proc, sysfs = str(self._root / "proc"), str(self._root / "sys")
        return ["--sensors.procfs_root", proc, "--sensors.sysfs_root", sysfs]

    def move(self) -> None:
        """Let some time pass: counters grow, temperatures change."""
        for name, text in self._counters.items():
            load = self._rng.randrange(100)
            grown = NUMBER.sub(lambda found, by=load: str(int(found[0]) + by), text)  # type: ignore[misc]
            self._counters[name] = grown
            if name not in self._spoilt:
                self._write(name, grown)
        for path in self._temperatures:
            name = path.relative_to(self._root).as_posix()
            if name not in self._spoilt and path.exists():
                self._write(name, f"{self._rng.randrange(35_000, 95_000)}\n")

    def begin(self, trouble: Trouble) -> None:
        """Let it go wrong, until `relieve`."""
        self._say(BUSY if self._driver == IDLE else IDLE, trouble.driver)
        for name in filter(None, (trouble.garbled, trouble.emptied)):
            self._kept = (self._root / name).read_text()
            self._spoilt.add(name)
            noise = "" if name == trouble.emptied else self._rng.randbytes(300).decode("latin-1")
            self._write(name, noise)
        if trouble.unlinked is not None:
            (self._root / trouble.unlinked).rename(self._root / "unlinked")

    def relieve(self, trouble: Trouble) -> None:
        """All is well again."""
        self._say(self._driver, "")
        for name in filter(None, (trouble.garbled, trouble.emptied)):
            self._spoilt.discard(name)
            self._write(name, self._kept)
        if trouble.unlinked is not None:
            (self._root / "unlinked").rename(self._root / trouble.unlinked)

    def _say(self, load: str, trouble: str) -> None:
        self._driver = load
        draft = self._scenario.with_name("draft")
        draft.write_text(self._healthy + load + trouble)
        draft.replace(self._scenario)

    def _write(self, name: str, text: str) -> None:
        # In place, for the daemon holds it open; never cut off first, which would be a trouble by itself.
        content = text.encode("utf-8", "surrogateescape")
        descriptor = os.open(self._root / name, os.O_WRONLY)
        try:
            os.pwrite(descriptor, content, 0)
            os.ftruncate(descriptor, len(content))
        finally:
            os.close(descriptor)
