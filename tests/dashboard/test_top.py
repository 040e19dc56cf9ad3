"""The terminal view: driven by Textual's pilot, and once as a real process in a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from harness import Daemon, Listener, Mosquitto, wait_for
from textual.pilot import Pilot

from neuromodd.core.messages import fault_event, state_message, telemetry_event
from neuromodd.dashboard.glyphs import ASCII, UNICODE, Glyphs
from neuromodd.dashboard.listener import Connection
from neuromodd.dashboard.screens import View
from neuromodd.dashboard.top import Top
from neuromodd.dashboard.watch import Watch

StartDaemon = Callable[..., Daemon]


class Scene:
    """A view of what is heard here, without a broker."""

    def __init__(self, *, node: str | None = None, given: bool = True, glyphs: Glyphs = UNICODE) -> None:
        self.now_s = 100.0
        self.watch = Watch("neuromodd")
        self.connection = Connection("127.0.0.1:1883", connected=True, error="")
        self.wanted: dict[str, set[str]] = {}
        self.view = View(self.watch, glyphs, node=node, given=given)
        self.app = Top(self.view, lambda: self.connection, lambda: self.now_s, self._want)

    def _want(self, node: str, names: Sequence[str]) -> None:
        self.wanted.setdefault(node, set()).update(names)

    def hear(self, topic: str, payload: bytes | dict[str, Any]) -> None:
        data = json.dumps(payload).encode() if isinstance(payload, dict) else payload
        self.watch.take(f"neuromodd/{topic}", data, self.now_s, retained=False)

    def stress(self, **levels: float) -> None:
        """A state of each node, with its cortisol."""
        self.now_s += 1.0
        for node, cortisol in levels.items():
            self.hear(f"{node}/status", b"online")
            values = {"dopamine": 0.3, "cortisol": cortisol, "acetylcholine": 1.0, "tempo": 1.0}
            self.hear(f"{node}/state", {"sequence": self.now_s, "modulators": values})

    @asynccontextmanager
    async def shown(self, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Pilot[None]]:
        async with self.app.run_test(size=size) as pilot:
            await pilot.pause()
            yield pilot

    async def rows(self, pilot: Pilot[None]) -> list[str]:
        """What is on the screen, after what was heard is drawn."""
        self.app.redraw()
        await pilot.pause()
        canvas = self.app._canvas
        return [canvas.render_line(y).text for y in range(self.app.size.height)]


async def test_the_table_has_the_most_stressed_first_and_follows_them() -> None:
    scene = Scene()
    scene.stress(a=0.1, b=0.5)
    async with scene.shown() as pilot:
        assert " b " in (await scene.rows(pilot))[2]
        scene.stress(a=0.9, b=0.5)
        assert " a " in (await scene.rows(pilot))[2]


async def test_the_selection_stays_on_its_node_when_the_order_changes() -> None:
    scene = Scene()
    scene.stress(a=0.1, b=0.5, c=0.3)
    async with scene.shown() as pilot:
        await pilot.press("down")
        assert scene.view.selected == "c"
        scene.stress(a=0.1, b=0.5, c=0.9)
        rows = await scene.rows(pilot)
        assert scene.view.selected == "c"
        assert rows[2].startswith(" > c ")


async def test_until_it_is_moved_the_mark_is_on_the_most_stressed() -> None:
    scene = Scene()
    scene.stress(a=0.1, b=0.5)
    async with scene.shown() as pilot:
        assert (await scene.rows(pilot))[2].startswith(" > b ")
        scene.stress(a=0.9, b=0.5)
        assert (await scene.rows(pilot))[2].startswith(" > a ")


async def test_the_table_scrolls_with_the_selection() -> None:
    scene = Scene()
    scene.stress(**{f"n{number:02}": 0.0 for number in range(40)})
    async with scene.shown() as pilot:
        await pilot.press("end")
        rows = await scene.rows(pilot)
        assert any(row.startswith(" > n39 ") for row in rows)
        await pilot.press("home")
        assert (await scene.rows(pilot))[2].startswith(" > n00 ")


async def test_enter_opens_the_selected_node_and_escape_goes_back_to_it() -> None:
    scene = Scene()
    scene.stress(a=0.1, b=0.5)
    async with scene.shown() as pilot:
        await pilot.press("down", "enter")
        assert scene.view.node == "a"
        assert {"telemetry", "spikes"} <= scene.wanted["a"]
        assert (await scene.rows(pilot))[0].startswith(" neuromodd top  a  online")
        await pilot.press("escape")
        assert (await scene.rows(pilot))[3].startswith(" > a ")


async def test_one_node_shows_everything_in_80_columns_and_24_rows(
    live: Any, everything: dict[str, Any]
) -> None:
    scene = Scene(node="lab")
    life = live()
    for _ in range(3):
        tick = life.tick(**everything)
        scene.hear("lab/state", state_message(tick).payload)
        scene.hear("lab/telemetry", telemetry_event(tick.frame).encoded(replayed=False))
    scene.hear("lab/fault", fault_event("lab", tick.fault).encoded(replayed=False))
    scene.hear("lab/reward", {"id": "1", "kind": "WorkAccepted", "units": 2.0})
    scene.hear("lab/health", {"checkpoint": {"age_s": 4.0, "written": 2}, "mqtt": {"protocol": "5"}})
    async with scene.shown() as pilot:
        rows = await scene.rows(pilot)
    text = "\n".join(rows)
    for word in ("dopamine", "cortisol", "acetylcholine", "tempo", "surprise", "13 neurons", "timing drive"):
        assert word in text
    for word in (
        "gpu 0 use",
        " 75 %",
        "WorkAccepted",
        "MQTT 5",
        "4 s ago",
        "sensors",
        tick.fault.fault_class.code,
    ):
        assert word in text
    assert "scroll" not in text
    assert {len(row) for row in rows} == {80}


async def test_a_node_that_falls_silent_is_called_stale() -> None:
    scene = Scene(node="lab")
    scene.stress(lab=0.2)
    async with scene.shown() as pilot:
        assert "online" in (await scene.rows(pilot))[0]
        scene.now_s += 60.0
        rows = await scene.rows(pilot)
        assert "stale" in rows[0]
        assert "no state for 60 s" in rows[1]


async def test_where_only_the_status_is_heard_it_is_asked_whether_we_may_read_more() -> None:
    scene = Scene(node="lab")
    scene.hear("lab/status", b"online")
    async with scene.shown() as pilot:
        scene.now_s += 6.0
        assert "does the broker let us read it?" in (await scene.rows(pilot))[1]


async def test_offline_and_stale_are_words_in_the_table() -> None:
    scene = Scene()
    scene.stress(a=0.1, b=0.2)
    scene.now_s += 30.0
    scene.stress(c=0.3)
    scene.hear("b/status", b"offline")
    async with scene.shown() as pilot:
        text = "\n".join(await scene.rows(pilot))
    assert re.search(r"a +stale", text)
    assert re.search(r"b +offline", text)
    assert re.search(r"c +online", text)


async def test_a_lost_connection_is_told_with_its_reason() -> None:
    scene = Scene(node="lab")
    scene.connection = Connection("127.0.0.1:1883", connected=False, error="connection refused")
    async with scene.shown() as pilot:
        rows = await scene.rows(pilot)
    assert rows[0].rstrip().endswith("not connected")
    assert "connection refused; trying again" in rows[1]


async def test_where_our_own_node_is_silent_the_table_is_offered() -> None:
    scene = Scene(node="here", given=False)
    scene.stress(other=0.2)
    async with scene.shown() as pilot:
        await scene.rows(pilot)
        scene.now_s += 5.0
        rows = await scene.rows(pilot)
        assert "nothing is heard of node here (this host); 1 other is there: press a" in rows[1]
        await pilot.press("a")
        assert " other " in (await scene.rows(pilot))[2]
        assert "state" in scene.wanted["+"]


async def test_what_fails_is_told_of_the_selected_node() -> None:
    scene = Scene()
    scene.stress(a=0.1)
    scene.hear("a/health", {"sensors": {"nvml": {"state": "failed", "error": "driver lost"}}})
    async with scene.shown() as pilot:
        rows = await scene.rows(pilot)
    assert "sensor nvml failed: driver lost" in rows[-2]


async def test_foreign_texts_are_neither_obeyed_nor_taken_for_markup() -> None:
    scene = Scene(node="lab")
    scene.stress(lab=0.1)
    text = "\x1b[2J\u202e[bold red]x[/]\x9b31m[@click=app.quit]"
    scene.hear("lab/reward", {"id": "1", "kind": "SourceSwitch", "current": text})
    async with scene.shown((120, 24)) as pilot:
        drawn = "\n".join(await scene.rows(pilot))
    assert "current ?[2J?[bold red]x[/]?31m[@click=app.quit]" in drawn
    assert "\x1b" not in drawn


@pytest.mark.parametrize("size", [(40, 10), (79, 23), (10, 3), (1, 1)])
async def test_a_small_terminal_is_filled_and_never_overflowed(size: tuple[int, int]) -> None:
    scene = Scene(node="lab")
    scene.stress(lab=0.1)
    async with scene.shown(size) as pilot:
        rows = await scene.rows(pilot)
        assert [len(row) for row in rows] == [size[0]] * size[1]
        await pilot.press("down", "end", "a")
        assert len(await scene.rows(pilot)) == size[1]


async def test_what_has_no_room_can_be_scrolled_to() -> None:
    scene = Scene(node="lab")
    scene.stress(lab=0.1)
    async with scene.shown((60, 12)) as pilot:
        assert "faults, rewards, anomalies" not in "\n".join(await scene.rows(pilot))
        await pilot.press("end")
        assert "faults, rewards, anomalies" in "\n".join(await scene.rows(pilot))


async def test_without_unicode_nothing_but_ascii_is_drawn() -> None:
    scene = Scene(node="lab", glyphs=ASCII)
    scene.stress(lab=0.1)
    scene.hear("lab/reward", {"id": "1", "kind": "SourceSwitch", "current": "Küche 電源"})
    async with scene.shown() as pilot:
        assert "\n".join(await scene.rows(pilot)).isascii()


async def test_only_the_lines_that_changed_are_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    scene.stress(a=0.1, b=0.5)
    async with scene.shown() as pilot:
        await scene.rows(pilot)
        drawn: list[int] = []
        canvas = scene.app._canvas
        monkeypatch.setattr(canvas, "refresh", lambda region: drawn.append(region.y))
        scene.app.redraw()
        assert drawn == []
        scene.stress(a=0.2, b=0.5)
        scene.app.redraw()
        assert drawn == [3]


STRANGE = {
    "id": "1",
    "phase": "begin",
    "time_utc": "2024-05-01T12:34:56Z",
    "since_utc": "2024-05-01T12:34:50Z",
    "duration_s": 6.0,
    "surprise": 0.64,
    "channels": [{"name": "cpu", "observed": 0.97}, {"name": "disk.busy_ratio"}],
    "sentence": "cpu is 97 %, where 5 to 20 % was expected",
    "replayed": False,
}


def strange(*, anomaly: bool, names: Sequence[str] = ("cpu", "disk.busy_ratio", "gpu")) -> dict[str, Any]:
    """A state with surprises."""
    values = {name: None if name == "gpu" else 0.05 for name in names}
    levels = {"dopamine": 0.3, "cortisol": 0.1, "acetylcholine": 1.0, "tempo": 1.0}
    return {
        "sequence": time.monotonic_ns(),
        "modulators": levels,
        "flags": {"stress": False, "reward": False, "focus": True, "anomaly": anomaly},
        "surprise": {"total": 0.64 if anomaly else 0.06, "probability": 0.1, "channels": values},
    }


async def test_an_anomaly_is_told_above_all_while_it_holds_and_listed_for_ever() -> None:
    scene = Scene(node="lab")
    scene.hear("lab/status", b"online")
    scene.hear("lab/state", strange(anomaly=True))
    scene.hear("lab/anomaly", STRANGE)
    async with scene.shown() as pilot:
        rows = await scene.rows(pilot)
        assert "lab  online  anomaly focus" in rows[0]
        assert "ANOMALY since 12:34:50 UTC: cpu is 97 %, where 5 to 20 % was expected" in rows[1]
        text = "\n".join(rows)
        assert "surprise 0.640, 1 in 2.5 million" in text
        assert re.search(r"12:34:56  anomaly ANOMALY +cpu is 97 %", text)
        scene.hear("lab/state", strange(anomaly=False))
        scene.hear("lab/anomaly", {**STRANGE, "id": "2", "phase": "end", "duration_s": 42.0})
        rows = await scene.rows(pilot)
    assert "ANOMALY" not in rows[1]
    assert re.search(r"anomaly calm again +over after 42 s; cpu is 97 %", "\n".join(rows))


async def test_the_channels_of_surprise_are_those_that_the_node_watches() -> None:
    scene = Scene(node="lab")
    for _ in range(3):
        scene.hear("lab/state", strange(anomaly=False))
    async with scene.shown() as pilot:
        text = "\n".join(await scene.rows(pilot))
        assert re.search(r" cpu +0.050 ", text)
        assert re.search(r" disk.busy_rat~ *0.050 ", text)
        assert "nothing of gpu" in text
        many = [f"disk.number_{number}" for number in range(30)]
        scene.hear("lab/state", strange(anomaly=False, names=many))
        rows = await scene.rows(pilot)
    assert any("more" in row for row in rows)
    assert {len(row) for row in rows} == {80}


async def test_an_anomaly_whose_begin_nobody_heard_is_told_as_far_as_it_is_known() -> None:
    scene = Scene(node="lab")
    scene.hear("lab/state", strange(anomaly=True))
    async with scene.shown() as pilot:
        assert "ANOMALY it began before this view did" in (await scene.rows(pilot))[1]


async def test_a_node_with_an_anomaly_has_it_in_the_table_with_its_channels() -> None:
    scene = Scene()
    scene.hear("lab/status", b"online")
    scene.hear("lab/state", strange(anomaly=True))
    scene.hear("lab/anomaly", STRANGE)
    async with scene.shown((120, 24)) as pilot:
        rows = await scene.rows(pilot)
    assert re.search(r"> lab .* 0\.640 .* ANOMALY cpu, disk\.busy_ratio", rows[2])


async def test_a_daemon_from_before_has_its_prediction_errors_shown_as_such() -> None:
    scene = Scene(node="lab")
    old = {key: value for key, value in strange(anomaly=False).items() if key != "flags"}
    scene.hear(
        "lab/state",
        {**old, "flags": {"stress": False}, "surprise": {"total": 0.02, "channels": {"cpu": 0.04}}},
    )
    async with scene.shown() as pilot:
        text = "\n".join(await scene.rows(pilot))
        assert "prediction error 0.020 " in text
        assert re.search(r" cpu +0.040 ", text)
        # One that has been renewed begins anew.
        scene.hear("lab/state", strange(anomaly=False))
        text = "\n".join(await scene.rows(pilot))
        await pilot.press("a")
    assert "surprise 0.060, usual " in text
    assert len(scene.watch.nodes["lab"].states) == 1


async def test_help_says_that_the_weights_are_elsewhere_and_closes_again() -> None:
    scene = Scene()
    async with scene.shown() as pilot:
        await pilot.press("question_mark")
        assert "weights are not on MQTT" in "\n".join(await scene.rows(pilot))
        await pilot.press("question_mark")
        assert "no node has said anything yet" in "\n".join(await scene.rows(pilot))


@pytest.mark.parametrize("key", ["ctrl+c", "q"])
async def test_it_ends_when_it_is_asked_to(key: str) -> None:
    scene = Scene()
    async with scene.shown() as pilot:
        await pilot.press(key)
        await pilot.pause()
        assert scene.app._exit


class Terminal:
    """A program in a terminal of 80 columns and 24 rows."""

    def __init__(self, arguments: Sequence[str], **environ: str) -> None:
        self.text = ""
        self._here, there = pty.openpty()
        fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(there)
        self._there = there
        clean = {key: value for key, value in os.environ.items() if not key.startswith("NEUROMODD_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "neuromodd", *arguments],
            stdin=there,
            stdout=there,
            stderr=there,
            env={**clean, "XDG_CONFIG_HOME": "/nonexistent", "TERM": "xterm-256color", **environ},
            start_new_session=True,
        )

    def read(self) -> str:
        while select.select([self._here], [], [], 0.0)[0]:
            self.text += os.read(self._here, 65_536).decode(errors="replace")
        return self.text

    def wait_text(self, pattern: str) -> None:
        wait_for(lambda: re.search(pattern, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.read())), pattern)

    def type(self, keys: str) -> None:
        os.write(self._here, keys.encode())

    def end(self) -> int:
        deadline_s = time.monotonic() + 20.0
        while self.process.poll() is None and time.monotonic() < deadline_s:
            # One that writes to a terminal that nobody reads would wait for ever.
            self.read()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.05)
        self.read()
        return self.process.wait(0.1)

    @property
    def restored(self) -> bool:
        return termios.tcgetattr(self._there) == self.before and "\x1b[?1049l" in self.text

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._here)
        os.close(self._there)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """Starts programs in terminals; all are ended."""
    started: list[Terminal] = []

    def start(*arguments: str, **environ: str) -> Terminal:
        started.append(Terminal(arguments, **environ))
        return started[-1]

    yield start
    for one in started:
        one.close()


def at(port: int) -> tuple[str, ...]:
    return ("--mqtt.host", "127.0.0.1", "--mqtt.port", str(port))


def test_a_real_daemon_is_seen_in_a_real_terminal_which_is_whole_afterwards(
    start_daemon: StartDaemon, mosquitto: Mosquitto, terminal: Callable[..., Terminal]
) -> None:
    start_daemon("--tick.interval_s", "0.2", port=mosquitto.port).wait_log("mqtt_connected")
    top = terminal("top", "--node", "lab", *at(mosquitto.port))
    top.wait_text(r"lab  online")
    top.wait_text(r"dopamine +0\.\d\d")
    top.wait_text(r"cpu use +\d+ %")
    top.type("a")
    top.wait_text(r"> lab +online")
    top.type("q")
    assert top.end() == 0
    assert top.restored


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_leaves_the_terminal_whole(
    mosquitto: Mosquitto, terminal: Callable[..., Terminal], number: signal.Signals
) -> None:
    top = terminal("top", "--all", *at(mosquitto.port))
    top.wait_text("connected")
    top.process.send_signal(number)
    assert top.end() == 0
    assert top.restored


def test_a_broker_that_comes_back_is_found_again(
    mosquitto: Mosquitto, terminal: Callable[..., Terminal], listen: Callable[..., Listener]
) -> None:
    top = terminal("top", "--all", *at(mosquitto.port))
    top.wait_text(r"\d connected")
    mosquitto.stop(signal.SIGKILL)
    top.wait_text("trying again")
    mosquitto.start()
    listener = listen(mosquitto.port)

    def seen() -> bool:
        listener.ask("neuromodd/back/status", b"online", retain=True)
        return "back" in top.read()

    wait_for(seen, "the node that came after the outage")
    top.type("\x03")
    assert top.end() == 0


def test_without_a_terminal_it_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "neuromodd", "top", "--all"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "it needs a terminal" in done.stderr
    assert done.stdout == ""


def test_one_node_and_all_of_them_exclude_each_other(terminal: Callable[..., Terminal]) -> None:
    top = terminal("top", "--all", "--node", "lab")
    assert top.end() == 2
    assert "--node or --all" in top.text


def test_without_the_extra_the_remedy_is_told(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as util\n"
        "real = util.find_spec\n"
        "util.find_spec = lambda name, *more: None if name == 'textual' else real(name, *more)\n"
    )
    top = terminal("top", "--all", PYTHONPATH=f"{tmp_path}:{Path.cwd()}")
    assert top.end() == 2
    assert "pip install 'neuromodd[tui]'" in top.text


def test_other_commands_do_not_import_it() -> None:
    code = (
        "import sys, neuromodd.cli, neuromodd.daemon, neuromodd.reporter, neuromodd.dashboard.screens\n"
        "sys.exit('textual' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def guarded(tmp_path: Path, start_mosquitto: Callable[..., Mosquitto]) -> tuple[Mosquitto, tuple[str, ...]]:
    """A broker with TLS and a user `eye`, and how that one connects but for the password."""
    authority = Authority(tmp_path)
    certificate = authority.issue("broker.pem", "127.0.0.1")
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "eye", "secret"], check=True, timeout=20)
    broker = start_mosquitto(
        [
            "allow_anonymous false",
            f"password_file {passwords}",
            f"certfile {certificate}",
            f"keyfile {certificate}",
        ]
    )
    return broker, (*at(broker.port), "--mqtt.username", "eye", "--mqtt.tls.ca_file", str(authority.file))


@pytest.mark.parametrize(
    ("password", "seen"), [("secret", r"\d connected"), ("wrong", "not connected.*refused the login of eye")]
)
def test_it_logs_in_over_tls_and_tells_a_refusal(
    guarded: tuple[Mosquitto, tuple[str, ...]],
    terminal: Callable[..., Terminal],
    tmp_path: Path,
    password: str,
    seen: str,
) -> None:
    (tmp_path / "password").write_text(f"{password}\n")
    top = terminal("top", "--all", *guarded[1], "--mqtt.password_file", str(tmp_path / "password"))
    top.wait_text(f"(?s){seen}")
    top.type("q")
    assert top.end() == 0
