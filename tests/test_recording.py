from __future__ import annotations

import errno
import json
import os
import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromodd import recording
from neuromodd.core.brain import Brain, BrainParameters
from neuromodd.core.diagnostics import FaultParameters
from neuromodd.core.frame import CpuSample, GpuSample, TelemetryFrame, WorkSample
from neuromodd.core.inputs import OutsideInput, RewardInput, SettingsInput
from neuromodd.core.modulators import Setpoints
from neuromodd.core.rewards import BreakthroughFound, RewardParameters, WorkAccepted
from neuromodd.errors import MissingExtraError, RecordingError
from neuromodd.recording import (
    Broken,
    Content,
    Header,
    Item,
    RecordingFile,
    RecordingReader,
    Truncated,
    frame_line,
    header_line,
    input_line,
)

START = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)


def frame(second: int = 0, **values: Any) -> TelemetryFrame:
    return TelemetryFrame(
        node="lab",
        sequence=second,
        time_utc=START + timedelta(seconds=second),
        monotonic_s=1000.1 + second,
        **{"cpu": CpuSample(utilization_ratio=0.25), **values},
    )


def header(**values: Any) -> Header:
    known: dict[str, Any] = {
        "package_version": "0.2.0",
        "created_utc": START,
        "node": "lab",
        "boot_id": "boot-a",
        "seed": 7,
        "parameters": BrainParameters(setpoints=Setpoints(work_target=2.0)),
        "state": Brain(seed=7).state(),
    }
    return Header(**{**known, **values})


FRAMES = [frame(second) for second in range(3)]
LINES = [header_line(header()), *map(frame_line, FRAMES)]


@pytest.fixture(params=[False, True], ids=["plain", "zstd"])
def compress(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "recording"


def read(path: Path) -> list[Item]:
    with RecordingReader(path) as reader:
        return list(reader)


def contents(path: Path) -> list[Content]:
    return [item.content for item in read(path)]


def of_bytes(path: Path, data: bytes) -> list[Content]:
    path.write_bytes(data)
    return contents(path)


def write(path: Path, lines: list[bytes], *, compress: bool) -> RecordingFile:
    file = RecordingFile(path, compress=compress)
    for line in lines:
        file.write(line)
    return file


# The lines


def test_what_was_written_comes_back_in_order(path: Path, compress: bool) -> None:
    reward = RewardInput(event=WorkAccepted(source="job", latency_ms=1.5))
    lines = [LINES[0], LINES[1], input_line(reward), LINES[2]]
    write(path, lines, compress=compress).close()
    assert contents(path) == [header(), FRAMES[0], reward, FRAMES[1]]


def test_lines_are_numbered_from_1(path: Path, compress: bool) -> None:
    write(path, LINES, compress=compress).close()
    assert [item.line for item in read(path)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "outside",
    [
        RewardInput(event=BreakthroughFound(metric="loss", value=0.1, time_utc=START)),
        SettingsInput(
            setpoints=Setpoints(clock_nominal_hz=1e9), rewards=RewardParameters(), faults=FaultParameters()
        ),
    ],
)
def test_an_input_comes_back_as_it_was(path: Path, outside: OutsideInput) -> None:
    [back] = of_bytes(path, input_line(outside))
    assert back == outside


def test_of_the_setpoints_only_those_that_were_set_come_back_as_set(path: Path) -> None:
    [back] = of_bytes(path, LINES[0])
    assert isinstance(back, Header)
    assert back.parameters.setpoints.model_fields_set == {"work_target"}


def test_a_start_state_comes_back_so_that_a_brain_goes_on_from_it(path: Path) -> None:
    brain = Brain(seed=7)
    for second in range(50):
        brain.step(frame(second, work=WorkSample(rate=0.1 * second)))
    [back] = of_bytes(path, header_line(header(parameters=brain.parameters, state=brain.state())))
    assert isinstance(back, Header)
    other = Brain(back.parameters, back.seed)
    other.restore(back.state)
    for second in range(50, 100):
        assert other.step(frame(second)) == brain.step(frame(second))
    assert json.dumps(other.state()) == json.dumps(brain.state())


DOUBLES = st.floats(allow_nan=False, allow_infinity=False)


@settings(derandomize=True, deadline=None)
@given(numbers=st.lists(DOUBLES), text=st.text())
def test_every_double_of_a_start_state_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[float], text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "recording"
    [back] = of_bytes(path, header_line(header(state={"v": numbers, "t": text, "n": 2**127})))
    assert isinstance(back, Header)
    assert [number.hex() for number in back.state["v"]] == [number.hex() for number in numbers]
    assert (back.state["t"], back.state["n"]) == (text, 2**127)


@settings(derandomize=True, deadline=None)
@given(
    ratio=st.floats(0.0, 1.0),
    number=DOUBLES,
    name=st.text(max_size=20),
    at=st.datetimes(timezones=st.just(UTC)),
)
def test_every_frame_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, ratio: float, number: float, name: str, at: datetime
) -> None:
    path = tmp_path_factory.getbasetemp() / "recording"
    values = {"node": name, "time_utc": at, "monotonic_s": number}
    gpu = GpuSample(index=0, name=name, temperature_celsius=number, utilization_ratio=ratio)
    written = TelemetryFrame(**values, gpus=(gpu,))
    [back] = of_bytes(path, frame_line(written))
    assert isinstance(back, TelemetryFrame)
    assert (back, back.monotonic_s.hex()) == (written, number.hex())


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_state_that_json_can_not_carry_is_not_written(number: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        header_line(header(state={"v": number}))


@pytest.mark.parametrize("name", ["format", "input", "NaN", "Infinity"])
def test_a_name_that_looks_like_something_else_is_but_a_name(path: Path, name: str) -> None:
    written = frame(work=WorkSample(source=name))
    assert of_bytes(path, frame_line(written)) == [written]


@pytest.mark.parametrize("line", LINES[:2])
def test_other_spaces_and_another_order_are_read_like_ours(path: Path, line: bytes) -> None:
    document = json.loads(line)
    turned = dict(reversed(document.items()))
    spaced = b"  " + json.dumps(turned, separators=(" ,\t", " : ")).encode() + b" \n"
    assert of_bytes(path, spaced) == of_bytes(path, line)


def test_line_ends_and_byte_order_mark_of_windows_are_read(path: Path) -> None:
    data = b"\xef\xbb\xbf" + b"".join(LINES).replace(b"\n", b"\r\n")
    assert of_bytes(path, data) == [header(), *FRAMES]


def test_unknown_fields_of_a_newer_neuromodd_are_ignored(path: Path) -> None:
    line = json.dumps({**json.loads(LINES[1]), "humidity_ratio": 0.5}).encode() + b"\n"
    assert of_bytes(path, line) == [FRAMES[0]]


# Broken lines


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"  \t", id="spaces"),
        pytest.param(b"not JSON", id="no JSON"),
        pytest.param(LINES[1][:-10], id="cut"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"null", id="null"),
        pytest.param(b"{}", id="empty object"),
        pytest.param(b'{"other": 1}', id="another object"),
        pytest.param(b"[" * 100_000, id="deeply nested"),
        pytest.param(b'{"a":' * 100_000, id="deeply nested objects"),
        pytest.param(b"\0" * 4096, id="zeros"),
        pytest.param(LINES[1].replace(b"lab", b"\xff\xfe").strip(), id="no UTF-8"),
        pytest.param(LINES[1].replace(b"0.25", b"NaN").strip(), id="NaN"),
        pytest.param(LINES[1].replace(b'"gap":', b'"other":NaN,"gap":').strip(), id="NaN aside"),
        pytest.param(LINES[1].replace(b"0.25", b"1.25").strip(), id="out of range"),
        pytest.param(LINES[1].replace(b"0.25", b"1e999").strip(), id="no double"),
        pytest.param(LINES[1].replace(b'"2024-05-01T12:00:00Z"', b"null").strip(), id="no time"),
        pytest.param(b'{"input":5}', id="input of a number"),
        pytest.param(b'{"input":{}}', id="input of no kind"),
        pytest.param(b'{"input":{"kind":"other"}}', id="input of another kind"),
        pytest.param(b'{"input":{"kind":"reward","event":{"kind":"other"}}}', id="another event"),
        pytest.param(b'{"format":"neuromodd-recording"}', id="header without version"),
        pytest.param(b'{"format":"neuromodd-recording","version":"1"}', id="version of text"),
        pytest.param(b'{"format":"neuromodd-recording","version":1}', id="header of nothing"),
        pytest.param(LINES[0].replace(b'"state":{', b'"state":5,"s":{').strip(), id="state of a number"),
        pytest.param(LINES[0].replace(b'"v":[0.0', b'"v":[1e999').strip(), id="state with no double"),
    ],
)
def test_a_broken_line_is_told_and_the_next_is_read(path: Path, line: bytes) -> None:
    path.write_bytes(LINES[1] + line + b"\n" + LINES[2])
    first, broken, last = read(path)
    assert (first.content, last) == (FRAMES[0], Item(3, FRAMES[1]))
    assert broken.line == 2
    assert isinstance(broken.content, Broken)
    assert "got " in broken.content.reason
    assert len(broken.content.reason) < 1000


def test_a_line_that_is_too_long_is_told_and_the_next_is_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "LINE_LIMIT_BYTES", 5000)
    monkeypatch.setattr(recording, "BUFFER_BYTES", 64)
    first, broken, last = of_bytes(path, LINES[1] + b"x" * 20_000 + b"\n" + LINES[2])
    assert (first, last) == (FRAMES[0], FRAMES[1])
    assert isinstance(broken, Broken)
    assert "5000 bytes" in broken.reason


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"format":"neuromodd-recording","version":2}', "version: got 2, expected 1; upgrade neuromodd"),
        (b'{"format":"other","version":1}', "format: got 'other', expected 'neuromodd-recording'"),
        (b'{"format":null}', "format: got None, expected 'neuromodd-recording'"),
    ],
)
def test_a_header_of_another_or_a_newer_format_is_refused(path: Path, line: bytes, reason: str) -> None:
    path.write_bytes(LINES[1] + line + b"\n")
    with pytest.raises(RecordingError) as caught:
        read(path)
    assert str(caught.value) == f"{path}:2: {reason}"


# The end


def test_a_line_cut_short_by_a_kill_is_not_an_error(path: Path) -> None:
    end = of_bytes(path, b"".join(LINES)[:-10])[-1]
    assert end == Truncated("the file ends within a line")


def test_a_whole_last_line_without_its_end_is_read(path: Path) -> None:
    assert of_bytes(path, b"".join(LINES).rstrip(b"\n")) == [header(), *FRAMES]


def test_an_empty_file_has_no_lines(path: Path) -> None:
    assert of_bytes(path, b"") == []


@pytest.mark.parametrize("ended", [False, True], ids=["killed", "closed"])
def test_a_file_cut_anywhere_gives_its_whole_lines(path: Path, compress: bool, ended: bool) -> None:
    file = write(path, LINES, compress=compress)
    if ended:
        file.close()
    whole, data = [header(), *FRAMES], path.read_bytes()
    counts = []
    for length in sorted({*range(0, len(data), 7), *range(20), *range(len(data) - 20, len(data))}):
        found = of_bytes(path.with_suffix(".cut"), data[:length])
        kept = [content for content in found if not isinstance(content, Truncated)]
        assert kept == whole[: len(kept)]
        assert len(found) - len(kept) <= 1
        counts.append(len(kept))
    assert counts == sorted(counts)
    assert counts[-1] >= len(whole) - 1
    if not ended:
        file.close()


def test_a_stream_that_a_kill_cut_short_has_all_that_was_written(path: Path) -> None:
    file = write(path, LINES, compress=True)
    end = Truncated("the file ends within its zstd stream")
    assert contents(path) == [header(), *FRAMES, end]
    file.close()
    assert contents(path) == [header(), *FRAMES]


def test_damage_within_a_stream_is_told_once_and_is_the_end(path: Path) -> None:
    write(path, [LINES[0], *map(frame_line, map(frame, range(5000)))], compress=True).close()
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(200)
    *before, last = of_bytes(path, bytes(data))
    assert isinstance(last, Broken)
    assert last.reason.startswith("zstd: ")
    assert 1 < len(before) < 5001
    assert before == [header(), *map(frame, range(len(before) - 1))]


# The files


def test_files_one_after_the_other_are_read_as_one(path: Path, compress: bool) -> None:
    write(path, LINES, compress=compress).close()
    data = path.read_bytes()
    assert of_bytes(path, data + data) == [header(), *FRAMES] * 2


def test_a_file_is_known_by_its_content_not_by_its_name(tmp_path: Path, compress: bool) -> None:
    path = tmp_path / ("plain.jsonl" if compress else "packed.jsonl.zst")
    write(path, LINES, compress=compress).close()
    assert contents(path) == [header(), *FRAMES]


def test_a_file_that_another_program_compressed_is_read(path: Path) -> None:
    packed = zstandard.ZstdCompressor(level=19).compress(b"".join(LINES) * 100)
    assert of_bytes(path, packed) == [header(), *FRAMES] * 100


def test_the_position_goes_from_nothing_to_the_whole_file(path: Path, compress: bool) -> None:
    write(path, LINES * 50, compress=compress).close()
    with RecordingReader(path) as reader:
        positions = [reader.position, *(reader.position for _ in reader)]
        assert reader.total == path.stat().st_size
    assert positions == sorted(positions)
    assert (positions[0], positions[-1]) == (0, reader.total)


def test_a_recording_is_for_its_owner_alone(path: Path) -> None:
    RecordingFile(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_there_is_not_written_over(path: Path) -> None:
    path.write_bytes(LINES[0])
    with pytest.raises(FileExistsError):
        RecordingFile(path)
    assert path.read_bytes() == LINES[0]


def test_the_size_is_that_on_the_disk(path: Path, compress: bool) -> None:
    file = write(path, LINES, compress=compress)
    assert file.size == path.stat().st_size
    file.close()
    assert file.size == path.stat().st_size


def test_compressed_lines_take_a_fraction_of_the_space(path: Path) -> None:
    lines = [frame_line(frame(second)) for second in range(500)]
    write(path, lines, compress=True).close()
    assert path.stat().st_size * 5 < sum(map(len, lines))


def test_a_full_disk_is_told(path: Path, compress: bool) -> None:
    file = RecordingFile(path, compress=compress)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, file._descriptor)
    os.close(full)
    with pytest.raises(OSError, match="No space left") as caught:
        file.write(LINES[0])
    assert (caught.value.errno, file.size) == (errno.ENOSPC, 0)
    os.close(file._descriptor)


def test_a_write_that_fails_half_way_leaves_whole_lines(
    path: Path, compress: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(path, LINES[:2], compress=compress)
    really, size = os.write, file.size

    def half(descriptor: int, data: memoryview) -> int:
        if os.fstat(descriptor).st_size > size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return really(descriptor, data[: len(data) // 2])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        with pytest.raises(OSError, match="No space left"):
            file.write(LINES[2])
    file.close()
    assert file.size == path.stat().st_size == size
    assert [c for c in contents(path) if not isinstance(c, Truncated)] == [header(), FRAMES[0]]


def test_a_file_that_is_not_there_is_an_error_of_the_system(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        RecordingReader(path)


# The extra


def test_without_zstandard_a_compressed_file_is_not_begun(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingExtraError, match=r"neuromodd\[zstd\]"):
        RecordingFile(path, compress=True)
    assert not path.exists()


def test_without_zstandard_a_compressed_file_names_the_extra(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(path, LINES, compress=True).close()
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingExtraError, match=r"neuromodd\[zstd\]"):
        RecordingReader(path)


def test_without_zstandard_a_plain_file_is_written_and_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    write(path, LINES, compress=False).close()
    assert contents(path) == [header(), *FRAMES]
