"""`neuromodd top`: the terminal view; the only importer of textual, and of rich beneath it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from rich.console import Console
from rich.segment import Segment
from rich.style import Style as RichStyle
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from neuromodd.config import BrokerAddress, Settings
from neuromodd.dashboard.glyphs import ASCII, UNICODE, Glyphs
from neuromodd.dashboard.lines import Line, Piece, Style
from neuromodd.dashboard.listener import ANY, Connection, Listener
from neuromodd.dashboard.screens import View
from neuromodd.dashboard.watch import NAMES, Watch
from neuromodd.mqtt import Incoming

REDRAW_S = 0.25
"""However fast messages come."""

BACKGROUND = "#10141b"

COLOURS: dict[Style, str] = {
    "plain": "#c3ccd6",
    "dim": "#7f8a97",
    "bold": "bold #e6ebf1",
    "rule": "#343d49",
    "bar": "bold #e6ebf1 on #1d2530",
    "bar-dim": "#93a0ae on #1d2530",
    "bar-good": "#7fd6a2 on #1d2530",
    "bar-bad": "bold #ff8f80 on #1d2530",
    "selected": "bold #ffffff on #2b4a6b",
    "key": "bold #8fb8ff on #1d2530",
    "good": "#7fd6a2",
    "warn": "#e8c06a",
    "bad": "bold #ff8f80",
    "dopamine": "#e5b95f",
    "cortisol": "#ef7d6d",
    "acetylcholine": "#65b8e8",
    "tempo": "#b69cf2",
    "surprise": "#6fcfb4",
    "spikes": "#dfe6ee",
    "measure": "#7aa0c4",
}
"""Where there are 256 colours or more."""

SIXTEEN: dict[Style, str] = {
    "plain": "",
    "dim": "dim",
    "bold": "bold",
    "rule": "dim",
    "bar": "bold reverse",
    "bar-dim": "reverse",
    "bar-good": "reverse",
    "bar-bad": "bold reverse",
    "selected": "reverse",
    "key": "bold reverse",
    "good": "green",
    "warn": "yellow",
    "bad": "bold red",
    "dopamine": "yellow",
    "cortisol": "red",
    "acetylcholine": "cyan",
    "tempo": "magenta",
    "surprise": "green",
    "spikes": "bold",
    "measure": "blue",
}
"""Where there are 16, on whatever ground the terminal has; without the colours, where there are none."""


class Canvas(Widget):
    """Lines that are drawn again one by one, where they have changed."""

    def __init__(self, styles: Mapping[Style, RichStyle], *, plain: bool) -> None:
        super().__init__()
        self._palette = styles
        self._only_ascii = plain
        self._lines: list[Line] = []

    def show(self, lines: Sequence[Line]) -> None:
        """Have these lines shown."""
        before, self._lines = self._lines, list(lines)
        for y in range(max(len(before), len(lines))):
            if self._at(before, y) != self._at(self._lines, y):
                self.refresh(Region(0, y, self.size.width, 1))

    def render_line(self, y: int) -> Strip:
        """One of them, as wide as the screen."""
        segments = [self._segment(piece) for piece in self._at(self._lines, y)]
        return Strip(segments).adjust_cell_length(self.size.width, self._palette["plain"])

    def _segment(self, piece: Piece) -> Segment:
        text = piece.text
        if self._only_ascii:
            text = text.encode("ascii", "replace").decode("ascii")
        return Segment(text, self._palette[piece.style])

    @staticmethod
    def _at(lines: Sequence[Line], y: int) -> Line:
        return lines[y] if y < len(lines) else ()


class Top(App[None]):
    """The view in a terminal.

    Args:
        view: what is looked at.
        connection: how the connection is.
        clock: monotonic seconds.
        want: is told whose topics to listen to.
    """

    ENABLE_COMMAND_PALETTE = False
    CSS = f"""
    Screen {{ background: {BACKGROUND}; }}
    Screen:ansi {{ background: ansi_default; }}
    Canvas {{ width: 100%; height: 100%; background: transparent; }}
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,ctrl+c,ctrl+q", "quit", show=False, priority=True),
        Binding("question_mark,h", "view('help')", show=False),
        Binding("a", "view('all')", show=False),
        Binding("enter", "view('enter')", show=False),
        Binding("escape", "view('back')", show=False),
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "move(-10)", show=False),
        Binding("pagedown", "move(10)", show=False),
        Binding("home", "move(-100000)", show=False),
        Binding("end", "move(100000)", show=False),
    ]

    def __init__(
        self,
        view: View,
        connection: Callable[[], Connection],
        clock: Callable[[], float],
        want: Callable[[str, Sequence[str]], None],
    ) -> None:
        many = "NO_COLOR" not in os.environ and _colours() in ("256", "truecolor")
        super().__init__(ansi_color=not many)
        self._view = view
        self._connection = connection
        self._clock = clock
        self._want = want
        ground = RichStyle.parse(f"on {BACKGROUND}" if many else "")
        palette = {name: ground + RichStyle.parse(of) for name, of in (COLOURS if many else SIXTEEN).items()}
        self._canvas = Canvas(palette, plain=view.glyphs.plain)

    def compose(self) -> ComposeResult:
        """The canvas, and nothing else."""
        yield self._canvas

    def on_mount(self) -> None:
        """Draw now, and then at its pace."""
        self.set_interval(REDRAW_S, self.redraw)
        self.call_after_refresh(self.redraw)
        self._listen()

    def on_resize(self) -> None:
        """Draw for the new size."""
        self.call_after_refresh(self.redraw)

    def redraw(self) -> None:
        """Show what is new."""
        width, height = self.size
        if width > 0 and height > 0:
            self._canvas.show(self._view.lines(self._connection(), self._clock(), width, height))

    def action_view(self, key: str) -> None:
        """Look at something else."""
        self._view.press(key, self._clock())
        self._listen()
        self.redraw()

    def action_move(self, by: int) -> None:
        """Move the selection, or scroll."""
        self._view.move(by, self._clock())
        self.redraw()

    def _listen(self) -> None:
        # Who else is there is always of interest: a node that is silent may just have another name.
        self._want(ANY, NAMES if self._view.of_all else ("status",))
        if self._view.node is not None:
            self._want(self._view.node, (*NAMES, "telemetry", "spikes"))


async def look(
    settings: Settings,
    broker: BrokerAddress,
    password: str | None,
    *,
    node: str,
    of_all: bool,
    given: bool,
    plain: bool,
) -> None:
    """Show nodes of a broker in this terminal until somebody has seen enough.

    Args:
        settings: all of them.
        broker: where to listen.
        password: for it.
        node: whose view to begin with.
        of_all: whether to begin with the table instead.
        given: whether somebody named the node.
        plain: whether to draw with nothing but ASCII.
    """
    loop = asyncio.get_running_loop()
    watch = Watch(settings.mqtt.prefix)

    def hear(message: Incoming) -> None:
        watch.take(message.topic, message.payload, loop.time(), retained=message.retained)

    listener = Listener(settings, broker, password, hear)
    view = View(watch, _glyphs(plain), node=None if of_all else node, given=given)
    app = Top(view, lambda: listener.connection, loop.time, listener.want)
    listening = asyncio.create_task(listener.run(), name="top-listen")
    # A fault of ours ends the view too, so that the terminal is whole again when it is told.
    listening.add_done_callback(lambda _: app.exit())
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, app.exit)
    try:
        await app.run_async(mouse=False)
    finally:
        listening.cancel()
        await asyncio.wait((listening,))
    if not listening.cancelled():
        listening.result()


def _glyphs(plain: bool) -> Glyphs:  # noqa: FBT001 - one thing to say
    return ASCII if plain else UNICODE


def _colours() -> str | None:
    return Console(force_terminal=True).color_system
