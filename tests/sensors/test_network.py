from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from neuromodd.core.readings import InterfaceCounters
from neuromodd.errors import SensorAbsentError
from neuromodd.sensors.network import NetworkSensor, net_dev_path, parse_net_dev

Write = Callable[[Path, str], Path]

HEADINGS = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
"""  # noqa: E501 - as the kernel writes it


def line(
    name: str,
    *,
    received: int = 0,
    transmitted: int = 0,
    errors: tuple[int, int] = (0, 0),
    drops: tuple[int, int] = (0, 0),
) -> str:
    return (
        f"{name:>6}: {received} 9 {errors[0]} {drops[0]} 21 22 23 24"
        f" {transmitted} 6 {errors[1]} {drops[1]} 31 32 33 34\n"
    )


def net_dev(*names: str) -> str:
    return HEADINGS + "".join(map(line, names))


@pytest.fixture
def make(procfs: Path, sysfs: Path, now: list[float]) -> Iterator[Callable[..., NetworkSensor]]:
    made: list[NetworkSensor] = []

    def make_sensor(*, include_loopback: bool = False) -> NetworkSensor:
        made.append(
            NetworkSensor(
                procfs_root=procfs,
                sysfs_root=sysfs,
                include_loopback=include_loopback,
                clock=lambda: now[0],
            )
        )
        return made[-1]

    yield make_sensor
    for sensor in made:
        sensor.close()


@pytest.fixture
def sensor(make: Callable[..., NetworkSensor]) -> NetworkSensor:
    return make()


def test_errors_are_those_of_both_directions() -> None:
    text = HEADINGS + line("eth0", received=500, transmitted=70, errors=(3, 4))
    assert parse_net_dev(text) == {"eth0": InterfaceCounters(500, 70, 7, drops=0)}


def test_drops_are_those_of_both_directions() -> None:
    text = HEADINGS + line("eth0", drops=(5, 6))
    assert parse_net_dev(text) == {"eth0": InterfaceCounters(0, 0, 0, drops=11)}


def test_counters_that_touch_the_name_are_read() -> None:
    text = HEADINGS + "  eth0:123456789012 9 0 8 0 0 0 7 70 6 0 5 0 0 0 0\n"
    assert parse_net_dev(text)["eth0"].receive_bytes == 123456789012


def test_a_line_of_a_foreign_format_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 16 numbers"):
        parse_net_dev(HEADINGS + "eth0: 1 2 3\n")


def test_only_interfaces_with_a_device_count(
    sensor: NetworkSensor, procfs: Path, write: Write, add_device: Callable[..., Path]
) -> None:
    write(procfs / "net/dev", net_dev("lo", "eth0", "docker0", "veth12"))
    add_device("class/net/eth0", "pci0000:00/0000:00:03.0")
    for virtual in ("lo", "docker0", "veth12"):
        add_device(f"class/net/{virtual}", None)
    assert set(sensor.read().interfaces) == {"eth0"}


def test_in_a_container_all_but_the_loopback_count(sensor: NetworkSensor, procfs: Path, write: Write) -> None:
    write(procfs / "net/dev", net_dev("lo", "eth0", "eth1"))
    assert set(sensor.read().interfaces) == {"eth0", "eth1"}


def test_the_loopback_counts_if_asked_for(
    make: Callable[..., NetworkSensor], procfs: Path, write: Write, add_device: Callable[..., Path]
) -> None:
    write(procfs / "net/dev", net_dev("lo", "eth0", "docker0"))
    add_device("class/net/eth0", "pci0000:00/0000:00:03.0")
    assert set(make(include_loopback=True).read().interfaces) == {"lo", "eth0"}


def test_an_interface_that_is_plugged_in_counts_at_once(
    sensor: NetworkSensor, procfs: Path, write: Write, add_device: Callable[..., Path]
) -> None:
    add_device("class/net/eth0", "pci0000:00/0000:00:03.0")
    write(procfs / "net/dev", net_dev("lo", "eth0"))
    sensor.read()
    add_device("class/net/eth1", "usb1/1-1")
    write(procfs / "net/dev", net_dev("lo", "eth0", "eth1"))
    assert set(sensor.read().interfaces) == {"eth0", "eth1"}


def test_an_interface_that_is_unplugged_is_missing_and_not_zero(
    sensor: NetworkSensor, procfs: Path, write: Write, add_device: Callable[..., Path]
) -> None:
    for number in (0, 1):
        add_device(f"class/net/eth{number}", f"pci0000:00/0000:00:0{number}.0")
    write(procfs / "net/dev", net_dev("lo", "eth0", "eth1"))
    sensor.read()
    write(procfs / "net/dev", net_dev("lo", "eth0"))
    assert set(sensor.read().interfaces) == {"eth0"}


def test_a_mounted_proc_of_the_host_is_read_in_the_namespace_of_its_first_process(
    sensor: NetworkSensor, procfs: Path, write: Write
) -> None:
    write(procfs / "net/dev", net_dev("lo", "container0"))
    write(procfs / "1/net/dev", net_dev("lo", "host0"))
    assert set(sensor.read().interfaces) == {"host0"}


def test_the_own_proc_is_read_in_the_own_namespace() -> None:
    assert net_dev_path(Path("/proc")) == Path("/proc/net/dev")


def test_no_file_means_absent(sensor: NetworkSensor) -> None:
    with pytest.raises(SensorAbsentError):
        sensor.read()


def test_nothing_but_the_loopback_means_absent(sensor: NetworkSensor, procfs: Path, write: Write) -> None:
    write(procfs / "net/dev", net_dev("lo"))
    with pytest.raises(SensorAbsentError, match="no interface but the loopback"):
        sensor.read()


def test_a_file_that_can_not_be_read_is_a_failure(sensor: NetworkSensor, procfs: Path) -> None:
    (procfs / "net/dev").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        sensor.read()


def test_the_loopback_of_this_machine_has_counted_what_psutil_says() -> None:
    sensor = NetworkSensor(procfs_root=Path("/proc"), sysfs_root=Path("/sys"), include_loopback=True)
    counters = sensor.read().interfaces["lo"]
    sensor.close()
    known = psutil.net_io_counters(pernic=True, nowrap=False)["lo"]
    assert counters.receive_bytes == pytest.approx(known.bytes_recv, rel=0.05, abs=1 << 20)
