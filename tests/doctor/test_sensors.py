"""What a host measures, and why not the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest

from neuromodd.config import SensorName
from neuromodd.core.frame import CpuSample, PowerSample, TelemetryFrame, VoltageSample, WorkSample
from neuromodd.doctor.findings import Finding
from neuromodd.doctor.measures import MEASURES
from neuromodd.doctor.sensors import examine_sensors
from neuromodd.doctor.sight import Sight
from neuromodd.sensors.base import SensorStatus

MakeSight = Callable[..., Sight]

ABSENT = {name: SensorStatus("absent", "none") for name in get_args(SensorName)}

INTEL = "== proc/cpuinfo\nvendor_id\t: GenuineIntel\n== sys/class/\n"
RAPL = "== sys/class/powercap/intel-rapl:0/name\npackage-0\n== sys/class/powercap/intel-rapl:0/energy_uj\n1\n"

# Who a host is, and when; and the GPUs, which have a judgement of their own.
NOT_MEASURED = {"node", "sequence", "time_utc", "monotonic_s", "boot_id", "interval_s", "lateness_ms", "gap"}
GPUS = {"gpus", "gpu_driver_error"}


def examine(sight: Sight) -> dict[str, Finding]:
    return {of.name: of for of in examine_sensors(sight)}


def examine_absent(see: MakeSight, name: str, tree: str = INTEL, **how: object) -> Finding:
    return examine(see(tree, statuses=ABSENT, **how))[name]


def covers(field: str) -> bool:
    return any(field == of or field.startswith(f"{of}.") for measure in MEASURES for of in measure.fields)


def test_every_field_of_the_frame_belongs_to_a_finding() -> None:
    fields = []
    for name, info in TelemetryFrame.model_fields.items():
        if name in NOT_MEASURED | GPUS:
            continue
        group = next(
            (of for of in getattr(info.annotation, "__args__", ()) if hasattr(of, "model_fields")), None
        )
        fields += [name] if group is None else [f"{name}.{of}" for of in group.model_fields]
    assert [field for field in fields if not covers(field)] == []


def test_each_field_that_a_finding_is_about_is_in_the_frame() -> None:
    for field in (of for measure in MEASURES for of in measure.fields):
        group, _, name = field.partition(".")
        annotation = TelemetryFrame.model_fields[group].annotation
        assert not name or any(name in getattr(of, "model_fields", {}) for of in annotation.__args__)  # type: ignore[union-attr]


def test_what_is_measured_is_told_with_its_value(see: MakeSight) -> None:
    frame = TelemetryFrame(cpu=CpuSample(utilization_ratio=0.25, load_1m=1.5, context_switches_per_s=900.0))
    cpu = examine(see(frame=frame, statuses=ABSENT))["cpu"]
    assert (cpu.verdict, cpu.finding) == ("ok", "25% busy, load 1.5, 900 context switches/s")


def test_a_sensor_that_is_disabled_is_named_as_such(see: MakeSight) -> None:
    found = examine_absent(see, "gpus.nvidia", disabled=("nvml",))
    assert (found.verdict, found.remedy) == ("note", "take nvml out of sensors.disabled")


@pytest.mark.parametrize("state", ["failed", "hung"])
def test_a_sensor_that_fails_is_a_failure_with_a_way_to_go_without(see: MakeSight, state: str) -> None:
    statuses = {**ABSENT, "disk": SensorStatus(state, "no answer within 1 s")}  # type: ignore[arg-type]
    disk = examine(see(statuses=statuses))["disk"]
    assert disk.verdict == "failure"
    assert 'sensors.disabled = ["disk"]' in str(disk.remedy)


def test_a_sensor_that_was_not_reached_is_a_failure(see: MakeSight) -> None:
    assert examine(see(statuses={}))["memory"].finding == "not asked: the sensors before it took too long"


@pytest.mark.parametrize(("vendor", "module"), [("AuthenticAMD", "k10temp"), ("GenuineIntel", "coretemp")])
def test_a_host_without_chips_wants_the_module_of_its_processor(
    see: MakeSight, vendor: str, module: str
) -> None:
    tree = f"== proc/cpuinfo\nvendor_id\t: {vendor}\n== sys/class/\n"
    found = examine_absent(see, "cpu.temperature_celsius", tree)
    assert found.verdict == "warning"
    assert str(found.remedy).startswith(f"modprobe {module}; ")


def test_in_a_container_a_module_is_loaded_on_the_host(see: MakeSight) -> None:
    found = examine_absent(see, "thermal", container="Docker")
    assert str(found.remedy).startswith("on the host: modprobe coretemp")


@pytest.mark.parametrize(
    "name", ["cpu.temperature_celsius", "fans", "power.package_watts", "thermal", "voltages"]
)
def test_a_virtual_machine_has_no_such_thing_and_nothing_to_do(see: MakeSight, name: str) -> None:
    found = examine_absent(see, name, machine="QEMU")
    assert (found.verdict, found.remedy) == ("note", None)
    assert "a virtual machine (QEMU)" in found.finding


def test_energy_counters_for_root_alone_want_the_drop_in(see: MakeSight) -> None:
    sight = see(INTEL + RAPL, statuses={**ABSENT, "rapl": SensorStatus("failed", "rapl: by root only")})
    (sight.sysfs / "class/powercap/intel-rapl:0/energy_uj").chmod(0o400)
    power = examine(sight)["power.package_watts"]
    assert power.verdict == "warning"
    assert "rapl.conf" in str(power.remedy)


def test_energy_counters_that_root_reads_are_not_a_services(see: MakeSight) -> None:
    frame = TelemetryFrame(power=PowerSample(package_watts=31.25))
    sight = see(INTEL + RAPL, frame=frame, statuses=ABSENT, root=True)
    (sight.sysfs / "class/powercap/intel-rapl:0/energy_uj").chmod(0o400)
    power = examine(sight)["power.package_watts"]
    assert (power.verdict, power.finding) == ("note", "31.2 W, as root, and nobody else may read it")


def test_energy_counters_that_all_may_read_are_well(see: MakeSight) -> None:
    frame = TelemetryFrame(power=PowerSample(package_watts=31.25))
    assert examine(see(INTEL + RAPL, frame=frame, statuses=ABSENT))["power.package_watts"].verdict == "ok"


def test_energy_counters_that_are_missing_want_their_module(see: MakeSight) -> None:
    assert "modprobe intel_rapl_msr" in str(examine_absent(see, "power.package_watts").remedy)


def test_a_kernel_without_pressure_wants_psi_1(see: MakeSight) -> None:
    assert "boot with psi=1" in str(examine_absent(see, "pressure").remedy)


def test_a_kernel_that_was_told_psi_1_was_built_without_it(see: MakeSight) -> None:
    found = examine_absent(see, "pressure", INTEL + "== proc/cmdline\nquiet psi=1\n")
    assert found.finding == "the kernel was built without it"


def test_control_groups_of_version_1_want_another_boot(see: MakeSight) -> None:
    found = examine_absent(see, "work.cgroup", INTEL + "== sys/fs/cgroup/cpu/\n")
    assert "systemd.unified_cgroup_hierarchy=1" in str(found.remedy)


def test_no_dominant_control_group_is_well(see: MakeSight) -> None:
    assert examine(see(statuses={**ABSENT, "cgroup": SensorStatus("ok")}))["work.cgroup"].verdict == "ok"


def test_a_dominant_control_group_is_named(see: MakeSight) -> None:
    frame = TelemetryFrame(work=WorkSample(rate=1.0, cgroup="user.slice"))
    assert examine(see(frame=frame, statuses=ABSENT))["work.cgroup"].finding.startswith("user.slice")


def test_a_core_rail_that_is_none_of_the_voltages_is_told_with_those(see: MakeSight) -> None:
    frame = TelemetryFrame(voltages=(VoltageSample(name="nct6798/in0", volts=1.3),))
    found = examine(see(frame=frame, statuses=ABSENT, core_rail="nct6798/Vcore"))["power.core_volts"]
    assert (found.verdict, found.finding) == ("warning", "nct6798/Vcore is not among the voltages")
    assert str(found.remedy).endswith("one of: nct6798/in0")


def test_a_container_with_the_hosts_files_is_well(see: MakeSight) -> None:
    assert examine_absent(see, "container", container="Docker").verdict == "ok"


def test_outside_of_a_container_nothing_is_said_of_one(see: MakeSight) -> None:
    assert "container" not in examine(see(statuses=ABSENT))


def test_a_container_with_its_own_files_wants_the_hosts_mounted(see: MakeSight) -> None:
    sight = see(statuses=ABSENT, container="Docker")
    bare = sight._replace(settings=type(sight.settings)())
    found = examine(bare)["container"]
    assert found.verdict == "warning"
    assert "-v /proc:/host/proc:ro -e NEUROMODD_SENSORS__PROCFS_ROOT=/host/proc" in str(found.remedy)


def test_every_warning_and_failure_of_a_bare_host_has_a_remedy(see: MakeSight) -> None:
    found = examine(see(statuses=ABSENT)).values()
    assert [of.name for of in found if of.verdict in ("warning", "failure") and of.remedy is None] == []
