"""What a frame holds, in groups: how each is told, and which sensors it comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from neuromodd.core.frame import TelemetryFrame

Told = Callable[[TelemetryFrame], str | None]

SHOWN = 3
"""Of a list, so many are shown by name."""


class Measure(NamedTuple):
    """A group of readings that a host has together, or lacks together.

    Attributes:
        name: a place in the frame.
        sensors: which give it.
        fields: those of the frame that it is about; `thermal` is all of that list.
        told: what was measured, in words; None if nothing was.
    """

    name: str
    sensors: tuple[str, ...]
    fields: tuple[str, ...]
    told: Told


def _cpu(frame: TelemetryFrame) -> str | None:
    cpu = frame.cpu
    if cpu is None or cpu.utilization_ratio is None:
        return None
    load = "" if cpu.load_1m is None else f", load {cpu.load_1m:g}"
    switches = cpu.context_switches_per_s
    return f"{cpu.utilization_ratio:.0%} busy{load}" + (
        "" if switches is None else f", {switches:.0f} context switches/s"
    )


def _frequency(frame: TelemetryFrame) -> str | None:
    if frame.cpu is None or frame.cpu.frequency_hz is None:
        return None
    most = frame.cpu.frequency_max_hz
    return f"{frame.cpu.frequency_hz / 1e9:.2f} GHz" + ("" if most is None else f" of {most / 1e9:.2f} GHz")


def _cpu_temperature(frame: TelemetryFrame) -> str | None:
    if frame.cpu is None or frame.cpu.temperature_celsius is None:
        return None
    limit = frame.cpu.temperature_max_celsius
    return f"{frame.cpu.temperature_celsius:.0f} C" + (
        ", no limit told" if limit is None else f", limit {limit:.0f} C"
    )


def _throttles(frame: TelemetryFrame) -> str | None:
    if frame.cpu is None or frame.cpu.throttles_per_s is None:
        return None
    return f"{frame.cpu.throttles_per_s:g} a second"


def _memory(frame: TelemetryFrame) -> str | None:
    memory = frame.memory
    if memory is None or memory.total_bytes is None or memory.used_ratio is None:
        return None
    swap = "no swap" if memory.swap_used_ratio is None else f"{memory.swap_used_ratio:.0%} of the swap"
    return f"{memory.used_ratio:.0%} of {memory.total_bytes / 1e9:.1f} GB used, {swap}"


def _pressure(frame: TelemetryFrame) -> str | None:
    if frame.pressure is None or frame.pressure.cpu_some_ratio is None:
        return None
    shares = {
        "cpu": frame.pressure.cpu_some_ratio,
        "memory": frame.pressure.memory_some_ratio,
        "io": frame.pressure.io_some_ratio,
    }
    return ", ".join(f"{name} {share:.1%}" for name, share in shares.items() if share is not None)


def _disk(frame: TelemetryFrame) -> str | None:
    disk = frame.disk
    if disk is None or disk.read_bytes_per_s is None or disk.write_bytes_per_s is None:
        return None
    busy = "" if disk.busy_ratio is None else f", {disk.busy_ratio:.0%} busy"
    return (
        f"{disk.read_bytes_per_s / 1e3:.0f} kB/s read, {disk.write_bytes_per_s / 1e3:.0f} kB/s written{busy}"
    )


def _network(frame: TelemetryFrame) -> str | None:
    network = frame.network
    if network is None or network.receive_bytes_per_s is None or network.transmit_bytes_per_s is None:
        return None
    return (
        f"{network.receive_bytes_per_s / 1e3:.1f} kB/s received, "
        f"{network.transmit_bytes_per_s / 1e3:.1f} kB/s sent"
    )


def _package_power(frame: TelemetryFrame) -> str | None:
    if frame.power is None or frame.power.package_watts is None:
        return None
    return f"{frame.power.package_watts:.1f} W"


def _core_volts(frame: TelemetryFrame) -> str | None:
    if frame.power is None or frame.power.core_volts is None:
        return None
    return f"{frame.power.core_volts:.3f} V"


def _supply(frame: TelemetryFrame) -> str | None:
    power = frame.power
    if power is None or (power.on_mains is None and power.battery_ratio is None):
        return None
    source = {True: "on mains", False: "on battery", None: "on what is not told"}[power.on_mains]
    return source + (
        ", no battery" if power.battery_ratio is None else f", battery at {power.battery_ratio:.0%}"
    )


def _limits(frame: TelemetryFrame) -> str | None:
    if frame.limits is None:
        return None
    cores, memory = frame.limits.cpu_limit_cores, frame.limits.memory_limit_bytes
    told = [] if cores is None else [f"{cores:g} processors"]
    told += [] if memory is None else [f"{memory / 1e9:.1f} GB of memory"]
    return ", ".join(told) or None


def _work(frame: TelemetryFrame) -> str | None:
    work = frame.work
    if work is None or work.rate is None:
        return None
    return f"rate {work.rate:.2f}, by {work.source or 'nothing named'}"


def _cgroup(frame: TelemetryFrame) -> str | None:
    if frame.work is None or frame.work.cgroup is None:
        return None
    return f"{frame.work.cgroup} does most of the work"


def _thermal(frame: TelemetryFrame) -> str | None:
    known = [of.name for of in frame.thermal or () if of.temperature_celsius is not None]
    return names_text(known)


def _fans(frame: TelemetryFrame) -> str | None:
    return names_text([of.name for of in frame.fans or () if of.speed_rpm is not None])


def _voltages(frame: TelemetryFrame) -> str | None:
    return names_text([of.name for of in frame.voltages or () if of.volts is not None])


def _fpga(frame: TelemetryFrame) -> str | None:
    if frame.fpga is None:
        return None
    slack = frame.fpga.wns_ns
    return "the report has no constrained path" if slack is None else f"worst slack {slack:g} ns"


def names_text(names: Iterable[str]) -> str | None:
    """How many there are, and the first by name; None if there are none."""
    known = list(names)
    if not known:
        return None
    more = "" if len(known) <= SHOWN else " ..."
    return f"{len(known)}: {', '.join(known[:SHOWN])}{more}"


MEASURES = (
    Measure("cpu", ("cpu",), ("cpu.utilization_ratio", "cpu.load_1m", "cpu.context_switches_per_s"), _cpu),
    Measure(
        "cpu.frequency_hz",
        ("cpu",),
        ("cpu.frequency_hz", "cpu.frequency_max_hz", "cpu.core_frequencies_hz"),
        _frequency,
    ),
    Measure(
        "cpu.temperature_celsius",
        ("hwmon", "thermal_zones"),
        ("cpu.temperature_celsius", "cpu.temperature_max_celsius"),
        _cpu_temperature,
    ),
    Measure("cpu.throttles_per_s", ("cpu",), ("cpu.throttles_per_s",), _throttles),
    Measure("memory", ("memory",), ("memory",), _memory),
    Measure("pressure", ("pressure",), ("pressure",), _pressure),
    Measure("disk", ("disk",), ("disk",), _disk),
    Measure("network", ("network",), ("network",), _network),
    Measure("power.package_watts", ("rapl",), ("power.package_watts",), _package_power),
    Measure("power.core_volts", ("hwmon",), ("power.core_volts",), _core_volts),
    Measure("power.on_mains", ("power_supply",), ("power.on_mains", "power.battery_ratio"), _supply),
    Measure("limits", ("limits",), ("limits",), _limits),
    Measure("thermal", ("hwmon", "thermal_zones"), ("thermal",), _thermal),
    Measure("fans", ("hwmon",), ("fans",), _fans),
    Measure("voltages", ("hwmon",), ("voltages",), _voltages),
    Measure("work", ("cpu",), ("work.rate", "work.target", "work.source", "work.latency_ms"), _work),
    Measure("work.cgroup", ("cgroup",), ("work.cgroup",), _cgroup),
    Measure("fpga", ("fpga",), ("fpga",), _fpga),
)
"""All but the GPUs, in the order of the frame."""
