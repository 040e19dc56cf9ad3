"""What looking at the machine costs: each sensor and a whole frame, without and with eight GPUs of the stub.

    python benchmarks/sensors.py [--looks 300]

Needs gcc for the library that stands in for NVML (tests/sensors/nvml_stub.c). CPU time of the process, the
median of all looks but the first. Absent sensors are not asked, as in the daemon. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from neuromodd import logs
from neuromodd.config import Settings
from neuromodd.errors import SensorAbsentError
from neuromodd.eye import Eye, build_sensors
from neuromodd.loading import load

STUB = Path(__file__).parents[1] / "tests" / "sensors" / "nvml_stub.c"
GPUS = 8

DRIVER = f"- nvmlInit 0\n- nvmlEventSetCreate 0\n- nvmlDeviceGetCount {GPUS}\n"
ANSWERS = {
    "nvmlDeviceGetHandle": 0,
    "nvmlDeviceGetPciInfo.busId": "00000000:01:00.0",
    "nvmlDeviceGetUUID": "GPU-00000000-0000-4000-8000-000000000000",
    "nvmlDeviceGetName": "NVIDIA Stub",
    "nvmlDeviceGetUtilizationRates.gpu": 75,
    "nvmlDeviceGetUtilizationRates.memory": 30,
    "nvmlDeviceGetMemoryInfo.total": 24_000_000_000,
    "nvmlDeviceGetMemoryInfo.used": 6_000_000_000,
    "nvmlDeviceGetTemperature/0": 64,
    "nvmlDeviceGetTemperatureThreshold/0": 98,
    "nvmlDeviceGetTemperatureThreshold/1": 93,
    "nvmlDeviceGetPowerUsage": 250_500,
    "nvmlDeviceGetEnforcedPowerLimit": 350_000,
    "nvmlDeviceGetTotalEnergyConsumption": 123_456_789,
    "nvmlDeviceGetClockInfo/1": 1410,
    "nvmlDeviceGetMaxClockInfo/1": 1980,
    "nvmlDeviceGetClockInfo/2": 9501,
    "nvmlDeviceGetMaxClockInfo/2": 10_501,
    "nvmlDeviceGetFanSpeed": 45,
    "nvmlDeviceGetPerformanceState": 2,
    "nvmlDeviceGetCurrentClocksThrottleReasons": 4,
    "nvmlDeviceGetEncoderUtilization.0": 0,
    "nvmlDeviceGetDecoderUtilization.0": 0,
    "nvmlDeviceGetComputeRunningProcesses": 1,
    "nvmlDeviceGetMigMode.0": 0,
    "nvmlDeviceGetCurrPcieLinkWidth": 16,
    "nvmlDeviceGetMaxPcieLinkWidth": 16,
    "nvmlDeviceValidateInforom": 0,
    "nvmlDeviceRegisterEvents": 0,
    "nvmlDeviceGetFieldValues": 0,
    **{f"nvmlDeviceGetFieldValues/{field}": 1 for field in (3, 4, 82, 142, 143, 144, 197, 198)},
}


def median_us(costs_ns: list[int]) -> float:
    return statistics.median(costs_ns[1:]) / 1e3


def each_sensor(settings: Settings, looks: int) -> dict[str, float | None]:
    """Microseconds of CPU a reading, by sensor; None for one that this host does not have."""
    costs: dict[str, float | None] = {}
    for sensor in build_sensors(settings):
        taken: list[int] = []
        try:
            for _ in range(looks):
                began = time.thread_time_ns()
                sensor.read()
                taken.append(time.thread_time_ns() - began)
        except (SensorAbsentError, OSError):
            costs[sensor.name] = None
        else:
            costs[sensor.name] = median_us(taken)
        sensor.close()
    return costs


async def whole_frame(settings: Settings, looks: int) -> float:
    """Microseconds of CPU a frame, all threads, from the look to the record."""
    eye = Eye(settings)
    taken = []
    for sequence in range(looks):
        began = time.process_time_ns()
        await eye.look(sequence=sequence, lateness_ms=0.0)
        taken.append(time.process_time_ns() - began)
    eye.close()
    return median_us(taken)


def measure(looks: int) -> dict[str, float | None]:
    logs.configure(level="error", form="json")
    settings = load(None, {}).settings
    return each_sensor(settings, looks) | {"a whole frame": asyncio.run(whole_frame(settings, looks))}


def measure_with_gpus(looks: int) -> dict[str, float | None]:
    """The same in a process that finds the stub."""
    with tempfile.TemporaryDirectory() as folder:
        library, scenario = Path(folder) / "libnvidia-ml.so.1", Path(folder) / "scenario"
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", library, STUB], check=True)
        lines = [
            f"{gpu} {question} {answer}\n" for gpu in range(GPUS) for question, answer in ANSWERS.items()
        ]
        scenario.write_text(DRIVER + "".join(lines))
        done = subprocess.run(
            [sys.executable, __file__, "--looks", str(looks), "--json"],
            env=os.environ | {"LD_LIBRARY_PATH": folder, "NVML_STUB_SCENARIO": str(scenario)},
            capture_output=True,
            text=True,
            check=True,
        )
    measured: dict[str, float | None] = json.loads(done.stdout)
    return measured


def cell(cost_us: float | None) -> str:
    return "-" if cost_us is None else f"{cost_us:,.0f} us"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--looks", type=int, default=300)
    parser.add_argument("--json", action="store_true", help="this process alone, as JSON")
    arguments = parser.parse_args()
    if arguments.json:
        print(json.dumps(measure(arguments.looks)))
        return
    here, with_gpus = measure(arguments.looks), measure_with_gpus(arguments.looks)
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "?")
    print(f"{model}, {os.cpu_count()} cores, Linux {platform.release().split('-')[0]}, ", end="")
    print(f"Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}; {arguments.looks} looks\n")
    print(f"| CPU time a reading | this host | with {GPUS} GPUs of the stub |\n|---|---|---|")
    for name in here:
        if here[name] is not None or with_gpus[name] is not None:
            print(f"| {name} | {cell(here[name])} | {cell(with_gpus[name])} |")
    absent = [name for name in here if here[name] is None and with_gpus[name] is None]
    print(f"\nAbsent here: {', '.join(absent)}.")


if __name__ == "__main__":
    main()
