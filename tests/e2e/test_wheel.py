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


USER_CODE = """
from pathlib import Path

from neuromodd import (
    BreakthroughFound,
    EngineConfig,
    FaultClass,
    FpgaMetrics,
    IzhikevichNeuron,
    LifNeuron,
    NeuroModulators,
    PoissonEncoder,
    RewardEvent,
    Setpoints,
    SourceSwitch,
    SpikingInferenceEngine,
    StepResult,
    TelemetryFrame,
    WorkAccepted,
    apply_stdp,
    synaptic_scaling,
)
import numpy as np


def live(path: Path) -> tuple[float, ...]:
    engine = SpikingInferenceEngine(EngineConfig(plasticity="eligibility"), seed=1)
    frame = TelemetryFrame(node="lab", sequence=0, monotonic_s=0.0)
    levels = NeuroModulators.from_telemetry(frame, Setpoints())
    result: StepResult = engine.step([0.5, None] * 4, levels)
    engine.tick([0.5] * 8, levels, phasic_dopamine=0.2)
    table = engine.run(np.full((3, 8), 0.5), [levels] * 3)
    total: int = int(table.lif_spikes.sum()) + result.step
    engine.save_parameters(path)
    engine.load_parameters(str(path))
    twin: SpikingInferenceEngine = SpikingInferenceEngine.from_json(engine.to_json())
    neuron = LifNeuron(weights=[1.0])
    neuron.integrate(1.0)
    peak: float | None = neuron.check_fire()
    neuron.last_spike_time = total
    apply_stdp(neuron, [0], 0.5)
    rows = synaptic_scaling([neuron.weights], 2.0).tolist()
    fired: bool = IzhikevichNeuron(0.02, 0.2, -65.0, 8.0).step(10.0)
    train = PoissonEncoder(10).encode(0.5, np.random.default_rng(0))
    events: list[RewardEvent] = [WorkAccepted(), BreakthroughFound(), SourceSwitch()]
    levels = levels.apply_event(events[0]).decay(1.0)
    code: str = FaultClass.HealthyStandby.code
    stress: float | None = FpgaMetrics(wns_ns=-1.0).stress
    print(rows, peak, fired, train.sum(), code, stress)
    return twin.potentials
"""


@pytest.mark.timeout(300)
def test_its_types_pass_strict_checks_in_a_users_project(program: Path, tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER_CODE)
    python = program.with_name("python")
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python), "user.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("Success: no issues found"), done.stdout
    code = "import pathlib, user; print(len(user.live(pathlib.Path('learned.json'))))"
    ran = run(program.with_name("python"), "-c", code, cwd=tmp_path)
    assert ran.stdout.splitlines()[-1] == "8", ran.stderr


def test_without_extras_it_records_and_replays_and_says_once_that_it_is_slower(
    program: Path, tmp_path: Path
) -> None:
    options = ("--tick.interval_s", "0.05", "--recorder.directory", "recordings")
    done = run(program, "record", "-n", "5", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    files = [str(path) for path in (tmp_path / "recordings").glob("recording-*")]
    done = run(program, "replay", *files, *files, "--out", "ticks.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("neuromodd[fast]") == 1
    assert len((tmp_path / "ticks.jsonl").read_text().splitlines()) == 10


def test_without_extras_a_compressed_recording_names_what_is_missing(program: Path, tmp_path: Path) -> None:
    options = ("--recorder.directory", "recordings", "--recorder.compress", "true")
    done = run(program, "record", "-n", "1", *options, cwd=tmp_path)
    assert done.returncode == 2
    assert "pip install 'neuromodd[zstd]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_extras_a_large_network_runs_all_the_same(program: Path, tmp_path: Path) -> None:
    code = (
        "from neuromodd import EngineConfig, NeuroModulators, SpikingInferenceEngine\n"
        "engine = SpikingInferenceEngine(EngineConfig(lif_neurons=200))\n"
        "print(engine.large, engine.compiled, engine.tick([0.5] * 8, NeuroModulators()).step)\n"
    )
    assert run(program.with_name("python"), "-c", code, cwd=tmp_path).stdout == "True False 20\n"
