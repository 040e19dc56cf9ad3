"""How soon a real daemon notices that its host is not itself, and how often it cries for nothing.

    python benchmarks/noticing.py [--calm-minutes 60] [--trouble-s 30] [--rest-s 90]

A daemon learns the host's rhythm for a while, on a private mosquitto, with the loopback interface counted.
It is stopped and started once, then comes trouble: all processors busy, a large part of the memory taken,
the disk written to, loopback flooded. Prints a Markdown table: the ticks from the trouble's begin to the
`anomaly` event, and the channels that it names. What else happens on the machine is part of its rhythm.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measuring import ROOT, Broker, Heard, Subscriber, machine_line, print_table, wait_for

MEMORY_SHARE = 0.25
DISK_BYTES = 256 << 20
PIECE = 1 << 20
SOON_TICKS = 20
"""An anomaly that begins so many ticks after a trouble is put down to it."""


def _spin(seconds: float) -> None:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        pass


def burn_processors(seconds: float, _folder: Path) -> None:
    """Keep every processor busy."""
    spinning = [multiprocessing.Process(target=_spin, args=(seconds,)) for _ in range(os.cpu_count() or 1)]
    for process in spinning:
        process.start()
    for process in spinning:
        process.join()


def take_memory(seconds: float, _folder: Path) -> None:
    """Take a quarter of the memory and hold it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    held = bytearray(int(MEMORY_SHARE * total))
    page = os.sysconf("SC_PAGE_SIZE")
    held[::page] = bytes([1]) * len(held[::page])
    time.sleep(seconds)


def storm_disk(seconds: float, folder: Path) -> None:
    """Write and sync, again and again."""
    piece, end_s = os.urandom(PIECE), time.monotonic() + seconds
    while time.monotonic() < end_s:
        with (folder / "storm").open("wb") as file:
            for _ in range(DISK_BYTES // PIECE):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())


def flood_network(seconds: float, _folder: Path) -> None:
    """Send over loopback what goes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drain() -> None:
            link, _ = server.accept()
            with link:
                while link.recv(PIECE):
                    pass

        reader = threading.Thread(target=drain)
        reader.start()
        end_s = time.monotonic() + seconds
        with socket.create_connection(server.getsockname()) as link:
            while time.monotonic() < end_s:
                link.sendall(bytes(1 << 16))
                # A part of what it could: the flood is to be seen in the network first.
                time.sleep(0.002)
        reader.join()


TROUBLES: dict[str, tuple[Callable[[float, Path], None], frozenset[str]]] = {
    "all processors busy": (burn_processors, frozenset({"cpu", "work", "pressure"})),
    "a quarter of the memory": (take_memory, frozenset({"memory"})),
    "a disk storm": (storm_disk, frozenset({"io", "pressure"})),
    "a network flood": (flood_network, frozenset({"network"})),
}
"""What is done, and the channels of which one must be named."""


class Ear:
    """The anomalies of the daemon, as they begin."""

    def __init__(self, port: int) -> None:
        self.begun: list[tuple[float, dict[str, Any]]] = []
        self.holding = False
        self.subscriber = Subscriber(port, "neuromodd/#", keep=False, also=self._hear)
        self.states = 0

    def _hear(self, heard: Heard) -> None:
        if heard.topic.endswith("/state"):
            self.states += 1
            self.holding = json.loads(heard.payload)["flags"]["anomaly"]
        elif heard.topic.endswith("/anomaly") and (told := json.loads(heard.payload))["phase"] == "begin":
            self.begun.append((heard.at_s, told))


def start(folder: Path, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "neuromodd", "run", "--node", "noticing", "--log.level", "error"]
    command += ["--mqtt.host", "127.0.0.1", "--mqtt.port", str(port)]
    command += ["--checkpoint.directory", str(folder), "--sensors.network.include_loopback", "true"]
    return subprocess.Popen(command, cwd=ROOT)


def make_trouble(name: str, seconds: float, ear: Ear, folder: Path) -> list[str]:
    act, right = TROUBLES[name]
    wait_for(lambda: not ear.holding, "a calm host", 600.0)
    before, began_s = len(ear.begun), time.monotonic()
    act(seconds, folder)
    found = [(at_s - began_s, told) for at_s, told in ear.begun[before:]]
    soon = [(after_s, told) for after_s, told in found if after_s <= SOON_TICKS]
    if not soon:
        return [name, "not noticed", "", ""]
    after_s, told = soon[0]
    channels = [of["name"] for of in told["channels"]]
    return [name, f"{after_s:.0f}", ", ".join(channels), "yes" if right & set(channels) else "no"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calm-minutes", type=float, default=60.0, help="how long it learns first (60)")
    parser.add_argument("--trouble-s", type=float, default=30.0, help="how long a trouble lasts (30)")
    parser.add_argument("--rest-s", type=float, default=90.0, help="between two of them (90)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name).resolve()
        broker = Broker(folder)
        ear = Ear(broker.port)
        daemon = start(folder / "state", broker.port)
        try:
            wait_for(lambda: ear.states, "the first state")
            time.sleep(60.0 * arguments.calm_minutes)
            alarms = [told["sentence"] for _, told in ear.begun]
            daemon.terminate()
            daemon.wait(30.0)
            states, daemon = ear.states, start(folder / "state", broker.port)
            wait_for(lambda: ear.states > states, "a state after the restart")
            time.sleep(arguments.rest_s)
            restarted = len(ear.begun) - len(alarms)
            rows = []
            for trouble in TROUBLES:
                rows.append(make_trouble(trouble, arguments.trouble_s, ear, folder))
                time.sleep(arguments.rest_s)
        finally:
            daemon.terminate()
            daemon.wait(30.0)
            ear.subscriber.close()
            broker.stop()
    print(f"{machine_line()}; a tick a second\n")
    print_table(("trouble", "ticks until noticed", "channels named", "the right one among them"), rows)
    minutes = arguments.calm_minutes
    print(f"\nAnomalies in {minutes:g} minutes before: {len(alarms)}; by the restart: {restarted}")
    for sentence in alarms:
        print(f"- {sentence}")


if __name__ == "__main__":
    main()
