"""Whatever a caller gives the engine, checked, as the dynamics take it: numbers, NaN for what is absent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

from neuromodd.core.modulators import (
    ACETYLCHOLINE_BASELINE,
    CORTISOL_BASELINE,
    DOPAMINE_BASELINE,
    TEMPO_BASELINE,
    NeuroModulators,
)
from neuromodd.errors import InvalidValueError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Levels = Sequence[float | None] | NDArray[np.floating[Any]]


def intensities(place: str, values: Levels, length: int) -> list[float]:
    """Values clipped to [0, 1], NaN for None.

    Raises:
        InvalidValueError: a wrong length, NaN or infinity, or something else than numbers.
    """
    if len(values) != length:
        raise InvalidValueError(f"SpikingInferenceEngine.{place}", len(values), f"{length} values")
    levels = []
    for index, value in enumerate(values):
        # Nearly always, and this is called once a step.
        if type(value) is float and 0.0 <= value <= 1.0:
            levels.append(value)
        elif value is None:
            levels.append(math.nan)
        else:
            levels.append(_clipped(f"SpikingInferenceEngine.{place}[{index}]", value))
    return levels


def _clipped(place: str, value: Any) -> float:  # noqa: ANN401 - anything may come
    is_number = isinstance(value, Real)
    # Clipped first: a whole number may be too large for a double. NaN is not below infinity.
    if is_number and abs(value) < math.inf:
        return float(min(max(value, 0.0), 1.0))
    raise InvalidValueError(place, value, "a finite number or None")


def table(place: str, values: ArrayLike, width: int) -> NDArray[np.float64]:
    """Rows in [0, 1], NaN where it is missing.

    Raises:
        InvalidValueError: another shape, infinity, or something else than numbers.
    """
    expected = f"rows of {width} values, NaN for a missing one, none infinite"
    rows = numbers(f"SpikingInferenceEngine.{place}", values, expected)
    if rows.ndim != 2 or rows.shape[1] != width:  # noqa: PLR2004 - rows and columns
        raise InvalidValueError(f"SpikingInferenceEngine.{place}", f"shape {rows.shape}", expected)
    if (abs(rows) == math.inf).any():
        raise InvalidValueError(f"SpikingInferenceEngine.{place}", "infinity", expected)
    return rows.clip(0.0, 1.0)


def numbers(place: str, values: ArrayLike, expected: str) -> NDArray[np.float64]:
    """An array of doubles; text is no number, even if it looks like one.

    Raises:
        InvalidValueError: it can't be made; the message says what was `expected`.
    """
    import numpy as np  # noqa: PLC0415 - the daemon never calls this, and does without numpy

    try:
        found = np.array(values)
        if found.dtype.kind not in "US":
            return found.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        pass
    raise InvalidValueError(place, values, expected)


def levels_of(modulators: NeuroModulators, phasic_dopamine: float | None) -> tuple[float, ...]:
    """The numbers of a tick's modulators, in the order of `dynamics.LEVELS`; None counts as the baseline.

    Raises:
        InvalidValueError: `phasic_dopamine` is NaN or infinite, or the levels are none.
    """
    if not isinstance(modulators, NeuroModulators):
        raise InvalidValueError("SpikingInferenceEngine.modulators", modulators, "NeuroModulators")
    dopamine = _or(modulators.dopamine, DOPAMINE_BASELINE)
    phasic = dopamine - DOPAMINE_BASELINE if phasic_dopamine is None else phasic_dopamine
    if not math.isfinite(phasic):
        raise InvalidValueError("SpikingInferenceEngine.phasic_dopamine", phasic, "a finite number or None")
    return (
        dopamine,
        _or(modulators.cortisol, CORTISOL_BASELINE),
        _or(modulators.acetylcholine, ACETYLCHOLINE_BASELINE),
        _or(modulators.tempo, TEMPO_BASELINE),
        min(max(phasic, -1.0), 1.0),
    )


def _or(level: float | None, baseline: float) -> float:
    return baseline if level is None else level
