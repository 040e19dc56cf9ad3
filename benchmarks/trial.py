"""One program that publishes rounds of metrics, tried: how soon, what it costs, whether it comes back."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from measuring import Broker, Heard, Subscriber, Usage, family_usage, quantile, wait_for

FIRST_S = 30.0
END_S = 10.0
RETURN_S = 120.0
"""A program that has not published again so long after the broker's return is said not to have come back."""


class Program(NamedTuple):
    """One program, ready to be started.

    Attributes:
        name: in the table.
        version: of the program.
        command: with the broker's port in it.
        environ: besides our own.
        interval_s: what it is told to keep.
        of_round: tells the message that stands for one round of metrics.
    """

    name: str
    version: str
    command: Callable[[int], list[str]]
    environ: dict[str, str]
    interval_s: float
    of_round: Callable[[Heard], bool]


class Window(NamedTuple):
    """What a program did in some time, and what it took.

    Attributes:
        seconds: how long it was watched.
        usage: of processor time that of the window; else at its end.
        messages_per_s: on all topics.
        bytes_per_s: of their payloads.
        intervals_s: between two arrivals on the topic that stands for a round.
        payloads: what arrived there.
    """

    seconds: float
    usage: Usage
    messages_per_s: float
    bytes_per_s: float
    intervals_s: list[float]
    payloads: list[bytes]

    @property
    def cpu_ratio(self) -> float:
        """Share of one core."""
        return self.usage.cpu_s / self.seconds

    def off_ms(self, interval_s: float) -> list[float]:
        """How far each interval between arrivals is from the one that was asked for."""
        return [abs(of - interval_s) * 1000.0 for of in self.intervals_s]


def watch(pid: int, subscriber: Subscriber, of_round: Callable[[Heard], bool], seconds: float) -> Window:
    """Look at a program and its children for some time."""
    first, began_s, before = len(subscriber.heard), time.monotonic(), family_usage(pid)
    time.sleep(seconds)
    last, ended_s, after = len(subscriber.heard), time.monotonic(), family_usage(pid)
    heard, took_s = subscriber.heard[first:last], ended_s - began_s
    rounds = [of for of in heard if of_round(of)]
    return Window(
        seconds=took_s,
        usage=after._replace(cpu_s=after.cpu_s - before.cpu_s),
        messages_per_s=len(heard) / took_s,
        bytes_per_s=sum(len(of.payload) for of in heard) / took_s,
        intervals_s=[b.at_s - a.at_s for a, b in itertools.pairwise(rounds)],
        payloads=[of.payload for of in rounds],
    )


class Figures(NamedTuple):
    """What was found out about one program.

    Attributes:
        first_s: from each start to the first round.
        window: while it ran quietly.
        back_s: from the broker's return to the next round; None if there was none.
        ended: the status with which it ended, if it did before it was told to.
        status: with which it ended when it was told to, by SIGTERM.
    """

    first_s: list[float]
    window: Window
    back_s: float | None
    ended: int | None
    status: int


class Trial:
    """A program with a broker and a listener of its own."""

    def __init__(self, program: Program, folder: Path) -> None:
        self._program = program
        self._log = folder / "log"
        self._broker = Broker(folder)
        self._subscriber = Subscriber(self._broker.port, "#")

    def figures(self, *, starts: int, quiet_s: float, seconds: float, outage_s: float) -> Figures:
        """Start it once, and then so many times; watch it; take the broker away and give it back."""
        try:
            self._start()
            first_s = []
            for _ in range(starts):
                self._stop()
                first_s.append(self._start())
            time.sleep(quiet_s)
            window = self._watch(seconds)
            back_s = self._after_outage(outage_s)
            ended = self._process.poll()
        finally:
            status = self._stop()
            self._subscriber.close()
            self._broker.stop()
        return Figures(first_s, window, back_s, ended, status)

    def _start(self) -> float:
        """Seconds from the start to the first round."""
        known = len(self._subscriber.heard)
        command, environ = self._program.command(self._broker.port), os.environ | self._program.environ
        began_s = time.monotonic()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ
            )
        found_s = self._first_round_s(known, FIRST_S)
        if found_s is None:
            sys.exit(f"{self._program.name} publishes nothing: {self._log.read_text()[-2000:]}")
        return found_s - began_s

    def _stop(self) -> int:
        self._process.terminate()
        try:
            return self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _watch(self, seconds: float) -> Window:
        pid, heard = self._process.pid, self._subscriber.heard
        first, began_s, before = len(heard), time.monotonic(), family_usage(pid)
        time.sleep(seconds)
        last, ended_s, after = len(heard), time.monotonic(), family_usage(pid)
        rounds = [of for of in heard[first:last] if self._program.of_round(of)]
        return Window(
            seconds=ended_s - began_s,
            usage=after._replace(cpu_s=after.cpu_s - before.cpu_s),
            messages_per_s=(last - first) / (ended_s - began_s),
            bytes_per_s=sum(len(of.payload) for of in heard[first:last]) / (ended_s - began_s),
            intervals_s=[b.at_s - a.at_s for a, b in itertools.pairwise(rounds)],
            payloads=[of.payload for of in rounds],
        )

    def _first_round_s(self, known: int, timeout_s: float) -> float | None:
        """When the first message after so many that stands for a round arrived."""
        until_s = time.monotonic() + timeout_s
        while time.monotonic() < until_s:
            for heard in self._subscriber.heard[known:]:
                if self._program.of_round(heard):
                    return heard.at_s
            time.sleep(0.005)
        return None

    def _after_outage(self, outage_s: float) -> float | None:
        self._broker.kill()
        time.sleep(outage_s)
        known = len(self._subscriber.heard)
        self._broker.start()
        returned_s = time.monotonic()
        wait_for(self._subscriber.client.is_connected, "the subscriber on the broker that is back")
        found_s = self._first_round_s(known, RETURN_S)
        return None if found_s is None else found_s - returned_s


def neuromodd(program: Path, state: Path, interval_s: float) -> Program:
    """The daemon as it comes, but for the broker, its place for files and its pace."""
    options = ["--node", "lab", "--checkpoint.directory", str(state), "--tick.interval_s", str(interval_s)]

    def command(port: int) -> list[str]:
        return [str(program), "run", "--mqtt.host", "127.0.0.1", "--mqtt.port", str(port), *options]

    return Program(
        name=f"neuromodd, {1 / interval_s:g} Hz",
        version=said(program, "--version").removeprefix("neuromodd "),
        command=command,
        environ={},
        interval_s=interval_s,
        of_round=lambda heard: heard.topic.endswith("/telemetry"),
    )


def install(directory: Path, *packages: object) -> Path:
    """A virtual environment with these packages; the folder of its programs."""
    subprocess.run([sys.executable, "-m", "venv", directory], check=True)
    pip = [str(directory / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--disable-pip-version-check", *map(str, packages)], check=True)
    return directory / "bin"


def said(*command: object) -> str:
    """What a program prints."""
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout.strip()


def quantiles(values_ms: list[float]) -> str:
    """The median and the 99th percentile."""
    if not values_ms:
        return "-"
    return f"{quantile(values_ms, 0.5):.1f} ms / {quantile(values_ms, 0.99):.1f} ms"


def lateness(window: Window) -> str:
    """Of the ticks, as neuromodd tells it itself."""
    return quantiles([json.loads(payload)["lateness_ms"] for payload in window.payloads])
