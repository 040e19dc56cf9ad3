"""The JSON Schemas of the MQTT contract: what is published, what is taken, what is answered.

They are generated from the records that write and read the payloads, and ship with the package in
`neuromodd/schemas/`.
"""

from __future__ import annotations

from typing import Any

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
from neuromodd.core.record import TEXT_LIMIT, Record
from neuromodd.core.requests import REQUESTS, Reply

SCHEMA_VERSION = 1

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_PAYLOADS: dict[str, type[Record]] = {
    "info": InfoPayload,
    "telemetry": TelemetryPayload,
    "state": StatePayload,
    "spikes": SpikesPayload,
    "fault": FaultPayload,
    "anomaly": AnomalyPayload,
    "health": HealthPayload,
    "reply": Reply,
}

SCHEMA_NAMES = (*_PAYLOADS, "reward", *REQUESTS)


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of the payload of topic `name`, or of a `reply`.

    Raises:
        KeyError: no topic of that name has a JSON payload.
    """
    if name == "reward":
        kinds = [payload.model_json_schema(mode="serialization") for payload in REWARD_PAYLOADS.values()]
        found: dict[str, Any] = {"title": "RewardPayload", "oneOf": kinds}
    elif name in REQUESTS:
        found = REQUESTS[name].json_schema(mode="validation")
    else:
        found = _PAYLOADS[name].json_schema()
    return {
        **_without_limit(found),
        "$schema": DIALECT,
        "$id": f"urn:neuromodd:schema:{name}:{SCHEMA_VERSION}",
    }


def _without_limit(value: Any) -> Any:  # noqa: ANN401 - parsed JSON
    """The schema without the bound that every text of a record has: not each pydantic tells it."""
    if isinstance(value, dict):
        kept = {name: _without_limit(of) for name, of in value.items()}
        if kept.get("maxLength") == TEXT_LIMIT:
            del kept["maxLength"]
        if kept.get("propertyNames") == {}:
            del kept["propertyNames"]
        return kept
    return [_without_limit(of) for of in value] if isinstance(value, list) else value
