from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NOT_SUPPORTED, NO_PERMISSION, INVALID_ARGUMENT, FUNCTION_NOT_FOUND = "!3", "!4", "!2", "!13"
UNINITIALIZED, DRIVER_NOT_LOADED, MISMATCH = "!1", "!9", "!18"
TIMEOUT, GPU_IS_LOST, RESET_REQUIRED, UNKNOWN = "!10", "!15", "!16", "!999"

GPU_LINES = """\
{index} handle 0
{index} uuid GPU-{index}0000000-aaaa
{index} name NVIDIA Stub {index}
{index} utilization 75
{index} memory_total 24000000000
{index} memory_used 6000000000
{index} temperature 64
{index} slowdown 93
{index} power 250500
{index} power_limit 350000
{index} sm_clock 1410
{index} sm_clock_max 1980
{index} fan 45
"""

HEALTHY = "- init 0\n- count 2\n" + GPU_LINES.format(index=0) + GPU_LINES.format(index=1)

# Reads the sensor once a step, each with its time and scenario, in a process that finds the stub.
SCRIPT = """
import dataclasses, json, os, pathlib, sys
from neuromodd.errors import SensorAbsentError
from neuromodd.sensors.nvml import NvmlSensor

now = [0.0]
sensor = NvmlSensor(clock=lambda: now[0])
results = []
for now[0], scenario, installed in json.load(sys.stdin):
    pathlib.Path(os.environ["NVML_STUB_SCENARIO"]).write_text(scenario)
    if installed:
        os.replace(os.environ["NVML_STUB_TO_INSTALL"], os.environ["NVML_STUB_LIBRARY"])
    try:
        reading = sensor.read()
    except SensorAbsentError as error:
        results.append({"absent": str(error), "imported": "pynvml" in sys.modules})
    else:
        gpus = [gpu.model_dump() for gpu in reading.gpus]
        results.append({"gpus": gpus, "driver_error": reading.driver_error})
sensor.close()
log = pathlib.Path(os.environ["NVML_STUB_LOG"])
json.dump({"results": results, "log": log.read_text().splitlines() if log.exists() else []}, sys.stdout)
"""

Play = Callable[..., tuple[list[dict[str, Any]], list[str]]]


@pytest.fixture
def play(nvml_stub: Path, tmp_path: Path) -> Play:
    """Plays steps (time, scenario) against a sensor; gives its readings and the log of the stub.

    With `installed_at`, there is no library before the step of that number.
    """

    def run(
        *steps: tuple[float, str], installed_at: int | None = None
    ) -> tuple[list[dict[str, Any]], list[str]]:
        library = tmp_path / "libnvidia-ml.so.1"
        (tmp_path / "stub").write_bytes((nvml_stub / library.name).read_bytes())
        # An empty file keeps the loader from going on to a library of this machine.
        library.write_bytes(b"" if installed_at is not None else (tmp_path / "stub").read_bytes())
        environment = os.environ | {
            "LD_LIBRARY_PATH": str(tmp_path),
            "NVML_STUB_SCENARIO": str(tmp_path / "scenario"),
            "NVML_STUB_LOG": str(tmp_path / "log"),
            "NVML_STUB_LIBRARY": str(library),
            "NVML_STUB_TO_INSTALL": str(tmp_path / "stub"),
        }
        numbered = [(*step, number == installed_at) for number, step in enumerate(steps)]
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            input=json.dumps(numbered),
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=60,
        )
        answer = json.loads(done.stdout)
        return answer["results"], answer["log"]

    return run


def read_once(play: Play, *changes: str) -> dict[str, Any]:
    """The one reading of a healthy host with these lines added to its scenario."""
    results, _ = play((0.0, HEALTHY + "".join(f"{change}\n" for change in changes)))
    return results[0]


def test_a_healthy_gpu_tells_every_value_in_the_units_of_the_frame(play: Play) -> None:
    gpu = read_once(play)["gpus"][1]
    expected = {
        "index": 1,
        "uuid": "GPU-10000000-aaaa",
        "name": "NVIDIA Stub 1",
        "utilization_ratio": 0.75,
        "memory_used_bytes": 6_000_000_000,
        "memory_total_bytes": 24_000_000_000,
        "temperature_celsius": 64.0,
        "slowdown_celsius": 93.0,
        "power_watts": 250.5,
        "power_limit_watts": 350.0,
        "sm_clock_hz": 1.41e9,
        "sm_clock_max_hz": 1.98e9,
        "fan_ratio": 0.45,
        "lost": False,
    }
    assert {key: gpu[key] for key in expected} == expected


@pytest.mark.parametrize(
    "code", [NOT_SUPPORTED, NO_PERMISSION, INVALID_ARGUMENT, FUNCTION_NOT_FOUND, UNKNOWN]
)
def test_a_question_without_an_answer_leaves_only_its_own_field_none(play: Play, code: str) -> None:
    gpu = read_once(play, f"0 fan {code}")["gpus"][0]
    assert (gpu["fan_ratio"], gpu["power_watts"], gpu["lost"]) == (None, 250.5, False)


def test_numbers_that_mean_not_available_are_none(play: Play) -> None:
    every_bit, every_wide_bit = 2**32 - 1, 2**64 - 1
    gpu = read_once(
        play,
        *(
            f"0 {question} {every_bit}"
            for question in ("utilization", "temperature", "power", "sm_clock", "fan")
        ),
        f"0 memory_total {every_wide_bit}",
    )["gpus"][0]
    fields = "utilization_ratio temperature_celsius power_watts sm_clock_hz fan_ratio memory_total_bytes"
    assert {gpu[field] for field in fields.split()} == {None}


def test_more_memory_used_than_there_is_means_that_neither_is_known(play: Play) -> None:
    gpu = read_once(play, "0 memory_used 25000000000")["gpus"][0]
    assert (gpu["memory_used_bytes"], gpu["memory_total_bytes"]) == (None, None)


def test_a_limit_of_zero_is_none(play: Play) -> None:
    gpu = read_once(play, "0 power_limit 0", "0 slowdown 0", "0 sm_clock_max 0")["gpus"][0]
    assert (gpu["power_limit_watts"], gpu["slowdown_celsius"], gpu["sm_clock_max_hz"]) == (None, None, None)


@pytest.mark.parametrize("code", [GPU_IS_LOST, RESET_REQUIRED, TIMEOUT, UNKNOWN])
def test_a_gpu_that_is_lost_midway_keeps_its_identity_and_nothing_else(play: Play, code: str) -> None:
    results, _ = play((0.0, HEALTHY), (1.0, HEALTHY + f"0 * {code}\n"))
    gpu = results[1]["gpus"][0]
    told = {key: value for key, value in gpu.items() if value is not None and value is not False}
    assert told == {"index": 0, "uuid": "GPU-00000000-aaaa", "name": "NVIDIA Stub 0", "lost": True}


def test_a_gpu_that_is_lost_does_not_hide_the_other(play: Play) -> None:
    results, _ = play((0.0, HEALTHY), (1.0, HEALTHY + f"0 * {GPU_IS_LOST}\n"))
    assert results[1]["gpus"][1]["power_watts"] == 250.5


def test_a_gpu_that_is_lost_from_the_start_is_reported(play: Play) -> None:
    gpus = read_once(play, f"0 * {GPU_IS_LOST}")["gpus"]
    assert [(gpu["index"], gpu["uuid"], gpu["lost"]) for gpu in gpus] == [
        (0, None, True),
        (1, "GPU-10000000-aaaa", False),
    ]


def test_a_gpu_that_comes_back_is_read_again(play: Play) -> None:
    results, _ = play((0.0, HEALTHY), (1.0, HEALTHY + f"0 * {GPU_IS_LOST}\n"), (2.0, HEALTHY))
    assert results[2] == results[0]


def test_a_gpu_that_takes_the_place_of_a_lost_one_has_its_own_identity(play: Play) -> None:
    lost, other = f"0 * {GPU_IS_LOST}\n", "0 uuid GPU-other\n"
    results, _ = play((0.0, HEALTHY), (1.0, HEALTHY + lost), (2.0, HEALTHY + other))
    assert results[2]["gpus"][0]["uuid"] == "GPU-other"


@pytest.mark.parametrize(
    ("code", "word"),
    [
        (DRIVER_NOT_LOADED, "DriverNotLoaded"),
        (MISMATCH, "LibRmVersionMismatch"),
        (RESET_REQUIRED, "ResetRequired"),
        (UNKNOWN, "Unknown"),
        ("!77", "Error77"),
    ],
)
def test_a_driver_that_does_not_start_says_why(play: Play, code: str, word: str) -> None:
    assert read_once(play, f"- init {code}") == {"gpus": [], "driver_error": word}


def test_a_driver_that_can_not_count_is_shut_down_before_it_is_initialised_again(play: Play) -> None:
    _, log = play((0.0, HEALTHY + f"- count {MISMATCH}\n"), (5.0, HEALTHY))
    assert log == ["init", "shutdown", "init", "shutdown"]


def test_a_driver_that_goes_away_midway_says_why(play: Play) -> None:
    results, _ = play((0.0, HEALTHY), (1.0, HEALTHY + f"1 * {UNINITIALIZED}\n"))
    assert results[1] == {"gpus": [], "driver_error": "Uninitialized"}


def test_a_driver_that_comes_back_is_read_again_after_the_back_off(play: Play) -> None:
    results, _ = play((0.0, HEALTHY + f"- init {MISMATCH}\n"), (4.9, HEALTHY), (5.0, HEALTHY))
    told = [(result["driver_error"], len(result["gpus"])) for result in results]
    assert told == [("LibRmVersionMismatch", 0), ("LibRmVersionMismatch", 0), (None, 2)]


def test_the_back_off_doubles_to_a_minute(play: Play) -> None:
    refused = HEALTHY + f"- init {DRIVER_NOT_LOADED}\n"
    # Tries at 0, 5, 15, 35, 75, 135 and 195 s, and at no other second.
    _, log = play(*((float(second), refused) for second in range(200)))
    assert log == ["init refused"] * 7


def test_a_driver_that_worked_meanwhile_starts_with_the_first_back_off(play: Play) -> None:
    refused = HEALTHY + f"- init {DRIVER_NOT_LOADED}\n"
    gone = HEALTHY + f"0 * {UNINITIALIZED}\n"
    results, _ = play((0.0, refused), (5.0, refused), (15.0, HEALTHY), (16.0, gone), (21.0, HEALTHY))
    assert results[4]["driver_error"] is None


def test_a_healthy_driver_is_initialised_once(play: Play) -> None:
    _, log = play((0.0, HEALTHY), (1.0, HEALTHY), (61.0, HEALTHY))
    assert log == ["init", "shutdown"]


@pytest.mark.parametrize(("later_s", "count"), [(59.0, 2), (60.0, 1)])
def test_gpus_are_counted_every_minute(play: Play, later_s: float, count: int) -> None:
    results, _ = play((0.0, HEALTHY), (later_s, HEALTHY + "- count 1\n"))
    assert len(results[1]["gpus"]) == count


def test_a_driver_without_a_gpu_means_absent(play: Play) -> None:
    assert read_once(play, "- count 0")["absent"] == "nvml: the driver has no GPU"


def test_without_the_library_the_sensor_is_absent_and_its_binding_not_imported(play: Play) -> None:
    results, _ = play((0.0, HEALTHY), installed_at=1)
    assert ("absent" in results[0], results[0]["imported"]) == (True, False)


def test_a_driver_that_is_installed_later_is_found(play: Play) -> None:
    results, _ = play((0.0, HEALTHY), (60.0, HEALTHY), installed_at=1)
    assert len(results[1]["gpus"]) == 2
