"""One page on a recording: the facts as JSON has them, and as tables for people."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from neuromodd.core.encoding import CHANNELS, ROOM_CELSIUS
from neuromodd.core.frame import TelemetryFrame
from neuromodd.core.modulators import Setpoints, hot_limit, temperature_sensors
from neuromodd.dashboard.digest import (
    GROUPS,
    READING_AT,
    SURPRISE_FROM,
    TOTAL_AT,
    Digest,
    Episode,
    Hour,
    Learned,
    step_ratio,
)
from neuromodd.errors import InvalidValueError

SHOWN_GAPS = 3
SHOWN_REWARDS = 5
SHOWN_FAULTS = 4
HOTTEST = 3

WHOLE_HOUR_S = 600.0
"""An hour of which less was watched is only ranked if there is none of which more was."""

TEXT_CHARACTERS = 40
WIDTH = 80


class Table(NamedTuple):
    """A part of the report: its heading, what the numbers mean, the names of the columns, and the rows."""

    title: str
    note: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def facts(digest: Digest, files: Sequence[Path]) -> dict[str, Any]:
    """All that the report tells, as JSON values; null for what was not measured.

    Raises:
        InvalidValueError: no frame was taken in.
    """
    first, last, start, end = digest.first, digest.last, digest.start, digest.end
    if first is None or last is None or start is None or end is None:
        raise InvalidValueError("report", "no frame", "a recording with frames in the time that is asked for")
    columns = digest.columns()
    means = columns.mean_of_all
    known = columns.known.sum(axis=0)
    gaps = digest.gaps
    passed_s = digest.watched_s + gaps.seconds
    return {
        "nodes": list(digest.nodes),
        "files": [str(file) for file in files],
        "from_utc": _utc(first.time_utc),
        "to_utc": _utc(last.time_utc),
        "frames": digest.frames,
        "interval_s": _share(digest.watched_s, digest.frames - 1 - gaps.count),
        "step": end.step,
        "watched_s": digest.watched_s,
        "watched_ratio": _share(digest.watched_s, passed_s),
        "boots": 1 + gaps.kinds["reboot"],
        "restarts": gaps.kinds["restart"],
        "went_back": digest.went_back,
        "gaps": {
            "count": gaps.count,
            "seconds": gaps.seconds,
            "kinds": dict(sorted(gaps.kinds.items())),
            "longest": [
                {
                    "from_utc": _utc(gap.from_utc),
                    "to_utc": _utc(gap.to_utc),
                    "seconds": gap.seconds,
                    "kind": gap.kind,
                }
                for gap in gaps.longest_first[:SHOWN_GAPS]
            ],
        },
        "hours": _hours(digest.hours),
        "flags": {name: _share(of, digest.watched_s) for name, of in digest.flagged_s.items()},
        "rewards": _rewards(digest),
        "faults": {
            "counts": dict(sorted(digest.fault_counts.items())),
            "episodes": [_episode(of) for of in digest.episodes],
        },
        "surprise": {
            "total": _number(means[TOTAL_AT]),
            "channels": {name: _number(means[SURPRISE_FROM + at]) for at, name in enumerate(CHANNELS)},
            "moments": [
                {
                    "time_utc": _utc(of.time_utc),
                    "channel": of.channel,
                    "expected": of.expected,
                    "came": of.came,
                    "error": of.error,
                    "fresh_network": of.young,
                }
                for of in sorted(digest.moments, key=lambda of: -of.error)
            ],
        },
        "expects": _expects(digest, start, end, known[SURPRISE_FROM : SURPRISE_FROM + GROUPS].tolist()),
        "not_measured": _missing([name for name, at in READING_AT.items() if not known[at]]),
    }


def tables(told: Mapping[str, Any]) -> list[Table]:
    """The report of `facts`, for people."""
    made = (
        _recording_table(told),
        _hours_table(told),
        _rewards_table(told),
        _faults_table(told),
        _moments_table(told),
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
        widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append(shortened(f"  {'  '.join(cells)}".rstrip(), WIDTH))
    return "\n".join(lines)


def as_json(told: Mapping[str, Any]) -> str:
    """The facts as one document."""
    return json.dumps(told, indent=2, allow_nan=False)


def plain(text: str | None) -> str:
    """A string from outside, short, in one line, and harmless to a terminal."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in text or "")
    return shortened(printable, TEXT_CHARACTERS)


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


# Facts


def _hours(hours: Mapping[int, Hour]) -> dict[str, Any]:
    """The hottest, and the busiest; which reading ranks them, is said."""
    watched = {key: hour for key, hour in hours.items() if hour.watched_s > 0.0}
    long = {key: hour for key, hour in watched.items() if hour.watched_s >= WHOLE_HOUR_S} or watched
    warm = {key: of.celsius_s / of.celsius_known_s for key, of in long.items() if of.celsius_known_s}
    busy = {key: of.cpu_s / of.cpu_known_s for key, of in long.items() if of.cpu_known_s}
    stressed = {key: of.cortisol_s / of.watched_s for key, of in long.items()}
    by, ranked = "temperature_celsius", warm
    if not warm:
        by, ranked = ("cpu_utilization_ratio", busy) if busy else ("cortisol", stressed)
    hottest = sorted(ranked, key=lambda key: (-ranked[key], key))[:HOTTEST]
    busiest = min(busy, key=lambda key: (-busy[key], key), default=None)
    return {
        "ranked_by": by,
        "hottest": [_hour(key, hours[key]) for key in hottest],
        "busiest": None if busiest is None else _hour(busiest, hours[busiest]),
    }


def _hour(key: int, hour: Hour) -> dict[str, Any]:
    warm, busy = hour.celsius_known_s > 0.0, hour.cpu_known_s > 0.0
    return {
        "begins_utc": _utc(datetime.fromtimestamp(key * 3600, UTC)),
        "watched_s": hour.watched_s,
        "temperature_celsius_mean": hour.celsius_s / hour.celsius_known_s if warm else None,
        "temperature_celsius_peak": hour.celsius_peak if warm else None,
        "cpu_utilization_ratio_mean": hour.cpu_s / hour.cpu_known_s if busy else None,
        "cpu_utilization_ratio_peak": hour.cpu_peak if busy else None,
        "cortisol_mean": hour.cortisol_s / hour.watched_s,
    }


def _rewards(digest: Digest) -> dict[str, Any]:
    ordered = sorted(digest.rewards.counts.items(), key=lambda of: (-of[1], of[0]))
    best = digest.rewards.best
    return {
        "counts": [
            {"kind": kind, "origin": origin, "source": source or None, "count": count}
            for (kind, origin, source), count in ordered
        ],
        "best_breakthrough": None
        if best is None
        else {
            "time_utc": _utc(digest.rewards.best_utc),
            "metric": best.metric,
            "value": best.value,
            "previous_best": best.previous_best,
            "origin": best.origin,
            "step_ratio": step_ratio(best),
        },
    }


def _episode(episode: Episode) -> dict[str, Any]:
    fault, end_utc = episode.fault, episode.until_utc or episode.seen_utc
    return {
        "class": fault.fault_class.value,
        "code": fault.fault_class.code,
        "since_utc": _utc(episode.since_utc),
        "until_utc": None if episode.until_utc is None else _utc(episode.until_utc),
        "seconds": max((end_utc - episode.since_utc).total_seconds(), 0.0),
        "confidence": fault.confidence,
        "evidence": [of.model_dump(mode="json") for of in fault.evidence],
    }


def _expects(digest: Digest, start: Learned, end: Learned, known: Sequence[int]) -> list[dict[str, Any]]:
    found = []
    for at, channel in enumerate(CHANNELS):
        expected = end.predictions[at] if known[at] else None
        neuron = None
        if at < len(end.weights):
            row = end.weights[at]
            # What was never there may keep a weight, and is not listened to.
            others = [of for of in range(GROUPS) if of != at and known[of]]
            other = max(others, key=lambda of: row[of], default=None)
            neuron = {
                "own_weight": row[at],
                "own_weight_at_start": start.weights[at][at],
                "strongest_other": None if other is None else CHANNELS[other],
                "strongest_other_weight": None if other is None else row[other],
                "threshold": end.thresholds[at],
                "threshold_at_start": start.thresholds[at],
            }
        in_units = None if expected is None else _in_units(channel, expected, digest.last, digest.setpoints)
        found.append({"channel": channel, "expected": expected, "in_units": in_units, "neuron": neuron})
    return found


def _in_units(channel: str, level: float, frame: TelemetryFrame | None, setpoints: Setpoints) -> str:
    """What an intensity of a channel means."""
    if channel == "thermal":
        readings = [] if frame is None else _temperatures(frame, setpoints)
        if readings:
            # The hottest in its own measure: the channel speaks of that device.
            _, limit = max(readings, key=lambda of: (of[0] - ROOM_CELSIUS) / max(of[1] - ROOM_CELSIUS, 1.0))
            return f"{ROOM_CELSIUS + level * max(limit - ROOM_CELSIUS, 1.0):.0f} °C"
        return f"{level:.2f} of its range"
    what = {
        "cpu": "busy",
        "memory": "used",
        "gpu": "busy",
        "gpu_memory": "used",
        "power": "of limit",
        "io": "busy",
        "work": "of target",
    }
    return f"{100.0 * level:.{0 if level >= 0.1 else 1}f} % {what[channel]}"  # noqa: PLR2004


def _temperatures(frame: TelemetryFrame, setpoints: Setpoints) -> list[tuple[float, float]]:
    pairs = [(gpu.temperature_celsius, gpu.slowdown_celsius) for gpu in frame.gpus or ()]
    pairs += [(of.temperature_celsius, of.critical_celsius) for of in temperature_sensors(frame)]
    return [(celsius, hot_limit(limit, setpoints)) for celsius, limit in pairs if celsius is not None]


def _missing(names: Sequence[str]) -> list[str]:
    """The readings that never came, a whole group by its name alone."""
    groups: dict[str, list[str]] = {}
    for name in READING_AT:
        groups.setdefault(name.partition(".")[0], []).append(name)
    found: list[str] = []
    for group, members in groups.items():
        lacking = [name for name in members if name in names]
        found += [group] if len(lacking) == len(members) else lacking
    return found


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
    if hours["busiest"] is not None and hours["ranked_by"] == "temperature_celsius":
        rows.append(
            ("busiest", f"{when(hours['busiest']['begins_utc'])[:16]}: {_hour_text(hours['busiest'])}")
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


def _moments_table(told: Mapping[str, Any]) -> Table:
    rows = [
        (
            when(of["time_utc"]),
            of["channel"],
            f"expected {of['expected']:.2f}",
            f"{of['came']:.2f} came" + ("; a fresh network" if of["fresh_network"] else ""),
        )
        for of in told["surprise"]["moments"]
    ]
    return Table("Most surprising moments", "the intensity of a channel, 0 to 1", (), rows)


def _expects_table(told: Mapping[str, Any]) -> Table:
    rows = []
    for of in told["expects"]:
        neuron, surprise = of["neuron"], told["surprise"]["channels"][of["channel"]]
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
                "-" if surprise is None else f"{surprise:.3f}",
                listens,
                threshold,
            )
        )
    head = ("channel", "expects", "surprise", "its neuron listens to", "threshold")
    return Table("What the network has come to expect", "of each channel, at the end", head, rows)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def percent(ratio: float) -> str:
    """A share; small and near-full ones with a digit more, so that 0 and 100 are only said of all."""
    percent = 100.0 * ratio
    return f"{percent:.0f} %" if percent in {0.0, 100.0} or 10.0 <= percent <= 90.0 else f"{percent:.1f} %"  # noqa: PLR2004


def _utc(time: datetime | None) -> str:
    return (
        "" if time is None else time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def when(time: str | None) -> str:
    """A time of the facts, to the second."""
    return "-" if not time else time[:19].replace("T", " ")
