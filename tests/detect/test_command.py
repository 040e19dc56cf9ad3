"""`neuromodd detect` as it is called."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from measured import CALM, JUMP, START, Run, table
from recorded import frame, record

from neuromodd.core.brain import Brain, BrainParameters
from neuromodd.core.frame import MemorySample, TelemetryFrame
from neuromodd.core.surprise import SurpriseDetector, SurpriseParameters
from neuromodd.detect.command import Options, detect_files

PROJECT = Path(__file__).parents[2]
HEAD = ["timestamp", "value", "anomaly_score", "surprise"]


def told(run: Run, *arguments: object) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The anomalies and the summary."""
    ended = run("detect", "--json", *arguments)
    assert ended.status == 0, ended.err
    *anomalies, last = [json.loads(line) for line in ended.out.splitlines()]
    assert {of["kind"] for of in anomalies} <= {"anomaly"}
    assert last["kind"] == "summary"
    return anomalies, last


def read(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


# What is found


def test_a_jump_far_outside_is_found_where_it_is(run: Run, one: Path) -> None:
    anomalies, summary = told(run, one)
    found = [of for of in anomalies if CALM <= of["first_row"] - 1 < CALM + JUMP]
    assert [of["channels"][0]["name"] for of in found[:1]] == ["cpu"]
    assert summary["anomalies"] == len(anomalies)


def test_an_anomaly_is_told_in_a_line_and_all_of_it_in_the_last(run: Run, one: Path) -> None:
    ended = run("detect", one)
    begin = f"{START + timedelta(minutes=CALM):%Y-%m-%d %H:%M:%S}  "
    (line,) = (line for line in ended.out.splitlines() if line.startswith(begin))
    assert "  1.00  cpu: " in line
    assert ended.out.splitlines()[-1].startswith(
        f"{CALM + JUMP + 200:,} rows of 1 channel, 2024-05-01 00:00:00 to "
    )
    assert (ended.status, ended.err) == (0, "")


def test_an_anomaly_that_goes_on_at_the_end_is_told_too(run: Run, tmp_path: Path) -> None:
    anomalies, _ = told(run, table(tmp_path / "a.csv", after=-JUMP + 2))
    assert (anomalies[-1]["ended"], anomalies[-1]["last_row"]) == (False, CALM + 2)
    assert anomalies[-1]["duration_s"] == 60.0


def test_without_times_rows_are_counted(run: Run, tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", timed=False)
    anomalies, summary = told(run, path)
    jump = next(of for of in anomalies if of["last_row"] > CALM)
    assert (jump["since_utc"], jump["duration_s"], summary["anomalous_s"]) == (None, None, None)
    assert f"row {jump['first_row']:,} " in run("detect", path).out


def test_a_threshold_may_be_given(run: Run, one: Path) -> None:
    assert told(run, one, "--threshold", "0.01")[1]["threshold"] == 0.01
    assert told(run, one, "--threshold", "0.01")[1]["anomalies"] > told(run, one)[1]["anomalies"]


def test_calm_is_told_as_calm(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "calm.csv"
    path.write_text("cpu\n" + "1\n" * 500)
    ended = run("detect", path)
    assert ended.out.startswith("500 rows of 1 channel: 0 anomalies; ")
    assert ended.status == 0


def test_columns_may_be_chosen(run: Run, tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", ("cpu", '"disk, in"', "memory"))
    chosen = told(run, path, "--columns", 'memory,"disk, in"')[1]["channels"]
    assert chosen == ["memory", "disk, in"]


# Standard input and output


def test_a_table_may_come_on_standard_input_and_scores_go_to_standard_output(one: Path) -> None:
    with one.open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "neuromodd", "detect", "-", "--out", "-"],
            cwd=PROJECT,
            stdin=file,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0
    lines = list(csv.reader(io.StringIO(done.stdout)))
    assert (lines[0], len(lines)) == (HEAD, CALM + JUMP + 201)
    assert " rows of 1 channel" in done.stderr.splitlines()[-1]


# Scores


def test_the_scores_are_those_of_the_detector(run: Run, one: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    assert run("detect", one, "--out", out).status == 0
    detector, lines = SurpriseDetector(("cpu",)), read(one)[1:]
    head, *rows = read(out)
    assert (head, len(rows)) == (HEAD, len(lines))
    for at, ((stamp, value), row) in enumerate(zip(lines, rows, strict=True)):
        moment = detector.update((float(value),), (START + timedelta(minutes=at)).timestamp())
        surprise = "" if moment.surprise is None else repr(moment.surprise)
        assert row == [stamp, repr(float(value)), repr(moment.score or 0.0), surprise]


def test_of_several_channels_each_has_its_surprise(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    assert run("detect", table(tmp_path / "a.csv", ("cpu", "surprise")), "--out", out).status == 0
    head, *rows = read(out)
    assert head == ["timestamp", "anomaly_score", "surprise", "cpu", "surprise (channel)"]
    assert rows[0] == ["2024-05-01 00:00:00", "0.0", "", "", ""]
    assert float(rows[CALM][3]) > 0.9
    assert float(rows[CALM - 1][3]) < 0.9


def test_after_a_broken_row_the_old_scores_stay(run: Run, one: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    out.write_text("old")
    with one.open("a") as file:
        file.write("noon,1\n")
    ended = run("detect", one, "--out", out, "--plot", tmp_path / "a.svg")
    assert ended.status == 1
    assert ended.err == (
        f"neuromodd: {one}:{CALM + JUMP + 202}: time: got 'noon', expected a time as in the rows before\n"
    )
    assert out.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.csv", "scores.csv"]


def test_a_picture_that_can_not_be_drawn_leaves_no_scores(
    one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn(*_: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr("neuromodd.dashboard.surprise_plot.drawn", drawn)
    with pytest.raises(MemoryError):
        detect_files([one], Options(out=tmp_path / "s.csv", plot=tmp_path / "a.svg"))
    assert [path.name for path in tmp_path.iterdir()] == ["one.csv"]


# What is refused before the work


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("--out", "nowhere/a.csv"),
        ("--out", "one.csv"),
        ("--plot", "a.html"),
        ("--plot", "nowhere/a.png"),
    ],
)
def test_what_can_not_be_written_is_told_before_the_work(
    run: Run, one: Path, tmp_path: Path, option: str, name: str
) -> None:
    before = one.read_bytes()
    ended = run("detect", one, option, tmp_path / name)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith(f"neuromodd: {option}: got ")
    assert one.read_bytes() == before


def test_scores_and_picture_do_not_go_into_one_file(run: Run, one: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.svg"
    ended = run("detect", one, "--out", out, "--plot", out)
    assert (ended.status, out.exists()) == (2, False)
    assert "another file than --out" in ended.err


@pytest.mark.parametrize("threshold", ["0", "1.1", "high", "nan"])
def test_a_threshold_that_is_none_is_refused(run: Run, one: Path, threshold: str) -> None:
    ended = run("detect", one, "--threshold", threshold)
    assert ended.status == 2
    assert f"--threshold: got {threshold}, expected a number above 0, up to 1" in ended.err


def test_several_tables_are_refused(run: Run, one: Path) -> None:
    ended = run("detect", one, one)
    assert (ended.status, ended.err) == (
        2,
        "neuromodd: FILE: got '2 files', expected one CSV file, or recordings\n",
    )


def test_a_column_that_is_not_there_is_told(run: Run, one: Path) -> None:
    ended = run("detect", one, "--columns", "gpu")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("neuromodd: --columns: got 'gpu', expected a column that is there once: ")


def test_a_file_that_is_not_there_is_told(run: Run, tmp_path: Path) -> None:
    ended = run("detect", tmp_path / "a.csv")
    assert (ended.status, ended.err) == (1, f"neuromodd: {tmp_path}/a.csv: No such file or directory\n")


def test_without_matplotlib_its_extra_is_named_before_the_work(
    run: Run, one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    ended = run("detect", one, "--plot", tmp_path / "a.png")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == "neuromodd: detect --plot needs the extra `plot`: pip install 'neuromodd[plot]'\n"


# On a terminal


def test_a_bar_is_shown_and_gone_at_the_end(run: Run, one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("neuromodd.detect.command.PROGRESS_S", 0.0)
    with contextlib.redirect_stderr(Terminal()) as terminal:
        assert run("detect", one).status == 0
    assert "[###" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_an_interruption_says_what_is_not_written(
    one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SurpriseDetector, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        detect_files([one], Options(out=tmp_path / "s.csv"))
    assert capsys.readouterr().err == f"neuromodd: interrupted after 0 rows; not written: {tmp_path}/s.csv\n"
    assert not (tmp_path / "s.csv").exists()


# Recordings


def strained(count: int, *, first: int = 0, jump: int | None = None) -> list[TelemetryFrame]:
    """Frames of a host that uses a quarter of its memory, more or less, and then all of it."""
    return [
        frame(at, memory=MemorySample(used_ratio=1.0 if at == jump else 0.25 + 0.01 * (at % 3)))
        for at in range(first, first + count)
    ]


def test_a_recording_is_looked_at_by_the_readings_of_its_daemon(run: Run, tmp_path: Path) -> None:
    parameters = BrainParameters(surprise=SurpriseParameters(channels=("memory", "cpu"), threshold=0.25))
    recording = record(tmp_path / "r.jsonl", strained(700, jump=650), parameters=parameters)
    anomalies, summary = told(run, recording)
    assert (summary["channels"], summary["threshold"]) == (["memory", "cpu"], 0.25)
    assert [of["channels"][0]["name"] for of in anomalies if of["first_row"] == 651] == ["memory"]
    assert next(of["since_utc"] for of in anomalies if of["first_row"] == 651) == "2024-05-01T12:10:50Z"


def test_readings_of_a_recording_may_be_chosen(run: Run, tmp_path: Path) -> None:
    recording = record(tmp_path / "r.jsonl", strained(5), header=False)
    assert told(run, recording, "--channels", "memory")[1]["channels"] == ["memory"]


def test_several_recordings_are_one_life(run: Run, tmp_path: Path) -> None:
    paths = [record(tmp_path / f"{at}.jsonl", strained(10, first=10 * at)) for at in range(2)]
    assert told(run, *paths)[1]["rows"] == 20


@pytest.mark.parametrize("fresh", [False, True])
def test_what_the_daemon_had_learned_counts_unless_asked(run: Run, tmp_path: Path, fresh: bool) -> None:
    brain, path, out = Brain(compiled=False), tmp_path / "r.jsonl", tmp_path / "s.csv"
    for of in strained(700):
        brain.step(of)
    record(path, strained(1, first=700))
    header, rest = path.read_bytes().split(b"\n", 1)
    document = json.loads(header)
    document["state"] = brain.state()
    path.write_bytes(json.dumps(document).encode() + b"\n" + rest)
    assert run("detect", path, "--out", out, *(("--fresh",) if fresh else ())).status == 0
    head, row = read(out)
    assert (row[head.index("memory")] == "") is fresh


def test_a_broken_line_of_a_recording_is_left_out_if_asked(run: Run, tmp_path: Path) -> None:
    recording = record(tmp_path / "r.jsonl", strained(5))
    lines = recording.read_bytes().splitlines(keepends=True)
    recording.write_bytes(b"".join([*lines[:3], b"broken\n", *lines[4:]]))
    assert run("detect", recording).status == 1
    summary = told(run, recording, "--skip-bad")[1]
    assert (summary["rows"], summary["rows_skipped"]) == (4, 1)


def test_a_recording_has_no_column_with_times(run: Run, tmp_path: Path) -> None:
    ended = run("detect", record(tmp_path / "r.jsonl", strained(5)), "--time", "when")
    assert ended.status == 2
    assert ended.err.startswith("neuromodd: --time: got 'when', expected a CSV file")
