"""A saved state of surprise: how synapses are packed, and what is checked before anything is taken over."""

from __future__ import annotations

import base64
import binascii
import math
import zlib
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from neuromodd.core import associations as model
from neuromodd.errors import InvalidValueError

PLACE = "SurpriseDetector.restore"

BIG_ENDIAN = array("h", [1]).tobytes() == b"\x00\x01"

_ROW_NUMBERS = frozenset(range(model.ROWS))

_NAMED = {math.inf: "inf", -math.inf: "-inf"}
"""What JSON has no numbers for; NaN is null."""

_PACKED_LIMIT = 4 + model.ROWS * (3 * 8 + model.CELLS * 4)

_RANGES: dict[tuple[int, ...], Callable[[float], bool]] = {
    (model.LAST, model.BEFORE): frozenset(range(-1, model.CELLS)).__contains__,
    (model.AT,): frozenset(range(model.WINDOW)).__contains__,
    (model.N, model.WIDTH, model.HELD, model.COUNT, model.FIRST, model.VARIANCE): lambda x: (
        0.0 <= x < math.inf
    ),
    (model.LO, model.LOWEST, model.HIGHEST, model.USUAL, model.SUM, model.USUAL_SUM): math.isfinite,
}
"""What the numbers of a channel may be: machine code looks at no bounds."""


def plain(numbers: Iterable[float]) -> list[float | str | None]:
    """Numbers as JSON has them."""
    return [float(x) if math.isfinite(x) else _NAMED.get(x) for x in numbers]


def floats(values: Sequence[Any], count: int) -> list[float]:
    """What `plain` returned, as numbers again.

    Raises:
        InvalidValueError: they are not so many.
    """
    if len(values) != count:
        raise InvalidValueError(PLACE, len(values), f"{count} numbers")
    return [math.nan if value is None else float(value) for value in values]


def checked_numbers(values: Sequence[Any]) -> list[float]:
    """The numbers of a channel.

    Raises:
        InvalidValueError: one is out of range.
    """
    numbers = floats(values, model.NUMBERS)
    for places, holds in _RANGES.items():
        for place in places:
            if not holds(numbers[place]):
                raise InvalidValueError(f"{PLACE}.numbers", numbers[place], "a number in range")
    if numbers[model.N] > 0.0 and not numbers[model.WIDTH] > 0.0:
        raise InvalidValueError(f"{PLACE}.numbers", numbers[model.WIDTH], "a width above 0")
    return numbers


def packed(s: model.State, at: int) -> str:
    """The rows of a channel that have learned something: number, sum and growth, then the weights."""
    first, cells = at * model.ROWS, model.CELLS
    sums, weights = array("d"), array("f")
    for row in range(model.ROWS):
        total = s.total[first + row]
        if total > 0.0:
            sums.extend((row, total, s.growth[first + row]))
            base = (first + row) * cells
            weights.extend(s.weights[base : base + cells])
    if BIG_ENDIAN:
        sums.byteswap()
        weights.byteswap()
    data = len(sums).to_bytes(4, "little") + sums.tobytes() + weights.tobytes()
    return base64.b85encode(zlib.compress(data, 1)).decode("ascii")


def unpacked(text: str) -> list[tuple[int, float, float, list[float]]]:
    """The rows of a channel: number, sum, growth, weights.

    Raises:
        InvalidValueError: the text is none that `packed` wrote.
    """
    try:
        data = zlib.decompressobj().decompress(base64.b85decode(text), _PACKED_LIMIT + 1)
    except (ValueError, binascii.Error, zlib.error) as error:
        raise InvalidValueError(f"{PLACE}.synapses", str(error), "packed synapses") from None
    count = int.from_bytes(data[:4], "little")
    sums, weights = array("d"), array("f")
    ends = 4 + 8 * count
    rows = count // 3
    if len(data) > _PACKED_LIMIT or count % 3 or len(data) != ends + rows * model.CELLS * 4:
        raise InvalidValueError(f"{PLACE}.synapses", len(data), "as many bytes as rows need")
    sums.frombytes(data[4:ends])
    weights.frombytes(data[ends:])
    if BIG_ENDIAN:
        sums.byteswap()
        weights.byteswap()
    found = []
    for at in range(rows):
        number, total, growth = sums[3 * at : 3 * at + 3]
        if number not in _ROW_NUMBERS or not (0.0 < total < math.inf and 0.0 < growth < math.inf):
            raise InvalidValueError(f"{PLACE}.synapses", number, "a row that there is")
        found.append(
            (int(number), total, growth, weights[at * model.CELLS : (at + 1) * model.CELLS].tolist())
        )
    return found
