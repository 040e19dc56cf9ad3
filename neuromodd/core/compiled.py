"""The dynamics under numba: the same source, the same bits, some fifty times the speed.

Floating point stays strict: no reassociation, no contraction. The only importer of numba; importing it
costs some 0.3 s and 100 MB, so only an engine that is asked to be compiled does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
from numba.extending import register_jitable

from neuromodd.core import dynamics

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


def _compiled(*, cache: bool) -> Callable[..., None]:
    function: Callable[..., None] = numba.njit(cache=cache, error_model="numpy")(dynamics.run)
    return function


def _begin() -> Callable[..., None]:
    try:
        return _compiled(cache=True)
    except RuntimeError:
        # No directory that numba could keep its cache in: compile anew each time.
        return _compiled(cache=False)


_run = _begin()


def run(*arguments: object) -> None:
    """`dynamics.run` as machine code; compiled by the first call, for some seconds, unless it is cached."""
    global _run  # noqa: PLW0603 - the one function of this module
    try:
        _run(*arguments)
    except OSError:
        # The cache could not be written (the disk is full); nothing has run yet.
        _run = _compiled(cache=False)
        _run(*arguments)
