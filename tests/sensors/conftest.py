"""Trees like /proc and /sys, and a clock to turn by hand."""

from __future__ import annotations

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
