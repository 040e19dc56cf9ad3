"""Hardware monitoring chips: temperatures, fans and voltages under /sys/class/hwmon."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from neuromodd.core.frame import FanSample, TemperatureSample, VoltageSample
from neuromodd.core.readings import HwmonReading
from neuromodd.errors import SensorAbsentError, SensorError
from neuromodd.sensors.files import HeldFile, Rescan, is_asleep, read_integer, read_word

_INPUT_FILE = re.compile(r"(temp|fan|in)(\d+)_input")
_THERMAL_ZONE = re.compile(r"thermal_zone\d+")

# A chip tells -128 or 255 for an input that nothing is connected to.
_COLDEST_CELSIUS = -60.0
_HOTTEST_CELSIUS = 200.0

# NVMe drives without a limit tell 65261.85, other devices 0 or less.
_HIGHEST_LIMIT_CELSIUS = 150.0

_PCI_ADDRESS = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


_CPU_CHIPS = frozenset(
    {"coretemp", "k8temp", "k10temp", "zenpower", "via_cputemp", "cpu_thermal", "scpi_sensors"}
)

# The first of these that a chip has is its package; Tctl may be shifted from the real temperature.
_PACKAGE_LABELS = tuple(map(re.compile, (r"Package id \d+", r"Physical id \d+", r"Tdie", r"Tctl")))


class Chip(NamedTuple):
    """One chip; `home` is the folder of its inputs, the rest as in `ChipInput`."""

    name: str
    home: Path
    device: str
    place: str
    power: HeldFile | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipInput:
    """One input of one chip.

    Attributes:
        kind: `temp` in millidegrees, `fan` in rpm, `in` in millivolts.
        chip: the driver's name of the chip.
        device: the bus name of the device.
        place: the PCI address that the device is at, else its bus name.
        label: what the input measures, `temp1` where the driver does not say.
        name: `chip/label`, the same across boots.
        fault: reads 1 while nothing is connected.
        power: tells whether the device sleeps, where it may; reading the input would wake it.
    """

    kind: str
    chip: str
    device: str
    place: str
    label: str
    name: str
    file: HeldFile
    fault: HeldFile | None = None
    power: HeldFile | None = None
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


def _sleeping(powers: Iterable[HeldFile]) -> frozenset[HeldFile]:
    return frozenset(power for power in powers if is_asleep(power))


def find_inputs(sysfs_root: Path) -> list[ChipInput]:
    """Enumerate the inputs of every chip but those that only repeat a thermal zone."""
    folders = sorted(sysfs_root.glob("class/hwmon/hwmon*"))
    chips = [chip for folder in folders if not _is_thermal_zone(folder) if (chip := _chip(folder))]
    inputs = [found for chip in chips for found in _chip_inputs(chip)]
    # The kernel numbers chips, and some devices, anew at each boot.
    return sorted(_told_apart(inputs), key=lambda found: (found.chip, found.place, found.device))


def _told_apart(inputs: Sequence[ChipInput]) -> Iterable[ChipInput]:
    """The inputs with unique names: of two equal chips the place is added, or else the device."""
    same: dict[tuple[str, str], list[ChipInput]] = {}
    for found in inputs:
        same.setdefault((found.kind, found.name), []).append(found)
    for alike in same.values():
        by_place = len({found.place for found in alike}) == len(alike)
        for found in alike:
            origin = found.place if by_place else found.device
            yield found if len(alike) == 1 else replace(found, name=f"{found.name}@{origin}")


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


def _chip(folder: Path) -> Chip | None:
    # Old drivers keep their attributes with the device instead of the class entry.
    home = folder if (folder / "name").exists() else folder / "device"
    name = read_word(home / "name")
    if name is None:
        return None
    device = folder / "device" if (folder / "device").exists() else folder
    path = device.resolve()
    addresses = [part for part in path.parts if _PCI_ADDRESS.fullmatch(part)]
    return Chip(
        name=name,
        home=home,
        device=path.name,
        place=addresses[-1] if addresses else path.name,
        power=_power(device / "power"),
    )


def _power(folder: Path) -> HeldFile | None:
    """The file that tells whether a device sleeps; None for one that is never put to sleep."""
    status = folder / "runtime_status"
    may_sleep = read_word(folder / "control") == "auto" and read_word(status) not in (None, "unsupported")
    return HeldFile(status) if may_sleep else None


def _chip_inputs(chip: Chip) -> list[ChipInput]:
    found = [match for path in chip.home.iterdir() if (match := _INPUT_FILE.fullmatch(path.name))]
    places = sorted((match[1], int(match[2])) for match in found)
    stems = {f"{kind}{number}": kind for kind, number in places}
    # Labels are the driver's own words, so that asking for them wakes nothing.
    labels = {stem: read_word(chip.home / f"{stem}_label") or stem for stem in stems}
    uses = Counter((kind, labels[stem]) for stem, kind in stems.items())
    # A label that a chip repeats tells nothing apart.
    labels |= {stem: stem for stem, kind in stems.items() if uses[kind, labels[stem]] > 1}
    has_limits = chip.power is None or not is_asleep(chip.power)
    return [
        _chip_input(chip, kind=kind, stem=stem, label=labels[stem], limited=has_limits and kind == "temp")
        for stem, kind in stems.items()
    ]


def _chip_input(chip: Chip, *, kind: str, stem: str, label: str, limited: bool) -> ChipInput:
    fault = chip.home / f"{stem}_fault"
    return ChipInput(
        kind=kind,
        chip=chip.name,
        device=chip.device,
        place=chip.place,
        name=f"{chip.name}/{label}",
        label=label,
        file=HeldFile(chip.home / f"{stem}_input"),
        fault=HeldFile(fault) if fault.exists() else None,
        power=chip.power,
        max_celsius=plausible_limit_celsius(read_integer(chip.home / f"{stem}_max")) if limited else None,
        critical_celsius=(
            plausible_limit_celsius(read_integer(chip.home / f"{stem}_crit")) if limited else None
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
        self._powers: frozenset[HeldFile] = frozenset()
        self._without_limits: frozenset[HeldFile] = frozenset()
        self._faults: list[OSError | ValueError] = []

    def read(self) -> HwmonReading:
        """Read every input; one that sleeps, fails, is not connected or tells nonsense has no value.

        Raises:
            SensorAbsentError: no chip has an input.
            SensorError: no input of those that are awake could be read.
        """
        if self._rescan.due():
            self._scan()
        if not self._inputs:
            self._rescan.soon()
            raise SensorAbsentError("hwmon: no chip with an input")
        self._faults.clear()
        asleep = _sleeping(self._powers)
        if self._without_limits - asleep:
            # One has woken up, and can now be asked for its limits.
            self._rescan.soon()
        values = [(found, None if found.power in asleep else self._value(found)) for found in self._inputs]
        awake = sum(found.power not in asleep for found in self._inputs)
        if awake and len(self._faults) == awake:
            raise SensorError(f"hwmon: none of {awake} inputs can be read: {self._faults[-1]}")
        return self._reading(values)

    def close(self) -> None:
        """Close every file; a later read opens them again."""
        for found in self._inputs:
            found.file.close()
            if found.fault is not None:
                found.fault.close()
        for power in self._powers:
            power.close()

    def _scan(self) -> None:
        self.close()
        self._inputs = find_inputs(self._sysfs_root)
        self._powers = frozenset(found.power for found in self._inputs if found.power is not None)
        self._without_limits = _sleeping(self._powers)
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
