"""Whether the daemon lasts: a day of ticks one after the other, then ten minutes at 20 Hz in real time.

    python benchmarks/soak.py [--ticks 86400] [--seconds 600] [--quick]

Both daemons read a machine of files whose sensors fail in turn (troubled.py), publish to a private mosquitto
that is killed every so often, record, keep checkpoints and take rewards. The first is that of fastforward.py,
in which a tick is a second later than the last but waits for nothing; the second is `neuromodd run`.

The first part of each run is a warm-up, in which every trouble has been there once and every window is full:
the longest are 600 ticks (lateness) and 5 checkpoints. Of the day it is the first four hours: after some two
the interpreter's table of names doubles, once, by 0.96 MB. Then all troubles rest until `health` is as at the
start, and the process is looked at through /proc; and again at the end. Prints a Markdown table; exits with 1
if a bound is broken. About 6 and 11 minutes; with --quick a bit over one for both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from measuring import Broker, Heard, Subscriber, machine_line, megabytes, print_table, usage, wait_for
from troubled import TROUBLES, Trouble, TroubledMachine

GROWTH_BYTES = 1_000_000
STATE_BYTES = 16 * 2**20
"""Twice 4 MiB of recordings, the checkpoints, the outbox; far more than these take, far less than a leak."""

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


class Verdict(NamedTuple):
    """What was measured, its bound, and whether it held."""

    what: str
    figure: str
    bound: str
    held: bool


class Run:
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
        self.outages = self.troubles = self.rewards_sent = 0
        self.state_bytes = 0
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

    def live(self) -> list[Verdict]:
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
            health = self._health
        finally:
            self._daemon.terminate()
            status = self._daemon.wait()
            self._subscriber.close()
            self._broker.stop()
        took = f"{warm_ticks} ticks of warm-up, {health['ticks']['count']} in all"
        return [
            Verdict("ran for", f"{time.monotonic() - began_s:.0f} s; {took}", "", held=True),
            *self._verdicts(before, after, health),
            Verdict("resident in the quarters after warm-up", self._quarters(warm_ticks), "", held=True),
            Verdict("exit status on SIGTERM", str(status), "0", status == 0),
        ]

    def _verdicts(self, before: State, after: State, health: dict[str, Any]) -> list[Verdict]:
        growth = after.resident_bytes - before.resident_bytes
        failed = {name: of["failures"] for name, of in health["sensors"].items() if of["failures"]}
        reconnected = health["mqtt"]["connections"] - 1
        errors = {
            part: error for part in ("mqtt", "checkpoint", "recorder") if (error := health[part]["error"])
        }
        tracebacks = self._log.read_text(errors="replace").count("Traceback")
        return [
            Verdict("telemetry heard", str(self._telemetry), "", held=True),
            Verdict("rewards sent and heard", f"{self.rewards_sent}, {self._rewards_heard}", "", held=True),
            Verdict(
                "broker killed, connected again",
                f"{self.outages}, {reconnected}",
                "as often",
                self.outages == reconnected > 0,
            ),
            Verdict(
                "troubles, failures of sensors counted",
                f"{self.troubles}, {_listed(failed)}",
                "cpu, memory and nvml among them",
                {"cpu", "memory", "nvml"} <= failed.keys(),
            ),
            Verdict(
                "resident memory after warm-up, at the end",
                f"{megabytes(before.resident_bytes)}, {megabytes(after.resident_bytes)}",
                "",
                held=True,
            ),
            Verdict("growth", f"{growth / 1e6:+.2f} MB", "< 1 MB", growth < GROWTH_BYTES),
            _constant("file descriptors", before.descriptors, after.descriptors),
            _constant("threads", before.threads, after.threads),
            Verdict(
                "state directory at its largest",
                megabytes(self.state_bytes),
                f"< {STATE_BYTES // 2**20} MiB",
                self.state_bytes < STATE_BYTES,
            ),
            Verdict("errors that stand at the end", _listed(errors), "none", not errors),
            Verdict("sinks that failed", _listed(health["sinks_failed"]), "none", not health["sinks_failed"]),
            Verdict("tracebacks in the log", str(tracebacks), "0", tracebacks == 0),
        ]

    def _quarters(self, since: int) -> str:
        """The highest of each, in MB: whether a growth goes on or has come to its end."""
        length = (self._ticks - since) / 4 or 1.0
        highest = [0, 0, 0, 0]
        for ticks, resident in self._resident:
            if ticks > since:
                quarter = min(int((ticks - since) / length), 3)
                highest[quarter] = max(highest[quarter], resident)
        return ", ".join(f"{of / 1e6:.2f}" for of in highest) + " MB"

    @property
    def _ticks(self) -> int:
        return int(self._health["ticks"]["count"]) if self._health else 0

    def _sensor_states(self) -> dict[str, str]:
        return {name: of["state"] for name, of in self._health["sensors"].items()}

    def _suffer(self, ticks: int, *, at_least: int = 0) -> None:
        """Let things go wrong until there are so many ticks, and troubles; then repair everything."""
        plan = self._plan
        trouble: Trouble | None = None
        goal, outages = self.troubles + at_least, self.outages + 1
        now_s = time.monotonic()
        turn_s, broker_s = now_s + plan.rest_s, now_s + plan.outage_every_s
        while self._ticks < ticks or self.troubles < goal or self.outages < outages:
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
        trouble = TROUBLES[self.troubles % len(TROUBLES)]
        self.troubles += 1
        self._machine.begin(trouble)
        return trouble

    def _turn_broker(self) -> None:
        if self._broker_is_up:
            self._broker.kill()
            self.outages += 1
        else:
            self._broker.start()
        self._broker_is_up = not self._broker_is_up

    def _beat(self) -> None:
        if self._daemon.poll() is not None:
            sys.exit(f"the daemon ended with {self._daemon.returncode}: {self._log.read_text()[-2000:]}")
        self._machine.move()
        if self._broker_is_up:
            self.rewards_sent += 1
            event = {"kind": "WorkAccepted", "latency_ms": 12.0, "units": 1.0, "source": "soak"}
            self._subscriber.client.publish(f"neuromodd/{NODE}/in/reward", json.dumps(event), qos=1)
        self.state_bytes = max(self.state_bytes, _size(self._state_directory))
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


def _constant(what: str, before: int, after: int) -> Verdict:
    return Verdict(f"{what} after warm-up, at the end", f"{before}, {after}", "equal", before == after)


def _listed(counts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            # A checkpoint that has just given way to a newer one.
            continue
    return total


def plans(ticks: int, seconds: int, *, quick: bool) -> list[Plan]:
    """The two runs."""
    forward = str(Path(__file__).with_name("fastforward.py"))
    pace = 0.3 if quick else 1.0
    return [
        Plan(
            name=f"{ticks} ticks at 1 Hz, one after the other",
            program=(forward,),
            interval_s=1.0,
            ticks=ticks,
            warm_up_ticks=min(4 * 3600, ticks // 2),
            trouble_s=pace,
            rest_s=pace / 2,
            outage_every_s=15 * pace,
            outage_s=2 * pace,
            settle_s=3.0,
        ),
        Plan(
            name=f"{seconds} s at 20 Hz in real time",
            program=("-m", "neuromodd"),
            interval_s=0.05,
            ticks=20 * seconds,
            warm_up_ticks=min(3600, 10 * seconds),
            trouble_s=4 * pace,
            rest_s=4 * pace,
            outage_every_s=40 * pace,
            outage_s=3 * pace,
            settle_s=10.0,
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ticks", type=int, default=None, help="in accelerated time; 0 for none (86400)")
    parser.add_argument("--seconds", type=int, default=None, help="in real time; 0 for none (600)")
    parser.add_argument("--quick", action="store_true", help="3000 ticks and 30 seconds")
    arguments = parser.parse_args()
    ticks, seconds = (3000, 30) if arguments.quick else (86_400, 600)
    ticks = ticks if arguments.ticks is None else arguments.ticks
    seconds = seconds if arguments.seconds is None else arguments.seconds
    print(f"{machine_line()}\n")
    broken = 0
    for plan in plans(ticks, seconds, quick=arguments.quick):
        if plan.ticks == 0:
            continue
        with tempfile.TemporaryDirectory() as name:
            verdicts = Run(plan, Path(name)).live()
        print_table(
            (plan.name, "figure", "bound", ""),
            [
                (of.what, of.figure, of.bound, "" if not of.bound else "ok" if of.held else "BROKEN")
                for of in verdicts
            ],
        )
        print(flush=True)
        broken += sum(not of.held for of in verdicts)
    if broken:
        sys.exit(1)


if __name__ == "__main__":
    main()
