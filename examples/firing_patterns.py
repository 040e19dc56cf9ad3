"""Draws what the seven presets of the Izhikevich neuron do under the same step of current (extra `plot`).

python examples/firing_patterns.py [firing_patterns.png]
"""

from __future__ import annotations

import sys

from matplotlib.figure import Figure

from neuromodd import IzhikevichNeuron

PRESETS = {
    "regular spiking": (IzhikevichNeuron.regular_spiking, 10.0),
    "intrinsically bursting": (IzhikevichNeuron.intrinsically_bursting, 10.0),
    "chattering": (IzhikevichNeuron.chattering, 10.0),
    "fast spiking": (IzhikevichNeuron.fast_spiking, 10.0),
    "low-threshold spiking": (IzhikevichNeuron.low_threshold_spiking, 10.0),
    "thalamo-cortical": (IzhikevichNeuron.thalamo_cortical, 5.0),
    "resonator": (IzhikevichNeuron.resonator, 1.0),
}
STEPS = 300
ONSET = 50
REST = 500
"""Steps without current before the picture begins: the starting point is not the resting one."""


def trace(neuron: IzhikevichNeuron, current: float) -> list[float]:
    """The potential in mV after each ms, drawn up to the peak of 30 mV where the neuron fired."""
    for _ in range(REST):
        neuron.step(0.0)
    return [
        30.0 if neuron.step(current if step >= ONSET else 0.0) else min(neuron.v, 30.0)
        for step in range(STEPS)
    ]


def draw(path: str) -> None:
    """Write the picture."""
    figure = Figure(figsize=(8.0, 9.0), layout="constrained")
    axes = figure.subplots(len(PRESETS), sharex=True, sharey=True)
    for axis, (name, (preset, current)) in zip(axes, PRESETS.items(), strict=True):
        axis.plot(trace(preset(), current), linewidth=0.9, color="tab:blue")
        axis.axvline(ONSET, color="tab:gray", linewidth=0.8, linestyle=":")
        axis.set_title(f"{name}, I = {current:g} from 50 ms on", fontsize=9, loc="left")
        axis.set_ylim(-95.0, 40.0)
        axis.spines[["top", "right"]].set_visible(False)
    figure.supylabel("membrane potential v (mV)")
    axes[-1].set_xlabel("time (ms)")
    axes[-1].set_xlim(0, STEPS)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    target = sys.argv[1] if len(sys.argv) > 1 else "firing_patterns.png"
    draw(target)
    print(f"drawn: {target}")
