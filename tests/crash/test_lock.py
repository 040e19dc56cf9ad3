"""Two daemons on one state directory: one lives, the other says who and ends."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from harness import Daemon, Mosquitto, wait_for

StartDaemon = Callable[..., Daemon]


def test_a_second_daemon_exits_3_and_names_directory_and_holder_whatever_the_lock_file_says(
    mosquitto: Mosquitto, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    first = start_daemon(port=mosquitto.port)
    first.wait_log("started")
    (tmp_path / "state" / "lock").write_bytes(b"1\n")
    second = start_daemon("--node", "other", port=mosquitto.port)
    assert second.wait() == 3
    (line,) = second.lines
    assert line.startswith(f"neuromodd: {tmp_path / 'state'}: locked by process {first.process.pid} (")
    assert line.endswith("one daemon to a state directory")


def test_of_three_daemons_that_start_at_once_one_lives(
    mosquitto: Mosquitto, start_daemon: StartDaemon
) -> None:
    daemons = [start_daemon("--node", f"n{number}", port=mosquitto.port) for number in range(3)]
    wait_for(lambda: sum(of.process.poll() is not None for of in daemons) == 2, "the end of two")
    (alive,) = (of for of in daemons if of.process.poll() is None)
    alive.wait_log("started")
    others = [of for of in daemons if of is not alive]
    assert [of.wait() for of in others] == [3, 3]
    assert all(f"process {alive.process.pid} " in of.lines[-1] for of in others)


def test_the_lock_of_a_daemon_that_was_killed_holds_nobody_up(
    mosquitto: Mosquitto, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    first = start_daemon(port=mosquitto.port)
    first.wait_log("started")
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    lock = tmp_path / "state" / "lock"
    assert lock.read_text() == f"{first.process.pid}\n"
    second = start_daemon(port=mosquitto.port)
    second.wait_log("started")
    assert lock.read_text() == f"{second.process.pid}\n"
