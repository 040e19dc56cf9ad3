"""Numbers and foreign texts as characters of a terminal: sparklines, bars, units, columns of equal width."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

_CONTROL = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_MARKS = frozenset({"Mn", "Me", "Mc"})
_PREFIXES = ("", "k", "M", "G", "T", "P")
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi")

_WHOLE = {"ratio": (100.0, "%"), "celsius": (1.0, "C")}
_PREFIXED = {
    "bytes": (1024.0, "B"),
    "bytes_per_s": (1024.0, "B/s"),
    "hz": (1000.0, "Hz"),
    "per_s": (1000.0, "/s"),
}


class Glyphs(NamedTuple):
    """The characters to draw with.

    Attributes:
        steps: from the lowest to the highest, for sparklines; none touches the line above.
        full: the filled part of a bar.
        empty: the rest of it.
        rule: a thin line.
        degree: before the C of a temperature.
        plain: whether nothing but ASCII may be written.
    """

    steps: str
    full: str
    empty: str
    rule: str
    degree: str
    plain: bool

    def spark(self, values: Sequence[float | None], low: float, high: float) -> str:
        """A character a value, the lowest for `low`; a blank for None and what is not a number."""
        top = len(self.steps) - 1
        span = high - low
        drawn = []
        for value in values:
            if value is None or math.isnan(value):
                drawn.append(" ")
                continue
            share = (value - low) / span if span > 0.0 else 0.0
            drawn.append(self.steps[round(min(max(share, 0.0), 1.0) * top)])
        return "".join(drawn)

    def spikes(self, rates: Sequence[float], full_rate: float) -> str:
        """A character a tick: blank without a spike, the higher the more there are."""
        top = len(self.steps) - 1
        return "".join(
            self.steps[min(max(math.ceil(rate / full_rate * top), 1), top)] if rate > 0.0 else " "
            for rate in rates
        )

    def bar(self, share: float | None, width: int) -> str:
        """A level in [0, 1]; blank for None."""
        if share is None:
            return " " * width
        filled = round(min(max(share, 0.0), 1.0) * width)
        return self.full * filled + self.empty * (width - filled)


UNICODE = Glyphs("▁▂▃▄▅▆▇", "━", "─", "─", "°", plain=False)
ASCII = Glyphs("_.-:=+*#", "#", ".", "-", "", plain=True)


def cleaned(text: str, limit: int) -> str:
    """The text on one line, without anything that moves a cursor, turns the direction or piles up marks."""
    composed = unicodedata.normalize("NFC", text[:limit])
    kinds = ((character, unicodedata.category(character)) for character in composed)
    return "".join("?" if kind in _CONTROL else character for character, kind in kinds if kind not in _MARKS)


def width_of(text: str) -> int:
    """Columns that a cleaned text takes."""
    if text.isascii():
        return len(text)
    return sum(1 + (unicodedata.east_asian_width(character) in "WF") for character in text)


def fitted(text: str, width: int) -> str:
    """The text cut or filled up to `width` columns; where it is cut, that shows."""
    missing = width - width_of(text)
    if missing >= 0:
        return text + " " * missing
    while text and width_of(text) > width - 1:
        text = text[:-1]
    kept = f"{text}~" if width > 0 else ""
    return kept + " " * (width - width_of(kept))


def wrapped(text: str, first: int, others: int) -> list[str]:
    """The text broken between words into lines, the first of which may have less room."""
    lines: list[str] = [""]
    for word in text.split(" "):
        room = (first if len(lines) == 1 else others) - width_of(lines[-1]) - bool(lines[-1])
        if width_of(word) <= room or not (lines[-1] or len(lines) == 1):
            lines[-1] += f"{' ' if lines[-1] else ''}{word}"
        else:
            lines.append(word)
    return lines


def amount(value: float | None, unit: str, glyphs: Glyphs) -> tuple[str, str]:
    """A measure as three or four digits and its unit, with a prefix where it has one."""
    if value is None or math.isnan(value):
        return "-", ""
    if unit in _WHOLE:
        factor, shown = _WHOLE[unit]
        return f"{value * factor:.0f}", shown.replace("C", f"{glyphs.degree}C")
    if unit in _PREFIXED:
        base, shown = _PREFIXED[unit]
        return _scaled(value, base, _PREFIXES if unit in ("hz", "per_s") else _BINARY, shown)
    return _digits(value), {"watts": "W", "volts": "V"}.get(unit, unit)


def age(seconds: float) -> str:
    """A time span in one unit."""
    for size_s, unit in ((86_400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size_s:
            return f"{seconds / size_s:.0f} {unit}"
    return f"{max(seconds, 0.0):.0f} s"


def _scaled(value: float, base: float, prefixes: Sequence[str], unit: str) -> tuple[str, str]:
    power = 0
    while abs(value) >= 999.5 and power < len(prefixes) - 1:  # noqa: PLR2004 - three digits
        value /= base
        power += 1
    return (f"{value:.0f}" if power == 0 else _digits(value)), prefixes[power] + unit


def _digits(value: float) -> str:
    size = abs(value)
    if size >= 1e5:  # noqa: PLR2004 - five digits
        return f"{value:.0e}"
    return f"{value:.0f}" if size >= 99.95 else f"{value:.1f}" if size >= 9.995 else f"{value:.2f}"  # noqa: PLR2004
