"""The kernel's thermal zones: /sys/class/thermal."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from neuromodd.core.frame import TemperatureSample
from neuromodd.core.readings import ThermalZonesReading
from neuromodd.errors import SensorAbsentError, SensorError
from neuromodd.sensors.files import HeldFile, Rescan, read_integer, read_word
from neuromodd.sensors.hwmon import hottest, plausible_celsius, plausible_limit_celsius

_TRIP_TYPE_FILE = re.compile(r"trip_point_(\d+)_type")

# The first pattern that any zone matches says which zones stand for the processor; the second one is
# for boards with a single sensor on their chip.
_CPU_TYPES = (re.compile(r"x86_pkg_temp|cpu.*", re.IGNORECASE), re.compile(r"(soc|package)[-_].*"))

# Its passive points are what user space last asked to be told about, no property of the processor.
_WITH_MOVING_POINTS = "x86_pkg_temp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """One zone; `type` is its maker's name of it, `name` is unique."""

    type: str
    name: str
    file: HeldFile
    max_celsius: float | None
    critical_celsius: float | None


def find_zones(sysfs_root: Path) -> list[Zone]:
    """Enumerate the zones with their trip points."""
    folders = [
        (zone_type, folder)
        for folder in sysfs_root.glob("class/thermal/thermal_zone*")
        if (zone_type := read_word(folder / "type")) is not None
    ]
    uses = Counter(zone_type for zone_type, _ in folders)
    zones = []
    for zone_type, folder in sorted(folders):
        number = folder.name.removeprefix("thermal_zone")
        points = _trip_points(folder)
        passive = None if zone_type == _WITH_MOVING_POINTS else points.get("passive")
        zones.append(
            Zone(
                type=zone_type,
                name=f"thermal_zone/{zone_type}" + (f"@{number}" if uses[zone_type] > 1 else ""),
                file=HeldFile(folder / "temp"),
                max_celsius=points.get("hot", passive),
                critical_celsius=points.get("critical"),
            )
        )
    return zones


def cpu_names(zones: list[Zone]) -> frozenset[str]:
    """The names of the zones that stand for the processor."""
    for pattern in _CPU_TYPES:
        if matching := [zone.name for zone in zones if pattern.fullmatch(zone.type)]:
            return frozenset(matching)
    return frozenset()


def _trip_points(folder: Path) -> dict[str, float]:
    """The lowest plausible trip point of each type."""
    points: dict[str, float] = {}
    for path in folder.iterdir():
        match = _TRIP_TYPE_FILE.fullmatch(path.name)
        point_type = read_word(path) if match else None
        if match is None or point_type is None:
            continue
        celsius = plausible_limit_celsius(read_integer(folder / f"trip_point_{match[1]}_temp"))
        if celsius is not None:
            points[point_type] = min(celsius, points.get(point_type, celsius))
    return points


class ThermalZonesSensor:
    """Temperatures of the thermal zones with their trip points as limits."""

    name = "thermal_zones"

    def __init__(self, *, sysfs_root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._sysfs_root = sysfs_root
        self._rescan = Rescan(clock)
        self._zones: list[Zone] = []
        self._cpu: frozenset[str] = frozenset()
        self._faults: list[OSError | ValueError] = []

    def read(self) -> ThermalZonesReading:
        """Read every zone; one that is off or fails has no temperature.

        Raises:
            SensorAbsentError: there is no zone.
            SensorError: no zone could be read.
        """
        if self._rescan.due():
            self._scan()
        if not self._zones:
            self._rescan.soon()
            raise SensorAbsentError("thermal_zones: no zone")
        self._faults.clear()
        temperatures = tuple(self._sample(zone) for zone in self._zones)
        if len(self._faults) == len(self._zones):
            raise SensorError(f"thermal_zones: none of {len(self._zones)} can be read: {self._faults[-1]}")
        cpu = hottest(sample for sample in temperatures if sample.name in self._cpu)
        return ThermalZonesReading(temperatures=temperatures, cpu=cpu)

    def close(self) -> None:
        """Close every file; a later read opens them again."""
        for zone in self._zones:
            zone.file.close()

    def _scan(self) -> None:
        self.close()
        self._zones = find_zones(self._sysfs_root)
        self._cpu = cpu_names(self._zones)

    def _sample(self, zone: Zone) -> TemperatureSample:
        millidegrees = None
        try:
            millidegrees = zone.file.read_integer()
        except (OSError, ValueError) as error:
            self._rescan.consider(error)
            self._faults.append(error)
        return TemperatureSample(
            name=zone.name,
            temperature_celsius=plausible_celsius(millidegrees),
            max_celsius=zone.max_celsius,
            critical_celsius=zone.critical_celsius,
        )
