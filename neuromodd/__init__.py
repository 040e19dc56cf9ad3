"""neuromodd: a small nervous system for a Linux host.

The library half: neurons, plasticity, neuromodulators, events and the spiking engine, usable without the
daemon, without a broker and without a GPU. Names are imported when they are first used, so that
`import neuromodd` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from neuromodd.core.diagnostics import FaultClass
    from neuromodd.core.engine import SpikingInferenceEngine
    from neuromodd.core.fpga import FpgaMetrics
    from neuromodd.core.frame import (
        CpuSample,
        DiskSample,
        FanSample,
        GpuSample,
        LimitsSample,
        MemorySample,
        NetworkSample,
        PowerSample,
        PressureSample,
        TelemetryFrame,
        TemperatureSample,
        VoltageSample,
        WorkSample,
    )
    from neuromodd.core.modulators import NeuroModulators, Setpoints
    from neuromodd.core.neurons import IzhikevichNeuron, LifNeuron, PoissonEncoder
    from neuromodd.core.parameters import EngineConfig
    from neuromodd.core.results import RunResult, StepResult
    from neuromodd.core.rewards import BreakthroughFound, RewardEvent, SourceSwitch, WorkAccepted
    from neuromodd.core.stdp import apply_stdp, synaptic_scaling

_HOMES = {
    "BreakthroughFound": "rewards",
    "CpuSample": "frame",
    "DiskSample": "frame",
    "EngineConfig": "parameters",
    "FanSample": "frame",
    "FaultClass": "diagnostics",
    "FpgaMetrics": "fpga",
    "GpuSample": "frame",
    "IzhikevichNeuron": "neurons",
    "LifNeuron": "neurons",
    "LimitsSample": "frame",
    "MemorySample": "frame",
    "NetworkSample": "frame",
    "NeuroModulators": "modulators",
    "PoissonEncoder": "neurons",
    "PowerSample": "frame",
    "PressureSample": "frame",
    "RewardEvent": "rewards",
    "RunResult": "results",
    "Setpoints": "modulators",
    "SourceSwitch": "rewards",
    "SpikingInferenceEngine": "engine",
    "StepResult": "results",
    "TelemetryFrame": "frame",
    "TemperatureSample": "frame",
    "VoltageSample": "frame",
    "WorkAccepted": "rewards",
    "WorkSample": "frame",
    "apply_stdp": "stdp",
    "synaptic_scaling": "stdp",
}

__all__ = [
    "BreakthroughFound",
    "CpuSample",
    "DiskSample",
    "EngineConfig",
    "FanSample",
    "FaultClass",
    "FpgaMetrics",
    "GpuSample",
    "IzhikevichNeuron",
    "LifNeuron",
    "LimitsSample",
    "MemorySample",
    "NetworkSample",
    "NeuroModulators",
    "PoissonEncoder",
    "PowerSample",
    "PressureSample",
    "RewardEvent",
    "RunResult",
    "Setpoints",
    "SourceSwitch",
    "SpikingInferenceEngine",
    "StepResult",
    "TelemetryFrame",
    "TemperatureSample",
    "VoltageSample",
    "WorkAccepted",
    "WorkSample",
    "__version__",
    "apply_stdp",
    "synaptic_scaling",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"neuromodd.core.{_HOMES[name]}"), name)
