"""What keeps a GPU from being asked."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from neuromodd.core.frame import GpuSample, TelemetryFrame
from neuromodd.doctor.gpus import judge_amd, judge_nvidia
from neuromodd.doctor.sight import Judgement, Sight
from neuromodd.sensors.base import SensorStatus

MakeSight = Callable[..., Sight]

NO_LIBRARY = {"nvml": SensorStatus("absent", "nvml: libnvidia-ml.so.1: cannot open shared object file")}
NO_GPU = {"nvml": SensorStatus("absent", "nvml: the driver has no GPU")}


def gpu(vendor: str = "0x10de", driver: str | None = None) -> str:
    place = "sys/bus/pci/devices/0000:01:00.0"
    tree = f"== {place}/vendor\n{vendor}\n== {place}/class\n0x030000\n"
    if driver is not None:
        tree += f"== sys/bus/pci/drivers/{driver}/\n== {place}/driver -> ../../drivers/{driver}\n"
    return tree


def told(sight: Sight) -> Judgement:
    return judge_nvidia(sight)


def test_without_a_gpu_on_the_bus_there_is_nothing_to_do(see: MakeSight) -> None:
    assert told(see(statuses=NO_LIBRARY)) == ("note", "no NVIDIA GPU on the PCI bus", None)


def test_a_gpu_without_any_driver_wants_one_installed(see: MakeSight) -> None:
    verdict, finding, remedy = told(see(gpu(), statuses=NO_LIBRARY))
    assert (verdict, finding) == ("warning", "1 on the PCI bus, and no driver is loaded")
    assert remedy is not None
    assert remedy.startswith("install NVIDIA's driver: apt install nvidia-driver")


def test_a_gpu_whose_library_is_there_wants_the_module_loaded(see: MakeSight) -> None:
    verdict, finding, remedy = told(see(gpu(), statuses=NO_GPU))
    assert (verdict, finding) == ("failure", "1 on the PCI bus, and the driver is not loaded")
    assert remedy is not None
    assert remedy.startswith("modprobe nvidia; ")


def test_a_gpu_of_nouveau_tells_nothing(see: MakeSight) -> None:
    verdict, finding, _ = told(see(gpu(driver="nouveau"), statuses=NO_LIBRARY))
    assert (verdict, finding) == ("warning", "1 on the PCI bus, run by nouveau, which tells nothing")


def test_a_gpu_that_a_guest_has_is_measured_there(see: MakeSight) -> None:
    assert told(see(gpu(driver="vfio-pci"), statuses=NO_LIBRARY))[0] == "note"


def test_a_driver_without_its_library_wants_that_of_the_same_version(see: MakeSight) -> None:
    tree = gpu(driver="nvidia") + "== sys/module/nvidia/version\n550.54.14\n"
    verdict, finding, remedy = told(see(tree, statuses=NO_LIBRARY))
    assert (verdict, "libnvidia-ml.so.1 is missing" in finding) == ("warning", True)
    assert remedy is not None
    assert "version 550.54.14: apt install libnvidia-ml1" in remedy


def test_in_a_container_the_library_comes_with_the_toolkit(see: MakeSight) -> None:
    verdict, _, remedy = told(see(gpu(driver="nvidia"), statuses=NO_LIBRARY, container="Docker"))
    assert verdict == "warning"
    assert remedy is not None
    assert remedy.startswith("start the container with --gpus all")


def test_a_driver_of_another_version_than_its_library_wants_a_reboot(see: MakeSight) -> None:
    frame = TelemetryFrame(gpu_driver_error="LibRmVersionMismatch")
    verdict, finding, remedy = told(see(gpu(driver="nvidia"), frame=frame))
    assert (verdict, finding[:50]) == ("failure", "driver and library are of different versions, as a")
    assert remedy is not None
    assert remedy.startswith("reboot; ")


def test_a_device_file_that_is_missing_is_named(see: MakeSight) -> None:
    frame = TelemetryFrame(gpu_driver_error="DriverNotLoaded")
    sight = see(gpu(driver="nvidia") + "== dev/nvidia0\n", frame=frame)
    assert judge_nvidia(sight).finding == f"{sight.devices / 'nvidiactl'} is missing"


def test_a_device_file_that_is_missing_in_a_container_comes_with_the_toolkit(see: MakeSight) -> None:
    frame = TelemetryFrame(gpu_driver_error="DriverNotLoaded")
    remedy = judge_nvidia(see(gpu(driver="nvidia"), frame=frame, container="Docker")).remedy
    assert remedy is not None
    assert "--gpus all" in remedy


def test_a_device_file_that_may_not_be_opened_is_a_matter_of_groups(
    see: MakeSight, monkeypatch: pytest.MonkeyPatch
) -> None:
    sight = see(
        gpu(driver="nvidia") + "== dev/nvidia0\n== dev/nvidiactl\n",
        frame=TelemetryFrame(gpu_driver_error="NoPermission"),
    )
    monkeypatch.setattr("neuromodd.doctor.gpus.os.access", lambda path, _: path.name != "nvidiactl")
    judged = judge_nvidia(sight)
    assert judged.finding == f"lab may not open {sight.devices / 'nvidiactl'}"
    assert judged.remedy is not None
    assert "usermod -aG GROUP lab" in judged.remedy


def test_a_driver_that_hangs_is_a_failure(see: MakeSight) -> None:
    frame = TelemetryFrame(gpu_driver_error="Timeout")
    assert told(see(gpu(driver="nvidia"), frame=frame))[:2] == ("failure", "the driver hangs")


def test_any_other_word_of_the_driver_is_passed_on(see: MakeSight) -> None:
    tree = gpu(driver="nvidia") + "== dev/nvidia0\n== dev/nvidiactl\n"
    frame = TelemetryFrame(gpu_driver_error="IRQIssue")
    assert told(see(tree, frame=frame))[:2] == ("failure", "the driver says IRQIssue")


def test_a_gpu_that_is_lost_is_a_failure_beside_one_that_is_well(see: MakeSight) -> None:
    gpus = (
        GpuSample(index=0, vendor="nvidia", name="A100"),
        GpuSample(index=1, vendor="nvidia", name="T400", lost=True, fault="GpuIsLost"),
    )
    verdict, finding, _ = told(see(frame=TelemetryFrame(gpus=gpus)))
    assert (verdict, finding) == ("failure", "1 of 2 can't be reached: T400 (GpuIsLost)")


def test_gpus_that_answer_are_named(see: MakeSight) -> None:
    gpus = (
        GpuSample(index=0, vendor="nvidia", name="A100"),
        GpuSample(index=1, vendor="nvidia", pci_bus_id="0000:02:00.0", suspended=True),
    )
    finding = "2: A100, 0000:02:00.0; 1 asleep, and not woken to be asked"
    assert told(see(frame=TelemetryFrame(gpus=gpus))) == ("ok", finding, None)


@pytest.mark.parametrize(
    ("driver", "verdict", "words"),
    [
        (None, "warning", "amdgpu is not loaded"),
        ("amdgpu", "warning", "amdgpu tells nothing of it"),
        ("radeon", "note", "run by radeon"),
        ("vfio-pci", "note", "handed on to a virtual machine"),
    ],
)
def test_an_amd_gpu_is_judged_by_its_driver(
    see: MakeSight, driver: str | None, verdict: str, words: str
) -> None:
    judged = judge_amd(see(gpu("0x1002", driver)))
    assert (judged.verdict, words in judged.finding) == (verdict, True)


def test_without_an_amd_gpu_there_is_nothing_to_do(see: MakeSight) -> None:
    assert judge_amd(see(gpu())) == ("note", "no AMD GPU on the PCI bus", None)
