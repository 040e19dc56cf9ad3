"""A saved state of the engine, checked before anything of it is taken over."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from itertools import cycle
from typing import Any, NamedTuple

from neuromodd.core.generator import Pcg64
from neuromodd.core.parameter_file import spelt
from neuromodd.core.stdp import WEIGHT_MAX
from neuromodd.errors import CheckpointMismatchError, InvalidValueError

PLACE = "SpikingInferenceEngine.restore"

Rule = tuple[Callable[[float], bool], str]

_FINITE: Rule = (math.isfinite, "finite numbers")
_ABOVE_0: Rule = (lambda x: 0.0 < x < math.inf, "finite numbers above 0")
_FROM_0: Rule = (lambda x: 0.0 <= x < math.inf, "finite numbers from 0 on")
_UNIT: Rule = (lambda x: 0.0 <= x <= 1.0, "numbers in [0, 1]")

_RULES: dict[str, Rule] = {
    "theta": _ABOVE_0,
    "scale": _ABOVE_0,
    "weights": _FROM_0,
    "settled": _UNIT,
    "pre": _UNIT,
    "post": _UNIT,
    "last_post": (lambda x: -1.0 <= x < math.inf and x == math.floor(x), "whole numbers from -1 on"),
    "error": (lambda x: not math.isinf(x), "finite numbers or null"),
}

_ROUNDING = 1e-9
"""By so much a share times its row's factor may exceed the largest weight."""


class SavedState(NamedTuple):
    """What `SpikingInferenceEngine.state` returned, checked.

    Attributes:
        seed: of the generator's first state.
        step: network steps since the first start.
        moving: the sequences of `dynamics.State` by name; NaN where an error is not known.
        generator: where it stood.
    """

    seed: int
    step: int
    moving: dict[str, list[float]]
    generator: Pcg64


def checked(
    state: Mapping[str, Any], dimensions: Mapping[str, int], lengths: Mapping[str, int]
) -> SavedState:
    """The parts of a state; traces of eligibility that it lacks are 0.

    Args:
        state: of a network, parsed.
        dimensions: those of the network that is to go on from it.
        lengths: of its sequences, by name.

    Raises:
        CheckpointMismatchError: it is of a network of other dimensions.
        InvalidValueError: something in it is missing, of another kind, or out of range.
    """
    found = _part(state, "dimensions")
    if found != dict(dimensions):
        raise CheckpointMismatchError(None, spelt(found), spelt(dimensions))
    moving = {}
    for name, length in lengths.items():
        values = _part(state, name)
        if name == "error" and isinstance(values, (list, tuple)):
            values = [math.nan if value is None else value for value in values]
        if name == "eligibility" and length and not values:
            values = [0.0] * length
        moving[name] = _sequence(name, values, length)
    heaviest = max(map(operator.mul, moving["weights"], cycle(moving["scale"])), default=0.0)
    if heaviest > WEIGHT_MAX * (1.0 + _ROUNDING):
        raise InvalidValueError(f"{PLACE}.weights", heaviest, f"{WEIGHT_MAX} at most, with its factor")
    try:
        generator = Pcg64.restored(_part(state, "generator"))
    except ValueError as error:
        raise InvalidValueError(f"{PLACE}.generator", str(error), "the state of a PCG64") from None
    return SavedState(_whole(state, "seed"), _whole(state, "step"), moving, generator)


def _part(state: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401 - parsed JSON
    if name not in state:
        raise InvalidValueError(f"{PLACE}.{name}", None, "a value, it is required")
    return state[name]


def _whole(state: Mapping[str, Any], name: str) -> int:
    number = _part(state, name)
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise InvalidValueError(f"{PLACE}.{name}", number, "a whole number >= 0")
    return number


def _sequence(name: str, values: Any, length: int) -> list[float]:  # noqa: ANN401 - parsed JSON
    holds, expected = _RULES.get(name, _FINITE)
    if not isinstance(values, (list, tuple)):
        raise InvalidValueError(f"{PLACE}.{name}", values, f"a list of {length} {expected}")
    if len(values) != length:
        raise InvalidValueError(f"{PLACE}.{name}", len(values), f"{length} values")
    try:
        if all(isinstance(value, (int, float)) and holds(value) for value in values):
            return [float(value) for value in values]
    except OverflowError:
        # A whole number that no double comes near.
        pass
    raise InvalidValueError(f"{PLACE}.{name}", values, expected)
