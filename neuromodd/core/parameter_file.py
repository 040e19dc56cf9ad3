"""The file of what a network has learned: weights and thresholds, no potentials, no time."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neuromodd.core.stdp import WEIGHT_MAX
from neuromodd.core.stimuli import numbers
from neuromodd.errors import CheckpointDamagedError, CheckpointMismatchError, shortened

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMAT = "neuromodd-parameters"
VERSION = 1


def write(
    path: Path,
    dimensions: Mapping[str, int],
    weights: Sequence[Sequence[float]],
    thresholds: Sequence[float],
) -> None:
    """Write the file, replacing it as a whole.

    Raises:
        OSError: it can't be written.
    """
    document = {
        "format": FORMAT,
        "version": VERSION,
        "dimensions": dict(dimensions),
        "weights": weights,
        "thresholds": thresholds,
    }
    draft = path.with_name(f"{path.name}.tmp")
    try:
        draft.write_text(json.dumps(document) + "\n", encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        # The user knows of no draft.
        raise type(error)(error.errno, error.strerror, str(path)) from None


def read(path: Path, dimensions: Mapping[str, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights, (LIF neurons, channels), and thresholds, (LIF neurons,), of a network of `dimensions`.

    Raises:
        OSError: the file can't be read.
        CheckpointDamagedError: it is not such a file, or a number in it is out of range.
        CheckpointMismatchError: it is of other dimensions or of a newer version.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        kind, version, found = (document[name] for name in ("format", "version", "dimensions"))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointDamagedError(path, f"not readable: {type(error).__name__}: {error}") from None
    if kind != FORMAT:
        raise CheckpointDamagedError(path, f"not a {FORMAT} file")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise CheckpointDamagedError(path, f"version: got {version!r}, expected {VERSION}")
    if version != VERSION:
        raise CheckpointMismatchError(path, f"version {version}", f"version {VERSION}; upgrade neuromodd")
    if found != dict(dimensions):
        raise CheckpointMismatchError(path, spelt(found), spelt(dimensions))
    try:
        weights = numbers("weights", document["weights"], "numbers")
        theta = numbers("thresholds", document["thresholds"], "numbers")
    except (KeyError, ValueError) as error:
        raise CheckpointDamagedError(path, f"not readable: {type(error).__name__}: {error}") from None
    neurons, channels = dimensions["lif_neurons"], dimensions["channels"]
    if weights.shape != (neurons, channels) or theta.shape != (neurons,):
        raise CheckpointDamagedError(path, "the arrays do not have the dimensions that the file names")
    if not ((weights >= 0.0) & (weights <= WEIGHT_MAX)).all():
        raise CheckpointDamagedError(path, f"a weight outside [0, {WEIGHT_MAX}]")
    if not ((theta > 0.0) & (theta < math.inf)).all():
        raise CheckpointDamagedError(path, "a threshold that is not above 0")
    return weights, theta


def spelt(dimensions: object) -> str:
    """Dimensions as words, for a message."""
    if not isinstance(dimensions, Mapping) or not dimensions:
        return f"dimensions {shortened(dimensions)}"
    return ", ".join(f"{name} {count}" for name, count in dimensions.items())
