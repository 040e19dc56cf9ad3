"""All nodes, drawn: a table with the most stressed first."""

from __future__ import annotations

from collections.abc import Sequence

from neuromodd.dashboard.glyphs import age, fitted
from neuromodd.dashboard.happenings import WELL
from neuromodd.dashboard.lines import Line, Piece, Style, clipped
from neuromodd.dashboard.watch import Node

STANDINGS: dict[str, Style] = {"online": "good", "stale": "warn", "offline": "bad", "silent": "dim"}
NAME_LEAST = 12
NAME_MOST = 32
FIXED = 2 + 8 + 4 * 7 + 7 + 6 + 2
"""Columns of all but the name, and what is wrong."""

FRESH_S = 2.0


def head(columns: int) -> Line:
    """The titles of the columns."""
    titles = "".join(f"{title:>7}" for title in ("stress", "dopam", "acetyl", "tempo", "surpr"))
    text = f"  {'node':<{_name_width(columns)}}{'status':<8}{titles}{'age':>6}  what is wrong"
    return clipped((Piece(text, "bold"),), columns)


def row(node: Node, now_s: float, columns: int, *, selected: bool) -> Line:
    """One node; that of the selection also has a mark."""
    standing = node.standing(now_s)
    dim: Style | None = None if standing == "online" else "dim"
    name = _name_width(columns)
    wrong = ails(node)
    pieces: Line = (
        Piece("> " if selected else "  ", "bold"),
        Piece(fitted(node.name, name - 1) + " ", dim or "bold"),
        Piece(f"{standing:<8}", STANDINGS[standing]),
        _level(node, "cortisol", dim or "cortisol"),
        _level(node, "dopamine", dim or "dopamine"),
        _level(node, "acetylcholine", dim or "acetylcholine"),
        _level(node, "tempo", dim or "tempo"),
        Piece("      -" if node.surprise is None else f"{node.surprise:>7.3f}", dim or "surprise"),
        Piece(f"{_age(node, now_s):>6}  ", dim or "plain"),
        *(wrong if dim is None else tuple(piece._replace(style=dim) for piece in wrong)),
    )
    line = clipped(pieces, columns)
    return tuple(piece._replace(style="selected") for piece in line) if selected else line


def ails(node: Node) -> Line:
    """The anomaly and the fault that hold, and what fails; that all is well only where nothing is wrong."""
    code = node.fault.code if node.fault else ""
    failing = node.condition.failing if node.condition else ()
    pieces: list[Piece] = []
    if node.anomalous:
        what = ", ".join(node.anomaly.channels) if node.anomaly else ""
        pieces.append(Piece(f"ANOMALY{f' {what}' if what else ''}", "bad"))
    if code and (code != WELL or not (failing or pieces)):
        style: Style = "dim" if code == WELL else "warn" if code.startswith("WARN") else "bad"
        pieces.append(Piece(f"{', ' if pieces else ''}{code}", style))
    pieces += [Piece(f"{', ' if pieces else ''}{'; '.join(failing)}", "bad")] if failing else []
    return tuple(pieces) or (Piece("-", "dim"),)


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


def _name_width(columns: int) -> int:
    return min(max((columns - FIXED) // 2, NAME_LEAST), NAME_MOST)


def _level(node: Node, name: str, style: Style) -> Piece:
    value = node.levels.get(name)
    return Piece("      -" if value is None else f"{value:>7.2f}", style)


def _age(node: Node, now_s: float) -> str:
    if node.state_s is not None:
        since_s = now_s - node.state_s
        return "now" if since_s < FRESH_S else age(since_s)
    # Kept by the broker, it is older than what we know.
    return f">{age(now_s - node.first_s)}" if node.states else "-"
