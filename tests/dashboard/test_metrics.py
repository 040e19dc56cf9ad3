"""Metrics: judged by promtool, equal to what MQTT says, and the only ones that alerts and Grafana name."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, Mosquitto, free_port
from prometheus_client.parser import text_string_to_metric_families
from web_client import get
from web_moments import episode, felt, moment

from neuromodd.config import WebSettings
from neuromodd.core.frame import TemperatureSample
from neuromodd.core.messages import Message
from neuromodd.core.payloads import (
    CheckpointHealth,
    HealthPayload,
    MqttHealth,
    OutboxHealth,
    RecorderHealth,
    SensorHealth,
    TicksHealth,
    WebHealth,
)
from neuromodd.core.surprise import SurpriseParameters
from neuromodd.dashboard.metrics import exposition
from neuromodd.dashboard.web import Source, Web

CONFIG = Path(__file__).parents[2] / "config"

NAME = re.compile(r"\bneuromodd_[a-z0-9_]+")

HEALTH = HealthPayload(
    node="lab",
    time_utc=datetime(2024, 5, 1, tzinfo=UTC),
    uptime_s=12.5,
    ticks=TicksHealth(count=12, late=3, missed=2, gaps=1, lateness_p50_ms=1.0, lateness_p99_ms=25.0),
    sensors={
        "cpu": SensorHealth(state="ok", error=None, failures=4, duration_ms=1.5),
        "nvml": SensorHealth(state="absent", error=None, failures=0, duration_ms=None),
    },
    mqtt=MqttHealth(
        connected=True,
        protocol="5",
        connections=2,
        published=99,
        dropped=5,
        waiting_events=7,
        outbox=OutboxHealth(waiting=7, waiting_bytes=700, oldest_age_s=30.0, dropped=0, error=None),
        inbound=None,
        taken_over=False,
        error=None,
    ),
    checkpoint=CheckpointHealth(age_s=8.0, written=3, failures=1, error=None),
    recorder=RecorderHealth(file=None, frames=11, dropped=1, total_bytes=4096, failures=0, error=None),
    web=WebHealth(pages=2, error=None),
    faults={"GpuDieDead": 1},
    sinks_failed={"recorder": 2},
)


@pytest.fixture
def whole(live: Callable[..., Any], everything: dict[str, Any]) -> Web:
    """A web view that has everything to tell."""
    life = live()
    source = Source(
        node="lab",
        started_utc=datetime(2024, 5, 1, tzinfo=UTC),
        dimensions={"channels": 8, "lif_neurons": 8, "izhikevich_neurons": 5},
        alive=lambda: {"health": json.loads(HEALTH.to_json())},
        info=lambda: Message("info", b"{}"),
        weights=lambda: life.brain.engine.weights,
        surprise=SurpriseParameters,
    )
    web = Web(WebSettings(enabled=True), source, 1.0)
    for tick in episode([life.tick(**everything) for _ in range(3)], 1, None):
        web.offer(tick)
    web.rewards["WorkAccepted", "external"] = 6
    return web


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(found: Samples, name: str, **labels: str) -> float:
    return found[f"neuromodd_{name}", frozenset(labels.items())]


def shown(web: Web) -> Samples:
    return samples(exposition(web, "")[0].decode())


def promtool(*arguments: str, text: str = "") -> str:
    program = shutil.which("promtool")
    assert program, "promtool is not installed; `make test` installs it"
    done = subprocess.run(
        [program, *arguments], input=text, capture_output=True, text=True, check=False, timeout=30.0
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_promtool_has_nothing_to_say_of_all_metrics_that_there_are(whole: Web) -> None:
    text = exposition(whole, "text/plain")[0].decode()
    assert promtool("check", "metrics", text=text) == ""
    assert len(samples(text)) >= 140


def test_promtool_finds_what_is_wrong() -> None:
    with pytest.raises(AssertionError, match="no help text"):
        promtool("check", "metrics", text="# TYPE a_total counter\na_total 1\n")


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The metrics of a real daemon."""
    directory = tmp_path_factory.mktemp("scraped")
    broker, port = Mosquitto(directory), free_port()
    state = ("--node", "lab", "--log.format", "json", "--checkpoint.directory", str(directory / "state"))
    web = ("--web.enabled", "true", "--web.port", str(port))
    daemon = Daemon([*state, "--mqtt.host", "127.0.0.1", "--mqtt.port", str(broker.port), *web], {})
    daemon.wait_log("web_listening")
    daemon.wait_log("mqtt_connected")
    yield get(port, "/metrics").body.decode()
    daemon.close()
    broker.stop()


def test_promtool_has_nothing_to_say_of_a_real_daemon(scraped: str) -> None:
    assert promtool("check", "metrics", text=scraped) == ""
    found = samples(scraped)
    assert of(found, "mqtt_connected") == 1.0
    assert of(found, "ticks_total") >= 1.0


def test_what_is_not_measured_has_no_sample(live: Callable[..., Any], whole: Web) -> None:
    assert "neuromodd_cpu_temperature_celsius" in {name for name, _ in shown(whole)}
    whole.offer(live().tick())
    names = {name for name, _ in shown(whole)}
    assert not any(name.startswith(("neuromodd_cpu_", "neuromodd_gpu_")) for name in names)
    assert "neuromodd_modulator_level" in names


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("cpu_utilization_ratio", {}, 1 / 3),
        ("cpu_frequency_hertz", {}, 3_412_345_678.9),
        ("tick_lateness_seconds", {}, 0.00123456789),
        ("tick_lateness_p99_seconds", {}, 0.025),
        ("memory_available_bytes", {}, 12_345_678_901),
        ("fpga_wns_seconds", {}, -0.25e-9),
        ("power_on_mains", {}, 1.0),
        ("work_latency_seconds", {}, 0.0125),
        ("network_receive_bytes_per_second", {}, 1e5 / 7),
        ("thermal_temperature_celsius", {"sensor": "coretemp Core 0"}, 60.5),
        ("fan_speed_rpm", {"fan": "it8688 fan1"}, 1234.0),
        ("voltage_volts", {"input": "it8688 in0"}, -12.1),
        ("gpu_power_watts", {"gpu": "0"}, 234.56789),
        ("rewards_total", {"kind": "WorkAccepted", "origin": "external"}, 6.0),
        ("sensor_state", {"sensor": "nvml", "state": "absent"}, 1.0),
        ("sensor_state", {"sensor": "nvml", "state": "failed"}, 0.0),
        ("sensor_failures_total", {"sensor": "cpu"}, 4.0),
        ("sensor_duration_seconds", {"sensor": "cpu"}, 0.0015),
        ("faults_total", {"class": "GpuDieDead"}, 1.0),
        ("sink_failures_total", {"sink": "recorder"}, 2.0),
        ("mqtt_dropped_total", {}, 5.0),
        ("outbox_oldest_age_seconds", {}, 30.0),
        ("checkpoint_age_seconds", {}, 8.0),
        ("recorder_frames_total", {}, 11.0),
        ("web_pages", {}, 2.0),
        ("network_steps_total", {}, 60.0),
    ],
)
def test_a_metric_is_in_base_units(whole: Web, name: str, labels: dict[str, str], value: float) -> None:
    assert of(shown(whole), name, **labels) == pytest.approx(value, rel=1e-12)


def test_levels_surprise_and_rates_are_those_of_the_newest_tick(whole: Web) -> None:
    found, tick = shown(whole), whole.newest
    assert tick is not None
    assert of(found, "modulator_level", modulator="cortisol") == tick.modulators.cortisol
    assert of(found, "modulator_tonic_level", modulator="tempo") == tick.tonic.tempo
    assert of(found, "channel_prediction_error", channel="cpu") == tick.result.prediction_error[0]
    assert of(found, "prediction_error") == tick.error_total
    assert of(found, "surprise") == 0.64
    assert of(found, "channel_surprise", channel="network") == 0.41
    rate = of(found, "neuron_firing_ratio", population="lif", neuron="2", input="gpu")
    assert rate == tick.result.lif_rates[2]
    held = tick.fault.fault_class
    assert of(found, "fault", **{"class": held.value, "code": held.code}) == 1.0
    assert sum(value for (name, _), value in found.items() if name == "neuromodd_fault") == 1.0


def test_an_anomaly_is_1_while_it_holds_and_counted_when_it_begins(
    live: Callable[..., Any], whole: Web
) -> None:
    assert (of(shown(whole), "anomaly"), of(shown(whole), "anomalies_total")) == (1.0, 1.0)
    life = live()
    for tick in episode([life.tick() for _ in range(8)], 2, 5):
        whole.offer(tick)
    assert (of(shown(whole), "anomaly"), of(shown(whole), "anomalies_total")) == (0.0, 2.0)


def test_a_channel_that_can_not_tell_has_no_surprise(live: Callable[..., Any], whole: Web) -> None:
    whole.offer(felt(live().tick(), moment(None, of={"cpu": None})))
    found = shown(whole)
    assert ("neuromodd_surprise", frozenset()) not in found
    assert ("neuromodd_channel_surprise", frozenset({("channel", "cpu")})) not in found
    assert of(found, "anomaly") == 0.0


def test_where_surprise_is_disabled_there_is_no_metric_of_it(live: Callable[..., Any], whole: Web) -> None:
    whole.offer(felt(live().tick(), None))
    names = {name for name, _ in shown(whole)}
    assert not {name for name in names if "surprise" in name or "anomal" in name}


def test_a_device_that_no_row_has_had_yet_has_its_metrics_and_is_told_to_the_pages(
    live: Callable[..., Any], whole: Web
) -> None:
    whole.follow(0.1)
    life = live(0.1)
    whole.offer(life.tick(thermal=(TemperatureSample(name="new", temperature_celsius=41.0),)))
    assert of(shown(whole), "thermal_temperature_celsius", sensor="new") == 41.0
    page = whole.open()
    assert page is not None
    for _ in range(10):
        whole.offer(life.tick(thermal=(TemperatureSample(name="new", temperature_celsius=41.0),)))
    assert b"event: columns" in b"".join(page._waiting)


def test_openmetrics_is_spoken_to_who_asks_for_it(whole: Web) -> None:
    body, kind = exposition(whole, "application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def metrics_named(text: str) -> set[str]:
    return set(NAME.findall(text))


def test_promtool_accepts_the_alerts() -> None:
    assert "SUCCESS" in promtool("check", "rules", str(CONFIG / "prometheus-alerts.yml"))


ANOMALY_HOLDS = """
rule_files: [{rules}]
evaluation_interval: 30s
tests:
  - interval: 30s
    input_series:
      - series: 'neuromodd_anomaly{{instance="lab"}}'
        values: '0 0 1x10'
      - series: 'neuromodd_channel_surprise{{instance="lab",channel="cpu"}}'
        values: '0.75x20'
      - series: 'neuromodd_channel_surprise{{instance="lab",channel="memory"}}'
        values: '0.05x20'
    alert_rule_test:
      - {{eval_time: 90s, alertname: HostAnomaly, exp_alerts: []}}
      - eval_time: 3m
        alertname: HostAnomaly
        exp_alerts:
          - exp_labels: {{severity: warning, instance: lab}}
            exp_annotations:
              summary: "lab is not as it usually is"
              description: "An anomaly has held for a minute. cpu: surprise 0.75. {rest}"
"""


def test_an_anomaly_that_holds_for_a_minute_is_an_alert_that_names_the_channels(tmp_path: Path) -> None:
    rest = "The topic `anomaly` and the page have what was read and what was expected."
    case = tmp_path / "case.yml"
    case.write_text(ANOMALY_HOLDS.format(rules=CONFIG / "prometheus-alerts.yml", rest=rest))
    assert "SUCCESS" in promtool("test", "rules", str(case))


@pytest.mark.parametrize("file", ["grafana-dashboard.json", "prometheus-alerts.yml"])
def test_no_metric_is_asked_for_that_does_not_exist(whole: Web, file: str) -> None:
    text = (CONFIG / file).read_text()
    if file.endswith(".json"):
        panels = json.loads(text)["panels"]
        text = "\n".join(target["expr"] for panel in panels for target in panel["targets"])
    asked = metrics_named(text)
    assert len(asked) > 5
    assert asked <= {name for name, _ in shown(whole)}


@pytest.mark.parametrize("file", ["grafana-dashboard.json", "prometheus-alerts.yml"])
def test_no_label_is_asked_for_that_the_metric_has_not(whole: Web, file: str) -> None:
    has = {name: {label for label, _ in labels} for name, labels in shown(whole)}
    text = (CONFIG / file).read_text().replace('\\"', '"')
    asked = re.findall(r"\b(neuromodd_[a-z0-9_]+)\{([^}]*)\}", text)
    assert asked
    for name, matchers in asked:
        labels = set(re.findall(r"(\w+)=", matchers)) - {"instance"}
        assert labels <= has[name], name


def test_grafana_can_read_the_dashboard() -> None:
    dashboard = json.loads((CONFIG / "grafana-dashboard.json").read_text())
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(places)
    for one in places:
        assert 0 <= one["x"] <= 24 - one["w"]
        below = [of for of in places if of is not one and of["y"] == one["y"] and of["x"] == one["x"]]
        assert not below
