"""How well surprise tells what is strange: on the Numenta Anomaly Benchmark and on the machines of ASD.

    python benchmarks/anomaly.py [--nab DIR] [--asd DIR] [--json] [--jobs 2] [--plain]

DIR of NAB is a clone of github.com/numenta/NAB, or a folder with some of its categories and
`combined_windows.json`; DIR of ASD has an `asd-N.npz` (arrays train, test) and an `asd-N.json` (segments) for
each machine. The detector is the product's own with its defaults: nothing is tuned to the data, but the
threshold, as both benchmarks have it. Therefore there is a row for a threshold that was chosen on other
files, and one for that of the product. The range rule beside it flags what is outside the range seen so far
by 5 % of it. Prints Markdown tables with the machine and the date.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import asd
import nab
import numpy as np
from measuring import machine_line, print_table

from neuromodd.core.anomaly import Moment
from neuromodd.core.engine import numba_installed
from neuromodd.core.surprise import SurpriseDetector, SurpriseParameters
from neuromodd.detect.csv_rows import CsvRows

T = TypeVar("T")
R = TypeVar("R")

THRESHOLD = SurpriseParameters().threshold
MARGIN_RATIO = 0.05
MIDNIGHT_S = datetime(2024, 1, 1, tzinfo=UTC).timestamp()
STEP_S = 300.0


class RangeRule:
    """How far readings are outside the range seen so far, in widths of it; 0 within a margin."""

    def __init__(self, channels: int) -> None:
        self._low, self._high = np.full(channels, np.inf), np.full(channels, -np.inf)

    def update(self, values: asd.Floats) -> asd.Floats:
        """Take in a row; a channel without a reading is not outside."""
        width = np.maximum(self._high - self._low, 0.0)
        outside = np.maximum(values - self._high, self._low - values)
        # Where there was one value alone, any other is wholly outside.
        excess = np.where(width > 0.0, outside / np.where(width > 0.0, width, 1.0), np.sign(outside))
        excess = np.where(np.isfinite(self._low) & (excess > MARGIN_RATIO), excess, 0.0)
        self._low, self._high = np.fmin(self._low, values), np.fmax(self._high, values)
        return excess


# NAB


class Stream(NamedTuple):
    """What a file of NAB led to: its times, and the scores of detector and range rule."""

    times: list[str]
    scores: list[float]
    outside: list[float]


def watch_file(path: Path, *, compiled: bool) -> Stream:
    detector, rule = SurpriseDetector(("value",), compiled=compiled), RangeRule(1)
    stream = Stream([], [], [])
    with path.open("rb") as file:
        rows = CsvRows(file, str(path), columns=("value",))
        for row in rows:
            moment = detector.update(row.values, row.time_s)
            value = np.array([np.nan if row.values[0] is None else row.values[0]])
            stream.times.append(row.stamp[:19])
            stream.scores.append(moment.score or 0.0)
            stream.outside.append(float(rule.update(value)[0] > 0.0))
        rows.close()
    return stream


def measure_nab(directory: Path, jobs: int, *, compiled: bool) -> dict[str, Any]:
    files = nab.corpus(directory)
    streams = spread(partial(watch_file, compiled=compiled), [of.path for of in files], jobs)
    weighed, outside = {}, []
    for file, stream in zip(files, streams, strict=True):
        weighed[file] = nab.weigh(stream.times, stream.scores, file.windows)
        outside.append(nab.weigh(stream.times, stream.outside, file.windows))
    ours = list(weighed.values())
    first, second, both = nab.crossed(weighed, nab.PROFILES["standard"])
    return {
        "files": len(files),
        "rows": sum(len(of.times) for of in streams),
        "windows": sum(len(of.windows) for of in files),
        "best": {name: nab.score(ours, profile)._asdict() for name, profile in nab.PROFILES.items()},
        "product": {
            name: nab.score(ours, profile, THRESHOLD)._asdict() for name, profile in nab.PROFILES.items()
        },
        "crossed": {"halves": [first._asdict(), second._asdict()], "score": both},
        "range": {name: nab.score(outside, profile)._asdict() for name, profile in nab.PROFILES.items()},
        "published": nab.PUBLISHED,
    }


def print_nab(measured: dict[str, Any]) -> None:
    def row(name: str, of: dict[str, Any]) -> list[str]:
        hit = f"{of['hit']} of {of['windows']}"
        return [name, f"{of['score']:.1f}", hit, f"{of['false']:,}", f"{of['threshold']:.4g}"]

    rows = [row(f"{name}, best threshold for all files", of) for name, of in measured["best"].items()]
    rows += [row(f"{name}, the product's threshold", of) for name, of in measured["product"].items()]
    crossed = measured["crossed"]
    for at, of in enumerate(crossed["halves"]):
        rows.append(row(f"standard, half {at}, threshold of the other", of))
    hit, windows, false = (sum(of[name] for of in crossed["halves"]) for name in ("hit", "windows", "false"))
    rows.append(
        ["standard, both halves so", f"{crossed['score']:.1f}", f"{hit} of {windows}", f"{false:,}", ""]
    )
    rows += [row(f"range rule, {name}", of) for name, of in measured["range"].items()]
    rows += [
        [f"{name}, standard, published for all 58 files", f"{score:.1f}", "", "", ""]
        for name, score in measured["published"].items()
    ]
    what = f"NAB: {measured['files']} files, {measured['rows']:,} rows, {measured['windows']} windows"
    print_table([what, "score", "windows hit", "false rows", "threshold"], rows)


# ASD


class Watched(NamedTuple):
    """What the test rows of a machine led to.

    Attributes:
        score: on which alarms are decided.
        surprise: of all channels.
        channels: of each, (rows, channels).
        outside: of the range rule, likewise.
    """

    score: asd.Floats
    surprise: asd.Floats
    channels: asd.Floats
    outside: asd.Floats


def watch_machine(machine: asd.Machine, *, compiled: bool) -> Watched:
    """The train rows and then the test rows through one detector."""
    count = machine.test.shape[1]
    names = [f"m{at + 1}" for at in range(count)]
    detector, rule = SurpriseDetector(names, compiled=compiled), RangeRule(count)
    moments: list[Moment] = []
    outside = []
    for at, values in enumerate(np.vstack((machine.train, machine.test))):
        moments.append(detector.update(values.tolist(), MIDNIGHT_S + STEP_S * at))
        outside.append(rule.update(values))
        if at < len(machine.train):
            moments.clear()
            outside.clear()
    return Watched(
        score=np.array([of.score or 0.0 for of in moments]),
        surprise=np.array([of.surprise or 0.0 for of in moments]),
        channels=np.array([[channel.surprise or 0.0 for channel in of.channels] for of in moments]),
        outside=np.array(outside),
    )


def measure_asd(directory: Path, jobs: int, *, compiled: bool) -> dict[str, Any]:
    machines = list(asd.machines(directory))
    watched = spread(partial(watch_machine, compiled=compiled), machines, jobs)
    segments = [of.segments for of in machines]
    total, days = sum(map(len, segments)), sum(len(of.test) for of in machines) / asd.ROWS_A_DAY
    product = asd.count([of.score for of in watched], segments, THRESHOLD)

    def told(scores: Sequence[asd.Floats], channels: Sequence[asd.Floats]) -> dict[str, Any]:
        curve = {str(limit): best._asdict() for limit, best in asd.curve(scores, segments).items()}
        return {"curve": curve, "attributed": asd.attributed(channels, segments)}

    channels = [of.channels for of in watched]
    outside = [of.outside for of in watched]
    return {
        "machines": len(machines),
        "days": days,
        "segments": total,
        "score": told([of.score for of in watched], channels),
        "surprise": told([of.surprise for of in watched], channels),
        "range": told([of.max(axis=1) for of in outside], outside),
        "product": {**product._asdict(), "false_a_day": product.false / days},
    }


def print_asd(measured: dict[str, Any]) -> None:
    total, rows = measured["segments"], []
    names = {"score": "score (held down in an episode)", "surprise": "surprise", "range": "range rule"}
    for key, name in names.items():
        of = measured[key]
        rows.append([name, *map(cell, of["curve"].values()), f"{of['attributed']}"])
    what = f"ASD: {measured['machines']} machines, {measured['days']:.0f} machine-days; found of {total} at"
    limits = [f"{limit:g} false a day" for limit in asd.LIMITS]
    print_table([what, *limits, f"a labelled metric among the top {asd.TOP}"], rows)
    product = measured["product"]
    print(
        f"\nAt the product's threshold of {THRESHOLD:g} the score finds {product['found']} of {total}, with "
        f"{product['false_a_day']:.2f} false events a machine and day."
    )


def cell(best: dict[str, Any]) -> str:
    """Found segments; the threshold, and the share of rows that are alarms."""
    if best["threshold"] is None:
        return "0"
    return f"{best['found']} (from {best['threshold']:.3g}: {best['alarmed_ratio']:.2%} of rows)"


def spread(work: Callable[[T], R], items: Iterable[T], jobs: int) -> list[R]:
    """The results in order, from as many processes."""
    if jobs == 1:
        return [work(item) for item in items]
    with ProcessPoolExecutor(jobs) as pool:
        return list(pool.map(work, items))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nab", type=Path, metavar="DIR", help="the Numenta Anomaly Benchmark")
    parser.add_argument("--asd", type=Path, metavar="DIR", help="the machines of ASD")
    parser.add_argument("--json", action="store_true", help="all figures as JSON")
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    parser.add_argument("--plain", action="store_true", help="in plain Python even where numba is installed")
    arguments = parser.parse_args()
    if arguments.nab is None and arguments.asd is None:
        parser.error("expected --nab DIR, --asd DIR or both")
    compiled = numba_installed() and not arguments.plain
    measured = {}
    if arguments.nab is not None:
        measured["nab"] = measure_nab(arguments.nab, arguments.jobs, compiled=compiled)
    if arguments.asd is not None:
        measured["asd"] = measure_asd(arguments.asd, arguments.jobs, compiled=compiled)
    if arguments.json:
        print(json.dumps(measured, indent=2))
        return
    print(f"{machine_line()}{'; compiled' if compiled else ''}")
    for name, show in (("nab", print_nab), ("asd", print_asd)):
        if name in measured:
            print()
            show(measured[name])


if __name__ == "__main__":
    main()
