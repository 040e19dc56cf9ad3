"""All nodes, drawn: a table with the most stressed first."""

from __future__ import annotations

from collections.abc import Sequence

from neuromodd.dashboard.glyphs import age, fitted
from neuromodd.dashboard.lines import Line, Piece, Style, clipped
from neuromodd.dashboard.watch import Node

STANDINGS: dict[str, Style] = {"online": "good", "stale": "warn", "offline": "bad", "silent": "dim"}
NAME_LEAST = 12
NAME_MOST = 32
CODE = 16
FIXED = 2 + 8 + 7 * 4 + 7 + 8
"""Columns of all but the name, the code and what fails."""


def head(columns: int) -> Line:
    """The titles of the columns."""
    name, code, fails = _widths(columns)
    titles = "".join(f"{title:>7}" for title in ("stress", "dopam", "acetyl", "tempo", "surpr"))
    text = f"  {'node':<{name}}{'status':<8}{titles}{'age':>7}  {'fault':<{code}}{'fails' if fails else ''}"
    return clipped((Piece(text, "bold"),), columns)


def row(node: Node, now_s: float, columns: int, *, selected: bool) -> Line:
    """One node; that of the selection also has a mark."""
    name, code, fails = _widths(columns)
    standing = node.standing(now_s)
    dim: Style | None = None if standing == "online" else "dim"
    fault = node.fault.code if node.fault else "-"
    failing = node.condition.failing if node.condition else ()
    calm = fault in ("STATUS_OK", "-")
    pieces: Line = (
        Piece("> " if selected else "  ", "bold"),
        Piece(fitted(node.name, name - 1) + " ", "bold" if dim is None else "dim"),
        Piece(f"{standing:<8}", STANDINGS[standing]),
        _level(node, "cortisol", dim or "cortisol"),
        _level(node, "dopamine", dim or "dopamine"),
        _level(node, "acetylcholine", dim or "acetylcholine"),
        _level(node, "tempo", dim or "tempo"),
        Piece("      -" if node.surprise is None else f"{node.surprise:>7.3f}", dim or "surprise"),
        Piece(f"{_age(node, now_s):>7}  ", dim or "plain"),
        Piece(
            fitted(fault, code - 1) + " ", dim or ("dim" if calm else "warn" if "WARN" in fault else "bad")
        ),
        Piece(fitted("; ".join(failing), fails) if failing else "", dim or "bad"),
    )
    line = clipped(pieces, columns)
    return tuple(piece._replace(style="selected") for piece in line) if selected else line


def table(
    nodes: Sequence[Node], selected: str | None, now_s: float, *, columns: int, rows: int
) -> list[Line]:
    """The table, scrolled so that the selection is seen."""
    names = [node.name for node in nodes]
    at = names.index(selected) if selected in names else 0
    room = max(rows - 1, 1)
    first = min(max(at - room // 2, 0), max(len(nodes) - room, 0))
    shown = nodes[first : first + room]
    return [
        head(columns),
        *(row(node, now_s, columns, selected=node.name == selected) for node in shown),
    ]


def _widths(columns: int) -> tuple[int, int, int]:
    """Columns of the name, of the fault's code, and of what fails."""
    left = columns - FIXED
    name = min(
        max(left - CODE - 1, NAME_LEAST), NAME_LEAST + max(left - CODE - NAME_LEAST, 0) // 3, NAME_MOST
    )
    code = min(max(left - name, 0), CODE + 1)
    return name, max(code, 1), max(left - name - code, 0)


def _level(node: Node, name: str, style: Style) -> Piece:
    value = node.levels.get(name)
    return Piece("      -" if value is None else f"{value:>7.2f}", style)


def _age(node: Node, now_s: float) -> str:
    if node.state_s is not None:
        return age(now_s - node.state_s)
    # Kept by the broker, it is older than what we know.
    return f">{age(now_s - node.first_s)}" if node.states else "-"
