"""The document for Home Assistant: what is announced, what is removed, and what stays the same for ever."""

from __future__ import annotations

import json
import timeit
from pathlib import Path
from typing import Any

import pytest
from frame_table import rows
from hypothesis import given
from hypothesis import strategies as st

from neuromodd.core.fault_rules import FaultClass
from neuromodd.core.frame import CpuSample, FanSample, GpuSample, TelemetryFrame, TemperatureSample
from neuromodd.core.homeassistant import (
    REMOVED_LIMIT,
    SETTLE_S,
    Announcement,
    discovery_topic,
    remembered_topics,
)
from neuromodd.core.homeassistant_entities import ALWAYS, MEASURED
from neuromodd.core.payloads import FaultPayload, HealthPayload, StatePayload
from neuromodd.core.record import Record

FOLDER = Path(__file__).parent.parent / "homeassistant"
EVERYTHING = TelemetryFrame.from_json((FOLDER / "everything.json").read_bytes())
NOTHING = TelemetryFrame()
WARM = TelemetryFrame(cpu=CpuSample(temperature_celsius=50.0))
GPU = GpuSample(index=0, uuid="GPU-a", pci_bus_id="0000:01:00.0", temperature_celsius=60.0)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda of: st.lists(of) | st.dictionaries(st.text(), of),
    max_leaves=8,
)


def announcement(
    *frames: TelemetryFrame, node: str = "lab", prefix: str = "homeassistant", state: object = None
) -> Announcement:
    """What is announced after those frames, a second apart, in a run that begins with `state`."""
    made = Announcement(node=node, base=f"neuromodd/{node}", discovery_prefix=prefix, version="1.2.3")
    if state is not None:
        made.restore(json.loads(json.dumps(state)))
    for at_s, frame in enumerate(frames):
        made.observe(frame, 100.0 + at_s)
    return made


def settled(made: Announcement, frame: TelemetryFrame = NOTHING) -> Announcement:
    """The same after the time in which remembered components may go unseen."""
    made.observe(frame, 100.0)
    made.observe(frame, 100.0 + SETTLE_S)
    return made


def document(made: Announcement) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(made.document())
    return found


def components(made: Announcement) -> dict[str, Any]:
    found: dict[str, Any] = document(made)["cmps"]
    return found


def live(made: Announcement) -> set[str]:
    return {key for key, of in components(made).items() if set(of) != {"platform"}}


def removed(made: Announcement) -> dict[str, str]:
    return {key: of["platform"] for key, of in components(made).items() if set(of) == {"platform"}}


# The document


def test_the_topic_is_that_of_a_device_below_the_prefix() -> None:
    assert discovery_topic("homeassistant", "lab-7") == "homeassistant/device/neuromodd_lab-7/config"


def test_nodes_that_differ_in_what_an_id_may_not_hold_have_topics_of_their_own() -> None:
    assert len({discovery_topic("ha", node) for node in ("a.b", "a_b", "a..b", "a.b.", "A.b")}) == 5


def test_the_device_bears_the_node_and_the_version() -> None:
    device = document(announcement(node="host.example"))["dev"]
    assert (device["name"], device["sw_version"]) == ("host.example", "1.2.3")


def test_availability_is_the_word_on_the_status_topic() -> None:
    found = document(announcement())
    assert found["availability_topic"] == "neuromodd/lab/status"
    assert (found["payload_available"], found["payload_not_available"]) == ("online", "offline")


def test_unique_ids_bear_the_node_and_the_key() -> None:
    for key, component in components(announcement(EVERYTHING)).items():
        assert component["unique_id"] == f"neuromodd_lab_{key}"


def test_no_two_entities_ask_for_the_same_id() -> None:
    asked = [of["default_entity_id"] for of in components(announcement(EVERYTHING)).values()]
    assert len(set(asked)) == len(asked)


def test_the_ids_are_those_of_every_version_before() -> None:
    """A key that is renamed or gone is a breaking change: dashboards and histories hang on it."""
    stored = (FOLDER / "keys.txt").read_text(encoding="utf-8").split()
    assert live(announcement(EVERYTHING)) == set(stored)


def test_every_measured_path_is_a_field_of_the_frame() -> None:
    assert {entity.path for entity in MEASURED} <= {row[0].strip("`") for row in rows()}


@pytest.mark.parametrize(
    ("topic", "payload"), [("state", StatePayload), ("fault", FaultPayload), ("health", HealthPayload)]
)
def test_every_other_path_is_a_field_of_its_payload(topic: str, payload: type[Record]) -> None:
    schema = payload.json_schema()
    for entity in ALWAYS:
        if entity.topic != topic or not entity.place:
            continue
        place = schema
        for part in entity.place.split("."):
            place = place["properties"][part]
            place = schema["$defs"][place["$ref"].rpartition("/")[2]] if "$ref" in place else place


def test_an_anomaly_is_a_problem_with_the_newest_one_as_its_attributes() -> None:
    found = components(announcement())["state_flags_anomaly"]
    assert (found["device_class"], found["state_topic"]) == ("problem", "neuromodd/lab/state")
    assert found["json_attributes_topic"] == "neuromodd/lab/anomaly"


def test_the_options_of_the_fault_are_all_classes() -> None:
    assert components(announcement())["fault_class"]["options"] == [of.value for of in FaultClass]


def test_two_names_that_differ_in_what_an_id_may_not_hold_are_two_components() -> None:
    fans = tuple(FanSample(name=name, speed_rpm=1.0) for name in ("a/b", "a b", "A/b", "a_b"))
    made = announcement(TelemetryFrame(fans=fans))
    assert len(live(made) - live(announcement())) == 4


@given(name=st.text(min_size=1, max_size=20))
def test_any_name_of_a_sensor_keeps_the_document_json_with_plain_keys(name: str) -> None:
    made = announcement(TelemetryFrame(thermal=(TemperatureSample(name=name, temperature_celsius=1.0),)))
    (key,) = live(made) - live(announcement())
    assert key.replace("_", "").isalnum()
    assert key.isascii()


# What appears


def test_only_what_the_daemon_always_tells_is_announced_before_the_first_frame() -> None:
    assert len(components(announcement())) == len(ALWAYS)


def test_a_frame_without_readings_adds_nothing() -> None:
    assert not announcement().observe(NOTHING, 0.0)


def test_a_reading_is_announced_with_the_first_frame_that_has_it() -> None:
    made = announcement(NOTHING)
    assert made.observe(WARM, 101.0)
    assert "cpu_temperature_celsius" in live(made)


def test_the_same_reading_again_changes_nothing() -> None:
    made = announcement(WARM)
    before = made.document()
    assert not made.observe(WARM, 101.0)
    assert made.document() == before


def test_a_zero_and_a_false_are_readings() -> None:
    made = announcement(TelemetryFrame(cpu=CpuSample(utilization_ratio=0.0), gpus=(GPU,)))
    assert {"cpu_utilization_ratio", *(key for key in live(made) if key.endswith("_lost"))} <= live(made)
    assert any(key.endswith("_lost") for key in live(made))


def test_a_reading_that_vanishes_during_the_run_stays() -> None:
    assert "cpu_temperature_celsius" in live(settled(announcement(WARM)))


def test_what_is_new_comes_first_in_the_document() -> None:
    keys = list(components(announcement(NOTHING, WARM)))
    assert keys[0] == "cpu_temperature_celsius"


def test_a_gpu_keeps_its_ids_when_its_number_changes() -> None:
    moved = GPU.model_copy(update={"index": 3})
    before = announcement(TelemetryFrame(gpus=(GPU,)))
    assert not before.observe(TelemetryFrame(gpus=(moved,)), 101.0)


@pytest.mark.parametrize("state", ["suspended", "lost", "hung"])
def test_a_gpu_that_tells_nothing_is_not_announced(state: str) -> None:
    bare = GpuSample(index=0, pci_bus_id="0000:01:00.0", **{state: True})
    assert live(announcement(TelemetryFrame(gpus=(bare,)))) == live(announcement())


def test_a_tick_in_which_nothing_is_new_takes_less_than_a_fifth_of_a_millisecond() -> None:
    made = announcement(EVERYTHING)
    took_s = min(timeit.repeat(lambda: made.observe(EVERYTHING, 200.0), number=100, repeat=5)) / 100
    assert took_s < 2e-4


# What is removed


def test_what_an_earlier_run_announced_stays_until_it_has_had_time_to_appear() -> None:
    made = announcement(NOTHING, state=announcement(WARM).state())
    assert not made.observe(NOTHING, 100.0 + SETTLE_S - 1.0)
    assert components(made) == components(announcement(WARM))


def test_what_is_not_found_again_is_removed_by_its_platform_alone() -> None:
    made = announcement(NOTHING, state=announcement(WARM).state())
    assert made.observe(NOTHING, 100.0 + SETTLE_S)
    assert removed(made) == {"cpu_temperature_celsius": "sensor"}


def test_what_is_found_again_is_not_removed() -> None:
    made = announcement(WARM, state=announcement(WARM).state())
    assert removed(settled(made)) == {}


def test_a_removal_is_told_again_by_the_next_run() -> None:
    gone = settled(announcement(state=announcement(WARM).state()))
    assert removed(announcement(state=gone.state())) == {"cpu_temperature_celsius": "sensor"}


def test_a_run_that_ends_before_the_removal_leaves_it_to_the_next() -> None:
    short = announcement(NOTHING, state=announcement(WARM).state())
    assert removed(settled(announcement(state=short.state()))) == {"cpu_temperature_celsius": "sensor"}


def test_what_comes_back_after_its_removal_is_announced_again() -> None:
    made = settled(announcement(state=announcement(WARM).state()))
    assert made.observe(WARM, 1000.0)
    assert "cpu_temperature_celsius" in live(made)


def test_a_component_that_this_version_does_not_have_is_removed_at_once() -> None:
    state = announcement(WARM).state()
    state["components"]["cpu_humour"] = {"platform": "sensor", "path": "cpu.humour"}
    assert removed(announcement(state=state)) == {"cpu_humour": "sensor"}


def test_a_gpu_that_sleeps_since_the_start_is_not_removed() -> None:
    asleep = GpuSample(index=0, pci_bus_id="0000:01:00.0", suspended=True)
    before = announcement(TelemetryFrame(gpus=(GPU,)))
    made = settled(announcement(state=before.state()), TelemetryFrame(gpus=(asleep,)))
    assert live(made) == live(before)


def test_gpus_are_not_removed_while_their_driver_does_not_answer() -> None:
    before = announcement(TelemetryFrame(gpus=(GPU,)))
    made = settled(
        announcement(state=before.state()), TelemetryFrame(gpu_driver_error="LibRmVersionMismatch")
    )
    assert live(made) == live(before)


def test_a_gpu_that_was_replaced_is_removed() -> None:
    other = GPU.model_copy(update={"uuid": "GPU-b"})
    before = announcement(TelemetryFrame(gpus=(GPU,)))
    made = settled(announcement(state=before.state()), TelemetryFrame(gpus=(other,)))
    assert set(removed(made)) == live(before) - live(announcement())


def test_the_memory_of_what_was_removed_is_bounded() -> None:
    state = announcement().state()
    state["removed"] = {f"gone_{number}": "sensor" for number in range(2 * REMOVED_LIMIT)}
    assert len(removed(announcement(state=state))) == REMOVED_LIMIT


# What is withdrawn


@pytest.mark.parametrize("other", [{"node": "new"}, {"prefix": "ha"}])
def test_the_document_of_another_name_or_prefix_is_withdrawn(other: dict[str, str]) -> None:
    old = announcement(WARM)
    made = announcement(state=old.state(), **other)
    assert made.withdrawals() == (old.topic,)
    assert live(made) == live(announcement())


def test_a_withdrawal_that_did_not_reach_the_broker_is_left_to_the_next_run() -> None:
    old = announcement()
    short = announcement(node="new", state=old.state())
    assert announcement(node="new", state=short.state()).withdrawals() == (old.topic,)


def test_a_withdrawal_is_made_once() -> None:
    old = announcement()
    made = announcement(node="new", state=old.state())
    made.withdrawn(old.topic)
    assert announcement(node="new", state=made.state()).withdrawals() == ()


def test_its_own_topic_is_never_withdrawn() -> None:
    away = announcement(node="new", state=announcement().state())
    assert announcement(state=away.state()).withdrawals() == (away.topic,)


def test_a_state_tells_which_topics_to_clear_when_announcing_is_switched_off() -> None:
    old = announcement()
    made = announcement(node="new", state=old.state())
    assert set(remembered_topics(made.state())) == {old.topic, made.topic}


@pytest.mark.parametrize("topic", ["neuromodd/lab/state", "#", "homeassistant/device/other/config", 5, None])
def test_a_topic_that_is_no_document_of_ours_is_never_cleared(topic: object) -> None:
    assert remembered_topics({"topic": topic, "withdrawals": [topic]}) == ()


# The state


def test_a_restored_announcement_is_the_same() -> None:
    made = announcement(EVERYTHING)
    again = announcement(state=made.state())
    assert components(again) == components(made)
    assert again.state() == made.state()


@given(state=JSON)
def test_a_foreign_state_is_ignored(state: object) -> None:
    assert announcement(state=state).document() == announcement().document()


@given(damage=JSON, where=st.sampled_from(["withdrawals", "components", "removed"]))
def test_a_damaged_part_of_a_state_is_ignored(damage: object, where: str) -> None:
    state = announcement(WARM).state() | {where: damage}
    assert live(announcement()) <= live(announcement(state=state))


@given(damage=JSON)
def test_one_damaged_entry_does_not_take_the_others_along(damage: object) -> None:
    state = announcement(WARM).state()
    state["components"]["cpu_load_1m"] = damage
    assert "cpu_temperature_celsius" in live(announcement(state=state))


@pytest.mark.parametrize(
    "entry",
    [
        {"platform": "light", "path": "cpu.load_1m"},
        {"platform": "sensor", "path": "cpu.load_1m", "item": 5},
        {"platform": "sensor", "path": 5},
        {},
    ],
)
def test_an_entry_that_does_not_fit_is_ignored(entry: dict[str, Any]) -> None:
    state = announcement().state()
    state["components"]["cpu_load_1m"] = entry
    assert components(announcement(state=state)) == components(announcement())
