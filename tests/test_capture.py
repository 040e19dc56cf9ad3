"""`neuromodd capture`: the copy gives the machine's frame, and does not tell whose machine it is."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

import pytest
from machine_files import KINDS, machine_text, pack, run_on, unpack

from neuromodd import capture
from neuromodd.redaction import Redactor, find_identities

UUID = "5c0ffee5-1234-4abc-9def-0123456789ab"
SERIAL = "5c88f3d5d1dbcf5a"


class Machine:
    """A machine's files; `capture` makes a copy of what is read of them."""

    def __init__(self, folder: Path, nvml_stub: Path) -> None:
        self.folder = folder
        self._nvml_stub = nvml_stub

    def sample(self, node: str = "lab") -> Any:
        return json.loads(run_on(self.folder, self._nvml_stub, "sample", node=node))

    def capture(self, directory: Path, node: str = "lab") -> Machine:
        run_on(self.folder, self._nvml_stub, "capture", directory, node=node)
        return Machine(directory, self._nvml_stub)

    def text(self, name: str) -> str:
        return (self.folder / name).read_text()

    @property
    def frame(self) -> Any:
        """The frame that lies beside the files of a copy."""
        return json.loads(self.text("frame.json"))


Make = Callable[..., Machine]


@pytest.fixture
def make(nvml_stub: Path, tmp_path: Path) -> Make:
    """Makes a machine of that kind, with other files besides."""

    def machine(kind: str, *files: str, **instead: str) -> Machine:
        text = machine_text(kind)
        for old, new in instead.items():
            assert old in text
            text = text.replace(old, new)
        return Machine(unpack(text + "".join(files), tmp_path / "machine"), nvml_stub)

    return machine


def changing(frame: Any) -> Any:
    """A frame without what no two looks have in common."""
    gone = (
        "time_utc",
        "monotonic_s",
        "interval_s",
        "lateness_ms",
        "sequence",
        "boot_id",
        "node",
        "gpus",
        "work",
    )
    return {name: value for name, value in frame.items() if name not in gone}


def gpus(frame: Any) -> Any:
    """The GPUs without their identities, which a capture replaces."""
    return [{**gpu, "uuid": None} for gpu in frame["gpus"] or ()]


# The frame of a copy


@pytest.mark.parametrize("kind", KINDS)
def test_a_captured_machine_gives_the_frame_of_the_machine(make: Make, tmp_path: Path, kind: str) -> None:
    machine = make(kind)
    expected, again = machine.sample(), machine.capture(tmp_path / "copy").sample()
    assert changing(again) == changing(expected)
    assert gpus(again) == gpus(expected)


@pytest.mark.parametrize(
    ("kind", "node"),
    [
        ("board", "cpu"),
        ("workstation", "memory"),
        ("workstation", "power"),
        ("workstation", "net"),
        # Chips of one kind are named after their devices.
        ("server", "coretemp"),
        ("server", "1"),
        ("laptop", "nvidia"),
        ("board", "0"),
    ],
)
def test_a_host_that_is_called_like_a_thing_of_the_kernel_is_captured_whole(
    make: Make, tmp_path: Path, kind: str, node: str
) -> None:
    machine = make(kind)
    copy = machine.capture(tmp_path / "copy", node)
    expected, again = machine.sample(node), copy.sample(node)
    assert changing(again) == changing(expected) == changing(copy.frame)
    assert gpus(again) == gpus(expected) == gpus(copy.frame)
    assert copy.frame["node"] == "host"


# What a copy does not tell


@pytest.mark.parametrize(
    "secret",
    [
        "b827eb123456",  # the address in an interface's name
        "deadbeef",  # the board's serial number
        "0d9c4a8e-8f0e-4a53-9c7c-52a5d90b8e21",  # the boot
    ],
)
def test_a_capture_does_not_tell(make: Make, tmp_path: Path, secret: str) -> None:
    machine = make("board")
    assert secret in pack(machine.folder)
    assert secret not in pack(machine.capture(tmp_path / "copy").folder)


def test_the_serial_of_a_gpu_is_replaced_in_its_file_and_in_the_frame_by_the_same(
    make: Make, tmp_path: Path
) -> None:
    machine = make("server", **{"0000000000000001": SERIAL})
    copy = machine.capture(tmp_path / "copy")
    assert machine.sample()["gpus"][0]["uuid"] == SERIAL
    assert SERIAL not in pack(copy.folder)
    assert copy.frame["gpus"][0]["uuid"] == copy.sample()["gpus"][0]["uuid"]
    assert copy.frame["gpus"][0]["uuid"] != copy.frame["gpus"][1]["uuid"]


@pytest.mark.parametrize("uuid", [f"GPU-{UUID}", "GPU-10000000-secret", "made up by a vendor", "GPU-s3"])
def test_a_uuid_of_nvml_is_replaced_whatever_it_looks_like(make: Make, tmp_path: Path, uuid: str) -> None:
    machine = make("workstation", **{"GPU-00000000-0000-4000-8000-000000000001": uuid})
    copy = machine.capture(tmp_path / "copy")
    assert machine.sample()["gpus"][0]["uuid"] == uuid
    assert uuid not in pack(copy.folder)
    replaced = copy.frame["gpus"][0]["uuid"]
    assert replaced.startswith("GPU-00000000-0000-4000-8000-")
    assert f"0 nvmlDeviceGetUUID {replaced}\n" in copy.text("nvml.txt")


def test_a_host_name_is_told_neither_by_groups_nor_by_interfaces(make: Make, tmp_path: Path) -> None:
    group = "machine-host1.secretlab.example.scope"
    machine = make(
        "board",
        f"== sys/fs/cgroup/{group}/HOST1.slice/cpu.max\n50000 100000\n",
        f"== sys/fs/cgroup/{group}/HOST1.slice/cpu.stat\nnr_periods 5\nnr_throttled 1\n",
        f"== sys/fs/cgroup/{group}/cpu.stat\nusage_usec 5\n",
        "== sys/class/net/veth-host1 -> ../../devices/virtual/net/veth-host1\n",
        "== sys/devices/virtual/net/veth-host1/device -> ../..\n",
        **{"0::/\n": f"0::/{group}/HOST1.slice\n", "  eth0:": "veth-host1:"},
    )
    expected, copy = machine.sample("host1"), machine.capture(tmp_path / "copy", "host1")
    told = pack(copy.folder).lower()
    assert "host1" not in told
    assert "secretlab" not in told
    assert "0::/machine-host.scope/host.slice\n" in copy.text("proc/1/cgroup")
    assert "veth-host: 800000 " in copy.text("proc/1/net/dev")
    assert expected["limits"]["cpu_limit_cores"] == 0.5
    assert changing(copy.sample()) == changing(expected)


def test_what_is_unreadable_is_told_without_names(make: Make, tmp_path: Path) -> None:
    # Nothing is mapped at address zero: reading fails.
    group = "lxc.payload.host1"
    machine = make("board", f"== sys/fs/cgroup/{group}/cpu.stat -> /proc/self/mem\n")
    copy = machine.capture(tmp_path / "copy", "host1")
    assert copy.text("unreadable.txt") == ("sys/fs/cgroup/lxc.payload.host/cpu.stat: Input/output error\n")


# The redactor


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lxc.payload.host1", "lxc.payload.host"),
        ("machine-host1", "machine-host"),
        ("user_host1", "user_host"),
        ("HOST1.slice", "host.slice"),
        ("veth-host1", "veth-host"),
        ("host1.secretlab.example", "host"),
        ("host1.secretlab.example/x", "host/x"),
        ("host1.secretlab.example.slice", "host.slice"),
        ("host1.secretlab.scope", "host.scope"),
        ("host1.100", "host.100"),
        ("host10", "host10"),
        ("ghost1", "ghost1"),
        (r"machine-qemu\x2d1\x2dmy\x2dnode.scope", r"machine-qemu\x2d1\x2dhost.scope"),
        ("my-node.lab.example", "host"),
        ("localhost", "localhost"),
    ],
)
def test_a_host_name_is_found_in_other_names(text: str, expected: str) -> None:
    redact = Redactor(("host1", "my-node.lab.example", "localhost", ""))
    assert redact.prose(text) == expected


@pytest.mark.parametrize("name", ["stat", "meminfo", "cpuinfo", "online", "nvml.txt", "memory"])
def test_a_host_name_stays_in_files_that_have_no_room_for_it(name: str) -> None:
    text = "cpu  36000 0 12000\ncpu_host1: cpu\n"
    assert Redactor(("cpu", "host1")).content(name, text) == text


def test_what_the_kernel_writes_around_names_stays() -> None:
    redact = Redactor(("cpu", "0", "5"))
    assert redact.content("cgroup", "4:cpu,cpuacct:/cpu\n0::/cpu.slice\n") == (
        "4:cpu,cpuacct:/host\n0::/host.slice\n"
    )
    assert redact.content("dev", " face |bytes\n  cpu: 5 0\n") == " face |bytes\n  host: 5 0\n"
    assert redact.content("diskstats", "   9   5 md_cpu 5 0\n") == "   9   5 md_host 5 0\n"


@pytest.mark.parametrize(
    ("above", "part", "expected"),
    [
        ("sys/fs/cgroup", "cpu.slice", "host.slice"),
        ("sys/class/net", "veth-cpu", "veth-host"),
        ("sys/devices/virtual/net", "veth-cpu", "veth-host"),
        ("sys/devices/system", "cpu", "cpu"),
        ("sys/devices/system/cpu", "cpu", "cpu"),
        ("sys/class/thermal", "cpu", "cpu"),
        ("sys/devices/platform", "cpu.0", "cpu.0"),
        ("proc/1/net", "cpu", "cpu"),
        ("proc/pressure", "cpu", "cpu"),
    ],
)
def test_a_part_of_a_path_keeps_what_sensors_look_for(above: str, part: str, expected: str) -> None:
    assert Redactor(("cpu",)).component(PurePath(above), part, is_file=False) == expected


def test_a_file_keeps_its_name() -> None:
    redact = Redactor(("cpu",))
    assert redact.component(PurePath("sys/fs/cgroup/a.slice"), "cpu.max", is_file=True) == "cpu.max"


@pytest.mark.parametrize(
    "text",
    [
        f"docker-{'ab' * 32}.scope",
        f"kubepods/burstable/pod{UUID}",
        f"kubepods-pod{UUID.replace('-', '_')}.slice",
        "enx0123456789ab",
        "wlx0123456789ab",
        "wwx0123456789ab",
        "01:23:45:67:89:ab",
        "01-23-45-67-89-AB",
        "controller_battery_01:23:45:67:89:ab",
        ":".join(["ab"] * 20),
        "hid-0123456789ab-battery",
    ],
)
def test_an_identity_is_known_by_its_looks(text: str) -> None:
    told = Redactor(()).prose(text).lower()
    assert len(told) == len(text)
    for secret in ("abab", "ab:ab", "0123", "01:23", "01-23", "89ab", "89:ab", "89-ab"):
        assert secret not in told


@pytest.mark.parametrize(
    "text", ["0000:01:00.0", "0003:046D:C52B.0001", "intel-rapl:0:0", "0-3,8-11", "8:16"]
)
def test_a_number_of_the_kernel_is_no_identity(text: str) -> None:
    assert Redactor(()).prose(text) == text


def test_an_address_is_the_same_in_every_notation() -> None:
    redact = Redactor(())
    assert redact.prose("01:23:45:67:89:ab 01-23-45-67-89-AB wlx0123456789ab 01:23:45:67:89:ac") == (
        "02:00:00:00:00:01 02-00-00-00-00-01 wlx020000000001 02:00:00:00:00:02"
    )


@pytest.mark.parametrize("serial", ["10000000DEADBEEF", "10000000deadbeef", "A1", "C0-FFEE-XYZ"])
@pytest.mark.parametrize("between", ["\t\t: ", " : ", ":", "          : "])
def test_the_serial_in_cpuinfo_is_replaced(serial: str, between: str) -> None:
    text = f"Revision\t: c03115\nSerial{between}{serial}\nModel\t\t: Raspberry Pi A1 Rev 1.5\n"
    told = Redactor((), find_identities("cpuinfo", text)).content("cpuinfo", text)
    assert told == text.replace(f"{between}{serial}", f"{between}{1:0{len(serial)}x}")


def test_a_serial_of_zeros_is_none() -> None:
    assert list(find_identities("cpuinfo", "Serial\t\t: 0000000000000000\n")) == []


def test_what_is_replaced_in_its_place_is_replaced_everywhere() -> None:
    redact = Redactor((), find_identities("unique_id", f"{SERIAL}\n"))
    replaced = redact.content("unique_id", f"{SERIAL}\n").strip()
    assert redact.content("name", f"gpu_{SERIAL.upper()} 0x{SERIAL} 1{SERIAL}") == (
        f"gpu_{replaced} 0x{replaced} 1{SERIAL}"
    )
    assert redact.frame({"gpus": [{"uuid": SERIAL}]})["gpus"] == [{"uuid": replaced}]
    assert redact.component(PurePath("sys/devices"), SERIAL, is_file=False) == replaced


def test_a_stand_in_is_not_replaced_again() -> None:
    taken = "00000000-0000-4000-8000-000000000001"
    lines = f"0 nvmlDeviceGetUUID GPU-{UUID}\n1 nvmlDeviceGetUUID GPU-{taken}\n"
    told = Redactor((), find_identities("nvml.txt", lines)).content("nvml.txt", lines)
    assert told == lines.replace(taken, taken[:-1] + "2").replace(UUID, taken)


def test_of_a_frame_only_values_are_replaced() -> None:
    frame = {
        "node": "cpu",
        "cpu": {"load_1m": 1.5},
        "work": {"cgroup": "cpu.slice"},
        "thermal": [{"name": "cpu"}],
    }
    assert Redactor(("cpu",)).frame(frame) == frame | {"node": "host", "work": {"cgroup": "host.slice"}}


# Beside the files


def test_the_readme_tells_a_command_that_works_whatever_the_directory_is_called(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "a b's"
    directory.mkdir()
    monkeypatch.chdir(directory)
    # Paths of the machine are absolute; the copy's is where one stands.
    readme = make("board").capture(Path()).text("README.txt")
    command = readme.partition("    neuromodd ")[2].partition("\n\n")[0]
    assert shlex.split(command.replace("\\\n", "")) == [
        "sample",
        *("--sensors.procfs_root", "a b's/proc", "--sensors.sysfs_root", "a b's/sys"),
        *("--sensors.limits.procfs_root", "a b's/proc", "--sensors.limits.sysfs_root", "a b's/sys"),
    ]


def test_the_readme_says_what_nvml_txt_is(make: Make, tmp_path: Path) -> None:
    assert "nvml.txt has NVML's answers" in make("board").capture(tmp_path / "copy").text("README.txt")


@pytest.mark.parametrize("hang", ["- nvmlInit ~hang", "0 nvmlDeviceGetName ~hang"])
def test_a_capture_says_that_nvml_hung(make: Make, tmp_path: Path, hang: str) -> None:
    machine = make("workstation")
    with (machine.folder / "nvml.txt").open("a") as scenario:
        scenario.write(f"{hang}\n")
    copy = machine.capture(tmp_path / "copy")
    assert "nvml: no answer within 0.5 s\n" in copy.text("unreadable.txt")


def test_a_capture_says_which_sensor_failed(make: Make, tmp_path: Path) -> None:
    machine = make("board", **{"cpu  12000 0": "cpu  host1 0"})
    told = machine.capture(tmp_path / "copy", "host1").text("unreadable.txt")
    assert told.startswith("cpu: ValueError: ")
    assert "host1" not in told


def test_a_capture_without_trouble_has_no_list_of_troubles(make: Make, tmp_path: Path) -> None:
    assert not (make("workstation").capture(tmp_path / "copy").folder / "unreadable.txt").exists()


def test_a_file_that_hangs_does_not_stop_the_copying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(path: Path) -> capture._Read:
        with path.open() as pipe:
            return capture._Read(pipe.read())

    monkeypatch.setattr(capture, "_content", hang)
    os.mkfifo(tmp_path / "pipe")
    assert capture._read(tmp_path / "pipe", 0.05) == capture._Read("", "no answer within 0.05 s")
    (tmp_path / "pipe").write_text("late")


def test_a_capture_goes_into_an_empty_directory_only(make: Make, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(subprocess.CalledProcessError) as failed:
        make("board").capture(tmp_path)
    assert failed.value.returncode == 1
    assert "expected a directory that is new or empty" in failed.value.stderr
