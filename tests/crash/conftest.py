"""A disk that can be told to fail under a process."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from failing_disk import FailingDisk


@pytest.fixture(scope="session")
def faults_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """faults.c, built."""
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    strict = ["gcc", "-std=gnu17", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([*strict, "-o", library, Path(__file__).with_name("faults.c"), "-ldl"], check=True)
    return library


@pytest.fixture
def disk(faults_library: Path, tmp_path: Path) -> FailingDisk:
    """Under the state directory of the daemons of this test."""
    return FailingDisk(faults_library, tmp_path / "state", tmp_path / "faults")
