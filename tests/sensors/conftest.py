"""Trees like /proc and /sys, a clock to turn by hand, and a driver library that plays scenarios."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest


@pytest.fixture
def now() -> list[float]:
    """The time that a sensor is given, in one cell: tests move it."""
    return [1000.0]


@pytest.fixture
def procfs(tmp_path: Path) -> Path:
    root = tmp_path / "proc"
    root.mkdir()
    return root


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    root = tmp_path / "sys"
    root.mkdir()
    return root


@pytest.fixture
def write() -> Callable[[Path, str], Path]:
    """Writes a file with the folders above it."""

    def write_file(path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write_file


@pytest.fixture
def add_device(sysfs: Path) -> Callable[..., Path]:
    """Makes a class entry as the kernel does: a link into devices/, with a `device` link back up."""

    def add(entry: str, device: str | None, attributes: Mapping[str, str] | None = None) -> Path:
        link = sysfs / entry
        folder = sysfs / "devices" / (device or "virtual") / entry
        folder.mkdir(parents=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(folder)
        if device is not None:
            (folder / "device").symlink_to(sysfs / "devices" / device)
        for name, value in (attributes or {}).items():
            (folder / name).write_text(f"{value}\n")
        return folder

    return add


@pytest.fixture(scope="session")
def nvml_stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `stub` and `newer` with a `libnvidia-ml.so.1` each, which plays scenarios (nvml_stub.c)."""
    folder = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).with_name("nvml_stub.c")
    strict = ["gcc", "-std=gnu17", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    for name, version in (("stub", "1"), ("newer", "2")):
        library = folder / name / "libnvidia-ml.so.1"
        library.parent.mkdir()
        subprocess.run([*strict, f'-DVERSION="{version}"', "-o", library, source], check=True)
    return folder
