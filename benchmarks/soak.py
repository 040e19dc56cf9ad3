"""Whether the daemon lasts: a day of ticks one after the other, then ten minutes at 20 Hz in real time.

    python benchmarks/soak.py [--ticks 86400] [--seconds 600] [--quick]

Both daemons read a machine of files whose sensors fail in turn (troubled.py), publish to a private mosquitto
that is killed every so often, record, keep checkpoints and take rewards. The first is that of fastforward.py,
in which a tick is a second later than the last but waits for nothing; the second is `neuromodd run`.

The first part of each run is a warm-up, in which every trouble has been there once and every window is full:
the longest are 600 ticks (lateness), 5 checkpoints, and 8 MB of recordings. Of the day it is the first four
hours. Then all troubles rest until `health` is as at the start, and the process is looked at through /proc;
and again at the end. Prints a Markdown table; exits with 1 if a bound is broken. About 6 and 11 minutes; with
--quick a bit over one for both.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from measuring import machine_line, megabytes, print_table
from ordeal import Ordeal, Outcome, Plan

GROWTH_BYTES = 1_000_000
STATE_BYTES = 16 * 2**20
"""Twice 4 MiB of recordings, the checkpoints, the outbox; far more than these take, far less than a leak."""

POOLS_FULL = 7
"""The loop, the sampler, the outbox, and the four of the pool, which start when as many are busy at once."""


class Verdict(NamedTuple):
    """What was measured, its bound if it has one, and whether it held."""

    what: str
    figure: str
    bound: str = ""
    held: bool = True


def verdicts(of: Outcome) -> list[Verdict]:
    """The rows of the table."""
    growth = of.after.resident_bytes - of.before.resident_bytes
    reconnected = of.health["mqtt"]["connections"] - 1
    failed = {name: one["failures"] for name, one in of.health["sensors"].items() if one["failures"]}
    parts = ("mqtt", "checkpoint", "recorder")
    errors = {part: of.health[part]["error"] for part in parts if of.health[part]["error"]}
    tracebacks = of.log.count("Traceback")
    return [
        Verdict("ran for", f"{of.seconds:.0f} s"),
        Verdict("ticks of the warm-up, in all", f"{of.warm_up_ticks}, {of.health['ticks']['count']}"),
        Verdict("telemetry heard", str(of.telemetry)),
        Verdict("rewards sent, heard", "{}, {}".format(*of.rewards)),
        Verdict(
            "broker killed, connected again",
            f"{of.outages}, {reconnected}",
            "as often",
            of.outages == reconnected > 0,
        ),
        Verdict("troubles", str(of.troubles)),
        Verdict(
            "failures of sensors",
            _listed(failed),
            "of cpu, memory and nvml at least",
            {"cpu", "memory", "nvml"} <= failed.keys(),
        ),
        Verdict(
            "resident memory after warm-up, at the end",
            f"{megabytes(of.before.resident_bytes)}, {megabytes(of.after.resident_bytes)}",
        ),
        Verdict("growth", f"{growth / 1e6:+.2f} MB", "< 1 MB", growth < GROWTH_BYTES),
        Verdict(
            "highest in each quarter after warm-up",
            ", ".join(f"{one / 1e6:.2f}" for one in of.quarters_bytes) + " MB",
        ),
        Verdict(
            "file descriptors after warm-up, at the end",
            f"{of.before.descriptors}, {of.after.descriptors}",
            "equal",
            of.before.descriptors == of.after.descriptors,
        ),
        Verdict(
            "threads after warm-up, at the end",
            f"{of.before.threads}, {of.after.threads}",
            f"equal, or at most {POOLS_FULL}",
            of.after.threads == of.before.threads or of.after.threads <= POOLS_FULL,
        ),
        Verdict(
            "state directory at its largest",
            megabytes(of.state_bytes),
            f"< {STATE_BYTES // 2**20} MiB",
            of.state_bytes < STATE_BYTES,
        ),
        Verdict("errors that stand at the end", _listed(errors), "none", not errors),
        Verdict(
            "sinks that failed", _listed(of.health["sinks_failed"]), "none", not of.health["sinks_failed"]
        ),
        Verdict("tracebacks in the log", str(tracebacks), "0", tracebacks == 0),
        Verdict("exit status on SIGTERM", str(of.status), "0", of.status == 0),
    ]


def _listed(counts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


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
            found = verdicts(Ordeal(plan, Path(name)).live())
        judged = {of: "ok" if of.held else "BROKEN" for of in found if of.bound}
        rows = [(of.what, of.figure, of.bound, judged.get(of, "")) for of in found]
        print_table((plan.name, "figure", "bound", ""), rows)
        print(flush=True)
        broken += sum(not of.held for of in found)
    if broken:
        sys.exit(1)


if __name__ == "__main__":
    main()
