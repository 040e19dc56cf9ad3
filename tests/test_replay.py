"""Replay: what a brain lived through once it lives through again, bit for bit."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import zstandard

from neuromodd.core.brain import Brain, BrainParameters
from neuromodd.core.frame import CpuSample, MemorySample, TelemetryFrame, WorkSample
from neuromodd.core.inputs import OutsideInput, RewardInput, SettingsInput
from neuromodd.core.messages import state_message
from neuromodd.core.modulators import Setpoints
from neuromodd.core.parameters import EngineConfig
from neuromodd.core.rewards import RewardParameters, SourceSwitch, WorkAccepted
from neuromodd.core.surprise import DEFAULT_CHANNELS, SurpriseParameters
from neuromodd.errors import CheckpointDamagedError, CheckpointMismatchError, RecordingError
from neuromodd.recording import Header, Item, RecordingReader, frame_line, header_line, input_line
from neuromodd.replay import Replay, Report, replay
from neuromodd.sinks.checkpoint_file import decode, write_checkpoint

START = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)
REWARD = RewardInput(event=WorkAccepted(latency_ms=250.0, source="render"))
SWITCH = RewardInput(event=SourceSwitch(previous="a", current="b"))
EAGER = SettingsInput(
    setpoints=Setpoints(work_target=0.5, clock_nominal_hz=3e9),
    rewards=RewardParameters(busy_ticks=1),
    faults=BrainParameters().faults,
)


def frames(count: int, first: int = 0) -> list[TelemetryFrame]:
    rng = random.Random(first)  # noqa: S311 - test data
    return [
        TelemetryFrame(
            node="lab",
            sequence=i,
            time_utc=START + timedelta(seconds=i),
            monotonic_s=1000.0 + i,
            boot_id="boot-a",
            interval_s=1.0,
            cpu=CpuSample(utilization_ratio=rng.random(), frequency_hz=2e9 + 1e9 * rng.random()),
            memory=MemorySample(used_ratio=rng.random()),
            work=WorkSample(rate=rng.random(), source="cpu"),
        )
        for i in range(first, first + count)
    ]


class Life:
    """A brain, and the lines and states of what it lives through."""

    def __init__(self, parameters: BrainParameters | None = None, seed: int = 7) -> None:
        self.brain = Brain(parameters, seed)
        self.lines: list[bytes] = []
        self.states: list[bytes] = []

    def begin_file(self) -> None:
        header = Header(
            package_version="0",
            created_utc=START,
            node="lab",
            boot_id="boot-a",
            seed=self.brain.engine.seed,
            parameters=self.brain.parameters,
            state=self.brain.state(),
        )
        self.lines = [header_line(header)]

    def live(self, taken: Sequence[TelemetryFrame | OutsideInput]) -> None:
        for item in taken:
            if isinstance(item, TelemetryFrame):
                self.lines.append(frame_line(item))
                self.states.append(state_message(self.brain.step(item)).payload)
            else:
                self.lines.append(input_line(item))
                self.brain.apply(item)

    def save(self, path: Path) -> Path:
        path.write_bytes(b"".join(self.lines))
        return path


def replayed(paths: Sequence[Path], **options: Any) -> tuple[Report, list[bytes]]:
    out = io.BytesIO()
    report = replay(paths, out=out, **options)
    return report, out.getvalue().splitlines()


@pytest.fixture
def life() -> Life:
    """One that has lived before the recording begins, and is rewarded and reloaded in it."""
    life = Life()
    life.live(frames(50))
    life.states.clear()
    life.begin_file()
    life.live([*frames(30, 50), REWARD, *frames(5, 80), EAGER, SWITCH, REWARD, *frames(65, 85)])
    return life


def test_a_replay_gives_the_states_that_were_published(life: Life, tmp_path: Path) -> None:
    report, states = replayed([life.save(tmp_path / "r.jsonl")])
    assert states == life.states
    assert (report.frames, report.skipped, report.step) == (100, 0, 3000)
    assert report.rewards >= 3


def test_the_inputs_made_a_difference(life: Life, tmp_path: Path) -> None:
    path = life.save(tmp_path / "r.jsonl")
    path.write_bytes(b"".join(line for line in life.lines if not line.startswith(b'{"input":')))
    _, states = replayed([path])
    assert states[:30] == life.states[:30]
    assert states[30] != life.states[30]
    assert states[-1] != life.states[-1]


def test_a_compiled_replay_gives_the_same(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuromodd.replay.COMPILE_BYTES", 0)
    report, states = replayed([life.save(tmp_path / "r.jsonl")])
    assert report.compiled
    assert states == life.states


def test_without_numba_a_replay_is_not_compiled(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuromodd.replay.COMPILE_BYTES", 0)
    for module in ("replay", "core.engine"):
        monkeypatch.setattr(f"neuromodd.{module}.numba_installed", lambda: False)
    report, states = replayed([life.save(tmp_path / "r.jsonl")])
    assert not report.compiled
    assert states == life.states


@pytest.mark.parametrize("lif_neurons", [8, 125])
def test_numba_is_missed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lif_neurons: int) -> None:
    life = Life(BrainParameters(engine=EngineConfig(lif_neurons=lif_neurons)))
    life.begin_file()
    for module in ("replay", "core.engine"):
        monkeypatch.setattr(f"neuromodd.{module}.numba_installed", lambda: False)
    path = life.save(tmp_path / "r.jsonl")
    notes: list[str] = []
    # Twice, so that it would be said twice if it were not said once.
    replay([path, path], note=notes.append)
    assert [note.split(":")[0] for note in notes] == ["numba is not installed"]


def test_a_network_of_other_dimensions_and_plasticity_is_replayed_as_it_was(tmp_path: Path) -> None:
    engine = EngineConfig(lif_neurons=11, izhikevich_neurons=2, steps_per_tick=7, plasticity="eligibility")
    life = Life(BrainParameters(engine=engine), seed=99)
    life.begin_file()
    life.live([*frames(20), REWARD, *frames(30, 20)])
    _, states = replayed([life.save(tmp_path / "r.jsonl")])
    assert states == life.states


def test_files_that_follow_each_other_are_one_life(tmp_path: Path) -> None:
    life = Life()
    paths: list[Path] = []
    notes: list[str] = []
    for number in range(3):
        life.begin_file()
        life.live(frames(20, 20 * number))
        paths.append(life.save(tmp_path / f"{number}.jsonl"))
    _, states = replayed(paths, note=notes.append)
    assert states == life.states
    assert notes == []


def test_any_file_can_be_replayed_by_itself(tmp_path: Path) -> None:
    life = Life()
    life.live(frames(20))
    life.begin_file()
    life.live(frames(20, 20))
    _, states = replayed([life.save(tmp_path / "second.jsonl")])
    assert states == life.states[20:]


def test_a_restart_between_two_files_is_said_and_kept_to(tmp_path: Path) -> None:
    first, second = Life(), Life()
    for life, count in ((first, 30), (second, 20)):
        life.begin_file()
        life.live(frames(count))
    paths = [first.save(tmp_path / "1.jsonl"), second.save(tmp_path / "2.jsonl")]
    notes: list[str] = []
    _, states = replayed(paths, note=notes.append)
    assert states == first.states + second.states
    assert notes == [f"{paths[1]}:1: does not go on where the file before ended; its own state counts"]


# Recordings of earlier versions, with the states that those versions published


OLD = Path(__file__).parent / "data" / "recordings"
OLD_STATES = (OLD / "before-surprise.states.jsonl").read_bytes().splitlines()
OLD_FILES = [OLD / f"before-surprise-{number}.jsonl" for number in (1, 2)]


def in_old_words(state: bytes) -> dict[str, Any]:
    """A state of now as it was before there was surprise, when the prediction errors went by that name."""
    values: dict[str, Any] = json.loads(state)
    assert values.pop("surprise") == {"total": None, "probability": None, "channels": {}}
    assert values["flags"].pop("anomaly") is False
    values["surprise"] = values.pop("prediction_error")
    return values


def test_a_recording_from_before_there_was_surprise_gives_the_states_of_then() -> None:
    _, states = replayed(OLD_FILES)
    assert [in_old_words(state) for state in states] == [json.loads(state) for state in OLD_STATES]


def test_recordings_from_before_there_was_surprise_that_follow_each_other_are_one_life() -> None:
    notes: list[str] = []
    replay(OLD_FILES, note=notes.append)
    assert notes == []


def test_a_recording_with_surprise_is_not_taken_for_an_older_one(life: Life, tmp_path: Path) -> None:
    _, states = replayed([life.save(tmp_path / "r.jsonl")])
    assert json.loads(states[-1])["surprise"]["channels"].keys() == {*DEFAULT_CHANNELS}


def test_a_replay_takes_over_what_a_reload_changed_of_surprise(tmp_path: Path) -> None:
    life = Life()
    life.begin_file()
    given = BrainParameters(surprise=SurpriseParameters(threshold=0.75))
    reload = SettingsInput(
        setpoints=given.setpoints, rewards=given.rewards, faults=given.faults, surprise=given.surprise
    )
    life.live([*frames(5), reload, *frames(5, 5)])
    seen: list[float] = []
    path = life.save(tmp_path / "r.jsonl")
    Replay([path], watch=lambda _, brain: seen.append(brain.parameters.surprise.threshold)).run()
    assert seen == [0.5] * 5 + [0.75] * 5


# Checkpoints


def test_a_replay_goes_on_from_the_checkpoint_of_another(tmp_path: Path) -> None:
    life = Life()
    life.begin_file()
    life.live(frames(20))
    first = life.save(tmp_path / "1.jsonl")
    life.begin_file()
    life.live(frames(20, 20))
    second = life.save(tmp_path / "2.jsonl")
    replay([first], checkpoint_out=tmp_path / "middle.json")
    _, states = replayed(
        [second], checkpoint_in=tmp_path / "middle.json", checkpoint_out=tmp_path / "end.json"
    )
    assert states == life.states[20:]
    _, state = decode(tmp_path / "end.json", (tmp_path / "end.json").read_bytes())
    assert state == json.loads(json.dumps(life.brain.state()))


def test_another_start_state_counts_for_all_files(tmp_path: Path) -> None:
    life, other = Life(), Life(seed=8)
    paths = []
    for number in range(2):
        life.begin_file()
        life.live(frames(20, 20 * number))
        paths.append(life.save(tmp_path / f"{number}.jsonl"))
    other.live(frames(10))
    write_checkpoint(
        tmp_path / "c.json",
        other.brain.state(),
        dimensions=other.brain.engine.config.dimensions,
        created_utc="",
    )
    other.states.clear()
    other.live([*frames(20), *frames(20, 20)])
    _, states = replayed(paths, checkpoint_in=tmp_path / "c.json")
    assert states == other.states != life.states


def test_a_checkpoint_of_another_network_is_refused_naming_both(life: Life, tmp_path: Path) -> None:
    brain = Brain(BrainParameters(engine=EngineConfig(lif_neurons=9)))
    path = tmp_path / "c.json"
    write_checkpoint(path, brain.state(), dimensions=brain.engine.config.dimensions, created_utc="")
    with pytest.raises(CheckpointMismatchError, match=r"lif_neurons 9.*lif_neurons 8"):
        replay([life.save(tmp_path / "r.jsonl")], checkpoint_in=path)


def test_a_whole_checkpoint_that_holds_no_state_is_named(life: Life, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    write_checkpoint(path, {}, dimensions=life.brain.engine.config.dimensions, created_utc="")
    with pytest.raises(CheckpointDamagedError, match=f"^{path}: the start state does not fit: KeyError"):
        replay([life.save(tmp_path / "r.jsonl")], checkpoint_in=path)


def test_a_damaged_checkpoint_is_told_before_anything_is_replayed(life: Life, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text("{}")
    out = io.BytesIO()
    with pytest.raises(CheckpointDamagedError):
        replay([life.save(tmp_path / "r.jsonl")], checkpoint_in=tmp_path / "c.json", out=out)
    assert out.getvalue() == b""


# Broken lines


@pytest.mark.parametrize("bad", [b"{\n", b"[]\n", b'{"input":{"kind":"magic"}}\n', b"\xff\n", b"\n"])
def test_a_broken_line_ends_the_replay_with_its_file_and_number(
    life: Life, tmp_path: Path, bad: bytes
) -> None:
    life.lines.insert(6, bad)
    path, out = life.save(tmp_path / "r.jsonl"), io.BytesIO()
    with pytest.raises(RecordingError) as caught:
        replay([path], out=out)
    assert str(caught.value).startswith(f"{path}:7: ")
    assert len(out.getvalue().splitlines()) == 5


def test_broken_lines_are_skipped_if_asked_and_each_is_told(life: Life, tmp_path: Path) -> None:
    life.lines[6:6] = [b"{\n", b"nonsense\n"]
    path = life.save(tmp_path / "r.jsonl")
    notes: list[str] = []
    report, states = replayed([path], skip_bad=True, note=notes.append)
    assert states == life.states
    assert report.skipped == 2
    assert [note.split(": ")[0] for note in notes] == [f"{path}:7", f"{path}:8"]


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    ("sound", "broken"), [(b'"seed":7', b'"seed":"x"'), (b'"seed":7', b'"seed":'), (b"lab", b"l\xffb")]
)
def test_a_broken_header_is_not_skipped(
    life: Life, tmp_path: Path, sound: bytes, broken: bytes, compress: bool
) -> None:
    life.lines[0] = life.lines[0].replace(sound, broken, 1)
    path, out = life.save(tmp_path / "r.jsonl"), io.BytesIO()
    if compress:
        path.write_bytes(zstandard.compress(path.read_bytes()))
    with pytest.raises(RecordingError, match=r"; a header can't be skipped$") as caught:
        replay([path], out=out, skip_bad=True)
    assert (caught.value.path, caught.value.line, out.getvalue()) == (path, 1, b"")


def test_a_broken_first_line_that_was_no_header_is_skipped(tmp_path: Path) -> None:
    life = Life(seed=0)
    life.live(frames(20))
    life.lines[:0] = [b"nonsense\n"]
    report, states = replayed([life.save(tmp_path / "sampled.jsonl")], skip_bad=True)
    assert (report.skipped, states) == (1, life.states)


def test_a_last_line_that_a_kill_cut_short_is_no_error(life: Life, tmp_path: Path) -> None:
    path = life.save(tmp_path / "r.jsonl")
    path.write_bytes(path.read_bytes()[:-10])
    notes: list[str] = []
    _, states = replayed([path], note=notes.append)
    assert states == life.states[:-1]
    (note,) = notes
    assert note.startswith(f"{path}:{len(life.lines)}: cut short")


def test_frames_without_a_header_meet_a_fresh_brain(tmp_path: Path) -> None:
    life = Life(seed=0)
    life.live(frames(20))
    path = life.save(tmp_path / "sampled.jsonl")
    notes: list[str] = []
    _, states = replayed([path], note=notes.append)
    assert states == life.states
    assert notes == [f"{path}: no header; a fresh brain at the default settings takes it in"]


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").touch()
    with pytest.raises(RecordingError, match="got neither a header nor a frame"):
        replay([tmp_path / "r.jsonl"])


def test_a_recording_that_ended_before_its_first_frame_is_none(life: Life, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_bytes(life.lines[0])
    report = replay([tmp_path / "r.jsonl"], checkpoint_out=tmp_path / "c.json")
    assert (report.frames, report.step) == (0, 1000)
    _, state = decode(tmp_path / "c.json", (tmp_path / "c.json").read_bytes())
    assert state == json.loads(life.lines[0])["state"]


def test_a_start_state_that_does_not_fit_is_an_error_of_its_line(life: Life, tmp_path: Path) -> None:
    header = json.loads(life.lines[0])
    del header["state"]["engine"]["theta"]
    life.lines[0] = json.dumps(header).encode() + b"\n"
    path = life.save(tmp_path / "r.jsonl")
    with pytest.raises(RecordingError, match="theta") as caught:
        replay([path])
    assert caught.value.line == 1


@pytest.mark.parametrize(
    ("place", "wrong", "said"),
    [
        (("seed",), -1, "seed"),
        (("parameters", "engine", "channels"), 9, "engine.channels: got 9"),
        (("state", "engine", "dimensions", "lif_neurons"), 9, "lif_neurons 9"),
        (("state", "pending"), [{"kind": "magic"}], "magic"),
        (("state", "pending"), [1], "the start state does not fit: AttributeError"),
    ],
)
def test_whatever_is_wrong_in_a_header_is_an_error_of_its_line(
    life: Life, tmp_path: Path, place: Sequence[str], wrong: object, said: str
) -> None:
    header = values = json.loads(life.lines[0])
    for name in place[:-1]:
        values = values[name]
    values[place[-1]] = wrong
    life.lines[0] = json.dumps(header).encode() + b"\n"
    path = life.save(tmp_path / "r.jsonl")
    with pytest.raises(RecordingError) as caught:
        replay([path])
    assert str(caught.value).startswith(f"{path}:1: ")
    assert said in str(caught.value)


def test_a_file_that_is_not_there_is_told_before_anything_is_replayed(life: Life, tmp_path: Path) -> None:
    out = io.BytesIO()
    with pytest.raises(FileNotFoundError):
        replay([life.save(tmp_path / "r.jsonl"), tmp_path / "missing.jsonl"], out=out)
    assert out.getvalue() == b""


def test_what_is_not_a_file_is_told_before_anything_is_replayed(life: Life, tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        Replay([life.save(tmp_path / "r.jsonl"), tmp_path])


def test_a_pipe_is_replayed(life: Life, tmp_path: Path) -> None:
    path, pipe = life.save(tmp_path / "r.jsonl"), tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["sh", "-c", 'exec cat "$0" > "$1"', path, pipe]) as writer:
        _, states = replayed([pipe])
    assert (writer.returncode, states) == (0, life.states)


def test_a_recording_that_can_not_be_read_is_named(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_reader: RecordingReader) -> Iterator[Item]:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(RecordingReader, "__iter__", fail)
    path = life.save(tmp_path / "r.jsonl")
    with pytest.raises(OSError, match="Input/output error") as caught:
        replay([path])
    assert caught.value.filename == str(path)


def test_progress_goes_up_to_the_end(life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuromodd.replay.PROGRESS_S", 0.0)
    shares: list[float] = []
    paths = [life.save(tmp_path / f"{n}.jsonl") for n in range(2)]
    replay(paths, progress=lambda share, _: shares.append(share))
    assert shares == sorted(shares)
    assert 0.0 < shares[0] < 0.5
    assert shares[-1] == 1.0


@pytest.fixture
def many(tmp_path: Path) -> Callable[[int], Path]:
    def write(count: int) -> Path:
        path = tmp_path / f"{count}.jsonl"
        lines = [frame_line(frame) for frame in frames(500)]
        with path.open("wb") as file:
            for _ in range(count // 500):
                file.writelines(lines)
        return path

    return write


def test_memory_does_not_grow_with_the_length_of_a_recording(many: Callable[[int], Path]) -> None:
    code = (
        "import pathlib, resource, sys; from neuromodd.replay import replay; "
        "replay([pathlib.Path(sys.argv[1])]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
    )
    peaks = []
    for count in (500, 10_000):
        command = [sys.executable, "-c", code, str(many(count))]
        peaks.append(int(subprocess.run(command, capture_output=True, check=True).stdout))
    # A frame alone takes some 5 kB of memory.
    assert peaks[1] - peaks[0] < 10_000_000
