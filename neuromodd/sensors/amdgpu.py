"""AMD GPUs: what the amdgpu driver tells in sysfs."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from neuromodd.core.frame import GpuSample
from neuromodd.core.readings import GpuReading
from neuromodd.errors import SensorAbsentError
from neuromodd.sensors.files import HeldFile, Rescan, is_asleep, read_integer, read_word
from neuromodd.sensors.hwmon import plausible_celsius, plausible_limit_celsius

_CARD = re.compile(r"card\d+")
_VENDOR = "0x1002"
_DRIVER = "amdgpu"

# `1: 1000Mhz *`; the star is the level of now.
_LEVEL = re.compile(r"^\S+:\s*(\d+)Mhz", re.MULTILINE | re.IGNORECASE)

_LABELLED_INPUT = re.compile(r"((?:temp|in|freq)\d+)_input")

# Cards before Vega and APUs have no labels for some of these.
_UNLABELLED = {"temp1": "edge", "in0": "vddgfx", "freq1": "sclk", "freq2": "mclk"}

# Instinct MI300 has no edge.
_CORE_TEMPERATURES = ("edge", "junction")

_WIDTH_UNKNOWN = 255

Convert = Callable[[int], float | None]


def parse_levels(text: str) -> float | None:
    """The highest clock in the text of a pp_dpm_sclk or pp_dpm_mclk, in Hz; None without one."""
    return max((int(megahertz) * 1e6 for megahertz in _LEVEL.findall(text)), default=None)


def ratio_of_percent(percent: int) -> float | None:
    """A share in [0, 1]; None for what the firmware tells where it does not measure (65535)."""
    return percent / 100.0 if 0 <= percent <= 100 else None  # noqa: PLR2004 - the whole


def link_width(lanes: int) -> int | None:
    """How many lanes a PCIe link has; None where the kernel does not know."""
    return lanes if 0 <= lanes < _WIDTH_UNKNOWN else None


def scaled(unit: float) -> Convert:
    """A function that turns a count of 1 / `unit` into base units; None for a negative one, which is none."""
    return lambda count: count / unit if count >= 0 else None


class Identity(NamedTuple):
    """What stays with a card, asleep too; None for what it does not tell."""

    name: str | None = None
    uuid: str | None = None


class Input(NamedTuple):
    """One attribute that is read each time, and the field of `GpuSample` that it becomes."""

    field: str
    file: HeldFile
    convert: Convert


_DEVICE_INPUTS: tuple[tuple[str, str, Convert], ...] = (
    ("gpu_busy_percent", "utilization_ratio", ratio_of_percent),
    ("mem_busy_percent", "memory_utilization_ratio", ratio_of_percent),
    ("mem_info_vram_used", "memory_used_bytes", int),
    ("current_link_width", "pcie_link_width", link_width),
)

# Attributes of the monitoring chip, or labels of its inputs; the first that there is gives the field.
_CHIP_INPUTS: tuple[tuple[str, str, Convert], ...] = (
    *((label, "temperature_celsius", plausible_celsius) for label in _CORE_TEMPERATURES),
    ("mem", "memory_temperature_celsius", plausible_celsius),
    ("vddgfx", "core_volts", scaled(1e3)),
    ("sclk", "sm_clock_hz", scaled(1.0)),
    ("mclk", "memory_clock_hz", scaled(1.0)),
    ("power1_average", "power_watts", scaled(1e6)),
    ("power1_input", "power_watts", scaled(1e6)),
    ("power1_cap", "power_limit_watts", scaled(1e6)),
    ("pwm1", "fan_ratio", scaled(255.0)),
)


def find_labels(chip: Path) -> dict[str, str]:
    """The stem (`temp1`) of each temperature, voltage and clock of the chip by what it measures (`edge`)."""
    stems = sorted(match[1] for path in chip.iterdir() if (match := _LABELLED_INPUT.fullmatch(path.name)))
    labels = {stem: read_word(chip / f"{stem}_label") or _UNLABELLED.get(stem) for stem in stems}
    return {label: stem for stem, label in labels.items() if label is not None}


def find_inputs(device: Path, chip: Path | None, labels: Mapping[str, str]) -> list[Input]:
    """The attributes of a card and of its monitoring chip that are to be read each time."""
    places = [(device / name, field, convert) for name, field, convert in _DEVICE_INPUTS]
    if chip is not None:
        files = {label: f"{stem}_input" for label, stem in labels.items()}
        places += [(chip / files.get(name, name), field, convert) for name, field, convert in _CHIP_INPUTS]
    inputs: dict[str, Input] = {}
    for path, field, convert in places:
        if field not in inputs and path.exists():
            inputs[field] = Input(field, HeldFile(path), convert)
    return list(inputs.values())


def read_facts(device: Path, chip: Path | None, labels: Mapping[str, str]) -> dict[str, float | None]:
    """The limits and sizes of a card, by field of `GpuSample`; None for what it does not tell."""
    width = read_integer(device / "max_link_width")
    facts = {
        "memory_total_bytes": read_integer(device / "mem_info_vram_total"),
        "sm_clock_max_hz": parse_levels(read_word(device / "pp_dpm_sclk") or ""),
        "memory_clock_max_hz": parse_levels(read_word(device / "pp_dpm_mclk") or ""),
        "pcie_link_width_max": None if width is None else link_width(width),
    }
    core = next((labels[label] for label in _CORE_TEMPERATURES if label in labels), None)
    if chip is not None and core is not None:
        facts["slowdown_celsius"] = plausible_limit_celsius(read_integer(chip / f"{core}_crit"))
        facts["shutdown_celsius"] = plausible_limit_celsius(read_integer(chip / f"{core}_emergency"))
    return facts


class Card:
    """One card. While it sleeps it is asked for nothing but its power state: all else would wake it.

    Attributes:
        folder: its entry in class/drm, which goes when the driver lets go of it.
        address: on the bus (`0000:03:00.0`).
        index: its number.
        identity: what is known of it.
    """

    def __init__(self, folder: Path, address: str, *, index: int, identity: Identity) -> None:
        self.folder = folder
        self.address = address
        self.index = index
        self.identity = identity
        self._device = folder / "device"
        self._power = HeldFile(self._device / "power/runtime_status")
        self._inputs: list[Input] | None = None
        self._facts: dict[str, float | None] = {}

    def sample(self) -> GpuSample | None:
        """What it measures now; None once it is gone."""
        if is_asleep(self._power):
            return self._sample(suspended=True)
        if self._inputs is None:
            self._inputs = self._look()
        values: dict[str, float | None] = {}
        error: OSError | ValueError | None = None
        for found in self._inputs:
            try:
                values[found.field] = found.convert(found.file.read_integer())
            except (OSError, ValueError) as failure:
                error = failure
        if error is not None and not values:
            return self._unreachable(error)
        return self._sample(**self._facts, **values)

    def close(self) -> None:
        """Close every file; a later sample opens them again."""
        self._power.close()
        for found in self._inputs or ():
            found.file.close()

    def _look(self) -> list[Input]:
        chip = min(self._device.glob("hwmon/hwmon*"), default=None)
        labels = {} if chip is None else find_labels(chip)
        self.identity = Identity(
            name=read_word(self._device / "product_name") or self.identity.name,
            uuid=read_word(self._device / "unique_id") or self.identity.uuid,
        )
        self._facts = read_facts(self._device, chip, labels)
        return find_inputs(self._device, chip, labels)

    def _unreachable(self, error: OSError | ValueError) -> GpuSample | None:
        if not self.folder.exists():
            return None
        # It may have fallen asleep since it was asked, and then refuses every question.
        if is_asleep(self._power):
            return self._sample(suspended=True)
        number = error.errno if isinstance(error, OSError) else None
        return self._sample(lost=True, fault=errno.errorcode.get(number or 0, type(error).__name__))

    def _sample(self, **values: Any) -> GpuSample:  # noqa: ANN401 - fields of the record, which checks them
        return GpuSample(
            index=self.index,
            vendor="amd",
            name=self.identity.name,
            uuid=self.identity.uuid,
            pci_bus_id=self.address,
            **values,
        )


def find_cards(sysfs_root: Path) -> list[tuple[str, Path]]:
    """Address and entry in class/drm of each card of the driver, in the order of the bus."""
    folders = [path for path in sysfs_root.glob("class/drm/card*") if _CARD.fullmatch(path.name)]
    cards = [folder for folder in folders if _is_amdgpu(folder / "device")]
    return sorted(((folder / "device").resolve().name, folder) for folder in cards)


def _is_amdgpu(device: Path) -> bool:
    has_driver = (device / "driver").resolve().name == _DRIVER or (device / "gpu_busy_percent").exists()
    return has_driver and read_word(device / "vendor") == _VENDOR


class AmdGpuSensor:
    """All GPUs of the amdgpu driver."""

    name = "amdgpu"

    def __init__(self, *, sysfs_root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._sysfs_root = sysfs_root
        self._rescan = Rescan(clock)
        self._cards: list[Card] = []
        self._known: dict[str, Identity] = {}

    def read(self) -> GpuReading:
        """Read every card: one that sleeps or is lost has its identity only, one that is gone is left out.

        Raises:
            SensorAbsentError: there is no card.
        """
        if self._rescan.due():
            self._scan()
        samples = [card.sample() for card in self._cards]
        gpus = tuple(sample for sample in samples if sample is not None)
        if len(gpus) < len(samples) or any(gpu.lost for gpu in gpus):
            # A driver that is loaded again may have given it another path.
            self._rescan.soon()
        if not gpus:
            self._rescan.soon()
            raise SensorAbsentError("amdgpu: no card of this driver in class/drm")
        return GpuReading(gpus=gpus)

    def close(self) -> None:
        """Close every file; a later read opens them again."""
        for card in self._cards:
            card.close()

    def _scan(self) -> None:
        self.close()
        self._known |= {card.address: card.identity for card in self._cards}
        found = find_cards(self._sysfs_root)
        for address, _ in found:
            self._known.setdefault(address, Identity())
        # A card keeps its number while others come and go.
        numbers = {address: number for number, address in enumerate(self._known)}
        self._cards = [
            Card(folder, address, index=numbers[address], identity=self._known[address])
            for address, folder in found
        ]
