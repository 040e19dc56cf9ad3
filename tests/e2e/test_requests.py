"""What others ask of a real daemon over a real broker: rewards, work, commands; and `neuromodd reward`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, Heard, Listener, Mosquitto, wait_for

StartDaemon = Callable[..., Daemon]
Listen = Callable[..., Listener]

FAST = ("--tick.interval_s", "0.1", "--mqtt.health_interval_s", "1")
OPEN = ("--mqtt.inbound.enabled", "true")


class Scene:
    """A daemon that listens, a broker, and somebody who asks."""

    def __init__(self, port: int, start: StartDaemon, listener: Listener) -> None:
        self.port = port
        self.listener = listener
        self._start = start
        self.daemon = self.start()

    def start(self, *more: str) -> Daemon:
        self.daemon = self._start(*FAST, *OPEN, *more, port=self.port)
        self.daemon.wait_log("mqtt_connected")
        return self.daemon

    def ask(self, name: str, **values: Any) -> dict[str, Any]:
        """What the daemon answers."""
        heard = len(self.listener.named("response/asker"))
        self.listener.ask(
            f"neuromodd/lab/{name}", json.dumps(values).encode(), answer="neuromodd/lab/response/asker"
        )
        found: dict[str, Any] = self.listener.wait("response/asker", count=heard + 1).json
        return found


@pytest.fixture
def scene(mosquitto: Mosquitto, start_daemon: StartDaemon, listen: Listen) -> Scene:
    listener = listen(mosquitto.port, newest=True)
    scene = Scene(mosquitto.port, start_daemon, listener)
    listener.wait("telemetry", count=2)
    return scene


def test_a_reward_from_outside_is_applied_and_goes_out_with_its_id(scene: Scene) -> None:
    scene.ask("in/reward", kind="BreakthroughFound", metric="loss", value=0.1, id="mine")
    reward = scene.listener.wait("reward", lambda heard: heard.json["id"] == "mine").json
    assert (reward["origin"], reward["metric"], reward["node"]) == ("external", "loss", "lab")
    scene.listener.wait("state", lambda heard: heard.json["modulators"]["phasic"]["dopamine"] > 0.9)


def test_a_reward_keeps_the_time_at_which_it_happened(scene: Scene) -> None:
    scene.ask("in/reward", kind="WorkAccepted", id="mine", time_utc="2026-01-02T03:04:05Z")
    reward = scene.listener.wait("reward", lambda heard: heard.json["id"] == "mine").json
    assert reward["time_utc"] == "2026-01-02T03:04:05Z"


def test_a_reward_that_is_sent_twice_is_applied_once(scene: Scene) -> None:
    for _ in range(2):
        scene.ask("in/reward", kind="WorkAccepted", id="mine")
    scene.ask("in/reward", kind="WorkAccepted", id="after")
    scene.listener.wait("reward", lambda heard: heard.json["id"] == "after")
    assert [heard.json["id"] for heard in scene.listener.named("reward")] == ["mine", "after"]


def test_a_reward_waits_at_the_broker_while_the_daemon_is_away(scene: Scene) -> None:
    assert scene.daemon.end() == 0
    scene.listener.ask("neuromodd/lab/in/reward", b'{"kind": "WorkAccepted", "id": "meanwhile"}')
    scene.start()
    scene.listener.wait("reward", lambda heard: heard.json["id"] == "meanwhile")


def test_a_command_does_not_wait_for_the_daemon(scene: Scene) -> None:
    scene.listener.wait("telemetry", count=3)
    assert scene.daemon.end() == 0
    scene.listener.ask("neuromodd/lab/in/command", b'{"command": "reset"}')
    daemon = scene.start()
    scene.ask("in/command", command="identify")
    assert [entry["command"] for entry in daemon.logged("command")] == ["identify"]


def test_a_retained_command_is_ignored(scene: Scene) -> None:
    assert scene.daemon.end() == 0
    scene.listener.ask("neuromodd/lab/in/command", b'{"command": "identify"}', retain=True)
    daemon = scene.start()
    scene.listener.wait(
        "health", lambda heard: heard.json["mqtt"]["inbound"] == {"taken": 0, "refused": {"retained": 1}}
    )
    assert daemon.logged("command") == []


def test_reported_work_goes_into_frames_and_dopamine(scene: Scene) -> None:
    scene.ask("in/work", rate=8.0, target=10.0, source="trainer")
    tick = scene.listener.wait("telemetry", lambda heard: '"trainer"' in heard.payload.decode()).json
    state = scene.listener.wait("state", lambda heard: heard.json["sequence"] >= tick["sequence"]).json
    assert (tick["work"]["rate"], tick["work"]["target"]) == (8.0, 10.0)
    assert state["modulators"]["tonic"]["dopamine"] == pytest.approx(0.8)


def test_a_checkpoint_can_be_asked_for(scene: Scene, tmp_path: Path) -> None:
    step = scene.ask("in/command", command="checkpoint")["result"]["step"]
    assert (tmp_path / "state" / f"checkpoint-{step:016d}.json").exists()


def test_a_tick_can_be_asked_for_between_two_of_the_grid(scene: Scene) -> None:
    scene.ask("in/command", command="set-interval", interval_s=60.0)
    frames = len(scene.listener.named("telemetry"))
    reply = wait_for(
        lambda: (reply := scene.ask("in/command", command="sample-now"))["ok"] and reply,
        "a tick 0.05 s after the last",
    )
    extra = scene.listener.wait(
        "telemetry", lambda heard: heard.json["sequence"] == reply["result"]["sequence"]
    )
    assert len(scene.listener.named("telemetry")) <= frames + 2
    assert extra.json["lateness_ms"] is None


def test_another_interval_is_kept_and_told(scene: Scene) -> None:
    scene.ask("in/command", command="set-interval", interval_s=0.5)
    scene.listener.wait("info", lambda heard: heard.json["interval_s"] == 0.5)
    seen = len(scene.listener.named("telemetry"))
    frame = scene.listener.wait("telemetry", count=seen + 3).json
    assert frame["interval_s"] == pytest.approx(0.5, abs=0.2)


def test_a_shorter_interval_is_no_gap(scene: Scene) -> None:
    scene.ask("in/command", command="set-interval", interval_s=1.0)
    seen = len(scene.listener.named("telemetry"))
    scene.listener.wait("telemetry", count=seen + 1)
    scene.ask("in/command", command="set-interval", interval_s=0.05)
    scene.listener.wait("telemetry", count=seen + 4)
    assert [heard.json["gap"] for heard in scene.listener.named("telemetry")[seen:]].count(True) == 0


def test_a_live_command_that_the_broker_is_to_keep_is_ignored_too(scene: Scene) -> None:
    scene.listener.ask("neuromodd/lab/in/command", b'{"command": "reset"}', retain=True)
    scene.listener.wait("health", lambda heard: heard.json["mqtt"]["inbound"]["refused"].get("retained") == 1)
    assert scene.daemon.logged("command") == []


def test_a_reset_begins_anew_and_keeps_the_old_checkpoints_aside(scene: Scene, tmp_path: Path) -> None:
    scene.listener.wait("state", lambda heard: heard.json["step"] >= 200)
    scene.ask("in/command", command="checkpoint")
    result = scene.ask("in/command", command="reset")["result"]
    first = scene.listener.wait(
        "state", lambda heard: heard.json["step"] <= 40 and heard.json["sequence"] > 9
    )
    aside = list((tmp_path / "state").glob("checkpoint-*.reset"))
    assert (result["checkpoints_set_aside"], len(aside)) == (1, 1)
    assert first.json["modulators"]["phasic"]["dopamine"] == 0.0


def test_after_a_reset_a_restart_goes_on_from_the_new_beginning(scene: Scene) -> None:
    scene.listener.wait("state", lambda heard: heard.json["step"] >= 200)
    scene.ask("in/command", command="checkpoint")
    scene.ask("in/command", command="reset")
    scene.listener.wait("state", lambda heard: heard.json["step"] < 100 < 10 * heard.json["sequence"])
    assert scene.daemon.end() == 0
    last = scene.listener.named("state")[-1].json
    again = scene.start().wait_log("resumed")
    assert (again["step"], last["step"] < 200) == (last["step"], True)


def test_a_daemon_that_does_not_listen_does_nothing(
    mosquitto: Mosquitto, start_daemon: StartDaemon, listen: Listen
) -> None:
    listener = listen(mosquitto.port, newest=True)
    daemon = start_daemon(*FAST, port=mosquitto.port)
    listener.wait("telemetry")
    listener.ask("neuromodd/lab/in/reward", b'{"kind": "WorkAccepted"}')
    listener.ask("neuromodd/lab/in/command", b'{"command": "identify"}', answer="neuromodd/lab/response/x")
    seen = len(listener.named("telemetry"))
    listener.wait("telemetry", count=seen + 3)
    assert listener.named("health")[-1].json["mqtt"]["inbound"] is None
    assert (listener.named("reward"), listener.named("response/x"), daemon.logged("command")) == ([], [], [])


# From a shell


def neuromodd(*arguments: str, port: int) -> subprocess.CompletedProcess[str]:
    broker = ["--mqtt.host", "127.0.0.1", "--mqtt.port", str(port)]
    return subprocess.run(
        [sys.executable, "-m", "neuromodd", *arguments, *broker],
        capture_output=True,
        text=True,
        check=False,
        timeout=30.0,
        env={"XDG_CONFIG_HOME": "/nonexistent"},
    )


def test_a_shell_script_rewards_its_host(scene: Scene) -> None:
    done = neuromodd("reward", "work-accepted", "--latency-ms", "12", "--to", "lab", port=scene.port)
    reward: Heard = scene.listener.wait("reward")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, reward.json["id"], "")
    assert (reward.json["kind"], reward.json["latency_ms"]) == ("WorkAccepted", 12.0)


def test_where_nobody_listens_a_shell_script_is_told(mosquitto: Mosquitto) -> None:
    done = neuromodd("reward", "work-accepted", "--to", "lab", port=mosquitto.port)
    assert (done.returncode, done.stdout) == (1, "")
    assert "nobody listens to neuromodd/lab/in/reward" in done.stderr


def test_a_reward_that_makes_no_sense_is_not_sent(mosquitto: Mosquitto) -> None:
    done = neuromodd("reward", "work-accepted", "--metric", "loss", "--to", "lab", port=mosquitto.port)
    assert (done.returncode, done.stdout) == (2, "")
    assert "metric: got 'loss', expected no such field" in done.stderr


def test_the_training_loop_of_the_examples_rewards_its_host(scene: Scene) -> None:
    script = Path(__file__).parent.parent.parent / "examples" / "train_loop.py"
    done = subprocess.run(
        [sys.executable, script, "127.0.0.1", str(scene.port), "lab"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60.0,
    )
    bests = done.stdout.count("the best so far")
    scene.listener.wait("reward", lambda heard: heard.json["kind"] == "WorkAccepted", count=20)
    scene.listener.wait("reward", lambda heard: heard.json["kind"] == "BreakthroughFound", count=bests)
    assert bests > 1
