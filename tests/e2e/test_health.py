"""`neuromodd health` beside a real daemon."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, Listener, Mosquitto, free_port
from jsonschema import Draft202012Validator

from neuromodd.core.schemas import schema
from neuromodd.health import SOCKET_NAME

HEAVY = ("argparse", "asyncio", "numpy", "pydantic", "pydantic_settings", "structlog", "neuromodd.cli")


class Ask:
    """Runs `neuromodd health`, in an environment that tells where the daemon's directories are."""

    def __init__(self, tmp_path: Path) -> None:
        self.runtime = tmp_path / "run"
        self.state = tmp_path / "state"
        self.runtime.mkdir()

    @property
    def runtime_environ(self) -> dict[str, str]:
        return {"RUNTIME_DIRECTORY": str(self.runtime)}

    @property
    def state_environ(self) -> dict[str, str]:
        return {"NEUROMODD_CHECKPOINT__DIRECTORY": str(self.state)}

    def __call__(
        self, *arguments: str, environ: dict[str, str], python: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("NEUROMODD_") and name != "RUNTIME_DIRECTORY"
        }
        return subprocess.run(
            [sys.executable, *python, "-m", "neuromodd", "health", *arguments],
            env={**kept, "XDG_CONFIG_HOME": "/nonexistent", **environ},
            capture_output=True,
            text=True,
            check=False,
            timeout=30.0,
        )

    def json(self, environ: dict[str, str]) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("--json", environ=environ).stdout)
        return found


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    return Ask(tmp_path)


def test_a_daemon_that_ticks_is_status_0_and_says_all_in_one_line_of_json(
    mosquitto: Mosquitto, listen: Callable[..., Listener], start_daemon: Callable[..., Daemon], ask: Ask
) -> None:
    listener = listen(mosquitto.port)
    start_daemon("--tick.interval_s", "0.2", port=mosquitto.port, environ=ask.runtime_environ)
    listener.wait("telemetry", count=2)
    assert not (ask.state / SOCKET_NAME).exists()
    asked = ask("--json", environ=ask.runtime_environ)
    assert (asked.returncode, asked.stderr, asked.stdout.count("\n")) == (0, "", 1)
    report = json.loads(asked.stdout)
    Draft202012Validator(schema("health")).validate(report.pop("health"))
    assert 0.0 <= report.pop("tick_age_s") < report["tick_bound_s"]
    assert "the newest tick is" in report.pop("reason")
    assert report == {
        "verdict": "ticking",
        "tick_interval_s": 0.2,
        "tick_bound_s": 10.4,
        "broker": "connected",
    }


def test_a_daemon_that_waits_for_its_broker_is_status_0(
    start_daemon: Callable[..., Daemon], ask: Ask
) -> None:
    # One tick an hour: the first comes at once, and the next is not late for long.
    daemon = start_daemon("--tick.interval_s", "3600", port=free_port())
    daemon.wait_log("started")
    asked = ask(environ=ask.state_environ)
    assert (asked.returncode, asked.stderr) == (0, "")
    assert asked.stdout.startswith("ticking: the newest tick is ")
    assert asked.stdout.endswith("one is due each 3600 s; the broker is awaited\n")


def test_another_interval_is_followed(start_daemon: Callable[..., Daemon], ask: Ask, tmp_path: Path) -> None:
    file = tmp_path / "neuromodd.toml"
    file.write_text("tick.interval_s = 3600")
    daemon = start_daemon("--config", str(file), port=free_port(), environ=ask.runtime_environ)
    daemon.wait_log("started")
    file.write_text("tick.interval_s = 0.5")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_log("reloaded")
    report = ask.json(ask.runtime_environ)
    assert (report["verdict"], report["tick_bound_s"]) == ("ticking", 11.0)


def test_asking_imports_neither_the_configuration_nor_the_daemon(
    start_daemon: Callable[..., Daemon], ask: Ask
) -> None:
    daemon = start_daemon(port=free_port(), environ=ask.runtime_environ)
    daemon.wait_log("started")
    asked = ask(environ=ask.runtime_environ, python=("-X", "importtime"))
    assert asked.returncode == 0
    imported = {line.rsplit("|", 1)[-1].strip() for line in asked.stderr.splitlines()}
    assert "neuromodd.health" in imported
    assert imported & set(HEAVY) == set()
    assert {name for name in imported if name.startswith("neuromodd")} <= {"neuromodd", "neuromodd.health"}


def test_a_frozen_daemon_is_status_1_within_the_deadline_and_well_again_when_it_goes_on(
    start_daemon: Callable[..., Daemon], ask: Ask
) -> None:
    daemon = start_daemon("--tick.interval_s", "0.2", port=free_port(), environ=ask.runtime_environ)
    daemon.wait_log("started")
    daemon.process.send_signal(signal.SIGSTOP)
    asked = ask("--timeout-s", "0.3", environ=ask.runtime_environ)
    daemon.process.send_signal(signal.SIGCONT)
    assert (asked.returncode, asked.stdout) == (1, "")
    assert asked.stderr == f"neuromodd: {ask.runtime / SOCKET_NAME}: no answer within 0.3 s\n"
    assert ask(environ=ask.runtime_environ).returncode == 0


def test_without_a_daemon_it_is_status_1_and_one_line(ask: Ask) -> None:
    asked = ask(environ=ask.runtime_environ | ask.state_environ)
    assert (asked.returncode, asked.stdout) == (1, "")
    assert asked.stderr.startswith(f"neuromodd: no daemon answers: {ask.runtime / SOCKET_NAME}: No such file")
    assert asked.stderr.count("\n") == 1


def test_what_a_killed_daemon_left_is_no_daemon_and_in_nobodys_way(
    start_daemon: Callable[..., Daemon], ask: Ask
) -> None:
    daemon = start_daemon(port=free_port())
    daemon.wait_log("started")
    daemon.end(signal.SIGKILL)
    assert (ask.state / SOCKET_NAME).is_socket()
    assert ask.json(ask.state_environ)["verdict"] == "no_daemon"
    again = start_daemon(port=free_port())
    again.wait_log("started")
    assert again.logged("health_socket_failed") == []
    assert ask.json(ask.state_environ)["verdict"] == "ticking"
    assert again.end() == 0
    assert not (ask.state / SOCKET_NAME).exists()


def test_a_second_daemon_that_is_refused_the_state_directory_leaves_the_first_ones_socket(
    start_daemon: Callable[..., Daemon], ask: Ask
) -> None:
    start_daemon(port=free_port(), environ=ask.runtime_environ).wait_log("started")
    assert start_daemon(port=free_port(), environ=ask.runtime_environ).wait() == 3
    assert ask.json(ask.runtime_environ)["verdict"] == "ticking"


def test_a_runtime_directory_that_can_not_be_used_is_a_warning_and_the_state_directory_has_the_socket(
    start_daemon: Callable[..., Daemon], ask: Ask
) -> None:
    missing = {"RUNTIME_DIRECTORY": str(ask.runtime / "missing")}
    daemon = start_daemon(port=free_port(), environ=missing)
    daemon.wait_log("started")
    assert daemon.logged("health_socket_failed")[0]["level"] == "warning"
    assert ask.json(missing | ask.state_environ)["verdict"] == "ticking"
