"""What every record (frame, event, payload, parameter set) has in common."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.config import JsonDict

from neuromodd.errors import InvalidRecordError, shortened

Ratio = Annotated[float, Field(ge=0.0, le=1.0)]
"""A share of a whole, in [0, 1]."""

NonNegative = Annotated[float, Field(ge=0.0)]
"""A finite quantity that can't be negative: bytes per second, watts, rpm."""

TEXT_LIMIT = 65_536
"""Characters that one text of a record may have."""

_TAG = re.compile(r"using (?:discriminator )?'(\w+)'")

FIRST_FRAME = "first frame"
"""When a rate is null: it needs an earlier reading."""


def measured(source: str, *, needs: str = "", null: str = "", **bounds: Any) -> Any:  # noqa: ANN401 - as Field
    """A field that is None unless it was measured.

    Args:
        source: the file, call or reading that it comes from.
        needs: what a host must have for it.
        null: when it is null although the host has all that.
        bounds: as of `pydantic.Field`.
    """
    notes: JsonDict = {"needs": needs or None, "null_when": null or None}
    return Field(default=None, description=source, json_schema_extra=notes, **bounds)


def describe_faults(error: ValidationError) -> list[tuple[str, object, str]]:
    """Turn pydantic's findings into (place, what came, what was expected)."""
    faults = []
    for item in error.errors(include_url=False, include_context=False):
        place = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            faults.append((place, item["input"], "no such field"))
        elif item["type"] == "missing":
            faults.append((place, None, "a value, it is required"))
        elif item["type"] == "frozen_instance":
            faults.append((place, item["input"], "no assignment, a record is frozen"))
        elif item["type"] in {"union_tag_invalid", "union_tag_not_found"}:
            faults.append(_wrong_tag(place, item["input"], item["msg"]))
        elif item["type"] == "json_invalid":
            faults.append((place, item["input"], f"JSON ({item['msg'].removeprefix('Invalid JSON: ')})"))
        else:
            message = item["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
            faults.append((place, item["input"], message))
    return faults


def _wrong_tag(place: str, got: object, message: str) -> tuple[str, object, str]:
    """The fault of a record that is one of several kinds: its kind, and which there are."""
    tag = _TAG.search(message)
    name = tag[1] if tag else "kind"
    kind = got.get(name) if isinstance(got, Mapping) else None
    known = message.partition("expected tags: ")[2]
    where = f"{place}.{name}" if place else name
    return where, kind, f"one of {known}" if known else "a value, it is required"


def _fail(record: str, error: ValidationError) -> InvalidRecordError:
    return InvalidRecordError(
        record,
        [
            f"{place}: got {shortened(got)}, expected {expected}" if place else f"expected {expected}"
            for place, got, expected in describe_faults(error)
        ],
    )


if TYPE_CHECKING:
    _Model = BaseModel
else:

    class _RecordMeta(type(BaseModel)):
        def __call__(cls, *positional: object, **values: object) -> object:
            """Build a record; a fault raises the package's own error rather than pydantic's."""
            names = cls.positional_fields if positional else ()
            if len(positional) > len(names):
                raise InvalidRecordError(
                    cls.__name__, [f"got {len(positional)} positional values, expected {len(names)} at most"]
                )
            try:
                if positional:
                    return super().__call__(**dict(zip(names, positional, strict=False)), **values)
                # What `super().__call__` comes to, two calls shorter: a tick makes some twenty records.
                return cls.__pydantic_validator__.validate_python(values, self_instance=cls.__new__(cls))
            except ValidationError as error:
                raise _fail(cls.__name__, error) from None

    class _Model(BaseModel, metaclass=_RecordMeta):
        pass


class JsonModel(_Model):
    """Keyword-only fields that round-trip through JSON exactly.

    NaN, infinities and text that UTF-8 can't carry are refused. The constructor refuses unknown fields,
    so that a misspelt name is noticed; `from_json` ignores them, so that a reader survives a newer writer.
    """

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        # A bound, however far, also refuses text that UTF-8 can't carry (lone surrogates).
        str_max_length=TEXT_LIMIT,
        json_schema_serialization_defaults_required=True,
        # Additive changes keep a payload's version, so a schema must not forbid what it does not know.
        json_schema_extra=lambda schema: schema.pop("additionalProperties", None),
    )

    positional_fields: ClassVar[tuple[str, ...]] = ()
    """Fields that the constructor takes by position too: a few types' parameters have an order."""

    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: object) -> None:
            """Assign a field; a fault raises the package's own error rather than pydantic's."""
            try:
                super().__setattr__(name, value)
            except ValidationError as error:
                raise _fail(type(self).__name__, error) from None

    def to_json(self) -> str:
        """This object as one line of JSON; every finite double survives bit for bit."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The record that `text` describes; unknown fields are ignored.

        Raises:
            InvalidRecordError: the text is not JSON, or a field is missing or out of range.
        """
        try:
            return cls.model_validate_json(text, extra="ignore")
        except ValidationError as error:
            raise _fail(cls.__name__, error) from None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The record that parsed JSON describes; unknown fields are ignored.

        Raises:
            InvalidRecordError: a field is missing or out of range.
        """
        try:
            return cls.model_validate(values, extra="ignore")
        except ValidationError as error:
            raise _fail(cls.__name__, error) from None

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The JSON Schema (2020-12) of what `to_json` writes."""
        schema = cls.model_json_schema(mode="serialization")
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


class Record(JsonModel):
    """A frozen JsonModel: data that was measured, decided or configured, and does not change any more."""

    model_config = ConfigDict(frozen=True)


class MutableState(JsonModel):
    """A JsonModel whose fields may be assigned; each assignment is checked like the constructor's."""

    model_config = ConfigDict(validate_assignment=True)
