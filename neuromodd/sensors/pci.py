"""GPUs on the PCI bus, and whether they sleep: asking a driver would wake them."""

from __future__ import annotations

from pathlib import Path

from neuromodd.sensors.files import HeldFile, is_asleep, read_word

_DISPLAY_CLASS = "0x03"


class PciGpu:
    """One display device.

    Attributes:
        address: on the bus (`0000:01:00.0`).
    """

    def __init__(self, folder: Path) -> None:
        self.address = folder.name
        self._status = HeldFile(folder / "power/runtime_status")

    def suspended(self) -> bool:
        """Whether its runtime power management has put it to sleep; a device without any is awake."""
        return is_asleep(self._status)

    def close(self) -> None:
        """Close the file; a later call opens it again."""
        self._status.close()


def find_gpus(sysfs_root: Path, *, vendor: str, driver: str | None = None) -> list[PciGpu]:
    """The display devices of `vendor` that `driver` runs, or any, in the order of their addresses.

    Args:
        sysfs_root: the host's /sys.
        vendor: PCI vendor id (`0x10de`).
        driver: name of the kernel module's driver; a device passed on to a guest has another.
    """
    return [
        PciGpu(folder)
        for folder in sorted(sysfs_root.glob("bus/pci/devices/*"))
        if read_word(folder / "vendor") == vendor
        and (read_word(folder / "class") or "").startswith(_DISPLAY_CLASS)
        and (driver is None or (folder / "driver").resolve().name == driver)
    ]
