"""A daemon on a machine whose sensors fail in turn, with a broker that is killed, looked at from outside."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from measuring import Broker, Heard, Subscriber, usage, wait_for
from troubled import TROUBLES, Trouble, TroubledMachine

LOOKS = 9
BEAT_S = 0.1
NODE = "soak"


class Plan(NamedTuple):
    """One run: how long, how fast, and how often something goes wrong; seconds are those of the world."""

    name: str
    program: tuple[str, ...]
    interval_s: float
    ticks: int
    warm_up_ticks: int
    trouble_s: float
    rest_s: float
    outage_every_s: float
    outage_s: float
    settle_s: float


class State(NamedTuple):
    """The daemon as seen from outside, in peace."""

    resident_bytes: int
    descriptors: int
    threads: int


class Outcome(NamedTuple):
    """What an ordeal came to.

    Attributes:
        seconds: how long it took.
        warm_up_ticks: after which the first look was taken.
        before: that look.
        after: that at the end.
        health: as it was at the end.
        quarters_bytes: the highest resident memory in each quarter of what came after the warm-up.
        state_bytes: the state directory at its largest.
        telemetry: frames that were heard.
        rewards: how many were sent and how many were heard, with those that the daemon found itself.
        outages: how often the broker was killed.
        troubles: how often something failed.
        status: with which the daemon ended when it was told to.
        log: its own.
    """

    seconds: float
    warm_up_ticks: int
    before: State
    after: State
    health: dict[str, Any]
    quarters_bytes: list[int]
    state_bytes: int
    telemetry: int
    rewards: tuple[int, int]
    outages: int
    troubles: int
    status: int
    log: str


class Ordeal:
    """A daemon with all that befalls it."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._machine = TroubledMachine(folder)
        self._state_directory = folder / "state"
        self._log = folder / "log"
        self._broker = Broker(folder)
        self._broker_is_up = True
        self._health: dict[str, Any] = {}
        self._telemetry = self._rewards_heard = 0
        self._outages = self._troubles = self._rewards_sent = 0
        self._state_bytes = 0
        self._resident: list[tuple[int, int]] = []
        self._subscriber = Subscriber(self._broker.port, keep=False, also=self._hear)
        command = [sys.executable, *plan.program, "run", "--node", NODE, "--mqtt.host", "127.0.0.1"]
        command += ["--mqtt.port", str(self._broker.port), "--mqtt.inbound.enabled", "true"]
        command += ["--mqtt.health_interval_s", "1", "--tick.interval_s", str(plan.interval_s)]
        command += ["--checkpoint.directory", str(self._state_directory), "--sensors.deadline_s", "0.3"]
        command += ["--recorder.enabled", "true", "--recorder.rotate_bytes", str(4 * 2**20)]
        command += ["--recorder.max_bytes", str(8 * 2**20), "--log.level", "warning"]
        with self._log.open("wb") as log:
            self._daemon = subprocess.Popen(
                [*command, *self._machine.options], env=self._machine.environ, stderr=log
            )

    def _hear(self, heard: Heard) -> None:
        if heard.topic.endswith("/telemetry"):
            self._telemetry += 1
        elif heard.topic.endswith("/reward") and not heard.topic.endswith("/in/reward"):
            self._rewards_heard += 1
        elif heard.topic.endswith("/health"):
            self._health = json.loads(heard.payload)

    def live(self) -> Outcome:
        """Warm up, look, go on, look again."""
        began_s = time.monotonic()
        try:
            wait_for(lambda: self._ticks > 2, "the first health")
            healthy = self._sensor_states()
            self._suffer(self._plan.warm_up_ticks, at_least=len(TROUBLES))
            before = self._look_in_peace(healthy)
            warm_ticks = self._ticks
            self._suffer(self._plan.ticks)
            after = self._look_in_peace(healthy)
        finally:
            self._daemon.terminate()
            status = self._daemon.wait()
            self._subscriber.close()
            self._broker.stop()
        return Outcome(
            seconds=time.monotonic() - began_s,
            warm_up_ticks=warm_ticks,
            before=before,
            after=after,
            health=self._health,
            quarters_bytes=self._quarters_bytes(warm_ticks),
            state_bytes=self._state_bytes,
            telemetry=self._telemetry,
            rewards=(self._rewards_sent, self._rewards_heard),
            outages=self._outages,
            troubles=self._troubles,
            status=status,
            log=self._log.read_text(errors="replace"),
        )

    def _quarters_bytes(self, since: int) -> list[int]:
        """The highest resident memory in each quarter of the time after a tick."""
        length = (self._ticks - since) / 4 or 1.0
        highest = [0, 0, 0, 0]
        for ticks, resident in self._resident:
            if ticks > since:
                quarter = min(int((ticks - since) / length), 3)
                highest[quarter] = max(highest[quarter], resident)
        return highest

    @property
    def _ticks(self) -> int:
        return int(self._health["ticks"]["count"]) if self._health else 0

    def _sensor_states(self) -> dict[str, str]:
        return {name: of["state"] for name, of in self._health["sensors"].items()}

    def _suffer(self, ticks: int, *, at_least: int = 0) -> None:
        """Let things go wrong until there are so many ticks, and troubles; then repair everything."""
        plan = self._plan
        trouble: Trouble | None = None
        goal, outages = self._troubles + at_least, self._outages + 1
        now_s = time.monotonic()
        turn_s, broker_s = now_s + plan.rest_s, now_s + plan.outage_every_s
        while self._ticks < ticks or self._troubles < goal or self._outages < outages:
            self._beat()
            now_s = time.monotonic()
            if now_s >= broker_s:
                self._turn_broker()
                broker_s = now_s + (plan.outage_every_s if self._broker_is_up else plan.outage_s)
            if now_s >= turn_s:
                trouble = self._turn(trouble)
                turn_s = now_s + (plan.rest_s if trouble is None else plan.trouble_s)
        if trouble is not None:
            self._turn(trouble)
        if not self._broker_is_up:
            self._turn_broker()

    def _turn(self, trouble: Trouble | None) -> Trouble | None:
        if trouble is not None:
            self._machine.relieve(trouble)
            return None
        trouble = TROUBLES[self._troubles % len(TROUBLES)]
        self._troubles += 1
        self._machine.begin(trouble)
        return trouble

    def _turn_broker(self) -> None:
        if self._broker_is_up:
            self._broker.kill()
            self._outages += 1
        else:
            self._broker.start()
        self._broker_is_up = not self._broker_is_up

    def _beat(self) -> None:
        if self._daemon.poll() is not None:
            sys.exit(f"the daemon ended with {self._daemon.returncode}: {self._log.read_text()[-2000:]}")
        self._machine.move()
        if self._broker_is_up:
            self._rewards_sent += 1
            event = {"kind": "WorkAccepted", "latency_ms": 12.0, "units": 1.0, "source": "soak"}
            self._subscriber.client.publish(f"neuromodd/{NODE}/in/reward", json.dumps(event), qos=1)
        self._state_bytes = max(self._state_bytes, _size(self._state_directory))
        self._resident.append((self._ticks, usage(self._daemon.pid).resident_bytes))
        time.sleep(BEAT_S)

    def _look_in_peace(self, healthy: dict[str, str]) -> State:
        def is_well() -> bool:
            self._beat()
            return bool(self._health["mqtt"]["connected"]) and self._sensor_states() == healthy

        self._health["mqtt"]["connected"] = False
        # An absent sensor is looked for once a minute.
        wait_for(is_well, "health as at the start", 150.0)
        self._for_s(self._plan.settle_s)
        looks = []
        for _ in range(LOOKS):
            self._for_s(0.3)
            process = usage(self._daemon.pid)
            descriptors = len(list(Path(f"/proc/{self._daemon.pid}/fd").iterdir()))
            looks.append((process.resident_bytes, descriptors, process.threads))
        # A checkpoint that is being written is a descriptor for some milliseconds.
        return State(*(int(statistics.median(of)) for of in zip(*looks, strict=True)))

    def _for_s(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            self._beat()


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            # A checkpoint that has just given way to a newer one.
            continue
    return total
