"""Lines of a terminal as data: pieces of text, each with the name of its style."""

from __future__ import annotations

from typing import Literal, NamedTuple

from neuromodd.dashboard.glyphs import Glyphs, fitted, width_of

Style = Literal[
    "plain",
    "dim",
    "bold",
    "rule",
    "bar",
    "bar-dim",
    "bar-good",
    "bar-bad",
    "selected",
    "key",
    "good",
    "warn",
    "bad",
    "dopamine",
    "cortisol",
    "acetylcholine",
    "tempo",
    "surprise",
    "spikes",
    "measure",
]


class Piece(NamedTuple):
    """Some text in one style."""

    text: str
    style: Style = "plain"


Line = tuple[Piece, ...]

BLANK: Line = ()


def width(line: Line) -> int:
    """Columns that a line takes."""
    return sum(width_of(piece.text) for piece in line)


def clipped(line: Line, columns: int, style: Style = "plain") -> Line:
    """The line, cut or filled up to so many columns."""
    kept: list[Piece] = []
    left = columns
    for piece in line:
        if left <= 0:
            break
        size = width_of(piece.text)
        kept.append(piece if size <= left else piece._replace(text=fitted(piece.text, left)))
        left -= min(size, left)
    return (*kept, Piece(" " * left, style)) if left > 0 else tuple(kept)


def apart(left: Line, right: Line, columns: int, style: Style = "plain") -> Line:
    """One at each end; where both have no room, the right one stays whole as far as it goes."""
    kept = clipped(right, min(width(right), columns), style)
    return (*clipped(left, columns - width(kept), style), *kept)


def beside(left: Line, right: Line, columns: int, gap: int = 2) -> Line:
    """Two columns of equal width."""
    half = (columns - gap) // 2
    return (*clipped(left, half), Piece(" " * gap), *clipped(right, columns - gap - half))


def heading(title: str, glyphs: Glyphs, columns: int, value: Line = (), note: str = "") -> Line:
    """A title, what it says, a rule, and a note at its end."""
    begin: Line = (Piece(title, "bold"), *((Piece(" "), *value) if value else ()), Piece(" "))
    end: Line = (Piece(f" {note}", "dim"),) if note else ()
    rule = max(columns - width(begin) - width(end), 0)
    return clipped((*begin, Piece(glyphs.rule * rule, "rule"), *end), columns)
