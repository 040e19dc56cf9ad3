"""`neuromodd doctor` on this machine, with real brokers and daemons, and on machines that were captured."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest
from certificates import Authority
from harness import Daemon, Listener, Mosquitto, free_port
from machine_files import machine_text, unpack

from neuromodd.doctor.findings import FORMAT, Report

AREAS = ["versions", "configuration", "daemon", "state directory", "clock", "sensors", "broker", "web"]
LONGEST_S = 15.0


class Visit(NamedTuple):
    """What the doctor said."""

    status: int
    document: dict[str, Any]
    text: str

    def of(self, *place: str) -> Any:
        """The finding of an area and a name."""
        area, name = place
        found = [of for of in self.document["findings"] if (of["area"], of["name"]) == (area, name)]
        assert found, f"nothing of {place}: {self.text}"
        return found[0]


def run(*arguments: object, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("NEUROMODD_")}
    done = subprocess.run(
        [sys.executable, "-m", "neuromodd", "doctor", *map(str, arguments)],
        env={**clean, "XDG_CONFIG_HOME": "/nonexistent", **(environ or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == ""
    return done


Doctor = Callable[..., Visit]


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    """Examines node `lab` with the state directory of `start_daemon`."""

    def visit(*arguments: object, port: int | None = None, environ: Mapping[str, str] | None = None) -> Visit:
        broker = [] if port is None else ["--mqtt.host", "127.0.0.1", "--mqtt.port", port]
        base = ["--json", "--node", "lab", "--checkpoint.directory", tmp_path / "state"]
        done = run(*base, *broker, *arguments, environ=environ)
        return Visit(done.returncode, json.loads(done.stdout), done.stdout)

    return visit


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_fine_host_has_no_failure(doctor: Doctor, mosquitto: Mosquitto) -> None:
    visit = doctor(port=mosquitto.port)
    assert (visit.status, visit.document["counts"]["failure"]) == (0, 0)
    assert visit.of("broker", "login")["finding"] == "MQTT 5, without a name"
    assert visit.of("broker", "node")["finding"] == "lab is not online: its name is free"


def test_the_document_is_as_its_schema_says_and_has_all_areas(doctor: Doctor, mosquitto: Mosquitto) -> None:
    document = doctor(port=mosquitto.port).document
    jsonschema.validate(document, {**Report.json_schema(), "additionalProperties": False})
    assert (document["format"], document["node"]) == (FORMAT, "lab")
    assert list(dict.fromkeys(of["area"] for of in document["findings"])) == AREAS
    assert sum(document["counts"].values()) == len(document["findings"])


def test_the_text_says_the_same_in_a_line_a_finding(tmp_path: Path, mosquitto: Mosquitto) -> None:
    done = run("--mqtt.host", "127.0.0.1", "--mqtt.port", mosquitto.port, "--checkpoint.directory", tmp_path)
    lines = done.stdout.splitlines()
    assert [line for line in lines[:-1] if not line.startswith(" ")] == AREAS
    assert any(line.split()[:2] == ["ok", "cpu"] for line in lines)
    assert " looked at as " in lines[-1]


def test_a_daemon_that_runs_is_found_and_not_disturbed(
    doctor: Doctor, start_daemon: Callable[..., Daemon], mosquitto: Mosquitto
) -> None:
    daemon = start_daemon(port=mosquitto.port)
    daemon.wait_log("started")
    daemon.wait_log("mqtt_connected")
    visit = doctor(port=mosquitto.port)
    assert visit.status == 0
    assert visit.of("daemon", "daemon")["finding"].startswith("ticking: ")
    assert f"process {daemon.process.pid} " in visit.of("daemon", "lock")["finding"]
    assert visit.of("broker", "node")["finding"] == "lab is online: this host's daemon"
    assert visit.of("broker", "publishing")["verdict"] == "ok"
    assert len(daemon.logged("mqtt_connected")) == 1
    assert daemon.end() == 0


def test_nothing_is_published(doctor: Doctor, mosquitto: Mosquitto, listen: Callable[..., Listener]) -> None:
    heard = listen(mosquitto.port)
    doctor(port=mosquitto.port)
    heard.ask("end", b"")
    heard.wait("end")
    assert [of.topic for of in heard.heard] == ["end"]


def test_another_host_of_the_name_is_a_failure(
    doctor: Doctor, mosquitto: Mosquitto, listen: Callable[..., Listener]
) -> None:
    other = listen(mosquitto.port)
    other.ask("neuromodd/lab/status", b"online", retain=True)
    other.ask("neuromodd/lab/info", b'{"boot_id": "elsewhere"}', retain=True)
    other.wait("info")
    visit = doctor(port=mosquitto.port)
    assert (visit.status, visit.of("broker", "node")["verdict"]) == (1, "failure")


def test_a_port_that_refuses_is_a_failure(doctor: Doctor) -> None:
    visit = doctor(port=free_port())
    assert visit.status == 1
    assert visit.of("broker", "connection")["finding"].endswith("refuses it: nobody listens there")


@pytest.mark.parametrize("tls", ["false", "true"])
def test_a_broker_that_says_nothing_is_given_up(doctor: Doctor, silent: int, tls: str) -> None:
    began_s = time.monotonic()
    visit = doctor("--mqtt.tls.enabled", tls, port=silent)
    assert time.monotonic() - began_s < LONGEST_S
    assert visit.status == 1
    assert visit.of("broker", "login")["finding"].startswith("no answer within")


def test_a_name_that_is_nobodys_is_a_failure(doctor: Doctor) -> None:
    visit = doctor("--mqtt.host", "no.such.invalid")
    assert (visit.status, visit.of("broker", "name")["verdict"]) == (1, "failure")


def test_a_password_that_is_wrong_is_refused_and_not_shown(
    doctor: Doctor, start_mosquitto: Callable[..., Mosquitto], tmp_path: Path
) -> None:
    passwords = tmp_path / "passwords"
    passwords.write_text("lab:right\n")
    subprocess.run(["mosquitto_passwd", "-U", str(passwords)], check=True, timeout=20)
    broker = start_mosquitto(["allow_anonymous false", f"password_file {passwords}"])
    wrong = {"NEUROMODD_MQTT__USERNAME": "lab", "NEUROMODD_MQTT__PASSWORD": "hunter2"}
    visit = doctor(port=broker.port, environ=wrong)
    assert visit.status == 1
    assert visit.of("broker", "login")["finding"].startswith("the broker refused the login of lab")
    assert "hunter2" not in visit.text
    right = doctor(port=broker.port, environ={**wrong, "NEUROMODD_MQTT__PASSWORD": "right"})
    assert right.of("broker", "login")["finding"] == "MQTT 5, as lab"


def test_a_url_for_a_host_is_a_failure_that_does_not_show_it(doctor: Doctor) -> None:
    visit = doctor("--mqtt.host", "mqtt://lab:hunter2@broker.lan")
    assert (visit.status, visit.of("broker", "which")["verdict"]) == (1, "failure")
    assert "hunter2" not in visit.text


def test_an_authority_that_did_not_sign_is_named(
    doctor: Doctor, start_mosquitto: Callable[..., Mosquitto], tmp_path: Path
) -> None:
    right, wrong = Authority(tmp_path, "right"), Authority(tmp_path, "wrong")
    file = right.issue("broker.pem", "127.0.0.1")
    broker = start_mosquitto(["allow_anonymous true", f"certfile {file}", f"keyfile {file}"])
    visit = doctor("--mqtt.tls.ca_file", wrong.file, port=broker.port)
    assert visit.status == 1
    assert str(wrong.file) in visit.of("broker", "login")["remedy"]
    well = doctor("--mqtt.tls.ca_file", right.file, port=broker.port)
    assert well.of("broker", "login")["finding"] == "MQTT 5, without a name, over TLS"


def test_the_embedded_brokers_port_may_be_another_programs(doctor: Doctor, silent: int) -> None:
    visit = doctor("--mqtt.port", silent)
    assert (visit.status, visit.of("broker", "port")["verdict"]) == (1, "failure")


def test_a_directory_that_takes_no_file_is_a_failure(mosquitto: Mosquitto, doctor: Doctor) -> None:
    visit = doctor("--checkpoint.directory", "/sys/kernel", port=mosquitto.port)
    assert (visit.status, visit.of("state directory", "writable")["verdict"]) == (1, "failure")


def test_a_configuration_that_can_not_be_used_has_its_faults_first_and_a_status_of_its_own(
    doctor: Doctor, tmp_path: Path
) -> None:
    visit = doctor("--tick.interval_s", "0", "--config", tmp_path / "none.toml")
    assert visit.status == 2
    first, second = visit.document["findings"][:2]
    assert [first["area"], second["area"]] == ["configuration", "configuration"]
    assert visit.of("sensors", "cpu")["verdict"] == "ok"
    assert visit.of("broker", "which")["verdict"] == "note"


def test_a_configuration_that_hangs_is_given_up(doctor: Doctor, tmp_path: Path) -> None:
    # Nobody ever writes into it.
    os.mkfifo(tmp_path / "neuromodd.toml")
    began_s = time.monotonic()
    visit = doctor("--config", tmp_path / "neuromodd.toml")
    assert time.monotonic() - began_s < LONGEST_S
    assert (visit.status, visit.of("configuration", "deadline")["verdict"]) == (2, "failure")


# Captured machines

MEASURED = {
    "workstation": {"gpus.nvidia", "fans", "voltages", "power.package_watts", "cpu.temperature_celsius"},
    "laptop": {"power.on_mains", "cpu.throttles_per_s", "gpus.nvidia", "thermal"},
    "server": {"pressure", "disk", "network", "thermal"},
    "board": {"cpu.temperature_celsius", "cpu.frequency_hz", "thermal"},
}


@pytest.fixture
def examine_machine(
    tmp_path: Path, nvml_stub: Path, doctor: Doctor, mosquitto: Mosquitto
) -> Callable[..., Visit]:
    """Examines the files of a captured machine; lines of NVML's answers may be added."""

    def examine(kind: str, *lines: str, library: str = "stub") -> Visit:
        files = unpack(machine_text(kind), tmp_path / kind)
        scenario = files / "nvml.txt"
        environ = {"LD_LIBRARY_PATH": str(nvml_stub / library), "NVML_STUB_SCENARIO": str(scenario)}
        if scenario.exists():
            scenario.write_text("\n".join([scenario.read_text(), *lines, ""]))
        else:
            # No library for this machine, whatever this one has.
            (tmp_path / "none").mkdir()
            (tmp_path / "none" / "libnvidia-ml.so.1").touch()
            environ["LD_LIBRARY_PATH"] = str(tmp_path / "none")
        roots = ["--sensors.procfs_root", files / "proc", "--sensors.sysfs_root", files / "sys"]
        return doctor(*roots, port=mosquitto.port, environ=environ)

    return examine


@pytest.mark.parametrize("kind", sorted(MEASURED))
def test_a_machine_that_was_captured_measures_what_it_has(
    examine_machine: Callable[..., Visit], kind: str
) -> None:
    visit = examine_machine(kind)
    well = {of["name"] for of in visit.document["findings"] if of["verdict"] == "ok"}
    assert MEASURED[kind] - well == set()


def test_a_gpu_that_is_lost_is_a_failure(examine_machine: Callable[..., Visit]) -> None:
    visit = examine_machine("workstation", "0 nvmlDeviceGetPowerUsage !15")
    assert visit.status == 1
    assert visit.of("sensors", "gpus.nvidia")["finding"] == (
        "1 of 2 can't be reached: NVIDIA RTX 6000 Ada Generation (GpuIsLost)"
    )


def test_a_gpu_that_the_driver_does_not_know_is_missed(examine_machine: Callable[..., Visit]) -> None:
    found = examine_machine("workstation", "1 * !15").of("sensors", "gpus.nvidia")
    assert found["verdict"] == "warning"
    assert found["finding"].endswith("; the driver does not know 1 more on the PCI bus")


def test_a_library_of_another_version_wants_a_reboot(examine_machine: Callable[..., Visit]) -> None:
    visit = examine_machine("workstation", "- requires 1", library="newer")
    found = visit.of("sensors", "gpus.nvidia")
    assert found["finding"].startswith("driver and library are of different versions")
    assert found["remedy"].startswith("reboot")


def test_a_driver_that_hangs_does_not_hold_up_the_rest(examine_machine: Callable[..., Visit]) -> None:
    began_s = time.monotonic()
    visit = examine_machine("workstation", "0 nvmlDeviceGetPowerUsage ~hang")
    assert time.monotonic() - began_s < LONGEST_S
    assert (visit.status, visit.of("sensors", "gpus.nvidia")["verdict"]) == (1, "failure")
    assert visit.of("sensors", "memory")["verdict"] == "ok"
