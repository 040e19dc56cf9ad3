"""GPUs: which are on the bus, and what keeps one from being asked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from neuromodd.core.frame import GpuSample
from neuromodd.doctor.measures import names_text
from neuromodd.doctor.sight import Judgement, Sight, on_host
from neuromodd.sensors.files import read_word
from neuromodd.sensors.pci import find_gpus

NVIDIA, AMD = "0x10de", "0x1002"

_LIBRARY = "libnvidia-ml"
"""In what the loader says where the driver's library is missing."""

_TOOLKIT = "start the container with --gpus all (NVIDIA's container toolkit), or with config/compose.gpu.yaml"
_INSTALL = "install NVIDIA's driver: apt install nvidia-driver (Debian: component non-free), then reboot"


def drivers_of(sysfs_root: Path, vendor: str) -> list[str | None]:
    """The driver of each GPU of a vendor, in the order of their addresses; None where none has taken it."""
    links = (
        sysfs_root / "bus/pci/devices" / gpu.address / "driver"
        for gpu in find_gpus(sysfs_root, vendor=vendor)
    )
    return [link.resolve().name if link.exists() else None for link in links]


def judge_nvidia(sight: Sight) -> Judgement:
    """NVIDIA's GPUs: measured, or why not."""
    status = sight.statuses.get("nvml")
    gpus = _of(sight, "nvidia")
    word = None if sight.frame is None else sight.frame.gpu_driver_error
    if gpus and word is None:
        return _judge_missing(sight, gpus, _judge_devices(gpus, "nvidia-smi"))
    if word is not None:
        return _driver_error(sight, word)
    drivers = drivers_of(sight.sysfs, NVIDIA)
    if not drivers:
        return Judgement("note", "no NVIDIA GPU on the PCI bus")
    missing_library = status is not None and _LIBRARY in (status.error or "")
    return _unreached(sight, drivers, missing_library=missing_library)


def _judge_missing(sight: Sight, gpus: Sequence[GpuSample], told: Judgement) -> Judgement:
    """What was told of the GPUs that answer, and whether there are others that should."""
    missing = drivers_of(sight.sysfs, NVIDIA).count("nvidia") - len(gpus)
    if told.verdict != "ok" or missing <= 0:
        return told
    finding = f"{told.finding}; the driver does not know {missing} more on the PCI bus"
    if sight.around.container is not None:
        return Judgement("note", finding, "--gpus all hands all of them to the container")
    return Judgement(
        "warning", finding, "dmesg | grep -i -e nvrm -e xid may say why; check its power and seat"
    )


def _unreached(sight: Sight, drivers: Sequence[str | None], *, missing_library: bool) -> Judgement:
    """There are GPUs, and the library tells of none, or is not there."""
    count = f"{len(drivers)} on the PCI bus"
    if "nvidia" in drivers:
        if missing_library:
            return _no_library(sight, count)
        none = Judgement("warning", f"{count}, and the driver knows none", "nvidia-smi tells more")
        return _devices(sight) or none
    if "vfio-pci" in drivers:
        return Judgement("note", f"{count}, handed on to a virtual machine (vfio-pci): measure there")
    if others := sorted(of for of in drivers if of is not None):
        return Judgement("warning", f"{count}, run by {others[0]}, which tells nothing", _INSTALL)
    if missing_library or sight.around.container is not None:
        return Judgement("warning", f"{count}, and no driver is loaded", f"{on_host(sight)}{_INSTALL}")
    return _not_loaded(count)


def _no_library(sight: Sight, count: str) -> Judgement:
    if sight.around.container is not None:
        return Judgement("warning", f"{count}, and the container lacks the driver's library", _TOOLKIT)
    version = read_word(sight.sysfs / "module/nvidia/version")
    which = "install it, of the driver's version" + (f" {version}" if version else "")
    return Judgement(
        "warning",
        f"{count}, their driver is loaded, and libnvidia-ml.so.1 is missing",
        f"{which}: apt install libnvidia-ml1 (Ubuntu: libnvidia-compute)",
    )


def _not_loaded(count: str) -> Judgement:
    return Judgement(
        "failure",
        f"{count}, and the driver is not loaded",
        "modprobe nvidia; if that fails, dmesg | grep -i nvidia says why (after a new kernel: "
        "dkms autoinstall; under Secure Boot a module must be signed)",
    )


def _devices(sight: Sight) -> Judgement | None:
    """What is wrong with the files in /dev; None if nothing is."""
    files = [sight.devices / "nvidiactl", sight.devices / "nvidia0"]
    missing = [of for of in files if not of.exists()]
    if missing and sight.around.container is not None:
        return Judgement("failure", f"the container has no {missing[0]}", _TOOLKIT)
    if missing:
        return Judgement(
            "failure", f"{missing[0]} is missing", "as root: nvidia-modprobe -c 0, or nvidia-smi"
        )
    closed = next((of for of in files if not os.access(of, os.R_OK | os.W_OK)), None)
    if closed is None:
        return None
    return Judgement(
        "failure",
        f"{sight.around.user} may not open {closed}",
        f"ls -l {closed} names its group: usermod -aG GROUP {sight.around.user}, or for the service "
        "SupplementaryGroups=GROUP (systemctl edit neuromodd)",
    )


def _driver_error(sight: Sight, word: str) -> Judgement:
    """The library is there, and says why it can't be used."""
    if word == "LibRmVersionMismatch":
        again = "start the container anew" if sight.around.container else "reboot"
        return Judgement(
            "failure",
            "driver and library are of different versions, as after an upgrade",
            f"{again}; until then no program can use the GPUs",
        )
    if word == "Timeout":
        return Judgement(
            "failure",
            "the driver hangs",
            "dmesg | grep -i -e nvrm -e xid tells why; mostly only a reboot helps",
        )
    if (wrong := _devices(sight)) is not None:
        return wrong
    if word == "DriverNotLoaded":
        return _not_loaded(f"{len(drivers_of(sight.sysfs, NVIDIA))} on the PCI bus")
    return Judgement(
        "failure", f"the driver says {word}", "nvidia-smi may say more; dmesg | grep -i nvrm too"
    )


def judge_amd(sight: Sight) -> Judgement:
    """AMD's GPUs: measured, or why not."""
    gpus = _of(sight, "amd")
    if gpus:
        return _judge_devices(gpus, "dmesg | grep amdgpu")
    drivers = drivers_of(sight.sysfs, AMD)
    if not drivers:
        return Judgement("note", "no AMD GPU on the PCI bus")
    count = f"{len(drivers)} on the PCI bus"
    if "vfio-pci" in drivers:
        return Judgement("note", f"{count}, handed on to a virtual machine (vfio-pci): measure there")
    if "radeon" in drivers:
        return Judgement("note", f"{count}, run by radeon, which tells nothing; amdgpu begins with GCN 3")
    if "amdgpu" in drivers:
        return Judgement(
            "warning", f"{count}, and amdgpu tells nothing of it", "dmesg | grep amdgpu may say why"
        )
    return Judgement(
        "warning",
        f"{count}, and amdgpu is not loaded",
        "modprobe amdgpu; if dmesg misses firmware: apt install firmware-amd-graphics",
    )


def _of(sight: Sight, vendor: Literal["nvidia", "amd"]) -> list[GpuSample]:
    return [] if sight.frame is None else [of for of in sight.frame.gpus or () if of.vendor == vendor]


def _judge_devices(gpus: Sequence[GpuSample], more: str) -> Judgement:
    lost = [of for of in gpus if of.lost or of.hung]
    if lost:
        told = ", ".join(f"{_name(of)} ({'hangs' if of.hung else of.fault or 'lost'})" for of in lost)
        return Judgement(
            "failure",
            f"{len(lost)} of {len(gpus)} can't be reached: {told}",
            f"{more} may say why; reset it (nvidia-smi --gpu-reset), reboot, or check its power and seat"
            if more == "nvidia-smi"
            else f"{more} may say why; reboot, or check its power and seat",
        )
    asleep = [of for of in gpus if of.suspended]
    told = names_text([_name(of) for of in gpus]) or ""
    if asleep:
        return Judgement("ok", f"{told}; {len(asleep)} asleep, and not woken to be asked")
    return Judgement("ok", told)


def _name(gpu: GpuSample) -> str:
    return gpu.name or gpu.pci_bus_id or f"GPU {gpu.index}"
