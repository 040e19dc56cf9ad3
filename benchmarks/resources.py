"""What the daemon costs at 1 Hz and at 10 Hz: processor, memory, time to the first message, lateness.

    python benchmarks/resources.py [--seconds 60] [--starts 5] [--outage 10] [--interval 1 0.1]

It installs the checkout without extras into a virtual environment of its own, starts a private mosquitto
and the daemon, listens for as long as asked, then kills the broker for some seconds and times how long
after its return the daemon is back. The time to the first message is the median of several starts after a
first that does not count, so it is not that of a cold page cache or of missing bytecode. Prints a Markdown
table with the machine and the date.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from measuring import (
    ROOT,
    Broker,
    Subscriber,
    Window,
    install,
    machine_line,
    megabytes,
    neuromodd_command,
    neuromodd_round,
    print_table,
    quantile,
    wait_for,
    watch,
)

QUIET_ROUNDS = 5
"""Ticks before the window begins."""


class Figures(NamedTuple):
    """What was found out at one interval."""

    interval_s: float
    window: Window
    first_s: list[float]
    back_s: float
    status: int


class Daemon:
    """A daemon and who listens to it, on a broker of theirs."""

    def __init__(self, program: Path, folder: Path, interval_s: float) -> None:
        self._broker = Broker(folder)
        self._interval_s = interval_s
        self._command = neuromodd_command(program, self._broker.port, folder / "state", interval_s)
        self._subscriber = Subscriber(self._broker.port)

    def start(self) -> float:
        """Seconds from the start to the first telemetry."""
        known = len(self._subscriber.heard)
        began_s = time.monotonic()
        self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        return self._wait_for_round(known) - began_s

    def stop(self) -> int:
        """Its exit status."""
        self._process.terminate()
        return self._process.wait()

    def watch(self, seconds: float) -> Window:
        """After some quiet ticks."""
        time.sleep(QUIET_ROUNDS * self._interval_s)
        return watch(self._process.pid, self._subscriber, neuromodd_round, seconds)

    def back_s(self, outage_s: float) -> float:
        """Kill the broker, wait, start it again: seconds from its return to the first telemetry."""
        self._broker.kill()
        time.sleep(outage_s)
        known = len(self._subscriber.heard)
        self._broker.start()
        returned_s = time.monotonic()
        return self._wait_for_round(known) - returned_s

    def close(self) -> None:
        """Stop listening, and the broker."""
        self._subscriber.close()
        self._broker.stop()

    def _wait_for_round(self, known: int) -> float:
        found: list[float] = []

        def look() -> bool:
            found[:] = [of.at_s for of in self._subscriber.heard[known:] if neuromodd_round(of)]
            return bool(found)

        wait_for(look, "telemetry")
        return found[0]


def measure(program: Path, folder: Path, interval_s: float, arguments: argparse.Namespace) -> Figures:
    daemon = Daemon(program, folder, interval_s)
    first_s = []
    daemon.start()
    for _ in range(arguments.starts):
        daemon.stop()
        first_s.append(daemon.start())
    try:
        window = daemon.watch(arguments.seconds)
        back_s = daemon.back_s(arguments.outage)
    finally:
        status = daemon.stop()
        daemon.close()
    return Figures(interval_s, window, first_s, back_s, status)


def column(of: Figures, outage_s: float) -> list[tuple[str, str]]:
    """Names and figures."""
    late_ms = [json.loads(payload)["lateness_ms"] for payload in of.window.payloads]
    return [
        ("ticks heard in the time", f"{len(late_ms)} in {of.window.seconds:.2f} s"),
        ("processor", f"{of.window.cpu_ratio:.2%} of a core"),
        ("resident memory", megabytes(of.window.usage.resident_bytes)),
        ("proportional memory", megabytes(of.window.usage.proportional_bytes)),
        ("threads", str(of.window.usage.threads)),
        (
            f"start to first message, median / worst of {len(of.first_s)}",
            f"{statistics.median(of.first_s):.2f} s / {max(of.first_s):.2f} s",
        ),
        (
            "lateness of a tick, p50 / p99",
            f"{quantile(late_ms, 0.5):.1f} ms / {quantile(late_ms, 0.99):.1f} ms",
        ),
        (f"back after a broker outage of {outage_s:.0f} s", f"{of.back_s:.2f} s after its return"),
        ("exit status on SIGTERM", str(of.status)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to measure each (60)")
    parser.add_argument("--starts", type=int, default=5, help="how often to time the first message (5)")
    parser.add_argument(
        "--outage", type=float, default=10.0, help="how long the broker is away, seconds (10)"
    )
    parser.add_argument("--interval", type=float, nargs="+", default=[1.0, 0.1], help="of the ticks (1 0.1)")
    arguments = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as name:
        program = install(Path(name) / "venv", ROOT) / "neuromodd"
        for number, interval_s in enumerate(arguments.interval):
            folder = Path(name) / str(number)
            folder.mkdir()
            found.append(measure(program, folder, interval_s, arguments))
    print(f"{machine_line()}; {arguments.seconds:.0f} s each, no extras\n")
    columns = [column(of, arguments.outage) for of in found]
    heads = ["measured", *(f"{1 / of.interval_s:g} Hz" for of in found)]
    print_table(heads, [[row[0][0], *(shown for _, shown in row)] for row in zip(*columns, strict=True)])


if __name__ == "__main__":
    main()
