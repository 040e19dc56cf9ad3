from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from neuromodd.errors import SensorAbsentError
from neuromodd.sensors.pressure import PressureSensor, parse_pressure

Write = Callable[[Path, str], Path]


def psi(some: int, full: int | None) -> str:
    text = f"some avg10=1.50 avg60=0.40 avg300=0.10 total={some}\n"
    return text if full is None else text + f"full avg10=0.00 avg60=0.00 avg300=0.00 total={full}\n"


@pytest.fixture
def host(procfs: Path, write: Write) -> Path:
    write(procfs / "pressure/cpu", psi(11, 0))
    write(procfs / "pressure/memory", psi(22, 2))
    write(procfs / "pressure/io", psi(33, 3))
    return procfs


@pytest.fixture
def sensor(procfs: Path) -> Iterator[PressureSensor]:
    sensor = PressureSensor(procfs_root=procfs)
    yield sensor
    sensor.close()


def test_the_totals_are_taken_and_not_the_averages() -> None:
    assert parse_pressure(psi(4017186, 77)) == {"some": 4017186, "full": 77}


def test_a_text_of_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a line of some or full"):
        parse_pressure("total 5\n")


@pytest.mark.usefixtures("host")
def test_a_reading_has_a_time_for_each_ratio_of_the_frame(sensor: PressureSensor) -> None:
    expected = {"cpu_some": 11, "memory_some": 22, "memory_full": 2, "io_some": 33, "io_full": 3}
    assert sensor.read().stalled_us == expected


def test_a_kernel_before_5_13_has_no_full_for_processors(
    sensor: PressureSensor, host: Path, write: Write
) -> None:
    write(host / "pressure/cpu", psi(11, None))
    assert sensor.read().stalled_us["cpu_some"] == 11


def test_a_resource_that_can_not_be_read_is_missing_and_not_zero(sensor: PressureSensor, host: Path) -> None:
    (host / "pressure/memory").unlink()
    (host / "pressure/memory").mkdir()
    assert sensor.read().stalled_us == {"cpu_some": 11, "io_some": 33, "io_full": 3}


def test_a_kernel_without_pressure_files_means_absent(sensor: PressureSensor) -> None:
    with pytest.raises(SensorAbsentError):
        sensor.read()


def test_files_that_all_fail_are_a_failure(sensor: PressureSensor, procfs: Path) -> None:
    for resource in ("cpu", "memory", "io"):
        (procfs / "pressure" / resource).mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        sensor.read()


def test_on_this_machine_stall_times_do_not_run_back_or_the_kernel_keeps_none() -> None:
    sensor = PressureSensor(procfs_root=Path("/proc"))
    if not Path("/proc/pressure/cpu").exists():
        with pytest.raises(SensorAbsentError):
            sensor.read()
        return
    first, second = sensor.read().stalled_us, sensor.read().stalled_us
    sensor.close()
    assert all(second[key] >= first[key] for key in first)
