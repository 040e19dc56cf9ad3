from __future__ import annotations

import json
import os
import pty
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, Mosquitto

from neuromodd import cli
from neuromodd.core.brain import Brain
from neuromodd.core.frame import CpuSample, TelemetryFrame
from neuromodd.core.rewards import WorkAccepted
from neuromodd.sinks.checkpoint import CheckpointStore
from neuromodd.sinks.checkpoint_file import encode, read_checkpoint
from neuromodd.sinks.state_directory import StateDirectory

START = datetime(2024, 5, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/nonexistent")


@pytest.fixture
def brain() -> Brain:
    brain = Brain(compiled=False)
    for second in range(10):
        brain.step(
            TelemetryFrame(
                node="lab",
                sequence=second,
                time_utc=START + timedelta(seconds=second),
                monotonic_s=float(second),
                boot_id="boot",
                interval_s=1.0,
                cpu=CpuSample(utilization_ratio=0.9),
            )
        )
    return brain


@pytest.fixture
def state(tmp_path: Path, brain: Brain) -> Path:
    """A state directory with checkpoints of steps 100, 200 and 300; the state is the same."""
    directory = tmp_path / "state"
    directory.mkdir()
    store = CheckpointStore(directory, keep=5)
    for step in (100, 200, 300):
        created = (datetime.now(UTC) - timedelta(seconds=4000 - 10 * step)).isoformat()
        store.write(
            brain.state(), step=step, dimensions=brain.parameters.engine.dimensions, created_utc=created
        )
    return directory


def path_of(state: Path, step: int) -> Path:
    return state / f"checkpoint-{step:016d}.json"


Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ask(state: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    """`neuromodd checkpoint ...` of the state directory: exit status, what it printed, what it complained."""

    def ask(action: str, *arguments: str, directory: Path = state) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            cli.main(["checkpoint", action, *arguments, "--checkpoint.directory", str(directory)])
        out, err = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, out, err

    return ask


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


# list


def test_list_has_a_line_for_each_newest_first(ask: Ask, state: Path) -> None:
    status, out, _ = ask("list")
    lines = [line.split() for line in out.splitlines()]
    assert status == 0
    assert [(of[0], of[1], of[-2], of[-1]) for of in lines[1:]] == [
        (path_of(state, step).name, str(step), "2", "whole") for step in (300, 200, 100)
    ]


def test_list_says_what_is_wrong_with_a_damaged_one(ask: Ask, state: Path) -> None:
    path_of(state, 200).write_bytes(path_of(state, 200).read_bytes()[:-10])
    path_of(state, 100).write_bytes(b"")
    lines = ask("list")[1].splitlines()
    assert lines[2].endswith("damaged: its content does not agree with its checksum")
    assert lines[3].endswith("damaged: not a whole checkpoint: it is empty")


def test_list_names_a_newer_format(ask: Ask, state: Path) -> None:
    header, saved = read_checkpoint(path_of(state, 300))
    path_of(state, 300).write_bytes(encode({**header, "version": 99}, saved))
    assert "got format 99, expected format 2; upgrade neuromodd" in ask("list")[1].splitlines()[1]


def test_list_as_json_is_for_a_machine(ask: Ask, state: Path) -> None:
    path_of(state, 100).write_bytes(b"x")
    path_of(state, 200).rename(state / "checkpoint-0000000000000200.damaged")
    found = json.loads(ask("list", "--json")[1])
    newest, oldest = found["checkpoints"]
    assert (newest["file"], newest["step"], newest["format"], newest["trouble"]) == (
        path_of(state, 300).name,
        300,
        2,
        None,
    )
    assert newest["size_bytes"] == path_of(state, 300).stat().st_size
    assert 1000.0 <= newest["age_s"] < 1300.0
    assert (oldest["age_s"], oldest["size_bytes"], oldest["trouble"] is None) == (None, 1, False)
    assert found["set_aside"] == ["checkpoint-0000000000000200.damaged"]


@pytest.mark.parametrize("action", ["list", "show", "reset"])
def test_where_there_is_no_directory_none_is_made(ask: Ask, tmp_path: Path, action: str) -> None:
    arguments = ["--yes"] if action == "reset" else []
    status, out, err = ask(action, *arguments, directory=tmp_path / "none")
    said = "got None, expected a checkpoint in" if action == "show" else "no checkpoints in"
    assert f"{said} {tmp_path / 'none'}" in out + err
    assert status == (action == "show")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("action", ["list", "show"])
def test_to_look_changes_nothing_and_needs_no_lock(ask: Ask, state: Path, action: str) -> None:
    path_of(state, 300).write_bytes(b"damaged")
    lock = StateDirectory(state)
    before = contents(state)
    assert ask(action)[0] == 0
    assert contents(state) == before
    lock.close()


def test_a_checkpoint_that_the_daemon_removes_meanwhile_is_left_out(
    ask: Ask, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        CheckpointStore, "paths", lambda _: [path_of(state, 400), path_of(state, 300), path_of(state, 7)]
    )
    assert [of["step"] for of in json.loads(ask("list", "--json")[1])["checkpoints"]] == [300]


# show


def test_show_tells_a_person_what_the_newest_holds(ask: Ask, brain: Brain, state: Path) -> None:
    status, out, _ = ask("show", "--node", "lab")
    assert status == 0
    for told in (
        f"file          {path_of(state, 300)}",
        "network       8 channels, 5 izhikevich_neurons, 8 lif_neurons; seed 0",
        "lived         200 steps, 10 frames; the last at 2024-05-01T12:00:09+00:00",
        "node          lab, as configured",
        f"neuron 0   cpu        primary {brain.engine.weights[0][0]:.3f}",
        "faults        HealthyStandby now",
    ):
        assert told in out


def test_show_as_json_has_weights_levels_and_counts(ask: Ask, brain: Brain) -> None:
    brain.take(WorkAccepted())
    found = json.loads(ask("show", "--json")[1])
    rows = brain.engine.weights
    assert [of["primary"] for of in found["weights"]["neurons"]] == pytest.approx(
        [row[number] for number, row in enumerate(rows)]
    )
    assert [of["highest"] for of in found["weights"]["neurons"]] == pytest.approx(list(map(max, rows)))
    assert found["modulators"]["tonic"]["dopamine"] == brain.state()["tonic"]["dopamine"]
    assert (found["step"], found["sequence"], found["rewards"]["waiting"]) == (200, 10, 0)
    assert found["dimensions"] == brain.parameters.engine.dimensions


def test_show_passes_over_a_damaged_one_and_says_so(ask: Ask, state: Path) -> None:
    path_of(state, 300).write_bytes(b"damaged")
    status, out, err = ask("show", "--json")
    assert (status, json.loads(out)["file"]) == (0, str(path_of(state, 200)))
    assert str(path_of(state, 300)) in err


@pytest.mark.parametrize(
    "name", ["checkpoint-0000000000000100.json", "{state}/checkpoint-0000000000000100.json"]
)
def test_show_takes_a_path_or_a_name_in_the_state_directory(ask: Ask, state: Path, name: str) -> None:
    _, out, _ = ask("show", "--json", name.format(state=state))
    assert json.loads(out)["file"] == str(path_of(state, 100))


def spoil_whole(header: dict[str, Any], state: dict[str, Any]) -> bytes:
    del state["rewards"]
    return encode(header, state)


@pytest.mark.parametrize(
    ("spoil", "status", "told"),
    [
        pytest.param(lambda *_: b"", 1, "it is empty", id="damaged"),
        pytest.param(spoil_whole, 1, "none of this version: KeyError: 'rewards'", id="another state"),
        pytest.param(lambda header, _: encode({**header, "version": 9}, {}), 2, "format 9", id="newer"),
        pytest.param(
            lambda header, _: encode(header, {"engine": []}), 1, "none of this version", id="no state"
        ),
    ],
)
def test_show_refuses_what_it_does_not_understand_with_a_message(
    ask: Ask, state: Path, spoil: Callable[..., bytes], status: int, told: str
) -> None:
    path = path_of(state, 300)
    path.write_bytes(spoil(*read_checkpoint(path)))
    found, out, err = ask("show", str(path))
    assert (found, out) == (status, "")
    assert err.startswith(f"neuromodd: {path}: ")
    assert told in err


def test_show_refuses_a_file_that_is_not_there(ask: Ask) -> None:
    status, _, err = ask("show", "missing.json")
    assert (status, "missing.json" in err) == (1, True)


# reset


def test_reset_sets_all_aside_and_tells_how_to_go_back(ask: Ask, state: Path) -> None:
    before = path_of(state, 300).read_bytes()
    status, out, _ = ask("reset", "--yes", "--checkpoint.keep", "1")
    assert status == 0
    names = {f"checkpoint-{step:016d}.reset" for step in (100, 200, 300)}
    assert set(contents(state)) - {"lock"} == names
    assert all(name in out for name in names)
    subprocess.run(shlex.split(out.splitlines()[-1]), check=True)
    assert path_of(state, 300).read_bytes() == before


def test_reset_without_a_terminal_wants_to_be_told_yes(ask: Ask, state: Path) -> None:
    before = contents(state)
    status, _, err = ask("reset")
    assert (status, "--yes" in err) == (2, True)
    assert contents(state) == before


def test_reset_is_refused_while_a_daemon_runs_with_the_remedies(
    mosquitto: Mosquitto, start_daemon: Callable[..., Daemon], ask: Ask, state: Path
) -> None:
    daemon = start_daemon("--fresh", port=mosquitto.port)
    daemon.wait_log("started")
    path_of(state, 5).touch()
    status, _, err = ask("reset", "--yes")
    assert status == 3
    assert f"{state}: locked by process {daemon.process.pid} " in err
    assert "stop it first" in err
    assert "in/command" in err
    assert path_of(state, 5).exists()


@contextmanager
def terminal(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`neuromodd checkpoint reset` on a terminal of its own, and our end of it."""
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "neuromodd", "checkpoint", "reset", *arguments],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            yield process, ours
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize(("answer", "status"), [("y", 0), ("n", 1), ("", 1), ("\x04", 1)])
def test_reset_asks_on_a_terminal(state: Path, answer: str, status: int) -> None:
    with terminal("--checkpoint.directory", str(state)) as (process, ours):
        os.write(ours, answer.encode() + (b"" if answer == "\x04" else b"\n"))
        out, err = process.communicate(timeout=20.0)
    assert process.returncode == status, err
    assert b"Set 3 checkpoints in" in out
    assert path_of(state, 300).exists() is (status == 1)
