"""Whole machines: trees of /proc and /sys as the kernel documents them, NVML's answers, and their frames.

What a frame should hold is worked out from the files by hand; see tests/data/machines.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from machine_files import KINDS, machine_text, run_on, unpack

from neuromodd.core.frame import TelemetryFrame
from neuromodd.core.messages import telemetry_event

EXPECTED: dict[str, dict[str, Any]] = {
    "workstation": {
        "cpu.load_1m": 3.42,
        "cpu.frequency_max_hz": 5.881e9,
        "cpu.core_frequencies_hz": [4.4e9, 4.4e9, 3.6e9, 3.6e9, 2.2e9, 2.2e9, 3.6e9, 3.6e9],
        # Tctl is all that a k10temp without Tdie has of a package.
        "cpu.temperature_celsius": 61.125,
        "cpu.throttles_per_s": None,
        "memory.used_ratio": 0.25,
        "thermal.nvme/Composite.temperature_celsius": 43.85,
        "thermal.nvme/Composite.critical_celsius": 84.85,
        # 65261.85 degrees is no limit.
        "thermal.nvme/Sensor 1.max_celsius": None,
        "thermal.drivetemp/temp1.temperature_celsius": 37.0,
        "thermal.drivetemp/temp1.critical_celsius": 60.0,
        # -61 degrees is an input that nothing is connected to.
        "thermal.nct6798/AUXTIN0.temperature_celsius": None,
        "fans.nct6798/fan1.speed_rpm": 1180.0,
        "fans.nct6798/fan2.speed_rpm": 0.0,
        "voltages.nct6798/in0.volts": 1.304,
        "power.on_mains": None,
        "power.package_watts": 0.0,
        "limits": None,
        "gpus.0.name": "NVIDIA RTX 6000 Ada Generation",
        "gpus.0.pci_bus_id": "0000:01:00.0",
        "gpus.0.utilization_ratio": 0.97,
        "gpus.0.memory_used_bytes": 38_654_705_664,
        "gpus.0.power_watts": 297.5,
        "gpus.0.power_limit_watts": 300.0,
        "gpus.0.energy_joules": 8_012_345.678,
        "gpus.0.throttle_reasons": ["sw_power_cap"],
        "gpus.0.inforom_valid": True,
        "gpus.0.ecc_uncorrected": 0,
        "gpus.0.pcie_receive_bytes_per_s": 2.1e6,
        "gpus.1.name": "NVIDIA T400 4GB",
        "gpus.1.power_watts": None,
        "gpus.1.ecc_uncorrected": None,
        "gpus.1.utilization_ratio": 0.0,
        "gpus.1.compute_processes": 0,
        "gpu_driver_error": None,
    },
    "laptop": {
        "cpu.temperature_celsius": 52.0,
        "cpu.temperature_max_celsius": 100.0,
        "cpu.throttles_per_s": 0.0,
        "memory.swap_used_ratio": 0.25,
        "power.on_mains": False,
        # 31.98 of 52 Wh; the mouse's battery is not the host's.
        "power.battery_ratio": 0.615,
        "thermal.nvme/Composite.temperature_celsius": 35.85,
        "fans.thinkpad/fan1.speed_rpm": 0.0,
        "gpus.0.vendor": "nvidia",
        "gpus.0.suspended": True,
        "gpus.0.lost": False,
        "gpus.0.name": None,
        "gpus.0.power_watts": None,
        "gpu_driver_error": None,
        "limits": None,
    },
    "server": {
        "cpu.temperature_celsius": 72.0,
        "cpu.temperature_max_celsius": 94.0,
        "cpu.frequency_hz": 2.35e9,
        "memory.used_ratio": 0.75,
        "memory.swap_used_ratio": None,
        "thermal.jc42/temp1@0-0018.temperature_celsius": 41.25,
        "thermal.jc42/temp1@0-0019.temperature_celsius": 42.5,
        "power.package_watts": 0.0,
        "power.battery_ratio": None,
        "gpus.0.vendor": "amd",
        "gpus.0.name": "AMD Instinct MI210",
        "gpus.0.pci_bus_id": "0000:43:00.0",
        "gpus.0.utilization_ratio": 0.88,
        "gpus.0.memory_utilization_ratio": 0.41,
        "gpus.0.memory_total_bytes": 68_702_699_520,
        "gpus.0.temperature_celsius": 64.0,
        "gpus.0.memory_temperature_celsius": 69.0,
        "gpus.0.slowdown_celsius": 100.0,
        "gpus.0.shutdown_celsius": 105.0,
        "gpus.0.power_watts": 231.0,
        "gpus.0.power_limit_watts": 300.0,
        "gpus.0.core_volts": 0.837,
        "gpus.0.sm_clock_hz": 1.7e9,
        "gpus.0.sm_clock_max_hz": 1.7e9,
        "gpus.0.memory_clock_max_hz": 1.6e9,
        "gpus.0.pcie_link_width": 16,
        "gpus.0.fan_ratio": None,
        "gpus.1.power_watts": 41.0,
        "gpus.1.core_volts": 0.712,
        "gpu_driver_error": None,
    },
    "board": {
        "cpu.frequency_hz": 1.5e9,
        "cpu.core_frequencies_hz": [1.5e9] * 4,
        "cpu.temperature_celsius": 48.312,
        "cpu.throttles_per_s": None,
        "pressure": None,
        "power": None,
        "gpus": None,
        "fans.pwmfan/fan1.speed_rpm": 2400.0,
        # 150 ms in every 100 ms, and half a gibibyte.
        "limits.cpu_limit_cores": 1.5,
        "limits.memory_limit_bytes": 536_870_912,
        "limits.memory_used_ratio": 0.25,
    },
}


def at(frame: Any, path: str) -> Any:
    """The value at a dotted path; a part of a list is its index or its name."""
    value = frame
    parts = path.split(".")
    while parts and value is not None:
        part = parts.pop(0)
        if isinstance(value, list):
            named = [item for item in value if item.get("name") == part]
            value = named[0] if named else value[int(part)]
        else:
            value = value[part]
    return value


@pytest.fixture(scope="session")
def frames(nvml_stub: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """The frame of a kind of machine; taken once."""
    folder = tmp_path_factory.mktemp("machines")
    taken: dict[str, Any] = {}

    def frame(kind: str) -> Any:
        if kind not in taken:
            machine = unpack(machine_text(kind), folder / kind)
            taken[kind] = json.loads(run_on(machine, nvml_stub, "sample"))
        return taken[kind]

    return frame


@pytest.mark.parametrize(
    ("kind", "path"), [(kind, path) for kind, values in EXPECTED.items() for path in values]
)
def test_a_machine_is_measured(frames: Callable[[str], Any], kind: str, path: str) -> None:
    expected = EXPECTED[kind][path]
    value = at(frames(kind), path)
    assert value == (pytest.approx(expected) if isinstance(expected, float) else expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_machine_tells_nothing_twice(frames: Callable[[str], Any], kind: str) -> None:
    for group in ("thermal", "fans", "voltages"):
        names = [sensor["name"] for sensor in frames(kind)[group] or ()]
        assert len(names) == len(set(names))


def busy(value: Any, name: str = "") -> Any:
    """A frame with a number of six digits wherever one can be."""
    if isinstance(value, dict):
        return {key: busy(of, key) for key, of in value.items()}
    if isinstance(value, list):
        return [busy(of, name) for of in value]
    if name.endswith("_ratio"):
        return 0.123456789
    return 123456.789 if value == 0.0 and isinstance(value, float) else value


@pytest.mark.parametrize("kind", ["workstation", "laptop", "board"])
def test_what_a_machine_without_gpus_publishes_has_less_than_two_kilobytes(
    frames: Callable[[str], Any], kind: str
) -> None:
    frame = TelemetryFrame.from_dict({**busy(frames(kind)), "gpus": None, "sequence": 123_456_789})
    assert len(telemetry_event(frame).encoded(replayed=False)) < 2048
