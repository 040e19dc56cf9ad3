"""How fast the network steps: plain, compiled, large, in a replay, and against Brian2 on the same network.

    python benchmarks/engine.py [--brian2 PYTHON] [--repeat 5]

It needs the extra `fast`. Brian2 (C++ standalone, one thread) takes part where PYTHON, by default this one,
has it: `brian2_network.py` builds the same network there. Each figure is the best of the repetitions, which
take turns, so that a busy moment of the machine hits all alike. Prints a Markdown table with the machine
and the date.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numba
import numpy as np

from neuromodd import CpuSample, EngineConfig, NeuroModulators, SpikingInferenceEngine, TelemetryFrame
from neuromodd.core.brain import Brain
from neuromodd.recording import Header, frame_line, header_line
from neuromodd.replay import replay

LEVELS = NeuroModulators(dopamine=0.8)
LARGE = EngineConfig(channels=16, lif_neurons=10_000)
SIZES = (1_000, 2_000, 5_000, 10_000, 20_000)
SCALINGS = ("none", "factor", "summed")
BRIAN2 = Path(__file__).parent / "brian2_network.py"


def us_per_step(run: Callable[[], int]) -> float:
    """Microseconds a step of what `run` does; it returns how many steps that were."""
    began = time.perf_counter()
    steps = run()
    return (time.perf_counter() - began) / steps * 1e6


def bulk(config: EngineConfig, level: float, ticks: int) -> Callable[[], int]:
    """Ticks of a compiled engine in one call, past its first transient."""
    engine = SpikingInferenceEngine(config, compiled=True)
    stimuli = np.full((ticks, config.channels), level)
    engine.run(stimuli[: min(ticks, 100)], LEVELS)

    def run() -> int:
        engine.run(stimuli, LEVELS)
        return ticks * config.steps_per_tick

    return run


def live(level: float, ticks: int, *, compiled: bool) -> Callable[[], int]:
    """Ticks of the default network one by one, as the daemon calls for them."""
    engine = SpikingInferenceEngine(compiled=compiled)
    stimuli = [level] * 8
    for _ in range(20):
        engine.tick(stimuli, LEVELS)

    def run() -> int:
        for _ in range(ticks):
            engine.tick(stimuli, LEVELS)
        return ticks * engine.config.steps_per_tick

    return run


def single(level: float, steps: int) -> Callable[[], int]:
    """Steps of the default network one by one, in plain Python."""
    engine = SpikingInferenceEngine(compiled=False)
    stimuli = [level] * 8
    for _ in range(400):
        engine.step(stimuli, LEVELS)

    def run() -> int:
        for _ in range(steps):
            engine.step(stimuli, LEVELS)
        return steps

    return run


def record(path: Path, frames: int) -> None:
    """A recording of a host whose processor is busy now and then."""
    brain, start = Brain(), datetime(2026, 1, 1, tzinfo=UTC)
    header = Header(
        package_version="0",
        created_utc=start,
        node="lab",
        boot_id=None,
        seed=0,
        parameters=brain.parameters,
        state=brain.state(),
    )
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(header_line(header))
        for i in range(frames):
            cpu = CpuSample(utilization_ratio=float(rng.random()), frequency_hz=3e9)
            at = start + timedelta(seconds=i)
            frame = TelemetryFrame(
                node="lab", sequence=i, time_utc=at, monotonic_s=float(i), interval_s=1.0, cpu=cpu
            )
            file.write(frame_line(frame))


def brian2(
    python: str, neurons: int, channels: int, level: float, steps: int, scaling: str
) -> dict[str, Any]:
    """What Brian2 measured of the same network; raises CalledProcessError where it is not installed."""
    arguments = [
        *("--neurons", str(neurons), "--bank", "5", "--channels", str(channels), "--level", str(level)),
        *("--steps", str(steps), "--scaling", scaling),
    ]
    done = subprocess.run([python, BRIAN2, *arguments], capture_output=True, text=True, check=True)
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def row(what: str, figure: str) -> None:
    print(f"| {what} | {figure} |", flush=True)


def cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "?")


def compare_with_brian2(python: str, repeat: int) -> None:
    """Ratios at both sizes, with each way of scaling the rows on Brian2's side."""
    for neurons, channels, ticks, steps in ((8, 8, 20_000, 400_000), (10_000, 16, 200, 20_000)):
        config = EngineConfig(channels=channels, lif_neurons=neurons)
        for level in (0.3, 1.0):
            ours = bulk(config, level, ticks)
            best: dict[str, float] = {}
            for _ in range(repeat):
                best["ours"] = min(best.get("ours", 1e9), us_per_step(ours))
                for scaling in SCALINGS:
                    measured = brian2(python, neurons, channels, level, steps, scaling)
                    best[scaling] = min(best.get(scaling, 1e9), measured["us_per_step"])
            name = f"{neurons:,} + 5 neurons, {channels} channels at level {level}"
            row(f"Brian2 {measured['brian2']}, {name}: neuromodd", f"{best['ours']:.2f} us a step")
            for scaling in SCALINGS:
                ratio = best[scaling] / best["ours"]
                figure = f"{best[scaling]:.2f} us a step, {ratio:.1f} times as long"
                row(f"Brian2, L1 scaling {scaling}", figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--brian2", default=sys.executable, metavar="PYTHON", help="a Python that has Brian2")
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()

    print(f"{cpu_model()}, {os.cpu_count()} cores, Linux {platform.release().split('-')[0]}, ", end="")
    print(f"Python {platform.python_version()}, numpy {np.__version__}, numba {numba.__version__}, ", end="")
    print(f"{datetime.now(UTC):%Y-%m-%d}; best of {arguments.repeat}\n")
    print("| measured | figure |\n|---|---|")

    runs = {
        ("run", 0.3): bulk(EngineConfig(), 0.3, 50_000),
        ("run", 1.0): bulk(EngineConfig(), 1.0, 50_000),
        ("plain tick", 0.3): live(0.3, 500, compiled=False),
        ("plain tick", 1.0): live(1.0, 500, compiled=False),
        ("plain step", 0.3): single(0.3, 5_000),
        ("plain step", 1.0): single(1.0, 5_000),
        ("compiled tick", 0.3): live(0.3, 5_000, compiled=True),
        ("large", 0.3): bulk(LARGE, 0.3, 200),
        ("large", 1.0): bulk(LARGE, 1.0, 200),
    }
    best = dict.fromkeys(runs, 1e9)
    for _ in range(arguments.repeat):
        for name, run in runs.items():
            best[name] = min(best[name], us_per_step(run))
    for level in (0.3, 1.0):
        figure = best["run", level]
        row(f"8 + 5 neurons, 8 channels at level {level}, compiled run", f"{1e6 / figure:,.0f} steps/s")
    for level in (0.3, 1.0):
        row(f"the same live, plain Python, at level {level}", f"{best['plain tick', level]:.1f} us a step")
    for level in (0.3, 1.0):
        row(f"the same step by step, plain Python, at level {level}", f"{best['plain step', level]:.1f} us")
    row("the same live, compiled, at level 0.3", f"{best['compiled tick', 0.3]:.2f} us a step")
    ratio = best["plain tick", 0.3] / best["run", 0.3]
    row("a compiled run over plain ticks, at level 0.3", f"{ratio:.0f} times as fast")
    for level in (0.3, 1.0):
        row(f"10,000 LIF neurons, 16 channels at level {level}", f"{best['large', level]:.0f} us a step")
    for neurons in SIZES:
        run = bulk(EngineConfig(channels=16, lif_neurons=neurons), 0.3, 2_000_000 // neurons)
        figure = min(us_per_step(run) for _ in range(arguments.repeat))
        row(
            f"{neurons * 16:,} synapses, level 0.3",
            f"{figure / neurons / 16 * 1e3:.2f} ns a synapse and step",
        )

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "recording.jsonl"
        record(path, 30_000)
        report = replay([path])
    row("`neuromodd replay`, 20 steps a frame", f"{report.frames / report.seconds:,.0f} frames/s")

    try:
        compare_with_brian2(arguments.brian2, min(arguments.repeat, 3))
    except subprocess.CalledProcessError as error:
        row("Brian2", f"not measured: {error.stderr.splitlines()[-1] if error.stderr else error}")


if __name__ == "__main__":
    main()
