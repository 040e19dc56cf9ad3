"""Save and restore: what was learned alone, or the whole engine, which goes on as if it had never stopped."""

from __future__ import annotations

import tempfile
from pathlib import Path

from neuromodd import NeuroModulators, SpikingInferenceEngine

stimuli = [0.9, 0.1, 0.1, 0.6, None, None, 0.2, 0.9]
eager = NeuroModulators(dopamine=1.0)
engine = SpikingInferenceEngine(seed=1)
for _ in range(100):
    engine.tick(stimuli, eager)

with tempfile.TemporaryDirectory() as directory:
    path = Path(directory) / "learned.json"
    engine.save_parameters(path)
    other = SpikingInferenceEngine(seed=2)
    other.load_parameters(path)
print("what was learned is the same:", other.weights == engine.weights)

twin = SpikingInferenceEngine.from_json(engine.to_json())
together = [engine.tick(stimuli, eager) == twin.tick(stimuli, eager) for _ in range(100)]
print("the twin fires the same spikes:", all(together), "in", twin.step_count, "steps")
