"""The commands that work without a daemon: `record`, `replay`, `plot`, `report`, `export-mem` and `fpga`."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from neuromodd.config import Settings
from neuromodd.core import parameter_file
from neuromodd.core.engine import SpikingInferenceEngine
from neuromodd.core.fpga_memory import memory_images
from neuromodd.errors import CheckpointDamagedError, InvalidValueError, SensorAbsentError
from neuromodd.outputs import Bar, check_apart, check_writable, is_stdout, replacing, say
from neuromodd.replay import Replay, Report, naming
from neuromodd.scribe import Recorded
from neuromodd.sensors.fpga import FpgaSensor
from neuromodd.sinks.checkpoint import CheckpointStore
from neuromodd.sinks.checkpoint_file import check_dimensions, decode
from neuromodd.sinks.recorder import Recorder

if TYPE_CHECKING:
    from neuromodd.dashboard.digest import Digest

OTHER_NETWORK = "; give the --config of that network"


def replay_files(
    paths: Sequence[Path],
    *,
    checkpoint_in: Path | None,
    checkpoint_out: Path | None,
    out: Path | None,
    skip_bad: bool,
) -> None:
    """Replay recordings; the report goes to standard output unless the ticks do.

    No file is made or emptied before all that is to be read is there.

    Raises:
        InvalidValueError: `out` or `checkpoint_out` would overwrite another file of the replay, or
            `checkpoint_out` can't be written.
        OSError: a file can't be read or written; it names the file.
    """
    bar = Bar(shown=sys.stderr.isatty())
    replay = Replay(
        paths,
        checkpoint_in=checkpoint_in,
        checkpoint_out=checkpoint_out,
        skip_bad=skip_bad,
        note=bar.say,
        progress=lambda share, report: bar.draw(share, report.frames, report.seconds),
    )
    if checkpoint_out is not None:
        _check_checkpoint_out(checkpoint_out, paths)
    if out is not None and not is_stdout(out):
        _check_out(out, paths, checkpoint_in, checkpoint_out)
    try:
        with _opened(out) as file:
            replay.run(file)
    except KeyboardInterrupt:
        unwritten = "" if checkpoint_out is None else f"; {checkpoint_out} is not written"
        bar.say(f"interrupted after {summary(replay.report)}{unwritten}")
        raise
    finally:
        bar.clear()
    print(summary(replay.report), file=sys.stderr if is_stdout(out) else sys.stdout, flush=True)


def summary(report: Report) -> str:
    """What a replay did, in a line."""
    seconds = max(report.seconds, 1e-9)
    parts = [
        f"{report.frames} frames in {report.seconds:.2f} s, {report.frames / seconds:.0f} frames/s",
        f"{'compiled' if report.compiled else 'not compiled'}",
        f"rewards {report.rewards}",
        f"lines skipped {report.skipped}",
        f"step {report.step}",
    ]
    return "; ".join(parts)


def plot_recordings(
    paths: Sequence[Path],
    *,
    out: Path,
    checkpoint_in: Path | None,
    from_utc: datetime | None,
    to_utc: datetime | None,
    skip_bad: bool,
) -> None:
    """Draw recordings into a file, which is whole or not there.

    Raises:
        InvalidValueError: `out` has another ending than those of `plot.FORMATS`, would overwrite a file that
            is read, or can't be written; or there is no frame in that time.
        MissingExtraError: matplotlib is not installed.
        OSError: a file can't be read or written; it names the file.
    """
    # Large, and of no use to the other commands.
    from neuromodd.dashboard import plot  # noqa: PLC0415

    form = plot.form_of(out)
    plot.require()
    _check_out(out, paths, checkpoint_in, None, option="-o")
    check_writable("-o", out)
    digest = _digest(paths, checkpoint_in, from_utc, to_utc, skip_bad=skip_bad)
    data = plot.drawn(digest, paths, form)
    with replacing(out) as file:
        file.write(data)
    print(f"{out}: {digest.frames} frames, {len(data)} bytes", flush=True)


def print_report(
    paths: Sequence[Path],
    *,
    checkpoint_in: Path | None,
    from_utc: datetime | None,
    to_utc: datetime | None,
    skip_bad: bool,
    as_json: bool,
) -> None:
    """Print a page on recordings.

    Raises:
        InvalidValueError: there is no frame in that time.
        OSError: a file can't be read; it names the file.
    """
    from neuromodd.dashboard import report  # noqa: PLC0415 - as above
    from neuromodd.dashboard.facts import facts  # noqa: PLC0415

    told = facts(_digest(paths, checkpoint_in, from_utc, to_utc, skip_bad=skip_bad), paths)
    print(report.as_json(told) if as_json else report.text(told), flush=True)


def _digest(
    paths: Sequence[Path],
    checkpoint_in: Path | None,
    from_utc: datetime | None,
    to_utc: datetime | None,
    *,
    skip_bad: bool,
) -> Digest:
    """Replay recordings, and keep of them what is drawn and told."""
    from neuromodd.dashboard.digest import Digest  # noqa: PLC0415 - as above

    if from_utc is not None and to_utc is not None and to_utc < from_utc:
        raise InvalidValueError("--to", to_utc.isoformat(), f"a time after {from_utc.isoformat()}, --from")
    digest = Digest(from_utc=from_utc)
    bar = Bar(shown=sys.stderr.isatty())
    replay = Replay(
        paths,
        checkpoint_in=checkpoint_in,
        skip_bad=skip_bad,
        until_utc=to_utc,
        watch=digest.take,
        note=bar.say,
        progress=lambda share, report: bar.draw(share, report.frames, report.seconds),
    )
    try:
        replay.run()
    finally:
        bar.clear()
    if digest.first is None:
        raise InvalidValueError("recording", f"{replay.report.frames} frames", "one in the time asked for")
    return digest


def announce_recording(recorder: Recorder) -> None:
    """Say on a terminal where the recording goes."""
    print(f"recording into {recorder.directory}; stop with Ctrl-C", file=sys.stderr, flush=True)


def print_recording(recorded: Recorded) -> bool:
    """Say what was recorded, and return whether that is all of it."""
    health = recorded.health
    print(f"{health.frames} frames; recordings there now have {health.total_bytes} bytes", flush=True)
    missing = recorded.frames - health.frames
    if missing:
        why = "" if health.error is None else f": {health.error}"
        say(f"{missing} of {recorded.frames} frames are missing in the recordings{why}")
    return not missing


def export_memory(settings: Settings, source: Path | None, directory: Path) -> None:
    """Write memory images of what was learned.

    Args:
        settings: of the network.
        source: a checkpoint, or a file of `save_parameters`; not given, the state directory's newest.
        directory: where the images go; made if it is missing.

    Raises:
        CheckpointDamagedError: the source is not whole.
        CheckpointMismatchError: it is of another network.
        InvalidValueError: there is no checkpoint.
        OSError: a file can't be read or written.
    """
    engine = SpikingInferenceEngine(settings.engine.parameters(), compiled=False)
    if source is None:
        source = _take_newest(engine, settings.checkpoint.state_directory())
    else:
        _take_over(engine, source)
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in memory_images(engine).items():
        draft = directory / f"{name}.draft"
        with naming(draft):
            draft.write_text(text, encoding="ascii")
        draft.replace(directory / name)
        print(f"{directory / name}: {len(text.splitlines())} words")
    print(f"from {source}, step {engine.step_count}", flush=True)


def _take_newest(engine: SpikingInferenceEngine, directory: Path) -> Path:
    """Take over the newest whole checkpoint; damaged ones are told, and left for the daemon to set aside."""
    damaged: list[CheckpointDamagedError] = []
    for path in CheckpointStore(directory, keep=1).paths():
        try:
            _take_over(engine, path)
        except CheckpointDamagedError as error:
            damaged.append(error)
            continue
        for reason in damaged:
            say(f"{reason}; {path} is used instead")
        return path
    if damaged:
        raise damaged[0]
    raise InvalidValueError("export-mem", f"no checkpoint in {directory}", "one, or --from FILE")


def _take_over(engine: SpikingInferenceEngine, source: Path) -> None:
    """Give the engine what a checkpoint or a file of `save_parameters` holds."""
    data = source.read_bytes()
    dimensions = engine.config.dimensions
    document = _parameters_in(data)
    if document is None:
        header, state = decode(source, data)
        check_dimensions(source, header, dimensions, remedy=OTHER_NETWORK)
        engine.restore(state["engine"])
        return
    if isinstance(document.get("dimensions"), dict):
        check_dimensions(source, document, dimensions, remedy=OTHER_NETWORK)
    engine.load_parameters(source)


def _parameters_in(data: bytes) -> dict[str, Any] | None:
    """The document of `save_parameters`; None if it is something else."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if isinstance(document, dict) and document.get("format") == parameter_file.FORMAT:
        return document
    return None


def print_fpga_metrics(report: Path, utilization: Path | None, *, as_json: bool) -> bool:
    """Print what the reports of an FPGA build say; whether no slack is negative, as far as there is one.

    Raises:
        SensorAbsentError: a report is not there.
        SensorError: a report can't be read, or is none.
    """
    if utilization is not None and not utilization.exists():
        raise SensorAbsentError(f"{utilization}: no such file")
    metrics = FpgaSensor(timing_report=report, utilization_report=utilization).read()
    if as_json:
        print(metrics.to_json(), flush=True)
    else:
        for name, value in metrics.model_dump().items():
            print(f"{name:<22} {'-' if value is None else value}", flush=True)
    if metrics.met is None:
        say("no path is constrained: there is no slack to judge")
    return metrics.met is not False


@contextlib.contextmanager
def _opened(out: Path | None) -> Iterator[IO[bytes] | None]:
    if out is None:
        yield None
    elif is_stdout(out):
        with naming("standard output"):
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
    else:
        with naming(out), out.open("wb") as file:
            yield file


def _check_checkpoint_out(target: Path, recordings: Sequence[Path]) -> None:
    """Refuse to write a checkpoint over a recording, or where it can't be written."""
    check_apart("--checkpoint-out", target, recordings, "a file that is not replayed")
    check_writable("--checkpoint-out", target)


def _check_out(
    out: Path,
    recordings: Sequence[Path],
    checkpoint_in: Path | None,
    checkpoint_out: Path | None,
    *,
    option: str = "--out",
) -> None:
    """Refuse to write over another file of the replay."""
    check_apart(option, out, recordings, "a file that is not replayed")
    for of, other in (("--checkpoint-in", checkpoint_in), ("--checkpoint-out", checkpoint_out)):
        if other is not None:
            check_apart(option, out, (other,), f"another file than {of}")
