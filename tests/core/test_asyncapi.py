"""The AsyncAPI document: valid as such, and the same contract as topics and schemas."""

from __future__ import annotations

import copy
import json
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator
from pydantic import ValidationError

from neuromodd.core.asyncapi import STATE_EXPIRY_S, asyncapi, key
from neuromodd.core.homeassistant import device_id, discovery_topic
from neuromodd.core.messages import REQUEST_TOPICS, TOPICS
from neuromodd.core.schemas import SCHEMA_NAMES, SCHEMA_VERSION, schema

with warnings.catch_warnings():
    # A field of one of its models hides a method of pydantic's.
    warnings.simplefilter("ignore", UserWarning)
    from asyncapi3.models import AsyncAPI3

Document = dict[str, Any]
Damage = Callable[[Document], object]

HOME_ASSISTANT = {"discovery", "home-assistant-status"}


def references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def at(document: Document, reference: str) -> Any:
    """What a reference stands for; KeyError if nothing."""
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def message_of(document: Document, name: str) -> Document:
    (reference,) = document["channels"][key(name)]["messages"].values()
    message: Document = at(document, reference["$ref"])
    return message


def operation_of(document: Document, name: str) -> Document:
    """The one operation on the channel of topic `name`."""
    channel = {"$ref": f"#/channels/{key(name)}"}
    (found,) = (operation for operation in document["operations"].values() if operation["channel"] == channel)
    return dict(found)


def mqtt_of(document: Document, name: str) -> Document:
    binding: Document = operation_of(document, name)["bindings"]["mqtt"]
    return binding


def inlined(document: Document, value: Any) -> Any:
    """A schema without references, and without what only this document or only a file of its own has."""
    if isinstance(value, list):
        return [inlined(document, inner) for inner in value]
    if not isinstance(value, dict):
        return value
    whole = {**at(document, value["$ref"]), **value} if "$ref" in value else value
    left_out = {"$ref", "$defs", "$schema", "$id"}
    return {
        name: inlined(document, inner)
        for name, inner in whole.items()
        if name not in left_out and not (name == "discriminator" and "oneOf" in whole)
    }


# Valid


def test_it_is_a_valid_document() -> None:
    AsyncAPI3.model_validate_json(json.dumps(asyncapi()))


@pytest.mark.parametrize(
    "damage",
    [
        lambda document: document.pop("info"),
        lambda document: document["info"].pop("version"),
        lambda document: document.update(asyncapi="2.6.0"),
        lambda document: document.update(topics={}),
        lambda document: document["servers"]["broker"].pop("protocol"),
        lambda document: document["channels"]["state"].update(topic="x"),
        lambda document: document["operations"]["send-state"].update(action="publish"),
        lambda document: document["operations"]["send-state"].pop("channel"),
        lambda document: document["operations"]["send-state"]["bindings"]["mqtt"].update(qos=3),
        lambda document: document["operations"]["send-state"]["bindings"]["mqtt"].update(expires=1),
        lambda document: document["operations"]["receive-in-work"]["reply"]["address"].pop("location"),
        lambda document: document["components"]["messages"]["state"].update(schema={}),
        lambda document: document["components"]["messageTraits"]["json"]["bindings"]["mqtt"].update(
            payloadFormatIndicator=2
        ),
    ],
)
def test_a_broken_document_is_refused(damage: Damage) -> None:
    broken = copy.deepcopy(asyncapi())
    damage(broken)
    with pytest.raises(ValidationError):
        AsyncAPI3.model_validate_json(json.dumps(broken))


def test_every_reference_resolves() -> None:
    document = asyncapi()
    found = set(references(document))
    assert found
    for reference in found:
        at(document, reference)


def test_every_schema_is_one_of_draft_07() -> None:
    for document in asyncapi()["components"]["schemas"].values():
        Draft7Validator.check_schema(document)


def test_no_schema_says_something_that_draft_07_reads_in_another_way() -> None:
    newer = {"$anchor", "$defs", "$dynamicRef", "dependentRequired", "dependentSchemas", "prefixItems"}
    newer |= {"maxContains", "minContains", "unevaluatedItems", "unevaluatedProperties"}
    text = json.dumps(asyncapi()["components"]["schemas"])
    assert [word for word in sorted(newer) if f'"{word}"' in text] == []


def test_every_component_is_used() -> None:
    document = asyncapi()
    used = set(references(document))
    named = {f"#/components/{kind}/{name}" for kind, of in document["components"].items() for name in of}
    assert named - used == set()


@pytest.mark.parametrize("name", [*TOPICS, *REQUEST_TOPICS, *sorted(HOME_ASSISTANT)])
def test_a_channel_has_exactly_the_parameters_of_its_address(name: str) -> None:
    channel = asyncapi()["channels"][key(name)]
    assert set(channel["parameters"]) == set(re.findall(r"{(\w+)}", channel["address"]))


@pytest.mark.parametrize("name", asyncapi()["operations"])
def test_an_operation_has_messages_of_its_channel(name: str) -> None:
    document = asyncapi()
    operation = document["operations"][name]
    for part in (operation, operation.get("reply", operation)):
        prefix = f"{part['channel']['$ref']}/messages/"
        assert [message["$ref"].startswith(prefix) for message in part["messages"]] == [True]


# The contract


def test_its_channels_are_all_topics() -> None:
    channels = asyncapi()["channels"].values()
    ours = {f"{{prefix}}/{{node}}/{name}" for name in (*TOPICS, *REQUEST_TOPICS)}
    discovery = {"{discoveryPrefix}/device/{id}/config", "{discoveryPrefix}/status"}
    assert {channel["address"] for channel in channels} == ours | discovery | {None}


@pytest.mark.parametrize("name", TOPICS)
def test_a_topic_is_sent_as_it_is_published(name: str) -> None:
    document, rule = asyncapi(), TOPICS[name]
    assert operation_of(document, name)["action"] == "send"
    binding = mqtt_of(document, name)
    assert (binding["qos"], binding["retain"]) == (rule.qos, rule.retain)
    assert ("messageExpiryInterval" in binding) == rule.expires


@pytest.mark.parametrize("name", REQUEST_TOPICS)
def test_a_request_is_received_as_it_is_subscribed_to(name: str) -> None:
    document = asyncapi()
    assert operation_of(document, name)["action"] == "receive"
    assert mqtt_of(document, name)["qos"] == REQUEST_TOPICS[name]


@pytest.mark.parametrize("name", REQUEST_TOPICS)
def test_a_request_is_answered_where_it_asks_for(name: str) -> None:
    document = asyncapi()
    reply = operation_of(document, name)["reply"]
    assert reply["address"]["location"] == "$message.header#/responseTopic"
    assert at(document, reply["channel"]["$ref"])["address"] is None
    assert reply["messages"] == [{"$ref": "#/channels/reply/messages/reply"}]


@pytest.mark.parametrize("name", REQUEST_TOPICS)
def test_a_request_and_its_reply_correlate(name: str) -> None:
    document = asyncapi()
    assert message_of(document, name)["correlationId"] == message_of(document, "reply")["correlationId"]


@pytest.mark.parametrize("name", SCHEMA_NAMES)
def test_a_payload_has_the_schema_that_ships(name: str) -> None:
    document = asyncapi()
    alone = schema(name)
    ours = inlined(document, message_of(document, name)["payload"])
    assert ours == inlined(alone, alone)
    Draft202012Validator.check_schema(ours)


@pytest.mark.parametrize("name", SCHEMA_NAMES)
def test_a_json_message_says_that_it_is_json(name: str) -> None:
    assert message_of(asyncapi(), name)["contentType"] == "application/json"


@pytest.mark.parametrize("name", [name for name in SCHEMA_NAMES if name not in REQUEST_TOPICS])
def test_a_published_json_message_carries_the_version_of_its_schema(name: str) -> None:
    document = asyncapi()
    (trait,) = (at(document, trait["$ref"]) for trait in message_of(document, name)["traits"])
    assert trait["headers"]["properties"]["schema_version"]["const"] == str(SCHEMA_VERSION)
    assert trait["bindings"]["mqtt"]["payloadFormatIndicator"] == 1


def test_status_is_a_bare_word() -> None:
    document = asyncapi()
    message = message_of(document, "status")
    assert message["contentType"] == message["bindings"]["mqtt"]["contentType"] == "text/plain"
    assert "traits" not in message
    assert at(document, message["payload"]["$ref"])["enum"] == ["online", "offline"]


def test_the_last_will_is_the_status_offline() -> None:
    will = asyncapi()["servers"]["broker"]["bindings"]["mqtt"]["lastWill"]
    assert will == {"topic": "{prefix}/{node}/status", "qos": 1, "message": "offline", "retain": True}


def test_discovery_is_retained() -> None:
    assert mqtt_of(asyncapi(), "discovery")["retain"] is True


def test_its_version_is_that_of_the_contract() -> None:
    assert asyncapi()["info"]["version"] == str(SCHEMA_VERSION)


def test_discovery_is_where_it_is_published() -> None:
    address = asyncapi()["channels"]["discovery"]["address"]
    values = {"discoveryPrefix": "homeassistant", "id": device_id("lab-7")}
    assert address.format(**values) == discovery_topic("homeassistant", "lab-7")


def test_the_expiry_that_it_tells_is_the_default_of_the_option() -> None:
    from neuromodd.config import options

    assert {option.name: option.default for option in options()}["mqtt.state_expiry_s"] == STATE_EXPIRY_S
