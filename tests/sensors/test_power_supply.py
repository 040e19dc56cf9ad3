from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from neuromodd.core.readings import PowerSupplyReading
from neuromodd.errors import SensorAbsentError, SensorError
from neuromodd.sensors.power_supply import Charge, PowerSupplySensor, battery_ratio

AddSupply = Callable[..., Path]


@pytest.fixture
def add_supply(add_device: Callable[..., Path]) -> AddSupply:
    """Adds the supply `name` of class/power_supply; further keywords are its attributes."""

    def add(name: str, supply_type: str, **attributes: object) -> Path:
        return add_device(f"class/power_supply/{name}", f"acpi/{name}", {"type": supply_type, **attributes})

    return add


@pytest.fixture
def sensor(sysfs: Path, now: list[float]) -> Iterator[PowerSupplySensor]:
    sensor = PowerSupplySensor(sysfs_root=sysfs, clock=lambda: now[0])
    yield sensor
    sensor.close()


def test_a_laptop_tells_its_mains_and_its_battery(sensor: PowerSupplySensor, add_supply: AddSupply) -> None:
    add_supply("AC", "Mains", online=1)
    add_supply("BAT0", "Battery", present=1, status="Charging", energy_now=20000000, energy_full=50000000)
    assert sensor.read() == PowerSupplyReading(on_mains=True, battery_ratio=0.4)


@pytest.mark.parametrize(
    ("supplies", "expected"),
    [
        ({"AC": ("Mains", 1), "USBC0": ("USB", 0)}, True),
        ({"AC": ("Mains", 0), "USBC0": ("USB", 1)}, True),
        ({"AC": ("Mains", 0), "USBC0": ("USB", 0)}, False),
        ({"dock": ("Wireless", 1)}, True),
        ({"USBC0": ("USB", 2)}, True),
        ({"USBC0": ("USB_PD", 1)}, True),
    ],
)
def test_any_adapter_that_delivers_is_the_mains(
    sensor: PowerSupplySensor,
    add_supply: AddSupply,
    supplies: dict[str, tuple[str, int]],
    expected: bool,
) -> None:
    add_supply("BAT0", "Battery", present=1, status="Unknown", capacity=50)
    for name, (supply_type, online) in supplies.items():
        add_supply(name, supply_type, online=online)
    assert sensor.read().on_mains is expected


@pytest.mark.parametrize("battery", [{}, {"present": 0}])
def test_a_host_without_a_battery_does_not_run_from_one(
    sensor: PowerSupplySensor, add_supply: AddSupply, battery: dict[str, int]
) -> None:
    add_supply("ucsi-source-psy-USBC000:001", "USB", online=0)
    if battery:
        add_supply("BAT0", "Battery", **battery)
    assert sensor.read().on_mains is None


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (["Discharging"], False),
        (["Charging"], True),
        (["Full"], True),
        (["Not charging"], True),
        (["Unknown"], None),
        (["Unknown", "Discharging"], False),
        (["Not charging", "Discharging"], False),
        (["Unknown", "Full"], True),
    ],
)
def test_without_an_adapter_the_batteries_tell_the_mains(
    sensor: PowerSupplySensor, add_supply: AddSupply, statuses: list[str], expected: bool | None
) -> None:
    for number, status in enumerate(statuses):
        add_supply(f"BAT{number}", "Battery", present=1, status=status, capacity=50)
    assert sensor.read().on_mains is expected


@pytest.mark.parametrize(
    ("batteries", "expected"),
    [
        ([{"energy_now": 30, "energy_full": 60}], 0.5),
        ([{"charge_now": 45, "charge_full": 60}], 0.75),
        ([{"capacity": 80}], 0.8),
        ([{"energy_now": 10, "energy_full": 20, "capacity": 99}], 0.5),
        ([{"energy_now": 60, "energy_full": 60}, {"energy_now": 0, "energy_full": 20}], 0.75),
        ([{"charge_now": 10, "charge_full": 10}, {"charge_now": 0, "charge_full": 30}], 0.25),
        ([{"capacity": 80}, {"capacity": 20}], 0.5),
        ([{"energy_now": 10, "energy_full": 10}, {"capacity": 0}], 0.5),
        ([{"energy_now": 10, "energy_full": 10}, {"charge_now": 0, "charge_full": 90}], 0.5),
        ([{"energy_now": 61, "energy_full": 60}], 1.0),
        ([{"energy_now": -1, "energy_full": 60}], 0.0),
        ([{"energy_now": 5, "energy_full": 0, "capacity": 7}], 0.07),
        ([{"energy_now": 5, "energy_full": "", "capacity": 7}], 0.07),
        ([{"energy_now": 30, "energy_full": 60}, {"status": "Full"}], None),
        ([{"status": "Full"}], None),
        ([{"energy_now": 30, "energy_full": 60}, {"present": 0, "energy_now": 0, "energy_full": 60}], 0.5),
    ],
)
def test_the_charge_of_all_batteries_is_one_ratio(
    sensor: PowerSupplySensor,
    add_supply: AddSupply,
    batteries: list[dict[str, object]],
    expected: float | None,
) -> None:
    for number, attributes in enumerate(batteries):
        add_supply(f"BAT{number}", "Battery", **{"present": 1, "status": "Discharging", **attributes})
    assert sensor.read().battery_ratio == pytest.approx(expected)


def test_no_battery_has_no_ratio() -> None:
    assert battery_ratio([]) is None


def test_batteries_of_one_unit_are_weighted_by_their_sizes() -> None:
    charges = [Charge("energy", 60, 60), Charge("energy", 0, 20)]
    assert battery_ratio(charges) == 0.75


@pytest.mark.parametrize(
    "attributes",
    [
        {"supply_type": "Battery", "status": "Discharging", "capacity": 10},
        {"supply_type": "Mains", "online": 0},
    ],
)
def test_the_supply_of_a_device_is_not_the_hosts(
    sensor: PowerSupplySensor, add_supply: AddSupply, attributes: dict[str, object]
) -> None:
    add_supply("BAT0", "Battery", present=1, status="Full", scope="System", capacity=100)
    add_supply("hidpp_battery_0", scope="Device", **attributes)
    assert sensor.read() == PowerSupplyReading(on_mains=True, battery_ratio=1.0)


def test_a_host_with_nothing_but_a_mouse_has_no_supply(
    sensor: PowerSupplySensor, add_supply: AddSupply
) -> None:
    add_supply("hidpp_battery_0", "Battery", scope="Device", status="Discharging", capacity=10)
    with pytest.raises(SensorAbsentError):
        sensor.read()


def test_no_class_folder_means_absent(sensor: PowerSupplySensor) -> None:
    with pytest.raises(SensorAbsentError, match="no mains adapter and no battery"):
        sensor.read()


def test_an_adapter_that_fails_leaves_it_to_the_battery(
    sensor: PowerSupplySensor, add_supply: AddSupply
) -> None:
    add_supply("AC", "Mains", online="")
    add_supply("BAT0", "Battery", present=1, status="Discharging", capacity=50)
    assert sensor.read().on_mains is False


def test_supplies_that_all_fail_are_a_failure(sensor: PowerSupplySensor, add_supply: AddSupply) -> None:
    add_supply("AC", "Mains", online="")
    add_supply("BAT0", "Battery", present="", capacity="")
    with pytest.raises(SensorError, match="none of 2 supplies"):
        sensor.read()


def test_empty_slots_alone_are_no_failure(sensor: PowerSupplySensor, add_supply: AddSupply) -> None:
    add_supply("BAT0", "Battery", present=0)
    assert sensor.read() == PowerSupplyReading()


@pytest.mark.parametrize(("later_s", "expected"), [(4.9, 0.5), (5.0, 0.49)])
def test_the_values_are_read_every_five_seconds(
    sensor: PowerSupplySensor, add_supply: AddSupply, now: list[float], later_s: float, expected: float
) -> None:
    folder = add_supply("BAT0", "Battery", present=1, status="Discharging", capacity=50)
    sensor.read()
    (folder / "capacity").write_text("49\n")
    now[0] += later_s
    assert sensor.read().battery_ratio == expected


def test_a_reading_that_fails_leaves_nothing_of_the_one_before(
    sensor: PowerSupplySensor, add_supply: AddSupply, now: list[float]
) -> None:
    folder = add_supply("AC", "Mains", online=1)
    sensor.read()
    (folder / "online").write_text("")
    for _ in range(2):
        now[0] += 5.0
        with pytest.raises(SensorError):
            sensor.read()


def test_after_a_failure_the_next_reading_is_fresh(sensor: PowerSupplySensor, add_supply: AddSupply) -> None:
    folder = add_supply("AC", "Mains", online="")
    with pytest.raises(SensorError):
        sensor.read()
    (folder / "online").write_text("1\n")
    assert sensor.read().on_mains is True


def test_a_battery_that_is_taken_out_is_not_remembered(
    sensor: PowerSupplySensor, add_supply: AddSupply, now: list[float]
) -> None:
    add_supply("BAT0", "Battery", present=1, status="Discharging", energy_now=10, energy_full=40)
    folder = add_supply("BAT1", "Battery", present=1, status="Discharging", energy_now=40, energy_full=40)
    found = [sensor.read().battery_ratio]
    (folder / "present").write_text("0\n")
    now[0] += 5.0
    found.append(sensor.read().battery_ratio)
    assert found == [0.625, 0.25]


def test_a_supply_that_vanishes_is_looked_for_soon(
    sensor: PowerSupplySensor, add_supply: AddSupply, sysfs: Path, now: list[float]
) -> None:
    add_supply("BAT0", "Battery", present=1, status="Discharging", capacity=40)
    folder = add_supply("BAT1", "Battery", present=1, status="Discharging", capacity=80)
    found = [sensor.read().battery_ratio]
    sensor.close()
    (sysfs / "class/power_supply/BAT1").unlink()
    folder.rename(sysfs / "away")
    for _ in range(2):
        now[0] += 5.0
        found.append(sensor.read().battery_ratio)
    assert found == [pytest.approx(0.6), None, 0.4]


def test_new_supplies_are_looked_for_every_minute(
    sensor: PowerSupplySensor, add_supply: AddSupply, now: list[float]
) -> None:
    add_supply("BAT0", "Battery", present=1, status="Unknown", capacity=40)
    sensor.read()
    add_supply("AC", "Mains", online=1)
    now[0] += 60.0
    assert sensor.read().on_mains is True
