"""Whole machines: trees of /proc and /sys as the kernel documents them, NVML's answers, and their frames.

What a frame should hold is worked out from the files by hand; see tests/data/machines.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from machine_files import pack, unpack

MACHINES = Path(__file__).parents[1] / "data" / "machines"
KINDS = ("workstation", "laptop", "server", "board")

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


Command = Callable[..., str]


@pytest.fixture(scope="session")
def command(nvml_stub: Path) -> Command:
    """Runs `neuromodd` on a machine's files, with its NVML where it has one; gives what it prints."""

    def run(machine: Path, name: str, *arguments: object) -> str:
        environment = os.environ | {"NVML_STUB_SCENARIO": str(machine / "nvml.txt")}
        # A machine without NVIDIA's library has none here either, whatever this one has.
        library = nvml_stub / "stub" if (machine / "nvml.txt").exists() else nvml_stub / "none"
        library.mkdir(exist_ok=True)
        if library.name == "none":
            (library / "libnvidia-ml.so.1").touch()
        environment["LD_LIBRARY_PATH"] = str(library)
        proc, sysfs = machine / "proc", machine / "sys"
        roots = ["--sensors.procfs_root", proc, "--sensors.sysfs_root", sysfs]
        roots += ["--sensors.limits.procfs_root", proc, "--sensors.limits.sysfs_root", sysfs]
        fast = ["--tick.interval_s", "0.05", "--node", "lab"]
        done = subprocess.run(
            [sys.executable, "-m", "neuromodd", name, *map(str, (*arguments, *roots, *fast))],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout

    return run


@pytest.fixture(scope="session")
def machines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The files of every kind of machine."""
    folder = tmp_path_factory.mktemp("machines")
    return {kind: unpack((MACHINES / f"{kind}.txt").read_text(), folder / kind) for kind in KINDS}


@pytest.fixture(scope="session")
def frames(command: Command, machines: dict[str, Path]) -> Callable[[str], Any]:
    """The frame of a kind of machine; taken once."""
    taken: dict[str, Any] = {}

    def frame(kind: str) -> Any:
        if kind not in taken:
            taken[kind] = json.loads(command(machines[kind], "sample"))
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


# Capturing


def changing(frame: Any) -> Any:
    """A frame without what no two looks have in common."""
    gone = (
        "time_utc",
        "monotonic_s",
        "interval_s",
        "lateness_ms",
        "sequence",
        "boot_id",
        "node",
        "gpus",
        "work",
    )
    return {name: value for name, value in frame.items() if name not in gone}


def gpus(frame: Any) -> Any:
    """The GPUs without their identities, which a capture replaces."""
    return [{**gpu, "uuid": None} for gpu in frame["gpus"] or ()]


@pytest.mark.parametrize("kind", KINDS)
def test_a_captured_machine_gives_the_frame_of_the_machine(
    frames: Callable[[str], Any], command: Command, machines: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    command(machines[kind], "capture", tmp_path / "copy")
    again = json.loads(command(tmp_path / "copy", "sample"))
    assert changing(again) == changing(frames(kind))
    assert gpus(again) == gpus(frames(kind))


@pytest.mark.parametrize(
    "secret",
    [
        "b827eb123456",  # the address in an interface's name
        "deadbeef",  # the board's serial number
        "0d9c4a8e-8f0e-4a53-9c7c-52a5d90b8e21",  # the boot
    ],
)
def test_a_capture_does_not_tell(
    command: Command, machines: dict[str, Path], tmp_path: Path, secret: str
) -> None:
    assert secret in pack(machines["board"])
    command(machines["board"], "capture", tmp_path / "copy")
    assert secret not in pack(tmp_path / "copy")


def test_a_capture_of_gpus_does_not_tell_their_uuids(command: Command, tmp_path: Path) -> None:
    text = (MACHINES / "workstation.txt").read_text()
    private = unpack(text.replace("00000000-0000-4000-8000-000000000001", PRIVATE_UUID), tmp_path / "private")
    command(private, "capture", tmp_path / "copy")
    assert PRIVATE_UUID not in pack(tmp_path / "copy")
    assert "GPU-00000000-0000-4000-8000-" in (tmp_path / "copy" / "nvml.txt").read_text()


PRIVATE_UUID = "5c0ffee5-1234-4abc-9def-0123456789ab"


def test_a_capture_goes_into_an_empty_directory_only(
    command: Command, machines: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(subprocess.CalledProcessError) as failed:
        command(machines["board"], "capture", tmp_path)
    assert failed.value.returncode == 1
    assert "expected a directory that is new or empty" in failed.value.stderr
