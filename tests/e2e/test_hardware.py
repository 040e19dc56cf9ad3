"""The daemon on hardware that breaks: GPUs through a stub of the driver, and an FPGA build's report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, Heard, Listener, Mosquitto
from machine_files import unpack

# Deadlines and gaps are judged here: a machine that is busy with other tests would be blamed on the daemon.
pytestmark = pytest.mark.alone

DATA = Path(__file__).parents[1] / "data"
FAST = ("--tick.interval_s", "0.1", "--mqtt.health_interval_s", "1", "--faults.hold_s", "0.5")


class Workstation:
    """A machine with two GPUs, whose driver says what it is told to."""

    def __init__(self, folder: Path) -> None:
        self.files = unpack((DATA / "machines" / "workstation.txt").read_text(), folder)
        self._scenario = folder / "nvml.txt"
        self._healthy = self._scenario.read_text()

    def say(self, lines: str = "") -> None:
        draft = self._scenario.with_name("draft")
        draft.write_text(self._healthy + lines)
        draft.replace(self._scenario)

    def environment(self, stub: Path) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": str(stub / "stub"), "NVML_STUB_SCENARIO": str(self._scenario)}

    def options(self) -> list[str]:
        proc, sysfs = str(self.files / "proc"), str(self.files / "sys")
        return ["--sensors.procfs_root", proc, "--sensors.sysfs_root", sysfs]


@pytest.fixture
def workstation(tmp_path: Path) -> Workstation:
    return Workstation(tmp_path / "machine")


@pytest.fixture
def watch(
    start_daemon: Callable[..., Daemon],
    mosquitto: Mosquitto,
    listen: Callable[[int], Listener],
    workstation: Workstation,
    nvml_stub: Path,
) -> Callable[..., Listener]:
    """Starts a daemon on the workstation, and somebody who listens to it."""

    def start(*arguments: str) -> Listener:
        heard = listen(mosquitto.port)
        start_daemon(
            *FAST,
            *workstation.options(),
            *arguments,
            port=mosquitto.port,
            environ=workstation.environment(nvml_stub),
        )
        return heard

    return start


def fault_is(name: str) -> Callable[[Heard], bool]:
    return lambda heard: bool(heard.json["class"] == name)


def gpu_of(heard: Heard, index: int) -> dict[str, Any]:
    gpu: dict[str, Any] = heard.json["gpus"][index]
    return gpu


def test_a_gpu_that_is_lost_is_a_fault_with_evidence_and_stress_and_found_again(
    watch: Callable[..., Listener], workstation: Workstation
) -> None:
    heard = watch()
    heard.wait("fault", fault_is("HealthyStandby"))
    calm = heard.wait("state").json["modulators"]["cortisol"]
    workstation.say("0 * !15\n")
    fault = heard.wait("fault", fault_is("GpuDieDead")).json
    assert (fault["code"], fault["evidence"][0]["reading"]) == ("ERR_SILICON_DEAD", "gpus.0.lost")
    lost = heard.wait("telemetry", lambda frame: gpu_of(frame, 0)["lost"])
    assert (gpu_of(lost, 0)["power_watts"], gpu_of(lost, 0)["fault"]) == (None, "GpuIsLost")
    assert gpu_of(lost, 1)["utilization_ratio"] == 0.0
    stressed = heard.wait("state", lambda state: state.json["modulators"]["cortisol"] >= 0.54)
    assert calm < 0.54
    assert stressed.json["flags"]["stress"]
    counted = heard.wait("health", lambda health: health.json["faults"]["GpuDieDead"] == 1)
    assert counted.json["sensors"]["nvml"]["state"] == "ok"
    workstation.say()
    # After the back-off of 5 s, without a restart.
    heard.wait("fault", fault_is("HealthyStandby"), count=2)
    back = heard.wait("telemetry", lambda frame: not gpu_of(frame, 0)["lost"] and frame.at_s > lost.at_s)
    assert gpu_of(back, 0)["power_watts"] == 297.5


def test_a_gpu_whose_call_hangs_delays_one_tick_and_hides_no_other(
    watch: Callable[..., Listener], workstation: Workstation
) -> None:
    heard = watch("--sensors.deadline_s", "0.3")
    heard.wait("telemetry", lambda frame: frame.json["gpus"] is not None)
    workstation.say("0 nvmlDeviceGetPowerUsage ~hang\n")
    hung = heard.wait("telemetry", lambda frame: frame.json["gpus"] and gpu_of(frame, 0)["hung"])
    assert gpu_of(hung, 1)["name"] == "NVIDIA T400 4GB"
    fault = heard.wait("fault", fault_is("UnknownAmbiguity")).json
    assert fault["evidence"][0]["reading"] == "gpus.0.hung"
    first = hung.json["sequence"]
    # The others go on at the pace of the ticks: a deadline each would show.
    later = heard.wait("telemetry", lambda frame: frame.json["sequence"] == first + 20)
    assert later.at_s - hung.at_s < 10.0
    assert all(frame.json["gpus"] for frame in heard.named("telemetry"))


def test_a_driver_that_hangs_as_a_whole_does_not_look_healthy(
    watch: Callable[..., Listener], workstation: Workstation
) -> None:
    workstation.say("- nvmlInit ~hang\n")
    heard = watch("--sensors.deadline_s", "0.3")
    fault = heard.wait("fault").json
    assert (fault["class"], fault["evidence"][0]["value"]) == ("UnknownAmbiguity", "Timeout")
    workstation.say()
    heard.wait("telemetry", lambda frame: frame.json["gpus"] and gpu_of(frame, 0)["power_watts"] == 297.5)
    heard.wait("fault", fault_is("HealthyStandby"))


def test_a_build_that_misses_its_timing_drives_the_timing_neuron(
    watch: Callable[..., Listener], tmp_path: Path
) -> None:
    report = tmp_path / "timing.rpt"
    report.write_text((DATA / "fpga" / "zynq7_2017.4_timing.rpt").read_text())
    heard = watch("--fpga.timing_report", str(report))
    met = heard.wait("telemetry", lambda frame: frame.json["fpga"] is not None).json["fpga"]
    assert met["wns_ns"] > 0.0
    slow = (DATA / "fpga" / "zynqusp_2020.2_timing.rpt").read_text()
    (tmp_path / "draft").write_text(slow.replace("-1.872", "-4.872"))
    (tmp_path / "draft").replace(report)
    missed = heard.wait("telemetry", lambda frame: frame.json["fpga"]["wns_ns"] < 0.0).json["fpga"]
    assert (missed["wns_ns"], missed["tool_version"]) == (-4.872, "2020.2")
    heard.wait("state", lambda state: state.json["rates"]["izhikevich"][4] > 0.0)
    heard.wait("state", lambda state: state.json["modulators"]["phasic"]["cortisol"] > 0.0)
