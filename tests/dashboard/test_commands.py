"""`plot` and `report` as they are called: what they refuse before the work, and what they leave behind."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest
from recorded import START, frames, record

from neuromodd.cli import main
from neuromodd.core.brain import Brain, Tick
from neuromodd.replay import Replay
from neuromodd.sinks.checkpoint_file import write_checkpoint

PROJECT = Path(__file__).parents[2]


class Ended(NamedTuple):
    """What a command left behind."""

    status: object
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Runs a command line in this process."""

    def ended(*arguments: object) -> Ended:
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        return Ended(left.value.code, *capsys.readouterr())

    return ended


Run = Callable[..., Ended]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return record(tmp_path / "r.jsonl", frames(30))


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is to be replayed."""

    def replayed(*_: object) -> None:
        pytest.fail("the work had begun")

    monkeypatch.setattr(Replay, "run", replayed)


# As a process


@pytest.mark.parametrize("ending", ["html", "png", "svg"])
def test_a_picture_is_made_without_a_display(recording: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"out.{ending}"
    environ = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    done = subprocess.run(
        [sys.executable, "-m", "neuromodd", "plot", recording, "-o", out],
        cwd=PROJECT,
        env={**environ, "MPLBACKEND": "tkagg"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{out}: 30 frames, {out.stat().st_size} bytes\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, "r.jsonl"]


def test_a_report_needs_no_matplotlib(recording: Path) -> None:
    code = (
        "import sys; from neuromodd.cli import main\n"
        "sys.modules['matplotlib'] = None\n"
        f"main(['report', {str(recording)!r}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("neuromodd report: lab, 2024-05-01 12:00:00 to 12:00:29 UTC\n")


# What is refused before the work


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("out", ["a.pdf", "nowhere/a.png", "r.jsonl/a.png", "folder.png"])
def test_what_can_not_be_written_is_told_before_the_work(
    run: Run, recording: Path, tmp_path: Path, out: str
) -> None:
    (tmp_path / "folder.png").mkdir()
    ended = run("plot", recording, "-o", tmp_path / out)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("neuromodd: -o: got ")


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("link", [False, True])
def test_a_recording_is_not_drawn_over(run: Run, tmp_path: Path, link: bool) -> None:
    recording = record(tmp_path / "recording.svg", frames(3))
    before, out = recording.read_bytes(), recording
    if link:
        out = tmp_path / "link.svg"
        out.symlink_to(recording)
    ended = run("plot", recording, "-o", out)
    # A long path is shortened.
    assert ended.err.startswith("neuromodd: -o: got '/")
    assert ended.err.endswith(", expected a file that is not replayed\n")
    assert ended.status == 2
    assert recording.read_bytes() == before


@pytest.mark.usefixtures("unread")
def test_a_checkpoint_that_is_read_is_not_drawn_over(run: Run, recording: Path, tmp_path: Path) -> None:
    brain, path = Brain(), tmp_path / "c.svg"
    write_checkpoint(path, brain.state(), dimensions=brain.engine.config.dimensions, created_utc="")
    ended = run("plot", recording, "-o", path, "--checkpoint-in", path)
    assert ended.status == 2
    assert "another file than --checkpoint-in" in ended.err


@pytest.mark.usefixtures("unread")
def test_without_matplotlib_its_extra_is_named_before_the_work(
    run: Run, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    ended = run("plot", recording, "-o", tmp_path / "a.png")
    assert (ended.status, ended.err) == (
        2,
        "neuromodd: plot needs the extra `plot`: pip install 'neuromodd[plot]'\n",
    )


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("time", ["noon", "2024-13-01", "12:00"])
def test_a_wrong_time_is_told_in_plain_words(run: Run, recording: Path, time: str) -> None:
    ended = run("report", recording, "--from", time)
    assert ended.status == 2
    assert f"--from: got '{time}', expected a time like 2024-05-01T12:00" in ended.err


@pytest.mark.usefixtures("unread")
def test_an_end_before_the_beginning_is_refused(run: Run, recording: Path) -> None:
    ended = run("report", recording, "--from", "2024-05-02", "--to", "2024-05-01")
    assert ended.status == 2
    assert "--to: got '2024-05-01T00:00:00+00:00', expected a time after" in ended.err


@pytest.mark.parametrize("command", ["plot", "report"])
def test_a_recording_that_is_not_there_is_told(run: Run, tmp_path: Path, command: str) -> None:
    options = ("-o", tmp_path / "a.png") if command == "plot" else ()
    ended = run(command, tmp_path / "none.jsonl", *options)
    assert (ended.status, ended.err) == (1, f"neuromodd: {tmp_path}/none.jsonl: No such file or directory\n")


def test_an_old_picture_stays_if_there_is_no_new_one(run: Run, recording: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.svg"
    out.write_text("old")
    with recording.open("ab") as file:
        file.write(b"broken\n")
    assert run("plot", recording, "-o", out).status == 1
    assert out.read_text() == "old"


# What is asked for


def told(run: Run, *arguments: object) -> dict[str, object]:
    ended = run("report", "--json", *arguments)
    assert ended.status == 0
    found = json.loads(ended.out)
    assert isinstance(found, dict)
    return found


def test_a_part_can_be_asked_for(run: Run, recording: Path) -> None:
    found = told(run, recording, "--from", "2024-05-01T12:00:10", "--to", "2024-05-01T14:00:20+02:00")
    assert (found["frames"], found["step"]) == (11, 21 * 20)
    assert (found["from_utc"], found["to_utc"]) == ("2024-05-01T12:00:10.000Z", "2024-05-01T12:00:20.000Z")


@pytest.mark.parametrize("header", [False, True])
def test_a_part_without_frames_is_told(run: Run, tmp_path: Path, header: bool) -> None:
    recording = record(tmp_path / "r.jsonl", frames(5), header=header)
    for option, time in (("--from", "2025-01-01"), ("--to", "2023-01-01")):
        ended = run("report", recording, option, time)
        assert ended.status == 2
        assert ended.err.endswith("expected one in the time asked for\n")


def test_broken_lines_are_left_out_if_asked(run: Run, recording: Path) -> None:
    lines = recording.read_bytes().splitlines(keepends=True)
    recording.write_bytes(b"".join([*lines[:10], b"broken\n", *lines[11:]]))
    assert run("report", recording).status == 1
    found = told(run, recording, "--skip-bad")
    assert found["frames"] == 29
    gaps = found["gaps"]
    assert isinstance(gaps, dict)
    assert gaps["kinds"] == {"frames missing": 1}


def test_several_files_are_one_life(run: Run, tmp_path: Path) -> None:
    paths = [record(tmp_path / f"{at}.jsonl", frames(10, 10 * at)) for at in range(2)]
    found = told(run, *paths)
    assert (found["frames"], found["files"]) == (20, [str(path) for path in paths])


def test_another_start_state_counts(run: Run, recording: Path, tmp_path: Path) -> None:
    brain, path = Brain(), tmp_path / "c.json"
    for of in frames(50):
        brain.step(of)
    write_checkpoint(path, brain.state(), dimensions=brain.engine.config.dimensions, created_utc="")
    assert told(run, recording, "--checkpoint-in", path)["step"] == 80 * 20


def test_a_bar_is_shown_and_gone_at_the_end(
    run: Run, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("neuromodd.replay.PROGRESS_S", 0.0)
    with contextlib.redirect_stderr(Terminal()) as terminal:
        assert run("report", recording).status == 0
    assert "[###" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")


# The replay beneath


def test_a_replay_that_is_watched_shows_every_tick_and_the_brain_after_it(recording: Path) -> None:
    seen: list[tuple[int, int]] = []

    def watch(tick: Tick, brain: Brain) -> None:
        assert tick.result.step == brain.engine.step_count
        seen.append((tick.frame.sequence, tick.result.step))

    Replay([recording], watch=watch).run()
    assert seen == [(at, 20 * (at + 1)) for at in range(30)]


def test_a_replay_ends_before_the_first_frame_that_is_too_late(recording: Path) -> None:
    until_utc = datetime.fromtimestamp(START.timestamp() + 9.5, UTC)
    report = Replay([recording], until_utc=until_utc).run()
    assert (report.frames, report.step) == (10, 200)
