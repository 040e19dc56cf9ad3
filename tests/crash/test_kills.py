"""Kills at any moment: each start finds a whole checkpoint, as new as can be, and goes on from it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from failing_disk import FailingDisk
from harness import Daemon, Listener, Mosquitto, wait_for

from neuromodd.sinks.checkpoint import CheckpointStore
from neuromodd.sinks.checkpoint_file import read_checkpoint

StartDaemon = Callable[..., Daemon]

DIMENSIONS = {"channels": 8, "lif_neurons": 8, "izhikevich_neurons": 5}

# A process that starts the writers, so that each takes no second to begin.
WRITERS = """
import hashlib, json, os, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from neuromodd.core.brain import Brain
from neuromodd.core.frame import CpuSample, TelemetryFrame
from neuromodd.sinks.checkpoint import CheckpointStore

BEGIN = datetime(2024, 5, 1, tzinfo=UTC)
store = CheckpointStore(Path(sys.argv[1]), keep=3)

def say(*words):
    os.write(1, (" ".join(map(str, words)) + chr(10)).encode())

def live(brain):
    dimensions = brain.parameters.engine.dimensions
    restored = store.newest(dimensions)
    if restored is not None:
        brain.restore(restored.state)
    say("start", os.getpid(), brain.engine.step_count)
    while True:
        second = brain.sequence
        brain.step(TelemetryFrame(
            node="lab", sequence=second, time_utc=BEGIN + timedelta(seconds=second), interval_s=1.0,
            monotonic_s=float(second), boot_id="boot", cpu=CpuSample(utilization_ratio=second % 10 / 10),
        ))
        state, step = brain.state(), brain.engine.step_count
        say("writes", step, hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest())
        store.write(state, step=step, dimensions=dimensions, created_utc="")
        say("wrote", step)

brain = Brain(compiled=False)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        live(brain)
    os.waitpid(child, 0)
    say("ended")
"""


def digest(state: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def test_of_300_writers_killed_at_any_moment_each_leaves_what_the_next_goes_on_from(
    disk: FailingDisk,
) -> None:
    rng = random.Random(11)  # noqa: S311 - when to kill, no secret
    disk.directory.mkdir()
    store = CheckpointStore(disk.directory, keep=3)
    written: dict[int, str] = {}
    step = 0
    found = {"the one that was being written": 0, "the one before": 0}
    with subprocess.Popen(
        [sys.executable, "-c", WRITERS, str(disk.directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, **disk.environ},
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        for number in range(300):
            # In turns at a moment and at a call: half a write is too short a time to be met by chance.
            timed = number % 2 == 0
            disk.kill_at(0 if timed else rng.randrange(1, 30))
            parent.stdin.write("\n")
            parent.stdin.flush()
            begun = wrote = step
            killer = None
            for line in parent.stdout:
                word, *values = line.split()
                if word == "ended":
                    break
                if word == "start":
                    assert int(values[1]) == step
                    if timed:
                        at_s, pid = rng.uniform(0.0, 0.012), int(values[0])
                        killer = threading.Timer(at_s, os.kill, (pid, signal.SIGKILL))
                        killer.start()
                elif word == "writes":
                    begun = int(values[0])
                    assert begun == wrote + 20
                    written[begun] = values[1]
                else:
                    wrote = int(values[0])
            if killer is not None:
                killer.join()
            restored = store.newest(DIMENSIONS)
            step = 0 if restored is None else int(restored.state["engine"]["step"])
            assert step in (wrote, begun)
            assert restored is None or digest(restored.state) == written[step]
            if begun > wrote:
                found["the one that was being written" if step == begun else "the one before"] += 1
        parent.stdin.close()
    left = {path.name for path in disk.directory.iterdir()} - {"checkpoint.draft"}
    assert left == {path.name for path in store.paths()}
    # Kills fell into the writes, and to both sides of the moment when one counts.
    assert min(found.values()) >= 5, found
    assert sum(found.values()) > 100, found


def instant_ms(identity: str) -> int:
    """When the tick of a reward was: its uuid7 begins with it."""
    return uuid.UUID(identity).int >> 80


class Lives:
    """One state directory, a daemon after another on it, and the rewards that are to come out."""

    def __init__(self, node: str, state: Path, listener: Listener, start: Callable[..., Daemon]) -> None:
        self._node = node
        self._state = state
        self._listener = listener
        self._start = start
        self.step = 0
        self.due: set[str] = set()
        self.lags: list[int] = []

    def heard(self, name: str) -> list[Any]:
        return [of.json for of in list(self._listener.heard) if of.topic == f"neuromodd/{self._node}/{name}"]

    def begin(self) -> Daemon:
        """Start one, and check from where it goes on."""
        daemon = self._start(
            *("--node", self._node, "--checkpoint.directory", str(self._state)),
            *("--tick.interval_s", "0.05", "--checkpoint.interval_s", "0.05"),
            # A reward with each tick in which a processor did anything.
            *("--rewards.work_units", "1e-9"),
        )
        if self.step:
            assert daemon.wait_log("resumed")["step"] == self.step
        assert daemon.wait_log("started")["step"] == self.step + 20
        return daemon

    def live(
        self, delay_s: float, *, oldest_ticks: int = 20, meanwhile: Callable[[], None] = lambda: None
    ) -> None:
        """Start one, and kill it some time after its first ticks; see what it left."""
        before = len(self.heard("state"))
        daemon = self.begin()
        wait_for(lambda: len(self.heard("state")) > before + 2, "states")
        meanwhile()
        threading.Event().wait(delay_s)
        assert daemon.end(signal.SIGKILL) == -signal.SIGKILL
        last = max(state["step"] for state in self.heard("state"))
        _, state = read_checkpoint(max(self._state.glob("checkpoint-*.json")))
        # A checkpoint with every tick, but for those during a write: a busy machine's may take half a second.
        self.lags.append((last - state["engine"]["step"]) // 20)
        assert self.lags[-1] <= oldest_ticks
        assert state["engine"]["step"] >= self.step
        assert daemon.logged("checkpoint_damaged") == []
        self.step = state["engine"]["step"]
        known_ms = datetime.fromisoformat(state["last"]["time_utc"]).timestamp() * 1000.0
        logged = {entry["id"] for entry in daemon.logged("reward")}
        self.due |= {identity for identity in logged if instant_ms(identity) <= known_ms}
        daemon.close()

    def missing(self) -> set[str]:
        """Rewards that a checkpoint knows as given, and nobody has heard of."""
        return self.due - {reward["id"] for reward in self.heard("reward")}


@pytest.mark.parametrize(
    "kills", [15, pytest.param(300, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])]
)
def test_a_daemon_that_is_killed_again_and_again_goes_on_and_loses_no_reward(
    mosquitto: Mosquitto,
    start_daemon: StartDaemon,
    listen: Callable[..., Listener],
    tmp_path: Path,
    kills: int,
) -> None:
    start = partial(start_daemon, port=mosquitto.port)
    listener = listen(mosquitto.port)
    three = [Lives(node, tmp_path / node, listener, start) for node in ("a", "b", "c")]

    def live(lives: Lives) -> None:
        rng = random.Random(lives._node)  # noqa: S311 - when to kill, no secret
        for _ in range(kills // 3):
            lives.live(rng.uniform(0.0, 0.15))
        # Each gets somewhere in the end: a kill may come before the first checkpoint is whole.
        while lives.step <= 20 * (kills // 3) or len(lives.due) <= kills // 3:
            lives.live(rng.uniform(0.0, 0.15))
        lives.begin()
        wait_for(lambda: not lives.missing(), "the rewards")

    # Side by side, since each waits most of the time.
    with ThreadPoolExecutor() as pool:
        list(pool.map(live, three))
    # As a rule it is that of a tick or two before.
    assert statistics.median(lag for lives in three for lag in lives.lags) <= 4


def test_a_checkpoint_is_not_written_before_the_rewards_that_it_knows_as_given(
    mosquitto: Mosquitto, start_daemon: StartDaemon, listen: Callable[..., Listener], disk: FailingDisk
) -> None:
    start = partial(start_daemon, port=mosquitto.port, environ=disk.environ)
    lives = Lives("lab", disk.directory, listen(mosquitto.port), start)
    # A slow machine comes to fewer rewards in a life, and none would show nothing.
    while len(lives.due) <= 5:
        # Each commit of the outbox takes a third of a second: a checkpoint would be far ahead of it.
        lives.live(1.0, oldest_ticks=100, meanwhile=lambda: disk.fail(0, "z"))
        disk.heal()
    lives.begin()
    wait_for(lambda: not lives.missing(), "the rewards")
