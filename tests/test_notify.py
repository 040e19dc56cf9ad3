from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuromodd.notify import STATUS_CHARACTERS, ServiceManager


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Manager:
    """The other end: what systemd would hear."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(address)

    def heard(self) -> list[str]:
        found = []
        while True:
            try:
                found.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify"))
    yield manager
    manager.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told(tmp_path: Path, manager: Manager, clock: Clock) -> Iterator[ServiceManager]:  # noqa: ARG001
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "8000000"}
    told = ServiceManager(environ, clock)
    yield told
    told.close()


def test_ready_is_said_once(told: ServiceManager, manager: Manager) -> None:
    told.ready()
    told.ready()
    assert manager.heard() == ["READY=1"]


def test_ready_is_known_once_it_was_taken_in(told: ServiceManager, tmp_path: Path) -> None:
    (tmp_path / "notify").rename(tmp_path / "away")
    assert not told.ready()
    (tmp_path / "away").rename(tmp_path / "notify")
    assert told.ready()


def test_a_status_is_one_line_sent_when_it_changes(told: ServiceManager, manager: Manager) -> None:
    for text in ("ticking", "ticking", "waiting for\nthe broker"):
        told.status(text)
    assert manager.heard() == ["STATUS=ticking", "STATUS=waiting for the broker"]


def test_a_long_status_is_cut(told: ServiceManager, manager: Manager) -> None:
    told.status("x" * 10_000)
    assert manager.heard() == ["STATUS=" + "x" * STATUS_CHARACTERS]


def test_signs_of_life_come_four_to_a_deadline(told: ServiceManager, manager: Manager, clock: Clock) -> None:
    assert told.watchdog_s == 8.0
    heard = []
    for _ in range(80):
        told.alive()
        heard += manager.heard()
        clock.now_s += 0.1
    assert heard == ["WATCHDOG=1"] * 4


def test_a_clock_that_goes_back_does_not_silence_the_signs_of_life(
    told: ServiceManager, manager: Manager, clock: Clock
) -> None:
    told.alive()
    clock.now_s -= 50.0
    told.alive()
    assert manager.heard() == ["WATCHDOG=1"] * 2


def test_a_reload_is_announced_with_the_time_and_ends_with_ready(
    told: ServiceManager, manager: Manager
) -> None:
    told.ready()
    told.reloading()
    told.reloaded()
    assert manager.heard() == ["READY=1", "RELOADING=1\nMONOTONIC_USEC=100000000", "READY=1"]


def test_a_reload_before_the_start_is_over_does_not_say_ready(told: ServiceManager, manager: Manager) -> None:
    told.reloading()
    told.reloaded()
    assert "READY=1" not in manager.heard()


def test_what_could_not_be_sent_is_said_again(told: ServiceManager, manager: Manager, tmp_path: Path) -> None:
    (tmp_path / "notify").rename(tmp_path / "away")
    told.ready()
    told.status("ticking")
    told.alive()
    (tmp_path / "away").rename(tmp_path / "notify")
    told.ready()
    told.status("ticking")
    told.alive()
    assert manager.heard() == ["READY=1", "STATUS=ticking", "WATCHDOG=1"]


def test_a_name_in_the_abstract_namespace_is_reached(clock: Clock) -> None:
    name = f"neuromodd-test-{os.getpid()}"
    manager = Manager("\0" + name)
    told = ServiceManager({"NOTIFY_SOCKET": f"@{name}"}, clock)
    told.stopping()
    assert manager.heard() == ["STOPPING=1\nSTATUS=Stopping"]
    told.close()
    manager.close()


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "relative"}])
def test_without_a_manager_nobody_is_told(environ: dict[str, str], clock: Clock) -> None:
    told = ServiceManager({**environ, "WATCHDOG_USEC": "1000000"}, clock)
    assert not told.present
    assert told.watchdog_s is None
    assert told.ready()
    told.alive()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": ""},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
    ],
)
def test_nobody_watches_unless_it_is_us_and_for_a_time(environ: dict[str, str], clock: Clock) -> None:
    assert ServiceManager({"NOTIFY_SOCKET": "/run/notify", **environ}, clock).watchdog_s is None


def test_the_watchdog_of_this_process_is_ours(clock: Clock) -> None:
    environ = {"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}
    assert ServiceManager({"NOTIFY_SOCKET": "/run/notify", **environ}, clock).watchdog_s == 0.5
