r"""What follows what, of some channels, learned by Hebb's rule: `advance` takes in a row of readings.

Each channel is a population of place cells: CELLS - 2 of them share the span of its usual values evenly,
one more at either end stands for all beyond. A value excites the cell it falls in by 1/2 and both neighbours
by 1/4. Synapses lead to the cells from three contexts: the last cell, the last two cells, and the hour of the
day. The synapses of a context that holds when a cell fires grow, and decay against it (Hebb's rule, with a
bounded memory):

    w_rc <- (1 - 1 / tau) w_rc + a_c(x)        r the context's row, a_c the cell's activity

so that w_r over its sum is the distribution of what follows r. How unusual x is there: the probability of
values that were expected no more than x,

    p_r(x) = sum_c min(w_rc, w_r(x)) / (sum_c w_rc + 1),    w_r(x) between the cells linearly

and its error is the mean of the contexts that are known, in decades, squared:

    e = (min(-lg mean_r p_r, 3) / 3)^2                   in [0, 1]

The mean of the last 10 errors, m, is set against mean mu and variance s2 of such means, which forget over
8,640 rows (after the likelihood of Ahmad, Lavin, Purdy and Agha, 2017, "Unsupervised real-time anomaly
detection for streaming data", Neurocomputing 262):

    surprise = lg(1e-10 + Q((m - max(mu, .03)) / sqrt(max(s2, .0003)))) / -10      Q the Gaussian's upper tail

A value beyond all that were seen, by a twentieth of their range, counts five times the largest error.

Several channels meet in a detector of coincidences: the mean of their errors, treated alike, its floors those
of one channel alone among so many. Errors that come together add up in it; those that come alone drown.

Written as scalar loops over flat arrays, like `dynamics`: it runs as it stands, and compiles as it stands.
"""

# ruff: noqa: FURB136 - a call of min or max costs more than what it compares

from __future__ import annotations

import math
from collections.abc import MutableSequence, Sequence
from typing import NamedTuple

CELLS = 22
INNER = CELLS - 2
HOURS = 24

HOUR_ROWS = 0
LAST_ROWS = HOURS
PAIR_ROWS = HOURS + CELLS
ROWS = HOURS + CELLS + CELLS * CELLS
"""Contexts of a channel: hours, then last cells, then pairs, the older cell first."""

WINDOW = 10
"""Errors in a mean."""

FAR = 3.0
"""Decades of probability that make the largest error."""

LEAST = 10.0**-FAR

OUTSIDE = 5.0
"""Error of a value outside all that was seen."""

TOLERANCE = 0.05
"""Share of the range by which a value must be outside."""

MEMORY_ROWS = 1000.0
"""Visits that the synapses of a last cell or a pair remember."""

USUAL_ROWS = 8640.0
"""Rows that the usual mean error remembers."""

MEAN_FLOOR, VARIANCE_FLOOR = 0.03, 0.0003

FLOOR = 1e-10
"""The least probability that is told apart."""

STRONG = 1e6
"""A synapse that grows by so much is scaled back, and its row with it."""

N, LO, WIDTH, LAST, BEFORE, LOWEST, HIGHEST, SPAN, FIRST, USUAL, VARIANCE, AT, HELD, COUNT = range(14)
"""Numbers of a channel (`State.channel`).

Rows taken in, 0 before there are cells; the cells' lower end and width; last cell and the one before, -1 for
none; lowest and highest value; the least span that counts; rows that count for the usual errors from here on;
mean and variance of the means; place in the window, errors in it, means taken in.
"""
NUMBERS = COUNT + 1

ERROR, SURPRISE, EXPECTED, LOW, HIGH = range(5)
OUTPUTS = HIGH + 1
"""What comes out for a channel; NaN where it is not known."""


class State(NamedTuple):
    """What moves, of C channels; the last of `channel` and `window` is the coincidence detector.

    Attributes:
        weights: single precision, (C, ROWS, CELLS).
        total: the sum of what a row of them was given, (C, ROWS).
        growth: what a full activity adds to a row of them; it grows where they would decay, (C, ROWS).
        channel: NUMBERS of each, (C + 1, NUMBERS).
        window: the last errors, (C + 1, WINDOW).
        mixture: room to work in, (CELLS,).
    """

    weights: MutableSequence[float]
    total: MutableSequence[float]
    growth: MutableSequence[float]
    channel: MutableSequence[float]
    window: MutableSequence[float]
    mixture: MutableSequence[float]


def cell_of(value: float, low: float, width: float) -> int:
    """The cell that a value falls in."""
    place = (value - low) / width
    if place < 0.0:
        return 0
    return CELLS - 1 if place >= INNER else int(place) + 1


def advance(
    values: Sequence[float],
    hour: int,
    keep_hour: float,
    from_channel: int,
    s: State,
    out: MutableSequence[float],
) -> float:
    """Take in a row, in place.

    Args:
        values: of the channels from `from_channel` on; NaN where one is missing.
        hour: of the day, -1 if it is not known.
        keep_hour: what a visit leaves of the synapses of an hour.
        from_channel: the first channel.
        s: moves on; channels without cells stay as they are.
        out: OUTPUTS of each of these channels, set.

    Returns:
        The mean error of those that are known, NaN if there is none.
    """
    errors = 0.0
    known = 0
    for j in range(len(values)):
        c = from_channel + j
        error = learn(c, values[j], hour, keep_hour, s, j * OUTPUTS, out)
        if error == error:  # noqa: PLR0124 - not NaN
            # In company a value outside is an error like others.
            errors += error if error < 1.0 else 1.0
            known += 1
            out[j * OUTPUTS + SURPRISE] = likelihood(c, error, MEAN_FLOOR, VARIANCE_FLOOR, s)
    return errors / known if known else math.nan


def learn(
    c: int, value: float, hour: int, keep_hour: float, s: State, to: int, out: MutableSequence[float]
) -> float:
    """Take in one value of one channel; its error, NaN if nothing can be said."""
    n = s.channel
    own = c * NUMBERS
    for i in range(OUTPUTS):
        out[to + i] = math.nan
    if n[own + N] == 0.0:
        return math.nan
    if value != value:  # noqa: PLR0124 - NaN: it is missing
        # What comes next does not follow what came before.
        n[own + LAST] = n[own + BEFORE] = -1.0
        return math.nan
    low, width = n[own + LO], n[own + WIDTH]
    last, before = int(n[own + LAST]), int(n[own + BEFORE])
    cell = cell_of(value, low, width)
    place = (value - low) / width + 0.5
    place = place if place > 0.0 else 0.0
    place = place if place < CELLS - 1.0 else CELLS - 1.0
    left = int(place)
    right = left + 1 if left < CELLS - 1 else left
    share = place - left

    # What each context that holds expected, before it learns.
    mixture = s.mixture
    for d in range(CELLS):
        mixture[d] = 0.0
    likely = 0.0
    asked = 0
    mixed = 0
    for context in range(3):
        if context == 0:
            row = LAST_ROWS + last if last >= 0 else -1
        elif context == 1:
            row = PAIR_ROWS + before * CELLS + last if before >= 0 and last >= 0 else -1
        else:
            row = HOUR_ROWS + hour if hour >= 0 else -1
        if row >= 0:
            at = c * ROWS + row
            total = s.total[at]
            if total > 0.0:
                base = at * CELLS
                weights = s.weights[base : base + CELLS]
                here = weights[left] * (1.0 - share) + weights[right] * share
                below = 0.0
                scale = 1.0 / total
                for d in range(CELLS):
                    w = weights[d]
                    if w > 0.0:
                        below += w if w < here else here
                        mixture[d] += w * scale
                p = below / (total + s.growth[at])
                likely += p if p < 1.0 else 1.0
                mixed += 1
                asked += 1
            elif context != 2:  # noqa: PLR2004 - the hour
                # A cell, or two, that nothing ever followed: that itself is new. A new hour is not.
                asked += 1

    error = math.nan
    if asked:
        p = likely / asked
        if p <= LEAST:
            error = 1.0
        else:
            error = -math.log10(p) / FAR
            error *= error
        reach = n[own + HIGHEST] - n[own + LOWEST]
        reach = TOLERANCE * (reach if reach > n[own + SPAN] else n[own + SPAN])
        if reach > 0.0 and (value > n[own + HIGHEST] + reach or value < n[own + LOWEST] - reach):
            error = OUTSIDE
    if mixed:
        expect(low, width, n[own + LOWEST], n[own + HIGHEST], mixture, to, out)
    out[to + ERROR] = error

    # Hebb's rule.
    for context in range(3):
        keep = 1.0 - 1.0 / MEMORY_ROWS
        if context == 0:
            row = LAST_ROWS + last if last >= 0 else -1
        elif context == 1:
            row = PAIR_ROWS + before * CELLS + last if before >= 0 and last >= 0 else -1
        else:
            row = HOUR_ROWS + hour if hour >= 0 else -1
            keep = keep_hour
        if row >= 0:
            at = c * ROWS + row
            base = at * CELLS
            growth = s.growth[at] / keep if s.growth[at] > 0.0 else 1.0
            if growth > STRONG:
                for d in range(CELLS):
                    s.weights[base + d] /= growth
                s.total[at] /= growth
                growth = 1.0
            s.growth[at] = growth
            s.total[at] += growth
            s.weights[base + cell] += 0.5 * growth
            if cell > 0:
                s.weights[base + cell - 1] += 0.25 * growth
            if cell < CELLS - 1:
                s.weights[base + cell + 1] += 0.25 * growth

    n[own + N] += 1.0
    n[own + BEFORE], n[own + LAST] = float(last), float(cell)
    n[own + LOWEST] = min(n[own + LOWEST], value)
    n[own + HIGHEST] = max(n[own + HIGHEST], value)
    return error


def expect(
    low: float,
    width: float,
    lowest: float,
    highest: float,
    mixture: Sequence[float],
    to: int,
    out: MutableSequence[float],
) -> None:
    """The middle of what was expected, and the ends of its middle nine tenths; within what was ever seen."""
    whole = 0.0
    for d in range(CELLS):
        whole += mixture[d]
    seen = 0.0
    wanted = 0.05 * whole
    k = 0
    for d in range(CELLS):
        w = mixture[d]
        seen += w
        while k < 3 and seen >= wanted:  # noqa: PLR2004 - low, expected, high
            value = low + width * (d - (seen - wanted) / w)
            value = value if value > lowest else lowest
            value = value if value < highest else highest
            if k == 0:
                out[to + LOW] = value
                wanted = 0.5 * whole
            elif k == 1:
                out[to + EXPECTED] = value
                wanted = 0.95 * whole
            else:
                out[to + HIGH] = value
            k += 1


def likelihood(c: int, error: float, mean_floor: float, variance_floor: float, s: State) -> float:
    """The surprise of a channel's newest error among its own; NaN before its errors are known."""
    n = s.channel
    own = c * NUMBERS
    ring = c * WINDOW
    at = int(n[own + AT])
    held = n[own + HELD]
    s.window[ring + at] = error
    if held < WINDOW:
        held += 1.0
        n[own + HELD] = held
    n[own + AT] = float(at + 1 if at < WINDOW - 1 else 0)
    mean = 0.0
    usual = 0.0
    for i in range(WINDOW):
        e = s.window[ring + i]
        mean += e
        usual += e if e < 1.0 else 1.0
    mean /= held
    usual /= held
    count = n[own + COUNT]
    n[own + COUNT] = count + 1.0
    surprise = math.nan
    first = n[own + FIRST]
    if count >= first + first:
        centre = n[own + USUAL] if n[own + USUAL] > mean_floor else mean_floor
        spread = n[own + VARIANCE] if n[own + VARIANCE] > variance_floor else variance_floor
        tail = 0.5 * math.erfc((mean - centre) / math.sqrt(2.0 * spread))
        surprise = -0.1 * math.log10(FLOOR + tail)
        surprise = surprise if surprise > 0.0 else 0.0
        surprise = surprise if surprise < 1.0 else 1.0
    if count >= first:
        taken = count - first + 1.0
        share = 1.0 / (taken if taken < USUAL_ROWS else USUAL_ROWS)
        d = usual - n[own + USUAL]
        n[own + USUAL] += share * d
        n[own + VARIANCE] = (1.0 - share) * (n[own + VARIANCE] + share * d * d)
    return surprise
