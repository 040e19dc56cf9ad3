"""What neuromodd costs beside others that publish a host's metrics over MQTT, each run the same way.

    python benchmarks/peers.py [--seconds 60] [--starts 3] [--outage 10] [--only neuromodd collectd ...]

neuromodd at 1 Hz and at 10 Hz, psmqtt, Glances and collectd. Those of PyPI are installed into environments of
their own; collectd is Debian's and has to be there. Each has a private mosquitto, and publishes processor,
memory, disk, network, load and temperatures once a second, as far as it can be told to. Each is started once
to fill the page cache and write bytecode, then as often as asked to time the first round of metrics; the last
of these goes on, quietly for a while, then through the window. At the end the broker is killed and, after the
outage, started again. Processor time, memory and threads are those of the program with its children. Prints a
Markdown table with the machine and the date.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from measuring import (
    ROOT,
    Broker,
    Heard,
    Subscriber,
    Window,
    install,
    machine_line,
    neuromodd_command,
    neuromodd_round,
    print_table,
    quantile,
    wait_for,
    watch,
)

QUIET_S = 10.0
FIRST_S = 30.0
RETURN_S = 120.0
"""A program that has not published again so long after the broker's return is said not to have come back."""

HOT = Path("/sys/class/thermal/thermal_zone0")
COLLECTD = "/usr/sbin/collectd"
APT = "apt-get install --no-install-recommends collectd-core"


class Peer(NamedTuple):
    """One program, ready to be started.

    Attributes:
        name: in the table.
        version: of the program.
        command: without the broker's port.
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


class Figures(NamedTuple):
    """What was found out about one program."""

    first_s: list[float]
    window: Window
    back: str


def neuromodd(folder: Path, interval_s: float) -> Peer:
    programs = folder.parent / "neuromodd-venv"
    if not programs.exists():
        install(programs, ROOT)
    program = programs / "bin" / "neuromodd"
    return Peer(
        name=f"neuromodd, {1 / interval_s:.0f} Hz",
        version=_said([program, "--version"]),
        command=lambda port: neuromodd_command(program, port, folder / "state", interval_s),
        environ={},
        interval_s=interval_s,
        of_round=neuromodd_round,
    )


PSMQTT = """\
logging: {{level: WARNING, report_status_period_sec: 3600}}
mqtt:
  broker: {{host: 127.0.0.1, port: {port}}}
  clientid: psmqtt
  clean_session: true
  qos: 0
  retain: false
  reconnect_period_sec: 5
  publish_topic_prefix: psmqtt/lab/
schedule:
  - cron: every 1 second
    tasks:
      - {{task: cpu_times_percent, params: ["*;"]}}
      - {{task: virtual_memory, params: ["*;"]}}
      - {{task: swap_memory, params: ["*;"]}}
      - {{task: disk_io_counters, params: ["*;"]}}
      - {{task: net_io_counters, params: ["*;"]}}
      - {{task: getloadavg, params: ["*;"]}}
{temperatures}"""


def psmqtt(folder: Path) -> Peer:
    programs = install(folder / "venv", "psmqtt")
    settings = folder / "psmqtt.yaml"
    hot = '      - {task: sensors_temperatures, params: ["*;"]}\n' if HOT.exists() else ""

    def command(port: int) -> list[str]:
        settings.write_text(PSMQTT.format(port=port, temperatures=hot))
        return [str(programs / "psmqtt")]

    return Peer(
        name="psmqtt",
        version=_installed(programs, "psmqtt"),
        command=command,
        environ={"PSMQTTCONFIG": str(settings)},
        interval_s=1.0,
        of_round=lambda heard: "/virtual_memory" in heard.topic,
    )


GLANCES = """\
[global]
check_update=false
[mqtt]
host=127.0.0.1
port={port}
tls=false
devicename=lab
user=lab
password=lab
topic=glances
topic_structure=per-plugin
"""


def glances(folder: Path) -> Peer:
    # Its export wants paho and certifi, which are no dependencies of the bare package.
    programs = install(folder / "venv", "glances", "paho-mqtt", "certifi")
    settings = folder / "glances.conf"
    plugins = "cpu,mem,memswap,load,diskio,network" + (",sensors" if HOT.exists() else "")

    def command(port: int) -> list[str]:
        settings.write_text(GLANCES.format(port=port))
        options = ["--quiet", "--time", "1", "--export", "mqtt", "--disable-plugin", "all"]
        return [str(programs / "glances"), "-C", str(settings), *options, "--enable-plugin", plugins]

    return Peer(
        name="Glances",
        version=_installed(programs, "glances"),
        command=command,
        environ={},
        interval_s=1.0,
        of_round=lambda heard: heard.topic.endswith("/mem"),
    )


COLLECTD_PLUGINS = ("cpu", "memory", "swap", "disk", "interface", "load")
COLLECTD_CONF = """\
Hostname "lab"
FQDNLookup false
Interval 1
BaseDir "{folder}"
PIDFile "{folder}/pid"
TypesDB "/usr/share/collectd/types.db"
{plugins}
<Plugin cpu>
  ReportByCpu false
  ValuesPercentage true
</Plugin>
<Plugin mqtt>
  <Publish "bench">
    Host "127.0.0.1"
    Port "{port}"
    Prefix "collectd"
    ClientId "collectd"
  </Publish>
</Plugin>
"""


def collectd(folder: Path) -> Peer:
    if shutil.which(COLLECTD) is None:
        sys.exit(f"collectd is not installed: run `{APT}`, or leave it out with --only")
    plugins = [*COLLECTD_PLUGINS, "mqtt", *(["thermal"] if HOT.exists() else [])]
    loaded = "\n".join(f"LoadPlugin {name}" for name in plugins)
    settings = folder / "collectd.conf"

    def command(port: int) -> list[str]:
        settings.write_text(COLLECTD_CONF.format(folder=folder, port=port, plugins=loaded))
        return [COLLECTD, "-f", "-C", str(settings)]

    return Peer(
        name="collectd",
        version=re.search(r"collectd (\S+),", _said([COLLECTD, "-h"]))[1],  # type: ignore[index]
        command=command,
        environ={},
        interval_s=1.0,
        of_round=lambda heard: heard.topic.endswith("/load/load"),
    )


PEERS: dict[str, list[Callable[[Path], Peer]]] = {
    "neuromodd": [lambda folder: neuromodd(folder, 1.0), lambda folder: neuromodd(folder, 0.1)],
    "psmqtt": [psmqtt],
    "glances": [glances],
    "collectd": [collectd],
}


def _said(command: list[str | Path]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _installed(programs: Path, package: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return _said([programs / "python", "-c", code])


class Trial:
    """One program with a broker of its own."""

    def __init__(self, peer: Peer, folder: Path) -> None:
        self._peer = peer
        self._folder = folder
        self._broker = Broker(folder)
        self._subscriber = Subscriber(self._broker.port, "#")

    def figures(self, *, starts: int, seconds: float, outage_s: float) -> Figures:
        """Start it some times, watch it, take the broker away and give it back."""
        self._start()
        first_s = []
        for _ in range(starts):
            self._stop()
            first_s.append(self._start())
        try:
            time.sleep(QUIET_S)
            window = watch(self._process.pid, self._subscriber, self._peer.of_round, seconds)
            back = self._after_outage(outage_s)
        finally:
            self._stop()
            self._subscriber.close()
            self._broker.stop()
        return Figures(first_s, window, back)

    def _start(self) -> float:
        """Seconds from the start to the first round."""
        known = len(self._subscriber.heard)
        command, environ = self._peer.command(self._broker.port), os.environ | self._peer.environ
        began_s = time.monotonic()
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ
            )
        found = self._first_round(known, FIRST_S)
        if found is None:
            self._stop()
            sys.exit(f"{self._peer.name} publishes nothing: {(self._folder / 'log').read_text()[-2000:]}")
        return found - began_s

    def _stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _first_round(self, known: int, timeout_s: float) -> float | None:
        """When the first message after so many that stands for a round arrived."""
        until_s = time.monotonic() + timeout_s
        while time.monotonic() < until_s:
            found = next((of for of in self._subscriber.heard[known:] if self._peer.of_round(of)), None)
            if found is not None:
                return found.at_s
            time.sleep(0.01)
        return None

    def _after_outage(self, outage_s: float) -> str:
        self._broker.kill()
        time.sleep(outage_s)
        known = len(self._subscriber.heard)
        self._broker.start()
        returned_s = time.monotonic()
        wait_for(self._subscriber.client.is_connected, "the subscriber on the broker that is back")
        found = self._first_round(known, RETURN_S)
        if found is not None:
            return f"yes, {found - returned_s:.1f} s"
        status = self._process.poll()
        return f"no, not in {RETURN_S:.0f} s" + ("" if status is None else f": it ended with {status}")


def _row(name: str, shown: Callable[[Peer, Figures], str], found: list[tuple[Peer, Figures]]) -> list[str]:
    return [name, *(shown(*one) for one in found)]


def _own_lateness(peer: Peer, figures: Figures) -> str:
    if not peer.name.startswith("neuromodd"):
        return ""
    return _quantiles([json.loads(payload)["lateness_ms"] for payload in figures.window.payloads])


def _quantiles(values: list[float]) -> str:
    return f"{quantile(values, 0.5):.1f} ms, {quantile(values, 0.99):.1f} ms" if values else "-"


def _interval(peer: Peer, figures: Figures) -> str:
    intervals_s = figures.window.intervals_s
    if not intervals_s:
        return "-"
    mean_s = statistics.mean(intervals_s)
    kept = abs(mean_s / peer.interval_s - 1.0) < 0.02
    return f"{mean_s:.3f} s" + ("" if kept else f", told {peer.interval_s} s")


def rows(found: list[tuple[Peer, Figures]]) -> list[list[str]]:
    """The table's."""
    shown: list[tuple[str, Callable[[Peer, Figures], str]]] = [
        ("version", lambda peer, _: peer.version.removeprefix("neuromodd ")),
        ("processor, of a core", lambda _, of: f"{of.window.cpu_ratio:.2%}"),
        ("resident memory", lambda _, of: f"{of.window.usage.resident_bytes / 1e6:.1f} MB"),
        ("proportional memory", lambda _, of: f"{of.window.usage.proportional_bytes / 1e6:.1f} MB"),
        ("threads", lambda _, of: str(of.window.usage.threads)),
        ("start to first metrics, median", lambda _, of: f"{statistics.median(of.first_s):.2f} s"),
        ("messages", lambda _, of: f"{of.window.messages_per_s:.1f}/s"),
        ("payloads", lambda _, of: f"{of.window.bytes_per_s / 1000:.2f} kB/s"),
        ("interval between rounds, mean", _interval),
        (
            "interval off what it was told, p50, p99",
            lambda peer, of: _quantiles(of.window.off_ms(peer.interval_s)),
        ),
        ("lateness by its own account, p50, p99", _own_lateness),
        ("back after a broker's outage", lambda _, of: of.back),
    ]
    return [_row(name, show, found) for name, show in shown]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to watch each (60)")
    parser.add_argument("--starts", type=int, default=3, help="how often to time the first metrics (3)")
    parser.add_argument("--outage", type=float, default=10.0, help="how long the broker is away (10)")
    parser.add_argument("--only", nargs="+", choices=PEERS, default=list(PEERS), help="not all of them")
    arguments = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as name:
        makers = [make for only in arguments.only for make in PEERS[only]]
        for number, make in enumerate(makers):
            folder = Path(name) / str(number)
            folder.mkdir()
            peer = make(folder)
            print(f"{peer.name} ...", file=sys.stderr)
            figures = Trial(peer, folder).figures(
                starts=arguments.starts, seconds=arguments.seconds, outage_s=arguments.outage
            )
            found.append((peer, figures))
    load = " ".join(f"{of:.2f}" for of in os.getloadavg())
    print(
        f"{machine_line()}; {arguments.seconds:.0f} s each; broker away for {arguments.outage:.0f} s; ",
        end="",
    )
    print(f"{len(found[0][1].first_s)} starts; load at the end {load}\n")
    print_table(["", *(peer.name for peer, _ in found)], rows(found))


if __name__ == "__main__":
    main()
