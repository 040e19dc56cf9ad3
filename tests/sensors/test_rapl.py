from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from neuromodd.core.readings import EnergyCounter
from neuromodd.errors import SensorAbsentError, SensorError
from neuromodd.sensors.rapl import RaplSensor

Write = Callable[[Path, str], Path]
AddDomain = Callable[..., Path]

RANGE_UJ = 262143328850

# Reads twice as a user who may not, from the folder that it is started in.
UNPRIVILEGED = """
import os
from pathlib import Path

from neuromodd.errors import SensorError
from neuromodd.sensors.rapl import RaplSensor

if os.geteuid() == 0:
    os.setegid(65534)
    os.seteuid(65534)
sensor = RaplSensor(sysfs_root=Path("."))
for _ in range(2):
    try:
        print(sensor.read())
    except SensorError as error:
        print(error)
"""


@pytest.fixture
def add_domain(sysfs: Path, write: Write) -> AddDomain:
    """Adds a domain of class/powercap; returns its folder."""

    def add(entry: str, name: str, energy_uj: object = 1000, range_uj: object = RANGE_UJ) -> Path:
        folder = sysfs / "class/powercap" / entry
        write(folder / "name", f"{name}\n")
        write(folder / "energy_uj", f"{energy_uj}\n")
        write(folder / "max_energy_range_uj", f"{range_uj}\n")
        return folder

    return add


@pytest.fixture
def sensor(sysfs: Path, now: list[float]) -> Iterator[RaplSensor]:
    sensor = RaplSensor(sysfs_root=sysfs, clock=lambda: now[0])
    yield sensor
    sensor.close()


def test_a_package_tells_its_energy_and_where_the_counter_wraps(
    sensor: RaplSensor, add_domain: AddDomain
) -> None:
    add_domain("intel-rapl:0", "package-0", energy_uj=52428800123)
    assert sensor.read().packages == {"package-0": EnergyCounter(52428800123, RANGE_UJ)}


def test_packages_are_in_the_order_of_their_numbers(sensor: RaplSensor, add_domain: AddDomain) -> None:
    for number in (10, 2, 0):
        add_domain(f"intel-rapl:{number}", f"package-{number}")
    assert list(sensor.read().packages) == ["package-0", "package-2", "package-10"]


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("intel-rapl:0:0", "core"),
        ("intel-rapl:0:1", "dram"),
        ("intel-rapl:1", "psys"),
        ("intel-rapl-mmio:0", "package-0"),
        ("intel-rapl", ""),
        ("dtpm:0", "package-7"),
    ],
)
def test_what_is_no_package_or_one_again_does_not_count(
    sensor: RaplSensor, add_domain: AddDomain, entry: str, name: str
) -> None:
    add_domain("intel-rapl:0", "package-0", energy_uj=5)
    add_domain(entry, name, energy_uj=7)
    assert sensor.read().packages == {"package-0": EnergyCounter(5, RANGE_UJ)}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ("package-0-die-0", "package-0-die-1"),
            ("package-0-die-0", "package-0-die-1"),
        ),
        (("package-0", "package-0"), ("package-0@intel-rapl:0", "package-0@intel-rapl:1")),
    ],
)
def test_the_dies_of_a_package_are_told_apart(
    sensor: RaplSensor, add_domain: AddDomain, names: tuple[str, str], expected: tuple[str, str]
) -> None:
    for number, name in enumerate(names):
        add_domain(f"intel-rapl:{number}", name)
    assert tuple(sensor.read().packages) == expected


def test_a_second_reading_is_fresh(sensor: RaplSensor, add_domain: AddDomain) -> None:
    folder = add_domain("intel-rapl:0", "package-0", energy_uj=5)
    sensor.read()
    (folder / "energy_uj").write_text("6\n")
    assert sensor.read().packages["package-0"].used_uj == 6


def test_no_class_folder_means_absent(sensor: RaplSensor) -> None:
    with pytest.raises(SensorAbsentError, match="no processor package"):
        sensor.read()


def test_a_domain_that_a_container_hides_means_absent(sensor: RaplSensor, sysfs: Path) -> None:
    link = sysfs / "class/powercap/intel-rapl:0"
    link.parent.mkdir(parents=True)
    link.symlink_to(sysfs / "devices/virtual/powercap/intel-rapl/intel-rapl:0")
    with pytest.raises(SensorAbsentError):
        sensor.read()


@pytest.mark.parametrize("text", ["", "many"])
def test_one_package_that_can_not_be_read_fails_all(
    sensor: RaplSensor, add_domain: AddDomain, text: str
) -> None:
    add_domain("intel-rapl:0", "package-0")
    (add_domain("intel-rapl:1", "package-1") / "energy_uj").write_text(text)
    with pytest.raises(SensorError, match="package-1 can't be read"):
        sensor.read()


def test_a_package_that_vanishes_is_looked_for_soon(
    sensor: RaplSensor, add_domain: AddDomain, sysfs: Path, now: list[float]
) -> None:
    add_domain("intel-rapl:0", "package-0")
    folder = add_domain("intel-rapl:1", "package-1")
    sensor.read()
    sensor.close()
    folder.rename(sysfs / "away")
    with pytest.raises(SensorError):
        sensor.read()
    now[0] += 5.0
    assert set(sensor.read().packages) == {"package-0"}


@pytest.fixture
def say_unprivileged(sysfs: Path, add_domain: AddDomain) -> Callable[..., list[str]]:
    """What a user says of two reads of two packages when the files named are closed to him."""

    def say(*closed: str) -> list[str]:
        for number in (0, 1):
            add_domain(f"intel-rapl:{number}", f"package-{number}")
        for name in closed:
            (sysfs / "class/powercap" / name).chmod(0)
        done = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED], cwd=sysfs, capture_output=True, text=True, check=True
        )
        return done.stdout.splitlines()

    return say


def test_a_user_may_read_counters_that_are_open_to_him(say_unprivileged: Callable[..., list[str]]) -> None:
    assert all(line.startswith("EnergyReading") for line in say_unprivileged())


def test_counters_that_only_root_may_read_are_a_failure_that_does_not_change(
    say_unprivileged: Callable[..., list[str]],
) -> None:
    first, second = say_unprivileged("intel-rapl:0/energy_uj", "intel-rapl:1/energy_uj")
    assert first == second


@pytest.mark.parametrize("closed", ["intel-rapl:1/energy_uj", "intel-rapl:0/max_energy_range_uj"])
@pytest.mark.parametrize(
    "remedy",
    [
        "CAP_DAC_READ_SEARCH (systemd/rapl.conf does so)",
        "sensors.disabled = ['rapl']",
    ],
)
def test_the_failure_names_the_remedies(
    say_unprivileged: Callable[..., list[str]], closed: str, remedy: str
) -> None:
    assert all(remedy in line for line in say_unprivileged(closed))
