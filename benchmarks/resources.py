"""What the daemon costs at 1 Hz: processor, memory, time to the first message, lateness.

    python benchmarks/resources.py [--seconds 60] [--outage 10]

It installs the checkout without extras into a virtual environment of its own, starts a private mosquitto
and the daemon, listens for as long as asked, then kills the broker for some seconds and times how long
after its return the daemon is back. Prints a Markdown table with the machine and the date.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
DEADLINE_S = 60.0


class Usage(NamedTuple):
    """Of one process, from /proc."""

    cpu_s: float
    resident_bytes: int
    proportional_bytes: int
    threads: int


def usage(pid: int) -> Usage:
    stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    proportional = next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
    return Usage(
        cpu_s=(int(stat[11]) + int(stat[12])) / TICKS_PER_S,
        resident_bytes=int(status["VmRSS"].split()[0]) * 1024,
        proportional_bytes=proportional * 1024,
        threads=int(status["Threads"]),
    )


def install(directory: Path) -> Path:
    """A virtual environment with the package and no extras; its `neuromodd`."""
    subprocess.run([sys.executable, "-m", "venv", directory], check=True)
    subprocess.run([directory / "bin/pip", "install", "--quiet", ROOT], check=True)
    return directory / "bin" / "neuromodd"


def start_broker(port: int, directory: Path) -> subprocess.Popen[bytes]:
    program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        sys.exit("mosquitto is not installed")
    config = directory / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    broker = subprocess.Popen([program, "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return broker
        time.sleep(0.01)
    sys.exit("mosquitto does not answer")


class Listener:
    """mosquitto_sub on the telemetry topic: when each frame arrived, and how late its tick was."""

    def __init__(self, port: int) -> None:
        self.arrivals_s: list[float] = []
        self.lateness_ms: list[float] = []
        self._process = subprocess.Popen(
            ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(port), "-t", "neuromodd/+/telemetry"],
            stdout=subprocess.PIPE,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        import json  # noqa: PLC0415 - only this thread needs it

        for line in self._process.stdout or ():
            self.arrivals_s.append(time.monotonic())
            self.lateness_ms.append(json.loads(line)["lateness_ms"])

    def wait(self, count: int) -> float:
        """When the message number `count` arrived."""
        end = time.monotonic() + DEADLINE_S + count
        while len(self.arrivals_s) < count:
            if time.monotonic() > end:
                sys.exit(f"only {len(self.arrivals_s)} of {count} messages")
            time.sleep(0.005)
        return self.arrivals_s[count - 1]

    def close(self) -> None:
        """Stop listening."""
        self._process.terminate()
        self._process.wait()


def back_after_outage(port: int, directory: Path, broker: subprocess.Popen[bytes], outage_s: float) -> float:
    """Kill the broker, wait, start it again: seconds from its return to the first message."""
    broker.send_signal(signal.SIGKILL)
    broker.wait()
    time.sleep(outage_s)
    again = start_broker(port, directory)
    returned_s = time.monotonic()
    listener = Listener(port)
    back_s = listener.wait(1) - returned_s
    listener.close()
    again.terminate()
    again.wait()
    return back_s


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def megabytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB ({size / 1e6:.1f} MB)"


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=60, help="how long to measure (60)")
    parser.add_argument(
        "--outage", type=float, default=10.0, help="how long the broker is away, seconds (10)"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        program = install(directory / "venv")
        port = free_port()
        broker = start_broker(port, directory)
        listener = Listener(port)
        time.sleep(0.5)
        # Once before, so that the figure is not that of a cold disk and missing bytecode.
        subprocess.run([program, "sample"], check=True, stdout=subprocess.DEVNULL)
        options = [
            "--mqtt.host",
            "127.0.0.1",
            "--mqtt.port",
            str(port),
            "--checkpoint.directory",
            str(directory / "state"),
        ]
        begin_s = time.monotonic()
        daemon = subprocess.Popen([program, "run", *options], stderr=subprocess.DEVNULL)
        try:
            first_s = listener.wait(1) - begin_s
            listener.wait(6)
            before = usage(daemon.pid)
            measured_s = listener.wait(6 + arguments.seconds) - listener.arrivals_s[5]
            after = usage(daemon.pid)
            listener.close()
            back_s = back_after_outage(port, directory, broker, arguments.outage)
        finally:
            daemon.terminate()
            status = daemon.wait()
        late = listener.lateness_ms[1:]
        print(f"{cpu_model()}, {os.cpu_count()} cores, Linux {platform.release().split('-')[0]}, ", end="")
        print(f"Python {platform.python_version()}, ", end="")
        print(f"{datetime.now(UTC):%Y-%m-%d}; {arguments.seconds} s at 1 Hz, no extras\n")
        rows = [
            ("messages in the time", f"{arguments.seconds} in {measured_s:.2f} s"),
            ("processor", f"{(after.cpu_s - before.cpu_s) / measured_s:.2%} of a core"),
            ("resident memory", megabytes(after.resident_bytes)),
            ("proportional memory", megabytes(after.proportional_bytes)),
            ("threads", str(after.threads)),
            ("start to first message", f"{first_s:.2f} s"),
            (
                "lateness of a tick, p50 / p99",
                f"{quantile(late, 0.5):.1f} ms / {quantile(late, 0.99):.1f} ms",
            ),
            (f"back after a broker outage of {arguments.outage:.0f} s", f"{back_s:.2f} s after its return"),
            ("exit status on SIGTERM", str(status)),
        ]
        print("| measured | figure |\n|---|---|")
        for row in rows:
            print("| {} | {} |".format(*row))


if __name__ == "__main__":
    main()
