"""A minute of the real daemon at 1 Hz on a private broker: what a subscriber may rely on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, Heard, Listener, Mosquitto
from jsonschema import Draft202012Validator

from neuromodd.core.messages import TOPICS
from neuromodd.core.schemas import SCHEMA_NAMES, schema

MINUTE_S = 60

RARE = "anomaly"
"""What no fresh daemon can know in its first minute; `test_anomaly` has a daemon that does."""

USUAL = [name for name in TOPICS if name != RARE]

REQUESTS = {
    "in/reward": b'{"kind": "WorkAccepted", "latency_ms": 12}',
    "in/work": b'{"rate": 3.5, "target": 4, "fresh_s": 2}',
    "in/command": b'{"command": "checkpoint"}',
}


class Minute:
    """What was heard, and how the daemon ended."""

    def __init__(self, directory: Path) -> None:
        broker = Mosquitto(directory)
        listener = Listener(broker.port, newest=True)
        arguments = ["--node", "lab", "--mqtt.host", "127.0.0.1", "--mqtt.port", str(broker.port)]
        arguments += ["--checkpoint.directory", str(directory / "state"), "--mqtt.publish.spikes", "every 1"]
        arguments += ["--mqtt.inbound.enabled", "true"]
        daemon = Daemon(arguments, {})
        try:
            first = listener.wait("telemetry")
            for name, payload in REQUESTS.items():
                answer = f"neuromodd/lab/response/{name}/reply"
                listener.ask(f"neuromodd/lab/{name}", payload, answer=answer, correlation=name.encode())
            # 60 intervals after the first frame there are 61 frames; the minute is the last 60 of them.
            listener.wait("telemetry", count=MINUTE_S + 1, timeout_s=MINUTE_S + 30)
            self.seconds = listener.named("telemetry")[MINUTE_S].at_s - first.at_s
            self.status = daemon.end()
            listener.wait("status", lambda heard: heard.payload == b"offline")
            self.heard = list(listener.heard)
            self.late = Listener(broker.port)
            self.late.wait("fault")
            self.retained = {heard.name for heard in self.late.heard}
            self.late.close()
            self.log = daemon.lines
        finally:
            daemon.close()
            listener.close()
            broker.stop()

    def named(self, name: str) -> list[Heard]:
        """What came on a topic of the node, or on all response topics (`reply`)."""
        if name == "reply":
            return [heard for heard in self.heard if heard.topic.startswith("neuromodd/lab/response/")]
        return [heard for heard in self.heard if heard.topic == f"neuromodd/lab/{name}"]


@pytest.fixture(scope="module")
def minute(tmp_path_factory: pytest.TempPathFactory) -> Minute:
    return Minute(tmp_path_factory.mktemp("minute"))


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, float):
        yield value


def test_sixty_intervals_take_sixty_seconds(minute: Minute) -> None:
    assert minute.seconds == pytest.approx(MINUTE_S, abs=1.0)


def test_every_sequence_number_comes_once_and_in_order(minute: Minute) -> None:
    sequences = [heard.json["sequence"] for heard in minute.named("telemetry")]
    assert sequences == list(range(len(sequences)))


def test_ticks_do_not_drift(minute: Minute) -> None:
    times = [heard.json["monotonic_s"] for heard in minute.named("telemetry")]
    offsets = [at_s - times[0] - number for number, at_s in enumerate(times)]
    assert abs(sum(offsets[-10:]) / 10 - sum(offsets[1:11]) / 10) < 0.1


@pytest.mark.parametrize("name", [name for name in SCHEMA_NAMES if name != RARE])
def test_every_payload_is_valid_against_its_schema(minute: Minute, name: str) -> None:
    validator = Draft202012Validator(schema(name))
    messages = minute.named(name)
    assert messages
    assert [error.message for heard in messages for error in validator.iter_errors(heard.json)] == []


def test_no_payload_has_a_nan_or_an_infinity(minute: Minute) -> None:
    values = [
        value
        for heard in minute.heard
        if heard.content_type == "application/json"
        for value in numbers(json.loads(heard.payload, parse_constant=lambda _: math.nan))
    ]
    assert values
    assert all(math.isfinite(value) for value in values)


def test_a_sensor_that_health_calls_absent_is_null_and_not_zero(minute: Minute) -> None:
    groups = {"nvml": ["gpus"], "hwmon": ["fans", "voltages"], "pressure": ["pressure"]}
    absent = [
        name
        for name, state in minute.named("health")[-1].json["sensors"].items()
        if state["state"] == "absent"
    ]
    frame = minute.named("telemetry")[-1].json
    assert [frame[group] for name in absent for group in groups.get(name, [])] == [
        None for name in absent for _ in groups.get(name, [])
    ]


@pytest.mark.parametrize("name", ["prediction_error", "surprise"])
def test_an_absent_channel_tells_nothing(minute: Minute, name: str) -> None:
    last = minute.named("telemetry")[-1].json
    told = minute.named("state")[-1].json[name]["channels"]
    # What is present may be too little known yet.
    assert told["gpu"] is None or last["gpus"] is not None


def test_the_first_frame_has_no_rates_and_the_second_has(minute: Minute) -> None:
    first, second = (heard.json for heard in minute.named("telemetry")[:2])
    assert first["interval_s"] is None
    assert first["cpu"]["utilization_ratio"] is None
    assert second["cpu"]["utilization_ratio"] is not None


def test_steps_are_counted_twenty_a_tick(minute: Minute) -> None:
    steps = [heard.json["step"] for heard in minute.named("spikes")]
    assert steps == [20 * (number + 1) for number in range(len(steps))]


@pytest.mark.parametrize("name", USUAL)
def test_a_topic_is_published_with_its_qos(minute: Minute, name: str) -> None:
    assert {heard.qos for heard in minute.named(name)} == {TOPICS[name].qos}


@pytest.mark.parametrize("name", USUAL)
def test_a_message_tells_its_content_type(minute: Minute, name: str) -> None:
    expected = "text/plain" if name == "status" else "application/json"
    assert {heard.content_type for heard in minute.named(name)} == {expected}


@pytest.mark.parametrize("name", [*(name for name in USUAL if name != "status"), "reply"])
def test_a_payload_tells_the_version_of_its_schema(minute: Minute, name: str) -> None:
    assert {heard.properties for heard in minute.named(name)} == {(("schema_version", "1"),)}


@pytest.mark.parametrize("name", USUAL)
def test_states_expire_and_the_rest_does_not(minute: Minute, name: str) -> None:
    expiries_s = {heard.expiry_s for heard in minute.named(name)}
    # A broker takes off what a message has waited.
    assert (
        all(of is not None and 280 < of <= 300 for of in expiries_s)
        if TOPICS[name].expires
        else not any(expiries_s)
    )


@pytest.mark.parametrize("name", REQUESTS)
def test_an_answer_carries_the_correlation_data_of_its_request(minute: Minute, name: str) -> None:
    answers = [heard for heard in minute.named("reply") if heard.json["request"] == name]
    assert [(heard.json["ok"], heard.correlation) for heard in answers] == [(True, name.encode())]


def test_reported_work_takes_the_place_of_the_utilisation_while_it_is_fresh(minute: Minute) -> None:
    rates = [
        (of["source"], of["rate"]) for of in (heard.json["work"] for heard in minute.named("telemetry")[1:])
    ]
    assert ("external", 3.5) in rates
    assert rates[-1][0] == "utilization"


def test_a_frame_without_gpus_has_less_than_two_kilobytes(minute: Minute) -> None:
    assert max(len(heard.payload) for heard in minute.named("telemetry")) < 2048


def test_what_is_retained_is_what_the_contract_says(minute: Minute) -> None:
    assert minute.retained == {name for name, rule in TOPICS.items() if rule.retain}


def test_status_is_online_from_the_first_to_the_last(minute: Minute) -> None:
    assert [heard.payload for heard in minute.named("status")] == [b"online", b"offline"]


def test_sigterm_ends_with_status_0(minute: Minute) -> None:
    assert minute.status == 0


def test_a_quiet_minute_logs_no_line_a_tick(minute: Minute) -> None:
    assert len(minute.log) < 20
