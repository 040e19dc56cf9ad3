"""Why a host does not measure something, and what can be done about it."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from neuromodd.doctor.sight import Judgement, Sight, on_host
from neuromodd.doctor.surroundings import processor_vendor
from neuromodd.sensors.files import read_word
from neuromodd.sensors.hwmon import find_inputs
from neuromodd.sensors.rapl import find_packages

_OF_VENDOR = {"GenuineIntel": "coretemp", "AuthenticAMD": "k10temp", "HygonGenuine": "k10temp"}
"""The module that tells the temperature of a maker's processors."""

_DROP_IN = (
    "give the service the drop-in rapl.conf, which says how: in /opt/neuromodd/share/neuromodd/systemd, "
    "or systemd/rapl.conf of a clone"
)

_AS_ROOT = 'run the container as root (--user 0), or leave it: sensors.disabled = ["rapl"]'

_CGROUP_V2 = "boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line"


def modprobe(module: str) -> str:
    """How to load a module, now and at each boot."""
    return f"modprobe {module}; to keep it: echo {module} > /etc/modules-load.d/{module}.conf"


def no_frequency(sight: Sight) -> Judgement:
    """Neither cpufreq nor /proc/cpuinfo tells a frequency."""
    if sight.around.machine is not None:
        return Judgement("note", f"{sight.around.machine_text} is not told it")
    return Judgement("warning", "the kernel tells none: no cpufreq driver", modprobe("acpi_cpufreq"))


def no_cpu_temperature(sight: Sight) -> Judgement:
    """No chip and no thermal zone stands for the processor."""
    found = {of.chip for of in find_inputs(sight.sysfs)}
    if found:
        return _no_chip_of_processor(
            sight, f"none of the chips ({', '.join(sorted(found))}) is the processor's"
        )
    return no_chips(sight)


def no_chips(sight: Sight) -> Judgement:
    """There is no hardware monitoring chip at all."""
    if sight.around.machine is not None:
        return Judgement("note", f"no chip: {sight.around.machine_text} has none")
    if not sight.sysfs.joinpath("class").is_dir():
        return Judgement("warning", f"{sight.sysfs} has no class/: it is no sysfs", _mount("sys"))
    return _no_chip_of_processor(sight, "no chip in class/hwmon")


def _no_chip_of_processor(sight: Sight, what: str) -> Judgement:
    module = _OF_VENDOR.get(processor_vendor(sight.procfs) or "")
    if sight.around.machine is not None:
        return Judgement("note", f"{what}: {sight.around.machine_text} has none")
    if module is None:
        return Judgement("warning", what, "apt install lm-sensors && sensors-detect finds the module to load")
    return Judgement(
        "warning", f"{what}: the module {module} is not loaded", f"{on_host(sight)}{modprobe(module)}"
    )


def no_throttles(sight: Sight) -> Judgement:
    """No count of thermal throttling."""
    vendor = processor_vendor(sight.procfs)
    if vendor != "GenuineIntel":
        return Judgement(
            "note", "only Intel's processors are counted" + (f"; this is {vendor}" if vendor else "")
        )
    where = f" to {sight.around.machine_text}" if sight.around.machine is not None else ""
    return Judgement("note", f"the kernel tells none{where}")


def no_pressure(sight: Sight) -> Judgement:
    """No pressure stall information."""
    if (sight.procfs / "pressure").is_dir():
        return Judgement("warning", "the kernel was booted with it switched off", _psi(sight))
    if "psi=1" in (read_word(sight.procfs / "cmdline") or "").split():
        return Judgement(
            "note", "the kernel was built without it", "use a kernel with CONFIG_PSI, of Linux 4.20 or later"
        )
    return Judgement("warning", "the kernel keeps none: it was built without it, or with it off", _psi(sight))


def _psi(sight: Sight) -> str:
    return f"{on_host(sight)}boot with psi=1 on the kernel's command line (with GRUB in /etc/default/grub)"


def no_disk(sight: Sight) -> Judgement:
    """No physical disk."""
    if not (sight.procfs / "diskstats").exists():
        return Judgement("warning", f"{sight.procfs} has no diskstats: it is no procfs", _mount("proc"))
    return Judgement("note", "no physical disk: its files are on a network, or handed in by a hypervisor")


def no_network(sight: Sight) -> Judgement:
    """No interface but the loopback."""
    if sight.around.container is not None:
        return Judgement("warning", "this container has no interface but the loopback", _mount("proc"))
    return Judgement(
        "warning", "no interface but the loopback", "sensors.network.include_loopback = true counts that one"
    )


def no_package_power(sight: Sight) -> Judgement:
    """No energy counter of a processor package, or none that may be read."""
    if find_packages(sight.sysfs):
        remedy = _AS_ROOT if sight.around.container is not None else _DROP_IN
        return Judgement(
            "warning", "the processor counts its energy, and the counters are for root alone", remedy
        )
    if sight.around.machine is not None:
        return Judgement("note", f"no counter: {sight.around.machine_text} has none")
    vendor = processor_vendor(sight.procfs)
    if vendor not in _OF_VENDOR:
        return Judgement("note", "no counter: only Intel's and AMD's processors have them")
    return Judgement(
        "warning",
        "no counter in class/powercap: their module is not loaded",
        f"{on_host(sight)}{modprobe('intel_rapl_msr')} (AMD's processors too)",
    )


def package_power_of_root(sight: Sight) -> Judgement | None:
    """What is to be said where root has read what others may not; None if all may."""
    return Judgement("note", "as root, and nobody else may read it", _DROP_IN) if is_for_root(sight) else None


def is_for_root(sight: Sight) -> bool:
    """Whether some energy counter is readable for root alone."""
    with contextlib.suppress(OSError):
        return any(not of.energy.path.stat().st_mode & stat.S_IROTH for of in find_packages(sight.sysfs))
    return False


def no_core_volts(sight: Sight) -> Judgement:
    """The core rail is not named, or is none of the voltages."""
    named = sight.settings.sensors.hwmon.core_rail
    voltages = [] if sight.frame is None else [of.name for of in sight.frame.voltages or ()]
    listed = f"one of: {', '.join(voltages[:8])}"
    if named is None and voltages:
        return Judgement(
            "note", "no voltage is named as the core rail", f"sensors.hwmon.core_rail = {listed}"
        )
    if named is None:
        return Judgement("note", "this host tells no voltages, of which one could be the core rail")
    if not voltages:
        return Judgement(
            "warning", f"{named} is not there: this host tells no voltages", "unset sensors.hwmon.core_rail"
        )
    return Judgement("warning", f"{named} is not among the voltages", f"sensors.hwmon.core_rail = {listed}")


def no_supply(_: Sight) -> Judgement:
    """Neither a mains adapter nor a battery."""
    return Judgement("note", "no mains adapter and no battery, as on most desktops and servers")


def no_limits(_: Sight) -> Judgement:
    """No control group limits this process."""
    return Judgement("note", "no control group limits this process")


def no_fans(sight: Sight) -> Judgement:
    """No fan that a chip tells of."""
    return _no_input(sight, "fan")


def no_voltages(sight: Sight) -> Judgement:
    """No voltage that a chip tells of."""
    return _no_input(sight, "voltage")


def _no_input(sight: Sight, what: str) -> Judgement:
    if sight.around.machine is not None:
        return Judgement("note", f"no {what}: {sight.around.machine_text} has none")
    return Judgement(
        "note",
        f"no chip tells of a {what}; on laptops and small boards often none does",
        f"{on_host(sight)}apt install lm-sensors && sensors-detect finds the board's chip",
    )


def no_work(_: Sight) -> Judgement:
    """There is no work rate, as it is made of what is not measured."""
    return Judgement("warning", "it is made of the processors' utilisation, which is not measured", "see cpu")


def no_cgroups(sight: Sight) -> Judgement:
    """No control group that does most of the work, or no telling."""
    root = sight.sysfs / "fs/cgroup"
    status = sight.statuses.get("cgroup")
    if status is not None and status.state == "ok":
        return Judgement("ok", "can be told; null now, as no group uses half of the processors")
    if (root / "cgroup.controllers").exists():
        if sight.around.container is not None:
            return Judgement("note", "the container sees no groups but its own", _mount("sys"))
        return Judgement("note", "no group below the root: no systemd, and no containers")
    if any((root / name).is_dir() for name in ("cpu", "memory", "unified")):
        return Judgement("note", "control groups of version 1: who does the work can't be told", _CGROUP_V2)
    return Judgement("note", "no control groups")


def no_fpga(sight: Sight) -> Judgement:
    """No report of an FPGA build."""
    report = sight.settings.fpga.timing_report
    if report is None:
        return Judgement("note", "no report is named: fpga.timing_report")
    return Judgement(
        "warning",
        f"{report} is not there yet",
        f"have Vivado write it: report_timing_summary -file {report}",
    )


def failed(sight: Sight, name: str) -> Judgement:
    """A sensor is there and fails, or hangs."""
    status = sight.statuses[name]
    without = f'to go without: sensors.disabled = ["{name}"]'
    if status.state == "hung":
        return Judgement(
            "failure", f"hangs: {status.error}", f"dmesg | tail may tell of the device; {without}"
        )
    error = status.error or "fails"
    if "Permission" in error:
        return Judgement(
            "failure", error, f"let {sight.around.user} read it, or run the daemon as who may; {without}"
        )
    return Judgement("failure", error, f"dmesg | tail may tell of the device; {without}")


def _mount(which: str) -> str:
    option = "PROCFS" if which == "proc" else "SYSFS"
    return f"mount the host's: -v /{which}:/host/{which}:ro -e NEUROMODD_SENSORS__{option}_ROOT=/host/{which}"


def examine_roots(sight: Sight) -> Judgement | None:
    """Whether the host's files are there, in a container; None outside of one."""
    kind = sight.around.container
    own = [
        which for which, root in (("proc", sight.procfs), ("sys", sight.sysfs)) if root == Path(f"/{which}")
    ]
    if kind is None:
        return None
    if not own:
        return Judgement(
            "ok", f"in a container ({kind}), with the host's files at {sight.procfs} and {sight.sysfs}"
        )
    files = " and ".join(f"/{which}" for which in own)
    return Judgement(
        "warning",
        f"in a container ({kind}) with its own {files}: the network is the container's, and more may be",
        "; ".join(_mount(which) for which in own),
    )


REASONS: Mapping[str, Callable[[Sight], Judgement]] = {
    "cpu.frequency_hz": no_frequency,
    "cpu.temperature_celsius": no_cpu_temperature,
    "cpu.throttles_per_s": no_throttles,
    "pressure": no_pressure,
    "disk": no_disk,
    "network": no_network,
    "power.package_watts": no_package_power,
    "power.core_volts": no_core_volts,
    "power.on_mains": no_supply,
    "limits": no_limits,
    "thermal": no_chips,
    "fans": no_fans,
    "voltages": no_voltages,
    "work": no_work,
    "work.cgroup": no_cgroups,
    "fpga": no_fpga,
}
"""By the measure's name: why it is not measured, where no sensor fails."""
