"""The metrics of Prometheus: everything that `state`, `telemetry` and `health` say, in base units.

The only importer of prometheus_client. Nothing is counted for it: a scrape turns the newest tick and the
health of that moment into samples. What is not measured has no sample, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from neuromodd import __version__
from neuromodd.core.diagnostics import FaultClass
from neuromodd.core.encoding import CHANNELS, DRIVES

if TYPE_CHECKING:
    from neuromodd.core.brain import Tick
    from neuromodd.dashboard.history import Column
    from neuromodd.dashboard.web import Web

BASE_UNITS = {
    "bytes_per_s": ("bytes_per_second", 1.0),
    "per_s": ("per_second", 1.0),
    "hz": ("hertz", 1.0),
    "ms": ("seconds", 1e-3),
    "ns": ("seconds", 1e-9),
}
"""What a name ends in, what it is to end in, and by how much the value is multiplied."""

DEVICE_LABELS = {"thermal": "sensor", "fans": "fan", "voltages": "input", "gpus": "gpu"}
DEVICE_NAMES = {"thermal": "thermal", "fans": "fan", "voltages": "voltage", "gpus": "gpu"}

SENSOR_STATES = ("ok", "absent", "failed", "hung")


def exposition(web: Web, accept: str) -> tuple[bytes, str]:
    """All metrics of now in the format that an Accept header asks for, and its content type."""
    encode, kind = choose_encoder(accept)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Everything(web))
    return encode(registry), kind


class _Everything(Collector):
    def __init__(self, web: Web) -> None:
        self._web = web

    def describe(self) -> Iterable[Metric]:
        # Else the registry would collect everything once more to learn the names.
        return ()

    def collect(self) -> Iterator[Metric]:
        return (metric for metric in self._all() if metric.samples)

    def _all(self) -> Iterator[Metric]:
        web = self._web
        yield _gauge("build_info", "1; the version is in the label.", [((__version__,), 1.0)], "version")
        yield _gauge("tick_interval_seconds", "From one tick to the next, as set.", web.interval_s)
        yield from _daemon(web.source.alive()["health"])
        yield _counter("rewards", "Reward events since the start.", web.rewards.items(), "kind", "origin")
        if web.newest is not None:
            yield from _state(web.newest)
            yield from _surprise(web, web.newest)
            yield from _telemetry(web, web.newest)


Samples = float | Iterable[tuple[tuple[str, ...], float | None]] | None
"""A number; or pairs of the labels' values and a number."""


def _gauge(name: str, text: str, samples: Samples, *labels: str) -> Metric:
    return _filled(GaugeMetricFamily, name, text, samples, labels)


def _counter(name: str, text: str, samples: Samples, *labels: str) -> Metric:
    return _filled(CounterMetricFamily, name, text, samples, labels)


def _filled(
    family: type[GaugeMetricFamily | CounterMetricFamily],
    name: str,
    text: str,
    samples: Samples,
    labels: Sequence[str],
) -> Metric:
    metric = family(f"neuromodd_{name}", text, labels=labels)
    for of, value in samples if isinstance(samples, Iterable) else [((), samples)]:
        if value is not None:
            metric.add_metric(of, float(value))
    return metric


class _Count(NamedTuple):
    """A number in `health`: where it is, and what it is called here."""

    path: str
    name: str
    text: str


COUNTERS = (
    _Count("ticks.count", "ticks", "Ticks since the start."),
    _Count("ticks.late", "ticks_late", "Ticks that began over 50 ms after their due time."),
    _Count("ticks.missed", "ticks_missed", "Ticks that never took place."),
    _Count("ticks.gaps", "gaps", "Gaps in time: suspends, stalls, a clock that went back."),
    _Count("mqtt.connections", "mqtt_connections", "Connections to the broker since the start."),
    _Count("mqtt.published", "mqtt_published", "Messages published since the start."),
    _Count("mqtt.dropped", "mqtt_dropped", "Messages that gave way to newer ones or to a bound."),
    _Count("checkpoint.written", "checkpoints_written", "Checkpoints written since the start."),
    _Count("checkpoint.failures", "checkpoint_failures", "Checkpoints that could not be written."),
    _Count("recorder.frames", "recorder_frames", "Frames recorded since the start."),
    _Count("recorder.dropped", "recorder_dropped", "Frames that are missing in the recordings."),
)

GAUGES = (
    _Count("uptime_s", "uptime_seconds", "Since the daemon began."),
    _Count("mqtt.connected", "mqtt_connected", "1 while there is a connection to the broker."),
    _Count("mqtt.outbox.waiting", "outbox_waiting", "Events that wait for the broker."),
    _Count("mqtt.outbox.waiting_bytes", "outbox_waiting_bytes", "The size of their payloads."),
    _Count("mqtt.outbox.oldest_age_s", "outbox_oldest_age_seconds", "How long the oldest has waited."),
    _Count("checkpoint.age_s", "checkpoint_age_seconds", "Since the last checkpoint reached the disk."),
    _Count("recorder.total_bytes", "recorder_size_bytes", "The size of all recordings."),
    _Count("web.pages", "web_pages", "Pages that are open."),
)


def _daemon(health: Mapping[str, Any]) -> Iterator[Metric]:
    for count in COUNTERS:
        yield _counter(count.name, count.text, _at(health, count.path))
    for count in GAUGES:
        yield _gauge(count.name, count.text, _at(health, count.path))
    p99_ms = health["ticks"]["lateness_p99_ms"]
    yield _gauge(
        "tick_lateness_p99_seconds",
        "How late a tick began, the 99th percentile of the last 600.",
        None if p99_ms is None else p99_ms / 1e3,
    )
    sensors = health["sensors"]
    states = {
        (name, state): float(sensor["state"] == state)
        for name, sensor in sensors.items()
        for state in SENSOR_STATES
    }
    yield _gauge("sensor_state", "1 for the state that a sensor is in.", states.items(), "sensor", "state")
    failures = {(name,): sensor["failures"] for name, sensor in sensors.items()}
    yield _counter("sensor_failures", "Failures of a sensor since the start.", failures.items(), "sensor")
    durations = {
        (name,): None if sensor["duration_ms"] is None else sensor["duration_ms"] / 1e3
        for name, sensor in sensors.items()
    }
    yield _gauge(
        "sensor_duration_seconds", "How long a sensor's last reading took.", durations.items(), "sensor"
    )
    sinks = {(name,): count for name, count in health["sinks_failed"].items()}
    yield _counter("sink_failures", "Exceptions of a sink since the start.", sinks.items(), "sink")
    faults = {(name,): count for name, count in health["faults"].items()}
    yield _counter(
        "faults", "How often a class of fault has begun since the first start.", faults.items(), "class"
    )


def _at(values: Mapping[str, Any], path: str) -> float | None:
    """The number at a path; None where the way there is null."""
    found: Any = values
    for part in path.split("."):
        if found is None:
            return None
        found = found[part]
    return None if found is None else float(found)


def _state(tick: Tick) -> Iterator[Metric]:
    time_utc = tick.frame.time_utc
    yield _gauge(
        "last_tick_timestamp_seconds",
        "When the newest tick was, in seconds since 1970.",
        None if time_utc is None else time_utc.timestamp(),
    )
    yield _counter("network_steps", "Steps of the network since the first start.", tick.result.step)
    levels = ("dopamine", "cortisol", "acetylcholine", "tempo")
    for name, text, part in (
        ("modulator_level", "The level that the network ran under.", tick.modulators),
        ("modulator_tonic_level", "The part of it that telemetry speaks for.", tick.tonic),
        ("modulator_phasic_level", "The part of it that events left.", tick.phasic),
    ):
        values = {(level,): getattr(part, level, None) for level in levels}
        yield _gauge(name, text, values.items(), "modulator")
    flags = {("stress",): tick.stressed, ("reward",): tick.rewarded, ("focus",): tick.focused}
    yield _gauge("flag", "1 while a flag is raised.", flags.items(), "flag")
    yield _gauge(
        "prediction_error",
        "How far the channels are from what the network predicted, their mean, from 0 to 1.",
        tick.error_total,
    )
    errors = zip(CHANNELS, tick.result.prediction_error, strict=True)
    yield _gauge(
        "channel_prediction_error",
        "How far a channel is from what the network predicted, from 0 to 1.",
        (((channel,), error) for channel, error in errors),
        "channel",
    )
    yield _gauge(
        "neuron_firing_ratio",
        "Spikes a step of a neuron in the newest tick.",
        _rates(tick).items(),
        "population",
        "neuron",
        "input",
    )
    held = tick.fault.fault_class
    yield _gauge(
        "fault",
        "1 for the class of fault that holds.",
        [((of.value, of.code), float(of is held)) for of in FaultClass],
        "class",
        "code",
    )
    yield _gauge("fault_confidence_ratio", "How sure that classification is.", tick.fault.confidence)


def _surprise(web: Web, tick: Tick) -> Iterator[Metric]:
    moment = tick.surprise
    if moment is None:
        return
    yield _gauge(
        "surprise",
        "How improbable this moment is on this host: a normal one is as strange with probability 10^(-10 s).",
        moment.surprise,
    )
    yield _gauge(
        "channel_surprise",
        "How improbable the reading of a channel is on this host, on the same scale.",
        (((of.name,), of.surprise) for of in moment.channels),
        "channel",
    )
    threshold = web.source.surprise().threshold
    yield _gauge("surprise_threshold", "The surprise from which an anomaly begins.", threshold)
    yield _gauge("anomaly", "1 while an anomaly holds.", float(moment.episode is not None))
    yield _counter("anomalies", "Anomalies that began since the start.", float(web.anomalies))


def _rates(tick: Tick) -> dict[tuple[str, ...], float]:
    populations = (
        ("lif", tick.result.lif_rates, CHANNELS),
        ("izhikevich", tick.result.izhikevich_rates, DRIVES),
    )
    return {
        (population, str(neuron), names[neuron % len(names)]): rate
        for population, rates, names in populations
        for neuron, rate in enumerate(rates[:PER_POPULATION])
    }


PER_POPULATION = 64
"""Of a larger network the first neurons have samples: thousands of series help nobody."""


def _telemetry(web: Web, tick: Tick) -> Iterator[Metric]:
    # Numbers first: they may be those of a device that no row has had yet.
    values = list(web.history.numbers(tick.frame))
    families: dict[str, Metric] = {}
    for column, value in zip(web.history.telemetry_columns, values, strict=True):
        name, factor, labels = _named(column)
        if name not in families:
            families[name] = GaugeMetricFamily(name, column.help + ".", labels=tuple(labels))
        if value is not None and math.isfinite(value):
            families[name].add_metric(tuple(labels.values()), float(value) * factor)  # type: ignore[attr-defined]
    return iter(families.values())


def _named(column: Column) -> tuple[str, float, dict[str, str]]:
    """The metric of a column, the factor to its base unit, and its labels."""
    unit, factor = BASE_UNITS.get(column.unit, (column.unit, 1.0))
    field = column.field.removesuffix(column.unit) + unit if column.unit else column.field
    if column.device is not None:
        group, label = DEVICE_NAMES[column.group], DEVICE_LABELS[column.group]
        return f"neuromodd_{group}_{field}", factor, {label: column.device}
    part = "tick" if column.group == "frame" else column.group
    return f"neuromodd_{part}_{field}", factor, {}
