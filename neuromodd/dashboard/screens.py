"""What is on the screen: the bar above, the table or one node or the help, and the keys below."""

from __future__ import annotations

from typing import Literal

from neuromodd.dashboard import overview
from neuromodd.dashboard.closeup import CloseUp
from neuromodd.dashboard.glyphs import Glyphs, age, fitted, wrapped
from neuromodd.dashboard.lines import BLANK, Line, Piece, apart, clipped
from neuromodd.dashboard.listener import Connection
from neuromodd.dashboard.watch import Node, Watch

MARGIN = 1
NOTE_LINES = 2
WAIT_S = 3.0
"""After so long without a word a node is said to be silent."""

HELP = """\
q, Ctrl-C   quit
?           this help, and back
a, Escape   the table of all nodes on the broker
Enter       look at the selected node
arrows      select a node, or scroll what has no room; also PgUp and PgDn

dopamine    reward for work, 0 to 1         cortisol   stress, 0 to 1
acetylch.   focus, 0 to 1                   tempo      pace, 0 to 2
surprise    how rare a moment is there: 0.3 is one in a thousand, 0.5 one in
            100,000 (of older daemons: the prediction error)
ANOMALY     so rare that the node says what is strange, until it is calm
spikes      a column a tick, the higher the more; inputs first, then drives
sparklines  two minutes or some more, the newest on the right
in the bar  stress: cortisol above 0.5; reward: dopamine above 0.6;
            focus: acetylcholine above 0.7

stale       no state for three intervals and two seconds, by our clock
offline     the broker says that the daemon has left
silent      the broker knows nothing of such a node
Times of day are UTC, as the nodes say them. The weights are not on MQTT:
the page shows them (web.enabled).
"""

Key = Literal["help", "all", "enter", "back"]


class View:
    """What is looked at. Mutable.

    Args:
        watch: what is known of nodes.
        glyphs: to draw with.
        node: whose view to begin with; None for the table.
        given: whether somebody named it.

    Attributes:
        node: that is looked at; None in the table.
        of_all: whether all nodes are of interest.
        selected: the node that somebody moved the mark to, in the table.
    """

    def __init__(self, watch: Watch, glyphs: Glyphs, *, node: str | None, given: bool) -> None:
        self.watch = watch
        self.glyphs = glyphs
        self.node = node
        self.of_all = node is None
        self.selected: str | None = None
        self._given = given
        self._help = False
        self._scrolled = 0
        self._overflow = 0
        self._since_s: float | None = None

    def press(self, key: str, now_s: float) -> None:
        """Do what a key asks for."""
        if key == "help" or self._help:
            self._help = not self._help
        elif key == "enter" and self.node is None:
            self._look_at(self._selection(now_s), now_s)
        elif key in ("all", "back") and self.node is not None:
            self.selected = self.node
            self._look_at(None, now_s)

    def move(self, by: int, now_s: float) -> None:
        """Move the selection, or scroll what has no room."""
        if self.node is not None or self._help:
            self._scrolled = min(max(self._scrolled + by, 0), self._overflow)
            return
        names = [node.name for node in self.watch.sorted(now_s)]
        if names:
            at = names.index(self._selection(now_s) or names[0])
            self.selected = names[min(max(at + by, 0), len(names) - 1)]

    def lines(self, connection: Connection, now_s: float, columns: int, rows: int) -> list[Line]:
        """The screen."""
        if self._since_s is None or not connection.connected:
            self._since_s = now_s
        room = columns - MARGIN
        told = [part for note in self._notes(connection, now_s) for part in wrapped(note, room, room)]
        notes = [clipped((Piece(" " * MARGIN), Piece(line, "bad")), columns) for line in told[:NOTE_LINES]]
        left = max(rows - 2 - len(notes), 0)
        inner = max(columns - 2 * MARGIN, 1)
        body = [(Piece(" " * MARGIN), *line) for line in self._body(now_s, inner, left)]
        self._overflow = max(len(body) - left, 0)
        self._scrolled = min(self._scrolled, self._overflow)
        shown = body[self._scrolled : self._scrolled + left]
        shown += [BLANK] * (left - len(shown))
        return [self._bar(connection, now_s, columns), *notes, *shown, self._keys(columns)][:rows]

    def _look_at(self, node: str | None, now_s: float) -> None:
        self.node = node
        self.of_all = self.of_all or node is None
        self._given = True
        self._scrolled = 0
        self._since_s = now_s

    def _selection(self, now_s: float) -> str | None:
        """The node with the mark: until somebody moves it, the most stressed, whoever that is."""
        if self.selected in self.watch.nodes:
            return self.selected
        first = next(iter(self.watch.sorted(now_s)), None)
        return None if first is None else first.name

    def _body(self, now_s: float, columns: int, rows: int) -> list[Line]:
        if self._help:
            return [(Piece(fitted(line, columns)),) for line in HELP.splitlines()]
        if self.node is not None:
            found = self.watch.nodes.get(self.node) or Node(self.node, now_s)
            return CloseUp(found, self.glyphs, now_s, columns).lines(rows)
        return self._table(now_s, columns, rows)

    def _table(self, now_s: float, columns: int, rows: int) -> list[Line]:
        nodes = self.watch.sorted(now_s)
        if not nodes:
            return [overview.head(columns), (Piece("no node has said anything yet", "dim"),)]
        selected = self._selection(now_s)
        lines = overview.table(nodes, selected, now_s, columns=columns, rows=rows - 2)
        chosen = self.watch.nodes[selected] if selected is not None else nodes[0]
        lines += [BLANK] * (rows - 1 - len(lines))
        return [*lines, clipped((Piece(f"{chosen.name}: "), *overview.ails(chosen)), columns)]

    def _notes(self, connection: Connection, now_s: float) -> list[str]:
        if connection.error:
            again = "" if connection.connected else "; trying again"
            return [f"{connection.error}{again}"]
        if self.node is None or self._help or not connection.connected:
            return []
        node = self.watch.nodes.get(self.node)
        standing = "silent" if node is None else node.standing(now_s)
        if standing == "silent" and now_s - (self._since_s or 0.0) > WAIT_S:
            others = len(self.watch.nodes) - (node is not None)
            which = "" if self._given else " (this host)"
            there = f"; {others} other{'s are' if others != 1 else ' is'} there: press a" if others else ""
            return [f"nothing is heard of node {self.node}{which}{there}"]
        if node is not None and standing in ("stale", "offline"):
            return [f"{standing}: {_silence(node, now_s)}"]
        return []

    def _bar(self, connection: Connection, now_s: float, columns: int) -> Line:
        state = "connected" if connection.connected else "not connected"
        right: Line = (
            Piece(f"{connection.broker} ", "bar-dim"),
            Piece(f"{state} ", "bar-good" if connection.connected else "bar-bad"),
        )
        return apart((Piece(" neuromodd top  ", "bar-dim"), *self._title(now_s)), right, columns, "bar-dim")

    def _title(self, now_s: float) -> Line:
        if self._help:
            return (Piece("help", "bar"),)
        if self.node is None:
            nodes = list(self.watch.nodes.values())
            alive = sum(node.standing(now_s) == "online" for node in nodes)
            more = f", {self.watch.ignored} messages of more" if self.watch.ignored else ""
            return (Piece(f"{len(nodes)} nodes", "bar"), Piece(f"  {alive} online{more}", "bar-dim"))
        node = self.watch.nodes.get(self.node)
        if node is None:
            return (Piece(self.node, "bar"), Piece("  silent", "bar-dim"))
        standing = node.standing(now_s)
        flags = f"  {' '.join(node.flags)}" if node.flags and standing == "online" else ""
        up = node.condition.up_s(now_s) if node.condition and standing == "online" else None
        flags = f"{flags}  up {age(up)}" if up is not None else flags
        state: Line = (Piece(f"  {standing}", "bar-good" if standing == "online" else "bar-bad"),)
        return (Piece(node.name, "bar"), *state, Piece(flags, "bar-dim"))

    def _keys(self, columns: int) -> Line:
        keys = [("q", "quit"), ("?", "help")]
        if self._help:
            keys = [("q", "quit"), ("?", "back")]
        elif self.node is None:
            keys += [("Enter", "look at it"), ("arrows", "select")]
        else:
            keys += [("a", "all nodes")] + ([("arrows", "scroll")] if self._overflow else [])
        pieces: list[Piece] = [Piece(" ", "bar-dim")]
        for key, what in keys:
            pieces += [Piece(key, "key"), Piece(f" {what}   ", "bar-dim")]
        return clipped(tuple(pieces), columns, "bar-dim")


def _silence(node: Node, now_s: float) -> str:
    if node.state_s is not None:
        return f"no state for {age(now_s - node.state_s)}; what is shown is older"
    if node.states:
        return "no state has come yet; what is shown was kept by the broker"
    # An ACL may let us read the status alone, and a broker says nothing of that.
    return "no state has come yet; does the broker let us read it?"
