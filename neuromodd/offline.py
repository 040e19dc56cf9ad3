"""The commands that work without a daemon: `record`, `replay`, `export-mem` and `fpga`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from neuromodd.config import Settings
from neuromodd.core import parameter_file
from neuromodd.core.engine import SpikingInferenceEngine, numba_installed
from neuromodd.core.fpga_memory import memory_images
from neuromodd.core.messages import RecorderHealth
from neuromodd.errors import InvalidValueError, SensorAbsentError
from neuromodd.replay import Report, replay
from neuromodd.sensors.fpga import FpgaSensor
from neuromodd.sinks.checkpoint import CheckpointStore, check_dimensions, decode
from neuromodd.sinks.recorder import Recorder

BAR_WIDTH = 30


def replay_files(
    paths: Sequence[Path],
    *,
    checkpoint_in: Path | None,
    checkpoint_out: Path | None,
    out: Path | None,
    skip_bad: bool,
) -> None:
    """Replay recordings; the report goes to standard output unless the ticks do.

    Raises:
        InvalidValueError: `out` is one of the recordings.
    """
    if out is not None and any(_same(out, path) for path in paths):
        raise InvalidValueError("--out", str(out), "a file that is not replayed")
    if not numba_installed():
        _say("numba is not installed: the replay runs slower; pip install 'neuromodd[fast]'")
    bar = _Bar() if sys.stderr.isatty() else None
    with _opened(out) as file:
        report = replay(
            paths,
            checkpoint_in=checkpoint_in,
            checkpoint_out=checkpoint_out,
            out=file,
            skip_bad=skip_bad,
            note=_say if bar is None else bar.say,
            progress=(lambda _share, _report: None) if bar is None else bar.draw,
        )
    if bar is not None:
        bar.clear()
    print(summary(report), file=sys.stderr if _is_stdout(out) else sys.stdout, flush=True)


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


def announce_recording(recorder: Recorder) -> None:
    """Say on a terminal where the recording goes."""
    print(f"recording into {recorder.directory}; stop with Ctrl-C", file=sys.stderr, flush=True)


def print_recording(health: RecorderHealth) -> None:
    """Say what was recorded."""
    print(f"{health.frames} frames; recordings there now have {health.total_bytes} bytes", flush=True)


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
        store = CheckpointStore(settings.checkpoint.state_directory(), keep=settings.checkpoint.keep)
        paths = store.paths()
        if not paths:
            raise InvalidValueError(
                "export-mem", f"no checkpoint in {store.directory}", "one, or --from FILE"
            )
        source = paths[0]
    data = source.read_bytes()
    if parameter_file.FORMAT.encode() in data[:200]:
        engine.load_parameters(source)
    else:
        header, state = decode(source, data)
        check_dimensions(source, header, engine.config.dimensions)
        engine.restore(state["engine"])
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in memory_images(engine).items():
        draft = directory / f"{name}.draft"
        draft.write_text(text, encoding="ascii")
        draft.replace(directory / name)
        print(f"{directory / name}: {len(text.splitlines())} words")
    print(f"from {source}, step {engine.step_count}", flush=True)


def print_fpga_metrics(report: Path, utilization: Path | None, *, as_json: bool) -> bool:
    """Print what the reports of an FPGA build say, and whether it met its timing: no slack is negative.

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
    if metrics.wns_ns is None:
        _say("no path is constrained: there is no slack to judge")
    return min(metrics.wns_ns or 0.0, metrics.whs_ns or 0.0) >= 0.0


class _Bar:
    """A progress bar on standard error, which is a terminal."""

    def draw(self, share: float, report: Report) -> None:
        """Draw it anew: the share that is done, the speed, and what is left."""
        filled = int(share * BAR_WIDTH)
        seconds = max(report.seconds, 1e-9)
        left_s = seconds * (1.0 - share) / share if share > 0.0 else 0.0
        bar = f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {share:4.0%}"
        self._write(f"{bar}  {report.frames / seconds:,.0f} frames/s  {left_s:,.0f} s left")

    def say(self, text: str) -> None:
        """A line of its own above the bar."""
        self.clear()
        _say(text)

    def clear(self) -> None:
        """Remove it."""
        self._write("")

    def _write(self, text: str) -> None:
        # To the beginning of the line, and whatever is left of the old one removed.
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _opened(out: Path | None) -> Iterator[IO[bytes] | None]:
    if out is None:
        yield None
    elif _is_stdout(out):
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    else:
        with out.open("wb") as file:
            yield file


def _is_stdout(out: Path | None) -> bool:
    return out is not None and str(out) == "-"


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _say(text: str) -> None:
    print(f"neuromodd: {text}", file=sys.stderr, flush=True)
