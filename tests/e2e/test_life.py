"""The daemon through restarts, outages, kills and signals, as real processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, Listener, Mosquitto, free_port, wait_for

from neuromodd import SpikingInferenceEngine
from neuromodd.sinks.checkpoint_file import decode, encode

StartDaemon = Callable[..., Daemon]
StartBroker = Callable[..., Mosquitto]
Listen = Callable[[int], Listener]

FAST = ("--tick.interval_s", "0.1", "--mqtt.health_interval_s", "1")


def burn(stop: Any) -> None:
    while not stop.is_set():
        sum(range(10_000))


@pytest.fixture
def burning() -> Iterator[Callable[[bool], None]]:
    """Switches a load of all processors on and off."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    workers = [context.Process(target=burn, args=(stop,), daemon=True) for _ in range(os.cpu_count() or 1)]

    def switch(on: bool) -> None:
        if on:
            for worker in workers:
                worker.start()
        else:
            stop.set()

    yield switch
    stop.set()
    for worker in workers:
        if worker.pid is not None:
            worker.join()


class FakeHost:
    """A /proc whose processors are as busy as `level` says; the files move with real time."""

    def __init__(self, procfs: Path) -> None:
        self.procfs = procfs
        self.level = 0.05
        self._busy = self._idle = 0.0
        self._last_s = time.monotonic()
        self._end = threading.Event()
        procfs.mkdir()
        (procfs / "meminfo").write_text("MemTotal: 1000 kB\nMemAvailable: 500 kB\nSwapTotal: 0 kB\n")
        (procfs / "loadavg").write_text("0.10 0.20 0.30 1/100 1000\n")
        self._write()
        self._writer = threading.Thread(target=self._run)
        self._writer.start()

    def close(self) -> None:
        self._end.set()
        self._writer.join()

    def _run(self) -> None:
        while not self._end.wait(0.01):
            self._write()

    def _write(self) -> None:
        now_s = time.monotonic()
        elapsed, self._last_s = now_s - self._last_s, now_s
        self._busy += elapsed * self.level * 1e6
        self._idle += elapsed * (1.0 - self.level) * 1e6
        text = f"cpu {int(self._busy)} 0 0 {int(self._idle)} 0 0 0 0 0 0\nctxt {int(self._busy)}\n"
        # One write of a few bytes into a file of the same length or shorter is seen whole by a reader.
        descriptor = os.open(self.procfs / "stat", os.O_WRONLY | os.O_CREAT, 0o644)
        os.pwrite(descriptor, text.encode(), 0)
        os.close(descriptor)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[FakeHost]:
    fake = FakeHost(tmp_path / "proc")
    yield fake
    fake.close()


def newest_checkpoint(state: Path) -> dict[str, Any]:
    saved: dict[str, Any] = json.loads(max(state.glob("checkpoint-*.json")).read_bytes())["state"]
    return saved


def distance(weights: list[float], others: list[float]) -> float:
    return max(abs(weight - other) for weight, other in zip(weights, others, strict=True))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.alone
def test_a_real_burn_raises_load_dopamine_and_the_cpu_neuron(
    mosquitto: Mosquitto, listen: Listen, start_daemon: StartDaemon, burning: Callable[[bool], None]
) -> None:
    listener = listen(mosquitto.port)
    start_daemon("--tick.interval_s", "0.25", port=mosquitto.port)
    listener.wait("telemetry", count=20)
    before = len(listener.named("state"))
    burning(True)
    listener.wait("telemetry", lambda heard: (heard.json["cpu"]["utilization_ratio"] or 0.0) > 0.95, count=24)
    states = [heard.json for heard in listener.named("state")]
    levels = [
        [state["modulators"]["dopamine"] for state in part] for part in (states[1:before], states[-20:])
    ]
    rates = [[state["rates"]["lif"][0] for state in part] for part in (states[1:before], states[-20:])]
    assert mean(levels[1]) > mean(levels[0])
    assert mean(levels[1]) > 0.9
    assert mean(rates[1]) > mean(rates[0])


def test_work_raises_dopamine_and_the_cpu_neuron_and_its_end_is_rewarded(
    mosquitto: Mosquitto, listen: Listen, start_daemon: StartDaemon, host: FakeHost
) -> None:
    listener = listen(mosquitto.port)
    start_daemon(*FAST, "--sensors.procfs_root", str(host.procfs), port=mosquitto.port)
    listener.wait("state", count=40)
    quiet = [heard.json for heard in listener.named("state")[1:]]
    host.level = 0.97
    listener.wait("telemetry", lambda heard: (heard.json["work"] or {"rate": 0.0})["rate"] > 0.9, count=40)
    busy = [heard.json for heard in listener.named("state")[-30:]]
    host.level = 0.05
    accepted = listener.wait("reward")
    seen = len(listener.named("state"))
    listener.wait("state", count=seen + 40)
    after = [heard.json for heard in listener.named("state")[seen:]]

    tonic = [
        mean([state["modulators"]["tonic"]["dopamine"] for state in part]) for part in (quiet, busy, after)
    ]
    assert tonic == [
        pytest.approx(0.3, abs=0.02),
        pytest.approx(0.97, abs=0.03),
        pytest.approx(0.3, abs=0.02),
    ]
    rates = [mean([state["rates"]["lif"][0] for state in part]) for part in (quiet, busy, after)]
    assert rates[1] > 2 * rates[0]
    assert rates[1] > 2 * rates[2]
    assert accepted.json["kind"] == "WorkAccepted"
    assert accepted.json["source"] == "cpu"
    assert accepted.json["replayed"] is False
    # The reward is still felt, and less and less.
    phasic = [state["modulators"]["phasic"]["dopamine"] for state in after]
    assert 0.1 < phasic[0] <= 0.2
    assert phasic == sorted(phasic, reverse=True)


def test_a_restart_goes_on_with_steps_weights_and_sequence(
    mosquitto: Mosquitto, listen: Listen, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    listener = listen(mosquitto.port)
    first = start_daemon(*FAST, port=mosquitto.port)
    listener.wait("state", count=20)
    assert first.end() == 0
    saved = newest_checkpoint(tmp_path / "state")
    last = listener.named("state")[-1].json
    assert saved["engine"]["step"] == last["step"]

    second = start_daemon(*FAST, "--engine.seed", "7", port=mosquitto.port)
    assert second.wait_log("resumed")["step"] == last["step"]
    assert second.wait_log("seed_kept")["checkpoint"] == 0
    fresh = listener.wait("state", lambda heard: heard.json["sequence"] > last["sequence"])
    assert fresh.json["sequence"] == last["sequence"] + 1
    assert fresh.json["step"] == last["step"] + 20
    assert second.end() == 0
    # In a second few spikes come and a weight moves little; a fresh network of that seed is elsewhere.
    resumed = newest_checkpoint(tmp_path / "state")["engine"]["weights"]
    fresh_weights = SpikingInferenceEngine(seed=7).state()["weights"]
    assert distance(resumed, saved["engine"]["weights"]) < 0.1
    assert distance(resumed, fresh_weights) > 0.1


def test_after_kill_9_the_will_says_offline_and_the_next_start_resumes(
    mosquitto: Mosquitto, listen: Listen, start_daemon: StartDaemon
) -> None:
    listener = listen(mosquitto.port)
    first = start_daemon(*FAST, "--checkpoint.interval_s", "0.2", port=mosquitto.port)
    listener.wait("health", lambda heard: heard.json["checkpoint"]["written"] > 0)
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    listener.wait("status", lambda heard: heard.payload == b"offline")
    last = listener.named("state")[-1].json["step"]
    second = start_daemon(*FAST, port=mosquitto.port)
    # A checkpoint every two ticks, and one that was being written.
    assert last - second.wait_log("resumed")["step"] <= 20 * 6


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_with_a_checkpoint_offline_and_status_0_within_5_s(
    number: signal.Signals, mosquitto: Mosquitto, listen: Listen, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    listener = listen(mosquitto.port)
    daemon = start_daemon(*FAST, port=mosquitto.port)
    listener.wait("state", count=3)
    begin = time.monotonic()
    assert daemon.end(number) == 0
    assert time.monotonic() - begin < 5.0
    listener.wait("status", lambda heard: heard.payload == b"offline")
    assert newest_checkpoint(tmp_path / "state")["engine"]["step"] == daemon.logged("stopped")[0]["step"]


def test_a_second_signal_does_not_change_the_exit_status(
    mosquitto: Mosquitto, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon(*FAST, port=mosquitto.port)
    daemon.wait_log("started")
    daemon.process.send_signal(signal.SIGINT)
    for event in ("stopping", "stopped"):
        daemon.wait_log(event)
        daemon.process.send_signal(signal.SIGINT)
    assert daemon.wait() == 0


def test_it_lives_on_when_its_log_can_not_be_written(
    mosquitto: Mosquitto, listen: Listen, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    listener = listen(mosquitto.port)
    daemon = start_daemon(*FAST, port=mosquitto.port, log=Path("/dev/full"))
    listener.wait("telemetry", count=2)
    daemon.process.send_signal(signal.SIGHUP)
    seen = len(listener.named("telemetry"))
    listener.wait("telemetry", count=seen + 5)
    assert daemon.end() == 0
    assert newest_checkpoint(tmp_path / "state")["engine"]["step"] > 0


def test_a_killed_broker_is_found_again_and_told_everything(
    mosquitto: Mosquitto, listen: Listen, start_daemon: StartDaemon
) -> None:
    before = listen(mosquitto.port)
    daemon = start_daemon(*FAST, port=mosquitto.port)
    before.wait("telemetry", count=3)
    mosquitto.stop(signal.SIGKILL)
    daemon.wait_log("mqtt_unavailable")
    ticks = before.named("telemetry")[-1].json["sequence"]
    wait_for(lambda: time.monotonic() - before.named("telemetry")[-1].at_s > 3.0, "three seconds of outage")
    mosquitto.start()
    back = time.monotonic()
    after = listen(mosquitto.port)
    for name in ("status", "info", "state", "health", "fault", "telemetry"):
        after.wait(name)
    assert time.monotonic() - back < 10.0
    assert after.status() == "online"
    assert after.named("telemetry")[0].json["sequence"] > ticks + 20
    assert daemon.process.poll() is None
    health = after.wait("health", lambda heard: heard.json["mqtt"]["connections"] == 2)
    assert health.json["mqtt"]["dropped"] > 0


def test_an_outage_is_logged_once_and_not_at_every_attempt(
    mosquitto: Mosquitto, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon(*FAST, port=mosquitto.port)
    daemon.wait_log("mqtt_connected")
    mosquitto.stop(signal.SIGKILL)
    daemon.wait_log("mqtt_unavailable")
    begin = time.monotonic()
    wait_for(lambda: time.monotonic() - begin > 3.0, "three seconds of attempts")
    mosquitto.start()
    daemon.wait_log("mqtt_connected", count=2)
    # The connection is lost, then refused: two different troubles at most.
    assert len(daemon.logged("mqtt_unavailable")) <= 2


def test_a_broker_that_is_down_at_start_is_waited_for(
    start_mosquitto: StartBroker, listen: Listen, start_daemon: StartDaemon
) -> None:
    broker = start_mosquitto()
    broker.stop()
    daemon = start_daemon(*FAST, port=broker.port)
    daemon.wait_log("mqtt_unavailable")
    daemon.wait_log("started")
    broker.start()
    assert listen(broker.port).wait("telemetry").json["node"] == "lab"


def test_without_a_broker_sigterm_still_ends_within_5_s(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(*FAST, port=free_port())
    daemon.wait_log("mqtt_unavailable")
    begin = time.monotonic()
    assert daemon.end() == 0
    assert time.monotonic() - begin < 5.0


def test_with_no_broker_set_one_is_embedded_and_can_be_listened_to(
    start_daemon: StartDaemon, listen: Listen
) -> None:
    port = free_port()
    daemon = start_daemon(*FAST, "--mqtt.port", str(port))
    assert f"-p {port}" in daemon.wait_log("started")["subscribe"]
    listener = listen(port)
    listener.wait("telemetry", count=3)
    assert listener.status() == "online"
    assert daemon.end() == 0


def test_a_busy_port_is_named_and_never_another_taken(
    mosquitto: Mosquitto, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon("--mqtt.port", str(mosquitto.port))
    assert daemon.wait() == 1
    assert f"127.0.0.1:{mosquitto.port} is taken by" in daemon.lines[-1]
    assert "mqtt.host" in daemon.lines[-1]


def test_a_second_daemon_on_one_state_directory_exits_3_and_names_the_first(
    mosquitto: Mosquitto, start_daemon: StartDaemon
) -> None:
    first = start_daemon(port=mosquitto.port)
    first.wait_log("started")
    second = start_daemon("--node", "other", port=mosquitto.port)
    assert second.wait() == 3
    assert f"process {first.process.pid}" in second.lines[-1]


def test_a_checkpoint_of_another_network_exits_2_and_fresh_starts_anew(
    mosquitto: Mosquitto, start_daemon: StartDaemon
) -> None:
    first = start_daemon(*FAST, port=mosquitto.port)
    first.wait_log("started")
    assert first.end() == 0
    second = start_daemon("--engine.lif_neurons", "16", port=mosquitto.port)
    assert second.wait() == 2
    assert "lif_neurons 8" in second.lines[-1]
    assert "lif_neurons 16" in second.lines[-1]
    assert "--fresh" in second.lines[-1]
    third = start_daemon("--fresh", "--engine.lif_neurons", "16", port=mosquitto.port)
    assert third.wait_log("started")["step"] == 20
    assert third.wait_log("checkpoint_set_aside")


def test_a_whole_checkpoint_that_does_not_fit_exits_2_and_names_it(
    mosquitto: Mosquitto, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    first = start_daemon(*FAST, port=mosquitto.port)
    first.wait_log("started")
    assert first.end() == 0
    path = max((tmp_path / "state").glob("checkpoint-*.json"))
    header, state = decode(path, path.read_bytes())
    del state["rewards"]
    path.write_bytes(encode(header, state))
    second = start_daemon(*FAST, port=mosquitto.port)
    assert second.wait() == 2
    assert str(path) in second.lines[-1]
    assert "--fresh" in second.lines[-1]
    assert "Traceback" not in "\n".join(second.lines)


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_used(
    mosquitto: Mosquitto, listen: Listen, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    listener = listen(mosquitto.port)
    first = start_daemon(*FAST, "--checkpoint.interval_s", "0.2", port=mosquitto.port)
    listener.wait("health", lambda heard: heard.json["checkpoint"]["written"] > 0)
    assert first.end() == 0
    older, newest = sorted((tmp_path / "state").glob("checkpoint-*.json"))[-2:]
    newest.write_bytes(newest.read_bytes()[:-100])
    second = start_daemon(*FAST, port=mosquitto.port)
    assert second.wait_log("resumed")["checkpoint"] == str(older)
    assert second.wait_log("checkpoint_damaged")["path"] == str(newest)


def test_sighup_takes_over_what_it_may_and_names_the_rest(
    mosquitto: Mosquitto, listen: Listen, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    file = tmp_path / "neuromodd.toml"
    file.write_text("[tick]\ninterval_s = 0.5\n")
    listener = listen(mosquitto.port)
    daemon = start_daemon("--config", str(file), port=mosquitto.port)
    daemon.wait_log("started")
    file.write_text("[tick]\ninterval_s = 0.1\n[engine]\nsteps_per_tick = 5\n")
    daemon.process.send_signal(signal.SIGHUP)
    reloaded = daemon.wait_log("reloaded")
    assert reloaded["taken"] == ["tick.interval_s"]
    assert reloaded["needs_restart"] == ["engine.steps_per_tick"]
    listener.wait("info", lambda heard: heard.json["interval_s"] == 0.1)
    listener.wait("telemetry", lambda heard: (heard.json["interval_s"] or 1.0) < 0.2, count=3)


def test_sighup_with_a_broken_file_changes_nothing_and_lists_the_faults(
    mosquitto: Mosquitto, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    file = tmp_path / "neuromodd.toml"
    file.write_text("")
    daemon = start_daemon("--config", str(file), port=mosquitto.port)
    daemon.wait_log("started")
    file.write_text("[tick]\ninterval_s = -1\n")
    daemon.process.send_signal(signal.SIGHUP)
    assert "tick.interval_s" in daemon.wait_log("reload_refused")["faults"][0]
    assert daemon.end() == 0


def test_a_wrong_password_is_one_clear_line_that_does_not_show_it(
    start_mosquitto: StartBroker, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    passwords = tmp_path / "passwords"
    passwords.write_text("")
    passwords.chmod(0o600)
    broker = start_mosquitto(["allow_anonymous false", f"password_file {passwords}"])
    secret = "open-sesame"  # noqa: S105 - the claim is about this word
    daemon = start_daemon(
        "--mqtt.username", "lab", port=broker.port, environ={"NEUROMODD_MQTT__PASSWORD": secret}
    )
    refused = daemon.wait_log("mqtt_unavailable")
    assert "refused" in refused["error"]
    assert daemon.end() == 0
    assert len(daemon.logged("mqtt_unavailable")) == 1
    assert not [line for line in daemon.lines if secret in line]


def test_configuration_faults_are_all_listed_with_status_2_and_no_traceback(
    start_daemon: StartDaemon,
) -> None:
    daemon = start_daemon(
        "--tick.interval_s", "0", "--mqtt.port", "99999", environ={"NEUROMODD_LOG__LEVLE": "info"}
    )
    assert daemon.wait() == 2
    text = "\n".join(daemon.lines)
    assert "tick.interval_s" in text
    assert "mqtt.port" in text
    assert "NEUROMODD_LOG__LEVEL" in text
    assert "Traceback" not in text


def test_health_has_no_trouble_any_more_soon_after_a_reconnect(
    mosquitto: Mosquitto, listen: Listen, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon("--tick.interval_s", "0.1", "--mqtt.health_interval_s", "3600", port=mosquitto.port)
    daemon.wait_log("mqtt_connected")
    mosquitto.stop(signal.SIGKILL)
    daemon.wait_log("mqtt_unavailable")
    mosquitto.start()
    daemon.wait_log("mqtt_connected", count=2)
    listener = listen(mosquitto.port)
    health = listener.wait("health", lambda heard: heard.json["mqtt"]["error"] is None)
    assert health.json["mqtt"]["connected"] is True
