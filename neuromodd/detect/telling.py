"""What was found, told in lines or as JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from neuromodd.core.anomaly import Anomaly, probability
from neuromodd.dashboard import report
from neuromodd.detect.rows import Row, Rows
from neuromodd.outputs import Bar

CHANNELS_TOLD = 3


@dataclass(kw_only=True)
class Found:
    """What came of it so far.

    Attributes:
        rows: that were looked at.
        anomalies: that began.
        anomalous_s: how long they lasted, as far as there are times.
        anomalous_rows: in how many rows.
        strangest: the one with the largest surprise.
        first: time or number of the first row.
        last: of the last.
        seconds: wall time.
    """

    rows: int = 0
    anomalies: int = 0
    anomalous_s: float = 0.0
    anomalous_rows: int = 0
    strangest: Anomaly | None = None
    first: Row | None = None
    last: Row | None = None
    seconds: float = 0.0


class Teller:
    """Prints what was found; to standard error if the scores go to standard output."""

    def __init__(self, bar: Bar, *, as_json: bool, scores_to_stdout: bool) -> None:
        self._bar, self._as_json = bar, as_json
        self._file = sys.stderr if scores_to_stdout else sys.stdout

    def anomaly(self, anomaly: Anomaly, first: int, last: int, lasted_s: float, *, ended: bool) -> None:
        """A line for an anomaly."""
        if self._as_json:
            self._print(_anomaly_json(anomaly, first, last, lasted_s, ended=ended))
            return
        if anomaly.since_utc is None:
            since, lasted = f"row {first:,}", f"{last - first + 1:,} rows"
        else:
            since, lasted = _when(anomaly.since_utc), report.duration(lasted_s)
        names = [report.plain(of.name) for of in anomaly.channels]
        more = f" and {len(names) - CHANNELS_TOLD} more" if len(names) > CHANNELS_TOLD else ""
        where = f"{', '.join(names[:CHANNELS_TOLD])}{more}"
        lasted = lasted if ended else f"{lasted}, goes on"
        sentence = _printable(anomaly.sentence)
        self._print(f"{since:<19}  {lasted:<10}  {anomaly.surprise:.2f}  {where}: {sentence}")

    def summary(self, found: Found, rows: Rows, threshold: float) -> None:
        """The line at the end."""
        self._print(_summary_json(found, rows, threshold) if self._as_json else summary(found, rows))

    def _print(self, text: str) -> None:
        self._bar.clear()
        print(text, file=self._file, flush=True)


def summary(found: Found, rows: Rows) -> str:
    """What was found, in a line."""
    count, channels = found.anomalies, len(rows.names)
    span = ""
    if rows.timed and found.first is not None and found.last is not None:
        span = f", {_stamp(found.first)} to {_stamp(found.last)} UTC"
    what = f"{count:,} anomal{'y' if count == 1 else 'ies'}"
    if count:
        lasted = report.duration(found.anomalous_s) if rows.timed else f"{found.anomalous_rows:,} rows"
        strangest = 0.0 if found.strangest is None else found.strangest.surprise
        what += f", {lasted} in all, the strangest {strangest:.2f}"
    skipped = f"; rows skipped {rows.skipped}" if rows.skipped else ""
    speed = f"{found.seconds:.2f} s, {found.rows / max(found.seconds, 1e-9):,.0f} rows/s"
    plural = "" if channels == 1 else "s"
    return f"{found.rows:,} rows of {channels} channel{plural}{span}: {what}{skipped}; {speed}"


def _printable(text: str) -> str:
    """A text in one line, and harmless to a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _when(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(" ", "seconds")[:19]


def _stamp(row: Row) -> str:
    return "-" if row.time_s is None else _when(datetime.fromtimestamp(row.time_s, UTC))


# JSON


def _anomaly_json(anomaly: Anomaly, first: int, last: int, lasted_s: float, *, ended: bool) -> str:
    values = anomaly.model_dump(mode="json")
    told = {
        "kind": "anomaly",
        "since_utc": values["since_utc"],
        "duration_s": None if anomaly.since_utc is None else lasted_s,
        "first_row": first,
        "last_row": last,
        "ended": ended,
        "surprise": anomaly.surprise,
        "probability": probability(anomaly.surprise),
        "channels": values["channels"],
        "sentence": anomaly.sentence,
    }
    return json.dumps(told, allow_nan=False)


def _summary_json(found: Found, rows: Rows, threshold: float) -> str:
    told: dict[str, Any] = {
        "kind": "summary",
        "rows": found.rows,
        "rows_skipped": rows.skipped,
        "channels": list(rows.names),
        "threshold": threshold,
        "first": None if found.first is None else found.first.stamp,
        "last": None if found.last is None else found.last.stamp,
        "anomalies": found.anomalies,
        "anomalous_rows": found.anomalous_rows,
        "anomalous_s": found.anomalous_s if rows.timed else None,
        "seconds": found.seconds,
    }
    return json.dumps(told, allow_nan=False)
