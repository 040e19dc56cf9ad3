"""One step of the network, in one place.

Written as scalar loops over flat sequences: it runs as it stands on lists, which for a small network is
faster than array expressions, and can be compiled as it stands on arrays.
"""

# ruff: noqa: FURB136 - a call of min or max costs more than what it compares

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from neuromodd.core.neurons import HALF_STEP_MS, PEAK_MV
from neuromodd.core.stdp import WEIGHT_MAX


class Constants(NamedTuple):
    """The numbers of one call of `advance`: fixed constants and this tick's modulators."""

    decay: float
    gain: float
    theta_shift: float
    theta_min: float
    theta_max: float
    inhibition: float
    homeostasis_rate: float
    target_rate: float
    learning_rate: float
    budget: float
    primary_floor: float
    a: float
    b: float
    c: float
    d: float


def advance(
    first_step: int,
    uniforms: Sequence[float],
    probability: Sequence[float],
    currents: Sequence[float],
    k: Constants,
    pair_plus: Sequence[float],
    pair_minus: Sequence[float],
    v: list[float],
    theta: list[float],
    weights: list[float],
    last_post: list[int],
    last_pre: list[int],
    bank_v: list[float],
    bank_u: list[float],
    input_spikes: list[int],
    lif_spikes: list[int],
    bank_spikes: list[int],
) -> None:
    """Run the network for len(uniforms) / len(probability) steps of 1 ms, in place.

    With C channels, N LIF neurons and B neurons in the bank:

    Args:
        first_step: number of the first step; times of spikes count from the network's first start.
        uniforms: U[0, 1) draws, shape (steps, C) row-major; channel j spikes where its draw is below p_j.
        probability: p of each channel, (C,).
        currents: input current of each neuron of the bank, (B,).
        k: constants.
        pair_plus: A+ exp(-age / tau+) by age in steps; its length is the oldest pair that counts.
        pair_minus: A- exp(-age / tau-) likewise.
        v: LIF potentials, (N,).
        theta: adaptive thresholds, (N,).
        weights: W, (N, C) row-major, in [0, 2].
        last_post: step of each LIF neuron's last spike, -1 for never, (N,).
        last_pre: step of each channel's last spike, -1 for never, (C,).
        bank_v: Izhikevich v in mV, (B,).
        bank_u: Izhikevich u, (B,).
        input_spikes: counts are added, (C,).
        lif_spikes: counts are added, (N,).
        bank_spikes: counts are added, (B,).
    """
    channels = len(probability)
    neurons = len(v)
    decay, theta_shift, theta_min, theta_max = k.decay, k.theta_shift, k.theta_min, k.theta_max
    rest = k.homeostasis_rate * k.target_rate
    rise = k.homeostasis_rate * (1.0 - k.target_rate)
    learning = k.learning_rate > 0.0
    active = [0] * channels
    fired = [0] * neurons
    for offset in range(len(uniforms) // channels):
        now = first_step + offset
        base = offset * channels
        # Input spikes.
        arrived = 0
        for j in range(channels):
            if uniforms[base + j] < probability[j]:
                active[arrived] = j
                arrived += 1
                last_pre[j] = now
                input_spikes[j] += 1

        # LIF neurons: integrate, leak, fire; slow homeostasis of theta.
        spikes = 0
        for i in range(neurons):
            x = v[i]
            if arrived:
                row = i * channels
                s = 0.0
                for n in range(arrived):
                    s += weights[row + active[n]]
                x += k.gain * s
            x -= x * decay
            bar = theta[i]
            limit = bar + theta_shift
            if limit < theta_min:
                limit = theta_min
            elif limit > theta_max:
                limit = theta_max
            if x >= limit:
                x = 0.0
                fired[spikes] = i
                spikes += 1
                bar += rise
            else:
                bar -= rest
            if bar < theta_min:
                bar = theta_min
            elif bar > theta_max:
                bar = theta_max
            theta[i] = bar
            v[i] = x

        # Whoever fired holds the silent ones back.
        if spikes:
            n = 0
            for i in range(neurons):
                if n < spikes and fired[n] == i:
                    n += 1
                else:
                    x = v[i] - k.inhibition
                    v[i] = x if x > 0.0 else 0.0

        # STDP, each pair at its later spike; a pair in the same step is potentiation.
        if learning and (spikes or arrived):
            n = 0
            for i in range(neurons):
                row = i * channels
                changed = False
                if n < spikes and fired[n] == i:
                    n += 1
                    for j in range(channels):
                        age = now - last_pre[j]
                        if last_pre[j] >= 0 and age < len(pair_plus):
                            w = weights[row + j] + k.learning_rate * pair_plus[age]
                            weights[row + j] = w if w < WEIGHT_MAX else WEIGHT_MAX
                            changed = True
                elif last_post[i] >= 0 and now - last_post[i] < len(pair_minus):
                    dw = k.learning_rate * pair_minus[now - last_post[i]]
                    for m in range(arrived):
                        w = weights[row + active[m]] - dw
                        weights[row + active[m]] = w if w > 0.0 else 0.0
                        changed = True
                if changed:
                    rescale(weights, row, channels, i % channels, k.budget, k.primary_floor)
        for n in range(spikes):
            last_post[fired[n]] = now
            lif_spikes[fired[n]] += 1

        # Izhikevich bank: two half-steps, the threshold tested after each.
        for i in range(len(bank_v)):
            x = bank_v[i]
            u = bank_u[i]
            current = currents[i]
            rang = 0
            for _half in range(2):
                dx = 0.04 * x * x + 5.0 * x + 140.0 - u + current
                du = k.a * (k.b * x - u)
                x += HALF_STEP_MS * dx
                u += HALF_STEP_MS * du
                if x >= PEAK_MV:
                    x = k.c
                    u += k.d
                    rang = 1
            bank_spikes[i] += rang
            bank_v[i] = x
            bank_u[i] = u


def rescale(weights: list[float], row: int, channels: int, primary: int, budget: float, floor: float) -> None:
    """Bring the row at `row` back to the budget, in place, with the primary synapse at the floor or more.

    No weight exceeds 2: what one can't take, those below it share. A row of zeros stays.
    """
    total = 0.0
    for j in range(row, row + channels):
        total += weights[j]
    if total <= 0.0:
        return
    # Dividing first keeps a row of subnormal weights from overflowing.
    for j in range(row, row + channels):
        weights[j] = weights[j] / total * budget
    if weights[row + primary] < floor:
        others = budget - weights[row + primary]
        for j in range(row, row + channels):
            weights[j] = weights[j] / others * (budget - floor)
        weights[row + primary] = floor
    if budget <= WEIGHT_MAX:
        return
    excess = 0.0
    room = 0.0
    for j in range(row, row + channels):
        if weights[j] > WEIGHT_MAX:
            excess += weights[j] - WEIGHT_MAX
            weights[j] = WEIGHT_MAX
        room += WEIGHT_MAX - weights[j]
    # The excess is at most the room, as the budget is at most 2 x channels: shared by room, it all fits,
    # but for the last bit.
    if excess > 0.0 and room > 0.0:
        for j in range(row, row + channels):
            w = weights[j] + excess * ((WEIGHT_MAX - weights[j]) / room)
            weights[j] = w if w < WEIGHT_MAX else WEIGHT_MAX
