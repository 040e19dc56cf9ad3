"""The crate's quick start in Python: a network, one host's telemetry, one step and a second of them."""

from __future__ import annotations

from neuromodd import (
    CpuSample,
    GpuSample,
    NeuroModulators,
    SpikingInferenceEngine,
    TelemetryFrame,
    WorkSample,
)

engine = SpikingInferenceEngine(seed=1)
stimuli = [0.5, 0.3, 0.8, 0.2, 0.1, 0.9, 0.4, 0.7]

# What a host measured: whatever it lacks stays None, and so does the level that it would speak for.
frame = TelemetryFrame(
    node="lab-7",
    sequence=0,
    monotonic_s=0.0,
    cpu=CpuSample(utilization_ratio=0.6, frequency_hz=2.8e9, frequency_max_hz=3.5e9),
    gpus=(GpuSample(index=0, temperature_celsius=75.0, slowdown_celsius=83.0, power_watts=300.0),),
    work=WorkSample(rate=0.7, target=1.0),
)
modulators = NeuroModulators.from_telemetry(frame)
print("modulators ", modulators.to_json())

result = engine.step(stimuli, modulators)
print("first step ", "spikes of", [i for i, count in enumerate(result.lif_spikes) if count])
print("potentials ", [round(v, 3) for v in engine.potentials])
print("thresholds ", [round(theta, 3) for theta in engine.thresholds])

for _ in range(999):
    engine.step(stimuli, modulators)
print("after 1 s  ", [f"{neuron.threshold:.3f}" for neuron in engine.neurons])
print("weights of neuron 5", [round(w, 2) for w in engine.weights[5]])
