"""NVIDIA GPUs, through the real binding and a driver library in C that plays scenarios."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

# Deadlines and gaps are judged here: a machine that is busy with other tests would be blamed on the daemon.
pytestmark = pytest.mark.alone

NOT_SUPPORTED, NO_PERMISSION, INVALID_ARGUMENT, FUNCTION_NOT_FOUND = "!3", "!4", "!2", "!13"
UNINITIALIZED, DRIVER_NOT_LOADED, MISMATCH = "!1", "!9", "!18"
TIMEOUT, GPU_IS_LOST, RESET_REQUIRED, UNKNOWN = "!10", "!15", "!16", "!999"

GPU = """\
{index} nvmlDeviceGetHandle 0
{index} nvmlDeviceGetPciInfo.busId 00000000:{index}1:00.0
{index} nvmlDeviceGetUUID GPU-{index}0000000-aaaa
{index} nvmlDeviceGetName NVIDIA Stub {index}
{index} nvmlDeviceGetUtilizationRates.gpu 75
{index} nvmlDeviceGetUtilizationRates.memory 30
{index} nvmlDeviceGetMemoryInfo.total 24000000000
{index} nvmlDeviceGetMemoryInfo.used 6000000000
{index} nvmlDeviceGetTemperature/0 64
{index} nvmlDeviceGetTemperatureThreshold/0 98
{index} nvmlDeviceGetTemperatureThreshold/1 93
{index} nvmlDeviceGetPowerUsage 250500
{index} nvmlDeviceGetEnforcedPowerLimit 350000
{index} nvmlDeviceGetTotalEnergyConsumption 123456789
{index} nvmlDeviceGetClockInfo/1 1410
{index} nvmlDeviceGetMaxClockInfo/1 1980
{index} nvmlDeviceGetClockInfo/2 9501
{index} nvmlDeviceGetMaxClockInfo/2 10501
{index} nvmlDeviceGetFanSpeed 45
{index} nvmlDeviceGetPerformanceState 2
{index} nvmlDeviceGetCurrentClocksThrottleReasons 132
{index} nvmlDeviceGetEncoderUtilization.0 12
{index} nvmlDeviceGetDecoderUtilization.0 7
{index} nvmlDeviceGetComputeRunningProcesses 3
{index} nvmlDeviceGetMigMode.0 0
{index} nvmlDeviceGetCurrPcieLinkWidth 8
{index} nvmlDeviceGetMaxPcieLinkWidth 16
{index} nvmlDeviceValidateInforom 0
{index} nvmlDeviceRegisterEvents 0
{index} nvmlDeviceGetFieldValues 0
{index} nvmlDeviceGetFieldValues/82 78
{index} nvmlDeviceGetFieldValues/197 5000000
{index} nvmlDeviceGetFieldValues/198 7000000
{index} nvmlDeviceGetFieldValues/3 4
{index} nvmlDeviceGetFieldValues/4 1
{index} nvmlDeviceGetFieldValues/142 2
{index} nvmlDeviceGetFieldValues/143 1
{index} nvmlDeviceGetFieldValues/144 1
"""

DRIVER = "- nvmlInit 0\n- nvmlEventSetCreate 0\n"

HEALTHY = f"{DRIVER}- nvmlDeviceGetCount 2\n" + GPU.format(index=0) + GPU.format(index=1)

# Reads the sensor once a step, in a process that finds the stub.
SCRIPT = """
import json, os, pathlib, sys
from neuromodd.errors import SensorAbsentError
from neuromodd.sensors.nvml import NvmlSensor

now = [0.0]
sysfs = pathlib.Path(os.environ["TEST_SYSFS"])
library = pathlib.Path(os.environ["TEST_LIBRARY"])
sensor = NvmlSensor(sysfs_root=sysfs, clock=lambda: now[0])
results = []
for step in json.load(sys.stdin):
    now[0] = step["at_s"]
    scenario = pathlib.Path(os.environ["NVML_STUB_SCENARIO"])
    if not scenario.exists() or scenario.read_text() != step["scenario"]:
        scenario.with_name("draft").write_text(step["scenario"])
        scenario.with_name("draft").replace(scenario)
    if step["library"] is not None:
        os.replace(library.with_name(step["library"]), library)
    for address, status in step["power"].items():
        (sysfs / "bus/pci/devices" / address / "power/runtime_status").write_text(status)
    try:
        reading = sensor.read()
    except SensorAbsentError as error:
        results.append({"absent": str(error), "imported": "pynvml" in sys.modules})
    else:
        results.append({
            "gpus": [gpu.model_dump() for gpu in reading.gpus],
            "pcie": {index: list(counters) for index, counters in reading.pcie.items()},
            "driver_error": reading.driver_error,
        })
sensor.close()
log = pathlib.Path(os.environ["NVML_STUB_LOG"])
json.dump({"results": results, "log": log.read_text().splitlines() if log.exists() else []}, sys.stdout)
"""

# Likewise, and tells which exceptions nothing but the garbage collector would have freed.
HOARDER = "import gc; gc.set_debug(gc.DEBUG_SAVEALL)" + SCRIPT.replace(
    "sensor.close()",
    "gc.collect(); results = [{'left': [str(of) for of in gc.garbage if isinstance(of, Exception)]}]",
)

Result = dict[str, Any]
Play = Callable[..., tuple[list[Result], list[str]]]
AddGpu = Callable[..., Path]
Hang = Callable[..., list[Any]]


class Step(NamedTuple):
    """One reading: when, what the driver answers, which library is put in place, who sleeps."""

    at_s: float
    scenario: str = HEALTHY
    library: str | None = None
    power: dict[str, str] = {}  # noqa: RUF012 - never changed


@pytest.fixture
def play(nvml_stub: Path, sysfs: Path, tmp_path: Path) -> Play:
    """Plays steps against a sensor; gives its readings and the log of the stub.

    `library` is what lies there at the beginning: `stub` unless told, `none` or `newer`.
    """

    def run(*steps: Step, library: str = "stub", script: str = SCRIPT) -> tuple[list[Result], list[str]]:
        folder = tmp_path / "library"
        folder.mkdir()
        for name in ("stub", "newer"):
            (folder / name).write_bytes((nvml_stub / name / "libnvidia-ml.so.1").read_bytes())
        # An empty file keeps the loader from going on to a library of this machine.
        content = b"" if library == "none" else (folder / library).read_bytes()
        (folder / "libnvidia-ml.so.1").write_bytes(content)
        environment = os.environ | {
            "LD_LIBRARY_PATH": str(folder),
            "NVML_STUB_SCENARIO": str(tmp_path / "scenario"),
            "NVML_STUB_LOG": str(tmp_path / "log"),
            "TEST_LIBRARY": str(folder / "libnvidia-ml.so.1"),
            "TEST_SYSFS": str(sysfs),
        }
        done = subprocess.run(
            [sys.executable, "-c", script],
            input=json.dumps([step._asdict() for step in steps]),
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=60,
        )
        answer = json.loads(done.stdout)
        return answer["results"], answer["log"]

    return run


@pytest.fixture
def add_gpu(sysfs: Path, write: Callable[[Path, str], Path]) -> AddGpu:
    """Puts a display device on the PCI bus."""

    def add(address: str, *, vendor: str = "0x10de", driver: str = "nvidia", status: str = "active") -> Path:
        folder = sysfs / "bus/pci/devices" / address
        write(folder / "vendor", f"{vendor}\n")
        write(folder / "class", "0x030000\n")
        write(folder / "power/runtime_status", f"{status}\n")
        (sysfs / "bus/pci/drivers" / driver).mkdir(parents=True, exist_ok=True)
        (folder / "driver").symlink_to(sysfs / "bus/pci/drivers" / driver)
        return folder

    return add


def read_once(play: Play, *changes: str) -> Result:
    """The one reading of a healthy host with these lines added to its scenario."""
    results, _ = play(Step(0.0, HEALTHY + "".join(f"{change}\n" for change in changes)))
    return results[0]


def told(gpu: Result) -> Result:
    return {name: value for name, value in gpu.items() if value is not None and value is not False}


def test_a_healthy_gpu_tells_every_value_in_the_units_of_the_frame(play: Play) -> None:
    result = read_once(play)
    assert result["gpus"][1] == {
        "index": 1,
        "vendor": "nvidia",
        "uuid": "GPU-10000000-aaaa",
        "name": "NVIDIA Stub 1",
        "pci_bus_id": "0000:11:00.0",
        "lost": False,
        "suspended": False,
        "hung": False,
        "fault": None,
        "utilization_ratio": 0.75,
        "memory_utilization_ratio": 0.3,
        "encoder_utilization_ratio": 0.12,
        "decoder_utilization_ratio": 0.07,
        "memory_used_bytes": 6_000_000_000,
        "memory_total_bytes": 24_000_000_000,
        "temperature_celsius": 64.0,
        "memory_temperature_celsius": 78.0,
        "slowdown_celsius": 93.0,
        "shutdown_celsius": 98.0,
        "power_watts": 250.5,
        "power_limit_watts": 350.0,
        "energy_joules": 123456.789,
        "core_volts": None,
        "sm_clock_hz": 1.41e9,
        "sm_clock_max_hz": 1.98e9,
        "memory_clock_hz": 9.501e9,
        "memory_clock_max_hz": 1.0501e10,
        "fan_ratio": 0.45,
        "performance_state": 2,
        "throttle_reasons": ["sw_power_cap", "hw_power_brake_slowdown"],
        "xid_errors": [],
        "ecc_corrected": 4,
        "ecc_uncorrected": 1,
        "retired_pages": None,
        "remapped_rows": 3,
        "reset_pending": True,
        "inforom_valid": True,
        "pcie_receive_bytes_per_s": None,
        "pcie_transmit_bytes_per_s": None,
        "pcie_link_width": 8,
        "pcie_link_width_max": 16,
        "compute_processes": 3,
        "mig_enabled": False,
    }
    # Rates are made of them, where a frame is.
    assert result["pcie"] == {"0": [7_000_000, 5_000_000], "1": [7_000_000, 5_000_000]}


def test_a_gpu_that_supports_nothing_but_its_name_has_nothing_else(play: Play) -> None:
    lines = "0 nvmlDeviceGetHandle 0\n0 nvmlDeviceGetName NVIDIA Old\n"
    results, _ = play(Step(0.0, f"{DRIVER}- nvmlDeviceGetCount 1\n{lines}"))
    assert told(results[0]["gpus"][0]) == {"index": 0, "vendor": "nvidia", "name": "NVIDIA Old"}


def test_what_is_not_supported_is_not_asked_again_until_the_next_count(play: Play) -> None:
    without = HEALTHY + "0 nvmlDeviceGetFanSpeed !3\n"
    results, _ = play(Step(0.0, without), Step(1.0), Step(60.0))
    assert [result["gpus"][0]["fan_ratio"] for result in results] == [None, None, 0.45]


def test_a_partitioned_gpu_tells_no_utilisation_whatever_the_library_says(play: Play) -> None:
    gpu = read_once(play, "0 nvmlDeviceGetMigMode.0 1", "0 nvmlDeviceGetUtilizationRates.gpu 0")["gpus"][0]
    ratios = [value for name, value in gpu.items() if name.endswith("utilization_ratio")]
    assert (gpu["mig_enabled"], ratios) == (True, [None] * 4)


def test_pages_that_were_retired_are_counted_for_either_cause(play: Play) -> None:
    lines = [f"0 nvmlDeviceGetFieldValues/{field} {count}" for field, count in ((29, 5), (30, 2), (31, 0))]
    no_rows = [f"0 nvmlDeviceGetFieldValues/{field} !3" for field in (142, 143, 144)]
    gpu = read_once(play, *lines, *no_rows)["gpus"][0]
    assert (gpu["retired_pages"], gpu["remapped_rows"], gpu["reset_pending"]) == (7, None, False)


def test_what_changes_by_the_minute_is_asked_every_ten_seconds(play: Play) -> None:
    narrow = HEALTHY + "0 nvmlDeviceGetCurrPcieLinkWidth 1\n"
    results, _ = play(Step(0.0), Step(9.9, narrow), Step(10.0, narrow))
    assert [result["gpus"][0]["pcie_link_width"] for result in results] == [8, 8, 1]


def test_without_byte_counters_the_throughput_is_measured(play: Play) -> None:
    result = read_once(
        play,
        "0 nvmlDeviceGetFieldValues/197 !3",
        "0 nvmlDeviceGetPcieThroughput/0 2500",
        "0 nvmlDeviceGetPcieThroughput/1 1500",
    )
    gpu = result["gpus"][0]
    assert (gpu["pcie_receive_bytes_per_s"], gpu["pcie_transmit_bytes_per_s"]) == (1.5e6, 2.5e6)
    assert list(result["pcie"]) == ["1"]


def test_an_inforom_that_is_corrupted_is_told(play: Play) -> None:
    gpus = read_once(play, "0 nvmlDeviceValidateInforom !14")["gpus"]
    assert [gpu["inforom_valid"] for gpu in gpus] == [False, True]


def test_an_inforom_that_was_repaired_is_asked_again_after_a_loss(play: Play) -> None:
    corrupted = HEALTHY + "0 nvmlDeviceValidateInforom !14\n"
    gone = HEALTHY + f"0 * {UNINITIALIZED}\n"
    results, _ = play(Step(0.0, corrupted), Step(1.0, gone), Step(6.0))
    assert [result["gpus"][0]["inforom_valid"] for result in (results[0], results[2])] == [False, True]


def test_a_card_that_was_swapped_is_not_blamed_for_the_one_before(play: Play) -> None:
    corrupted = HEALTHY + "0 nvmlDeviceValidateInforom !14\n"
    results, _ = play(Step(0.0, corrupted), Step(60.0, HEALTHY + "0 nvmlDeviceGetUUID GPU-other\n"))
    assert [result["gpus"][0]["inforom_valid"] for result in results] == [False, True]


def test_errors_of_the_driver_are_told_once_and_by_the_gpu_that_had_them(play: Play) -> None:
    troubled = HEALTHY + "1 xid 119\n1 xid 79\n"
    results, _ = play(Step(0.0), Step(1.0, troubled), Step(2.0, troubled))
    told_each = [[gpu["xid_errors"] for gpu in result["gpus"]] for result in results]
    assert told_each == [[[], []], [[], [119, 79]], [[], []]]


def test_without_events_errors_are_not_known(play: Play) -> None:
    assert read_once(play, "- nvmlEventSetCreate !3")["gpus"][0]["xid_errors"] is None


@pytest.mark.parametrize(
    "code", [NOT_SUPPORTED, NO_PERMISSION, INVALID_ARGUMENT, FUNCTION_NOT_FOUND, UNKNOWN]
)
def test_a_question_without_an_answer_leaves_only_its_own_field_none(play: Play, code: str) -> None:
    gpu = read_once(play, f"0 nvmlDeviceGetFanSpeed {code}")["gpus"][0]
    assert (gpu["fan_ratio"], gpu["power_watts"], gpu["lost"]) == (None, 250.5, False)


def test_numbers_that_mean_not_available_are_none(play: Play) -> None:
    every_bit, every_wide_bit = 2**32 - 1, 2**64 - 1
    gpu = read_once(
        play,
        *(
            f"0 {question} {every_bit}"
            for question in (
                "nvmlDeviceGetUtilizationRates.gpu",
                "nvmlDeviceGetTemperature/0",
                "nvmlDeviceGetPowerUsage",
                "nvmlDeviceGetClockInfo/1",
                "nvmlDeviceGetFanSpeed",
            )
        ),
        f"0 nvmlDeviceGetMemoryInfo.total {every_wide_bit}",
    )["gpus"][0]
    fields = "utilization_ratio temperature_celsius power_watts sm_clock_hz fan_ratio memory_total_bytes"
    assert {gpu[field] for field in fields.split()} == {None}


def test_more_memory_used_than_there_is_means_that_neither_is_known(play: Play) -> None:
    gpu = read_once(play, "0 nvmlDeviceGetMemoryInfo.used 25000000000")["gpus"][0]
    assert (gpu["memory_used_bytes"], gpu["memory_total_bytes"]) == (None, None)


def test_a_limit_of_zero_is_none(play: Play) -> None:
    gpu = read_once(
        play,
        "0 nvmlDeviceGetEnforcedPowerLimit 0",
        "0 nvmlDeviceGetTemperatureThreshold/1 0",
        "0 nvmlDeviceGetMaxClockInfo/1 0",
    )["gpus"][0]
    assert (gpu["power_limit_watts"], gpu["slowdown_celsius"], gpu["sm_clock_max_hz"]) == (None, None, None)


@pytest.mark.parametrize(
    ("code", "word"),
    [
        (GPU_IS_LOST, "GpuIsLost"),
        (RESET_REQUIRED, "ResetRequired"),
        (TIMEOUT, "Timeout"),
        (UNKNOWN, "Unknown"),
    ],
)
def test_a_gpu_that_is_lost_midway_keeps_its_identity_and_nothing_else(
    play: Play, code: str, word: str
) -> None:
    results, _ = play(Step(0.0), Step(1.0, HEALTHY + f"0 * {code}\n"))
    assert told(results[1]["gpus"][0]) == {
        "index": 0,
        "vendor": "nvidia",
        "uuid": "GPU-00000000-aaaa",
        "name": "NVIDIA Stub 0",
        "pci_bus_id": "0000:01:00.0",
        "lost": True,
        "fault": word,
        "xid_errors": [],
    }


def test_a_gpu_that_is_lost_does_not_hide_the_other(play: Play) -> None:
    results, _ = play(Step(0.0), Step(1.0, HEALTHY + f"0 * {GPU_IS_LOST}\n"))
    assert results[1]["gpus"][1]["power_watts"] == 250.5


def test_a_gpu_that_is_lost_from_the_start_is_reported(play: Play) -> None:
    gpus = read_once(play, f"0 * {GPU_IS_LOST}")["gpus"]
    assert [(gpu["index"], gpu["uuid"], gpu["lost"]) for gpu in gpus] == [
        (0, None, True),
        (1, "GPU-10000000-aaaa", False),
    ]


LOST = HEALTHY + f"0 * {GPU_IS_LOST}\n"


def test_a_gpu_that_comes_back_is_found_by_a_library_that_is_initialised_anew(play: Play) -> None:
    results, log = play(Step(0.0), Step(1.0, LOST), Step(5.9), Step(6.0))
    assert [result["gpus"][0]["lost"] for result in results] == [False, True, True, False]
    assert results[3] == results[0]
    assert [event for event in log if "attach" not in event] == ["init", "shutdown", "init", "shutdown"]


def test_a_gpu_that_stays_lost_is_tried_less_and_less_often(play: Play) -> None:
    # At 1 s it is lost; tries at 6, 16, 36, 76 and 136 s, and at no other second.
    _, log = play(Step(0.0), *(Step(float(second), LOST) for second in range(1, 140)))
    assert log.count("init") == 6


def test_a_gpu_that_was_found_again_is_tried_soon_when_it_is_lost_again(play: Play) -> None:
    results, _ = play(Step(0.0), Step(1.0, LOST), Step(6.0), Step(7.0, LOST), Step(12.0))
    assert [result["gpus"][0]["lost"] for result in results] == [False, True, False, True, False]


def test_a_gpu_that_takes_the_place_of_a_lost_one_has_its_own_identity(play: Play) -> None:
    results, _ = play(Step(0.0), Step(1.0, LOST), Step(6.0, HEALTHY + "0 nvmlDeviceGetUUID GPU-other\n"))
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
def test_a_driver_that_does_not_start_says_why(play: Play, add_gpu: AddGpu, code: str, word: str) -> None:
    add_gpu("0000:01:00.0", driver="none")
    assert read_once(play, f"- nvmlInit {code}") == {"gpus": [], "pcie": {}, "driver_error": word}


def test_a_driver_that_can_not_count_is_shut_down_before_it_is_initialised_again(play: Play) -> None:
    _, log = play(Step(0.0, HEALTHY + f"- nvmlDeviceGetCount {MISMATCH}\n"), Step(5.0))
    assert [event for event in log if "attach" not in event] == ["init", "shutdown", "init", "shutdown"]


def test_a_driver_that_goes_away_midway_says_why(play: Play) -> None:
    results, _ = play(Step(0.0), Step(1.0, HEALTHY + f"1 * {UNINITIALIZED}\n"))
    assert results[1] == {"gpus": [], "pcie": {}, "driver_error": "Uninitialized"}


def test_a_driver_that_comes_back_is_read_again_after_the_back_off(play: Play) -> None:
    results, _ = play(Step(0.0, HEALTHY + f"- nvmlInit {MISMATCH}\n"), Step(4.9), Step(5.0))
    told_each = [(result["driver_error"], len(result["gpus"])) for result in results]
    assert told_each == [("LibRmVersionMismatch", 0), ("LibRmVersionMismatch", 0), (None, 2)]


def test_a_library_without_a_driver_on_a_host_without_a_gpu_is_no_trouble(play: Play) -> None:
    absent = "nvml: there is a library, but no driver and no NVIDIA GPU"
    assert read_once(play, f"- nvmlInit {DRIVER_NOT_LOADED}")["absent"] == absent


def test_a_driver_that_is_unloaded_is_missed_although_its_gpu_can_no_longer_be_seen(play: Play) -> None:
    results, _ = play(Step(0.0), Step(1.0, HEALTHY + f"0 * {DRIVER_NOT_LOADED}\n"))
    assert results[1]["driver_error"] == "DriverNotLoaded"


def test_the_back_off_doubles_to_a_minute(play: Play, add_gpu: AddGpu) -> None:
    add_gpu("0000:01:00.0", driver="none")
    refused = HEALTHY + f"- nvmlInit {DRIVER_NOT_LOADED}\n"
    # Tries at 0, 5, 15, 35, 75, 135 and 195 s, and at no other second.
    _, log = play(*(Step(float(second), refused) for second in range(200)))
    assert log == ["init refused"] * 7


def test_a_driver_that_worked_meanwhile_starts_with_the_first_back_off(play: Play, add_gpu: AddGpu) -> None:
    add_gpu("0000:01:00.0", driver="none")
    refused = HEALTHY + f"- nvmlInit {DRIVER_NOT_LOADED}\n"
    gone = HEALTHY + f"0 * {UNINITIALIZED}\n"
    results, _ = play(Step(0.0, refused), Step(5.0, refused), Step(15.0), Step(16.0, gone), Step(21.0))
    assert results[4]["driver_error"] is None


def test_a_healthy_driver_is_initialised_once(play: Play) -> None:
    _, log = play(Step(0.0), Step(1.0), Step(61.0))
    assert [event for event in log if "attach" not in event] == ["init", "shutdown"]


@pytest.mark.parametrize(("later_s", "count"), [(59.0, 2), (60.0, 1)])
def test_gpus_are_counted_every_minute(play: Play, later_s: float, count: int) -> None:
    results, _ = play(Step(0.0), Step(later_s, HEALTHY + "- nvmlDeviceGetCount 1\n"))
    assert len(results[1]["gpus"]) == count


def test_a_driver_without_a_gpu_means_absent(play: Play) -> None:
    assert read_once(play, "- nvmlDeviceGetCount 0")["absent"] == "nvml: the driver has no GPU"


def test_without_the_library_the_sensor_is_absent_and_its_binding_not_imported(play: Play) -> None:
    results, _ = play(Step(0.0), library="none")
    assert ("absent" in results[0], results[0]["imported"]) == (True, False)


def test_a_driver_that_is_installed_later_is_found(play: Play) -> None:
    results, _ = play(Step(0.0), Step(60.0, library="stub"), library="none")
    assert len(results[1]["gpus"]) == 2


def test_a_driver_that_is_replaced_is_met_with_its_own_library_and_no_restart(play: Play) -> None:
    replaced = HEALTHY + "- requires 2\n"
    gone = replaced + f"0 * {UNINITIALIZED}\n"
    results, log = play(
        Step(0.0),
        Step(1.0, gone),
        # Tried with the old library still in memory, then with the new one on the disk.
        Step(6.0, replaced, library="newer"),
        Step(16.0, replaced),
    )
    told_each = [(result["driver_error"], len(result["gpus"])) for result in results]
    assert told_each == [(None, 2), ("Uninitialized", 0), ("LibRmVersionMismatch", 0), (None, 2)]
    assert "init refused" in log


# Where the GPUs are, and whether they sleep


def test_gpus_are_known_by_their_place_on_the_bus(play: Play, add_gpu: AddGpu) -> None:
    add_gpu("0000:01:00.0")
    add_gpu("0000:11:00.0")
    gpus = read_once(play)["gpus"]
    assert [(gpu["index"], gpu["pci_bus_id"], gpu["uuid"]) for gpu in gpus] == [
        (0, "0000:01:00.0", "GPU-00000000-aaaa"),
        (1, "0000:11:00.0", "GPU-10000000-aaaa"),
    ]


def test_a_gpu_that_the_driver_counts_no_longer_is_lost_and_the_other_keeps_its_number(
    play: Play, add_gpu: AddGpu
) -> None:
    add_gpu("0000:01:00.0")
    add_gpu("0000:11:00.0")
    one_left = f"{DRIVER}- nvmlDeviceGetCount 1\n" + GPU.format(index=0).replace("00000000:01", "00000000:11")
    results, _ = play(Step(0.0), Step(1.0, LOST), Step(6.0, one_left))
    told_each = [(gpu["index"], gpu["pci_bus_id"], gpu["lost"], gpu["fault"]) for gpu in results[2]["gpus"]]
    assert told_each == [(0, "0000:01:00.0", True, "NotFound"), (1, "0000:11:00.0", False, None)]


def test_a_gpu_that_was_unplugged_is_gone(play: Play, add_gpu: AddGpu) -> None:
    add_gpu("0000:01:00.0")
    gone = add_gpu("0000:11:00.0")
    (gone / "driver").rename(gone / "driver-was")
    results, _ = play(Step(0.0))
    assert [gpu["pci_bus_id"] for gpu in results[0]["gpus"]] == ["0000:01:00.0"]


def test_a_gpu_of_another_container_is_not_lost(play: Play, add_gpu: AddGpu) -> None:
    for address in ("0000:01:00.0", "0000:11:00.0", "0000:21:00.0"):
        add_gpu(address)
    results, log = play(Step(0.0), Step(60.0), Step(120.0))
    assert [gpu["pci_bus_id"] for gpu in results[2]["gpus"]] == ["0000:01:00.0", "0000:11:00.0"]
    assert log.count("init") == 1


@pytest.mark.parametrize(
    ("vendor", "driver"), [("0x1002", "nvidia"), ("0x10de", "vfio-pci"), ("0x10de", "nouveau")]
)
def test_other_display_devices_are_left_alone(play: Play, add_gpu: AddGpu, vendor: str, driver: str) -> None:
    add_gpu("0000:01:00.0")
    add_gpu("0000:11:00.0", vendor=vendor, driver=driver)
    assert [gpu["pci_bus_id"] for gpu in read_once(play)["gpus"]] == ["0000:01:00.0"]


def test_a_gpu_that_sleeps_is_reported_and_the_driver_not_even_initialised(
    play: Play, add_gpu: AddGpu
) -> None:
    add_gpu("0000:01:00.0", status="suspended")
    results, log = play(*(Step(float(second)) for second in range(0, 200, 20)))
    sleeping = {"index": 0, "vendor": "nvidia", "pci_bus_id": "0000:01:00.0", "suspended": True}
    assert [[told(gpu) for gpu in result["gpus"]] for result in results] == [[sleeping]] * 10
    assert log == []


def test_a_gpu_that_falls_asleep_is_not_asked_and_keeps_its_name(play: Play, add_gpu: AddGpu) -> None:
    add_gpu("0000:01:00.0")
    asleep = {"0000:01:00.0": "suspended\n"}
    # Any question would be an error.
    results, log = play(Step(0.0), *(Step(at, LOST, power=asleep) for at in (1.0, 61.0, 121.0)))
    assert [gpu["suspended"] for result in results for gpu in result["gpus"]] == [False, True, True, True]
    assert told(results[3]["gpus"][0])["name"] == "NVIDIA Stub 0"
    assert log == ["init", "attach 0", "shutdown"]


def test_a_gpu_that_wakes_up_is_read_at_once(play: Play, add_gpu: AddGpu) -> None:
    add_gpu("0000:01:00.0", status="suspended")
    add_gpu("0000:11:00.0")
    results, log = play(Step(0.0), Step(1.0, power={"0000:01:00.0": "active\n"}))
    assert [gpu["suspended"] for gpu in results[0]["gpus"]] == [True, False]
    assert results[1]["gpus"][0]["power_watts"] == 250.5
    assert log == ["init", "attach 1", "attach 0", "shutdown"]


# Calls that do not come back

HANGING_SCRIPT = """
import asyncio, json, os, pathlib, sys, threading
from neuromodd.sensors.base import Sampler
from neuromodd.sensors.nvml import NvmlSensor

scenarios, seconds, deadline_s = json.load(sys.stdin)

def play(name):
    draft = pathlib.Path(os.environ["NVML_STUB_SCENARIO"] + ".draft")
    draft.write_text(scenarios[name])
    draft.replace(os.environ["NVML_STUB_SCENARIO"])

async def main():
    now = [0.0]
    sensor = NvmlSensor(sysfs_root=pathlib.Path("/nowhere"), clock=lambda: now[0])
    sampler = Sampler([sensor], deadline_s=deadline_s, clock=lambda: now[0])
    told = []
    async def sample():
        readings = await sampler.sample()
        value = readings["nvml"].value if "nvml" in readings else None
        told.append({
            "state": sampler.statuses["nvml"].state,
            "failures": sampler.statuses["nvml"].failures,
            "driver_error": None if value is None else value.driver_error,
            "gpus": None if value is None else [[gpu.hung, gpu.name, gpu.power_watts] for gpu in value.gpus],
            "threads": threading.active_count(),
        })
    play("healthy")
    await sample()
    play("hangs")
    for _ in range(5):
        now[0] += seconds
        await sample()
    play("healthy")
    while threading.active_count() > 2:
        await asyncio.sleep(0.01)
    for later in (1.0, 5.0):
        now[0] += later
        await sample()
    sampler.close()
    # Below what the sampler logs.
    print(json.dumps(told))

asyncio.run(main())
"""


@pytest.fixture
def hang(nvml_stub: Path, tmp_path: Path) -> Hang:
    """Samples once in health, five times while `line` holds, then 1 and 6 s after the call has come back."""

    def run(line: str, *, seconds: float = 1.0, deadline_s: float = 0.3) -> list[Any]:
        environment = os.environ | {
            "LD_LIBRARY_PATH": str(nvml_stub / "stub"),
            "NVML_STUB_SCENARIO": str(tmp_path / "scenario"),
        }
        done = subprocess.run(
            [sys.executable, "-c", HANGING_SCRIPT],
            input=json.dumps([{"healthy": HEALTHY, "hangs": HEALTHY + line}, seconds, deadline_s]),
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=60,
        )
        told_each: list[Any] = json.loads(done.stdout.splitlines()[-1])
        return told_each

    return run


GOOD = [False, "NVIDIA Stub 0", 250.5]
OTHER = [False, "NVIDIA Stub 1", 250.5]


def test_a_gpu_that_hangs_is_left_behind_and_the_other_is_read_on(hang: Hang) -> None:
    steps = hang("0 nvmlDeviceGetPowerUsage ~hang\n")
    hung = [[True, "NVIDIA Stub 0", None], OTHER]
    # What came back late is left alone for 5 s.
    assert [step["gpus"] for step in steps] == [[GOOD, OTHER], *[hung] * 6, [GOOD, OTHER]]
    # One deadline was missed, once; the loop's thread, the one that hangs, and the one that goes on.
    assert [step["failures"] for step in steps] == [0] + [1] * 7
    assert max(step["threads"] for step in steps) == 3


def test_all_gpus_hanging_is_a_thread_for_each_and_no_more(hang: Hang) -> None:
    steps = hang("0 nvmlDeviceGetPowerUsage ~hang\n1 nvmlDeviceGetPowerUsage ~hang\n")
    assert [gpu[0] for gpu in steps[2]["gpus"]] == [True, True]
    assert [step["failures"] for step in steps] == [0] + [2] * 7
    assert max(step["threads"] for step in steps) == 4
    assert steps[7]["gpus"] == [GOOD, OTHER]


@pytest.mark.parametrize("question", ["nvmlInit", "nvmlDeviceGetCount", "nvmlEventSetCreate"])
def test_a_driver_that_hangs_as_a_whole_is_told_and_not_asked_again_until_it_answers(
    hang: Hang, question: str
) -> None:
    # The driver goes away, which is found out by the first reading; trying again, 5 s later, hangs.
    steps = hang(f"0 * {UNINITIALIZED}\n- {question} ~hang\n", seconds=6.0)
    assert [step["driver_error"] for step in steps[1:6]] == ["Uninitialized", *["Timeout"] * 4]
    both = [[True, "NVIDIA Stub 0", None], [True, "NVIDIA Stub 1", None]]
    assert steps[5]["gpus"] == both
    assert (steps[5]["state"], steps[5]["failures"]) == ("ok", 1)
    assert max(step["threads"] for step in steps) == 3
    assert steps[7]["gpus"] == [GOOD, OTHER]


def test_a_slow_gpu_costs_a_deadline_now_and_then_and_not_every_time(hang: Hang) -> None:
    steps = hang("0 nvmlDeviceGetPowerUsage ~400 250500\n", deadline_s=0.2)
    assert [step["failures"] for step in steps[:6]] == [0, 1, 1, 1, 1, 1]
    assert [step["gpus"][1] for step in steps] == [OTHER] * 8


def test_a_slow_call_within_the_deadline_is_no_failure(hang: Hang) -> None:
    steps = hang("0 nvmlDeviceGetPowerUsage ~100 250500\n", deadline_s=5.0)
    assert [step["failures"] for step in steps] == [0] * 8
    assert steps[1]["gpus"] == [GOOD, OTHER]


@pytest.mark.parametrize(
    "refusal", ["1 nvmlDeviceGetTemperature/0 !3", f"1 nvmlDeviceGetPowerUsage {UNKNOWN}"]
)
def test_a_refused_call_is_forgotten_without_the_garbage_collector(play: Play, refusal: str) -> None:
    scenario = f"{HEALTHY}{refusal}\n"
    results, _ = play(Step(0.0, scenario), Step(1.0, scenario), Step(2.0, scenario), script=HOARDER)
    assert results == [{"left": []}]
