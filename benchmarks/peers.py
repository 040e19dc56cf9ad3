"""What neuromodd costs beside others that publish a host's metrics over MQTT, each run the same way.

    python benchmarks/peers.py [--seconds 60] [--starts 3] [--outage 10] [--only neuromodd collectd ...]

neuromodd at 1 Hz and at 10 Hz, psmqtt, Glances and collectd. Those of PyPI are installed into environments of
their own; collectd is Debian's and has to be there. Each has a private mosquitto, and publishes processor,
memory, disk, network, load and temperatures once a second, as far as it can be told to; Glances with these
plugins alone and a message a plugin, for as it comes it takes several times as much. Each is started once
to fill the page cache and write bytecode, then as often as asked to time the first round of metrics; the last
of these goes on, quietly for a while, then through the window. At the end the broker is killed and, after the
outage, started again. Processor time, memory and threads are those of the program with its children. Prints a
Markdown table with the machine and the date.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from measuring import ROOT, machine_line, print_table
from trial import RETURN_S, Figures, Program, Trial, install, lateness, neuromodd, quantiles, said

QUIET_S = 10.0
HOT = Path("/sys/class/thermal/thermal_zone0")
COLLECTD = "/usr/sbin/collectd"
APT = "apt-get install --no-install-recommends collectd-core"


def ours(folder: Path, interval_s: float) -> Program:
    programs = folder.parent / "neuromodd-venv"
    if not programs.exists():
        install(programs, ROOT)
    return neuromodd(programs / "bin" / "neuromodd", folder / "state", interval_s)


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


def psmqtt(folder: Path) -> Program:
    programs = install(folder / "venv", "psmqtt")
    settings = folder / "psmqtt.yaml"
    hot = '      - {task: sensors_temperatures, params: ["*;"]}\n' if HOT.exists() else ""

    def command(port: int) -> list[str]:
        settings.write_text(PSMQTT.format(port=port, temperatures=hot))
        return [str(programs / "psmqtt")]

    return Program(
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


def glances(folder: Path) -> Program:
    # Its export wants paho and certifi, which are no dependencies of the bare package.
    programs = install(folder / "venv", "glances", "paho-mqtt", "certifi")
    settings = folder / "glances.conf"
    plugins = "cpu,mem,memswap,load,diskio,network" + (",sensors" if HOT.exists() else "")

    def command(port: int) -> list[str]:
        settings.write_text(GLANCES.format(port=port))
        options = ["--quiet", "--time", "1", "--export", "mqtt", "--disable-plugin", "all"]
        return [str(programs / "glances"), "-C", str(settings), *options, "--enable-plugin", plugins]

    return Program(
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


def collectd(folder: Path) -> Program:
    if shutil.which(COLLECTD) is None:
        sys.exit(f"collectd is not installed: run `{APT}`, or leave it out with --only")
    plugins = [*COLLECTD_PLUGINS, "mqtt", *(["thermal"] if HOT.exists() else [])]
    loaded = "\n".join(f"LoadPlugin {name}" for name in plugins)
    settings = folder / "collectd.conf"

    def command(port: int) -> list[str]:
        settings.write_text(COLLECTD_CONF.format(folder=folder, port=port, plugins=loaded))
        return [COLLECTD, "-f", "-C", str(settings)]

    return Program(
        name="collectd",
        version=re.search(r"collectd (\S+),", said(COLLECTD, "-h"))[1],  # type: ignore[index]
        command=command,
        environ={},
        interval_s=1.0,
        of_round=lambda heard: heard.topic.endswith("/load/load"),
    )


PEERS: dict[str, list[Callable[[Path], Program]]] = {
    "neuromodd": [lambda folder: ours(folder, 1.0), lambda folder: ours(folder, 0.1)],
    "psmqtt": [psmqtt],
    "glances": [glances],
    "collectd": [collectd],
}


def _installed(programs: Path, package: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return said(programs / "python", "-c", code)


def _own_lateness(program: Program, figures: Figures) -> str:
    return lateness(figures.window) if program.name.startswith("neuromodd") else ""


def _back(_: Program, figures: Figures) -> str:
    if figures.back_s is not None:
        return f"yes, {figures.back_s:.1f} s"
    ended = "" if figures.ended is None else f": it ended with {figures.ended}"
    return f"no, not in {RETURN_S:.0f} s{ended}"


def _interval(program: Program, figures: Figures) -> str:
    intervals_s = figures.window.intervals_s
    if not intervals_s:
        return "-"
    mean_s = statistics.mean(intervals_s)
    kept = abs(mean_s / program.interval_s - 1.0) < 0.02
    return f"{mean_s:.3f} s" + ("" if kept else f", told {program.interval_s} s")


def rows(found: list[tuple[Program, Figures]]) -> list[list[str]]:
    """The table's."""
    shown: list[tuple[str, Callable[[Program, Figures], str]]] = [
        ("version", lambda program, _: program.version),
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
            lambda program, of: quantiles(of.window.off_ms(program.interval_s)),
        ),
        ("lateness by its own account, p50, p99", _own_lateness),
        ("back after a broker's outage", _back),
    ]
    return [[name, *(show(*one) for one in found)] for name, show in shown]


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
            program = make(folder)
            print(f"{program.name} ...", file=sys.stderr)
            figures = Trial(program, folder).figures(
                starts=arguments.starts, quiet_s=QUIET_S, seconds=arguments.seconds, outage_s=arguments.outage
            )
            found.append((program, figures))
    load = " ".join(f"{of:.2f}" for of in os.getloadavg())
    print(
        f"{machine_line()}; {arguments.seconds:.0f} s each; broker away for {arguments.outage:.0f} s; ",
        end="",
    )
    print(f"{len(found[0][1].first_s)} starts; load at the end {load}\n")
    print_table(["", *(program.name for program, _ in found)], rows(found))


if __name__ == "__main__":
    main()
