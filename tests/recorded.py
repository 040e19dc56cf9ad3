"""Recordings for tests of what looks at them: a made-up host, and a brain that lives through its frames."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from neuromodd.core.brain import Brain, BrainParameters
from neuromodd.core.frame import (
    CpuSample,
    GpuSample,
    MemorySample,
    NetworkSample,
    PowerSample,
    TelemetryFrame,
    TemperatureSample,
    WorkSample,
)
from neuromodd.core.inputs import OutsideInput
from neuromodd.recording import Header, frame_line, header_line, input_line

START = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)


def frame(at_s: float, **values: Any) -> TelemetryFrame:
    """A frame of `lab`, so many seconds after the start; its sequence is the whole second."""
    given = {
        "node": "lab",
        "sequence": int(at_s),
        "time_utc": START + timedelta(seconds=at_s),
        "monotonic_s": 1000.0 + at_s,
        "boot_id": "boot-a",
        "interval_s": 1.0,
    }
    return TelemetryFrame(**{**given, **values})


def frames(count: int, first: int = 0, **values: Any) -> list[TelemetryFrame]:
    """Frames of a host with a processor, memory and a network, a second apart."""
    rng = random.Random(first)  # noqa: S311 - test data
    found = []
    for at in range(first, first + count):
        busy = rng.random()
        groups: dict[str, Any] = {
            "cpu": CpuSample(utilization_ratio=busy, frequency_hz=2e9 + 1e9 * busy),
            "memory": MemorySample(used_ratio=0.25),
            "network": NetworkSample(receive_bytes_per_s=1e6 * rng.random(), transmit_bytes_per_s=2e3),
            "work": WorkSample(rate=busy, target=1.0, source="utilization"),
        }
        found.append(frame(at, **{**groups, **values}))
    return found


def warm(celsius: float) -> dict[str, Any]:
    """The groups of a host that tells temperatures, watts, and a GPU."""
    return {
        "thermal": (TemperatureSample(name="board", temperature_celsius=celsius, critical_celsius=100.0),),
        "power": PowerSample(package_watts=celsius),
        "gpus": (GpuSample(index=0, utilization_ratio=0.5, temperature_celsius=celsius - 5.0),),
    }


def record(
    path: Path,
    taken: Sequence[TelemetryFrame | OutsideInput],
    *,
    parameters: BrainParameters | None = None,
    header: bool = True,
) -> Path:
    """Write a recording that a fresh brain began."""
    brain = Brain(parameters, 7, compiled=False)
    start = Header(
        package_version="0",
        created_utc=START,
        node="lab",
        boot_id="boot-a",
        seed=7,
        parameters=brain.parameters,
        state=brain.state(),
    )
    lines = [frame_line(of) if isinstance(of, TelemetryFrame) else input_line(of) for of in taken]
    path.write_bytes((header_line(start) if header else b"") + b"".join(lines))
    return path
