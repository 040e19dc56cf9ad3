"""The unit under a real systemd, which is booted in namespaces of its own; needs root."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Listener, Mosquitto, wait_for

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
UNIT = "/opt/neuromodd/lib/systemd/system/neuromodd.service"
DROP_IN = "/etc/systemd/system/neuromodd.service.d/test.conf"


CGROUPS = Path("/sys/fs/cgroup")


def cgroups() -> set[Path]:
    return {path for path in CGROUPS.rglob("*") if path.is_dir()}


class Systemd:
    """A systemd with /opt/neuromodd, and nothing of the host's own services."""

    def __init__(self, directory: Path) -> None:
        self._cgroups = cgroups()
        namespaces = ["--fork", "--mount", "--pid", "--ipc", "--mount-proc", "--kill-child"]
        self._log = (directory / "systemd.log").open("wb")
        self._process = subprocess.Popen(
            ["unshare", *namespaces, "sh", HERE / "boot.sh", directory],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        wait_for(self._is_up, f"systemd; see {directory}/systemd.log")

    def _is_up(self) -> bool:
        assert self._process.poll() is None, "systemd has ended"
        return self._children() != [] and "running" in self.run("systemctl", "is-system-running").stdout

    def _children(self) -> list[str]:
        pid = self._process.pid
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()

    def run(self, *command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command beside it."""
        inside = ["nsenter", "--target", self._children()[0], "--mount", "--pid", "--ipc"]
        return subprocess.run([*inside, *command], input=stdin, capture_output=True, text=True, check=False)

    def do(self, *command: str, stdin: str = "") -> str:
        done = self.run(*command, stdin=stdin)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def write(self, path: str, text: str, *, mode: str = "644") -> None:
        self.do("install", "-D", "-m", mode, "/dev/stdin", path, stdin=text)

    def is_told(self, drop_in: str) -> None:
        self.write(DROP_IN, drop_in)
        self.do("systemctl", "daemon-reload")

    def show(self, name: str) -> str:
        return self.do("systemctl", "show", "neuromodd", f"--property={name}", "--value").strip()

    def wait(self, name: str, accept: Callable[[str], bool], timeout_s: float = 30.0) -> str:
        def found() -> str | None:
            value = self.show(name)
            return value if accept(value) else None

        return wait_for(found, f"{name} (is {self.show(name)!r})", timeout_s)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()
        wait_for(self._tidied, "the end of what ran beside it")

    def _tidied(self) -> bool:
        """Whether nothing is left of what a systemd that is killed leaves behind, the innermost first."""
        for left in sorted(cgroups() - self._cgroups, reverse=True):
            with contextlib.suppress(OSError):
                left.rmdir()
        return not cgroups() - self._cgroups


@pytest.fixture(scope="session")
def installed() -> Iterator[Path]:
    """A directory with the wheel in `opt`, as `pip install` makes it, for every user of the host."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "opt").mkdir()
        # Debian's own: an interpreter in somebody's home is out of the service's reach.
        steps = [
            "mount --make-rprivate /",
            f"sh {HERE / 'opt.sh'} {shlex.quote(name)}",
            "/usr/bin/python3 -m venv /opt/neuromodd",
            f"/opt/neuromodd/bin/pip --quiet --disable-pip-version-check install {shlex.quote(str(ROOT))}",
        ]
        subprocess.run(["unshare", "--mount", "sh", "-c", " && ".join(steps)], check=True)
        yield directory


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """One that lets in whoever has the password."""
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-c", "-b", passwords, "lab", "secret"], check=True)
    broker = Mosquitto(tmp_path, ["allow_anonymous false", f"password_file {passwords}", "persistence false"])
    yield broker
    broker.stop()


@pytest.fixture
def listener(broker: Mosquitto) -> Iterator[Listener]:
    listener = Listener(broker.port, login=("lab", "secret"))
    yield listener
    listener.close()


@pytest.fixture
def systemd(installed: Path) -> Iterator[Systemd]:
    systemd = Systemd(installed)
    yield systemd
    systemd.close()


@pytest.fixture
def service(systemd: Systemd, broker: Mosquitto) -> Systemd:
    """The service as the README has it, started."""
    configure(systemd, broker)
    systemd.write("/etc/neuromodd/password", "secret\n", mode="600")
    systemd.do("systemctl", "enable", "--now", UNIT)
    return systemd


def configure(systemd: Systemd, broker: Mosquitto, **options: str) -> None:
    mqtt = {"host": '"127.0.0.1"', "port": str(broker.port), "username": '"lab"', **options}
    lines = [f"{name} = {value}" for name, value in mqtt.items()]
    text = "\n".join(["node = 'lab'", "[tick]", "interval_s = 0.5", "[mqtt]", *lines, "[checkpoint]"])
    systemd.write("/etc/neuromodd/neuromodd.toml", f"{text}\ninterval_s = 0.5\n")


def state_of(listener: Listener, *, after: int = -1) -> dict[str, Any]:
    found: dict[str, Any] = listener.wait("state", lambda heard: heard.json["sequence"] > after).json
    return found


def test_it_starts_with_the_password_of_root_as_a_user_of_its_own(
    service: Systemd, listener: Listener
) -> None:
    assert service.show("ActiveState") == "active"
    state_of(listener)
    assert listener.status() == "online"
    pid = service.show("MainPID")
    assert service.do("stat", "-c", "%U", f"/proc/{pid}").strip() == "neuromodd"
    assert service.do("stat", "-c", "%U %a", "/var/lib/private/neuromodd").split() == ["neuromodd", "700"]
    assert "connected to 127.0.0.1" in service.wait("StatusText", lambda text: "connected" in text)
    assert service.do("cat", f"/proc/{pid}/environ").find("secret") == -1


def test_root_may_ask_how_it_does(service: Systemd) -> None:
    program = "/opt/neuromodd/bin/neuromodd"
    assert service.do(program, "health").startswith("ticking: ")
    service.do("systemctl", "stop", "neuromodd")
    assert service.run(program, "health").returncode == 1


@pytest.mark.usefixtures("service")
def test_it_measures_the_host(listener: Listener) -> None:
    info = listener.wait("info").json
    assert {"cpu", "memory", "disk", "network"} <= set(info["sensors"])
    frame = listener.wait("telemetry", lambda heard: heard.json["interval_s"] is not None).json
    assert frame["cpu"]["utilization_ratio"] is not None
    health = listener.wait("health").json
    assert [name for name, of in health["sensors"].items() if of["state"] == "failed"] == []


def test_it_starts_without_a_password_file(systemd: Systemd, tmp_path: Path) -> None:
    open_to_all = Mosquitto(tmp_path)
    configure(systemd, open_to_all)
    systemd.do("systemctl", "enable", "--now", UNIT)
    assert "connected" in systemd.wait("StatusText", lambda text: "connected" in text)
    open_to_all.stop()


def test_a_killed_one_is_started_again_and_goes_on(service: Systemd, listener: Listener) -> None:
    before = state_of(listener, after=3)
    service.do("systemctl", "kill", "--signal=SIGKILL", "neuromodd")
    service.wait("NRestarts", lambda count: count == "1")
    service.wait("ActiveState", lambda state: state == "active")
    after = listener.wait("state", lambda heard: heard.json["sequence"] > before["sequence"] + 2).json
    assert after["step"] > before["step"]


def test_a_stuck_one_is_ended_by_the_watchdog_and_started_again(service: Systemd) -> None:
    service.is_told("[Service]\nWatchdogSec=3\nTimeoutAbortSec=2\n")
    service.do("systemctl", "restart", "neuromodd")
    service.do("systemctl", "kill", "--signal=SIGSTOP", "--kill-whom=main", "neuromodd")
    service.wait("NRestarts", lambda count: count == "1", 60.0)
    service.wait("ActiveState", lambda state: state == "active")


def test_a_broker_that_is_away_is_no_reason_to_restart(service: Systemd, broker: Mosquitto) -> None:
    service.is_told("[Service]\nWatchdogSec=2\n")
    service.do("systemctl", "restart", "neuromodd")
    broker.stop()
    service.wait("StatusText", lambda text: "waiting for" in text)
    away_s = time.monotonic()
    wait_for(lambda: time.monotonic() - away_s > 6.0, "three times the watchdog")
    assert (service.show("ActiveState"), service.show("NRestarts")) == ("active", "0")
    broker.start()
    service.wait("StatusText", lambda text: "connected to" in text)


def test_it_starts_while_the_broker_is_away(systemd: Systemd, broker: Mosquitto) -> None:
    broker.stop()
    configure(systemd, broker)
    systemd.do("systemctl", "enable", "--now", UNIT)
    assert systemd.show("ActiveState") == "active"
    broker.start()


def test_a_wrong_configuration_is_not_tried_again(systemd: Systemd, broker: Mosquitto) -> None:
    configure(systemd, broker, keepalive_s='"soon"')
    assert systemd.run("systemctl", "enable", "--now", UNIT).returncode != 0
    assert systemd.show("ExecMainStatus") == "2"
    assert (systemd.show("ActiveState"), systemd.show("NRestarts")) == ("failed", "0")


def test_a_locked_state_directory_is_not_tried_again(service: Systemd) -> None:
    unit = service.do("cat", UNIT)
    service.write("/etc/systemd/system/second.service", unit.replace("DynamicUser=yes", "User=root"))
    service.run("systemctl", "start", "second")
    shown = service.do("systemctl", "show", "second", "--property=ExecMainStatus,NRestarts,ActiveState")
    assert set(shown.split()) == {"ExecMainStatus=3", "NRestarts=0", "ActiveState=failed"}


def test_a_reload_takes_over_what_may_change(service: Systemd, broker: Mosquitto) -> None:
    configure(service, broker)
    text = service.do("cat", "/etc/neuromodd/neuromodd.toml").replace(
        "[tick]\ninterval_s = 0.5", "[tick]\ninterval_s = 0.7"
    )
    service.write("/etc/neuromodd/neuromodd.toml", text)
    service.do("systemctl", "reload", "neuromodd")
    service.wait("StatusText", lambda text: text.startswith("ticking every 0.7 s"))
    assert service.show("ActiveState") == "active"


def test_a_stop_is_clean(service: Systemd, listener: Listener) -> None:
    state_of(listener)
    service.do("systemctl", "stop", "neuromodd")
    assert (service.show("ExecMainStatus"), service.show("Result")) == ("0", "success")
    wait_for(lambda: listener.status() == "offline", "offline")


def test_the_energy_counters_are_in_reach_with_the_drop_in(service: Systemd) -> None:
    pid = service.show("MainPID")
    capabilities = service.do("grep", "CapEff", f"/proc/{pid}/status").split()[1]
    assert int(capabilities, 16) == 0
    service.is_told((ROOT / "systemd" / "rapl.conf").read_text())
    service.do("systemctl", "restart", "neuromodd")
    pid = service.show("MainPID")
    capabilities = service.do("grep", "CapEff", f"/proc/{pid}/status").split()[1]
    assert int(capabilities, 16) == 1 << 2  # CAP_DAC_READ_SEARCH
