"""The AsyncAPI 3.0 document of the MQTT contract: each topic, what goes over it, and how.

Payload schemas are those of `schemas`, their definitions moved to `#/components/schemas`, where references
resolve. They are plain AsyncAPI schema objects, a superset of JSON Schema draft 07: what the records say
means the same there as in 2020-12.
"""

from __future__ import annotations

from typing import Any

from neuromodd.core.messages import OFFLINE, ONLINE, REQUEST_TOPICS, TOPICS, TopicRule
from neuromodd.core.schemas import SCHEMA_NAMES, SCHEMA_VERSION, schema

STATE_EXPIRY_S = 300
"""What `mqtt.state_expiry_s` is unless set."""

DISCOVERY = "discovery"
BIRTH = "home-assistant-status"

_JSON = "application/json"
_TEXT = "text/plain"
_BINDING = {"bindingVersion": "0.2.0"}

_ABOUT = {
    "status": "Whether the daemon is there; the broker says `offline` if it vanishes.",
    "info": "Who publishes here, and what it can measure.",
    "telemetry": "The frame of a tick.",
    "state": "Modulators, flags, surprise, prediction errors and firing rates of a tick.",
    "spikes": "Spike counts and potentials of a tick; off unless `mqtt.publish.spikes`.",
    "reward": "Each reward event.",
    "fault": "The fault class that holds, on change.",
    "anomaly": "The begin and the end of each episode in which the host is not as it is used to be.",
    "health": "How the daemon itself is doing.",
    "in/reward": "A reward event from outside; taken if `mqtt.inbound.enabled`.",
    "in/work": "A work rate from outside, in place of the utilisation; taken if `mqtt.inbound.enabled`.",
    "in/command": "Something for the daemon to do; taken if `mqtt.inbound.enabled`.",
    "reply": "What became of a request.",
    DISCOVERY: "The device and its entities for Home Assistant, in the terms of its MQTT discovery.",
    BIRTH: "Home Assistant's birth and last will: at `online` the discovery is published again.",
}

_PARAMETERS = {
    "prefix": {
        "description": "`mqtt.prefix`: first part of every topic; it may have slashes.",
        "default": "neuromodd",
    },
    "node": {
        "description": "The host's name in topics: up to 64 of A-Z, a-z, 0-9, `_`, `.` and `-`.",
        "examples": ["lab-7"],
    },
    "discoveryPrefix": {
        "description": "`homeassistant.prefix`: Home Assistant's discovery prefix.",
        "default": "homeassistant",
    },
    "id": {"description": "The device's identifier in Home Assistant.", "examples": ["neuromodd_lab-7"]},
}


def asyncapi() -> dict[str, Any]:
    """The document.

    `info.version` is the version of the contract, not of the package: what the document describes is the same
    in every release that keeps it.
    """
    return {
        "asyncapi": "3.0.0",
        "id": f"urn:neuromodd:mqtt:{SCHEMA_VERSION}",
        "info": {
            "title": "neuromodd",
            "version": str(SCHEMA_VERSION),
            "description": "A small nervous system for a Linux host, over MQTT. Operations are the "
            "daemon's: it sends what `send` says and takes what `receive` says. Where the broker speaks "
            "3.1.1 only, there are no properties of MQTT 5, and no replies.",
            "license": {"name": "MIT OR Apache-2.0"},
            "tags": [{"name": "telemetry"}, {"name": "neuromodulation"}, {"name": "mqtt"}],
        },
        "defaultContentType": _JSON,
        "servers": {"broker": _server()},
        "channels": _channels(),
        "operations": _operations(),
        "components": {
            "messages": _messages(),
            "messageTraits": {"json": _json_trait()},
            "parameters": _PARAMETERS,
            "schemas": _schemas(),
        },
    }


def key(name: str) -> str:
    """What the topic `name` is called where a slash has no place: in this document and in file names."""
    return name.replace("/", "-")


def _server() -> dict[str, Any]:
    rule = TOPICS["status"]
    will = {
        "topic": "{prefix}/{node}/status",
        "qos": rule.qos,
        "message": OFFLINE.decode(),
        "retain": rule.retain,
    }
    return {
        "host": "localhost:1883",
        "protocol": "mqtt",
        "protocolVersion": "5",
        "description": "The broker that `mqtt.host` and `mqtt.port` name, or the one inside the daemon.",
        "bindings": {"mqtt": {"lastWill": will, **_BINDING}},
    }


def _channels() -> dict[str, Any]:
    addresses: dict[str, str | None] = {
        name: f"{{prefix}}/{{node}}/{name}" for name in (*TOPICS, *REQUEST_TOPICS)
    }
    addresses["reply"] = None
    addresses[DISCOVERY] = "{discoveryPrefix}/device/{id}/config"
    addresses[BIRTH] = "{discoveryPrefix}/status"
    return {key(name): _channel(name, address) for name, address in addresses.items()}


def _channel(name: str, address: str | None) -> dict[str, Any]:
    message = {"$ref": f"#/components/messages/{key(name)}"}
    used = [parameter for parameter in _PARAMETERS if f"{{{parameter}}}" in (address or "")]
    found: dict[str, Any] = {"address": address, "title": name, "messages": {key(name): message}}
    if used:
        found["parameters"] = {
            parameter: {"$ref": f"#/components/parameters/{parameter}"} for parameter in used
        }
    return found


def _operations() -> dict[str, Any]:
    found = {f"send-{name}": _operation("send", name, _sent(rule)) for name, rule in TOPICS.items()}
    for name, qos in REQUEST_TOPICS.items():
        found[f"receive-{key(name)}"] = {
            **_operation("receive", name, {"qos": qos, **_BINDING}),
            "reply": _reply(),
        }
    found[f"send-{DISCOVERY}"] = _operation("send", DISCOVERY, {"qos": 1, "retain": True, **_BINDING})
    found[f"receive-{BIRTH}"] = _operation("receive", BIRTH, {"qos": 0, **_BINDING})
    return found


def _operation(action: str, name: str, binding: dict[str, Any]) -> dict[str, Any]:
    channel = f"#/channels/{key(name)}"
    return {
        "action": action,
        "channel": {"$ref": channel},
        "summary": _ABOUT[name],
        "bindings": {"mqtt": binding},
        "messages": [{"$ref": f"{channel}/messages/{key(name)}"}],
    }


def _sent(rule: TopicRule) -> dict[str, Any]:
    found: dict[str, Any] = {"qos": rule.qos, "retain": rule.retain, **_BINDING}
    if rule.expires:
        found["messageExpiryInterval"] = {
            "type": "integer",
            "minimum": 1,
            "default": STATE_EXPIRY_S,
            "description": "`mqtt.state_expiry_s`, or three intervals where they are longer.",
        }
    return found


def _reply() -> dict[str, Any]:
    return {
        "address": {
            "location": "$message.header#/responseTopic",
            "description": "The response topic of the request (MQTT 5): below the node's topics under "
            "`response/`, or outside of both prefixes. A request with any other is refused, one without gets "
            "no reply.",
        },
        "channel": {"$ref": "#/channels/reply"},
        "messages": [{"$ref": "#/channels/reply/messages/reply"}],
    }


def _messages() -> dict[str, Any]:
    json_trait = {"traits": [{"$ref": "#/components/messageTraits/json"}]}
    found = {key(name): _message(name, _JSON) for name in SCHEMA_NAMES}
    for name in SCHEMA_NAMES:
        found[key(name)] |= _request_parts() if name in REQUEST_TOPICS else json_trait
    found["reply"]["correlationId"] = _correlation()
    for name in ("status", BIRTH):
        found[name] = _message(name, _TEXT)
    found[DISCOVERY] = _message(DISCOVERY, _JSON)
    for name, content_type in (("status", _TEXT), (DISCOVERY, _JSON)):
        found[name]["bindings"] = {"mqtt": _written(content_type)}
    return found


def _message(name: str, content_type: str) -> dict[str, Any]:
    return {
        "name": key(name),
        "title": name,
        "summary": _ABOUT[name],
        "contentType": content_type,
        "payload": {"$ref": f"#/components/schemas/{key(name)}"},
    }


def _json_trait() -> dict[str, Any]:
    version = {
        "type": "string",
        "const": str(SCHEMA_VERSION),
        "description": "The version of the payload's schema; a user property of MQTT 5.",
    }
    return {
        "contentType": _JSON,
        "headers": {"type": "object", "properties": {"schema_version": version}},
        "bindings": {"mqtt": _written(_JSON)},
    }


def _written(content_type: str) -> dict[str, Any]:
    return {"payloadFormatIndicator": 1, "contentType": content_type, **_BINDING}


def _request_parts() -> dict[str, Any]:
    topic = {"type": "string", "description": "Where the reply is wanted."}
    data = {"type": "string", "description": "Any bytes; they come back with the reply."}
    return {
        "correlationId": _correlation(),
        "bindings": {"mqtt": {"responseTopic": topic, "correlationData": data, **_BINDING}},
    }


def _correlation() -> dict[str, str]:
    return {
        "location": "$message.header#/correlationData",
        "description": "The correlation data of MQTT 5, the same in a request and its reply.",
    }


def _schemas() -> dict[str, Any]:
    words = {"type": "string", "enum": [ONLINE.decode(), OFFLINE.decode()]}
    found: dict[str, Any] = {"status": words, BIRTH: words, DISCOVERY: {"type": "object"}}
    for name in SCHEMA_NAMES:
        moved = schema(name)
        definitions = moved.pop("$defs", {})
        # Here a discriminator is a word, and must stand in a schema with that property.
        for keyword in ("$schema", "$id", "discriminator"):
            moved.pop(keyword, None)
        found |= {key(name): _resolvable(moved)}
        found |= {inner: _resolvable(definition) for inner, definition in definitions.items()}
    return found


def _resolvable(value: Any) -> Any:  # noqa: ANN401 - a part of a JSON Schema
    if isinstance(value, dict):
        return {name: _resolvable(of) for name, of in value.items()}
    if isinstance(value, list):
        return [_resolvable(of) for of in value]
    if isinstance(value, str) and value.startswith("#/$defs/"):
        return value.replace("#/$defs/", "#/components/schemas/")
    return value
