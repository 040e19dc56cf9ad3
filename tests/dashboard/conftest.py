"""Frames of a host that has everything, and ticks of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from neuromodd.core.brain import Brain, Tick
from neuromodd.core.fpga import FpgaMetrics
from neuromodd.core.frame import (
    CpuSample,
    DiskSample,
    FanSample,
    GpuSample,
    LimitsSample,
    MemorySample,
    NetworkSample,
    PowerSample,
    PressureSample,
    TelemetryFrame,
    TemperatureSample,
    VoltageSample,
    WorkSample,
)

START = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)

EVERYTHING: dict[str, Any] = {
    "lateness_ms": 1.23456789,
    "cpu": CpuSample(
        utilization_ratio=1 / 3,
        frequency_hz=3_412_345_678.9,
        frequency_max_hz=4.7e9,
        load_1m=2.5,
        context_switches_per_s=12_345.678,
        temperature_celsius=61.234567,
        temperature_max_celsius=100.0,
        throttles_per_s=0.0,
    ),
    "memory": MemorySample(
        used_ratio=0.4321, available_bytes=12_345_678_901, total_bytes=25_276_510_208, swap_used_ratio=0.01
    ),
    "pressure": PressureSample(
        cpu_some_ratio=0.11,
        memory_some_ratio=0.12,
        memory_full_ratio=0.13,
        io_some_ratio=0.14,
        io_full_ratio=0.15,
    ),
    "disk": DiskSample(read_bytes_per_s=1e6 / 3, write_bytes_per_s=2e6 / 3, busy_ratio=0.2),
    "network": NetworkSample(
        receive_bytes_per_s=1e5 / 7, transmit_bytes_per_s=2e5 / 7, errors_per_s=0.0, drops_per_s=0.5
    ),
    "power": PowerSample(package_watts=45.678901, core_volts=1.0125, on_mains=True, battery_ratio=0.87),
    "limits": LimitsSample(
        cpu_limit_cores=2.0, cpu_throttled_ratio=0.05, memory_limit_bytes=2**31, memory_used_ratio=0.3
    ),
    "thermal": (
        TemperatureSample(name="coretemp Core 0", temperature_celsius=60.5),
        TemperatureSample(name="nvme Composite", temperature_celsius=None),
    ),
    "fans": (FanSample(name="it8688 fan1", speed_rpm=1234.0),),
    "voltages": (VoltageSample(name="it8688 in0", volts=-12.1),),
    "gpus": (
        GpuSample(
            index=0,
            utilization_ratio=0.75,
            memory_used_bytes=4_294_967_296,
            memory_total_bytes=25_769_803_776,
            temperature_celsius=66.0,
            memory_temperature_celsius=70.0,
            power_watts=234.56789,
            power_limit_watts=350.0,
            sm_clock_hz=1.8e9,
            memory_clock_hz=9.5e9,
            fan_ratio=0.6,
            pcie_receive_bytes_per_s=1e9 / 3,
            pcie_transmit_bytes_per_s=1e8 / 3,
        ),
        GpuSample(index=1, lost=True),
    ),
    "work": WorkSample(rate=0.75, target=1.0, latency_ms=12.5, source="utilization"),
    "fpga": FpgaMetrics(
        wns_ns=-0.25, tns_ns=-3.5, failing_endpoints=12, whs_ns=0.03, ths_ns=0.0, wpws_ns=1.5, tpws_ns=0.0,
        lut_utilization_ratio=1.1,
    ),
}  # fmt: skip
"""Every group of a frame, with values that rounding would show."""


class Life:
    """A brain, and the ticks that it lives through, a second each unless told."""

    def __init__(self, interval_s: float = 1.0) -> None:
        self.brain = Brain(compiled=False)
        self.interval_s = interval_s

    def tick(self, *, at_s: float | None = None, **values: Any) -> Tick:
        """Live through one frame."""
        at_s = self.brain.sequence * self.interval_s if at_s is None else at_s
        frame = TelemetryFrame(
            node="lab",
            sequence=self.brain.sequence,
            time_utc=START + timedelta(seconds=at_s),
            monotonic_s=1000.0 + at_s,
            boot_id="boot",
            interval_s=self.interval_s,
            **values,
        )
        return self.brain.step(frame)


@pytest.fixture
def live() -> Callable[..., Life]:
    """Begins lives."""
    return Life


@pytest.fixture
def everything() -> dict[str, Any]:
    """Every group of a frame."""
    return dict(EVERYTHING)
