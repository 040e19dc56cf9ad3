r"""What follows what, of some channels, learned by Hebb's rule: `advance` takes in a row of readings.

Each channel is a population of place cells: CELLS - 2 of them share the span of its usual values evenly,
one more at either end stands for all beyond. A value excites the cell it falls in by 1/2 and both neighbours
by 1/4. Synapses lead to the cells from three contexts: the hour of the day, the last cell, and the last two
cells. The synapses of a context that holds when a cell fires grow, and decay against it (Hebb's rule, with a
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
of one channel alone among so many. Errors that come together add up in it; those that come alone drown, but
for a value that is outside all that were seen by more than their range. Where three channels are each strange
by themselves, all are at least as strange as the third.

Written as scalar loops over flat arrays, like `dynamics`: it runs as it stands, and compiles as it stands.
"""

# ruff: noqa: FURB136, PLR1730 - a call of min or max costs more than what it compares

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

FAR_OUTSIDE = 6.0
"""What stands for one outside by more than the whole range: it counts in company, too, as others do alone."""

TOLERANCE = 0.05
"""Share of the range by which a value must be outside."""

MEMORY_ROWS = 1000.0
KEEP = 1.0 - 1.0 / MEMORY_ROWS
"""Visits that the synapses of a last cell or a pair remember, and what one leaves of them."""

USUAL_ROWS = 8640.0
"""Rows that the usual mean error remembers."""

MEAN_FLOOR, VARIANCE_FLOOR = 0.03, 0.0003

FAR_OFF = 4.0
"""Deviations of a mean from the usual ones, beyond which it counts as so many."""

FLOOR = 1e-10
"""The least probability that is told apart."""

STRONG = 1e6
"""A synapse that grows by so much is scaled back, and its row with it."""

N, LO, WIDTH, LAST, BEFORE, LOWEST, HIGHEST, SPAN, FIRST, USUAL, VARIANCE, AT, HELD, COUNT = range(14)
SUM, USUAL_SUM, INSIDE, BEYOND, LATELY_LOWEST, LATELY_HIGHEST = range(14, 20)
AGE, STRANGEST, THEN, THEN_EXPECTED, THEN_LOW, THEN_HIGH = range(20, 26)
"""Numbers of a channel (`State.channel`).

Rows taken in, 0 before there are cells; the cells' lower end and width; last cell and the one before, -1 for
none; lowest and highest value; the least span that counts; means after which the usual ones begin to be
learned; their mean and variance; place in the window, errors in it, means taken in; the sum of the window,
and with each error 1 at most; the surprise by that, which knows of no outside; the share of values beyond the
cells; lowest and highest value of late. Then the strangest value of the last rows: how long ago it was, its
error, it, what was expected of it.
"""
NUMBERS = THEN_HIGH + 1

ERROR, SURPRISE, EXPECTED, LOW, HIGH = range(5)
OUTPUTS = HIGH + 1
"""What comes out for a channel; NaN where it is not known."""


class State(NamedTuple):
    """What moves, of C channels; the last of `channel` and `window` is the coincidence detector.

    Attributes:
        weights: single precision, (C, ROWS, CELLS).
        total: the sum of what a row of them was given, (C, ROWS).
        growth: what a full activity adds to a row of them; it grows where they would decay, (C, ROWS).
        begin: the first cell of a row that has a synapse, CELLS if there is none, (C, ROWS).
        end: the cell after the last, 0 likewise, (C, ROWS).
        channel: NUMBERS of each, (C + 1, NUMBERS).
        window: the last errors, (C + 1, WINDOW).
    """

    weights: MutableSequence[float]
    total: MutableSequence[float]
    growth: MutableSequence[float]
    begin: MutableSequence[int]
    end: MutableSequence[int]
    channel: MutableSequence[float]
    window: MutableSequence[float]


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
        from_channel: the first channel; of a part of the channels there is no coincidence.
        s: moves on; channels without cells stay as they are.
        out: OUTPUTS of each of these channels, set.

    Returns:
        The surprise of all, NaN if it is not known.
    """
    errors = 0.0
    known = 0
    first = second = third = 0.0
    for j in range(len(values)):
        c = from_channel + j
        error = learn(c, values[j], hour, keep_hour, s, j * OUTPUTS, out)
        if error == error:  # noqa: PLR0124 - not NaN
            if error > OUTSIDE:
                error = OUTSIDE
                errors += error
            else:
                # In company a value just outside is an error like others.
                errors += error if error < 1.0 else 1.0
            known += 1
            alone = likelihood(c, error, MEAN_FLOOR, VARIANCE_FLOOR, s)
            out[j * OUTPUTS + SURPRISE] = alone
            own = c * NUMBERS
            if s.channel[own + N] < 4.0 * s.channel[own + FIRST]:
                # Of few values the next is often outside all of them.
                alone = s.channel[own + INSIDE]
            if alone > first:
                first, second, third = alone, first, second
            elif alone > second:
                second, third = alone, second
            elif alone > third:
                third = alone
    all_channels = len(s.channel) // NUMBERS - 1
    if known == 0 or len(values) < all_channels:
        return math.nan
    all_of_them = likelihood(all_channels, errors / known, MEAN_FLOOR / known, VARIANCE_FLOOR / known, s)
    # Channels that are each strange by themselves need no sum.
    return third if third > all_of_them else all_of_them


def row_of(context: int, last: int, before: int, hour: int) -> int:
    """Where the synapses of a context lie: the hour, the last cell, the last two; -1 if it does not hold."""
    if context == 0:
        return HOUR_ROWS + hour if hour >= 0 else -1
    if context == 1:
        return LAST_ROWS + last if last >= 0 else -1
    return PAIR_ROWS + before * CELLS + last if before >= 0 and last >= 0 else -1


def learn(
    c: int, value: float, hour: int, keep_hour: float, s: State, to: int, out: MutableSequence[float]
) -> float:
    """Take in one value of one channel; its error, NaN if nothing can be said."""
    n = s.channel
    own = c * NUMBERS
    for i in range(to, to + OUTPUTS):
        out[i] = math.nan
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
    lower = cell - 1 if cell > 0 else 0
    upper = cell + 1 if cell < CELLS - 1 else cell

    weights = s.weights
    likely = 0.0
    asked = 0
    visits = 0.0
    for context in range(3):
        row = row_of(context, last, before, hour)
        if row >= 0:
            at = c * ROWS + row
            base = at * CELLS
            total = s.total[at]
            growth = s.growth[at]
            # What the context expected, before it learns.
            if total > 0.0:
                here = weights[base + left] * (1.0 - share) + weights[base + right] * share
                below = 0.0
                for w in weights[base + s.begin[at] : base + s.end[at]]:
                    below += w if w < here else here
                if total > visits * growth:
                    # What is usual is told by the context that is known best.
                    visits = total / growth
                    expect(at, low, width, n[own + LOWEST], n[own + HIGHEST], s, to, out)
                p = below / (total + growth)
                likely += p if p < 1.0 else 1.0
                asked += 1
            elif context > 0:
                # A cell, or two, that nothing ever followed: that itself is new. A new hour is not.
                asked += 1
            # Hebb's rule.
            growth = growth / (keep_hour if context == 0 else KEEP) if growth > 0.0 else 1.0
            if growth > STRONG:
                for d in range(base, base + CELLS):
                    weights[d] /= growth
                s.total[at] /= growth
                growth = 1.0
            s.growth[at] = growth
            s.total[at] += growth
            weights[base + cell] += 0.5 * growth
            if lower < cell:
                weights[base + lower] += 0.25 * growth
            if upper > cell:
                weights[base + upper] += 0.25 * growth
            if lower < s.begin[at]:
                s.begin[at] = lower
            if upper >= s.end[at]:
                s.end[at] = upper + 1

    error = math.nan
    if asked:
        p = likely / asked
        error = 1.0
        if p > LEAST:
            error = math.log10(p) / FAR
            error *= error
        reach = n[own + HIGHEST] - n[own + LOWEST]
        reach = TOLERANCE * (reach if reach > n[own + SPAN] else n[own + SPAN])
        if reach > 0.0 and (value > n[own + HIGHEST] + reach or value < n[own + LOWEST] - reach):
            error = OUTSIDE
            whole = reach / TOLERANCE
            if value > n[own + HIGHEST] + whole or value < n[own + LOWEST] - whole:
                error = FAR_OUTSIDE
    out[to + ERROR] = error
    age = n[own + AGE] + 1.0
    n[own + AGE] = age
    if error >= n[own + STRANGEST] or age >= WINDOW:
        n[own + AGE] = 0.0
        n[own + STRANGEST], n[own + THEN] = (error if asked else -1.0), value
        n[own + THEN_EXPECTED], n[own + THEN_LOW] = out[to + EXPECTED], out[to + LOW]
        n[own + THEN_HIGH] = out[to + HIGH]
    n[own + N] += 1.0
    n[own + BEFORE], n[own + LAST] = float(last), float(cell)
    n[own + BEYOND] *= KEEP
    if cell == 0 or cell == CELLS - 1:
        n[own + BEYOND] += 1.0 - KEEP
    for low_of, high_of in ((LOWEST, HIGHEST), (LATELY_LOWEST, LATELY_HIGHEST)):
        if value < n[own + low_of]:
            n[own + low_of] = value
        if value > n[own + high_of]:
            n[own + high_of] = value
    return error


def expect(
    at: int,
    low: float,
    width: float,
    lowest: float,
    highest: float,
    s: State,
    to: int,
    out: MutableSequence[float],
) -> None:
    """The middle of what a context expects, and the ends of its middle nine tenths; within what was seen."""
    # Less than the total: what a cell at an end would give to its neighbour beyond is lost.
    whole = 0.0
    for w in s.weights[at * CELLS + s.begin[at] : at * CELLS + s.end[at]]:
        whole += w
    cell = s.begin[at]
    seen = 0.0
    wanted = 0.05 * whole
    k = LOW
    for w in s.weights[at * CELLS + s.begin[at] : at * CELLS + s.end[at]]:
        seen += w
        while seen >= wanted and w > 0.0:
            value = low + width * (cell - (seen - wanted) / w)
            value = value if value > lowest else lowest
            out[to + k] = value if value < highest else highest
            if k == HIGH:
                return
            wanted = (0.5 if k == LOW else 0.95) * whole
            k = EXPECTED if k == LOW else HIGH
        cell += 1


def rarity(deviations: float) -> float:
    """The surprise of a mean so many deviations above the usual one: in tenths of decades of probability."""
    surprise = -0.1 * math.log10(FLOOR + 0.5 * math.erfc(deviations / math.sqrt(2.0)))
    surprise = surprise if surprise > 0.0 else 0.0
    return surprise if surprise < 1.0 else 1.0


def likelihood(c: int, error: float, mean_floor: float, variance_floor: float, s: State) -> float:
    """The surprise of a channel's newest error among its own; NaN before its errors are known."""
    n = s.channel
    own = c * NUMBERS
    ring = c * WINDOW
    at = int(n[own + AT])
    held = n[own + HELD]
    oldest = s.window[ring + at]
    s.window[ring + at] = error
    if held < WINDOW:
        held += 1.0
        n[own + HELD] = held
    if at < WINDOW - 1:
        n[own + AT] = at + 1.0
        n[own + SUM] += error - oldest
        n[own + USUAL_SUM] += (error if error < 1.0 else 1.0) - (oldest if oldest < 1.0 else 1.0)
    else:
        # Once around they are added up anew: rounding errors don't gather.
        n[own + AT] = n[own + SUM] = n[own + USUAL_SUM] = 0.0
        for i in range(ring, ring + WINDOW):
            e = s.window[i]
            n[own + SUM] += e
            n[own + USUAL_SUM] += e if e < 1.0 else 1.0
    mean = n[own + SUM] / held
    usual = n[own + USUAL_SUM] / held
    count = n[own + COUNT]
    n[own + COUNT] = count + 1.0
    surprise = math.nan
    first = n[own + FIRST]
    if count >= first + first:
        centre = n[own + USUAL] if n[own + USUAL] > mean_floor else mean_floor
        spread = n[own + VARIANCE] if n[own + VARIANCE] > variance_floor else variance_floor
        surprise = rarity((mean - centre) / math.sqrt(spread))
        n[own + INSIDE] = surprise if mean <= usual else rarity((usual - centre) / math.sqrt(spread))
        # What is far off is not to become the measure of itself.
        most = centre + FAR_OFF * math.sqrt(spread)
        usual = usual if usual < most else most
    if count >= first:
        taken = count - first + 1.0
        share = 1.0 / (taken if taken < USUAL_ROWS else USUAL_ROWS)
        d = usual - n[own + USUAL]
        n[own + USUAL] += share * d
        n[own + VARIANCE] = (1.0 - share) * (n[own + VARIANCE] + share * d * d)
    return surprise
