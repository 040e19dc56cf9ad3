"""What others may send: the payloads of `in/reward`, `in/work` and `in/command`, and what is answered.

Unlike in what the daemon publishes, an unknown field is a fault: whoever misspells one must hear of it.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, ConfigDict, Field, TypeAdapter, ValidationError

from neuromodd.core.record import NonNegative, Record, describe_faults
from neuromodd.core.rewards import RewardEvent
from neuromodd.errors import RequestRefusedError, shortened

REQUEST_LIMIT_BYTES = 16_384
"""Of one payload; a larger one is not even parsed."""

NAME_LIMIT = 128

Identifier = Annotated[str, Field(min_length=1, max_length=NAME_LIMIT, pattern=r"^[A-Za-z0-9_.:-]+$")]
Name = Annotated[str, Field(max_length=NAME_LIMIT)]


class _Request(Record):
    model_config = ConfigDict(strict=True, json_schema_extra={"additionalProperties": False})


class _RewardRequest(_Request):
    id: Identifier | None = Field(
        default=None, description="recognises a repeat; unset: made when it arrives"
    )
    time_utc: AwareDatetime | None = Field(
        default=None, description="when it happened; unset: when the next tick takes it"
    )
    node: Name | None = Field(default=None, description="this node or null")
    origin: Literal["external"] = "external"


class WorkAcceptedRequest(_RewardRequest):
    """A piece of work was done."""

    kind: Literal["WorkAccepted"]
    latency_ms: NonNegative | None = Field(default=None, description="how long it took")
    units: NonNegative | None = Field(default=None, description="how much work it was")
    source: Name | None = Field(default=None, description="who did it")


class BreakthroughFoundRequest(_RewardRequest):
    """Something was better than ever."""

    kind: Literal["BreakthroughFound"]
    metric: Name | None = Field(default=None, description="what was better")
    value: float | None = None
    previous_best: float | None = None


class SourceSwitchRequest(_RewardRequest):
    """The host's work comes from somewhere else."""

    kind: Literal["SourceSwitch"]
    previous: Name | None = None
    current: Name | None = None


class WorkRequest(_Request):
    """`in/work`: a work rate that takes the place of the utilisation while it is fresh."""

    rate: NonNegative = Field(description="units of work a second")
    target: float | None = Field(
        default=None, gt=0.0, description="the rate that earns full dopamine; unset: modulators.work_target"
    )
    latency_ms: NonNegative | None = Field(default=None, description="of the last unit")
    source: Name = Field(default="external", min_length=1, description="what measures it")
    fresh_s: float | None = Field(
        default=None, gt=0.0, le=86_400.0, description="how long it holds; unset: mqtt.inbound.work_fresh_s"
    )
    time_utc: AwareDatetime | None = Field(default=None, description="when it was measured")


class _CommandRequest(_Request):
    id: Identifier | None = Field(default=None, description="a repeat of it is ignored")
    time_utc: AwareDatetime | None = Field(
        default=None, description="when it was sent: over 30 s ago, it is ignored"
    )


class CheckpointCommand(_CommandRequest):
    """Write a checkpoint now; answered when it is on the disk."""

    command: Literal["checkpoint"]


class SampleNowCommand(_CommandRequest):
    """Take a tick now, besides those of the grid; answered with its sequence."""

    command: Literal["sample-now"]


class ResetCommand(_CommandRequest):
    """Forget all that was learned, and begin anew; the checkpoints so far are set aside."""

    command: Literal["reset"]


class SetIntervalCommand(_CommandRequest):
    """Tick at another interval, until a reload or a restart."""

    command: Literal["set-interval"]
    interval_s: float = Field(ge=0.05, le=3600.0, description="seconds from one tick to the next")


class IdentifyCommand(_CommandRequest):
    """Say who this is: answered with the content of `info`, and a line in the log."""

    command: Literal["identify"]


RewardRequest = WorkAcceptedRequest | BreakthroughFoundRequest | SourceSwitchRequest
Command = CheckpointCommand | SampleNowCommand | ResetCommand | SetIntervalCommand | IdentifyCommand


REWARDS: dict[str, type[WorkAcceptedRequest | BreakthroughFoundRequest | SourceSwitchRequest]] = {
    "WorkAccepted": WorkAcceptedRequest,
    "BreakthroughFound": BreakthroughFoundRequest,
    "SourceSwitch": SourceSwitchRequest,
}


class Reply(Record):
    """What is answered on the response topic of a request, with its correlation data.

    Attributes:
        request: the last part of the topic that the request came on.
        ok: whether it was taken and done.
        id: of the request or, for a reward, what it goes out as.
        refusal: the kind of trouble (too_large, invalid, retained, stale, repeated, rate, failed, or one that
            a later version knows); null if it was taken.
        error: what is wrong, and what was expected; null if it was taken.
        result: what a command has to say.
    """

    node: str
    request: str
    ok: bool
    id: str | None = None
    refusal: str | None = None
    error: str | None = None
    result: dict[str, Any] | None = None


REQUESTS: dict[str, TypeAdapter[Any]] = {
    "in/reward": TypeAdapter(Annotated[RewardRequest, Field(discriminator="kind")]),
    "in/work": TypeAdapter(WorkRequest),
    "in/command": TypeAdapter(Annotated[Command, Field(discriminator="command")]),
}


def parse_request(name: str, payload: bytes) -> RewardRequest | WorkRequest | Command:
    """The request in a payload that came on topic `name`.

    Raises:
        RequestRefusedError: it is too large, not JSON, or not what the schema of `name` says.
    """
    if len(payload) > REQUEST_LIMIT_BYTES:
        raise RequestRefusedError(
            "too_large", f"got {len(payload)} bytes, expected {REQUEST_LIMIT_BYTES} at most"
        )
    try:
        found: RewardRequest | WorkRequest | Command = REQUESTS[name].validate_json(payload)
    except ValidationError as error:
        raise RequestRefusedError("invalid", _told(error)) from None
    return found


def reward_from(request: RewardRequest) -> RewardEvent:
    """The event that a request stands for."""
    return RewardEvent.from_dict(request.model_dump())


def payload_of(request: RewardRequest | WorkRequest | Command) -> bytes:
    """What a sender publishes."""
    return json.dumps(request.model_dump(mode="json", exclude_none=True)).encode()


def _told(error: ValidationError) -> str:
    faults = describe_faults(error)
    texts = [
        f"{place or 'payload'}: got {shortened(got)}, expected {expected}" for place, got, expected in faults
    ]
    more = "" if len(texts) <= 3 else f"; and {len(texts) - 3} more"  # noqa: PLR2004 - a line has an end
    return "; ".join(texts[:3]) + more
