"""In a container, in a virtual machine, on whose processor?"""

from __future__ import annotations

from pathlib import Path

import pytest
from machine_files import unpack

from neuromodd.doctor.surroundings import container_kind, machine_kind, processor_vendor, user_name

FIRST = """\
== proc/self/ns/pid -> pid:[4026531836]
== proc/self/ns/uts -> uts:[4026531838]
== proc/self/ns/ipc -> ipc:[4026531839]
== proc/self/ns/cgroup -> cgroup:[4026531835]
"""


@pytest.mark.parametrize(
    ("tree", "kind"),
    [
        ("== .dockerenv\n", "Docker"),
        ("== run/.containerenv\nengine=podman\n", "Podman"),
        ("== run/systemd/container\nlxc\n", "lxc"),
        ("== proc/1/cgroup\n0::/kubepods.slice/pod1\n", "Kubernetes"),
        ("== proc/1/cgroup\n0::/init.scope\n", None),
        ("== .dockerenv\n== proc/self/ns/pid -> pid:[4026532217]\n", "Docker"),
    ],
)
def test_a_container_is_known_by_its_marks(tmp_path: Path, tree: str, kind: str | None) -> None:
    assert container_kind(unpack(tree, tmp_path), {}) == kind


def test_a_container_may_be_named_in_the_environment(tmp_path: Path) -> None:
    assert container_kind(tmp_path, {"container": "podman"}) == "podman"


def test_a_machine_that_was_made_of_an_image_is_no_container(tmp_path: Path) -> None:
    assert container_kind(unpack(f"== .dockerenv\n{FIRST}", tmp_path), {}) is None


@pytest.mark.parametrize(
    ("tree", "kind"),
    [
        ("== sys/class/dmi/id/sys_vendor\nQEMU\n", "QEMU"),
        ("== sys/class/dmi/id/product_name\nVMware Virtual Platform\n", "VMware"),
        ("== sys/hypervisor/type\nxen\n", "xen"),
        ("== proc/cpuinfo\nflags\t\t: fpu hypervisor lahf_lm\n", ""),
        ("== proc/cpuinfo\nflags\t\t: fpu lahf_lm\n", None),
        ("== sys/class/dmi/id/sys_vendor\nLENOVO\n", None),
    ],
)
def test_a_virtual_machine_is_known_by_its_firmware_or_its_processor(
    tmp_path: Path, tree: str, kind: str | None
) -> None:
    assert machine_kind(unpack(tree, tmp_path) / "proc", tmp_path / "sys") == kind


def test_the_processors_maker_is_told_where_the_kernel_does(tmp_path: Path) -> None:
    unpack("== proc/cpuinfo\nprocessor\t: 0\nvendor_id\t: GenuineIntel\n", tmp_path)
    assert processor_vendor(tmp_path / "proc") == "GenuineIntel"
    assert processor_vendor(tmp_path / "nowhere") is None


def test_a_user_without_a_name_has_a_number() -> None:
    assert user_name(0) == "root"
    assert user_name(2**31) == str(2**31)
