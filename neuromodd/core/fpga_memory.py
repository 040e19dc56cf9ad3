"""What an engine has learned as memory images for an FPGA: what Vivado's `$readmemh` reads.

One word a line, four hexadecimal digits, unsigned Q8.8: trunc(clamp(256 x, 0, 65535)). A word of 1 is
1/256; from 256 on a value does not fit and is cut. Names of the files are the crate's.
"""

from __future__ import annotations

from collections.abc import Iterable

from neuromodd.core.engine import SpikingInferenceEngine

ONE = 256
LARGEST = 65535


def q8_8(value: float) -> int:
    """The word of `value` in unsigned Q8.8; below 0 is 0, too large is 65535."""
    return int(min(max(value * ONE, 0.0), float(LARGEST)))


def memory_image(values: Iterable[float]) -> str:
    """The text that `$readmemh` reads, a word a line."""
    return "".join(f"{q8_8(value):04X}\n" for value in values)


def memory_images(engine: SpikingInferenceEngine) -> dict[str, str]:
    """The files of `engine` by name: thresholds, weights row-major [neuron][channel], decay rates."""
    return {
        "parameters.mem": memory_image(engine.thresholds),
        "parameters_weights.mem": memory_image(w for row in engine.weights for w in row),
        "parameters_decay.mem": memory_image(neuron.decay_rate for neuron in engine.neurons),
    }
