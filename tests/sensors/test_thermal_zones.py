from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from neuromodd.core.frame import TemperatureSample
from neuromodd.core.readings import ThermalZonesReading
from neuromodd.errors import SensorAbsentError, SensorError
from neuromodd.sensors.thermal_zones import ThermalZonesSensor

AddZone = Callable[..., Path]


@pytest.fixture
def add_zone(add_device: Callable[..., Path]) -> AddZone:
    """Adds thermal_zone`number`; further arguments are its trip points, type and millidegrees."""

    def add(number: int, zone_type: str, millidegrees: int, *points: tuple[str, int]) -> Path:
        attributes = {"type": zone_type, "temp": millidegrees}
        for index, (point_type, limit) in enumerate(points):
            attributes |= {f"trip_point_{index}_type": point_type, f"trip_point_{index}_temp": limit}
        return add_device(f"class/thermal/thermal_zone{number}", None, attributes)

    return add


@pytest.fixture
def sensor(sysfs: Path, now: list[float]) -> Iterator[ThermalZonesSensor]:
    sensor = ThermalZonesSensor(sysfs_root=sysfs, clock=lambda: now[0])
    yield sensor
    sensor.close()


def celsius(reading: ThermalZonesReading) -> dict[str, float | None]:
    return {sample.name: sample.temperature_celsius for sample in reading.temperatures}


def break_file(path: Path) -> None:
    """Make reads of `path` fail, as those of a zone that is off."""
    path.unlink()
    path.mkdir()


def test_trip_points_are_the_limits(sensor: ThermalZonesSensor, add_zone: AddZone) -> None:
    add_zone(0, "acpitz", 27800, ("critical", 105000), ("hot", 95000), ("passive", 90000))
    assert sensor.read().temperatures == (
        TemperatureSample(
            name="thermal_zone/acpitz", temperature_celsius=27.8, max_celsius=95.0, critical_celsius=105.0
        ),
    )


def test_without_a_hot_point_the_lowest_passive_one_is_the_limit(
    sensor: ThermalZonesSensor, add_zone: AddZone
) -> None:
    add_zone(0, "cpu-thermal", 41000, ("passive", 85000), ("passive", 75000), ("active", 50000))
    assert sensor.read().temperatures[0].max_celsius == 75.0


def test_points_that_no_maker_sets_are_no_limits(sensor: ThermalZonesSensor, add_zone: AddZone) -> None:
    add_zone(0, "acpitz", 27800, ("critical", 0), ("passive", -274000))
    sample = sensor.read().temperatures[0]
    assert (sample.max_celsius, sample.critical_celsius) == (None, None)


def test_the_moving_points_of_x86_pkg_temp_are_no_limit(
    sensor: ThermalZonesSensor, add_zone: AddZone
) -> None:
    add_zone(0, "x86_pkg_temp", 51000, ("passive", 53000))
    assert sensor.read().temperatures[0].max_celsius is None


def test_zones_of_one_type_are_told_apart_by_their_numbers(
    sensor: ThermalZonesSensor, add_zone: AddZone
) -> None:
    add_zone(0, "acpitz", 27800)
    add_zone(3, "acpitz", 29800)
    assert celsius(sensor.read()) == {"thermal_zone/acpitz@0": 27.8, "thermal_zone/acpitz@3": 29.8}


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        (["acpitz", "x86_pkg_temp"], "x86_pkg_temp"),
        (["gpu-thermal", "cpu-thermal"], "cpu-thermal"),
        (["cpu_thermal"], "cpu_thermal"),
        (["soc_thermal", "gpu_thermal"], "soc_thermal"),
        (["soc-thermal", "CPU-therm"], "CPU-therm"),
    ],
)
def test_the_zone_of_the_processor_is_known_by_its_type(
    sensor: ThermalZonesSensor, add_zone: AddZone, types: list[str], expected: str
) -> None:
    for number, zone_type in enumerate(types):
        add_zone(number, zone_type, 40000)
    cpu = sensor.read().cpu
    assert cpu is not None
    assert cpu.name == f"thermal_zone/{expected}"


def test_of_several_processor_zones_the_hottest_counts(sensor: ThermalZonesSensor, add_zone: AddZone) -> None:
    add_zone(0, "cpu0-thermal", 44000)
    add_zone(1, "cpu1-thermal", 47000)
    cpu = sensor.read().cpu
    assert cpu is not None
    assert cpu.temperature_celsius == 47.0


def test_no_zone_of_the_processor_leaves_it_none(sensor: ThermalZonesSensor, add_zone: AddZone) -> None:
    add_zone(0, "iwlwifi_1", 40000)
    assert sensor.read().cpu is None


def test_a_zone_that_is_off_is_none_and_leaves_the_others(
    sensor: ThermalZonesSensor, add_zone: AddZone
) -> None:
    folder = add_zone(0, "iwlwifi_1", 40000)
    add_zone(1, "acpitz", 27800)
    break_file(folder / "temp")
    assert celsius(sensor.read()) == {"thermal_zone/iwlwifi_1": None, "thermal_zone/acpitz": 27.8}


def test_a_zone_that_tells_absolute_zero_is_none(sensor: ThermalZonesSensor, add_zone: AddZone) -> None:
    add_zone(0, "acpitz", -274000)
    assert celsius(sensor.read()) == {"thermal_zone/acpitz": None}


def test_zones_that_all_fail_are_a_failure(sensor: ThermalZonesSensor, add_zone: AddZone) -> None:
    break_file(add_zone(0, "acpitz", 27800) / "temp")
    with pytest.raises(SensorError, match="none of 1 can be read"):
        sensor.read()


def test_no_zone_means_absent(sensor: ThermalZonesSensor) -> None:
    with pytest.raises(SensorAbsentError):
        sensor.read()


def test_a_zone_that_goes_away_is_forgotten(
    sensor: ThermalZonesSensor, sysfs: Path, add_zone: AddZone, now: list[float]
) -> None:
    add_zone(0, "acpitz", 27800)
    add_zone(1, "iwlwifi_1", 40000)
    sensor.read()
    (sysfs / "class/thermal/thermal_zone1").unlink()
    now[0] += 60.0
    assert celsius(sensor.read()) == {"thermal_zone/acpitz": 27.8}


def test_a_driver_that_is_loaded_later_is_found(
    sensor: ThermalZonesSensor, add_zone: AddZone, now: list[float]
) -> None:
    with pytest.raises(SensorAbsentError):
        sensor.read()
    add_zone(0, "acpitz", 27800)
    now[0] += 60.0
    assert celsius(sensor.read()) == {"thermal_zone/acpitz": 27.8}
