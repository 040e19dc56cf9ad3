"""Mains and batteries: /sys/class/power_supply."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from neuromodd.core.readings import PowerSupplyReading
from neuromodd.errors import SensorAbsentError, SensorError
from neuromodd.sensors.files import HeldFile, Rescan, read_word

INTERVAL_S = 5.0
"""The values are read this often: they change slowly, and an embedded controller may take 10 ms for each."""

# Whoever stores energy; every other type (Mains, USB, Wireless, USB_PD ...) passes it on.
_STORES = frozenset({"Battery", "UPS"})

# The supply of a mouse, a headset or a drawing tablet.
_NOT_THE_HOSTS = "Device"

_KINDS: tuple[Literal["energy", "charge"], ...] = ("energy", "charge")
_ENDS = ("now", "full")
_CHARGED_BY_MAINS = frozenset({"Charging", "Full", "Not charging"})


class Charge(NamedTuple):
    """What a battery holds now and when full: `energy` in uWh, `charge` in uAh, `capacity` in percent."""

    kind: Literal["energy", "charge", "capacity"]
    now: int
    full: int


class BatteryState(NamedTuple):
    """One battery that is in its slot; None for what it does not tell."""

    status: str | None
    charge: Charge | None

    @property
    def told(self) -> bool:
        """Whether it told anything."""
        return self.status is not None or self.charge is not None


def battery_ratio(charges: Sequence[Charge | None]) -> float | None:
    """How full all batteries are together, in [0, 1].

    Weighted by their sizes where all tell them in the same unit, else the mean. None without a battery,
    and where one of several tells nothing: leaving it out would look like a jump of the charge.
    """
    known = [charge for charge in charges if charge is not None]
    if not known or len(known) < len(charges):
        return None
    if len({charge.kind for charge in known}) == 1:
        ratio = sum(charge.now for charge in known) / sum(charge.full for charge in known)
    else:
        ratio = sum(charge.now / charge.full for charge in known) / len(known)
    return min(max(ratio, 0.0), 1.0)


def on_mains(adapters_online: Sequence[bool | None], batteries: Sequence[BatteryState]) -> bool | None:
    """Whether the host runs from the mains; None where nothing tells.

    The adapters decide, where the host has any and all can be read; else what the batteries do. A host
    without a battery does not run from one, whatever its empty USB ports say.
    """
    if any(adapters_online):
        return True
    if adapters_online and None not in adapters_online:
        return False if batteries else None
    statuses = {battery.status for battery in batteries}
    if "Discharging" in statuses:
        return False
    return True if statuses & _CHARGED_BY_MAINS else None


class Adapter:
    """One supply that passes energy on to the host."""

    def __init__(self, folder: Path) -> None:
        self._online = HeldFile(folder / "online")

    def online(self) -> bool | None:
        """Whether it delivers; None if it can't be read."""
        online = _integer(self._online)
        # 2 is a USB supply whose voltage can be programmed.
        return None if online is None else online > 0

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        self._online.close()


class Battery:
    """One battery, or the slot of one."""

    def __init__(self, folder: Path) -> None:
        names = ["present", "status", "capacity", *(f"{kind}_{end}" for kind in _KINDS for end in _ENDS)]
        self._files = {name: HeldFile(folder / name) for name in names if (folder / name).exists()}

    def state(self) -> BatteryState | None:
        """What it tells; None while its slot is empty."""
        if self._integer("present") == 0:
            return None
        return BatteryState(status=self._status(), charge=self._charge())

    def close(self) -> None:
        """Close every file; a later read opens them again."""
        for file in self._files.values():
            file.close()

    def _status(self) -> str | None:
        file = self._files.get("status")
        try:
            return None if file is None else file.read().strip()
        except OSError:
            return None

    def _charge(self) -> Charge | None:
        for kind in _KINDS:
            now, full = (self._integer(f"{kind}_{end}") for end in _ENDS)
            if now is not None and full is not None and full > 0:
                return Charge(kind=kind, now=now, full=full)
        percent = self._integer("capacity")
        return None if percent is None else Charge(kind="capacity", now=percent, full=100)

    def _integer(self, name: str) -> int | None:
        file = self._files.get(name)
        return None if file is None else _integer(file)


def _integer(file: HeldFile) -> int | None:
    try:
        return file.read_integer()
    except (OSError, ValueError):
        # ENODATA: the battery does not know; ENODEV: it has just been taken out.
        return None


def find_supplies(sysfs_root: Path) -> tuple[list[Adapter], list[Battery]]:
    """Enumerate the host's own adapters and batteries."""
    adapters, batteries = [], []
    for folder in sorted(sysfs_root.glob("class/power_supply/*")):
        supply_type = read_word(folder / "type")
        if supply_type is None or read_word(folder / "scope") == _NOT_THE_HOSTS:
            continue
        if supply_type in _STORES:
            batteries.append(Battery(folder))
        elif (folder / "online").exists():
            adapters.append(Adapter(folder))
    return adapters, batteries


class PowerSupplySensor:
    """Whether the host is on mains, and how full its batteries are."""

    name = "power_supply"

    def __init__(self, *, sysfs_root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._sysfs_root = sysfs_root
        self._rescan = Rescan(clock)
        self._due = Rescan(clock, interval_s=INTERVAL_S)
        self._adapters: list[Adapter] = []
        self._batteries: list[Battery] = []
        self._reading: PowerSupplyReading | None = None

    def read(self) -> PowerSupplyReading:
        """The reading of at most five seconds ago; one that fails leaves nothing of the one before it.

        Raises:
            SensorAbsentError: the host has no supply of its own that tells anything.
            SensorError: it has some, and none can be read.
        """
        if self._rescan.due():
            self._scan()
        if not self._adapters and not self._batteries:
            self._rescan.soon()
            raise SensorAbsentError("power_supply: no mains adapter and no battery")
        if self._due.due() or self._reading is None:
            self._reading = None
            self._reading = self._ask()
        return self._reading

    def close(self) -> None:
        """Close every file; a later read opens them again."""
        for adapter in self._adapters:
            adapter.close()
        for battery in self._batteries:
            battery.close()

    def _scan(self) -> None:
        self.close()
        self._adapters, self._batteries = find_supplies(self._sysfs_root)

    def _ask(self) -> PowerSupplyReading:
        online = [adapter.online() for adapter in self._adapters]
        states = [state for battery in self._batteries if (state := battery.state()) is not None]
        answers = [answer is not None for answer in online] + [state.told for state in states]
        if not all(answers):
            # It may have been unplugged.
            self._rescan.soon()
        if answers and not any(answers):
            raise SensorError(f"power_supply: none of {len(answers)} supplies can be read")
        return PowerSupplyReading(
            on_mains=on_mains(online, states), battery_ratio=battery_ratio([state.charge for state in states])
        )
