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
import statistics
import tempfile
from pathlib import Path

from measuring import ROOT, machine_line, megabytes, print_table
from trial import Figures, Trial, install, lateness, neuromodd

QUIET_S = 10.0


def column(of: Figures, outage_s: float) -> list[tuple[str, str]]:
    """Names and figures."""
    return [
        ("ticks heard in the time", f"{len(of.window.payloads)} in {of.window.seconds:.2f} s"),
        ("processor", f"{of.window.cpu_ratio:.2%} of a core"),
        ("resident memory", megabytes(of.window.usage.resident_bytes)),
        ("proportional memory", megabytes(of.window.usage.proportional_bytes)),
        ("threads", str(of.window.usage.threads)),
        (
            f"start to first message, median / worst of {len(of.first_s)}",
            f"{statistics.median(of.first_s):.2f} s / {max(of.first_s):.2f} s",
        ),
        ("lateness of a tick, p50 / p99", lateness(of.window)),
        (
            f"back after a broker outage of {outage_s:.0f} s",
            "not" if of.back_s is None else f"{of.back_s:.2f} s after its return",
        ),
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
            trial = Trial(neuromodd(program, folder / "state", interval_s), folder)
            figures = trial.figures(
                starts=arguments.starts,
                quiet_s=QUIET_S,
                seconds=arguments.seconds,
                outage_s=arguments.outage,
            )
            found.append(figures)
    print(f"{machine_line()}; {arguments.seconds:.0f} s each, no extras\n")
    columns = [column(of, arguments.outage) for of in found]
    heads = ["measured", *(f"{1 / interval_s:g} Hz" for interval_s in arguments.interval)]
    print_table(heads, [[row[0][0], *(shown for _, shown in row)] for row in zip(*columns, strict=True)])


if __name__ == "__main__":
    main()
