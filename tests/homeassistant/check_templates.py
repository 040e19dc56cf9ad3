"""The templates, rendered by Home Assistant's own engine from payloads of the daemon."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from documents import EVERYTHING, announced, parsed
from home import at_home
from homeassistant.helpers.template import Template

from neuromodd.core.anomaly import Anomaly, AnomalyChannel, Moment
from neuromodd.core.brain import Brain
from neuromodd.core.diagnostics import Evidence, Fault, FaultClass
from neuromodd.core.frame import TelemetryFrame
from neuromodd.core.messages import anomaly_event, fault_event, state_message

COMPONENTS: dict[str, dict[str, Any]] = parsed(announced(EVERYTHING))["cmps"]
AMD, NVIDIA = sorted(key.removesuffix("_lost") for key in COMPONENTS if key.endswith("_lost"))
ODD = next(key for key in COMPONENTS if key.startswith("thermal_board"))

FRAME = {
    "cpu_utilization_ratio": "62.5",
    "cpu_frequency_hz": "2400",
    "cpu_temperature_celsius": "61.1",
    "cpu_load_1m": "3.42",
    "memory_used_ratio": "62.5",
    "memory_available_bytes": "6.0",
    "disk_read_bytes_per_s": "1.25",
    "power_package_watts": "181.2",
    "power_core_volts": "0.837",
    "power_on_mains": "True",
    "power_battery_ratio": "62",
    ODD: "50.0",
    f"{NVIDIA}_memory_used_bytes": "6.0",
    f"{NVIDIA}_energy_joules": "2.0",
    f"{NVIDIA}_sm_clock_hz": "2400",
    f"{NVIDIA}_lost": "False",
    f"{AMD}_power_watts": "181.2",
}
HEALTH = {
    "ticks": {"lateness_p99_ms": 1.26},
    "mqtt": {"connections": 2, "dropped": 0},
    "checkpoint": {"age_s": 12.7},
}


@pytest.fixture(scope="module")
def render(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """Renders a template of a component from a payload; what fails to render gives `failed`."""

    def once(hass: Any, key: str, payload: bytes | str, option: str = "value_template") -> Any:
        template = Template(COMPONENTS[key][option], hass)
        return template.async_render_with_possible_json_value(payload, "failed")

    with at_home(tmp_path_factory.mktemp("home")) as inside:
        yield functools.partial(inside, once)


def of_topic(topic: str) -> list[str]:
    return [key for key, of in COMPONENTS.items() if of["state_topic"] == f"neuromodd/lab-7/{topic}"]


@pytest.mark.parametrize("key", FRAME)
def test_a_value_of_the_frame_is_shown_in_its_unit(key: str, render: Callable[..., str]) -> None:
    assert render(key, EVERYTHING.to_json()) == FRAME[key]


def test_every_component_of_the_frame_finds_its_value(render: Callable[..., str]) -> None:
    found = {key: render(key, EVERYTHING.to_json()) for key in of_topic("telemetry")}
    assert not [key for key, value in found.items() if value in {"None", "failed", ""}]


def nulls() -> list[str]:
    """The payload with every group null, with every value null, without lists, without anything, and none."""
    frame = json.loads(EVERYTHING.to_json())
    groups = {name: value for name, value in frame.items() if isinstance(value, dict)}
    empty = {name: dict.fromkeys(value) for name, value in groups.items()}
    items = {
        name: [
            {of: item[of] if of in {"name", "uuid", "pci_bus_id", "index"} else None for of in item}
            for item in value
        ]
        for name, value in frame.items()
        if isinstance(value, list)
    }
    return [
        TelemetryFrame().to_json(),
        json.dumps({**frame, **empty, **items}),
        json.dumps({**frame, **empty, "thermal": [], "fans": [], "voltages": [], "gpus": [{}]}),
        "{}",
        "[]",
        "5",
        "null",
        "",
        "online",
    ]


@pytest.mark.parametrize("payload", nulls())
def test_what_is_not_in_the_payload_is_unknown_without_a_word_in_the_log(
    payload: str, render: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = {key: render(key, payload) for key in COMPONENTS}
    assert set(found.values()) == {"None"}
    assert not caplog.records


def test_the_state_is_shown(render: Callable[..., str]) -> None:
    brain = Brain()
    brain.step(EVERYTHING.model_copy(update={"sequence": 6, "monotonic_s": 1006.0}))
    payload = state_message(brain.step(EVERYTHING)).payload
    state = json.loads(payload)
    for name, level in state["modulators"].items():
        if name not in {"tonic", "phasic"}:
            assert float(render(f"state_modulators_{name}", payload)) == pytest.approx(100 * level, abs=0.051)
    for name, flag in state["flags"].items():
        assert render(f"state_flags_{name}", payload) == str(flag)


@pytest.mark.parametrize(("surprise", "shown"), [(None, "None"), (0.0, "0.0"), (0.4321, "43.2")])
def test_the_surprise_is_shown(surprise: float | None, shown: str, render: Callable[..., str]) -> None:
    tick = Brain().step(EVERYTHING)
    strange = tick.model_copy(update={"surprise": Moment(surprise, surprise, (), None, None)})
    assert render("state_surprise_total", state_message(strange).payload) == shown


ANOMALY = Anomaly(
    phase="begin",
    since_utc=datetime(2024, 5, 1, tzinfo=UTC),
    time_utc=datetime(2024, 5, 1, tzinfo=UTC),
    duration_s=0.0,
    surprise=0.7,
    channels=(
        AnomalyChannel(name="cpu", observed=0.97, expected=0.1, low=0.05, high=0.2, surprise=0.7),
        AnomalyChannel(name="network", observed=2e8, expected=None, low=None, high=None, surprise=0.6),
    ),
    sentence="cpu is 0.97, where 0.05 to 0.2 was expected",
)


@pytest.mark.parametrize(("episode", "shown"), [(None, "False"), (ANOMALY, "True")])
def test_an_anomaly_is_a_problem_while_it_goes_on(
    episode: Anomaly | None, shown: str, render: Callable[..., str]
) -> None:
    tick = Brain().step(EVERYTHING)
    strange = tick.model_copy(update={"surprise": Moment(0.6, 0.6, (), None, episode)})
    assert render("state_flags_anomaly", state_message(strange).payload) == shown


def test_an_anomaly_carries_the_newest_one_as_attributes(render: Callable[..., str]) -> None:
    payload = anomaly_event("lab-7", ANOMALY).encoded(replayed=False)
    expected = json.loads(payload)
    attributes = json.loads(render("state_flags_anomaly", payload, "json_attributes_template"))
    names = ("phase", "since_utc", "duration_s", "surprise", "sentence", "channels")
    assert attributes == {name: expected[name] for name in names}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("health_ticks_lateness_p99_ms", "1.3"),
        ("health_mqtt_connections", "2"),
        ("health_mqtt_dropped", "0"),
        ("health_checkpoint_age_s", "13"),
    ],
)
def test_the_health_is_shown(key: str, value: str, render: Callable[..., str]) -> None:
    assert render(key, json.dumps(HEALTH)) == value


def fault(of: FaultClass, *rules: str) -> bytes:
    evidence = tuple(Evidence(reading="gpus.0.lost", value=True, rule=rule) for rule in rules)
    since = datetime(2024, 5, 1, tzinfo=UTC)
    held = Fault(fault_class=of, confidence=0.5, evidence=evidence, since_utc=since)
    return fault_event("lab-7", held).encoded(replayed=False)


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (fault(FaultClass.HealthyStandby), "False"),
        *((fault(of, "device lost"), "True") for of in FaultClass if of.is_fault),
        (fault(FaultClass.GpuDieDead), "True"),
        (fault(FaultClass.UnknownAmbiguity, "device lost", "firmware error"), "True"),
        (fault(FaultClass.UnknownAmbiguity, "too few readings"), "None"),
        (fault(FaultClass.UnknownAmbiguity), "None"),
    ],
)
def test_a_fault_is_a_problem_and_a_lack_of_sensors_is_unknown(
    payload: bytes, problem: str, render: Callable[..., str]
) -> None:
    assert render("fault", payload) == problem


@pytest.mark.parametrize("of", FaultClass)
def test_the_class_of_the_fault_is_one_of_the_options(of: FaultClass, render: Callable[..., str]) -> None:
    assert render("fault_class", fault(of)) == of.value
    assert of.value in COMPONENTS["fault_class"]["options"]


def test_a_fault_carries_its_evidence_as_attributes(render: Callable[..., str]) -> None:
    payload = fault(FaultClass.GpuDieDead, "device lost")
    expected = json.loads(payload)
    attributes = json.loads(render("fault", payload, "json_attributes_template"))
    assert attributes == {name: expected[name] for name in ("code", "confidence", "since_utc", "evidence")}


@pytest.mark.parametrize("key", ["fault", "state_flags_anomaly"])
def test_the_attributes_of_an_empty_payload_are_null(key: str, render: Callable[..., str]) -> None:
    assert set(json.loads(render(key, "", "json_attributes_template")).values()) == {None}
