from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog

from neuromodd import config
from neuromodd.config import Settings, changed_options
from neuromodd.core.anomaly import Anomaly, Moment
from neuromodd.core.frame import TelemetryFrame
from neuromodd.core.surprise import DEFAULT_CHANNELS
from neuromodd.daemon import RELOADABLE, Daemon
from neuromodd.errors import (
    CheckpointMismatchError,
    ConfigurationError,
    ConfigurationFault,
    StateDirectoryLockedError,
)
from neuromodd.eye import Due
from neuromodd.loading import Loaded, load
from neuromodd.sinks.state_directory import StateDirectory

START = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """A reload sets up the logging of the whole process."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


class Host:
    """Daemons on one state directory, none of which runs."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.reloaded: Callable[[], Loaded] = self.loaded
        self._made: list[Daemon] = []

    def loaded(self, options: Mapping[str, str] | None = None) -> Loaded:
        """Settings that differ from the base in these options."""
        base = {"node": "lab", "mqtt.host": "broker", "checkpoint.directory": str(self.state)}
        # A file would bring what this machine happens to have.
        return load(Path("/dev/null"), {**base, **(options or {})}, {})

    def make(self, options: Mapping[str, str] | None = None, *, fresh: bool = False) -> Daemon:
        loaded = self.loaded(options)
        self._made.append(Daemon(loaded, reload=self._read_again, fresh=fresh))
        return self._made[-1]

    def _read_again(self) -> Loaded:
        return self.reloaded()

    def end(self) -> None:
        for daemon in self._made:
            daemon._eye.close()
            daemon._state_directory.close()
        self._made.clear()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path / "state")
    yield host
    host.end()


def live(daemon: Daemon, seconds: int) -> None:
    """Let the daemon's brain live through some seconds, and keep the last."""
    for _ in range(seconds):
        second = daemon._brain.sequence
        frame = TelemetryFrame(node="lab", sequence=second, time_utc=START, monotonic_s=float(second))
        step = daemon._brain.step(frame).result.step
    daemon._store.write(
        daemon._brain.state(), step=step, dimensions=daemon._settings.engine.dimensions, created_utc=""
    )


# Start


async def test_a_daemon_goes_on_from_its_newest_checkpoint(host: Host) -> None:
    first = host.make()
    live(first, 10)
    state = first._brain.state()
    host.end()
    assert host.make()._brain.state() == state


async def test_a_fresh_start_begins_at_zero(host: Host) -> None:
    live(host.make(), 10)
    host.end()
    assert host.make(fresh=True)._brain.sequence == 0


async def test_a_fresh_start_sets_the_checkpoints_aside(host: Host) -> None:
    live(host.make(), 10)
    host.end()
    host.make(fresh=True)
    assert sorted(path.suffix for path in host.state.glob("checkpoint-*")) == [".fresh"]


async def test_a_checkpoint_of_other_dimensions_is_refused(host: Host) -> None:
    live(host.make(), 1)
    host.end()
    with pytest.raises(CheckpointMismatchError, match="--fresh"):
        host.make({"engine.lif_neurons": "9"})


async def test_a_start_that_fails_lets_go_of_the_state_directory(host: Host) -> None:
    live(host.make(), 1)
    host.end()
    with pytest.raises(CheckpointMismatchError):
        host.make({"engine.lif_neurons": "9"})
    StateDirectory(host.state).close()


async def test_two_daemons_do_not_share_a_state_directory(host: Host) -> None:
    host.make()
    with pytest.raises(StateDirectoryLockedError):
        host.make()


async def test_without_any_broker_there_is_no_daemon(host: Host) -> None:
    with pytest.raises(ConfigurationError, match=r"mqtt\.host"):
        host.make({"mqtt.host": "null", "mqtt.embedded": "false"})


async def test_a_hostname_that_topics_can_not_carry_is_mentioned(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "büro")
    with structlog.testing.capture_logs() as entries:
        daemon = host.make({"node": "null"})
    assert daemon.node == "b_ro"
    assert [entry["node"] for entry in entries if entry["event"] == "hostname_mapped"] == ["b_ro"]


@pytest.mark.parametrize(
    ("options", "command"),
    [
        ({}, "mosquitto_sub -h broker -p 1883 -v -t 'neuromodd/lab/#'"),
        ({"mqtt.prefix": "site"}, "mosquitto_sub -h broker -p 1883 -v -t 'site/lab/#'"),
        (
            {"mqtt.tls.enabled": "true"},
            "mosquitto_sub -h broker -p 8883 --tls-use-os-certs -v -t 'neuromodd/lab/#'",
        ),
        (
            {"mqtt.username": "me", "mqtt.password": "hunter2"},
            "mosquitto_sub -h broker -p 1883 -u me -P ... -v -t 'neuromodd/lab/#'",
        ),
    ],
)
async def test_it_says_how_to_listen_to_it(host: Host, options: dict[str, str], command: str) -> None:
    assert host.make(options).subscribe_command() == command


# Reload


def reload(host: Host, daemon: Daemon, options: Mapping[str, str]) -> None:
    host.reloaded = lambda: host.loaded(options)
    daemon._reload_settings()


def logged(capsys: pytest.CaptureFixture[str], event: str) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    return [entry for entry in entries if entry["event"] == event]


@pytest.mark.parametrize("name", RELOADABLE)
def test_what_may_be_reloaded_is_an_option_or_a_section(name: str) -> None:
    names = {option.name for option in config.options()}
    assert name in names or any(other.startswith(name) for other in names if name.endswith("."))


TAKEN = [
    pytest.param("tick.interval_s", "2", lambda daemon: daemon._eye.assembler.interval_s == 2.0, id="tick"),
    pytest.param(
        "checkpoint.interval_s", "5", lambda daemon: daemon._checkpoints.interval_s == 5.0, id="period"
    ),
    pytest.param("checkpoint.keep", "2", lambda daemon: daemon._store.keep == 2, id="keep"),
    pytest.param(
        "modulators.work_target", "0.5", lambda daemon: daemon._eye.assembler.work_target == 0.5, id="target"
    ),
    pytest.param(
        "modulators.heat_onset_celsius",
        "60",
        lambda daemon: daemon._brain.parameters.setpoints.heat_onset_celsius == 60.0,
        id="setpoint",
    ),
    pytest.param(
        "rewards.busy_ticks",
        "9",
        lambda daemon: daemon._brain.parameters.rewards.busy_ticks == 9,
        id="rewards",
    ),
    pytest.param(
        "faults.hold_s", "3", lambda daemon: daemon._brain.parameters.faults.hold_s == 3.0, id="faults"
    ),
    pytest.param(
        "surprise.threshold",
        "0.7",
        lambda daemon: daemon._brain.parameters.surprise.threshold == 0.7,
        id="threshold",
    ),
    pytest.param(
        "surprise.feedback",
        "false",
        lambda daemon: not daemon._brain.parameters.surprise.feedback,
        id="feedback",
    ),
]


@pytest.mark.parametrize(("name", "text", "took_effect"), TAKEN)
async def test_a_reload_takes_effect(
    host: Host, name: str, text: str, took_effect: Callable[[Daemon], bool]
) -> None:
    daemon = host.make()
    assert not took_effect(daemon)
    reload(host, daemon, {name: text})
    assert took_effect(daemon)


@pytest.mark.parametrize(("name", "text", "_took_effect"), TAKEN)
async def test_what_a_reload_took_is_named(
    host: Host, capsys: pytest.CaptureFixture[str], name: str, text: str, _took_effect: object
) -> None:
    reload(host, host.make(), {name: text})
    (entry,) = logged(capsys, "reloaded")
    assert (entry["taken"], entry["needs_restart"]) == ([name], [])


async def test_a_reload_changes_the_level_of_the_log(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    reload(host, host.make(), {"log.level": "debug"})
    structlog.get_logger().debug("detail")
    assert logged(capsys, "detail")


async def test_a_reload_tells_the_world(host: Host) -> None:
    daemon = host.make()
    reload(host, daemon, {"tick.interval_s": "0.5"})
    message = await daemon._publisher._states.take()
    assert (message.topic[-5:], json.loads(message.payload)["interval_s"]) == ("/info", 0.5)


NEEDS_RESTART = [
    ("node", "other"),
    ("mqtt.prefix", "site"),
    ("mqtt.buffer_telemetry", "true"),
    ("mqtt.inbound.rate_per_s", "5"),
    ("homeassistant.prefix", "ha"),
    ("checkpoint.directory", "/elsewhere"),
    ("sensors.deadline_s", "2"),
    ("surprise.enabled", "false"),
    ("surprise.channels", "cpu,disk.busy_ratio"),
    ("engine.seed", "7"),
    ("engine.steps_per_tick", "10"),
    ("log.format", "json"),
]


@pytest.mark.parametrize(("name", "text"), NEEDS_RESTART)
async def test_what_needs_a_restart_is_named(
    host: Host, capsys: pytest.CaptureFixture[str], name: str, text: str
) -> None:
    reload(host, host.make(), {name: text})
    (entry,) = logged(capsys, "reloaded")
    assert (entry["taken"], entry["needs_restart"]) == ([], [name])


@pytest.mark.parametrize(("name", "text"), NEEDS_RESTART)
async def test_what_needs_a_restart_is_not_taken(host: Host, name: str, text: str) -> None:
    daemon = host.make()
    reload(host, daemon, {name: text})
    assert changed_options(daemon._settings, host.loaded().settings) == []


async def test_what_needs_a_restart_is_named_at_every_reload(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon = host.make()
    for _ in range(2):
        reload(host, daemon, {"mqtt.prefix": "site"})
    assert [entry["needs_restart"] for entry in logged(capsys, "reloaded")] == [["mqtt.prefix"]] * 2


async def test_a_reload_does_not_change_what_is_watched(host: Host) -> None:
    daemon = host.make()
    reload(host, daemon, {"surprise.channels": "cpu", "surprise.threshold": "0.7"})
    watched = daemon._brain.parameters.surprise
    assert (watched.channels, watched.threshold) == (DEFAULT_CHANNELS, 0.7)


@pytest.mark.parametrize(("phase", "level"), [("begin", "warning"), ("end", "info")])
async def test_an_anomaly_is_a_line_in_the_log(
    host: Host, monkeypatch: pytest.MonkeyPatch, phase: str, level: str
) -> None:
    told = {
        "phase": phase,
        "since_utc": START,
        "time_utc": START,
        "duration_s": 12.5,
        "surprise": 0.7,
        "channels": [
            {"name": "cpu", "observed": 0.9, "expected": 0.1, "low": 0.0, "high": 0.2, "surprise": 0.7}
        ],
        "sentence": "cpu is 0.9, where 0 to 0.2 was expected",
    }
    daemon = host.make()
    moment = Moment(0.7, 0.7, (), change=Anomaly.from_dict(told), episode=None)
    monkeypatch.setattr(daemon._brain._surprise, "update", lambda *_, **__: moment)
    with structlog.testing.capture_logs() as entries:
        await daemon.sample_now()
    (entry,) = [entry for entry in entries if entry["event"] == "anomaly"]
    assert entry == {
        "event": "anomaly",
        "log_level": level,
        "phase": phase,
        "sentence": "cpu is 0.9, where 0 to 0.2 was expected",
        "channels": ["cpu"],
        "surprise": 0.7,
        "duration_s": 12.5,
    }


async def test_a_configuration_with_a_fault_is_not_taken(host: Host) -> None:
    daemon = host.make()
    before = daemon._settings
    reload(host, daemon, {"tick.interval_s": "0.5", "mqtt.port": "0"})
    assert changed_options(before, daemon._settings) == []


async def test_a_configuration_with_a_fault_is_refused_with_its_faults(host: Host) -> None:
    daemon = host.make()
    fault = ConfigurationFault(place="mqtt.port", got="0", expected="1 or more")

    def refuse() -> Loaded:
        raise ConfigurationError([fault])

    host.reloaded = refuse
    with structlog.testing.capture_logs() as entries:
        daemon._reload_settings()
    assert [(entry["event"], entry["faults"]) for entry in entries] == [("reload_refused", [str(fault)])]


async def test_the_password_is_not_shown_by_a_reload(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    reload(host, host.make(), {"mqtt.username": "lab", "mqtt.password": "hunter2"})
    assert "hunter2" not in "".join(capsys.readouterr())


def test_the_settings_of_the_daemon_are_the_defaults_where_nothing_is_said(host: Host) -> None:
    changed = changed_options(Settings(), host.loaded().settings)
    assert changed == ["node", "mqtt.host", "checkpoint.directory"]


async def test_a_tick_loop_that_fails_still_leaves_a_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    options = {
        "mqtt.host": "127.0.0.1",
        "mqtt.port": "1",
        "checkpoint.directory": str(state),
        "tick.interval_s": "0.05",
    }
    loaded = load(None, options, {"XDG_CONFIG_HOME": str(tmp_path)})
    daemon = Daemon(loaded, reload=lambda: loaded)
    tick = daemon._tick

    async def fail_at_the_third(due: Due) -> None:
        if daemon._vitals.ticks == 2:
            raise ZeroDivisionError
        await tick(due)

    monkeypatch.setattr(daemon, "_tick", fail_at_the_third)
    with pytest.raises(ZeroDivisionError):
        await daemon.run()
    assert [path.name for path in state.glob("checkpoint-*.json")] == ["checkpoint-0000000000000040.json"]
