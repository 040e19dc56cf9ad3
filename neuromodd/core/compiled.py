"""Dynamics and associations under numba: the same source, the same bits, some fifty times the speed.

Floating point stays strict: no reassociation, no contraction. The only importer of numba; importing it
costs some 0.3 s and 100 MB, so only an engine that is asked to be compiled does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
from numba.extending import register_jitable

from neuromodd.core import associations, dynamics

# What the dynamics work on: to the type checker lists, as in plain Python.


def floats(values: Sequence[float]) -> Any:  # noqa: ANN401 - see above
    """An array of doubles."""
    return np.array(values, dtype=np.float64)


def ints(values: Sequence[int]) -> Any:  # noqa: ANN401 - see above
    """An array of whole numbers."""
    return np.array(values, dtype=np.int64)


def zeros(count: int, kind: type) -> Any:  # noqa: ANN401 - see above
    """An array of so many zeros."""
    return np.zeros(count, dtype=kind)


def numbers(count: int, code: str) -> Any:  # noqa: ANN401 - see above
    """An array of so many zeros, of a type code of the module array."""
    return np.zeros(count, dtype=code)


# With numpy's error model a division needs no branch; the dynamics never divide by zero.
for _inner in (
    dynamics.advance,
    dynamics.potentiate,
    dynamics.depress,
    dynamics.convert,
    dynamics.settle,
    dynamics.rescale,
):
    register_jitable(error_model="numpy")(_inner)


for _part in (
    associations.cell_of,
    associations.row_of,
    associations.learn,
    associations.expect,
    associations.rarity,
    associations.likelihood,
):
    register_jitable(error_model="numpy")(_part)


class _Machine:
    """A function as machine code; compiled by its first call, for some seconds, unless it is cached."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        try:
            self._code = numba.njit(cache=True, error_model="numpy")(function)
        except RuntimeError:
            # No directory that numba could keep its cache in: compile anew each time.
            self._code = numba.njit(error_model="numpy")(function)

    def __call__(self, *arguments: object) -> Any:  # noqa: ANN401 - whatever the function returns
        try:
            return self._code(*arguments)
        except OSError:
            # The cache could not be written (the disk is full); nothing has run yet.
            self._code = numba.njit(error_model="numpy")(self._function)
            return self._code(*arguments)


run = _Machine(dynamics.run)
"""`dynamics.run`."""

associate = _Machine(associations.advance)
"""`associations.advance`."""
