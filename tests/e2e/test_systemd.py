"""What a service manager sees of the daemon, and what systemd says of the unit."""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Daemon, Mosquitto, free_port, wait_for

StartDaemon = Callable[..., Daemon]

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "systemd"
EXPOSURE_LIMIT = 2.0


class Manager:
    """The socket that systemd would listen on, and when it heard what."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[tuple[float, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while datagram := self._socket.recv(4096):
            self.lines += [(time.monotonic(), line) for line in datagram.decode().splitlines()]

    def said(self, line: str) -> list[float]:
        return [at_s for at_s, said in list(self.lines) if said.startswith(line)]

    def wait(self, line: str, *, count: int = 1) -> float:
        """When a line that begins so was said for the time `count`."""

        def found() -> float | None:
            said = self.said(line)
            return said[count - 1] if len(said) >= count else None

        return wait_for(found, f"{count} x {line}")

    @property
    def status(self) -> str:
        """The last one."""
        return next((line for _, line in reversed(list(self.lines)) if line.startswith("STATUS=")), "")

    def close(self) -> None:
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as last:
            last.sendto(b"", str(self.path))
        self._reader.join()
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


def watched(manager: Manager, watchdog_s: float = 2.0) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": str(int(watchdog_s * 1e6))}


def test_it_is_ready_when_the_broker_has_heard_of_it(
    mosquitto: Mosquitto, start_daemon: StartDaemon, manager: Manager
) -> None:
    daemon = start_daemon(port=mosquitto.port, environ=watched(manager))
    manager.wait("READY=1")
    assert daemon.logged("mqtt_connected")
    manager.wait(f"STATUS=ticking every 1 s; connected to 127.0.0.1:{mosquitto.port}")


def test_it_is_ready_while_it_waits_for_a_broker_and_gives_signs_of_life(
    start_daemon: StartDaemon, manager: Manager
) -> None:
    port = free_port()
    start_daemon("--tick.interval_s", "0.1", port=port, environ=watched(manager))
    ready_s = manager.wait("READY=1")
    manager.wait(f"STATUS=ticking every 0.1 s; waiting for 127.0.0.1:{port}: ")
    assert manager.wait("WATCHDOG=1", count=6) - ready_s < 2.0 * 2.0


def test_it_is_ready_within_the_first_of_its_long_intervals(
    mosquitto: Mosquitto, start_daemon: StartDaemon, manager: Manager
) -> None:
    start_daemon("--tick.interval_s", "3600", port=mosquitto.port, environ=watched(manager, 4.0))
    manager.wait("READY=1")
    # And is known to live between two of them.
    times_s = [manager.wait("WATCHDOG=1", count=count) for count in (1, 2, 3)]
    assert max(after - before for before, after in itertools.pairwise(times_s)) < 4.0


STUCK = """
import sys, threading
from neuromodd.eye import Eye

class Stuck(Eye):
    async def look(self, **how):
        if how["sequence"] == 3:
            {how}
        return await super().look(**how)

import neuromodd.daemon
neuromodd.daemon.Eye = Stuck
from neuromodd.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    "how",
    ["await __import__('asyncio').Event().wait()", "threading.Event().wait()"],
    ids=["a tick that never ends", "a loop that hangs"],
)
def test_a_stuck_tick_loop_gives_no_sign_of_life(
    mosquitto: Mosquitto, tmp_path: Path, manager: Manager, how: str
) -> None:
    arguments = ["run", "--mqtt.host", "127.0.0.1", "--mqtt.port", str(mosquitto.port), "--tick.interval_s"]
    program = [sys.executable, "-c", STUCK.format(how=how), *arguments, "0.1"]
    with subprocess.Popen(
        [*program, "--checkpoint.directory", str(tmp_path / "state")],
        env={**watched(manager, 1.0), "PATH": "/usr/bin", "HOME": str(tmp_path)},
        stderr=subprocess.DEVNULL,
    ) as process:
        manager.wait("READY=1")
        last_s = manager.wait("WATCHDOG=1")
        # Longer than the watchdog would wait.
        wait_for(lambda: time.monotonic() - max(manager.said("WATCHDOG=1")) > 1.5, "silence")
        assert max(manager.said("WATCHDOG=1")) - last_s < 1.0
        process.kill()


def test_a_watchdog_that_a_hanging_sensor_would_set_off_is_warned_of(
    mosquitto: Mosquitto, start_daemon: StartDaemon, manager: Manager
) -> None:
    patient = ["--sensors.deadline_s", "20"]
    short = start_daemon(*patient, port=mosquitto.port, environ=watched(manager, 40.0))
    assert short.wait_log("watchdog_short")["needed_s"] == 42.0
    assert short.end() == 0
    long = start_daemon(*patient, port=mosquitto.port, environ=watched(manager, 60.0))
    long.wait_log("started")
    assert not long.logged("watchdog_short")


def test_a_reload_and_the_end_are_announced(
    mosquitto: Mosquitto, start_daemon: StartDaemon, manager: Manager
) -> None:
    daemon = start_daemon(port=mosquitto.port, environ=watched(manager))
    manager.wait("READY=1")
    daemon.process.send_signal(signal.SIGHUP)
    assert manager.wait("RELOADING=1") <= manager.wait("READY=1", count=2)
    assert daemon.end() == 0
    manager.wait("STOPPING=1")


def test_a_broker_that_comes_back_is_in_the_status(
    mosquitto: Mosquitto, start_daemon: StartDaemon, manager: Manager
) -> None:
    start_daemon("--tick.interval_s", "0.1", port=mosquitto.port, environ=watched(manager))
    connected = f"STATUS=ticking every 0.1 s; connected to 127.0.0.1:{mosquitto.port}"
    manager.wait(connected)
    mosquitto.stop(signal.SIGKILL)
    waiting = f"STATUS=ticking every 0.1 s; waiting for 127.0.0.1:{mosquitto.port}"
    wait_for(lambda: manager.status.startswith(waiting), waiting)
    mosquitto.start()
    wait_for(lambda: manager.status == connected, connected)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit as shipped, but for where the program is."""
    program = Path(sys.executable).with_name("neuromodd")
    assert program.exists()
    text = (UNITS / "neuromodd.service").read_text()
    assert "/opt/neuromodd/bin/neuromodd run" in text
    unit = tmp_path / "neuromodd.service"
    unit.write_text(text.replace("/opt/neuromodd/bin/neuromodd run", f"{program} run"))
    return unit


def systemd_analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    assert program, "systemd-analyze is not installed; `make test` installs it"
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def with_drop_in(unit: Path, name: str) -> Path:
    drop_ins = unit.with_name(f"{unit.name}.d")
    drop_ins.mkdir()
    shutil.copy(UNITS / name, drop_ins)
    return unit


def test_systemd_finds_no_fault_in_the_unit(unit: Path) -> None:
    done = systemd_analyze("verify", "--man=no", unit)
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_finds_no_fault_in_the_unit_with_rapl(unit: Path) -> None:
    done = systemd_analyze("verify", "--man=no", with_drop_in(unit, "rapl.conf"))
    assert (done.returncode, done.stderr) == (0, "")


def exposure(unit: Path) -> float:
    done = systemd_analyze("security", "--offline=true", "--no-pager", unit)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done
    return float(found[1])


def test_the_unit_is_little_exposed(unit: Path) -> None:
    assert exposure(unit) <= EXPOSURE_LIMIT


def test_the_unit_leaves_the_gpu_in_reach(unit: Path) -> None:
    text = unit.read_text()
    assert "PrivateDevices=yes" not in text
    assert "DeviceAllow=char-nvidia* rw" in text
