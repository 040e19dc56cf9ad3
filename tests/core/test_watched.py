"""Names of readings: what can be watched, what it reads, and what is said of a name that reads nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from neuromodd.core.encoding import CHANNELS
from neuromodd.core.fpga import FpgaMetrics
from neuromodd.core.frame import (
    DiskSample,
    FanSample,
    GpuSample,
    NetworkSample,
    PressureSample,
    TelemetryFrame,
    TemperatureSample,
    VoltageSample,
)
from neuromodd.core.surprise import DEFAULT_CHANNELS
from neuromodd.core.watched import (
    NAME_LIMIT,
    WATCHED_LIMIT,
    check_names,
    expected_instead,
    readings,
)
from neuromodd.errors import InvalidValueError

MakeFrame = Callable[..., TelemetryFrame]

NOTHING = (None,) * len(CHANNELS)

RICH: dict[str, Any] = {
    "lateness_ms": 2.5,
    "disk": DiskSample(write_bytes_per_s=4096.0),
    "network": NetworkSample(receive_bytes_per_s=10.0, transmit_bytes_per_s=0.5),
    "pressure": PressureSample(
        cpu_some_ratio=0.1, memory_some_ratio=0.3, memory_full_ratio=0.9, io_some_ratio=0.2
    ),
    "thermal": (
        TemperatureSample(name="board/v1.2 CPU core", temperature_celsius=61.0),
        TemperatureSample(name="board", temperature_celsius=40.0),
    ),
    "fans": (FanSample(name="rear", speed_rpm=0.0),),
    "voltages": (VoltageSample(name="-12 V", volts=-11.9),),
    "gpus": (GpuSample(index=3, power_watts=30.0, ecc_corrected=7), GpuSample(index=0, power_watts=None)),
    "fpga": FpgaMetrics(wns_ns=-0.25),
}


def read(frame: TelemetryFrame, name: str) -> float | None:
    (value,) = readings(frame, (name,), NOTHING)
    return value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lateness_ms", 2.5),
        ("disk.write_bytes_per_s", 4096.0),
        ("network", 10.5),
        ("pressure", 0.3),
        ("pressure.memory_full_ratio", 0.9),
        ("thermal.board/v1.2 CPU core.temperature_celsius", 61.0),
        ("thermal.board.temperature_celsius", 40.0),
        ("fans.rear.speed_rpm", 0.0),
        ("voltages.-12 V.volts", -11.9),
        ("gpus.3.power_watts", 30.0),
        ("gpus.3.ecc_corrected", 7.0),
        ("fpga.wns_ns", -0.25),
    ],
)
def test_a_name_reads_what_it_says(frame: MakeFrame, name: str, value: float) -> None:
    assert read(frame(**RICH), name) == value


@pytest.mark.parametrize(
    "name",
    [
        "lateness_ms",
        "disk.read_bytes_per_s",
        "memory.used_ratio",
        "gpus.0.power_watts",
        "gpus.1.power_watts",
        "thermal.CPU core.temperature_celsius",
        "fans.front.speed_rpm",
    ],
)
def test_what_was_not_measured_is_none(frame: MakeFrame, name: str) -> None:
    assert read(frame(**{**RICH, "lateness_ms": None}), name) is None


@pytest.mark.parametrize("name", sorted({*DEFAULT_CHANNELS, "disk.busy_ratio", "thermal.a.max_celsius"}))
def test_an_empty_frame_has_no_readings(frame: MakeFrame, name: str) -> None:
    assert read(frame(), name) is None


def test_a_channel_of_the_network_is_its_stimulus(frame: MakeFrame) -> None:
    stimuli = tuple(at / 10 for at in range(len(CHANNELS)))
    assert readings(frame(), CHANNELS, stimuli) == stimuli


def test_readings_come_in_the_order_of_the_names(frame: MakeFrame) -> None:
    names = ("gpus.3.power_watts", "cpu", "fans.rear.speed_rpm")
    assert readings(frame(**RICH), names, (0.25, *NOTHING[1:])) == (30.0, 0.25, 0.0)


def test_half_of_the_network_is_not_taken_for_the_whole(frame: MakeFrame) -> None:
    assert read(frame(network=NetworkSample(receive_bytes_per_s=10.0)), "network") is None


def test_pressure_is_that_of_what_was_measured(frame: MakeFrame) -> None:
    assert read(frame(pressure=PressureSample(io_some_ratio=0.25)), "pressure") == 0.25


def test_the_sum_of_the_largest_numbers_is_a_number(frame: MakeFrame) -> None:
    largest = sys.float_info.max
    network = NetworkSample(receive_bytes_per_s=largest, transmit_bytes_per_s=largest)
    assert read(frame(network=network), "network") == largest


# Names


@pytest.mark.parametrize("name", DEFAULT_CHANNELS)
def test_what_is_watched_by_default_can_be_watched(name: str) -> None:
    assert expected_instead(name) is None


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "one of cpu, memory, "),
        ("cpux", "did you mean cpu?"),
        ("disk", "the path of a number in the frame"),
        ("dsk.write_bytes_per_s", "did you mean disk.write_bytes_per_s?"),
        (
            "disk.writes_bytes_per_s",
            "disk.FIELD, FIELD one of read_bytes_per_s, write_bytes_per_s, busy_ratio",
        ),
        ("disk.writes_bytes_per_s", "did you mean disk.write_bytes_per_s?"),
        ("gpu.0.power_watts", "did you mean gpus.0.power_watts?"),
        ("gpus.power_watts", "did you mean gpus.0.power_watts?"),
        ("gpus.0.power_wats", "did you mean gpus.0.power_watts?"),
        ("gpus.00.power_watts", "gpus.<index>.FIELD, FIELD one of "),
        ("gpus.-1.power_watts", "gpus.<index>.FIELD, FIELD one of "),
        ("gpus.\N{SUPERSCRIPT TWO}.power_watts", "gpus.<index>.FIELD, FIELD one of "),
        ("thermal.temperature_celsius", "did you mean thermal.<name>.temperature_celsius?"),
        ("fans..speed_rpm", "fans.<name>.FIELD, FIELD one of speed_rpm"),
        ("thermal.x." + "y" * NAME_LIMIT, f"up to {NAME_LIMIT} characters"),
    ],
)
def test_of_a_name_that_reads_nothing_it_is_told_what_may_be_there(name: str, told: str) -> None:
    assert told in (expected_instead(name) or "")


@pytest.mark.parametrize(
    "name",
    [
        "sequence",
        "monotonic_s",
        "node",
        "gap",
        "power.on_mains",
        "gpus.0.lost",
        "gpus.0.index",
        "gpus.0.name",
        "gpus.0.energy_joules",
        "gpus.0.xid_errors",
        "cpu.core_frequencies_hz",
        "work.source",
    ],
)
def test_what_is_no_reading_can_not_be_watched(name: str) -> None:
    assert expected_instead(name) is not None


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        ((), "got '0 names', expected 1 to 64 names"),
        (tuple(f"gpus.{at}.power_watts" for at in range(WATCHED_LIMIT + 1)), "got '65 names', expected 1 to"),
        (("cpu", "memory", "cpu"), "got 'cpu', expected each name once"),
        (("cpu", "cpux"), "got 'cpux', expected one of"),
    ],
)
def test_names_that_can_not_be_watched_together_are_refused(names: tuple[str, ...], fault: str) -> None:
    with pytest.raises(InvalidValueError, match=rf"^surprise\.channels: {fault}"):
        check_names(names)


def test_as_many_names_as_the_limit_allows_can_be_watched(frame: MakeFrame) -> None:
    names = tuple(f"gpus.{at}.power_watts" for at in range(WATCHED_LIMIT))
    check_names(names)
    assert len(readings(frame(), names, NOTHING)) == WATCHED_LIMIT


def test_reading_a_name_that_is_none_is_an_error(frame: MakeFrame) -> None:
    with pytest.raises(InvalidValueError, match="did you mean cpu"):
        readings(frame(), ("cpux",), NOTHING)
