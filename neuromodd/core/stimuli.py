"""Whatever a caller gives the engine, checked, as the dynamics take it: numbers, NaN for what is absent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from neuromodd.core.modulators import (
    ACETYLCHOLINE_BASELINE,
    CORTISOL_BASELINE,
    DOPAMINE_BASELINE,
    TEMPO_BASELINE,
    NeuroModulators,
)
from neuromodd.errors import InvalidValueError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def intensities(place: str, values: Sequence[float | None], length: int) -> list[float]:
    """Values clipped to [0, 1], NaN for None.

    Raises:
        InvalidValueError: a wrong length, NaN or infinity.
    """
    if len(values) != length:
        raise InvalidValueError(f"SpikingInferenceEngine.{place}", len(values), f"{length} values")
    levels = []
    for index, value in enumerate(values):
        if value is None:
            levels.append(math.nan)
            continue
        # Clipped first, NaN stays NaN: a whole number may be too large for a double.
        level = float(min(max(value, 0.0), 1.0))
        if math.isnan(level) or abs(value) == math.inf:
            raise InvalidValueError(
                f"SpikingInferenceEngine.{place}[{index}]", value, "a finite number or None"
            )
        levels.append(level)
    return levels


def table(place: str, values: ArrayLike, width: int) -> NDArray[np.float64]:
    """Rows in [0, 1], NaN where it is missing.

    Raises:
        InvalidValueError: another shape, or infinity.
    """
    rows = np.array(values, dtype=np.float64)
    expected = f"rows of {width} values, NaN for a missing one, none infinite"
    if rows.ndim != 2 or rows.shape[1] != width:  # noqa: PLR2004 - rows and columns
        raise InvalidValueError(f"SpikingInferenceEngine.{place}", f"shape {rows.shape}", expected)
    if np.isinf(rows).any():
        raise InvalidValueError(f"SpikingInferenceEngine.{place}", "infinity", expected)
    return rows.clip(0.0, 1.0)


def levels_of(modulators: NeuroModulators, phasic_dopamine: float | None) -> tuple[float, ...]:
    """The numbers of a tick's modulators, in the order of `dynamics.LEVELS`; None counts as the baseline.

    Raises:
        InvalidValueError: `phasic_dopamine` is NaN or infinite.
    """
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
