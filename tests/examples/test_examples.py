"""The other examples run as they stand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def run(name: str, *arguments: str | Path) -> str:
    # Where neuromodd is imported from is not the business of an example.
    environ = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    command = [sys.executable, "-W", "error", EXAMPLES / name, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environ).stdout


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("quick_start.py", '"acetylcholine":null'),
        ("stdp.py", "dopamine 1.0: weights [1.0078, 0.9907, 1.0]"),
        ("save_and_restore.py", "the twin fires the same spikes: True in 4000 steps"),
    ],
)
def test_an_example_runs_and_says_what_it_should(name: str, says: str) -> None:
    assert says in run(name)


def test_stdp_is_shown_in_ten_lines() -> None:
    lines = (EXAMPLES / "stdp.py").read_text(encoding="utf-8").splitlines()
    code = [
        line for line in lines[1:] if line and not line.lstrip().startswith("#") and "__future__" not in line
    ]
    assert len(code) <= 10


def test_the_firing_patterns_are_drawn(tmp_path: Path) -> None:
    run("firing_patterns.py", tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
