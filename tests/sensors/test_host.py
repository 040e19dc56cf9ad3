from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from neuromodd.sensors.host import boot_id, cpu_model, host_facts

Write = Callable[[Path, str], Path]

BOOT_ID = "sys/kernel/random/boot_id"

X86 = """\
processor\t: 0
vendor_id\t: GenuineIntel
model\t\t: 106
model name\t: Intel(R) Xeon(R) Platinum 8370C CPU @ 2.80GHz
"""

RASPBERRY_PI = """\
processor\t: 0
BogoMIPS\t: 108.00
CPU implementer\t: 0x41

Revision\t: c03114
Model\t\t: Raspberry Pi 4 Model B Rev 1.4
"""


def test_the_boot_id_is_that_of_the_kernel(procfs: Path, write: Write) -> None:
    write(procfs / BOOT_ID, "boot-a\n")
    assert boot_id(procfs) == "boot-a"


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_a_boot_id_that_says_nothing_is_none(procfs: Path, write: Write, content: bytes) -> None:
    write(procfs / BOOT_ID, "").write_bytes(content)
    assert boot_id(procfs) is None


def test_a_boot_id_that_is_not_there_is_none(procfs: Path) -> None:
    assert boot_id(procfs) is None


def test_the_processor_is_named_by_its_model_name() -> None:
    assert cpu_model(X86) == "Intel(R) Xeon(R) Platinum 8370C CPU @ 2.80GHz"


def test_where_the_processor_has_no_name_the_board_has() -> None:
    assert cpu_model(RASPBERRY_PI) == "Raspberry Pi 4 Model B Rev 1.4"


@pytest.mark.parametrize("text", ["", "processor : 0\n", "model name\t:\n", "model name\n"])
def test_a_processor_that_is_not_named_is_none(text: str) -> None:
    assert cpu_model(text) is None


def test_facts_come_from_the_proc_that_is_given(procfs: Path, write: Write) -> None:
    write(procfs / "cpuinfo", RASPBERRY_PI)
    assert host_facts(procfs).cpu_model == "Raspberry Pi 4 Model B Rev 1.4"


def test_without_cpuinfo_the_model_is_none(procfs: Path) -> None:
    assert host_facts(procfs).cpu_model is None


def test_a_cpuinfo_that_is_not_utf_8_is_read_as_far_as_it_goes(procfs: Path, write: Write) -> None:
    write(procfs / "cpuinfo", "").write_bytes(b"flags : \xff\nmodel name : A\n")
    assert host_facts(procfs).cpu_model == "A"


def test_gpus_are_passed_on(procfs: Path) -> None:
    assert host_facts(procfs, ("A", "B")).gpus == ("A", "B")


def test_processors_and_memory_of_this_machine_are_what_psutil_says(procfs: Path) -> None:
    facts = host_facts(procfs)
    expected = (psutil.cpu_count(), psutil.virtual_memory().total)
    assert (facts.cpu_count, facts.memory_total_bytes) == expected


def test_the_kernel_is_that_of_this_machine(procfs: Path) -> None:
    system = os.uname()
    facts = host_facts(procfs)
    assert (facts.kernel, facts.architecture) == (f"Linux {system.release}", system.machine)
