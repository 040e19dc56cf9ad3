"""Frames as stimuli of the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from neuromodd.core.encoding import CHANNELS, DRIVES, drives, encode
from neuromodd.core.fpga import FpgaMetrics
from neuromodd.core.frame import (
    CpuSample,
    DiskSample,
    GpuSample,
    MemorySample,
    PowerSample,
    PressureSample,
    TelemetryFrame,
    TemperatureSample,
    WorkSample,
)
from neuromodd.core.modulators import Setpoints

MakeFrame = Callable[..., TelemetryFrame]

POINTS = Setpoints()


def channel(frame: TelemetryFrame, name: str) -> float | None:
    return encode(frame, POINTS)[CHANNELS.index(name)]


def drive(frame: TelemetryFrame, name: str, instability: float | None = None) -> float | None:
    return drives(frame, POINTS, instability=instability)[DRIVES.index(name)]


def heat(celsius: float, critical: float | None = None) -> dict[str, Any]:
    sensor = TemperatureSample(name="x", temperature_celsius=celsius, critical_celsius=critical)
    return {"thermal": (sensor,)}


def test_a_frame_without_readings_has_no_channel_and_no_drive(frame: MakeFrame) -> None:
    assert encode(frame(), POINTS) == (None,) * 8
    assert drives(frame(), POINTS, instability=None) == (None,) * 5


@pytest.mark.parametrize(
    ("name", "groups", "level"),
    [
        ("cpu", {"cpu": 0.4}, 0.4),
        ("cpu", {"cpu": CpuSample()}, None),
        ("memory", {"memory": MemorySample(used_ratio=0.7)}, 0.7),
        (
            "gpu",
            {"gpus": (GpuSample(index=0, utilization_ratio=0.2), GpuSample(index=1, utilization_ratio=0.9))},
            0.9,
        ),
        ("gpu", {"gpus": (GpuSample(index=0, lost=True),)}, None),
        ("gpu_memory", {"gpus": (GpuSample(index=0, memory_used_bytes=1, memory_total_bytes=4),)}, 0.25),
        ("gpu_memory", {"gpus": (GpuSample(index=0, memory_used_bytes=9, memory_total_bytes=4),)}, 1.0),
        ("gpu_memory", {"gpus": (GpuSample(index=0, memory_used_bytes=1, memory_total_bytes=0),)}, None),
        ("gpu_memory", {"gpus": (GpuSample(index=0, memory_used_bytes=10**400, memory_total_bytes=1),)}, 1.0),
        ("power", {"gpus": (GpuSample(index=0, power_watts=100.0, power_limit_watts=400.0),)}, 0.25),
        ("power", {"power": PowerSample(package_watts=100.0)}, 0.25),
        ("power", {"power": PowerSample(package_watts=4000.0)}, 1.0),
        ("thermal", heat(65.0, 100.0), 0.5),
        ("thermal", heat(56.5), 0.5),
        ("thermal", heat(20.0, 100.0), 0.0),
        ("thermal", heat(25.0, 20.0), 0.0),
        ("thermal", heat(120.0, 100.0), 1.0),
        ("io", {"disk": DiskSample(busy_ratio=0.3), "pressure": PressureSample(io_some_ratio=0.6)}, 0.6),
        ("io", {"disk": DiskSample(busy_ratio=0.3)}, 0.3),
        ("work", {"work": WorkSample(rate=0.5)}, 0.5),
        ("work", {"work": WorkSample(rate=5.0, target=10.0)}, 0.5),
        ("work", {"work": WorkSample(rate=50.0, target=10.0)}, 1.0),
        ("work", {"work": WorkSample(target=10.0)}, None),
    ],
)
def test_a_channel_reads_its_sensors(
    frame: MakeFrame, name: str, groups: dict[str, Any], level: float | None
) -> None:
    found = channel(frame(**groups), name)
    assert found == (None if level is None else pytest.approx(level))


@pytest.mark.parametrize(
    ("name", "groups", "level"),
    [
        ("power", {"power": PowerSample(package_watts=425.0)}, 0.5),
        ("heat", heat(95.0, 100.0), 0.5),
        ("work", {"work": WorkSample(rate=0.5)}, 0.5),
        ("timing", {"fpga": FpgaMetrics(wns_ns=-2.5)}, 0.5),
        ("timing", {"lateness_ms": 250.0, "interval_s": 0.5}, 0.5),
        ("timing", {"lateness_ms": 250.0, "interval_s": 0.0}, None),
        ("timing", {"lateness_ms": 250.0, "interval_s": None}, None),
        ("timing", {"fpga": FpgaMetrics(wns_ns=-1.0), "lateness_ms": 900.0, "interval_s": 1.0}, 0.9),
    ],
)
def test_a_drive_reads_its_sensors(
    frame: MakeFrame, name: str, groups: dict[str, Any], level: float | None
) -> None:
    found = drive(frame(**groups), name)
    assert found == (None if level is None else pytest.approx(level))


@pytest.mark.parametrize(
    ("instability", "level"), [(None, None), (0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (9.0, 1.0)]
)
def test_instability_drives_fully_from_a_half_on(
    frame: MakeFrame, instability: float | None, level: float | None
) -> None:
    assert drive(frame(), "instability", instability) == level


@settings(max_examples=25)
@given(data=st.data())
def test_every_channel_and_drive_is_none_or_within_zero_and_one(
    record_of: Callable[[type[BaseModel]], st.SearchStrategy[Any]], data: st.DataObject
) -> None:
    frame = data.draw(record_of(TelemetryFrame))
    for level in (*encode(frame, POINTS), *drives(frame, POINTS, instability=0.1)):
        assert level is None or 0.0 <= level <= 1.0
