"""Hardware monitoring chips: temperatures, fans and voltages under /sys/class/hwmon."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from neuromodd.core.frame import FanSample, TemperatureSample, VoltageSample
from neuromodd.core.readings import HwmonReading
from neuromodd.errors import SensorAbsentError, SensorError
from neuromodd.sensors.files import HeldFile, Rescan, read_integer, read_word

_INPUT_FILE = re.compile(r"(temp|fan|in)(\d+)_input")
_THERMAL_ZONE = re.compile(r"thermal_zone\d+")

# A chip tells -128 or 255 for an input that nothing is connected to.
_COLDEST_CELSIUS = -60.0
_HOTTEST_CELSIUS = 200.0

# NVMe drives without a limit tell 65261.85, other devices 0 or less.
_HIGHEST_LIMIT_CELSIUS = 150.0

_CPU_CHIPS = frozenset(
    {"coretemp", "k8temp", "k10temp", "zenpower", "via_cputemp", "cpu_thermal", "scpi_sensors"}
)

# The first of these that a chip has is its package; Tctl may be shifted from the real temperature.
_PACKAGE_LABELS = tuple(map(re.compile, (r"Package id \d+", r"Physical id \d+", r"Tdie", r"Tctl")))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipInput:
    """One input of one chip.

    Attributes:
        kind: `temp` in millidegrees, `fan` in rpm, `in` in millivolts.
        chip: the driver's name of the chip.
        device: the bus name of the device, which tells two equal chips apart.
        label: what the input measures, `temp1` where the driver does not say.
        name: `chip/label`, the same across boots.
        fault: reads 1 while nothing is connected.
    """

    kind: str
    chip: str
    device: str
    label: str
    name: str
    file: HeldFile
    fault: HeldFile | None = None
    max_celsius: float | None = None
    critical_celsius: float | None = None


def plausible_celsius(millidegrees: int | None) -> float | None:
    """A temperature in degrees; None stays None, and so becomes what no sensor measures."""
    celsius = None if millidegrees is None else millidegrees / 1e3
    return celsius if celsius is not None and _COLDEST_CELSIUS <= celsius <= _HOTTEST_CELSIUS else None


def plausible_limit_celsius(millidegrees: int | None) -> float | None:
    """A limit in degrees; None stays None, and so becomes what no maker sets."""
    celsius = None if millidegrees is None else millidegrees / 1e3
    return celsius if celsius is not None and 0.0 < celsius <= _HIGHEST_LIMIT_CELSIUS else None


def hottest(samples: Iterable[TemperatureSample]) -> TemperatureSample | None:
    """The sample with the highest temperature; None if none has one."""
    known = ((sample.temperature_celsius, sample) for sample in samples)
    pairs = [(celsius, sample) for celsius, sample in known if celsius is not None]
    return max(pairs, key=lambda pair: pair[0])[1] if pairs else None


def find_inputs(sysfs_root: Path) -> list[ChipInput]:
    """Enumerate the inputs of every chip but those that only repeat a thermal zone."""
    folders = sorted(sysfs_root.glob("class/hwmon/hwmon*"))
    inputs = [found for folder in folders if not _is_thermal_zone(folder) for found in _chip_inputs(folder)]
    uses = Counter((found.kind, found.name) for found in inputs)
    named = [
        replace(found, name=f"{found.name}@{found.device}") if uses[found.kind, found.name] > 1 else found
        for found in inputs
    ]
    # The kernel numbers chips anew at each boot; chips and devices keep their names.
    return sorted(named, key=lambda found: (found.chip, found.device))


def package_names(inputs: Sequence[ChipInput]) -> frozenset[str]:
    """The names of the temperatures that stand for the processor packages."""
    chips: dict[tuple[str, str], list[ChipInput]] = {}
    for found in inputs:
        if found.kind == "temp" and found.chip in _CPU_CHIPS:
            chips.setdefault((found.chip, found.device), []).append(found)
    return frozenset(found.name for chip in chips.values() for found in _package_of(chip))


def _package_of(chip: Sequence[ChipInput]) -> Sequence[ChipInput]:
    for pattern in _PACKAGE_LABELS:
        if matching := [found for found in chip if pattern.fullmatch(found.label)]:
            return matching
    return chip


def _is_thermal_zone(folder: Path) -> bool:
    return any(_THERMAL_ZONE.fullmatch(part) for part in folder.resolve().parts)


def _chip_inputs(folder: Path) -> list[ChipInput]:
    # Old drivers keep their attributes with the device instead of the class entry.
    home = folder if (folder / "name").exists() else folder / "device"
    chip = read_word(home / "name")
    if chip is None:
        return []
    device = folder / "device"
    bus_name = (device if device.exists() else folder).resolve().name
    found = [match for path in home.iterdir() if (match := _INPUT_FILE.fullmatch(path.name))]
    places = sorted((match[1], int(match[2])) for match in found)
    stems = {f"{kind}{number}": kind for kind, number in places}
    labels = {stem: read_word(home / f"{stem}_label") or stem for stem in stems}
    uses = Counter((kind, labels[stem]) for stem, kind in stems.items())
    # A label that a chip repeats tells nothing apart.
    labels |= {stem: stem for stem, kind in stems.items() if uses[kind, labels[stem]] > 1}
    return [
        _chip_input(home, chip=chip, device=bus_name, kind=kind, stem=stem, label=labels[stem])
        for stem, kind in stems.items()
    ]


def _chip_input(home: Path, *, chip: str, device: str, kind: str, stem: str, label: str) -> ChipInput:
    fault = home / f"{stem}_fault"
    is_temperature = kind == "temp"
    return ChipInput(
        kind=kind,
        chip=chip,
        device=device,
        label=label,
        name=f"{chip}/{label}",
        file=HeldFile(home / f"{stem}_input"),
        fault=HeldFile(fault) if fault.exists() else None,
        max_celsius=plausible_limit_celsius(read_integer(home / f"{stem}_max")) if is_temperature else None,
        critical_celsius=(
            plausible_limit_celsius(read_integer(home / f"{stem}_crit")) if is_temperature else None
        ),
    )


class HwmonSensor:
    """Temperatures, fans and voltages of every monitoring chip."""

    name = "hwmon"

    def __init__(
        self,
        *,
        sysfs_root: Path,
        core_rail: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sysfs_root = sysfs_root
        self._core_rail = core_rail
        self._rescan = Rescan(clock)
        self._inputs: list[ChipInput] = []
        self._packages: frozenset[str] = frozenset()
        self._faults: list[OSError | ValueError] = []

    def read(self) -> HwmonReading:
        """Read every input; one that fails, is not connected or tells nonsense has no value.

        Raises:
            SensorAbsentError: no chip has an input.
            SensorError: no input could be read.
        """
        if self._rescan.due():
            self._scan()
        if not self._inputs:
            self._rescan.soon()
            raise SensorAbsentError("hwmon: no chip with an input")
        self._faults.clear()
        values = [(found, self._value(found)) for found in self._inputs]
        if len(self._faults) == len(self._inputs):
            raise SensorError(f"hwmon: none of {len(self._inputs)} inputs can be read: {self._faults[-1]}")
        return self._reading(values)

    def close(self) -> None:
        """Close every file; a later read opens them again."""
        for found in self._inputs:
            found.file.close()
            if found.fault is not None:
                found.fault.close()

    def _scan(self) -> None:
        self.close()
        self._inputs = find_inputs(self._sysfs_root)
        self._packages = package_names(self._inputs)

    def _value(self, found: ChipInput) -> int | None:
        try:
            if found.fault is not None and found.fault.read_integer():
                return None
            return found.file.read_integer()
        except (OSError, ValueError) as error:
            self._rescan.consider(error)
            self._faults.append(error)
            return None

    def _reading(self, values: Sequence[tuple[ChipInput, int | None]]) -> HwmonReading:
        temperatures = tuple(
            TemperatureSample(
                name=found.name,
                temperature_celsius=plausible_celsius(millidegrees),
                max_celsius=found.max_celsius,
                critical_celsius=found.critical_celsius,
            )
            for found, millidegrees in values
            if found.kind == "temp"
        )
        voltages = tuple(
            VoltageSample(name=found.name, volts=None if millivolts is None else millivolts / 1e3)
            for found, millivolts in values
            if found.kind == "in"
        )
        return HwmonReading(
            temperatures=temperatures,
            fans=tuple(
                FanSample(name=found.name, speed_rpm=rpm if rpm is not None and rpm >= 0 else None)
                for found, rpm in values
                if found.kind == "fan"
            ),
            voltages=voltages,
            cpu=hottest(sample for sample in temperatures if sample.name in self._packages),
            core_volts=next((sample.volts for sample in voltages if sample.name == self._core_rail), None),
        )
