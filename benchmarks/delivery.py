"""What a subscriber may count on: how soon the daemon is back, how even it ticks, what a whole fleet sends.

    python benchmarks/delivery.py [--outages 20] [--seconds 60] [--nodes 200]

It starts a private mosquitto and the daemon of this environment. The broker is killed and started again as
often as asked; then the daemon ticks at 10 Hz; then one process publishes, over a connection each, what so
many daemons publish at 1 Hz, and a subscriber listens to all of it. Prints a Markdown table with the machine
and the date.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from measuring import (
    DEADLINE_S,
    Broker,
    Heard,
    Subscriber,
    Usage,
    machine_line,
    print_table,
    quantile,
    usage,
    wait_for,
)

from neuromodd import logs
from neuromodd.config import Settings
from neuromodd.core.brain import Brain
from neuromodd.core.messages import TOPICS, state_message, telemetry_event, topic
from neuromodd.eye import Eye
from neuromodd.mqtt import Endpoint, Outgoing, connect
from neuromodd.sinks.publisher import NAMED


@contextlib.contextmanager
def running_daemon(port: int, directory: Path, *options: str) -> Iterator[None]:
    """A daemon on the broker, until the block ends."""
    command = [sys.executable, "-m", "neuromodd", "run", "--node", "lab", "--mqtt.host", "127.0.0.1"]
    command += ["--mqtt.port", str(port), "--checkpoint.directory", str(directory / "state"), *options]
    daemon = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        daemon.terminate()
        daemon.wait()


def first_online_s(subscriber: Subscriber) -> float:
    """When the subscriber heard that the daemon is there."""
    wait_for(lambda: b"online" in (of.payload for of in subscriber.heard), "the daemon on the broker")
    return next(of.at_s for of in subscriber.heard if of.payload == b"online")


def outages(count: int, directory: Path) -> list[float]:
    """Seconds from each return of the broker to the daemon's `online`."""
    broker = Broker(directory)
    back_s = []
    with running_daemon(broker.port, directory):
        subscriber = Subscriber(broker.port)
        for _ in range(count):
            first_online_s(subscriber)
            time.sleep(1.0)
            broker.kill()
            time.sleep(2.0)
            subscriber.close()
            broker.start()
            returned_s = time.monotonic()
            subscriber = Subscriber(broker.port)
            back_s.append(first_online_s(subscriber) - returned_s)
        subscriber.close()
    broker.stop()
    return back_s


def ten_hertz(seconds: int, directory: Path) -> tuple[list[float], list[float], float]:
    """Lateness of the ticks in ms, seconds between arrivals, and how far the last tick was off the grid."""
    broker = Broker(directory)
    with running_daemon(broker.port, directory, "--tick.interval_s", "0.1"):
        subscriber = Subscriber(broker.port)

        def frames() -> list[Heard]:
            return [of for of in subscriber.heard if of.topic.endswith("/telemetry")]

        wait_for(lambda: len(frames()) > 10 * seconds + 20, "the ticks", seconds + DEADLINE_S)
        subscriber.close()
    broker.stop()
    measured = frames()[20 : 20 + 10 * seconds]
    values = [json.loads(of.payload) for of in measured]
    late_ms = [of["lateness_ms"] for of in values]
    arrivals_s = [of.at_s for of in measured]
    # A tick begins when its frame says; what it is late by is no drift.
    begun_s = [of["monotonic_s"] - of["lateness_ms"] / 1000.0 for of in values]
    ticks = values[-1]["sequence"] - values[0]["sequence"]
    drift_s = begun_s[-1] - begun_s[0] - 0.1 * ticks
    return late_ms, [b - a for a, b in itertools.pairwise(arrivals_s)], drift_s


async def sample_messages() -> list[tuple[str, bytes]]:
    """What a daemon of this host publishes in a tick."""
    settings = Settings(node="lab")
    eye, brain = Eye(settings), Brain()
    try:
        await eye.look(sequence=0, lateness_ms=None)
        await asyncio.sleep(0.2)
        tick = brain.step(await eye.look(sequence=1, lateness_ms=0.1))
    finally:
        eye.close()
    telemetry = telemetry_event(tick.frame).encoded(replayed=False)
    return [("telemetry", telemetry), ("state", state_message(tick).payload)]


async def one_of_the_fleet(
    port: int, number: int, count: int, messages: list[tuple[str, bytes]], until_s: float
) -> None:
    async with connect(Endpoint(host="127.0.0.1", port=port, identifier=f"fleet-{number}")) as link:
        # Hosts do not tick at the same instant.
        due_s = time.monotonic() + number / count
        while due_s < until_s:
            await asyncio.sleep(max(due_s - time.monotonic(), 0.0))
            for name, payload in messages:
                rule = TOPICS[name]
                await link.publish(
                    Outgoing(
                        topic("neuromodd", f"node-{number}", name),
                        payload,
                        rule.qos,
                        rule.retain,
                        "application/json",
                        300,
                        NAMED,
                    )
                )
            due_s += 1.0


async def publish_fleet(port: int, count: int, until_s: float) -> None:
    messages = await sample_messages()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(one_of_the_fleet(port, number, count, messages, until_s))


def fleet(count: int, seconds: int, directory: Path) -> list[float]:
    """What a subscriber to all of `count` nodes sees, and what it costs."""
    broker = Broker(directory)
    listening = subprocess.Popen(
        ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(broker.port), "-t", "neuromodd/#"],
        stdout=subprocess.DEVNULL,
    )
    subscriber = Subscriber(broker.port, keep=False)
    until_s = time.monotonic() + seconds + 10.0
    thread = threading.Thread(target=lambda: asyncio.run(publish_fleet(broker.port, count, until_s)))
    thread.start()
    time.sleep(5.0)

    def now() -> tuple[float, int, int, Usage, Usage]:
        return time.monotonic(), subscriber.messages, subscriber.size, usage(broker.pid), usage(listening.pid)

    before = now()
    time.sleep(seconds)
    after = now()
    thread.join()
    subscriber.close()
    listening.terminate()
    listening.wait()
    broker.stop()
    took_s = after[0] - before[0]
    return [
        (after[1] - before[1]) / took_s,
        (after[2] - before[2]) / took_s,
        (after[3].cpu_s - before[3].cpu_s) / took_s,
        (after[4].cpu_s - before[4].cpu_s) / took_s,
        after[4].resident_bytes / 2**20,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--outages", type=int, default=20, help="how often the broker is killed (20)")
    parser.add_argument("--seconds", type=int, default=60, help="how long to measure each of the rest (60)")
    parser.add_argument("--nodes", type=int, default=200, help="daemons in the fleet (200)")
    arguments = parser.parse_args()
    logs.configure(level="error", form="console")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        back_s = outages(arguments.outages, directory)
        late_ms, intervals_s, drift_s = ten_hertz(arguments.seconds, directory)
        load = fleet(arguments.nodes, arguments.seconds, directory)
    print(f"{machine_line()}\n")
    off_ms = [abs(of - 0.1) * 1000.0 for of in intervals_s]
    rows = [
        (
            f"back on line after the broker's return, median / worst of {len(back_s)}",
            f"{statistics.median(back_s):.2f} s / {max(back_s):.2f} s",
        ),
        (
            f"lateness of a tick at 10 Hz, p50 / p99 of {len(late_ms)}",
            f"{quantile(late_ms, 0.5):.1f} ms / {quantile(late_ms, 0.99):.1f} ms",
        ),
        ("interval between arrivals off 100 ms, p99", f"{quantile(off_ms, 0.99):.1f} ms"),
        (f"drift over {len(late_ms)} ticks", f"{abs(drift_s) * 1000.0:.1f} ms"),
        (
            f"{arguments.nodes} nodes at 1 Hz, as a subscriber to all sees them",
            f"{load[0]:.0f} messages/s, {load[1] / 1000.0:.0f} kB/s",
        ),
        ("mosquitto under that", f"{load[2]:.1%} of a core"),
        ("mosquitto_sub on all of that", f"{load[3]:.1%} of a core, {load[4]:.1f} MiB"),
    ]
    print_table(("measured", "figure"), rows)


if __name__ == "__main__":
    main()
