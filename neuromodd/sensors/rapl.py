"""Energy of the processor packages: RAPL counters under /sys/class/powercap."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

from neuromodd.core.readings import EnergyCounter, EnergyReading
from neuromodd.errors import SensorAbsentError, SensorError
from neuromodd.sensors.files import HeldFile, Rescan, read_word

# The processor's own domains, AMD's as well. Parts of a package (cores, memory) have one number more;
# `intel-rapl-mmio` is another way to the same counters.
_DOMAIN = re.compile(r"intel-rapl:(\d+)")
_PACKAGE_PREFIX = "package-"

# The same text each time: a failure that does not change is logged once.
_NO_PERMISSION = (
    "rapl: the energy counters are readable by root only (since CVE-2020-8694); give the service "
    "CAP_DAC_READ_SEARCH (systemd/rapl.conf does so), or set sensors.disabled = ['rapl']"
)


class Package(NamedTuple):
    """One processor package; `name` is unique, `range` holds the counter's last value before 0."""

    name: str
    energy: HeldFile
    range: HeldFile


def find_packages(sysfs_root: Path) -> list[Package]:
    """Enumerate the packages (dies, where a package has several) in the order of their numbers."""
    numbered = [
        (int(match[1]), folder)
        for folder in sysfs_root.glob("class/powercap/*")
        if (match := _DOMAIN.fullmatch(folder.name))
    ]
    named = [
        (name, folder)
        for _, folder in sorted(numbered)
        if (name := read_word(folder / "name")) is not None and name.startswith(_PACKAGE_PREFIX)
    ]
    # Before Linux 5.3 all dies of a package had the same name.
    uses = Counter(name for name, _ in named)
    return [
        Package(
            name=name if uses[name] == 1 else f"{name}@{folder.name}",
            energy=HeldFile(folder / "energy_uj"),
            range=HeldFile(folder / "max_energy_range_uj"),
        )
        for name, folder in named
    ]


class RaplSensor:
    """Energy counters of all processor packages."""

    name = "rapl"

    def __init__(self, *, sysfs_root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._sysfs_root = sysfs_root
        self._rescan = Rescan(clock)
        self._packages: list[Package] = []

    def read(self) -> EnergyReading:
        """Read the counter of every package, in microjoules.

        Raises:
            SensorAbsentError: the processor has no such counters, or its driver is not loaded.
            SensorError: a package can't be read; the sum of the others would be too small.
        """
        if self._rescan.due():
            self._scan()
        if not self._packages:
            self._rescan.soon()
            raise SensorAbsentError("rapl: no processor package in class/powercap")
        return EnergyReading(packages={package.name: self._counter(package) for package in self._packages})

    def close(self) -> None:
        """Close every file; a later read opens them again."""
        for package in self._packages:
            package.energy.close()
            package.range.close()

    def _scan(self) -> None:
        self.close()
        self._packages = find_packages(self._sysfs_root)

    def _counter(self, package: Package) -> EnergyCounter:
        try:
            return EnergyCounter(
                used_uj=package.energy.read_integer(), wraps_at_uj=package.range.read_integer()
            )
        except PermissionError:
            raise SensorError(_NO_PERMISSION) from None
        except (OSError, ValueError) as error:
            self._fail(package, error)

    def _fail(self, package: Package, error: OSError | ValueError) -> NoReturn:
        self._rescan.consider(error)
        raise SensorError(f"rapl: {package.name} can't be read: {error}") from error
