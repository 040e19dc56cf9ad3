"""Facts about the host that do not change while it is up; read once at start."""

from __future__ import annotations

import os
from pathlib import Path

from neuromodd.core.payloads import HostFacts


def boot_id(procfs_root: Path) -> str | None:
    """The kernel's random name of this boot; None where it can't be read."""
    try:
        return (procfs_root / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def cpu_model(text: str) -> str | None:
    """The processor's name in the text of /proc/cpuinfo; many ARM kernels do not tell it."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "Hardware"):
            return value.strip() or None
    return None


def host_facts(procfs_root: Path, gpus: tuple[str, ...] = ()) -> HostFacts:
    """What `info` tells of the host; `gpus` are the names that the sensors found."""
    try:
        model = cpu_model((procfs_root / "cpuinfo").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        model = None
    system = os.uname()
    return HostFacts(
        kernel=f"{system.sysname} {system.release}",
        architecture=system.machine,
        cpu_model=model,
        cpu_count=os.cpu_count(),
        memory_total_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpus=gpus,
    )
