"""The network's dynamics, in one place: `run` moves a State through ticks, `advance` through steps.

Written as scalar loops over flat sequences: it runs as it stands on lists, which for a small network is
faster than array expressions, and compiles as it stands on arrays, with the same bits. Random numbers are
drawn outside. What belongs to a channel and a neuron lies channel-major, j * neurons + i, so that a spike
of channel j goes through memory in order.

A synaptic weight is W_ij = scale_i * weights_ij. Depression scales whole rows, each by one factor: with the
factor kept apart, a spike of channel j touches one synapse of each neuron and not all of them.
"""

# ruff: noqa: FURB136 - a call of min or max costs more than what it compares

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from neuromodd.core.neurons import HALF_STEP_MS, PEAK_MV
from neuromodd.core.stdp import WEIGHT_MAX

LEVELS = 5
"""Numbers of a tick's modulators: dopamine, cortisol, acetylcholine, tempo, phasic dopamine."""

FORGOTTEN = 1e-17
"""A spike trace below this, after some 39 time constants, moves no weight by a bit that counts: it is 0."""

SCALE_LIMIT = 4.0
"""A row whose factor has grown beyond this is scaled weight by weight again."""

TINY = 1e-290
"""The budget over a sum of weights below this may overflow."""


class Parameters(NamedTuple):
    """The constants of a network; `EngineConfig` describes them. keep_* is what a step leaves of a trace."""

    eligibility: bool
    steps_per_tick: int
    input_rate: float
    surprise_gain: float
    prediction_rate: float
    input_gain: float
    stress_floor: float
    decay_rate: float
    decay_acetylcholine: float
    theta_min: float
    theta_max: float
    theta_cortisol: float
    theta_dopamine: float
    inhibition: float
    homeostasis_rate: float
    target_rate: float
    a_plus: float
    a_minus: float
    keep_plus: float
    keep_minus: float
    keep_eligibility: float
    learning_gain: float
    eligibility_gain: float
    budget: float
    primary_floor: float
    izhikevich_gain: float
    a: float
    b: float
    c: float
    d: float


class State(NamedTuple):
    """What moves. Sequences of C channels, N LIF neurons and B neurons of the Izhikevich bank.

    Attributes:
        v: LIF potentials, (N,).
        theta: adaptive thresholds, (N,).
        weights: (C, N), times `scale` the synaptic weights, those in [0, 2].
        scale: factor of each neuron's row, above 0, (N,).
        settled: 1 where the row has been brought to the budget and its floor, else 0, (N,).
        eligibility: trace of each synapse, (C, N); empty where dopamine gates STDP directly.
        pre: trace of each channel's last spike, 1 in its step, (C,).
        post: trace of each LIF neuron's last spike, 1 in its step, (N,).
        last_post: step of each LIF neuron's last spike, -1 for never, (N,).
        bank_v: Izhikevich v in mV, (B,).
        bank_u: Izhikevich u, (B,).
        prediction: of each channel's stimulus, (C,).
        error: |stimulus - prediction|, NaN where the channel is absent, (C,).
    """

    v: list[float]
    theta: list[float]
    weights: list[float]
    scale: list[float]
    settled: list[float]
    eligibility: list[float]
    pre: list[float]
    post: list[float]
    last_post: list[int]
    bank_v: list[float]
    bank_u: list[float]
    prediction: list[float]
    error: list[float]


class Scratch(NamedTuple):
    """Room to work in; nothing in it outlives a call.

    Attributes:
        probability: of a spike of each channel in a step, -1 where it is absent, (C,).
        bank_current: into each neuron of the bank, (B,).
        current: into each LIF neuron, (N,).
        lost: weight that a step's depression took from each neuron, 0 between steps, (N,).
        active: the channels that spiked in a step, (C,).
        fired: the LIF neurons that fired in a step, (N,).
    """

    probability: list[float]
    bank_current: list[float]
    current: list[float]
    lost: list[float]
    active: list[int]
    fired: list[int]


class Counts(NamedTuple):
    """What comes out, a row a tick.

    Attributes:
        input: spikes of each channel, added, (ticks, C).
        lif: spikes of each LIF neuron, added, (ticks, N).
        bank: spikes of each neuron of the bank, added, (ticks, B).
        error: the state's `error`, set, (ticks, C).
    """

    input: list[int]
    lif: list[int]
    bank: list[int]
    error: list[float]


class Constants(NamedTuple):
    """What the modulators make of the parameters, for one tick."""

    decay: float
    gain: float
    theta_shift: float
    learning_rate: float
    conversion: float


def run(
    first_step: int,
    steps: int,
    predict: bool,  # noqa: FBT001 - compiled code takes arguments by position
    uniforms: Sequence[float],
    stimuli: Sequence[float],
    drives: Sequence[float],
    levels: Sequence[float],
    p: Parameters,
    s: State,
    room: Scratch,
    counts: Counts,
) -> None:
    """Run the network for as many ticks as `levels` has rows, in place.

    Args:
        first_step: number of the first step; steps count from the network's first start.
        steps: steps of each tick, 1 ms each.
        predict: whether the predictions move, once a tick.
        uniforms: U[0, 1) draws, (ticks, steps, C); channel j spikes where its draw is below p_j.
        stimuli: intensities in [0, 1], NaN for an absent channel, (ticks, C).
        drives: of the bank, in [0, 1], NaN for none, (ticks, B).
        levels: modulators, (ticks, LEVELS).
        p: constants.
        s: moves on.
        room: room to work in.
        counts: what happened, a row a tick.
    """
    channels = len(s.pre)
    bank = len(s.bank_v)
    for tick in range(len(levels) // LEVELS):
        dopamine = levels[tick * LEVELS]
        cortisol = levels[tick * LEVELS + 1]
        acetylcholine = levels[tick * LEVELS + 2]
        tempo = levels[tick * LEVELS + 3]
        phasic = levels[tick * LEVELS + 4]

        # Intensity and its surprise make the probability of an input spike.
        for j in range(channels):
            x = stimuli[tick * channels + j]
            if x != x:  # noqa: PLR0124 - NaN: the channel is absent
                s.error[j] = x
                room.probability[j] = -1.0
                # A spike from before the channel went away would still be paired.
                s.pre[j] = 0.0
            else:
                if predict:
                    s.error[j] = abs(x - s.prediction[j])
                    s.prediction[j] = p.prediction_rate * x + (1.0 - p.prediction_rate) * s.prediction[j]
                if s.error[j] == s.error[j]:
                    x += p.surprise_gain * s.error[j]
                room.probability[j] = p.input_rate * (x if x < 1.0 else 1.0)
            counts.error[tick * channels + j] = s.error[j]

        stress = 1.0 - cortisol
        stress = max(stress, p.stress_floor)
        decay = p.decay_rate - p.decay_acetylcholine * acetylcholine
        decay = max(decay, 0.0)
        for i in range(bank):
            drive = drives[tick * bank + i]
            room.bank_current[i] = p.izhikevich_gain * stress * tempo * drive if drive > 0.0 else 0.0
        # A dip of dopamine teaches nothing; what fell below 0 in the paper's model stays out likewise.
        rewarded = phasic > 0.0 and dopamine > 0.0
        constants = Constants(
            decay,
            p.input_gain * stress,
            p.theta_cortisol * cortisol - p.theta_dopamine * dopamine,
            p.learning_gain * dopamine,
            p.eligibility_gain * phasic if rewarded else 0.0,
        )
        advance(first_step + tick * steps, steps, tick, uniforms, constants, p, s, room, counts)


def advance(
    first_step: int,
    steps: int,
    tick: int,
    uniforms: Sequence[float],
    k: Constants,
    p: Parameters,
    s: State,
    room: Scratch,
    counts: Counts,
) -> None:
    """Run the `steps` steps of row `tick`; the other arguments are as in `run`."""
    probability, active, fired, current, lost = (
        room.probability,
        room.active,
        room.fired,
        room.current,
        room.lost,
    )
    v, theta, weights, scale, pre, post = s.v, s.theta, s.weights, s.scale, s.pre, s.post
    channels = len(pre)
    neurons = len(v)
    bank = len(s.bank_v)
    keep_plus, keep_minus, decay = p.keep_plus, p.keep_minus, k.decay
    theta_shift, theta_min, theta_max = k.theta_shift, p.theta_min, p.theta_max
    rest = p.homeostasis_rate * p.target_rate
    rise = p.homeostasis_rate * (1.0 - p.target_rate)
    gated = k.learning_rate > 0.0 and not p.eligibility
    for step in range(first_step, first_step + steps):
        draw = (tick * steps + step - first_step) * channels
        # Input spikes.
        arrived = 0
        for j in range(channels):
            x = pre[j] * keep_plus
            pre[j] = x if x > FORGOTTEN else 0.0
            if uniforms[draw + j] < probability[j]:
                pre[j] = 1.0
                active[arrived] = j
                arrived += 1
                counts.input[tick * channels + j] += 1

        # LIF neurons: integrate, leak, fire; slow homeostasis of theta.
        for n in range(arrived):
            column = active[n] * neurons
            if n == 0:
                for i in range(neurons):
                    current[i] = weights[column + i]
            else:
                for i in range(neurons):
                    current[i] += weights[column + i]
        if arrived:
            for i in range(neurons):
                v[i] += k.gain * (scale[i] * current[i])
        spikes = 0
        for i in range(neurons):
            x = v[i] - v[i] * decay
            bar = theta[i]
            limit = bar + theta_shift
            limit = limit if limit > theta_min else theta_min
            limit = limit if limit < theta_max else theta_max
            trace = post[i] * keep_minus
            trace = trace if trace > FORGOTTEN else 0.0
            fires = x >= limit
            bar = bar + rise if fires else bar - rest
            bar = bar if bar > theta_min else theta_min
            theta[i] = bar if bar < theta_max else theta_max
            v[i] = 0.0 if fires else x
            # Marked; its trace begins when this step's pairs have been counted.
            post[i] = -1.0 if fires else trace
            spikes += 1 if fires else 0
        if spikes:
            spikes = 0
            for i in range(neurons):
                # Without a branch, which nobody could foresee.
                fired[spikes] = i
                spikes += 1 if post[i] < 0.0 else 0
            for n in range(spikes):
                post[fired[n]] = 0.0

        # Whoever fired holds the silent ones back; it is itself at 0 already.
        if spikes:
            for i in range(neurons):
                x = v[i] - p.inhibition
                v[i] = x if x > 0.0 else 0.0

        # STDP, each pair at its later spike; a pair in the same step is potentiation.
        if gated:
            if arrived:
                depress(arrived, k.learning_rate * p.a_minus, p, s, active, lost)
            if spikes:
                potentiate(spikes, k.learning_rate * p.a_plus, p, s, fired)
        elif p.eligibility:
            for n in range(arrived):
                column = active[n] * neurons
                for i in range(neurons):
                    s.eligibility[column + i] -= p.a_minus * post[i]
            for n in range(spikes):
                for j in range(channels):
                    s.eligibility[j * neurons + fired[n]] += p.a_plus * pre[j]
            if (step + 1) % p.steps_per_tick == 0:
                convert(k.conversion, p, s, probability)
        for n in range(spikes):
            post[fired[n]] = 1.0
            s.last_post[fired[n]] = step
            counts.lif[tick * neurons + fired[n]] += 1

        # Izhikevich bank: two half-steps, the threshold tested after each.
        for i in range(bank):
            x = s.bank_v[i]
            u = s.bank_u[i]
            rang = 0
            for _half in range(2):
                dx = 0.04 * x * x + 5.0 * x + 140.0 - u + room.bank_current[i]
                du = p.a * (p.b * x - u)
                x += HALF_STEP_MS * dx
                u += HALF_STEP_MS * du
                if x >= PEAK_MV:
                    x = p.c
                    u += p.d
                    rang = 1
            counts.bank[tick * bank + i] += rang
            s.bank_v[i] = x
            s.bank_u[i] = u


def potentiate(spikes: int, rate: float, p: Parameters, s: State, fired: Sequence[int]) -> None:
    """Neurons fired: each of their synapses gains rate * pre, and their rows are settled."""
    weights, scale, pre, settled, budget, floor = (
        s.weights,
        s.scale,
        s.pre,
        s.settled,
        p.budget,
        p.primary_floor,
    )
    channels = len(pre)
    neurons = len(scale)
    for n in range(spikes):
        i = fired[n]
        factor = scale[i]
        for j in range(channels):
            w = factor * weights[j * neurons + i] + rate * pre[j]
            weights[j * neurons + i] = w if w < WEIGHT_MAX else WEIGHT_MAX
        scale[i] = 1.0
        settled[i] = 1.0
        rescale(weights, i, neurons, channels, i % channels, budget, floor)


def depress(
    arrived: int, rate: float, p: Parameters, s: State, active: Sequence[int], lost: list[float]
) -> None:
    """Active channels spiked after the neurons did: each of their synapses loses rate * post."""
    weights, scale, post, settled, budget = s.weights, s.scale, s.post, s.settled, p.budget
    channels = len(s.pre)
    neurons = len(s.v)
    for n in range(arrived):
        column = active[n] * neurons
        for i in range(neurons):
            w = weights[column + i]
            left = w - rate * post[i] / scale[i]
            left = left if left > 0.0 else 0.0
            lost[i] += w - left
            weights[column + i] = left

    # Back to the budget by the row's factor alone, where nothing but the sum is in question: no weight can
    # come to exceed 2, the row has not lost more than half of its sum, and the factor, which multiplies the
    # rounding errors of the sum too, is still small.
    simple = budget <= WEIGHT_MAX
    others = 0
    for i in range(neurons):
        gone = scale[i] * lost[i]
        by_factor = simple and settled[i] > 0.0 and budget - gone > gone and scale[i] < SCALE_LIMIT
        scale[i] = scale[i] * (budget / (budget - gone)) if by_factor else scale[i]
        lost[i] = 0.0 if by_factor else gone
        others += 1 if lost[i] > 0.0 else 0
    if others:
        for i in range(neurons):
            if lost[i] > 0.0:
                lost[i] = 0.0
                settle(i, p, s)
    if p.primary_floor > 0.0:
        for n in range(arrived):
            column = active[n] * neurons
            for i in range(active[n], neurons, channels):
                if post[i] > 0.0 and scale[i] * weights[column + i] < p.primary_floor:
                    settle(i, p, s)


def convert(conversion: float, p: Parameters, s: State, probability: Sequence[float]) -> None:
    """The end of a tick: each present channel's synapses gain conversion * trace, then the traces decay."""
    neurons = len(s.v)
    channels = len(s.pre)
    for i in range(neurons):
        changed = False
        for j in range(channels):
            at = j * neurons + i
            trace = s.eligibility[at]
            if conversion > 0.0 and trace != 0.0 and probability[j] >= 0.0:
                w = s.weights[at] + conversion * trace
                w = w if w > 0.0 else 0.0
                s.weights[at] = w if w < WEIGHT_MAX else WEIGHT_MAX
                changed = True
            trace *= p.keep_eligibility
            s.eligibility[at] = trace if abs(trace) > FORGOTTEN else 0.0
        if changed:
            settle(i, p, s)


def settle(i: int, p: Parameters, s: State) -> None:
    """Bring the row of neuron `i` to the budget and its floor, with 1 as its factor.

    A row that has lost everything at once would be deaf for ever: its primary synapse takes the budget, the
    others what it can't hold.
    """
    neurons = len(s.v)
    channels = len(s.pre)
    total = 0.0
    for j in range(channels):
        s.weights[j * neurons + i] *= s.scale[i]
        total += s.weights[j * neurons + i]
    s.scale[i] = 1.0
    s.settled[i] = 1.0
    if total <= 0.0:
        most = p.budget if p.budget < WEIGHT_MAX else WEIGHT_MAX
        for j in range(channels):
            rest = p.budget - most
            s.weights[j * neurons + i] = most if j == i % channels else rest / (channels - 1)
        return
    rescale(s.weights, i, neurons, channels, i % channels, p.budget, p.primary_floor)


def rescale(
    weights: list[float], start: int, stride: int, channels: int, primary: int, budget: float, floor: float
) -> None:
    """Bring a row back to the budget, in place, with the primary synapse at the floor or more.

    The row is every `stride`-th weight from `start` on. No weight exceeds 2: what one can't take, those
    below it share. A row of zeros stays.
    """
    first = start + stride * primary
    total = 0.0
    for j in range(channels):
        total += weights[start + j * stride]
    if total <= 0.0:
        return
    if total < TINY:
        for j in range(channels):
            weights[start + j * stride] /= TINY
        total /= TINY
    factor = budget / total
    for j in range(channels):
        w = weights[start + j * stride] * factor
        # A row of one weight may come out a bit above its budget.
        weights[start + j * stride] = w if w < budget else budget
    if weights[first] < floor:
        factor = (budget - floor) / (budget - weights[first])
        for j in range(channels):
            weights[start + j * stride] *= factor
        weights[first] = floor
    if budget <= WEIGHT_MAX:
        return
    excess = 0.0
    room = 0.0
    for j in range(channels):
        w = weights[start + j * stride]
        if w > WEIGHT_MAX:
            excess += w - WEIGHT_MAX
            w = WEIGHT_MAX
            weights[start + j * stride] = w
        room += WEIGHT_MAX - w
    # The excess is at most the room, as the budget is at most 2 x channels: shared by room, it all fits,
    # but for the last bit.
    if excess > 0.0 and room > 0.0:
        for j in range(channels):
            w = weights[start + j * stride]
            w += excess * ((WEIGHT_MAX - w) / room)
            weights[start + j * stride] = w if w < WEIGHT_MAX else WEIGHT_MAX
