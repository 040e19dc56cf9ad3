"""Builders that the tests of the core share, and how Hypothesis runs in them."""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from pydantic import AwareDatetime, BaseModel
from pydantic.fields import FieldInfo

from neuromodd.core.frame import CpuSample, TelemetryFrame

GOLDEN = Path(__file__).parent.parent / "data" / "golden"
START = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)

settings.register_profile("core", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("core")


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, Any]]:
    """Reads a file of golden numbers by its name."""

    def read(name: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
        return document

    return read


@pytest.fixture(scope="session")
def frame() -> Callable[..., TelemetryFrame]:
    """Builds the frame of second `at_s`; `cpu` may be a bare utilisation, groups are given by name."""

    def build(at_s: float = 0.0, *, cpu: CpuSample | float | None = None, **values: object) -> TelemetryFrame:
        if isinstance(cpu, float):
            cpu = CpuSample(utilization_ratio=cpu)
        everything: dict[str, Any] = {
            "node": "host",
            "sequence": round(at_s),
            "time_utc": START + timedelta(seconds=at_s),
            "monotonic_s": 1000.0 + at_s,
            "boot_id": "boot-a",
            "interval_s": 1.0,
            "cpu": cpu,
            **values,
        }
        return TelemetryFrame(**everything)

    return build


@pytest.fixture(scope="session")
def record_of() -> Callable[[type[BaseModel]], st.SearchStrategy[Any]]:
    """The strategy of all values of a record class: every finite double, every text, every None."""
    return _records


def _records(cls: type[BaseModel]) -> st.SearchStrategy[Any]:
    if cls.__name__ == "IzhikevichNeuron":
        # u is b v where it is None, and b v of huge numbers is no double.
        numbers = st.floats(-1e100, 1e100)
        return st.fixed_dictionaries(dict.fromkeys(cls.model_fields, numbers)).map(lambda of: cls(**of))
    fields = {str(field.validation_alias or name): field for name, field in cls.model_fields.items()}
    values = st.fixed_dictionaries({name: _values(field) for name, field in fields.items()})
    return values.map(lambda of: cls(**of))


def _values(field: FieldInfo) -> st.SearchStrategy[Any]:
    return _of(field.annotation, field.metadata)


def _of(annotation: object, metadata: list[Any]) -> st.SearchStrategy[Any]:  # noqa: PLR0911 - one return a kind
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [part for extra in arguments[1:] for part in getattr(extra, "metadata", [extra])]
        return _of(arguments[0], [*metadata, *inner])
    if origin in {Union, types.UnionType}:
        return st.one_of([_of(argument, metadata) for argument in arguments])
    if origin is tuple:
        return st.lists(_of(arguments[0], []), max_size=3).map(tuple)
    if origin is list:
        return st.lists(_of(arguments[0], []), max_size=5)
    if origin is dict:
        return st.dictionaries(st.text(max_size=5), _of(arguments[1], []), max_size=3)
    if origin is Literal:
        return st.sampled_from(arguments)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return st.sampled_from(list(annotation))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _records(annotation)
    return _scalar(annotation, _bounds(metadata))


def _scalar(annotation: object, bounds: dict[str, Any]) -> st.SearchStrategy[Any]:
    if annotation is float:
        lowest, exclusive = bounds.get("gt", bounds.get("ge")), "gt" in bounds
        return st.floats(
            lowest, bounds.get("le"), exclude_min=exclusive, allow_nan=False, allow_infinity=False
        )
    if annotation is int:
        return st.integers(bounds.get("ge", -(2**62)), bounds.get("le", 2**62))
    simple: dict[Any, st.SearchStrategy[Any]] = {
        bool: st.booleans(),
        str: st.text(max_size=20),
        type(None): st.none(),
        AwareDatetime: st.datetimes(timezones=st.just(UTC)),
    }
    return simple[annotation]


def _bounds(metadata: list[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in metadata:
        found |= {name: getattr(part, name) for name in ("ge", "gt", "le") if hasattr(part, name)}
    return found
