"""What a real daemon says of a host that is not as it is used to be."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from harness import Daemon, Listener, Mosquitto
from jsonschema import Draft202012Validator

from neuromodd.core.brain import Brain, BrainParameters
from neuromodd.core.frame import CpuSample, TelemetryFrame
from neuromodd.core.schemas import schema
from neuromodd.core.surprise import SurpriseParameters
from neuromodd.sinks.checkpoint_file import write_checkpoint

StartDaemon = Callable[..., Daemon]
Listen = Callable[..., Listener]

WATCHED = "cpu.load_1m"
CALM_TICKS = 3600
LOADS = "{:05.2f} 0.20 0.20 1/100 1000\n"


class Strange:
    """A daemon that knows nothing but a small load, and whoever listens to it."""

    def __init__(
        self, directory: Path, calm: Path, port: int, start: StartDaemon, listener: Listener
    ) -> None:
        self.listener = listener
        self._port, self._start = port, start
        self._procfs = directory / "proc"
        self._procfs.mkdir()
        (self._procfs / "stat").write_text("cpu 100 0 0 100 0 0 0 0 0 0\n")
        (self._procfs / "loadavg").write_text(LOADS.format(0.25))
        (directory / "state").mkdir()
        shutil.copy(calm, directory / "state" / "checkpoint-0000000000000001.json")
        self.daemon = self.start()

    def start(self) -> Daemon:
        self.daemon = self._start(
            *("--tick.interval_s", "0.1", "--surprise.channels", WATCHED),
            *("--sensors.procfs_root", str(self._procfs)),
            port=self._port,
        )
        self.daemon.wait_log("mqtt_connected")
        return self.daemon

    def load(self, load_1m: float) -> None:
        # In place and as long as before: the daemon keeps the file open, and a reader sees one or the other.
        with (self._procfs / "loadavg").open("r+b", buffering=0) as file:
            file.write(LOADS.format(load_1m).encode())


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a brain that has known nothing but a small load, for an hour that ends now."""
    brain = Brain(BrainParameters(surprise=SurpriseParameters(channels=(WATCHED,))), compiled=False)
    rng, now = random.Random(0), datetime.now(UTC)  # noqa: S311 - test data
    for at in range(CALM_TICKS):
        time_utc = now - timedelta(seconds=CALM_TICKS - at)
        cpu = CpuSample(load_1m=0.2 + 0.1 * rng.random())
        brain.step(TelemetryFrame(node="lab", sequence=at, time_utc=time_utc, monotonic_s=float(at), cpu=cpu))
    target = tmp_path_factory.mktemp("calm") / "checkpoint.json"
    dimensions = brain.engine.config.dimensions
    write_checkpoint(target, brain.state(), dimensions=dimensions, created_utc=now.isoformat())
    return target


@pytest.fixture
def strange(
    tmp_path: Path, calm: Path, mosquitto: Mosquitto, start_daemon: StartDaemon, listen: Listen
) -> Strange:
    """The load is a hundred times what it was, and the daemon has said so."""
    listener = listen(mosquitto.port, newest=True)
    strange = Strange(tmp_path, calm, mosquitto.port, start_daemon, listener)
    strange.listener.wait("state", count=3)
    assert not strange.listener.named("anomaly")
    strange.load(25.0)
    strange.listener.wait("anomaly")
    return strange


def test_an_anomaly_is_published_with_what_was_observed(strange: Strange) -> None:
    heard = strange.listener.named("anomaly")[0]
    Draft202012Validator(schema("anomaly")).validate(heard.json)
    assert (heard.json["phase"], heard.json["replayed"]) == ("begin", False)
    assert [(of["name"], of["observed"]) for of in heard.json["channels"]] == [(WATCHED, 25.0)]


def test_an_anomaly_comes_as_the_contract_says(strange: Strange) -> None:
    heard = strange.listener.named("anomaly")[0]
    assert (heard.qos, heard.content_type, heard.expiry_s) == (1, "application/json", None)
    assert heard.properties == (("schema_version", "1"),)


def test_an_anomaly_raises_the_flag_of_the_states(strange: Strange) -> None:
    heard = strange.listener.wait("state", lambda heard: heard.json["flags"]["anomaly"])
    Draft202012Validator(schema("state")).validate(heard.json)
    assert list(heard.json["surprise"]["channels"]) == [WATCHED]


def test_an_anomaly_is_in_the_log_with_its_sentence(strange: Strange) -> None:
    logged = strange.daemon.wait_log("anomaly")
    published = strange.listener.named("anomaly")[0].json
    assert (logged["level"], logged["phase"]) == ("warning", "begin")
    assert (logged["channels"], logged["sentence"]) == ([WATCHED], published["sentence"])


def test_an_anomaly_is_counted_in_health(strange: Strange) -> None:
    strange.daemon.end()
    strange.start()
    strange.listener.wait("health", lambda heard: heard.json["anomalies"] == 1)


def test_an_anomaly_that_goes_on_is_not_begun_again_by_a_restart(strange: Strange) -> None:
    strange.listener.wait("state", lambda heard: heard.json["flags"]["anomaly"])
    strange.daemon.end()
    before = max(heard.json["sequence"] for heard in strange.listener.named("state"))
    strange.start()
    first = strange.listener.wait("state", lambda heard: heard.json["sequence"] > before)
    assert first.json["flags"]["anomaly"]
    strange.listener.wait("state", lambda heard: heard.json["sequence"] > before + 5)
    assert len({heard.json["id"] for heard in strange.listener.named("anomaly")}) == 1
