"""The facts on a recording, as JSON has them: null is what was not measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from neuromodd.core.anomaly import ChannelMoment, probability
from neuromodd.core.encoding import CHANNELS, ROOM_CELSIUS
from neuromodd.core.frame import TelemetryFrame
from neuromodd.core.modulators import Setpoints, hot_limit, temperature_sensors
from neuromodd.dashboard.digest import (
    ERROR_FROM,
    ERROR_TOTAL_AT,
    GROUPS,
    READING_AT,
    SURPRISE_AT,
    WATCHED_FROM,
    Digest,
    Episode,
    Hour,
    Learned,
    step_ratio,
)
from neuromodd.dashboard.fold import Columns
from neuromodd.dashboard.strange import unit_of
from neuromodd.errors import InvalidValueError

LONGEST_GAPS = 3
HOTTEST = 3

WHOLE_HOUR_S = 600.0
"""An hour of which less was watched is only ranked if there is none of which more was."""


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
                for gap in gaps.longest_first[:LONGEST_GAPS]
            ],
        },
        "hours": _hours(digest.hours),
        "flags": {name: _share(of, digest.watched_s) for name, of in digest.flagged_s.items()},
        "rewards": _rewards(digest),
        "faults": {
            "counts": dict(sorted(digest.fault_counts.items())),
            "episodes": [_episode(of) for of in digest.episodes],
        },
        "anomalies": _anomalies(digest),
        "surprise": _surprise(digest, columns),
        "prediction_error": {
            "total": _number(means[ERROR_TOTAL_AT]),
            "channels": {name: _number(means[ERROR_FROM + at]) for at, name in enumerate(CHANNELS)},
            "largest": [
                {
                    "time_utc": _utc(of.time_utc),
                    "channel": of.channel,
                    "expected": of.expected,
                    "came": of.came,
                    "error": of.error,
                    "fresh_network": of.young,
                }
                for of in sorted(digest.misses, key=lambda of: -of.error)
            ],
        },
        "expects": _expects(digest, start, end, known[ERROR_FROM : ERROR_FROM + GROUPS].tolist()),
        "not_measured": _missing([name for name, at in READING_AT.items() if not known[at]]),
    }


def _anomalies(digest: Digest) -> dict[str, Any]:
    """How many, how long, and each with its channels; of too many the strangest."""
    found = digest.anomalies
    return {
        "count": found.count,
        "seconds": found.seconds_in_all,
        "episodes": [
            {
                "since_utc": _utc(of.since_utc),
                "until_utc": None if of.until_utc is None else _utc(of.until_utc),
                "seconds": of.seconds,
                "surprise": of.anomaly.surprise,
                "probability": probability(of.anomaly.surprise),
                "channels": [channel.model_dump(mode="json") for channel in of.anomaly.channels],
                "sentence": of.anomaly.sentence,
            }
            for of in found.episodes
        ],
    }


def _surprise(digest: Digest, columns: Columns) -> dict[str, Any] | None:
    """What is normal here, and how strange it became; None if that was not looked for."""
    if not digest.watched:
        return None
    means, known = columns.mean_of_all, columns.known.sum(axis=0)
    newest = {of.name: of for of in digest.anomalies.newest}

    def channel(name: str, at: int) -> dict[str, Any]:
        of = newest.get(name) or ChannelMoment(name, None, None, None, None, None)
        return {
            "name": name,
            "unit": unit_of(name) or None,
            "state": _knowledge(of, ever=bool(known[at])),
            "observed": of.observed,
            "expected": of.expected,
            "low": of.low,
            "high": of.high,
            "surprise_mean": _number(means[at]),
            "surprise_highest": _highest(columns, at),
        }

    return {
        "threshold": digest.surprise.threshold,
        "mean": _number(means[SURPRISE_AT]),
        "highest": _highest(columns, SURPRISE_AT),
        "channels": [channel(name, WATCHED_FROM + at) for name, at in digest.watched.items()],
    }


def _knowledge(of: ChannelMoment, *, ever: bool) -> str:
    """How well a channel is known at the end: `learned`, `learning`, `missing` now, or `never measured`."""
    if of.observed is None:
        return "missing" if ever else "never measured"
    return "learning" if of.surprise is None else "learned"


def _highest(columns: Columns, at: int) -> float | None:
    return float(np.nanmax(columns.high[:, at])) if columns.known[:, at].any() else None


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


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _utc(time: datetime | None) -> str:
    return (
        "" if time is None else time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
