"""The engine's network in Brian2's C++ standalone mode: wall time of a step of 1 ms.

    python benchmarks/brian2_network.py --neurons 8 --bank 5 --channels 8 --level 0.3 --steps 2000000

Needs Brian2 (2.9 with a numpy before 2.4) and a C++ compiler, not neuromodd; prints one line of JSON. One
thread. The time is that of the last of two runs inside one program: generating, compiling, initialising and
the first run are outside.

Within a step the order is the engine's: input spikes, leak, threshold, inhibition, STDP, scaling,
homeostasis, bank. Left out, so that Brian2 has less to do: prediction, the floor of the primary synapse,
counts of input spikes; level and modulators are constants of the compiled program.

Scaling of each neuron's row of weights to the budget, which is no part of Brian2's vocabulary:

    summed  all rows every step: a summed variable and a pass over the synapses
    factor  only what changed: each neuron keeps the sum of its row, and W = budget * w / sum
    none    left out, and the weights go elsewhere
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile

import brian2 as b2  # type: ignore[import-not-found]
import numpy as np

ACETYLCHOLINE = 1.0
WARM_UP_STEPS = 2000

CONSTANTS = {
    "gain": 0.45,
    "keep": 1.0 - (0.15 - 0.05 * ACETYLCHOLINE),
    "theta_min": 0.05,
    "theta_max": 5.0,
    "inhibition": 0.05,
    "homeostasis": 1e-4,
    "rest": 1e-4 * 0.05,
    "keep_trace": math.exp(-1.0 / 20.0),
    "w_max": 2.0,
    "budget": 2.0,
    "current": 5.0,
    "a": 0.02,
    "b": 0.2,
    "c": -65.0,
    "d": 8.0,
}

HALF_STEP = """
slope_{n} = 0.04*x*x + 5*x + 140 - u + current
pull_{n} = a*(b*x - u)
x += 0.5*slope_{n}
u += 0.5*pull_{n}
rang_{n} = int(x >= 30)
x += rang_{n}*(c - x)
u += rang_{n}*d
"""

# A pair in the same step is potentiation only: `pre == 1` gives back what on_pre has just taken.
STDP = {
    "on_pre": """charge_post += gain*w
        w = clip(w - depression*keep_trace*post_post, 0, w_max)""",
    "on_post": "w = clip(w + potentiation*pre_pre + depression*post_post*int(pre_pre == 1), 0, w_max)",
}
STDP_FACTOR = {
    "on_pre": """charge_post += gain*budget*w/total_post
        loss = clip(depression*keep_trace/budget*post_post*total_post, 0, w)
        w -= loss
        total_post -= loss""",
    "on_post": """win = (potentiation*pre_pre + depression*post_post*int(pre_pre == 1))*total_post/budget
        w += win
        total_post += win""",
}


def build_inputs(channels: int, constants: dict[str, float]) -> b2.NeuronGroup:
    """Bernoulli inputs; `pre` is the trace of the last spike, 1 in its step."""
    group = b2.NeuronGroup(
        channels, "pre : 1", threshold="rand() < probability", reset="pre = 1", namespace=constants
    )
    group.run_regularly("pre *= keep_trace", when="start", order=-1)
    group.thresholder["spike"].when = "start"
    group.resetter["spike"].when = "after_start"
    return group


def build_lif(neurons: int, constants: dict[str, float]) -> tuple[b2.NeuronGroup, list[b2.BrianObject]]:
    """The LIF neurons, and what tells them that one of them fired: all to all would be N * N synapses."""
    hub = b2.NeuronGroup(1, "fired : 1")
    lif = b2.NeuronGroup(
        neurons,
        """v : 1
        theta : 1
        charge : 1
        post : 1
        total : 1
        count : 1
        fired : 1 (linked)""",
        threshold="v >= clip(theta - shift, theta_min, theta_max)",
        reset="v = 0; theta += homeostasis; post = 1; count += 1",
        namespace=constants,
    )
    lif.fired = b2.linked_var(hub, "fired")
    lif.theta = 0.2
    # Inhibition and homeostasis of the step before come first: so one pass over the neurons does it all.
    lif.run_regularly(
        """v = (clip(v - inhibition*fired, 0, inf) + charge)*keep
        charge = 0
        theta = clip(theta - rest, theta_min, theta_max)
        post *= keep_trace""",
        when="groups",
    )
    hub.run_regularly("fired = 0", when="groups", order=1)
    to_hub = b2.Synapses(lif, hub, on_pre="fired_post = 1")
    to_hub.connect()
    return lif, [hub, to_hub]


def build_synapses(
    inputs: b2.NeuronGroup, lif: b2.NeuronGroup, scaling: str, constants: dict[str, float], seed: int
) -> b2.Synapses:
    """Every channel to every neuron, in the order of the channels, so that a spike goes straight through."""
    summed = scaling == "summed"
    stdp = STDP_FACTOR if scaling == "factor" else STDP
    synapses = b2.Synapses(
        inputs, lif, "w : 1" + "\ntotal_post = w : 1 (summed)" * summed, namespace=constants, **stdp
    )
    synapses.pre.when = "before_groups"
    synapses.connect()
    draws = np.random.default_rng(seed).random((len(inputs), len(lif)))
    primary = np.arange(len(inputs))[:, None] == np.arange(len(lif)) % len(inputs)
    weights = np.where(primary, 0.8 + 0.4 * draws, 0.01 + 0.09 * draws)
    synapses.w = weights.ravel()
    if summed:
        synapses.summed_updaters["total_post"].when = "after_synapses"
        synapses.run_regularly("w *= budget/total_post", when="after_synapses", order=1)
    elif scaling == "factor":
        lif.total = weights.sum(axis=0)
        # The sums wander; brought back now and then, they stay finite.
        synapses.run_regularly("w *= budget/total_post", dt=1000 * b2.ms, when="end")
        lif.run_regularly("total = budget", dt=1000 * b2.ms, when="end", order=1)
    return synapses


def build_bank(size: int, constants: dict[str, float]) -> b2.NeuronGroup:
    """Regular-spiking Izhikevich neurons, both half-steps written out: cheaper than a clock of their own."""
    bank = b2.NeuronGroup(size, "x : 1\nu : 1\nrings : 1", namespace=constants)
    bank.x = -65
    bank.u = -13
    halves = HALF_STEP.format(n=1) + HALF_STEP.format(n=2)
    bank.run_regularly(halves + "rings += rang_1 + rang_2 - rang_1*rang_2", when="end")
    return bank


def measure(arguments: argparse.Namespace, directory: str) -> dict[str, object]:
    b2.set_device("cpp_standalone", directory=directory, build_on_run=False)
    b2.prefs.devices.cpp_standalone.openmp_threads = arguments.openmp
    if arguments.flags:
        b2.prefs.codegen.cpp.extra_compile_args_gcc = arguments.flags.split()
    b2.defaultclock.dt = 1 * b2.ms
    b2.seed(arguments.seed)
    constants = CONSTANTS | {
        "probability": 0.1 * arguments.level,
        "shift": 0.05 * arguments.dopamine,
        "potentiation": 0.5 * arguments.dopamine * 0.01,
        "depression": 0.5 * arguments.dopamine * 0.012,
    }
    inputs = build_inputs(arguments.channels, constants)
    lif, hub = build_lif(arguments.neurons, constants)
    synapses = build_synapses(inputs, lif, arguments.scaling, constants, arguments.seed)
    bank = build_bank(arguments.bank, constants)
    net = b2.Network(inputs, lif, *hub, synapses, bank)
    net.run(WARM_UP_STEPS * b2.ms)
    net.run(arguments.steps * b2.ms)
    b2.device.build(directory=directory, compile=True, run=True, debug=False)
    seconds = b2.device._last_run_time  # noqa: SLF001 - it has no other name
    steps = arguments.steps + WARM_UP_STEPS
    return {
        "steps": arguments.steps,
        "seconds": seconds,
        "us_per_step": 1e6 * seconds / arguments.steps,
        "lif_rate": float(np.mean(lif.count[:])) / steps,
        "izhikevich_rate": float(np.mean(bank.rings[:])) / steps,
        "theta": float(np.mean(lif.theta[:])),
        "brian2": b2.__version__,
        "scaling": arguments.scaling,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--neurons", type=int, default=8, help="LIF neurons (8)")
    parser.add_argument("--bank", type=int, default=5, help="Izhikevich neurons (5)")
    parser.add_argument("--channels", type=int, default=8, help="input channels (8)")
    parser.add_argument("--level", type=float, default=0.3, help="intensity of every channel (0.3)")
    parser.add_argument("--steps", type=int, default=200_000, help="steps to measure (200000)")
    parser.add_argument("--dopamine", type=float, default=0.8, help="(0.8)")
    parser.add_argument("--scaling", choices=["summed", "factor", "none"], default="summed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--openmp", type=int, default=0)
    parser.add_argument("--flags", default="")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        print(json.dumps(measure(arguments, directory)))


if __name__ == "__main__":
    main()
