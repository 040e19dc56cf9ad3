"""The commands without a daemon: what they refuse, what they leave alone, and what they say."""

from __future__ import annotations

import contextlib
import io
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from neuromodd.config import Settings
from neuromodd.core.brain import Brain
from neuromodd.core.engine import SpikingInferenceEngine
from neuromodd.core.frame import TelemetryFrame
from neuromodd.core.parameters import EngineConfig
from neuromodd.core.payloads import RecorderHealth
from neuromodd.errors import (
    CheckpointDamagedError,
    CheckpointMismatchError,
    InvalidValueError,
    RecordingError,
)
from neuromodd.offline import export_memory, print_recording, replay_files
from neuromodd.recording import Header, frame_line, header_line
from neuromodd.replay import Replay
from neuromodd.scribe import Recorded
from neuromodd.sinks.checkpoint import CheckpointStore
from neuromodd.sinks.checkpoint_file import decode, write_checkpoint

START = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)
CLEARED = "\r\x1b[K"


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Ten frames."""
    brain = Brain()
    header = Header(
        package_version="0",
        created_utc=START,
        node="lab",
        boot_id=None,
        seed=0,
        parameters=brain.parameters,
        state=brain.state(),
    )
    frames = [
        TelemetryFrame(
            node="lab",
            sequence=i,
            time_utc=START + timedelta(seconds=i),
            monotonic_s=float(i),
            boot_id=None,
            interval_s=1.0,
        )
        for i in range(10)
    ]
    path = tmp_path / "r.jsonl"
    path.write_bytes(header_line(header) + b"".join(map(frame_line, frames)))
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    brain = Brain()
    path = tmp_path / "c.json"
    write_checkpoint(path, brain.state(), dimensions=brain.engine.config.dimensions, created_utc="")
    return path


def replay(*paths: Path, **options: Any) -> None:
    given = {"checkpoint_in": None, "checkpoint_out": None, "out": None, "skip_bad": False, **options}
    replay_files(paths, **given)


# What is not overwritten


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("option", ["out", "checkpoint_out"])
def test_a_recording_is_not_overwritten(recording: Path, tmp_path: Path, option: str, link: bool) -> None:
    before, target = recording.read_bytes(), recording
    if link:
        target = tmp_path / "link"
        target.symlink_to(recording)
    with pytest.raises(InvalidValueError, match=f"^--{option.replace('_', '-')}: "):
        replay(recording, **{option: target})
    assert recording.read_bytes() == before


def test_ticks_do_not_go_into_the_checkpoint_that_is_read(recording: Path, checkpoint: Path) -> None:
    before = checkpoint.read_bytes()
    with pytest.raises(InvalidValueError, match=r"^--out: .* another file than --checkpoint-in$"):
        replay(recording, out=checkpoint, checkpoint_in=checkpoint)
    assert checkpoint.read_bytes() == before


def test_ticks_and_checkpoint_do_not_go_into_the_same_new_file(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidValueError, match=r"^--out: .* another file than --checkpoint-out$"):
        replay(recording, out=Path("new"), checkpoint_out=tmp_path / "new")
    assert not Path("new").exists()


def test_a_checkpoint_may_replace_the_one_that_was_read(recording: Path, checkpoint: Path) -> None:
    before = decode(checkpoint, checkpoint.read_bytes())[1]
    replay(recording, checkpoint_in=checkpoint, checkpoint_out=checkpoint)
    assert decode(checkpoint, checkpoint.read_bytes())[1]["sequence"] == before["sequence"] + 10


@pytest.mark.parametrize("missing", ["recording", "checkpoint"])
def test_while_something_to_read_is_missing_the_old_ticks_stay(
    recording: Path, checkpoint: Path, tmp_path: Path, missing: str
) -> None:
    out = tmp_path / "ticks.jsonl"
    out.write_text("old")
    (recording if missing == "recording" else checkpoint).unlink()
    with pytest.raises(FileNotFoundError):
        replay(recording, checkpoint_in=checkpoint, out=out)
    assert out.read_text() == "old"


@pytest.mark.parametrize("target", [".", "/", "nowhere/c.json", "r.jsonl/c.json", "/dev/null"])
def test_where_no_checkpoint_can_be_written_is_told_before_the_work(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidValueError, match=r"^--checkpoint-out: "):
        replay(recording, checkpoint_out=Path(target), out=Path("ticks"))
    assert not Path("ticks").exists()


def test_a_directory_that_can_not_be_written_is_told_before_the_work(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root, as whom the tests may run, is refused nothing.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InvalidValueError, match="expected a file in a directory"):
        replay(recording, checkpoint_out=tmp_path / "c.json")


def test_a_full_disk_is_told_with_the_file_that_it_hit(recording: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        replay(recording, out=Path("/dev/full"))
    assert caught.value.filename == "/dev/full"


# The progress bar


class Terminal(io.StringIO):
    """What is shown on a terminal."""

    def isatty(self) -> bool:
        return True


def test_the_bar_is_gone_before_an_error_is_told(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuromodd.replay.PROGRESS_S", 0.0)
    with recording.open("ab") as file:
        file.write(b"broken\n")
    with contextlib.redirect_stderr(Terminal()) as terminal, pytest.raises(RecordingError):
        replay(recording)
    assert "[###" in terminal.getvalue()
    assert terminal.getvalue().endswith(CLEARED)


def test_an_interruption_is_told_in_place_of_the_bar(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(run: Replay, _out: object) -> None:
        run.report.frames = 7
        raise KeyboardInterrupt

    monkeypatch.setattr(Replay, "run", interrupted)
    with contextlib.redirect_stderr(Terminal()) as terminal, pytest.raises(KeyboardInterrupt):
        replay(recording, checkpoint_out=tmp_path / "c.json")
    shown = terminal.getvalue()
    assert shown.startswith(f"{CLEARED}neuromodd: interrupted after 7 frames in ")
    assert shown.endswith(f"; {tmp_path}/c.json is not written\n{CLEARED}")


# Recording


def health(frames: int, error: str | None) -> RecorderHealth:
    return RecorderHealth(file=None, frames=frames, dropped=0, total_bytes=1, failures=0, error=error)


def test_a_whole_recording_is_one() -> None:
    assert print_recording(Recorded(health(30, None), 30))


@pytest.mark.parametrize(("error", "why"), [("/r: File too large", ": /r: File too large"), (None, "")])
def test_frames_that_are_missing_are_told(
    capsys: pytest.CaptureFixture[str], error: str | None, why: str
) -> None:
    assert not print_recording(Recorded(health(3, error), 30))
    told = f"neuromodd: 27 of 30 frames are missing in the recordings{why}\n"
    assert capsys.readouterr().err == told


# Memory images


def settings(directory: Path, **engine: Any) -> Settings:
    return Settings.model_validate({"checkpoint": {"directory": directory}, "engine": engine})


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    """Two checkpoints, of steps 20 and 40."""
    directory = tmp_path / "state"
    directory.mkdir()
    store, brain = CheckpointStore(directory, keep=3), Brain()
    for step in (20, 40):
        state = brain.state()
        state["engine"]["step"] = step
        store.write(state, step=step, dimensions=brain.engine.config.dimensions, created_utc="")
    return store


def test_of_the_checkpoints_the_newest_is_exported(
    store: CheckpointStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export_memory(settings(store.directory), None, tmp_path / "mem")
    assert f"from {store.paths()[0]}, step 40\n" in capsys.readouterr().out


def test_instead_of_a_damaged_checkpoint_the_one_before_is_exported_and_both_are_named(
    store: CheckpointStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest, before = store.paths()
    newest.write_text("{}")
    export_memory(settings(store.directory), None, tmp_path / "mem")
    told = capsys.readouterr()
    assert f"from {before}, step 20\n" in told.out
    assert told.err.startswith(f"neuromodd: {newest}: not a whole checkpoint")
    assert told.err.endswith(f"; {before} is used instead\n")


def test_a_damaged_checkpoint_is_left_for_the_daemon_to_set_aside(
    store: CheckpointStore, tmp_path: Path
) -> None:
    paths = store.paths()
    paths[0].write_text("{}")
    export_memory(settings(store.directory), None, tmp_path / "mem")
    assert store.paths() == paths


def test_where_all_checkpoints_are_damaged_the_newest_is_told(store: CheckpointStore, tmp_path: Path) -> None:
    for path in store.paths():
        path.write_text("{}")
    with pytest.raises(CheckpointDamagedError, match=f"^{store.paths()[0]}: "):
        export_memory(settings(store.directory), None, tmp_path / "mem")


def test_saved_parameters_are_known_by_their_format_wherever_it_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "parameters.json"
    SpikingInferenceEngine().save_parameters(path)
    document = json.loads(path.read_text())
    path.write_text(json.dumps({"comment": "x" * 300, **document}, indent=2))
    export_memory(settings(tmp_path), path, tmp_path / "mem")
    assert f"from {path}, step 0\n" in capsys.readouterr().out


def test_a_checkpoint_that_speaks_of_parameters_is_still_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    brain, path = Brain(), tmp_path / "neuromodd-parameters.json"
    dimensions = {**brain.engine.config.dimensions}
    write_checkpoint(path, brain.state(), dimensions=dimensions, created_utc="neuromodd-parameters")
    export_memory(settings(tmp_path), path, tmp_path / "mem")
    assert f"from {path}, step 0\n" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["checkpoint", "parameters"])
def test_another_network_is_refused_with_a_remedy(checkpoint: Path, tmp_path: Path, kind: str) -> None:
    path = checkpoint
    if kind == "parameters":
        path = tmp_path / "parameters.json"
        SpikingInferenceEngine(EngineConfig()).save_parameters(path)
    with pytest.raises(CheckpointMismatchError, match=r"lif_neurons 9.*; give the --config of that network$"):
        export_memory(settings(tmp_path, lif_neurons=9), path, tmp_path / "mem")
