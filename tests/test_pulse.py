"""When the daemon says that it ticks, and what its socket does to what is already there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from neuromodd.health import SOCKET_NAME, ask
from neuromodd.pulse import ANSWER_S, CALLERS, GRACE_S, Pulse

HOUR_S = 3600.0


class Clock:
    """Seconds that pass when told."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(clock: Clock, interval_s: float = 1.0, *, connected: bool = True, padding: str = "") -> Pulse:
    health = json.dumps({"mqtt": {"connected": connected}, "padding": padding})
    return Pulse(interval_s=interval_s, clock=clock, health=lambda: health)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Somebody else's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        yield link


# The verdict


@pytest.mark.parametrize("interval_s", [0.05, 1.0, HOUR_S])
def test_it_ticks_as_long_as_the_newest_tick_is_within_two_intervals_and_the_grace(
    clock: Clock, interval_s: float
) -> None:
    pulse = make(clock, interval_s)
    clock.now_s += 2.0 * pulse.bound_s
    pulse.beat()
    clock.now_s += 2.0 * interval_s + GRACE_S - 0.01
    assert pulse.report()["verdict"] == "ticking"
    clock.now_s += 0.02
    assert pulse.report()["verdict"] == "not_ticking"


def test_before_the_first_tick_the_start_counts(clock: Clock) -> None:
    pulse = make(clock)
    clock.now_s += pulse.bound_s + 0.01
    report = pulse.report()
    assert (report["verdict"], report["tick_age_s"]) == ("not_ticking", None)
    assert report["reason"].startswith("no tick in 12.0 s, expected at most 12 s")


def test_a_shorter_interval_does_not_make_the_last_tick_of_the_longer_one_too_old(clock: Clock) -> None:
    pulse = make(clock, HOUR_S)
    pulse.beat()
    clock.now_s += HOUR_S / 2
    pulse.follow(1.0)
    assert pulse.report()["verdict"] == "ticking"
    clock.now_s += pulse.bound_s + 0.01
    assert pulse.report()["verdict"] == "not_ticking"


def test_settings_that_keep_the_interval_do_not_pass_for_a_tick(clock: Clock) -> None:
    pulse = make(clock)
    pulse.beat()
    clock.now_s += pulse.bound_s + 0.01
    pulse.follow(1.0)
    assert pulse.report()["verdict"] == "not_ticking"


def test_a_broker_that_is_awaited_is_said_and_is_no_fault(clock: Clock) -> None:
    report = make(clock, connected=False).report()
    assert (report["verdict"], report["broker"]) == ("ticking", "awaited")


# The socket


async def ask_in_thread(directory: Path) -> dict[str, Any]:
    return (await asyncio.to_thread(ask, [directory], 5.0)).report


async def test_whoever_connects_is_told_as_json(clock: Clock, tmp_path: Path) -> None:
    pulse = make(clock)
    async with pulse.listen([tmp_path]):
        assert await ask_in_thread(tmp_path) == pulse.report()


async def test_it_is_for_the_owner_and_the_group_alone(clock: Clock, tmp_path: Path) -> None:
    async with make(clock).listen([tmp_path]):
        assert stat.S_IMODE((tmp_path / SOCKET_NAME).stat().st_mode) == 0o660


async def test_it_is_gone_at_the_end(clock: Clock, tmp_path: Path) -> None:
    async with make(clock).listen([tmp_path]):
        assert (tmp_path / SOCKET_NAME).is_socket()
    assert not (tmp_path / SOCKET_NAME).exists()


async def test_another_ones_in_its_place_stays_at_the_end(
    clock: Clock, tmp_path: Path, listener: socket.socket
) -> None:
    path = tmp_path / SOCKET_NAME
    async with make(clock).listen([tmp_path]):
        # Not removed, or the new one might get its inode.
        path.rename(tmp_path / "aside")
        listener.bind(str(path))
    assert path.is_socket()


async def test_one_that_nobody_listens_on_gives_way(
    clock: Clock, tmp_path: Path, listener: socket.socket
) -> None:
    listener.bind(str(tmp_path / SOCKET_NAME))
    listener.close()
    async with make(clock).listen([tmp_path]):
        assert (await ask_in_thread(tmp_path))["verdict"] == "ticking"


async def test_one_that_somebody_listens_on_stays_and_the_next_directory_is_taken(
    clock: Clock, tmp_path: Path, listener: socket.socket
) -> None:
    listener.bind(str(tmp_path / SOCKET_NAME))
    listener.listen()
    own = tmp_path / "own"
    own.mkdir()
    with capture_logs() as logs:
        async with make(clock).listen([tmp_path, own]):
            assert (await ask_in_thread(own))["verdict"] == "ticking"
    assert [entry["event"] for entry in logs] == ["health_socket_failed"]
    listener.settimeout(5.0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.connect(str(tmp_path / SOCKET_NAME))
        listener.accept()[0].close()


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
async def test_what_is_no_socket_is_left_alone(clock: Clock, tmp_path: Path, kind: str) -> None:
    path = tmp_path / SOCKET_NAME
    if kind == "file":
        path.write_text("mine")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    before = path.lstat()
    with capture_logs() as logs:
        async with make(clock).listen([tmp_path]):
            pass
    assert [entry["event"] for entry in logs] == ["health_socket_failed"]
    assert path.lstat() == before


@pytest.mark.parametrize("length", [107, 108])
async def test_the_longest_path_is_107_bytes_and_a_longer_one_a_warning(
    clock: Clock, tmp_path: Path, length: int
) -> None:
    directory = tmp_path / ("d" * (length - len(os.fspath(tmp_path / "x" / SOCKET_NAME)) + 1))
    directory.mkdir()
    assert len(os.fspath(directory / SOCKET_NAME)) == length
    with capture_logs() as logs:
        async with make(clock).listen([directory]):
            report = await ask_in_thread(directory)
    assert [entry["error"] for entry in logs] == ([] if length == 107 else ["AF_UNIX path too long"])
    assert report["verdict"] == ("ticking" if length == 107 else "no_daemon")


async def test_a_directory_that_is_missing_is_a_warning(clock: Clock, tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with make(clock).listen([tmp_path / "missing"]):
            pass
    assert [(entry["log_level"], entry["error"]) for entry in logs] == [
        ("warning", "No such file or directory")
    ]


async def test_callers_that_do_not_read_keep_nobody_else_out_for_long(clock: Clock, tmp_path: Path) -> None:
    # More than the kernel takes off the daemon's hands.
    pulse = make(clock, padding="x" * 600_000)
    with contextlib.ExitStack() as stack:
        async with pulse.listen([tmp_path]):
            for _ in range(CALLERS):
                link = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                link.setblocking(False)
                await asyncio.get_running_loop().sock_connect(link, str(tmp_path / SOCKET_NAME))
            refused = await ask_in_thread(tmp_path)
            assert refused["verdict"] == "no_answer"
            async with asyncio.timeout(ANSWER_S + 10.0):
                while (await ask_in_thread(tmp_path))["verdict"] != "ticking":
                    pass
