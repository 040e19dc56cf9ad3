from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from neuromodd.core.frame import GpuSample
from neuromodd.errors import SensorAbsentError
from neuromodd.sensors.amdgpu import AmdGpuSensor, Card, Identity, parse_levels, ratio_of_percent
from neuromodd.sensors.files import HeldFile

Write = Callable[[Path, str], Path]
AddCard = Callable[..., Path]

ADDRESS = "0000:03:00.0"

LEVELS = """\
0: 500Mhz
1: 1367Mhz *
2: 2575Mhz
"""

DEVICE = {
    "vendor": "0x1002",
    "power/runtime_status": "active",
    "gpu_busy_percent": 37,
    "mem_busy_percent": 12,
    "mem_info_vram_used": 1073741824,
    "mem_info_vram_total": 17163091968,
    "current_link_width": 8,
    "max_link_width": 16,
    "pp_dpm_sclk": LEVELS,
    "pp_dpm_mclk": "0: 96Mhz *\n1: 1000Mhz\n",
    "unique_id": "f5a3c1d2e4b60718",
    "product_name": "AMD Instinct MI100",
}

CHIP = {
    "name": "amdgpu",
    "temp1_label": "edge",
    "temp1_input": 44000,
    "temp1_crit": 100000,
    "temp1_emergency": 105000,
    "temp2_label": "junction",
    "temp2_input": 48000,
    "temp2_crit": 110000,
    "temp2_emergency": 115000,
    "temp3_label": "mem",
    "temp3_input": 50000,
    "temp3_crit": 95000,
    "power1_average": 27000000,
    "power1_cap": 194000000,
    "in0_label": "vddgfx",
    "in0_input": 856,
    "freq1_label": "sclk",
    "freq1_input": 1367000000,
    "freq2_label": "mclk",
    "freq2_input": 96000000,
    "fan1_input": 693,
    "pwm1": 51,
}

SAMPLE = GpuSample(
    index=0,
    vendor="amd",
    uuid="f5a3c1d2e4b60718",
    name="AMD Instinct MI100",
    pci_bus_id=ADDRESS,
    utilization_ratio=0.37,
    memory_utilization_ratio=0.12,
    memory_used_bytes=1073741824,
    memory_total_bytes=17163091968,
    temperature_celsius=44.0,
    memory_temperature_celsius=50.0,
    slowdown_celsius=100.0,
    shutdown_celsius=105.0,
    power_watts=27.0,
    power_limit_watts=194.0,
    core_volts=0.856,
    sm_clock_hz=1.367e9,
    sm_clock_max_hz=2.575e9,
    memory_clock_hz=96e6,
    memory_clock_max_hz=1e9,
    fan_ratio=0.2,
    pcie_link_width=8,
    pcie_link_width_max=16,
)

IDENTITY = {
    "index": 0,
    "vendor": "amd",
    "uuid": SAMPLE.uuid,
    "name": SAMPLE.name,
    "pci_bus_id": ADDRESS,
}

# Reads three times, over a scan, and prints the names of all files below the root that were opened.
OPENED = """
import sys
from pathlib import Path

from neuromodd.sensors.amdgpu import AmdGpuSensor

root, now, opened = Path(sys.argv[1]), [0.0], []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
sensor = AmdGpuSensor(sysfs_root=root, clock=lambda: now[0])
for now[0] in (0.0, 1.0, 60.0):
    sensor.read()
print("\\n".join(sorted({Path(path).name for path in opened if path.startswith(str(root))})))
"""


@pytest.fixture
def add_card(sysfs: Path, write: Write) -> AddCard:
    """Adds a card with attributes of its own and of its chip; returns its folder on the bus."""

    def add(
        number: int = 0,
        address: str = ADDRESS,
        *,
        device: dict[str, object] | None = None,
        chip: dict[str, object] | None = None,
        driver: str = "amdgpu",
    ) -> Path:
        folder = sysfs / "devices/pci0000:00" / address
        for name, value in (DEVICE if device is None else {"vendor": "0x1002", **device}).items():
            write(folder / name, f"{value}\n")
        for name, value in (CHIP if chip is None else chip).items():
            write(folder / f"hwmon/hwmon{number + 3}" / name, f"{value}\n")
        (sysfs / "bus/pci/drivers" / driver).mkdir(parents=True, exist_ok=True)
        (folder / "driver").symlink_to(sysfs / "bus/pci/drivers" / driver)
        entry = folder / f"drm/card{number}"
        entry.mkdir(parents=True)
        (entry / "device").symlink_to(folder)
        (sysfs / "class/drm").mkdir(parents=True, exist_ok=True)
        (sysfs / f"class/drm/card{number}").symlink_to(entry)
        return folder

    return add


@pytest.fixture
def sensor(sysfs: Path, now: list[float]) -> Iterator[AmdGpuSensor]:
    sensor = AmdGpuSensor(sysfs_root=sysfs, clock=lambda: now[0])
    yield sensor
    sensor.close()


def only(sensor: AmdGpuSensor) -> GpuSample:
    (gpu,) = sensor.read().gpus
    return gpu


def break_all(folder: Path) -> None:
    """Make every attribute of a card but its power state unreadable."""
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in {"vendor", "runtime_status"}:
            path.write_text("\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LEVELS, 2.575e9),
        ("0: 96Mhz *\n1: 1000Mhz \n", 1e9),
        ("S: 19Mhz *\n0: 615MHz\n1: 800MHz\n", 0.8e9),
        ("", None),
        ("\n", None),
    ],
)
def test_the_highest_level_is_the_maximum_clock(text: str, expected: float | None) -> None:
    assert parse_levels(text) == expected


@pytest.mark.parametrize(("percent", "expected"), [(0, 0.0), (100, 1.0), (65535, None), (-1, None)])
def test_a_share_beyond_the_whole_is_none(percent: int, expected: float | None) -> None:
    assert ratio_of_percent(percent) == expected


def test_a_card_tells_all_its_values(sensor: AmdGpuSensor, add_card: AddCard) -> None:
    add_card()
    assert sensor.read().gpus == (SAMPLE,)


def test_a_second_reading_is_fresh(sensor: AmdGpuSensor, add_card: AddCard) -> None:
    folder = add_card()
    sensor.read()
    (folder / "gpu_busy_percent").write_text("99\n")
    assert only(sensor).utilization_ratio == 0.99


@pytest.mark.parametrize(
    ("chip", "expected"),
    [
        ({"power1_input": 31000000}, {"power_watts": 31.0}),
        ({"power1_input": 31000000, "power1_average": 30000000}, {"power_watts": 30.0}),
        (
            {"temp1_input": 51000, "temp1_crit": 94000},
            {"temperature_celsius": 51.0, "slowdown_celsius": 94.0},
        ),
        (
            {
                "temp2_input": 52000,
                "temp2_label": "junction",
                "temp2_crit": 100000,
                "temp2_emergency": 105000,
            },
            {"temperature_celsius": 52.0, "slowdown_celsius": 100.0, "shutdown_celsius": 105.0},
        ),
        ({"in0_input": 750, "in1_label": "vddnb", "in1_input": 900}, {"core_volts": 0.75}),
        ({"freq1_input": 351590000}, {"sm_clock_hz": 351590000.0}),
        ({"pwm1": 255}, {"fan_ratio": 1.0}),
        ({"pwm1": 0}, {"fan_ratio": 0.0}),
        ({"temp1_input": 600000}, {"temperature_celsius": None}),
    ],
)
def test_older_cards_and_processors_with_graphics_tell_less(
    sensor: AmdGpuSensor,
    add_card: AddCard,
    chip: dict[str, object],
    expected: dict[str, float | None],
) -> None:
    add_card(device={"gpu_busy_percent": 5}, chip=chip)
    bare = GpuSample(index=0, vendor="amd", pci_bus_id=ADDRESS, utilization_ratio=0.05)
    assert only(sensor) == bare.model_copy(update=expected)


@pytest.mark.parametrize(
    ("name", "text", "field"),
    [
        ("gpu_busy_percent", "", "utilization_ratio"),
        ("gpu_busy_percent", "65535", "utilization_ratio"),
        ("mem_info_vram_used", "", "memory_used_bytes"),
        ("mem_info_vram_total", "", "memory_total_bytes"),
        ("current_link_width", "Unknown", "pcie_link_width"),
        ("max_link_width", "255", "pcie_link_width_max"),
        ("pp_dpm_sclk", "", "sm_clock_max_hz"),
        ("hwmon/hwmon3/temp1_input", "", "temperature_celsius"),
        ("hwmon/hwmon3/temp1_crit", "0", "slowdown_celsius"),
        ("hwmon/hwmon3/power1_average", "", "power_watts"),
        ("hwmon/hwmon3/pwm1", "", "fan_ratio"),
        ("product_name", "", "name"),
        ("unique_id", "", "uuid"),
    ],
)
def test_an_attribute_that_fails_is_none_and_leaves_the_others(
    sensor: AmdGpuSensor, add_card: AddCard, name: str, text: str, field: str
) -> None:
    (add_card() / name).write_text(f"{text}\n")
    assert only(sensor) == SAMPLE.model_copy(update={field: None})


# Which cards


def test_cards_are_numbered_in_the_order_of_the_bus(sensor: AmdGpuSensor, add_card: AddCard) -> None:
    add_card(0, "0000:0a:00.0")
    add_card(1, "0000:03:00.0")
    assert [(gpu.index, gpu.pci_bus_id) for gpu in sensor.read().gpus] == [
        (0, "0000:03:00.0"),
        (1, "0000:0a:00.0"),
    ]


def test_a_card_keeps_its_number_while_others_go_and_come(
    sensor: AmdGpuSensor, add_card: AddCard, sysfs: Path, now: list[float]
) -> None:
    add_card(0, "0000:03:00.0")
    add_card(1, "0000:0a:00.0")
    sensor.read()
    (sysfs / "class/drm/card0").unlink()
    add_card(2, "0000:01:00.0")
    now[0] += 60.0
    assert {gpu.pci_bus_id: gpu.index for gpu in sensor.read().gpus} == {"0000:01:00.0": 2, "0000:0a:00.0": 1}


@pytest.mark.parametrize(
    ("device", "driver", "found"),
    [
        ({}, "amdgpu", True),
        ({"gpu_busy_percent": 3}, "vendor_amdgpu", True),
        ({}, "vfio-pci", False),
        ({}, "radeon", False),
        ({"vendor": "0x8086"}, "amdgpu", False),
        ({"vendor": "0x10de", "gpu_busy_percent": 3}, "nvidia", False),
    ],
)
def test_a_card_is_one_of_amd_that_this_driver_runs(
    sensor: AmdGpuSensor, add_card: AddCard, device: dict[str, object], driver: str, found: bool
) -> None:
    add_card(0, "0000:0a:00.0")
    add_card(1, device=device, driver=driver)
    assert (len(sensor.read().gpus) == 2) is found


def test_outputs_of_a_card_are_no_cards(sensor: AmdGpuSensor, add_card: AddCard, sysfs: Path) -> None:
    folder = add_card()
    output = folder / "drm/card0/card0-DP-1"
    output.mkdir()
    (output / "device").symlink_to(folder)
    (sysfs / "class/drm/card0-DP-1").symlink_to(output)
    assert len(sensor.read().gpus) == 1


def test_no_class_folder_means_absent(sensor: AmdGpuSensor) -> None:
    with pytest.raises(SensorAbsentError):
        sensor.read()


# Cards that sleep


@pytest.mark.parametrize("status", ["suspended", "suspending", "resuming"])
def test_a_card_that_sleeps_has_its_identity_and_no_values(
    sensor: AmdGpuSensor, add_card: AddCard, status: str
) -> None:
    folder = add_card()
    sensor.read()
    (folder / "power/runtime_status").write_text(f"{status}\n")
    assert only(sensor) == GpuSample.from_dict({**IDENTITY, "suspended": True})


def test_a_card_that_sleeps_is_remembered_over_the_next_scan(
    sensor: AmdGpuSensor, add_card: AddCard, now: list[float]
) -> None:
    folder = add_card()
    sensor.read()
    (folder / "power/runtime_status").write_text("suspended\n")
    now[0] += 60.0
    assert only(sensor).name == "AMD Instinct MI100"


def test_a_card_that_has_slept_from_the_beginning_has_no_name_yet(
    sensor: AmdGpuSensor, add_card: AddCard
) -> None:
    (add_card() / "power/runtime_status").write_text("suspended\n")
    assert only(sensor) == GpuSample(index=0, vendor="amd", pci_bus_id=ADDRESS, suspended=True)


def test_a_card_that_wakes_up_tells_all_its_values(sensor: AmdGpuSensor, add_card: AddCard) -> None:
    status = add_card() / "power/runtime_status"
    status.write_text("suspended\n")
    sensor.read()
    status.write_text("active\n")
    assert only(sensor) == SAMPLE


@pytest.fixture
def opened(sysfs: Path) -> Callable[[], set[str]]:
    """The names of the files that a sensor opens, as the interpreter's own audit tells."""

    def names() -> set[str]:
        done = subprocess.run(
            [sys.executable, "-c", OPENED, str(sysfs)], capture_output=True, text=True, check=True
        )
        return set(done.stdout.split())

    return names


def test_of_a_card_that_sleeps_nothing_is_opened_but_its_power_state(
    add_card: AddCard, opened: Callable[[], set[str]]
) -> None:
    (add_card() / "power/runtime_status").write_text("suspended\n")
    # The kernel has read the vendor at boot, and keeps it.
    assert opened() == {"runtime_status", "vendor"}


def test_of_a_card_that_is_awake_the_audit_sees_what_is_opened(
    add_card: AddCard, opened: Callable[[], set[str]]
) -> None:
    add_card()
    assert opened() >= {"runtime_status", "gpu_busy_percent", "temp1_input", "unique_id"}


class FallsAsleep(HeldFile):
    """A power state that is another one when it is read again."""

    def read(self) -> str:
        text = super().read()
        self.path.write_text("suspended\n")
        return text


def test_a_card_that_falls_asleep_under_the_questions_is_not_lost(add_card: AddCard, sysfs: Path) -> None:
    folder = add_card()
    break_all(folder)
    card = Card(sysfs / "class/drm/card0", ADDRESS, index=0, identity=Identity())
    card._power = FallsAsleep(folder / "power/runtime_status")
    sample = card.sample()
    card.close()
    assert sample == GpuSample(index=0, vendor="amd", pci_bus_id=ADDRESS, suspended=True)


def test_a_card_without_power_management_is_awake(sensor: AmdGpuSensor, add_card: AddCard) -> None:
    (add_card() / "power/runtime_status").unlink()
    assert only(sensor) == SAMPLE


# Cards that are lost


def test_a_card_that_answers_nothing_is_lost(sensor: AmdGpuSensor, add_card: AddCard) -> None:
    folder = add_card()
    sensor.read()
    break_all(folder)
    assert only(sensor) == GpuSample.from_dict({**IDENTITY, "lost": True, "fault": "ValueError"})


def test_a_lost_card_tells_the_kernels_error(sensor: AmdGpuSensor, add_card: AddCard) -> None:
    folder = add_card(device={"gpu_busy_percent": 3}, chip={})
    (folder / "gpu_busy_percent").unlink()
    (folder / "gpu_busy_percent").mkdir()
    assert only(sensor).fault == "EISDIR"


def test_a_lost_card_hides_no_other(sensor: AmdGpuSensor, add_card: AddCard) -> None:
    break_all(add_card())
    add_card(1, "0000:0a:00.0")
    assert [gpu.lost for gpu in sensor.read().gpus] == [True, False]


def test_a_lost_card_that_answers_again_has_its_values(sensor: AmdGpuSensor, add_card: AddCard) -> None:
    folder = add_card(device={"gpu_busy_percent": 3}, chip={})
    sensor.read()
    (folder / "gpu_busy_percent").write_text("\n")
    lost = only(sensor).lost
    (folder / "gpu_busy_percent").write_text("4\n")
    assert (lost, only(sensor).utilization_ratio) == (True, 0.04)


def test_a_card_whose_driver_is_loaded_again_is_found_under_its_new_chip(
    sensor: AmdGpuSensor, add_card: AddCard, now: list[float]
) -> None:
    folder = add_card(device={}, chip={"temp1_input": 40000})
    sensor.read()
    sensor.close()
    (folder / "hwmon/hwmon3").rename(folder / "hwmon/hwmon9")
    lost = only(sensor).lost
    now[0] += 5.0
    assert (lost, only(sensor).temperature_celsius) == (True, 40.0)


def test_a_card_that_is_unplugged_is_gone_at_once(
    sensor: AmdGpuSensor, add_card: AddCard, sysfs: Path
) -> None:
    folder = add_card()
    add_card(1, "0000:0a:00.0")
    sensor.read()
    sensor.close()
    (sysfs / "class/drm/card0").unlink()
    folder.rename(sysfs / "away")
    assert [gpu.index for gpu in sensor.read().gpus] == [1]


def test_the_last_card_that_is_unplugged_leaves_none(
    sensor: AmdGpuSensor, add_card: AddCard, sysfs: Path
) -> None:
    folder = add_card()
    sensor.read()
    sensor.close()
    (sysfs / "class/drm/card0").unlink()
    folder.rename(sysfs / "away")
    with pytest.raises(SensorAbsentError):
        sensor.read()
