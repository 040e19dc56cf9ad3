"""The MQTT contract: topics, payloads, and what their schemas refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError
from pydantic import BaseModel

from neuromodd.core.anomaly import Anomaly, AnomalyChannel, ChannelMoment, Moment
from neuromodd.core.brain import Brain, BrainParameters, Tick
from neuromodd.core.diagnostics import Evidence, Fault, FaultClass
from neuromodd.core.encoding import CHANNELS
from neuromodd.core.frame import CpuSample, GpuSample, TelemetryFrame
from neuromodd.core.messages import (
    TOPICS,
    Event,
    Message,
    anomaly_event,
    fault_event,
    record_message,
    reward_event,
    spikes_message,
    state_message,
    telemetry_event,
    topic,
)
from neuromodd.core.payloads import (
    REWARD_PAYLOADS,
    AnomalyPayload,
    FaultPayload,
    HealthPayload,
    InfoPayload,
    SpikesPayload,
    StatePayload,
    TelemetryPayload,
)
from neuromodd.core.record import JsonModel, Record
from neuromodd.core.requests import Reply
from neuromodd.core.rewards import EPOCH, BreakthroughFound, RewardEvent, SourceSwitch, WorkAccepted
from neuromodd.core.schemas import schema
from neuromodd.core.surprise import DEFAULT_CHANNELS, SurpriseParameters
from neuromodd.errors import InvalidRecordError

MakeFrame = Callable[..., TelemetryFrame]
RecordOf = Callable[[type[BaseModel]], st.SearchStrategy[Any]]

PAYLOADS: list[tuple[str, type[JsonModel]]] = [
    ("telemetry", TelemetryPayload),
    ("state", StatePayload),
    ("spikes", SpikesPayload),
    ("fault", FaultPayload),
    ("anomaly", AnomalyPayload),
    ("info", InfoPayload),
    ("health", HealthPayload),
    *(("reward", payload) for payload in REWARD_PAYLOADS.values()),
]


CPU = AnomalyChannel(name="cpu", observed=0.97, expected=0.1, low=0.05, high=0.2, surprise=0.7)
DISK = AnomalyChannel(
    name="disk.write_bytes_per_s", observed=2e8, expected=None, low=None, high=None, surprise=0.4
)
BEGIN = Anomaly(
    phase="begin",
    since_utc=EPOCH,
    time_utc=EPOCH,
    duration_s=0.0,
    surprise=0.7,
    channels=(CPU, DISK),
    sentence="cpu is 0.97, where 0.05 to 0.2 was expected",
)
END = BEGIN.model_copy(
    update={"phase": "end", "time_utc": EPOCH + timedelta(seconds=90), "duration_s": 90.0, "surprise": 0.8}
)


def not_json(word: str) -> None:
    raise AssertionError(f"{word} is not JSON")


def parsed(payload: bytes | str) -> Any:
    return json.loads(payload, parse_constant=not_json)


def sent(event: Event) -> Any:
    """What of an event is published at once."""
    return parsed(event.encoded(replayed=False))


def check(name: str, document: object) -> None:
    Draft202012Validator(schema(name)).validate(document)


def of_tomorrow(value: object) -> Any:
    """The JSON of a record that a newer version wrote: every object in it has one field more."""
    if isinstance(value, JsonModel):
        document = parsed(value.to_json())
        for name, field in type(value).model_fields.items():
            inner = getattr(value, name)
            if isinstance(inner, JsonModel | tuple | dict):
                document[field.serialization_alias or name] = of_tomorrow(inner)
        return {**document, "of_tomorrow": {"x": [None]}}
    if isinstance(value, dict):
        return {name: of_tomorrow(inner) for name, inner in value.items()}
    return [of_tomorrow(inner) for inner in value] if isinstance(value, tuple) else value


@pytest.fixture
def tick(frame: MakeFrame) -> Tick:
    """A tick with an event of each kind."""
    brain = Brain()
    brain.step(frame(0.0))
    for event in (WorkAccepted(units=2.0), BreakthroughFound(), SourceSwitch(current="battery")):
        brain.take(event)
    return brain.step(frame(1.0, cpu=0.6, gpus=(GpuSample(index=0, lost=True),)))


def lifted(tick: Tick) -> dict[str, list[Any]]:
    """The payloads of a tick by topic."""
    messages = (state_message(tick), spikes_message(tick))
    found = {message.name: [parsed(message.payload)] for message in messages}
    found["telemetry"] = [sent(telemetry_event(tick.frame))]
    found["reward"] = [sent(reward_event(event)) for event in tick.events]
    found["fault"] = [sent(fault_event("n", tick.fault))]
    found["anomaly"] = [sent(anomaly_event("n", of)) for of in (BEGIN, END)]
    return found


# Topics


@pytest.mark.parametrize(
    ("name", "qos", "retained"),
    [
        ("status", 1, True),
        ("info", 1, True),
        ("telemetry", 0, False),
        ("state", 0, True),
        ("spikes", 0, False),
        ("reward", 1, False),
        ("fault", 1, True),
        ("anomaly", 1, False),
        ("health", 0, True),
    ],
)
def test_a_topic_is_published_as_the_contract_says(name: str, qos: int, retained: bool) -> None:
    assert (TOPICS[name].qos, TOPICS[name].retain) == (qos, retained)


def test_only_rewards_faults_and_anomalies_may_not_give_way_to_newer_ones() -> None:
    assert {name for name, rule in TOPICS.items() if not rule.state_like} == {"reward", "fault", "anomaly"}


def test_a_topic_has_prefix_node_and_name() -> None:
    assert topic("neuromodd", "host.example", "state") == "neuromodd/host.example/state"


# Schemas


@pytest.mark.parametrize(("name", "cls"), PAYLOADS)
@settings(max_examples=25)
@given(data=st.data())
def test_any_payload_agrees_with_its_schema(
    name: str, cls: type[JsonModel], record_of: RecordOf, data: st.DataObject
) -> None:
    check(name, parsed(data.draw(record_of(cls)).to_json()))


@pytest.mark.parametrize(("name", "cls"), PAYLOADS)
@settings(max_examples=25)
@given(data=st.data())
def test_fields_of_a_newer_version_agree_with_the_schema_and_are_ignored(
    name: str, cls: type[JsonModel], record_of: RecordOf, data: st.DataObject
) -> None:
    record = data.draw(record_of(cls))
    document = of_tomorrow(record)
    check(name, document)
    assert cls.from_json(json.dumps(document)) == record


def test_the_documents_of_tomorrow_are_changed_at_every_depth() -> None:
    fault = FaultPayload(
        **{"class": "GpuDieDead"},
        id="i",
        time_utc=EPOCH,
        node="n",
        code="c",
        confidence=1.0,
        evidence=(Evidence(reading="a", value=1.0, rule="r"),),
        since_utc=None,
        replayed=False,
    )
    document = of_tomorrow(fault)
    assert "of_tomorrow" in document
    assert "of_tomorrow" in document["evidence"][0]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("state", {"step": None}),
        ("state", {"modulators": {}}),
        ("state", {"surprise": {"total": 2.0, "probability": 0.0, "channels": {}}}),
        ("state", {"surprise": {"total": 1.0, "channels": {}}}),
        ("state", {"prediction_error": {"total": 2.0, "channels": {}}}),
        ("anomaly", {"phase": "middle"}),
        ("anomaly", {"surprise": 1.5}),
        ("anomaly", {"channels": [{"name": "cpu"}]}),
        ("telemetry", {"cpu": {"utilization_ratio": 1.5}}),
        ("telemetry", {"gpus": [{}]}),
        ("reward", {"kind": "Windfall"}),
        ("reward", {"origin": "rumour"}),
        ("fault", {"confidence": -1}),
    ],
)
def test_a_schema_refuses_what_is_not_in_the_contract(
    tick: Tick, name: str, damage: dict[str, object]
) -> None:
    document = lifted(tick)[name][0]
    check(name, document)
    with pytest.raises(ValidationError):
        check(name, {**document, **damage})


@pytest.mark.parametrize("name", ["telemetry", "state", "spikes", "reward", "fault", "anomaly"])
def test_a_schema_asks_for_every_field_that_is_written(tick: Tick, name: str) -> None:
    for document in lifted(tick)[name]:
        for field in document:
            with pytest.raises(ValidationError):
                check(name, {key: value for key, value in document.items() if key != field})


# Payloads


def test_every_payload_of_a_tick_agrees_with_its_schema(tick: Tick) -> None:
    for name, documents in lifted(tick).items():
        for document in documents:
            check(name, document)


def test_state_has_exactly_the_fields_of_the_contract(tick: Tick) -> None:
    state = parsed(state_message(tick).payload)
    assert set(state) == {
        "node",
        "sequence",
        "time_utc",
        "step",
        "modulators",
        "flags",
        "surprise",
        "prediction_error",
        "rates",
    }
    levels = {"dopamine", "cortisol", "acetylcholine", "tempo"}
    assert set(state["modulators"]) == {*levels, "tonic", "phasic"}
    assert set(state["modulators"]["tonic"]) == levels
    assert set(state["modulators"]["phasic"]) == levels - {"tempo"}
    assert set(state["flags"]) == {"stress", "reward", "focus", "anomaly"}
    assert set(state["surprise"]) == {"total", "probability", "channels"}
    assert tuple(state["surprise"]["channels"]) == DEFAULT_CHANNELS
    assert tuple(state["prediction_error"]["channels"]) == CHANNELS
    assert [len(state["rates"][bank]) for bank in ("lif", "izhikevich")] == [8, 5]


def test_state_counts_network_steps_since_the_first_start(tick: Tick) -> None:
    assert parsed(state_message(tick).payload)["step"] == 40


def test_state_keeps_null_for_a_channel_that_is_absent(tick: Tick) -> None:
    error = parsed(state_message(tick).payload)["prediction_error"]
    assert error["channels"] == {name: 0.6 if name == "cpu" else None for name in CHANNELS}
    assert error["total"] == 0.6


def strange(tick: Tick, total: float | None, episode: Anomaly | None = None) -> Tick:
    """The tick with a moment of two channels, one of which can't tell."""
    channels = (
        ChannelMoment("cpu", 0.97, 0.1, 0.05, 0.2, total),
        ChannelMoment("gpus.0.power_watts", None, None, None, None, None),
    )
    moment = Moment(total, total, channels, change=None, episode=episode)
    return tick.model_copy(update={"surprise": moment})


def test_state_has_the_surprise_of_the_channels_that_are_watched(tick: Tick) -> None:
    surprise = parsed(state_message(strange(tick, 0.25)).payload)["surprise"]
    assert surprise["total"] == 0.25
    assert surprise["channels"] == {"cpu": 0.25, "gpus.0.power_watts": None}


@pytest.mark.parametrize(("total", "probability"), [(None, None), (0.0, 1.0), (0.3, 1e-3), (1.0, 1e-10)])
def test_state_tells_how_probable_such_a_surprise_is(
    tick: Tick, total: float | None, probability: float | None
) -> None:
    surprise = parsed(state_message(strange(tick, total)).payload)["surprise"]
    assert surprise["probability"] == pytest.approx(probability)


@pytest.mark.parametrize(("episode", "flag"), [(None, False), (BEGIN, True)])
def test_a_flag_is_up_while_an_anomaly_goes_on(tick: Tick, episode: Anomaly | None, flag: bool) -> None:
    state = parsed(state_message(strange(tick, 0.1, episode)).payload)
    assert state["flags"]["anomaly"] is flag


def test_without_surprise_state_has_no_channels_of_it(frame: MakeFrame) -> None:
    brain = Brain(BrainParameters(surprise=SurpriseParameters(enabled=False)))
    state = parsed(state_message(brain.step(frame(0.0))).payload)
    check("state", state)
    assert state["surprise"] == {"total": None, "probability": None, "channels": {}}
    assert state["flags"]["anomaly"] is False


def test_telemetry_keeps_null_for_what_was_not_measured(frame: MakeFrame) -> None:
    document = sent(telemetry_event(frame(cpu=CpuSample(load_1m=0.0))))
    assert set(document) == {*TelemetryFrame.model_fields, "replayed"}
    assert document["gpus"] is None
    assert document["cpu"] == {name: 0.0 if name == "load_1m" else None for name in CpuSample.model_fields}


@pytest.mark.parametrize(("make", "record"), [(state_message, StatePayload), (spikes_message, SpikesPayload)])
def test_a_message_is_the_json_of_its_record(
    tick: Tick, make: Callable[[Tick], Message], record: type[Record]
) -> None:
    payload = make(tick).payload
    # Both ways: a value of another form, or a time that is written in another way, would come back changed.
    assert json.loads(record.from_json(payload).to_json()) == json.loads(payload)


def test_spikes_has_counts_and_potentials_of_every_neuron(tick: Tick) -> None:
    document = parsed(spikes_message(tick).payload)
    lengths = {name: len(value) for name, value in document.items() if isinstance(value, list)}
    assert lengths == {"input_spikes": 8, "lif_spikes": 8, "izhikevich_spikes": 5, "lif_potentials": 8}
    assert document["steps"] == 20


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        (WorkAccepted(units=2.0), {"latency_ms": None, "units": 2.0, "source": None}),
        (
            BreakthroughFound(metric="work.rate", value=2.0, previous_best=1.0),
            {"metric": "work.rate", "value": 2.0, "previous_best": 1.0},
        ),
        (SourceSwitch(previous="mains"), {"previous": "mains", "current": None}),
    ],
)
def test_a_reward_is_flat_with_the_fields_of_its_kind(
    frame: MakeFrame, event: RewardEvent, fields: dict[str, object]
) -> None:
    full = event.model_copy(update={"id": "i", "time_utc": frame().time_utc, "node": "n"})
    document = sent(reward_event(full))
    common = {
        "kind": event.kind,
        "id": "i",
        "time_utc": "2024-05-01T12:00:00Z",
        "node": "n",
        "origin": "external",
        "replayed": False,
    }
    assert document == {**common, **fields}
    check("reward", document)


def test_a_reward_payload_reads_back_as_its_event(tick: Tick) -> None:
    for event in tick.events:
        assert RewardEvent.from_json(reward_event(event).encoded(replayed=False)) == event


@pytest.mark.parametrize("replayed", [False, True])
def test_an_event_that_is_sent_late_says_so_and_nothing_else_of_it_changes(
    tick: Tick, replayed: bool
) -> None:
    events = [
        telemetry_event(tick.frame),
        fault_event("n", tick.fault),
        anomaly_event("n", BEGIN),
        *map(reward_event, tick.events),
    ]
    for event in events:
        document = parsed(event.encoded(replayed=replayed))
        check(event.name, document)
        assert document == {**event.payload, "replayed": replayed}


def test_an_event_has_the_id_that_its_payload_tells(tick: Tick) -> None:
    for event in (
        fault_event("n", tick.fault),
        anomaly_event("n", END),
        *map(reward_event, tick.events),
    ):
        assert event.payload["id"] == event.id


def test_telemetry_tells_its_frames_apart_by_boot_and_sequence(frame: MakeFrame) -> None:
    assert telemetry_event(frame(3.0)).id == "boot-a:3"


@pytest.mark.parametrize(
    ("measured", "published"),
    [
        (0.123456789, 0.12346),
        (1234567890.0, 1234600000),
        (0.0, 0.0),
        (0.1, 0.1),
        (1.5e-9, 1.5e-9),
    ],
)
def test_a_float_of_telemetry_has_five_significant_digits(
    frame: MakeFrame, measured: float, published: float
) -> None:
    document = sent(telemetry_event(frame(cpu=CpuSample(load_1m=measured))))
    assert document["cpu"]["load_1m"] == published


def test_telemetry_is_rounded_in_lists_too(frame: MakeFrame) -> None:
    cpu = CpuSample(core_frequencies_hz=(2_999_999_999.5, None))
    document = sent(telemetry_event(frame(cpu=cpu)))
    assert document["cpu"]["core_frequencies_hz"] == [3e9, None]


def test_a_whole_number_of_telemetry_keeps_all_its_digits(frame: MakeFrame) -> None:
    document = sent(telemetry_event(frame(sequence=123_456_789)))
    assert document["sequence"] == 123_456_789


def test_telemetry_does_not_round_the_monotonic_time(frame: MakeFrame) -> None:
    document = sent(telemetry_event(frame(monotonic_s=98_765_432.123456)))
    assert document["monotonic_s"] == 98_765_432.123456


@settings(max_examples=25)
@given(data=st.data())
def test_any_frame_agrees_with_the_schema_when_it_is_rounded(
    record_of: RecordOf, data: st.DataObject
) -> None:
    check("telemetry", sent(telemetry_event(data.draw(record_of(TelemetryFrame)))))


def test_fault_has_exactly_the_fields_of_the_contract(tick: Tick) -> None:
    document = sent(fault_event("n", tick.fault))
    assert set(document) == {
        "id",
        "time_utc",
        "node",
        "class",
        "code",
        "confidence",
        "evidence",
        "since_utc",
        "replayed",
    }
    assert (document["class"], document["code"]) == ("GpuDieDead", "ERR_SILICON_DEAD")


def test_a_fault_payload_reads_back() -> None:
    fault = Fault(fault_class=FaultClass.HealthyStandby, confidence=0.5)
    payload = fault_event("n", fault).encoded(replayed=False)
    assert FaultPayload.from_json(payload).to_json().encode() == payload


def test_a_fault_has_the_same_id_as_long_as_it_holds(tick: Tick) -> None:
    clearer = tick.fault.model_copy(update={"confidence": tick.fault.confidence / 2})
    assert fault_event("n", clearer).id == fault_event("n", tick.fault).id


@pytest.mark.parametrize(
    "other",
    [
        {"fault_class": FaultClass.VrmPhaseShort},
        {"since_utc": EPOCH},
    ],
)
def test_another_fault_has_another_id(tick: Tick, other: dict[str, object]) -> None:
    changed = tick.fault.model_copy(update=other)
    assert fault_event("n", changed).id != fault_event("n", tick.fault).id


def test_a_fault_of_another_node_has_another_id(tick: Tick) -> None:
    assert fault_event("m", tick.fault).id != fault_event("n", tick.fault).id


def test_a_fault_is_dated_at_its_beginning(tick: Tick) -> None:
    document = sent(fault_event("n", tick.fault))
    assert document["time_utc"] == document["since_utc"] == "2024-05-01T12:00:01Z"


def test_anomaly_has_exactly_the_fields_of_the_contract() -> None:
    document = sent(anomaly_event("n", BEGIN))
    assert set(document) == {
        "id",
        "episode",
        "phase",
        "time_utc",
        "node",
        "since_utc",
        "duration_s",
        "surprise",
        "probability",
        "channels",
        "sentence",
        "replayed",
    }
    fields = {"name", "observed", "expected", "low", "high", "surprise"}
    assert [set(of) for of in document["channels"]] == [fields, fields]


def test_an_anomaly_payload_reads_back() -> None:
    payload = anomaly_event("n", END).encoded(replayed=False)
    assert parsed(AnomalyPayload.from_json(payload).to_json()) == parsed(payload)


def test_the_begin_and_the_end_of_an_anomaly_are_two_messages_of_one_episode() -> None:
    begin, end = (sent(anomaly_event("n", of)) for of in (BEGIN, END))
    assert begin["episode"] == end["episode"]
    assert len({begin["id"], end["id"], begin["episode"]}) == 3


def test_an_anomaly_has_the_same_ids_however_its_story_is_told() -> None:
    again = anomaly_event("n", BEGIN.model_copy(update={"sentence": "other words", "surprise": 0.9}))
    assert again.id == anomaly_event("n", BEGIN).id


@pytest.mark.parametrize(
    ("node", "since_s"),
    [("m", 0.0), ("n", 0.001)],
)
def test_another_anomaly_has_other_ids(node: str, since_s: float) -> None:
    since_utc = EPOCH + timedelta(seconds=since_s)
    one, other = anomaly_event("n", END), anomaly_event(node, END.model_copy(update={"since_utc": since_utc}))
    assert one.id != other.id
    assert one.payload["episode"] != other.payload["episode"]


@pytest.mark.parametrize(
    "reply",
    [
        Reply(node="n", request="neuromodd/n/in/command", ok=True, id="i", result={"sequence": 1}),
        Reply(node="n", request="neuromodd/n/in/work", ok=False, refusal="invalid", error="rate: got -1"),
    ],
)
def test_a_reply_agrees_with_its_schema(reply: Reply) -> None:
    document = parsed(reply.to_json())
    check("reply", document)
    assert set(document) == set(Reply.model_fields)


@settings(max_examples=10)
@given(data=st.data())
def test_info_and_health_are_written_as_they_are(record_of: RecordOf, data: st.DataObject) -> None:
    for name, cls in (("info", InfoPayload), ("health", HealthPayload)):
        record = data.draw(record_of(cls))
        message = record_message(name, record)
        assert message.name == name
        assert cls.from_json(message.payload) == record


def test_text_of_any_script_is_utf8(frame: MakeFrame) -> None:
    payload = telemetry_event(frame(node="höst-机")).encoded(replayed=False)
    assert json.loads(payload.decode("utf-8"))["node"] == "höst-机"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_payload_with_a_number_that_json_lacks_is_refused(tick: Tick, number: str) -> None:
    payload = spikes_message(tick).payload.decode()
    damaged = payload.replace('"lif_potentials":[', f'"lif_potentials":[{number},')
    assert damaged != payload
    with pytest.raises(InvalidRecordError):
        SpikesPayload.from_json(damaged)
