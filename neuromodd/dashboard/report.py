"""One page on a recording: its facts as tables, in plain text."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from neuromodd.dashboard.glyphs import UNICODE, amount
from neuromodd.dashboard.strange import odds

SHOWN_REWARDS = 5
SHOWN_FAULTS = 4
SHOWN_ANOMALIES = 3
SHOWN_CHANNELS = 12
SENTENCE_LINES = 2
TEXT_CHARACTERS = 40
WIDTH = 80


class Table(NamedTuple):
    """A part of the report: its heading, what the numbers mean, the names of the columns, and the rows.

    A row of a single cell goes over all columns.
    """

    title: str
    note: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def tables(told: Mapping[str, Any]) -> list[Table]:
    """The report of `facts`, for people."""
    made = (
        _recording_table(told),
        _hours_table(told),
        _rewards_table(told),
        _faults_table(told),
        _anomalies_table(told),
        _normal_table(told),
        _misses_table(told),
        _expects_table(told),
    )
    return [table for table in made if table.rows]


def title(told: Mapping[str, Any]) -> str:
    """What was recorded, in a line."""
    nodes = ", ".join(plain(node) or "(no name)" for node in told["nodes"][:2])
    more = f" and {len(told['nodes']) - 2} more" if len(told["nodes"]) > 2 else ""  # noqa: PLR2004
    return f"{nodes}{more}, {span(told)} UTC"


def span(told: Mapping[str, Any]) -> str:
    """From when to when; the date once, if it is one."""
    first, last = when(told["from_utc"]), when(told["to_utc"])
    return f"{first} to {last[11:] if first[:10] == last[:10] else last}"


def text(told: Mapping[str, Any]) -> str:
    """The report as plain text: a page of 80 columns."""
    lines = [f"neuromodd report: {title(told)}"]
    for table in tables(told):
        lines += ["", f"{table.title}: {table.note}" if table.note else table.title]
        rows = [table.head, *table.rows] if table.head else table.rows
        whole = max(map(len, rows))
        widths = [max(len(row[at]) for row in rows if len(row) == whole) for at in range(whole)]
        for row in rows:
            if len(row) < whole:
                lines += broken(row[0])
                continue
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append(shortened(f"  {'  '.join(cells)}".rstrip(), WIDTH))
    return "\n".join(lines)


def broken(sentence: str) -> list[str]:
    """A sentence as indented lines."""
    space = "    "
    return textwrap.wrap(
        sentence,
        WIDTH,
        initial_indent=space,
        subsequent_indent=space,
        max_lines=SENTENCE_LINES,
        placeholder=" …",
    )


def as_json(told: Mapping[str, Any]) -> str:
    """The facts as one document."""
    return json.dumps(told, indent=2, allow_nan=False)


def plain(text: str | None) -> str:
    """A string from outside, short, in one line, and harmless to a terminal."""
    return shortened(printable(text), TEXT_CHARACTERS)


def printable(text: str | None) -> str:
    """A string from outside in one line, and harmless to a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text or "")


def shortened(text: str, limit: int) -> str:
    """A text, cut to `limit` characters."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def duration(seconds: float | None) -> str:
    """A time span in its two largest units; `-` where it is not known."""
    if seconds is None:
        return "-"
    if seconds < 59.95:  # noqa: PLR2004 - what is more is 60 at three digits
        return f"{seconds:.3g} s"
    left = round(seconds)
    parts: list[str] = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count} {unit}" if count else "")
    return " ".join(part for part in parts[:2] if part)


# Tables


def _recording_table(told: Mapping[str, Any]) -> Table:
    gaps, files = told["gaps"], told["files"]
    names = Path(files[0]).name if len(files) == 1 else f"{Path(files[0]).name} to {Path(files[-1]).name}"
    share = "" if told["watched_ratio"] is None else f", {percent(told['watched_ratio'])} of the time"
    kinds = ", ".join(f"{count} {kind}" for kind, count in gaps["kinds"].items())
    rows = [
        ("files", f"{len(files)}: {plain(names)}"),
        ("frames", f"{told['frames']:,}, one in {duration(told['interval_s'])} on average"),
        ("watched", f"{duration(told['watched_s'])}{share}; step {told['step']:,} of the network"),
        (
            "gaps",
            f"{gaps['count']}, {duration(gaps['seconds'])} in all: {kinds}" if gaps["count"] else "none",
        ),
    ]
    rows += [
        ("", f"{when(of['from_utc'])}  {duration(of['seconds'])}, {of['kind']}") for of in gaps["longest"]
    ]
    if told["went_back"]:
        rows.append(
            ("clock", f"time went back {told['went_back']} times: a clock step, or files out of order")
        )
    if told["not_measured"]:
        rows.append(("not measured", ", ".join(told["not_measured"])))
    return Table("Recording", "", (), rows)


_RANKS = {
    "temperature_celsius": ("Hottest hours", "by the mean of the hottest sensor"),
    "cpu_utilization_ratio": ("Hottest hours", "no temperature was measured, so by CPU utilisation"),
    "cortisol": ("Hottest hours", "no temperature and no CPU was measured, so by cortisol"),
}


def _hours_table(told: Mapping[str, Any]) -> Table:
    hours, flags = told["hours"], told["flags"]
    heading, note = _RANKS[hours["ranked_by"]]
    rows = [(when(of["begins_utc"])[:16], _hour_text(of)) for of in hours["hottest"]]
    busiest = hours["busiest"]
    if busiest is not None and hours["ranked_by"] == "temperature_celsius":
        rows.append(
            (
                "busiest",
                f"{when(busiest['begins_utc'])[:16]}: CPU {percent(busiest['cpu_utilization_ratio_mean'])}",
            )
        )
    if flags["stress"] is not None:
        shares = (
            f"stress {percent(flags['stress'])} (cortisol > 0.5), "
            f"reward {percent(flags['reward'])}, focus {percent(flags['focus'])}"
        )
        rows.append(("share of time", shares))
    return Table(heading, note, (), rows)


def _hour_text(hour: Mapping[str, Any]) -> str:
    parts = []
    if hour["temperature_celsius_mean"] is not None:
        warm, peak = hour["temperature_celsius_mean"], hour["temperature_celsius_peak"]
        parts.append(f"{warm:.1f} °C, peak {peak:.1f}")
    if hour["cpu_utilization_ratio_mean"] is not None:
        busy, peak = hour["cpu_utilization_ratio_mean"], hour["cpu_utilization_ratio_peak"]
        parts.append(f"CPU {percent(busy)}, peak {percent(peak)}")
    parts.append(f"cortisol {hour['cortisol_mean']:.2f}")
    if hour["watched_s"] < 3540.0:  # noqa: PLR2004 - a minute less is still an hour
        parts.append(f"{duration(hour['watched_s'])} of it")
    return "; ".join(parts)


def _rewards_table(told: Mapping[str, Any]) -> Table:
    counts, best = told["rewards"]["counts"], told["rewards"]["best_breakthrough"]
    words = {"detected": "detected here", "external": "from outside"}
    rows = [
        (f"{of['count']:,}", of["kind"], words[of["origin"]], plain(of["source"]))
        for of in counts[:SHOWN_REWARDS]
    ]
    rest = counts[SHOWN_REWARDS:]
    if rest:
        rows.append((f"{sum(of['count'] for of in rest):,}", f"of {len(rest)} other sorts", "", ""))
    if best is not None:
        step = f"{best['previous_best']:.4g} to {best['value']:.4g}, {percent(best['step_ratio'])}"
        rows.append(("best", plain(best["metric"]) or "-", step, when(best["time_utc"])))
    return Table("Rewards", "" if rows else "none", (), rows or [("none", "", "", "")])


def _faults_table(told: Mapping[str, Any]) -> Table:
    episodes = told["faults"]["episodes"]
    rows = [
        (
            of["code"],
            when(of["since_utc"]),
            duration(of["seconds"]) + ("" if of["until_utc"] else ", still"),
            f"{of['confidence']:.0%}",
            plain(_evidence(of["evidence"])),
        )
        for of in episodes[:SHOWN_FAULTS]
    ]
    count = sum(told["faults"]["counts"].values())
    if count > len(rows):
        rows.append((f"{count - len(rows)} more", "", "", "", ""))
    if not rows:
        return Table("Faults", "", (), [("none", "", "", "", "")])
    return Table("Faults", "", ("code", "since", "for", "sure", "evidence"), rows)


def _evidence(evidence: Sequence[Mapping[str, Any]]) -> str:
    if not evidence:
        return "-"
    more = f" +{len(evidence) - 1}" if len(evidence) > 1 else ""
    value = evidence[0]["value"]
    return (
        f"{evidence[0]['reading']} {value:.4g}{more}"
        if _is_number(value)
        else f"{evidence[0]['reading']} {value}{more}"
    )


def _anomalies_table(told: Mapping[str, Any]) -> Table:
    """The strangest, in order of time, each with what was strange in plain words."""
    found, title = told["anomalies"], "Anomalies"
    if told["surprise"] is None:
        return Table(title, "", (), [("not looked for: surprise was disabled",)])
    learning = [of["name"] for of in told["surprise"]["channels"] if of["state"] == "learning"]
    still = f"still being learned: {', '.join(map(plain, learning[:SHOWN_CHANNELS]))}"
    rows: list[tuple[str, ...]] = []
    strangest = sorted(found["episodes"], key=lambda of: -of["surprise"])[:SHOWN_ANOMALIES]
    for of in sorted(strangest, key=lambda of: str(of["since_utc"])):
        lasted = duration(of["seconds"]) + ("" if of["until_utc"] else ", still")
        names = ", ".join(plain(channel["name"]) for channel in of["channels"])
        rare = f"{of['surprise']:.2f}, {odds(of['surprise'])}"
        rows += [(when(of["since_utc"]), lasted, rare, names or "-"), (printable(of["sentence"]),)]
    if found["count"] > len(strangest):
        rows.append((f"{found['count'] - len(strangest)} more, less strange",))
    if learning:
        rows.append((still,))
    if not found["count"]:
        return Table(title, "", (), [("none",), *rows])
    head = ("since", "for", "surprise", "channels")
    return Table(title, f"{found['count']}, {duration(found['seconds'])} in all", head, rows)


def _normal_table(told: Mapping[str, Any]) -> Table:
    """What is expected of each channel at the end."""
    surprise = told["surprise"]
    channels = [] if surprise is None else surprise["channels"]
    rows = [
        (
            plain(of["name"]),
            _normal(of),
            quantity(of["observed"], of["unit"]),
            "-" if of["surprise_highest"] is None else f"{of['surprise_highest']:.2f}",
        )
        for of in channels[:SHOWN_CHANNELS]
    ]
    if len(channels) > len(rows):
        rows.append((f"{len(channels) - len(rows)} more", "", "", ""))
    head = ("channel", "normal", "last", "surprise at most")
    return Table("What is normal here", "nine of ten moments are within", head, rows)


def _normal(channel: Mapping[str, Any]) -> str:
    words = {"learning": "still being learned", "never measured": "never measured"}
    if channel["state"] in words:
        return words[channel["state"]]
    if channel["low"] is None or channel["high"] is None:
        return "not known"
    low, high = (quantity(channel[end], channel["unit"]) for end in ("low", "high"))
    return f"{low} to {high}"


def quantity(value: float | None, unit: str | None) -> str:
    """A number in its unit; `-` if there is none."""
    if value is not None and unit == "ratio":
        return percent(value)
    return " ".join(amount(value, unit or "", UNICODE)).strip()


def _misses_table(told: Mapping[str, Any]) -> Table:
    rows = [
        (
            when(of["time_utc"]),
            of["channel"],
            f"expected {of['expected']:.2f}",
            f"{of['came']:.2f} came" + ("; a fresh network" if of["fresh_network"] else ""),
        )
        for of in told["prediction_error"]["largest"]
    ]
    return Table("Largest prediction errors", "the intensity of a channel, 0 to 1", (), rows)


def _expects_table(told: Mapping[str, Any]) -> Table:
    rows = []
    for of in told["expects"]:
        neuron, error = of["neuron"], told["prediction_error"]["channels"][of["channel"]]
        listens = threshold = "-"
        if neuron is not None:
            # Nobody listens to what was never there, whatever weight it was born with.
            heard = [] if of["expected"] is None else [(neuron["own_weight"], "itself")]
            if neuron["strongest_other"] is not None:
                heard.append((neuron["strongest_other_weight"], neuron["strongest_other"]))
            heard.sort(key=lambda pair: -pair[0])
            listens = ", ".join(f"{name} {weight:.2f}" for weight, name in heard) or "-"
            threshold = f"{neuron['threshold']:.2f}"
        rows.append(
            (
                of["channel"],
                of["in_units"] or "never measured",
                "-" if error is None else f"{error:.3f}",
                listens,
                threshold,
            )
        )
    head = ("channel", "expects", "error", "its neuron listens to", "threshold")
    return Table("What the network has come to expect", "error is mean |measured - expected|", head, rows)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def percent(ratio: float) -> str:
    """A share; small and near-full ones with a digit more, so that 0 and 100 are only said of all."""
    percent = 100.0 * ratio
    return f"{percent:.0f} %" if percent in {0.0, 100.0} or 10.0 <= percent <= 90.0 else f"{percent:.1f} %"  # noqa: PLR2004


def when(time: str | None) -> str:
    """A time of the facts, to the second."""
    return "-" if not time else time[:19].replace("T", " ")
