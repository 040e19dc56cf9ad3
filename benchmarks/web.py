"""What the web view costs: nothing of it, nobody who looks, and twenty pages; and what a look asks for.

    python benchmarks/web.py [--seconds 120] [--pages 20] [--interval 1]

Three daemons run at the same time, each with the same settings but for the web view, on one private
mosquitto: so what else the machine does is shared by all. The pages are streams as a browser opens them,
read to the last byte. Prints a Markdown table with the machine and the date.
"""

from __future__ import annotations

import argparse
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

from measuring import (
    ROOT,
    Broker,
    Subscriber,
    free_port,
    machine_line,
    megabytes,
    print_table,
    usage,
    wait_for,
)

WARM_S = 10.0
LOOKS = 20


class Subject(NamedTuple):
    """A daemon with a name, and the port of its web view."""

    name: str
    process: subprocess.Popen[bytes]
    port: int | None


class Pages(threading.Thread):
    """Streams that are read as they come."""

    def __init__(self, port: int, count: int) -> None:
        super().__init__(daemon=True)
        self._selector = selectors.DefaultSelector()
        self.received = 0
        for _ in range(count):
            link = socket.create_connection(("127.0.0.1", port))
            link.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self._selector.register(link, selectors.EVENT_READ, link)

    def run(self) -> None:
        """Read until the process ends."""
        while True:
            for key, _ in self._selector.select():
                self.received += len(key.data.recv(1 << 20))


def start(folder: Path, broker: Broker, name: str, port: int | None, interval_s: float) -> Subject:
    web = [] if port is None else ["--web.enabled", "true", "--web.port", str(port)]
    node = name.replace(" ", "-")
    command = [sys.executable, "-m", "neuromodd", "run", "--node", node, "--log.level", "error"]
    command += ["--mqtt.host", "127.0.0.1", "--mqtt.port", str(broker.port)]
    command += ["--checkpoint.directory", str(folder / node), "--tick.interval_s", str(interval_s), *web]
    return Subject(name, subprocess.Popen(command, cwd=ROOT), port)


def look_s(port: int, path: str) -> float:
    """How long an answer takes, the median of some."""

    def once() -> float:
        begin_s = time.monotonic()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10.0) as answer:
            answer.read()
        return time.monotonic() - begin_s

    return statistics.median(once() for _ in range(LOOKS))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=120.0, help="how long to measure (120)")
    parser.add_argument("--pages", type=int, default=20, help="how many are open (20)")
    parser.add_argument("--interval", type=float, default=1.0, help="of the ticks (1)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        broker = Broker(Path(name))
        subscriber = Subscriber(broker.port, "neuromodd/+/state", keep=False)
        looked_at = f"{arguments.pages} pages"
        kinds = {"without": None, "nobody looks": free_port(), looked_at: free_port()}
        subjects = [start(Path(name), broker, kind, port, arguments.interval) for kind, port in kinds.items()]
        try:
            wait_for(lambda: subscriber.messages >= 5 * len(subjects), "ticks")
            pages = Pages(kinds[looked_at] or 0, arguments.pages)
            pages.start()
            time.sleep(WARM_S)
            begin_s, received = time.monotonic(), pages.received
            before = [usage(subject.process.pid) for subject in subjects]
            time.sleep(arguments.seconds)
            after = [usage(subject.process.pid) for subject in subjects]
            seconds = time.monotonic() - begin_s
            received = pages.received - received
            looks = {path: look_s(kinds["nobody looks"] or 0, path) for path in ("/metrics", "/healthz", "/")}
        finally:
            for subject in subjects:
                subject.process.send_signal(signal.SIGTERM)
                subject.process.wait()
            subscriber.close()
            broker.stop()
    shares = [(late.cpu_s - early.cpu_s) / seconds for early, late in zip(before, after, strict=True)]
    resident = [of.resident_bytes for of in after]
    print(f"{machine_line()}; {1 / arguments.interval:g} Hz, {seconds:.0f} s, all at the same time\n")
    rows = [
        ["processor", *(f"{share:.2%} of a core" for share in shares)],
        ["more than without", "", *(f"{share - shares[0]:+.2%}" for share in shares[1:])],
        ["resident memory", *map(megabytes, resident)],
        ["more than without", "", *(f"{(of - resident[0]) / 1e6:+.1f} MB" for of in resident[1:])],
    ]
    print_table(["measured", *kinds], rows)
    each = received / arguments.pages / seconds
    print(f"\nA page receives {each / 1e3:.1f} kB/s.", end=" ")
    print("; ".join(f"{path} answers in {took_s * 1e3:.1f} ms" for path, took_s in looks.items()) + ".")


if __name__ == "__main__":
    main()
