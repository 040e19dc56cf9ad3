"""STDP in ten lines: what came before the spike is strengthened, what came after it is weakened."""

from __future__ import annotations

from neuromodd import LifNeuron, apply_stdp, synaptic_scaling

neuron = LifNeuron(weights=[1.0, 1.0, 1.0], last_spike_time=100)
for dopamine in (0.0, 0.5, 1.0):
    neuron.weights = [1.0, 1.0, 1.0]
    # 5 steps before, 5 steps after, never.
    apply_stdp(neuron, [95, 105, -1], dopamine)
    print(f"dopamine {dopamine}: weights", [round(w, 4) for w in neuron.weights])
print("scaled to a budget of 2:", synaptic_scaling(neuron.weights, 2.0).round(4).tolist())
