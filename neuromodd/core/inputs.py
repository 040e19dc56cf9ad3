"""What reaches the brain besides frames, as records: a recording holds them and a replay repeats them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, SerializeAsAny

from neuromodd.core.diagnostics import FaultParameters
from neuromodd.core.modulators import Setpoints
from neuromodd.core.record import Record
from neuromodd.core.rewards import RewardEvent, RewardParameters
from neuromodd.core.surprise import SurpriseParameters
from neuromodd.errors import InvalidRecordError, shortened


def _event(value: object) -> object:
    return RewardEvent.from_dict(value) if isinstance(value, Mapping) else value


class RewardInput(Record):
    """An event from outside; it acts with the next frame.

    Attributes:
        kind: tells the inputs apart.
        event: as it came.
    """

    kind: Literal["reward"] = "reward"
    event: Annotated[SerializeAsAny[RewardEvent], BeforeValidator(_event)]


class SettingsInput(Record):
    """The settings that a running brain takes over, as they are after a reload.

    Attributes:
        kind: tells the inputs apart.
        setpoints: where a healthy host lies.
        rewards: what counts as a reward.
        faults: what counts as a fault.
        surprise: what is watched for the unusual; None in recordings from before it was.
    """

    kind: Literal["settings"] = "settings"
    setpoints: Setpoints
    rewards: RewardParameters
    faults: FaultParameters
    surprise: SurpriseParameters | None = None


class ResetInput(Record):
    """The command to forget all that was learned.

    Attributes:
        kind: tells the inputs apart.
    """

    kind: Literal["reset"] = "reset"


OutsideInput = RewardInput | SettingsInput | ResetInput

KINDS: dict[str, type[RewardInput | SettingsInput | ResetInput]] = {
    "reward": RewardInput,
    "settings": SettingsInput,
    "reset": ResetInput,
}


def input_from_dict(values: Mapping[str, Any]) -> OutsideInput:
    """The input that parsed JSON describes, of the class that its `kind` names.

    Raises:
        InvalidRecordError: an unknown kind, or a field is missing or out of range.
    """
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        fault = f"kind: got {shortened(kind)}, expected one of {', '.join(KINDS)}"
        raise InvalidRecordError("OutsideInput", [fault])
    return KINDS[kind].from_dict(values)
