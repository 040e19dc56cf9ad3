"""What the benchmarks share: processes seen from outside, a broker of one's own, somebody who listens."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

ROOT = Path(__file__).resolve().parent.parent
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
DEADLINE_S = 60.0


class Usage(NamedTuple):
    """Of one process, or of several together."""

    cpu_s: float
    resident_bytes: int
    proportional_bytes: int
    threads: int


def usage(pid: int) -> Usage:
    """What a process uses, with the processor time of its children that have ended."""
    stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    proportional = next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
    # The clock of another process, as clock_getcpuclockid(3) names it: /proc counts in steps of 10 ms.
    own_s = time.clock_gettime((~pid << 3) | 2)
    return Usage(
        cpu_s=own_s + (int(stat[13]) + int(stat[14])) / TICKS_PER_S,
        resident_bytes=int(status["VmRSS"].split()[0]) * 1024,
        proportional_bytes=proportional * 1024,
        threads=int(status["Threads"]),
    )


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            found += map(int, task.read_text().split())
    return found


def family_usage(pid: int) -> Usage:
    """What a process and its descendants use together."""
    each = [usage(one) for one in family(pid)]
    return Usage(*(sum(values) for values in zip(*each, strict=True)))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Broker:
    """A mosquitto of one's own on a free loopback port; it may be killed and started again."""

    def __init__(self, directory: Path) -> None:
        program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            sys.exit("mosquitto is not installed; `make tools` installs it")
        self.port = free_port()
        config = directory / f"mosquitto-{self.port}.conf"
        # Messages that follow one another would wait for each other's acknowledgement, up to 40 ms.
        lines = [f"listener {self.port} 127.0.0.1", "allow_anonymous true", "set_tcp_nodelay true"]
        config.write_text("\n".join(lines) + "\n")
        self._command = [program, "-c", str(config)]
        self.start()

    def start(self) -> None:
        """Start, and return when the port answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def answers() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        wait_for(answers, f"mosquitto on port {self.port}")

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        return self._process.pid

    def kill(self) -> None:
        """As a crash does it."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """As an administrator does it."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        self._process.send_signal(number)
        self._process.wait()


class Heard(NamedTuple):
    """One message, and the monotonic time of its arrival."""

    at_s: float
    topic: str
    payload: bytes


class Subscriber:
    """Hears what is published below `topics`: when, on which topic, how much.

    Args:
        port: of the broker.
        topics: to subscribe to.
        keep: whether the messages are to be kept in `heard`.
        also: is told each message, on the subscriber's thread.
    """

    def __init__(
        self,
        port: int,
        topics: str = "neuromodd/#",
        *,
        keep: bool = True,
        also: Callable[[Heard], None] = lambda _: None,
    ) -> None:
        self.heard: list[Heard] = []
        self.messages = 0
        self.size = 0
        self._keep = keep
        self._also = also
        self.client = paho.Client(CallbackAPIVersion.VERSION2)
        self.client.on_connect = lambda client, *_: client.subscribe(topics)
        self.client.on_message = self._hear
        self.client.reconnect_delay_set(min_delay=0.01, max_delay=0.01)  # type: ignore[arg-type]
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def _hear(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        heard = Heard(time.monotonic(), message.topic, bytes(message.payload))
        self.messages += 1
        self.size += len(message.payload)
        if self._keep:
            self.heard.append(heard)
        self._also(heard)

    def close(self) -> None:
        """Stop listening."""
        self.client.disconnect()
        self.client.loop_stop()


def wait_for(done: Callable[[], object], what: str, timeout_s: float = DEADLINE_S) -> None:
    end = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > end:
            sys.exit(f"not in time: {what}")
        time.sleep(0.002)


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def megabytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB ({size / 1e6:.1f} MB)"


def machine_line() -> str:
    """The machine and the date, for above a table."""
    release = platform.release().split("-")[0]
    return (
        f"{_cpu_model()}, {os.cpu_count()} cores, Linux {release}, Python {platform.python_version()}, "
        f"{datetime.now(UTC):%Y-%m-%d}"
    )


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """As Markdown."""
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
