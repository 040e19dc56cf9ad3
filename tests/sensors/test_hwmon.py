from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from neuromodd.core.frame import FanSample, TemperatureSample
from neuromodd.core.readings import HwmonReading
from neuromodd.errors import SensorAbsentError, SensorError
from neuromodd.sensors.hwmon import HwmonSensor, plausible_celsius, plausible_limit_celsius

AddChip = Callable[..., Path]


@pytest.fixture
def add_chip(add_device: Callable[..., Path]) -> AddChip:
    """Adds the chip hwmon`number` of `device`; further keywords are its attributes."""

    def add(number: int, name: str, device: str | None, **attributes: object) -> Path:
        return add_device(f"class/hwmon/hwmon{number}", device, {"name": name, **attributes})

    return add


@pytest.fixture
def sensor(sysfs: Path, now: list[float]) -> Iterator[HwmonSensor]:
    sensor = HwmonSensor(sysfs_root=sysfs, core_rail="nct6798/Vcore", clock=lambda: now[0])
    yield sensor
    sensor.close()


def celsius(reading: HwmonReading) -> dict[str, float | None]:
    return {sample.name: sample.temperature_celsius for sample in reading.temperatures}


def break_file(path: Path) -> None:
    """Make reads of `path` fail, as those of a device that answers EIO."""
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("millidegrees", "expected"), [(45000, 45.0), (0, 0.0), (-10500, -10.5), (-128000, None), (255000, None)]
)
def test_a_temperature_of_nothing_connected_is_none(millidegrees: int, expected: float | None) -> None:
    assert plausible_celsius(millidegrees) == expected


@pytest.mark.parametrize(
    ("millidegrees", "expected"), [(100000, 100.0), (65261850, None), (0, None), (-273150, None)]
)
def test_a_limit_that_no_maker_sets_is_none(millidegrees: int, expected: float | None) -> None:
    assert plausible_limit_celsius(millidegrees) == expected


def test_a_temperature_carries_its_own_limits(sensor: HwmonSensor, add_chip: AddChip) -> None:
    add_chip(
        0,
        "nvme",
        "pci0/nvme/nvme0",
        temp1_input=38850,
        temp1_label="Composite",
        temp1_max=81850,
        temp1_crit=84850,
    )
    assert sensor.read().temperatures == (
        TemperatureSample(
            name="nvme/Composite", temperature_celsius=38.85, max_celsius=81.85, critical_celsius=84.85
        ),
    )


def test_an_input_without_a_label_is_named_after_its_file(sensor: HwmonSensor, add_chip: AddChip) -> None:
    add_chip(0, "acpitz", "acpi", temp1_input=27800)
    assert celsius(sensor.read()) == {"acpitz/temp1": 27.8}


def test_inputs_are_in_the_order_of_their_numbers(sensor: HwmonSensor, add_chip: AddChip) -> None:
    add_chip(0, "board", "isa", **{f"temp{number}_input": 1000 * number for number in (10, 2, 1)})
    assert list(celsius(sensor.read())) == ["board/temp1", "board/temp2", "board/temp10"]


def test_a_fan_that_stands_still_is_at_0_rpm(sensor: HwmonSensor, add_chip: AddChip) -> None:
    add_chip(0, "nct6798", "platform/nct6775.656", fan1_input=0, fan2_input=1250, fan2_label="CPU fan")
    assert sensor.read().fans == (
        FanSample(name="nct6798/fan1", speed_rpm=0.0),
        FanSample(name="nct6798/CPU fan", speed_rpm=1250.0),
    )


def test_voltages_may_be_negative(sensor: HwmonSensor, add_chip: AddChip) -> None:
    add_chip(0, "nct6798", "platform/nct6775.656", in4_input=-12048)
    assert [(sample.name, sample.volts) for sample in sensor.read().voltages] == [("nct6798/in4", -12.048)]


def test_the_core_voltage_is_the_rail_that_the_user_named(sensor: HwmonSensor, add_chip: AddChip) -> None:
    add_chip(
        0,
        "nct6798",
        "platform/nct6775.656",
        in0_input=1096,
        in0_label="Vcore",
        in1_input=5000,
        in1_label="+5V",
    )
    assert sensor.read().core_volts == 1.096


def test_a_rail_that_no_chip_has_leaves_the_core_voltage_none(sensor: HwmonSensor, add_chip: AddChip) -> None:
    add_chip(0, "nct6798", "platform/nct6775.656", in1_input=5000)
    assert sensor.read().core_volts is None


def test_equal_chips_are_told_apart_by_their_devices(sensor: HwmonSensor, add_chip: AddChip) -> None:
    add_chip(0, "nvme", "pci0/nvme/nvme1", temp1_input=41000, temp1_label="Composite")
    add_chip(1, "nvme", "pci1/nvme/nvme0", temp1_input=39000, temp1_label="Composite")
    assert celsius(sensor.read()) == {"nvme/Composite@nvme0": 39.0, "nvme/Composite@nvme1": 41.0}


def test_names_and_order_do_not_depend_on_the_numbers_of_the_chips(
    sysfs: Path, tmp_path: Path, add_chip: AddChip
) -> None:
    add_chip(0, "nvme", "pci0/nvme/nvme0", temp1_input=39000)
    add_chip(1, "coretemp", "platform/coretemp.0", temp1_input=50000)
    first = HwmonSensor(sysfs_root=sysfs)
    before = first.read()
    first.close()
    chips = sysfs / "class/hwmon"
    (chips / "hwmon0").rename(tmp_path / "swap")
    (chips / "hwmon1").rename(chips / "hwmon0")
    (tmp_path / "swap").rename(chips / "hwmon1")
    second = HwmonSensor(sysfs_root=sysfs)
    assert second.read() == before
    second.close()


def test_a_label_that_a_chip_repeats_is_not_used(sensor: HwmonSensor, add_chip: AddChip) -> None:
    add_chip(
        0, "amdgpu", "pci0", temp1_input=40000, temp1_label="edge", temp2_input=41000, temp2_label="edge"
    )
    assert set(celsius(sensor.read())) == {"amdgpu/temp1", "amdgpu/temp2"}


def test_an_old_driver_keeps_its_inputs_with_the_device(
    sensor: HwmonSensor, sysfs: Path, add_device: Callable[..., Path], write: Callable[[Path, str], Path]
) -> None:
    add_device("class/hwmon/hwmon0", "i2c/0-004c")
    write(sysfs / "devices/i2c/0-004c/name", "lm90\n")
    write(sysfs / "devices/i2c/0-004c/temp1_input", "33000\n")
    assert celsius(sensor.read()) == {"lm90/temp1": 33.0}


def test_a_chip_that_repeats_a_thermal_zone_is_skipped(sensor: HwmonSensor, add_chip: AddChip) -> None:
    add_chip(0, "acpitz", "virtual/thermal/thermal_zone0", temp1_input=27800)
    add_chip(1, "coretemp", "platform/coretemp.0", temp1_input=50000)
    assert set(celsius(sensor.read())) == {"coretemp/temp1"}


def test_an_input_that_fails_is_none_and_leaves_the_others(sensor: HwmonSensor, add_chip: AddChip) -> None:
    folder = add_chip(0, "board", "isa", temp1_input=31000, temp2_input=32000)
    break_file(folder / "temp1_input")
    assert celsius(sensor.read()) == {"board/temp1": None, "board/temp2": 32.0}


def test_a_fan_that_fails_is_none_and_not_0(sensor: HwmonSensor, add_chip: AddChip) -> None:
    folder = add_chip(0, "board", "isa", fan1_input=900, temp1_input=31000)
    break_file(folder / "fan1_input")
    assert sensor.read().fans == (FanSample(name="board/fan1", speed_rpm=None),)


@pytest.mark.parametrize(("fault", "expected"), [("1", None), ("0", 31.0)])
def test_an_input_with_its_fault_bit_set_is_none(
    sensor: HwmonSensor, add_chip: AddChip, fault: str, expected: float | None
) -> None:
    add_chip(0, "board", "isa", temp1_input=31000, temp1_fault=fault)
    assert celsius(sensor.read()) == {"board/temp1": expected}


def test_inputs_that_all_fail_are_a_failure(sensor: HwmonSensor, add_chip: AddChip) -> None:
    folder = add_chip(0, "board", "isa", temp1_input=31000)
    break_file(folder / "temp1_input")
    with pytest.raises(SensorError, match="none of 1 inputs can be read"):
        sensor.read()


def test_no_class_folder_means_absent(sensor: HwmonSensor) -> None:
    with pytest.raises(SensorAbsentError):
        sensor.read()


def test_a_chip_without_inputs_means_absent(sensor: HwmonSensor, add_chip: AddChip) -> None:
    add_chip(0, "BAT0", "acpi/bat")
    with pytest.raises(SensorAbsentError):
        sensor.read()


def test_a_chip_that_is_unplugged_goes_after_a_reading_without_values(
    sensor: HwmonSensor, sysfs: Path, add_chip: AddChip, now: list[float]
) -> None:
    folder = add_chip(0, "usbtemp", "usb1/1-1", temp1_input=21000)
    add_chip(1, "board", "isa", temp1_input=31000)
    sensor.read()
    sensor.close()
    (sysfs / "class/hwmon/hwmon0").unlink()
    (folder / "temp1_input").unlink()
    readings = [celsius(sensor.read())]
    now[0] += 5.0
    readings.append(celsius(sensor.read()))
    assert readings == [{"usbtemp/temp1": None, "board/temp1": 31.0}, {"board/temp1": 31.0}]


@pytest.mark.parametrize(("later_s", "found"), [(59.0, False), (60.0, True)])
def test_chips_are_looked_for_every_minute(
    sensor: HwmonSensor, add_chip: AddChip, now: list[float], later_s: float, found: bool
) -> None:
    add_chip(0, "board", "isa", temp1_input=31000)
    sensor.read()
    add_chip(1, "usbtemp", "usb1/1-1", temp1_input=21000)
    now[0] += later_s
    assert ("usbtemp/temp1" in celsius(sensor.read())) is found


def cpu_name(reading: HwmonReading) -> str | None:
    return None if reading.cpu is None else reading.cpu.name


@pytest.mark.parametrize(
    ("chip", "labels", "expected"),
    [
        ("coretemp", ["Package id 0", "Core 0", "Core 1"], "coretemp/Package id 0"),
        ("k10temp", ["Tctl", "Tccd1"], "k10temp/Tctl"),
        ("k10temp", ["Tctl", "Tdie", "Tccd1"], "k10temp/Tdie"),
        ("coretemp", ["Core 0", "Core 1", "Core 2"], "coretemp/Core 2"),
        ("scpi_sensors", ["soc", "big"], "scpi_sensors/big"),
        ("nvme", ["Composite"], None),
    ],
)
def test_the_package_sensor_stands_for_the_processor(
    sensor: HwmonSensor, add_chip: AddChip, chip: str, labels: list[str], expected: str | None
) -> None:
    attributes: dict[str, object] = {}
    for number, label in enumerate(labels, start=1):
        attributes |= {f"temp{number}_input": 50000 + 1000 * number, f"temp{number}_label": label}
    add_chip(0, chip, "platform/chip.0", **attributes)
    assert cpu_name(sensor.read()) == expected


def test_of_two_packages_the_hotter_stands_for_the_processor(sensor: HwmonSensor, add_chip: AddChip) -> None:
    for number, millidegrees in enumerate((61000, 64000)):
        add_chip(
            number,
            "coretemp",
            f"platform/coretemp.{number}",
            temp1_input=millidegrees,
            temp1_label=f"Package id {number}",
            temp2_input=90000,
            temp2_label="Core 0",
        )
    assert cpu_name(sensor.read()) == "coretemp/Package id 1"


def test_a_package_that_tells_no_temperature_stands_for_nothing(
    sensor: HwmonSensor, add_chip: AddChip
) -> None:
    add_chip(0, "k10temp", "pci0", temp1_input=-128000, temp1_label="Tctl")
    assert sensor.read().cpu is None


# Drives


def test_the_temperature_of_an_nvme_drive_is_named_after_what_it_measures(
    sensor: HwmonSensor, add_chip: AddChip
) -> None:
    add_chip(
        4,
        "nvme",
        "pci0000:00/0000:00:1d.0/0000:03:00.0/nvme/nvme0",
        temp1_input=38850,
        temp1_label="Composite",
        temp2_input=45850,
        temp2_label="Sensor 1",
    )
    assert celsius(sensor.read()) == {"nvme/Composite": 38.85, "nvme/Sensor 1": 45.85}


def test_the_temperature_of_a_sata_drive_has_its_limits(sensor: HwmonSensor, add_chip: AddChip) -> None:
    add_chip(
        2,
        "drivetemp",
        "pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0",
        temp1_input=31000,
        temp1_max=60000,
        temp1_crit=70000,
        temp1_lcrit=-40000,
    )
    assert sensor.read().temperatures == (
        TemperatureSample(
            name="drivetemp/temp1", temperature_celsius=31.0, max_celsius=60.0, critical_celsius=70.0
        ),
    )


def test_a_drive_that_is_numbered_otherwise_at_the_next_boot_keeps_its_name(
    sensor: HwmonSensor, add_chip: AddChip
) -> None:
    # The kernel probes drives at the same time: which one is nvme0 is a matter of chance.
    add_chip(0, "nvme", "pci0000:00/0000:02:00.0/nvme/nvme0", temp1_input=41000, temp1_label="Composite")
    add_chip(1, "nvme", "pci0000:00/0000:01:00.0/nvme/nvme1", temp1_input=39000, temp1_label="Composite")
    assert list(celsius(sensor.read()).items()) == [
        ("nvme/Composite@0000:01:00.0", 39.0),
        ("nvme/Composite@0000:02:00.0", 41.0),
    ]


def test_drives_at_one_controller_are_told_apart_by_their_devices(
    sensor: HwmonSensor, add_chip: AddChip
) -> None:
    for number in (0, 1):
        path = f"pci0000:00/0000:00:17.0/ata{number}/host{number}/target{number}:0:0/{number}:0:0:0"
        add_chip(number, "drivetemp", path, temp1_input=30000 + 1000 * number)
    assert celsius(sensor.read()) == {"drivetemp/temp1@0:0:0:0": 30.0, "drivetemp/temp1@1:0:0:0": 31.0}


# Devices that sleep


@pytest.fixture
def add_gpu(add_chip: AddChip, sysfs: Path, write: Callable[[Path, str], Path]) -> AddChip:
    """Adds a GPU's chip; returns the file that tells whether the GPU sleeps."""

    def add(status: str, *, control: str = "auto", **attributes: object) -> Path:
        add_chip(7, "amdgpu", "pci0000:00/0000:03:00.0", **(attributes or {"temp1_input": 40000}))
        power = sysfs / "devices/pci0000:00/0000:03:00.0/power"
        write(power / "control", f"{control}\n")
        return write(power / "runtime_status", f"{status}\n")

    return add


@pytest.mark.parametrize(
    ("control", "status", "expected"),
    [
        ("auto", "active", 40.0),
        ("auto", "suspended", None),
        ("auto", "suspending", None),
        ("auto", "resuming", None),
        ("auto", "unsupported", 40.0),
        ("on", "active", 40.0),
    ],
)
def test_a_device_is_read_only_while_it_is_awake(
    sensor: HwmonSensor, add_gpu: AddChip, control: str, status: str, expected: float | None
) -> None:
    add_gpu(status, control=control)
    assert celsius(sensor.read()) == {"amdgpu/temp1": expected}


def test_a_device_that_sleeps_is_no_failure(sensor: HwmonSensor, add_gpu: AddChip) -> None:
    add_gpu("suspended", fan1_input=900, in0_input=750)
    reading = sensor.read()
    assert [sample.speed_rpm for sample in reading.fans] == [None]
    assert [sample.volts for sample in reading.voltages] == [None]


def test_the_awake_that_all_fail_are_a_failure_beside_one_that_sleeps(
    sensor: HwmonSensor, add_gpu: AddChip, add_chip: AddChip
) -> None:
    add_gpu("suspended")
    break_file(add_chip(0, "board", "isa", temp1_input=31000) / "temp1_input")
    with pytest.raises(SensorError, match="none of 1 inputs"):
        sensor.read()


def test_a_device_is_asked_at_each_reading_whether_it_sleeps(sensor: HwmonSensor, add_gpu: AddChip) -> None:
    status = add_gpu("active")
    found = []
    for state in ("active", "suspended", "active"):
        status.write_text(f"{state}\n")
        found.append(celsius(sensor.read())["amdgpu/temp1"])
    assert found == [40.0, None, 40.0]


def test_limits_that_could_not_be_asked_for_are_read_once_the_device_is_awake(
    sensor: HwmonSensor, add_gpu: AddChip, now: list[float]
) -> None:
    status = add_gpu("suspended", temp1_input=40000, temp1_label="edge", temp1_crit=100000)
    found = [sensor.read().temperatures[0].critical_celsius]
    status.write_text("active\n")
    for _ in range(2):
        now[0] += 5.0
        found.append(sensor.read().temperatures[0].critical_celsius)
    assert found == [None, None, 100.0]


def test_a_device_that_sleeps_on_is_not_looked_for_again_and_again(
    sensor: HwmonSensor, add_gpu: AddChip, add_chip: AddChip, now: list[float]
) -> None:
    add_gpu("suspended")
    sensor.read()
    add_chip(0, "board", "isa", temp1_input=31000)
    now[0] += 59.0
    assert "board/temp1" not in celsius(sensor.read())
