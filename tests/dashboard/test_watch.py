"""What is heard of nodes: the newest of each, whose messages nobody vouches for."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromodd.core.messages import fault_event, state_message, telemetry_event
from neuromodd.dashboard.closeup import CloseUp
from neuromodd.dashboard.glyphs import ASCII, UNICODE, age, amount, cleaned, fitted, width_of, wrapped
from neuromodd.dashboard.measures import measures
from neuromodd.dashboard.watch import (
    EVENTS_LIMIT,
    FORGET_S,
    HISTORY_LIMIT,
    NODES_LIMIT,
    SURPRISES_LIMIT,
    Node,
    Watch,
)

UNIT = {"dopamine": 0.3, "cortisol": 0.0, "acetylcholine": 1.0, "tempo": 1.0}


def state(sequence: int = 0, **levels: float) -> bytes:
    return json.dumps(
        {
            "sequence": sequence,
            "modulators": {**UNIT, **levels},
            "flags": {"stress": True, "reward": False, "focus": True},
            "surprise": {"total": 0.25, "channels": {"cpu": 0.5, "gpu": None}},
            "rates": {"lif": [0.1] * 8, "izhikevich": [0.05] * 5},
        }
    ).encode()


class Ears:
    """A watch, and a clock of its own."""

    def __init__(self) -> None:
        self.watch = Watch("neuromodd")
        self.now_s = 100.0

    def hear(self, topic: str, payload: bytes | dict[str, Any] | None, *, retained: bool = False) -> None:
        data = json.dumps(payload).encode() if isinstance(payload, dict) else payload
        self.watch.take(f"neuromodd/{topic}", data, self.now_s, retained=retained)

    def node(self, name: str = "lab") -> Node:
        return self.watch.nodes[name]


@pytest.fixture
def ears() -> Ears:
    return Ears()


def test_the_newest_levels_and_flags_of_a_node_are_known(ears: Ears) -> None:
    ears.hear("lab/state", state(1, cortisol=0.2))
    ears.hear("lab/state", state(2, cortisol=0.7))
    assert ears.node().levels == {**UNIT, "cortisol": 0.7}
    assert ears.node().flags == ("stress", "focus")


def test_a_daemons_own_messages_are_taken(ears: Ears, live: Any, everything: dict[str, Any]) -> None:
    tick = live().tick(**everything)
    ears.hear("lab/state", state_message(tick).payload)
    ears.hear("lab/telemetry", telemetry_event(tick.frame).encoded(replayed=False))
    ears.hear("lab/fault", fault_event("lab", tick.fault).encoded(replayed=False))
    node = ears.node()
    assert node.levels["tempo"] == tick.modulators.tempo
    assert node.telemetry[-1]["cpu use"] == pytest.approx(1 / 3, rel=1e-4)
    assert node.telemetry[-1]["gpu 0 power"] == pytest.approx(234.57)
    assert node.fault is not None
    assert node.fault.code == tick.fault.fault_class.code


def test_a_node_is_stale_after_three_intervals_and_two_seconds_without_a_state(ears: Ears) -> None:
    ears.hear("lab/status", b"online", retained=True)
    ears.hear("lab/info", {"interval_s": 4.0}, retained=True)
    ears.hear("lab/state", state())
    assert ears.node().standing(ears.now_s + 14.0) == "online"
    assert ears.node().standing(ears.now_s + 14.1) == "stale"


def test_a_node_that_publishes_fewer_states_than_it_ticks_is_not_stale_between_them(ears: Ears) -> None:
    ears.hear("lab/info", {"interval_s": 1.0}, retained=True)
    for sequence in range(6):
        ears.now_s += 30.0
        ears.hear("lab/state", state(sequence))
    assert ears.node().standing(ears.now_s + 91.0) == "online"
    assert ears.node().standing(ears.now_s + 93.0) == "stale"


def test_other_messages_do_not_make_a_node_less_stale(ears: Ears) -> None:
    ears.hear("lab/state", state())
    ears.now_s += 6.0
    ears.hear("lab/health", {"time_utc": "2024-05-01T12:00:00Z"})
    assert ears.node().standing(ears.now_s) == "stale"


def test_a_state_that_the_broker_kept_does_not_count_as_heard(ears: Ears) -> None:
    ears.hear("lab/status", b"online", retained=True)
    ears.hear("lab/state", state(), retained=True)
    assert ears.node().state_s is None
    assert ears.node().standing(ears.now_s + 5.1) == "stale"


def test_an_offline_node_is_offline_however_new_its_state(ears: Ears) -> None:
    ears.hear("lab/state", state())
    ears.hear("lab/status", b"offline")
    assert ears.node().standing(ears.now_s) == "offline"


def test_nodes_are_sorted_by_stress_and_those_that_do_not_live_come_last(ears: Ears) -> None:
    for name, cortisol in (("calm", 0.1), ("dead", 1.0), ("hot", 0.9), ("alike", 0.104)):
        ears.hear(f"{name}/state", state(cortisol=cortisol))
    ears.hear("dead/status", b"offline")
    assert [node.name for node in ears.watch.sorted(ears.now_s)] == ["hot", "alike", "calm", "dead"]


def test_a_message_that_comes_twice_counts_once(ears: Ears) -> None:
    reward = {"id": "1", "kind": "WorkAccepted", "units": 2.0, "time_utc": "2024-05-01T12:00:00Z"}
    for _ in range(2):
        ears.hear("lab/state", state(1))
        ears.hear("lab/reward", reward)
    assert len(ears.node().states) == 1
    assert len(ears.node().events) == 1


def test_a_reward_is_told_with_its_fields(ears: Ears) -> None:
    ears.hear(
        "lab/reward",
        {
            "id": "1",
            "kind": "WorkAccepted",
            "latency_ms": 12.5,
            "units": None,
            "source": "cron",
            "origin": "external",
            "time_utc": "2024-05-01T12:34:56.789Z",
        },
    )
    (event,) = ears.node().events
    assert event == ("12:34:56", "reward", "WorkAccepted", "latency 12.5 ms, source cron, from outside")


def test_a_fault_is_told_with_its_evidence(ears: Ears) -> None:
    evidence = [{"reading": "gpus[0].core_volts", "value": 0.71, "rule": "under 0.8 V"}]
    ears.hear(
        "lab/fault",
        {
            "id": "1",
            "class": "VrmPhaseShort",
            "code": "ERR_VRM_PHASE",
            "confidence": 0.8,
            "evidence": evidence,
        },
    )
    (event,) = ears.node().events
    assert event.name == "ERR_VRM_PHASE"
    assert event.text == "VrmPhaseShort 80% sure: gpus[0].core_volts 0.71 (under 0.8 V)"


def test_an_anomaly_is_known_from_its_begin_to_its_end(ears: Ears) -> None:
    begin = {"id": "1", "phase": "begin", "time_utc": "2024-05-01T12:34:56Z", "sentence": "cpu is 1"}
    flags = {"stress": False, "reward": False, "focus": False, "anomaly": True}
    ears.hear("lab/anomaly", begin)
    ears.hear("lab/state", {"sequence": 1, "flags": flags})
    held = ears.node().anomaly
    assert held is not None
    assert (ears.node().anomalous, held.sentence) == (True, "cpu is 1")
    ears.hear("lab/anomaly", {**begin, "id": "2", "phase": "end", "duration_s": 7.0})
    assert ears.node().anomaly is None
    assert [(event.kind, event.text) for event in ears.node().events] == [
        ("anomaly", "cpu is 1"),
        ("calm", "over after 7 s; cpu is 1"),
    ]
    ears.hear("lab/anomaly", {**begin, "id": "0", "replayed": True})
    assert ears.node().anomaly is None


def test_an_anomaly_that_its_node_has_forgotten_is_none(ears: Ears) -> None:
    ears.hear("lab/anomaly", {"id": "1", "phase": "begin"})
    ears.hear("lab/state", {"sequence": 1, "flags": {"anomaly": False}})
    assert ears.node().anomaly is None


def test_channels_of_surprise_that_are_changed_without_end_do_not_fill_the_memory(ears: Ears) -> None:
    for number in range(1000):
        channels = {f"c{number + of}": 0.1 for of in range(3)}
        ears.hear("lab/state", {"sequence": number, "surprise": {"channels": channels}})
    assert len(ears.node().channels) <= SURPRISES_LIMIT
    assert f"c{999 + 2}" in ears.node().channels


def test_what_fails_is_known_from_health(ears: Ears) -> None:
    ears.hear(
        "lab/health",
        {
            "sensors": {
                "cpu": {"state": "ok", "error": None},
                "nvml": {"state": "failed", "error": "driver lost"},
                "hwmon": {"state": "absent", "error": "no chip"},
            },
            "checkpoint": {"age_s": 4.0, "written": 2, "error": "disk full"},
            "mqtt": {"outbox": {"waiting": 3}},
        },
    )
    condition = ears.node().condition
    assert condition is not None
    assert condition.failing == ("checkpoint: disk full", "sensor nvml failed: driver lost")
    assert condition.sensors == {"ok": 1, "absent": 1, "failed": 1, "hung": 0}
    assert condition.checkpoint_s(ears.now_s + 10.0) == 14.0
    assert condition.waiting == 3


def test_spikes_take_the_place_of_rates_where_they_come(ears: Ears) -> None:
    spikes = {"sequence": 7, "steps": 20, "lif_spikes": [4] + [0] * 7, "izhikevich_spikes": [0] * 5}
    ears.hear("lab/spikes", spikes)
    ears.hear("lab/state", state(7))
    assert list(ears.node().states[-1])[5:18] == [0.2] + [0.0] * 12


def test_telemetry_that_was_kept_in_an_outage_is_left_out(ears: Ears) -> None:
    ears.hear("lab/telemetry", {"replayed": True, "cpu": {"utilization_ratio": 0.5}})
    assert not ears.node().telemetry


def test_what_is_kept_is_bounded(ears: Ears) -> None:
    for number in range(HISTORY_LIMIT + 10):
        ears.hear("lab/state", state(number))
        ears.hear("lab/reward", {"id": str(number), "kind": "WorkAccepted"})
    assert len(ears.node().states) == HISTORY_LIMIT
    assert len(ears.node().events) == EVENTS_LIMIT


def test_of_too_many_nodes_the_longest_silent_gives_way_and_none_that_speaks(ears: Ears) -> None:
    for number in range(NODES_LIMIT + 1):
        ears.hear(f"n{number}/status", b"online")
    assert len(ears.watch.nodes) == NODES_LIMIT
    assert ears.watch.ignored == 1
    ears.now_s += FORGET_S
    ears.hear("new/status", b"online")
    assert len(ears.watch.nodes) == NODES_LIMIT
    assert "new" in ears.watch.nodes


@pytest.mark.parametrize(
    "topic",
    [
        "neuromodd/a b/state",
        "neuromodd/lab/in/reward",
        "neuromodd/\x1b[2J/state",
        "other/lab/state",
        "neuromodd",
    ],
)
def test_a_topic_that_is_none_of_a_node_makes_no_node(ears: Ears, topic: str) -> None:
    ears.watch.take(topic, state(), 0.0, retained=False)
    assert not ears.watch.nodes


HOSTILE = (
    b"",
    b"\xff\xfe",
    b"null",
    b"[1]",
    b"[" * 8_000,
    b'{"a":' * 3_000,
    b"9" * 5_000,
    b'{"modulators":[],"surprise":3,"rates":{"lif":{"a":1}},"flags":"x","sequence":[]}',
    b'{"modulators":{"cortisol":1e999,"tempo":NaN,"dopamine":true,"acetylcholine":"1"}}',
    b'{"interval_s":-1e308,"sensors":[],"mqtt":[],"checkpoint":7,"sinks_failed":{"a":{}},"ticks":null}',
    b'{"interval_s":1e-300,"sensors":{"x":null},"sinks_failed":[1]}',
    b'{"code":["x"],"evidence":[{"reading":{},"value":[]},7],"id":{},"confidence":"y","kind":null}',
    b'{"cpu":{"utilization_ratio":1e308,"frequency_hz":-1e308},"gpus":[3,null],"thermal":{}}',
    b'{"flags":{"anomaly":true},"surprise":{"total":0.9,"channels":[1]},"channels":{"name":3},"sentence":[]}',
    b'{"flags":{"anomaly":true},"surprise":{"total":9,"channels":{"\\u001b[2J":0.5,"b":"x","":-1}},"phase":{}}',
    b'{"flags":{"anomaly":1},"phase":"end","duration_s":-1e308,"surprise":1e308,"channels":[{"name":[1]},2]}',
    b'{"sequence":"\\ud800","time_utc":"\\u0000","kind":"\\u202e","id":"\\ud800"}',
)


@pytest.mark.parametrize("payload", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize(
    "name", ["anomaly", "fault", "health", "info", "reward", "spikes", "state", "status", "telemetry"]
)
def test_a_hostile_payload_does_no_harm_and_can_be_drawn(ears: Ears, name: str, payload: bytes) -> None:
    ears.hear("lab/status", b"online")
    ears.hear(f"lab/{name}", payload)
    ears.hear("lab/state", state(2))
    for columns in (20, 80, 200):
        lines = CloseUp(ears.node(), UNICODE, ears.now_s + 1.0, columns).lines(22)
        assert all(sum(width_of(piece.text) for piece in line) <= columns for line in lines)


def test_a_payload_that_is_too_large_is_left_out(ears: Ears) -> None:
    ears.hear("lab/state", None)
    assert not ears.watch.nodes


@given(st.text(max_size=60))
def test_a_cleaned_text_has_nothing_that_a_terminal_obeys(text: str) -> None:
    harmless = cleaned(text, 60)
    assert not any(unicodedata.category(of)[0] in "CZM" and of != " " for of in harmless if not of.isspace())
    assert not set(harmless) & set("\x1b\r\n\t\b\x9b\u2028\u202e")


@given(st.text(max_size=30).map(lambda text: cleaned(text, 30)), st.integers(min_value=0, max_value=20))
def test_a_fitted_text_is_as_wide_as_it_is_told(text: str, width: int) -> None:
    assert width_of(fitted(text, width)) == width


def test_a_sparkline_goes_from_low_to_high_and_leaves_out_what_is_missing() -> None:
    assert UNICODE.spark([0.0, 0.5, 1.0, float("nan"), 7.0], 0.0, 1.0) == "▁▄▇ ▇"
    assert ASCII.spark([0.0, None, 1.0], 0.0, 1.0) == "_ #"


def test_a_tick_without_spikes_is_blank_and_one_with_the_fewest_is_not() -> None:
    assert UNICODE.spikes([0.0, 1e-6, 1.0], 0.2) == " ▂▇"


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.073, "ratio", ("7", "%")),
        (61.2, "celsius", ("61", "°C")),
        (1536.0, "bytes_per_s", ("1.50", "KiB/s")),
        (2.6e9, "hz", ("2.60", "GHz")),
        (0.0, "bytes", ("0", "B")),
        (234.57, "watts", ("235", "W")),
        (None, "watts", ("-", "")),
    ],
)
def test_an_amount_has_its_unit(value: float | None, unit: str, shown: tuple[str, str]) -> None:
    assert amount(value, unit, UNICODE) == shown


def test_an_age_has_one_unit() -> None:
    assert [age(seconds) for seconds in (0.4, 90.0, 600.0, 7200.0, 2e5)] == [
        "0 s",
        "90 s",
        "10 min",
        "2 h",
        "2 d",
    ]


def test_a_text_is_broken_between_words() -> None:
    assert wrapped("one two three four", 8, 10) == ["one two", "three four"]


def test_what_is_not_measured_has_no_measure() -> None:
    assert measures({"cpu": {"utilization_ratio": None, "load_1m": 2.5}, "gpus": None}) == {"load 1 min": 2.5}
