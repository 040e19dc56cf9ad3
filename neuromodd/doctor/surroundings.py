"""Where this process runs: in a container, in a virtual machine, as which user."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from neuromodd.sensors.files import read_word

_MARKS = {".dockerenv": "Docker", "run/.containerenv": "Podman"}

_IN_CGROUP = {"kubepods": "Kubernetes", "docker": "Docker", "libpod": "Podman", "lxc": "LXC"}

_FIRST_NAMESPACES = {
    "pid": "pid:[4026531836]",
    "uts": "uts:[4026531838]",
    "ipc": "ipc:[4026531839]",
    "cgroup": "cgroup:[4026531835]",
}
"""The kernel's own numbers for those that it boots with."""

_VIRTUAL = (
    "QEMU",
    "KVM",
    "VMware",
    "VirtualBox",
    "innotek",
    "Xen",
    "Bochs",
    "Parallels",
    "Amazon EC2",
    "Google",
)


class Surroundings(NamedTuple):
    """Where this process runs.

    Attributes:
        container: what kind of container it is in; None if in none.
        machine: what kind of virtual machine it is in, "" for one without a name; None if none shows.
        user: its user's name, or number where that has none.
        root: whether that is root.
    """

    container: str | None
    machine: str | None
    user: str
    root: bool

    @property
    def machine_text(self) -> str:
        """`a virtual machine (QEMU)`; without the kind where only the processor tells that it is one."""
        return "a virtual machine" + (f" ({self.machine})" if self.machine else "")


def look_around(root: Path, environ: Mapping[str, str]) -> Surroundings:
    """Look at the files below `root` (`/`) that tell."""
    user = os.geteuid()
    return Surroundings(
        container=container_kind(root, environ),
        machine=machine_kind(root / "proc", root / "sys"),
        user=user_name(user),
        root=user == 0,
    )


def container_kind(root: Path, environ: Mapping[str, str]) -> str | None:
    """Which kind of container has `root` as its root directory; None if it is none."""
    kind = environ.get("container") or read_word(root / "run/systemd/container")
    kind = kind or next((kind for mark, kind in _MARKS.items() if (root / mark).exists()), None)
    if "KUBERNETES_SERVICE_HOST" in environ:
        kind = "Kubernetes"
    groups = read_word(root / "proc/1/cgroup") or ""
    kind = kind or next((kind for word, kind in _IN_CGROUP.items() if word in groups), None)
    # Where an image was made into a whole machine the marks are still there.
    return None if kind is not None and _has_first_namespaces(root / "proc/self/ns") else kind


def _has_first_namespaces(folder: Path) -> bool:
    try:
        return all(str((folder / name).readlink()) == first for name, first in _FIRST_NAMESPACES.items())
    except OSError:
        return False


def machine_kind(procfs_root: Path, sysfs_root: Path) -> str | None:
    """Which kind of virtual machine this is, "" for one without a name; None if none shows."""
    told = [read_word(sysfs_root / "class/dmi/id" / name) or "" for name in ("sys_vendor", "product_name")]
    for word in _VIRTUAL:
        if any(word in text for text in told):
            return word
    if (kind := read_word(sysfs_root / "hypervisor/type")) is not None:
        return kind
    flags = (line for line in _lines(procfs_root / "cpuinfo") if line.startswith("flags"))
    return "" if "hypervisor" in next(flags, "").split() else None


def processor_vendor(procfs_root: Path) -> str | None:
    """`GenuineIntel`, `AuthenticAMD` ...; None where the kernel tells none, as off x86."""
    for line in _lines(procfs_root / "cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() == "vendor_id":
            return value.strip() or None
    return None


def user_name(number: int) -> str:
    """The name of a user, or the number where that has none."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
