"""The built wheel, without extras, outside the checkout: what a user gets from `pip install`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`neuromodd` in a virtual environment of its own that has the wheel and no extras."""
    directory = tmp_path_factory.mktemp("wheel")
    python = directory / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", directory / "venv"], check=True)
    pip: list[str | Path] = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", directory, ROOT], check=True)
    subprocess.run([*pip, "install", *directory.glob("*.whl")], check=True)
    return python.with_name("neuromodd")


def run(program: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environ = {
        key: value for key, value in os.environ.items() if not key.startswith(("NEUROMODD_", "PYTHON"))
    }
    environ["XDG_CONFIG_HOME"] = str(cwd)
    return subprocess.run(
        [program, *arguments], cwd=cwd, env=environ, capture_output=True, text=True, check=False
    )


@pytest.mark.timeout(300)
def test_it_samples(program: Path, tmp_path: Path) -> None:
    done = run(program, "sample", "-n", "2", "--tick.interval_s", "0.1", cwd=tmp_path)
    frames = [json.loads(line) for line in done.stdout.splitlines()]
    assert [frame["sequence"] for frame in frames] == [0, 1]
    assert frames[0]["cpu"]["utilization_ratio"] is not None


def test_without_a_broker_it_names_both_remedies_with_status_2(program: Path, tmp_path: Path) -> None:
    done = run(program, "run", cwd=tmp_path)
    assert done.returncode == 2
    assert "mqtt.host" in done.stderr
    assert "neuromodd[broker]" in done.stderr
    assert "Traceback" not in done.stderr


def test_its_configuration_is_right_with_a_broker_set(program: Path, tmp_path: Path) -> None:
    done = run(program, "check", "--mqtt.host", "broker.lan", cwd=tmp_path)
    assert done.returncode == 0
    assert "broker.lan:1883" in done.stdout


def test_it_ships_its_types(program: Path, tmp_path: Path) -> None:
    code = "import importlib.resources as r; print((r.files('neuromodd') / 'py.typed').is_file())"
    done = run(program.with_name("python"), "-c", code, cwd=tmp_path)
    assert done.stdout.strip() == "True"
