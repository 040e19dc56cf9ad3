"""The schemas that ship, and what they promise: version 1 only ever gains."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import schema_files
from jsonschema import Draft202012Validator, ValidationError

from neuromodd.core.messages import REQUEST_TOPICS, TOPICS
from neuromodd.core.record import TEXT_LIMIT
from neuromodd.core.requests import REQUESTS
from neuromodd.core.schemas import SCHEMA_NAMES, schema

Contract = dict[str, Any]
Change = Callable[[Contract], object]

FROZEN: Contract = json.loads(schema_files.CONTRACT.read_text(encoding="utf-8"))

TEXT = {"types": ["string"], "required": False}


def changed(change: Change) -> Contract:
    contract = copy.deepcopy(FROZEN)
    change(contract)
    return contract


def plain(value: Any) -> Any:
    """Without the bound that every text of a record has: versions of pydantic differ in telling it."""
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    kept = {
        name: plain(inner)
        for name, inner in value.items()
        if not (name == "maxLength" and inner == TEXT_LIMIT)
    }
    return {name: inner for name, inner in kept.items() if not (name == "propertyNames" and inner == {})}


# Schemas


def test_every_topic_but_the_bare_word_has_a_schema_and_so_has_a_reply() -> None:
    assert set(SCHEMA_NAMES) == set(TOPICS) - {"status"} | set(REQUEST_TOPICS) | {"reply"}
    with pytest.raises(KeyError):
        schema("status")


def test_every_topic_that_is_subscribed_to_has_a_reader() -> None:
    assert set(REQUESTS) == set(REQUEST_TOPICS)


@pytest.mark.parametrize("name", SCHEMA_NAMES)
def test_a_schema_is_a_valid_schema_with_an_id_and_a_version(name: str) -> None:
    found = schema(name)
    Draft202012Validator.check_schema(found)
    assert found["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert found["$id"] == f"urn:neuromodd:schema:{name}:1"


@pytest.mark.parametrize("name", [name for name in SCHEMA_NAMES if name not in REQUEST_TOPICS])
def test_a_schema_of_what_is_published_forbids_no_new_field(name: str) -> None:
    assert '"additionalProperties": false' not in json.dumps(schema(name))


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("in/reward", {"kind": "WorkAccepted"}),
        ("in/reward", {"kind": "SourceSwitch"}),
        ("in/work", {"rate": 1.0}),
        ("in/command", {"command": "checkpoint"}),
        ("in/command", {"command": "set-interval", "interval_s": 1.0}),
    ],
)
def test_a_schema_of_what_is_taken_refuses_a_misspelt_field(name: str, request_: Contract) -> None:
    validator = Draft202012Validator(schema(name))
    validator.validate(request_)
    with pytest.raises(ValidationError):
        validator.validate({**request_, "nod": "lab-7"})


# What ships


@pytest.mark.parametrize("file", schema_files.files())
def test_a_shipped_file_is_what_the_code_generates(file: str) -> None:
    # `python tests/schema_files.py` writes them anew.
    shipped = json.loads((schema_files.FOLDER / file).read_text(encoding="utf-8"))
    generated = json.loads(json.dumps(schema_files.files()[file]))
    assert plain(shipped) == plain(generated)


def test_nothing_else_ships_beside_them() -> None:
    assert {path.name for path in schema_files.FOLDER.iterdir()} == set(schema_files.files())


# Version 1


def test_version_1_is_what_it_was() -> None:
    # A change that fails here needs version 2: see "Topics" in the README.
    assert schema_files.breaks(FROZEN, schema_files.contract()) == []


@pytest.mark.parametrize(
    "addition",
    [
        lambda contract: contract["topics"].update(dream={"qos": 0, "retain": False}),
        lambda contract: contract["requests"].update({"in/dream": {"qos": 0}}),
        lambda contract: contract["published"]["state"].update(
            {"mood": {"types": ["null"], "required": True}}
        ),
        lambda contract: contract["published"].update(dream={"id": TEXT}),
        lambda contract: contract["taken"].update({"in/dream": {"id": {**TEXT, "required": True}}}),
        lambda contract: contract["taken"].update(
            {"in/command nap": {"command": {**TEXT, "required": True}}}
        ),
        lambda contract: contract["taken"]["in/work"].update(mood=TEXT),
    ],
)
def test_an_addition_keeps_version_1(addition: Change) -> None:
    assert schema_files.breaks(FROZEN, changed(addition)) == []


@pytest.mark.parametrize(
    "narrowing",
    [
        lambda contract: contract["published"]["info"]["boot_id"].update(types=["string"]),
        lambda contract: contract["published"]["info"]["interval_s"].update(types=["integer"]),
        lambda contract: contract["published"]["reward WorkAccepted"]["origin"].update(types=['"detected"']),
        lambda contract: contract["published"]["fault"]["code"].update(types=['"STATUS_OK"']),
        lambda contract: contract["published"]["fault"]["confidence"].update(minimum=0.1),
    ],
)
def test_publishing_less_of_what_was_allowed_keeps_version_1(narrowing: Change) -> None:
    assert schema_files.breaks(FROZEN, changed(narrowing)) == []


@pytest.mark.parametrize(
    "widening",
    [
        lambda contract: contract["taken"]["in/work"]["rate"].update(
            types=["null", "number"], required=False
        ),
        lambda contract: contract["taken"]["in/work"]["rate"].pop("minimum"),
        lambda contract: contract["taken"]["in/command set-interval"]["interval_s"].update(maximum=7200),
        lambda contract: contract["taken"]["in/reward WorkAccepted"]["origin"].update(types=["string"]),
    ],
)
def test_taking_more_than_was_allowed_keeps_version_1(widening: Change) -> None:
    assert schema_files.breaks(FROZEN, changed(widening)) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda contract: contract["topics"].pop("spikes"), "topics: spikes"),
        (lambda contract: contract["topics"]["fault"].update(retain=False), "topics: fault"),
        (lambda contract: contract["requests"]["in/work"].update(qos=1), "requests: in/work"),
        (lambda contract: contract["published"].pop("reward SourceSwitch"), "kind has vanished"),
        (
            lambda contract: contract["published"].update({"reward Windfall": {"kind": TEXT}}),
            "reward Windfall is a new kind",
        ),
        (lambda contract: contract["published"]["state"].pop("step"), "step has vanished"),
        (
            lambda contract: contract["published"]["state"].pop("modulators.tonic.tempo"),
            "modulators.tonic.tempo has vanished",
        ),
        (
            lambda contract: contract["published"]["state"]["step"].update(required=False),
            "step may be missing",
        ),
        (
            lambda contract: contract["published"]["state"]["step"].update(types=["integer", "null"]),
            "step may be null",
        ),
        (
            lambda contract: contract["published"]["state"]["step"].update(types=["string"]),
            "step may be string",
        ),
        (
            lambda contract: contract["published"]["state"]["step"].update(types=["number"]),
            "step may be number",
        ),
        (
            lambda contract: contract["published"]["state"]["time_utc"].update(types=["string"]),
            "time_utc may be string",
        ),
        (
            lambda contract: contract["published"]["health"]["sensors{}.state"]["types"].append('"tired"'),
            'sensors{}.state may be "tired"',
        ),
        (
            lambda contract: contract["published"]["fault"]["confidence"].update(maximum=100),
            "confidence has left its maximum",
        ),
        (
            lambda contract: contract["published"]["fault"]["confidence"].pop("minimum"),
            "confidence has left its minimum",
        ),
        (lambda contract: contract["taken"].pop("in/command reset"), "command is not taken any more"),
        (lambda contract: contract["taken"]["in/work"].pop("source"), "source is not taken any more"),
        (lambda contract: contract["taken"]["in/work"]["source"].update(required=True), "source is required"),
        (
            lambda contract: contract["taken"]["in/work"].update(mood={**TEXT, "required": True}),
            "mood is new and required",
        ),
        (
            lambda contract: contract["taken"]["in/work"]["target"].update(types=["number"]),
            "target may not be null",
        ),
        (
            lambda contract: contract["taken"]["in/work"]["rate"].update(types=["integer"]),
            "rate may not be number",
        ),
        (
            lambda contract: contract["taken"]["in/command set-interval"]["interval_s"].update(maximum=60),
            "interval_s has a narrower maximum",
        ),
    ],
)
def test_what_breaks_version_1_is_told(change: Change, told: str) -> None:
    found = schema_files.breaks(FROZEN, changed(change))
    assert [text for text in found if told in text]


@pytest.mark.parametrize("name", SCHEMA_NAMES)
def test_the_frozen_contract_knows_every_payload(name: str) -> None:
    payloads = FROZEN["published"] | FROZEN["taken"]
    assert [payload for payload in payloads if payload.split(" ", 1)[0] == name]


def test_the_fields_of_a_schema_are_found_at_every_depth() -> None:
    document = {
        "$defs": {"Part": {"type": "object", "properties": {"x_s": {"type": "number", "minimum": 0}}}},
        "properties": {
            "list": {"type": "array", "items": {"$ref": "#/$defs/Part"}},
            "table": {"type": "object", "additionalProperties": {"anyOf": [{"const": 1}, {"type": "null"}]}},
            "time": {"type": "string", "format": "date-time"},
        },
        "required": ["time"],
    }
    assert schema_files.fields(document) == {
        "list": {"types": ["array"], "required": False},
        "list[]": {"types": ["object"], "required": True},
        "list[].x_s": {"types": ["number"], "required": False, "minimum": 0},
        "table": {"types": ["object"], "required": False},
        "table{}": {"types": ["1", "null"], "required": True},
        "time": {"types": ["date-time"], "required": True},
    }
