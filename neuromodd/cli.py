"""The command line; the only place that exits.

Exit status: 0 ended as asked, 1 failed at run time, 2 configuration, 3 the state directory is locked.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import csv
import importlib.util
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, TypeVar

from neuromodd import __version__, logs
from neuromodd.clocks import SteadyLoop
from neuromodd.config import NODE_PATTERN, Option, options, resolve_broker
from neuromodd.core.schemas import SCHEMA_NAMES, schema
from neuromodd.errors import (
    CheckpointMismatchError,
    ConfigurationError,
    InvalidRecordError,
    InvalidValueError,
    MissingExtraError,
    NeuromoddError,
    StateDirectoryLockedError,
)
from neuromodd.health import ANSWER_S, ask, print_answer, runtime_directories
from neuromodd.loading import Loaded, load

if TYPE_CHECKING:
    from neuromodd.daemon import Daemon

T = TypeVar("T")

REWARD_KINDS = {
    "work-accepted": "WorkAccepted",
    "breakthrough-found": "BreakthroughFound",
    "source-switch": "SourceSwitch",
}

REWARD_FIELDS: dict[str, tuple[type, str]] = {
    "latency_ms": (float, "work-accepted: how long it took"),
    "units": (float, "work-accepted: how much work it was"),
    "source": (str, "work-accepted: who did it"),
    "metric": (str, "breakthrough-found: what was better"),
    "value": (float, "breakthrough-found: the new best"),
    "previous_best": (float, "breakthrough-found: the best before"),
    "previous": (str, "source-switch: where work came from"),
    "current": (str, "source-switch: where it comes from now"),
}

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_CONFIGURATION = 2
EXIT_LOCKED = 3
EXIT_INTERRUPTED = 130

EXAMPLES = """\
examples:
  neuromodd run                                   start, with a broker inside if none is set
  neuromodd run --mqtt.host broker.lan            publish to your broker
  neuromodd run --config ./neuromodd.toml --tick.interval_s 0.5
  neuromodd check                                 is the configuration right, what would run?
  neuromodd health                                does the daemon tick?
  neuromodd doctor                                what is missing here, and what to do about it
  neuromodd sample -n 3                           three frames as JSON lines, without a broker
  neuromodd schema state                          JSON Schema of a payload
  neuromodd top --all                             all nodes of the broker in this terminal
  neuromodd reward work-accepted --latency-ms 12  tell the daemon that work was done
  neuromodd record -n 3600                        an hour of frames, recorded
  neuromodd replay recording-*.jsonl --out ticks.jsonl
  neuromodd plot recording-*.jsonl -o week.html   a picture and a page of a recording
  neuromodd report recording-*.jsonl              the page alone, as text
  neuromodd detect cpu.csv --plot cpu.png         what is strange in measurements, or in recordings
  neuromodd checkpoint list                       what the daemon would go on from
  neuromodd export-mem ./mem                      thresholds, weights and decays for $readmemh
  neuromodd fpga timing.rpt && program_fpga       only if the build met its timing

exit status: 0 as asked, 1 failed at run time, 2 configuration, 3 state directory locked;
  of health: 0 it ticks, 1 it does not, or there is none
  of doctor: 0 nothing fails, 1 something does, 2 the configuration can't be used
  of detect: 0 also where anomalies were found; --json tells them to scripts
  of fpga: 1 timing is not met, 2 the reports can't be used
"""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Parse, dispatch, exit."""
    # Started with a closed stream, as old init scripts do, Python has None in its place.
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    parsed = _parser().parse_args(arguments)
    try:
        status = parsed.command(parsed)
    except ConfigurationError as error:
        for text in (*error.warnings, *(str(fault) for fault in error.faults)):
            _complain(text)
        status = EXIT_CONFIGURATION
    except (CheckpointMismatchError, MissingExtraError) as error:
        _complain(str(error))
        status = EXIT_CONFIGURATION
    except StateDirectoryLockedError as error:
        _complain(str(error))
        status = EXIT_LOCKED
    except BaseExceptionGroup as group:
        for failure in _leaves(group):
            _complain(f"{type(failure).__name__}: {failure}")
            if not isinstance(failure, (NeuromoddError, OSError)):
                # A fault of ours: whoever reports it needs to show where.
                traceback.print_exception(failure)
        status = EXIT_FAILED
    except BrokenPipeError:
        # Whoever read our output has had enough; nothing more can be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = EXIT_OK
    except (NeuromoddError, OSError) as error:
        _complain(_told(error))
        status = EXIT_FAILED
    except KeyboardInterrupt:
        status = EXIT_INTERRUPTED
    _leave(status)


def _run(parsed: argparse.Namespace) -> int:
    # Until the daemon listens to it, a reload that comes early is none.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    loaded = _load(parsed)
    logs.configure(level=loaded.settings.log.level, form=loaded.settings.log.format)
    for warning in loaded.warnings:
        _complain(warning)
    _run_loop(_daemon(parsed, loaded))
    return EXIT_OK


async def _daemon(parsed: argparse.Namespace, loaded: Loaded) -> None:
    # The daemon brings aiomqtt and the sensors: `check` and `schema` are quicker without.
    from neuromodd.daemon import Daemon  # noqa: PLC0415

    daemon = Daemon(loaded, reload=lambda: _load(parsed), fresh=parsed.fresh)
    await daemon.run(started=_greet if sys.stdout.isatty() else None)


def _greet(daemon: Daemon) -> None:
    broker = "an embedded broker on" if daemon.broker.embedded else "the broker at"
    print(
        f"\nneuromodd {__version__} is alive as node {daemon.node}.\n"
        f"  measures   {', '.join(daemon.sensors)}\n"
        f"  publishes  to {broker} {daemon.broker.host}:{daemon.broker.port}\n"
        f"  remembers  in {daemon.state_path}\n"
        f"  look       {daemon.subscribe_command()}\n"
        f"{'' if daemon.page is None else f'  browse     {daemon.page}{chr(10)}'}"
        f"  stop       Ctrl-C\n",
        flush=True,
    )


def _check(parsed: argparse.Namespace) -> int:
    loaded = _load(parsed)
    settings = loaded.settings
    for warning in loaded.warnings:
        _complain(warning)
    broker = resolve_broker(settings)
    kind = "embedded broker" if broker.embedded else "broker"
    encrypted = " with TLS" if settings.mqtt.tls_enabled else ""
    print(f"configuration    {loaded.file or 'defaults, no file'}")
    print(f"node             {settings.node_name()}")
    tick, steps = settings.tick.interval_s, settings.engine.steps_per_tick
    print(f"tick             every {tick} s, {steps} network steps each")
    print(f"{kind:<16} {broker.host}:{broker.port}{encrypted}")
    print(f"topics           {settings.mqtt.prefix}/{settings.node_name()}/#")
    if settings.mqtt.inbound.enabled:
        print(f"listens to       {settings.mqtt.prefix}/{settings.node_name()}/in/#")
    if settings.homeassistant.enabled:
        print(f"Home Assistant   is told below {settings.homeassistant.prefix}/device/")
    if settings.web.enabled:
        print(f"web view         http://{settings.web.place}/")
    print(f"state directory  {settings.checkpoint.state_directory()}")
    print(f"sensors          {settings.sensors.procfs_root} and {settings.sensors.sysfs_root}")
    if settings.sensors.disabled:
        print(f"disabled         {', '.join(settings.sensors.disabled)}")
    print("The configuration is right.", flush=True)
    return EXIT_OK


def _health(parsed: argparse.Namespace) -> int:
    directories = runtime_directories()
    try:
        directories.append(_load(parsed).settings.checkpoint.state_directory())
    except ConfigurationError as error:
        # Not 2: whether there is a daemon can be told all the same.
        for fault in error.faults:
            _complain(str(fault))
    return print_answer(ask(directories, parsed.timeout_s), as_json=parsed.json)


def _doctor(parsed: argparse.Namespace) -> int:
    from neuromodd.doctor.command import diagnose  # noqa: PLC0415 - as above

    # What a sensor or the client would say in a log is among the findings.
    logs.configure(level="error", form="auto")
    report, refused = _run_loop(diagnose(lambda: _load(parsed), as_json=parsed.json))
    if refused:
        return EXIT_CONFIGURATION
    return EXIT_FAILED if report.verdict == "failure" else EXIT_OK


def _sample(parsed: argparse.Namespace) -> int:
    loaded = _load(parsed)
    logs.configure(level="error", form=loaded.settings.log.format)
    _run_loop(_print_frames(loaded, parsed.n))
    return EXIT_OK


async def _print_frames(loaded: Loaded, count: int) -> None:
    from neuromodd.eye import Eye, beats  # noqa: PLC0415 - as above

    settings = loaded.settings
    eye = Eye(settings)
    grid = beats(lambda: settings.tick.interval_s, asyncio.get_running_loop().time)
    try:
        # The first look primes the counters; it has no rates and is not printed.
        await eye.look(sequence=0, lateness_ms=None)
        for sequence in range(count):
            due = await anext(grid)
            frame = await eye.look(sequence=sequence, lateness_ms=due.lateness_s * 1000.0)
            print(frame.to_json(), flush=True)
    finally:
        eye.close()


def _record(parsed: argparse.Namespace) -> int:
    loaded = _load(parsed)
    logs.configure(level=loaded.settings.log.level, form=loaded.settings.log.format)
    for warning in loaded.warnings:
        _complain(warning)
    return EXIT_OK if _run_loop(_record_frames(loaded, parsed.n)) else EXIT_FAILED


async def _record_frames(loaded: Loaded, frames: int | None) -> bool:
    from neuromodd.offline import announce_recording, print_recording  # noqa: PLC0415 - as above
    from neuromodd.scribe import record  # noqa: PLC0415

    started = announce_recording if sys.stderr.isatty() else None
    return print_recording(await record(loaded.settings, frames=frames, started=started))


def _replay(parsed: argparse.Namespace) -> int:
    from neuromodd.offline import replay_files  # noqa: PLC0415 - as above

    replay_files(
        parsed.files,
        checkpoint_in=parsed.checkpoint_in,
        checkpoint_out=parsed.checkpoint_out,
        out=parsed.out,
        skip_bad=parsed.skip_bad,
    )
    return EXIT_OK


def _plot(parsed: argparse.Namespace) -> int:
    from neuromodd.offline import plot_recordings  # noqa: PLC0415 - as above

    return _viewed(partial(plot_recordings, out=parsed.out), parsed)


def _report(parsed: argparse.Namespace) -> int:
    from neuromodd.offline import print_report  # noqa: PLC0415 - as above

    return _viewed(partial(print_report, as_json=parsed.json), parsed)


def _detect(parsed: argparse.Namespace) -> int:
    from neuromodd.detect.command import Options, detect_files  # noqa: PLC0415 - as above

    wanted = Options(
        channels=parsed.channels or (),
        time=parsed.time,
        threshold=parsed.threshold,
        fresh=parsed.fresh,
        skip_bad=parsed.skip_bad,
        out=parsed.out,
        plot=parsed.plot,
        as_json=parsed.json,
    )
    try:
        detect_files(parsed.files, wanted)
    except InvalidValueError as error:
        # Not 1, as of `plot` and `report`.
        _complain(str(error))
        return EXIT_CONFIGURATION
    return EXIT_OK


def _viewed(view: Callable[..., None], parsed: argparse.Namespace) -> int:
    try:
        view(
            parsed.files,
            checkpoint_in=parsed.checkpoint_in,
            from_utc=parsed.from_utc,
            to_utc=parsed.to_utc,
            skip_bad=parsed.skip_bad,
        )
    except InvalidValueError as error:
        # Not 1: nothing failed, something was asked for that can't be.
        _complain(str(error))
        return EXIT_CONFIGURATION
    return EXIT_OK


def _export_mem(parsed: argparse.Namespace) -> int:
    from neuromodd.offline import export_memory  # noqa: PLC0415 - as above

    export_memory(_load(parsed).settings, parsed.source, parsed.directory)
    return EXIT_OK


def _checkpoint_list(parsed: argparse.Namespace) -> int:
    from neuromodd.checkpoints import list_checkpoints  # noqa: PLC0415 - as above

    directory = _load(parsed).settings.checkpoint.state_directory()
    list_checkpoints(directory, as_json=parsed.json, now_utc=datetime.now(UTC))
    return EXIT_OK


def _checkpoint_show(parsed: argparse.Namespace) -> int:
    from neuromodd.checkpoints import show_checkpoint  # noqa: PLC0415 - as above

    settings = _load(parsed).settings
    show_checkpoint(
        settings.checkpoint.state_directory(),
        parsed.file,
        node=settings.node_name(),
        as_json=parsed.json,
        now_utc=datetime.now(UTC),
    )
    return EXIT_OK


def _checkpoint_reset(parsed: argparse.Namespace) -> int:
    from neuromodd.checkpoints import reset_checkpoints  # noqa: PLC0415 - as above

    if not parsed.yes and not sys.stdin.isatty():
        _complain("checkpoint reset: there is no terminal to ask on; --yes agrees beforehand")
        return EXIT_CONFIGURATION
    checkpoint = _load(parsed).settings.checkpoint
    done = reset_checkpoints(
        checkpoint.state_directory(),
        keep=checkpoint.keep,
        agreed=(lambda _: True) if parsed.yes else _agreed,
    )
    return EXIT_OK if done else EXIT_FAILED


def _agreed(question: str) -> bool:
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _capture(parsed: argparse.Namespace) -> int:
    from neuromodd.capture import Capture  # noqa: PLC0415 - as above

    loaded = _load(parsed)
    logs.configure(level="error", form=loaded.settings.log.format)
    capture = Capture(loaded.settings, parsed.directory)
    _run_loop(capture.look())
    files = capture.store()
    print(f"{files} files of this machine in {parsed.directory}; look through them before you send them")
    return EXIT_OK


def _fpga(parsed: argparse.Namespace) -> int:
    from neuromodd.offline import print_fpga_metrics  # noqa: PLC0415 - as above

    try:
        met = print_fpga_metrics(parsed.report, parsed.utilization, as_json=parsed.json)
    except NeuromoddError as error:
        # Not 1: a script must be able to tell a slow design from a wrong path.
        _complain(str(error))
        return EXIT_CONFIGURATION
    return EXIT_OK if met else EXIT_FAILED


def _top(parsed: argparse.Namespace) -> int:
    if parsed.all and vars(parsed)["node"] is not None:
        _complain("top: --node or --all, not both")
        return EXIT_CONFIGURATION
    if importlib.util.find_spec("textual") is None:
        raise MissingExtraError("top", "tui")
    # Textual reads the first and draws on the third.
    drawable = all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))
    if not drawable or os.environ.get("TERM", "dumb") == "dumb":
        _complain("top: it needs a terminal to draw on; for other programs there is mosquitto_sub")
        return EXIT_CONFIGURATION
    # Textual takes a quarter of a second to import: the others are quicker without.
    from neuromodd.dashboard.top import look  # noqa: PLC0415

    settings = _load(parsed).settings
    logs.configure(level="error", form=settings.log.format)
    _run_loop(
        look(
            settings,
            resolve_broker(settings),
            settings.mqtt.read_password(),
            node=settings.node_name(),
            of_all=parsed.all,
            given=settings.node is not None,
            plain=not _speaks_unicode(),
        )
    )
    return EXIT_OK


def _speaks_unicode() -> bool:
    # Python itself takes UTF-8 for granted where the locale is C.
    named = (os.environ.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    locale = next(filter(None, named), "")
    return "utf8" in locale.lower().replace("-", "")


def _reward(parsed: argparse.Namespace) -> int:
    from neuromodd.reporter import build_request, send_reward  # noqa: PLC0415 - as above

    given = {name: getattr(parsed, name) for name in REWARD_FIELDS if getattr(parsed, name) is not None}
    settings = _load(parsed).settings
    logs.configure(level="error", form=settings.log.format)
    node = settings.node_name() if parsed.to is None else parsed.to
    try:
        request = build_request(REWARD_KINDS[parsed.kind], node, given, identity=parsed.id)
    except InvalidRecordError as error:
        _complain(str(error))
        return EXIT_CONFIGURATION
    sent = _run_loop(send_reward(settings, resolve_broker(settings), request, timeout_s=parsed.timeout_s))
    if sent.answer is not None and not sent.answer.ok:
        _complain(f"node {request.node} refused it: {sent.answer.refusal}: {sent.answer.error}")
        return EXIT_FAILED
    if sent.answer is None:
        _complain("sent; whether it was taken, a broker of MQTT 3.1.1 can't tell")
    print(sent.id, flush=True)
    return EXIT_OK


def _schema(parsed: argparse.Namespace) -> int:
    if parsed.asyncapi:
        from neuromodd.core.asyncapi import asyncapi  # noqa: PLC0415 - as above

        print(json.dumps(asyncapi(), indent=2), flush=True)
        return EXIT_OK
    shown = schema(parsed.name) if parsed.name else {name: schema(name) for name in SCHEMA_NAMES}
    print(json.dumps(shown, indent=2), flush=True)
    return EXIT_OK


def _load(parsed: argparse.Namespace) -> Loaded:
    given = vars(parsed)
    overrides = {
        option.name: given[option.name] for option in options() if given.get(option.name) is not None
    }
    return load(parsed.config, overrides)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="neuromodd",
        description="A small nervous system for a Linux host: telemetry in, neuromodulators and a spiking "
        "network in the middle, MQTT out.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"neuromodd {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = commands.add_parser("run", help="run the daemon in the foreground")
    run.add_argument("--fresh", action="store_true", help="set the checkpoints aside and start anew")
    run.set_defaults(command=_run)

    check = commands.add_parser("check", help="validate the configuration and say what would run")
    check.set_defaults(command=_check)

    health = commands.add_parser(
        "health", help="ask the daemon of this host how it does; status 1 if not well"
    )
    health.add_argument("--json", action="store_true", help="print one line of JSON")
    health.add_argument(
        "--timeout-s",
        type=_seconds,
        default=ANSWER_S,
        metavar="S",
        help=f"wait for its answer ({ANSWER_S:g})",
    )
    health.set_defaults(command=_health)

    doctor = commands.add_parser(
        "doctor", help="what this host can measure and why not the rest, and whether a daemon would do well"
    )
    doctor.add_argument("--json", action="store_true", help="print one document of JSON")
    doctor.set_defaults(command=_doctor)

    sample = commands.add_parser("sample", help="print frames as JSON lines; needs no broker")
    sample.add_argument("-n", type=_positive, default=1, metavar="N", help="how many frames (1)")
    sample.set_defaults(command=_sample)

    record = commands.add_parser("record", help="record frames without a daemon and without a broker")
    record.add_argument("-n", type=_positive, metavar="N", help="how many frames (until stopped)")
    record.set_defaults(command=_record)

    replay = commands.add_parser("replay", help="live through recordings again, as fast as they can be read")
    replay.add_argument("files", nargs="+", type=Path, metavar="FILE", help="recordings, in this order")
    replay.add_argument("--checkpoint-in", type=Path, metavar="C", help="begin with this state instead")
    replay.add_argument("--checkpoint-out", type=Path, metavar="C", help="write the state at the end")
    replay.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write the `state` of each frame, as it was published; - is stdout",
    )
    replay.add_argument("--skip-bad", action="store_true", help="leave broken lines out")
    replay.set_defaults(command=_replay)

    _add_views(commands)
    _add_detect(commands)

    export = commands.add_parser("export-mem", help="write what was learned as $readmemh files for an FPGA")
    export.add_argument("directory", type=Path, metavar="DIRECTORY", help="where the files go")
    export.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="FILE",
        help="a checkpoint or saved parameters (the state directory's newest checkpoint)",
    )
    export.set_defaults(command=_export_mem)

    _add_checkpoint(commands)

    capture = commands.add_parser(
        "capture", help="store a redacted copy of what the sensors read, for a report"
    )
    capture.add_argument("directory", type=Path, metavar="DIRECTORY", help="new or empty")
    capture.set_defaults(command=_capture)

    fpga = commands.add_parser("fpga", help="print what Vivado's reports say; status 1 on negative slack")
    fpga.add_argument("report", type=Path, metavar="REPORT", help="of report_timing_summary")
    fpga.add_argument("--utilization", type=Path, metavar="FILE", help="of report_utilization")
    fpga.add_argument("--json", action="store_true", help="print one line of JSON")
    fpga.set_defaults(command=_fpga)

    reward = commands.add_parser(
        "reward", help="tell a daemon that work was done; it must listen (mqtt.inbound.enabled)"
    )
    reward.add_argument("kind", choices=list(REWARD_KINDS), metavar="KIND", help=", ".join(REWARD_KINDS))
    reward.add_argument("--to", type=_node_name, metavar="NODE", help="whose daemon (this host's)")
    reward.add_argument("--id", metavar="ID", help="sent again under one id, it is taken once (a new one)")
    reward.add_argument(
        "--timeout-s", type=_seconds, default=5.0, metavar="S", help="wait for its answer (5)"
    )
    for name, (kind, what) in REWARD_FIELDS.items():
        reward.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="VALUE", help=what)
    reward.set_defaults(command=_reward)

    top = commands.add_parser("top", help="look at a node, or at all nodes of a broker, in this terminal")
    top.add_argument("--all", action="store_true", help="begin with the table of all nodes")
    top.set_defaults(command=_top)

    shown = commands.add_parser("schema", help="print the JSON Schema of a payload, or of all")
    shown.add_argument("--asyncapi", action="store_true", help="all topics as an AsyncAPI 3.0 document")
    shown.add_argument("name", nargs="?", choices=SCHEMA_NAMES, metavar="NAME", help=", ".join(SCHEMA_NAMES))
    shown.set_defaults(command=_schema)

    for command, own in (
        (run, "[--fresh]"),
        (check, ""),
        (health, "[--json] [--timeout-s S]"),
        (doctor, "[--json]"),
        (sample, "[-n N]"),
        (record, "[-n N]"),
        (export, "[--from FILE] DIRECTORY"),
        (capture, "DIRECTORY"),
        (top, "[--node N | --all]"),
        (reward, "KIND [--FIELD VALUE ...] [--to NODE]"),
    ):
        # Argparse would name a hundred options at each mistake.
        command.usage = f"{command.prog} {own} [--config FILE] [--OPTION VALUE ...]".replace("  ", " ")
        _add_options(command)
    return parser


def _add_views(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    plot = commands.add_parser("plot", help="draw recordings on one time axis (extra `plot`)")
    plot.add_argument(
        "-o",
        dest="out",
        type=Path,
        required=True,
        metavar="FILE",
        help="the picture: its name ends in .png, .svg or .html",
    )
    plot.set_defaults(command=_plot)
    report = commands.add_parser(
        "report", help="print a page on recordings: gaps, heat, rewards, faults, anomalies"
    )
    report.add_argument("--json", action="store_true", help="print JSON")
    report.set_defaults(command=_report)
    for command in (plot, report):
        command.add_argument("files", nargs="+", type=Path, metavar="RECORDING", help="in this order")
        command.add_argument(
            "--from", dest="from_utc", type=_time, metavar="TIME", help="leave out what is earlier (UTC)"
        )
        command.add_argument("--to", dest="to_utc", type=_time, metavar="TIME", help="end there (UTC)")
        command.add_argument("--checkpoint-in", type=Path, metavar="C", help="begin with this state instead")
        command.add_argument("--skip-bad", action="store_true", help="leave broken lines out")


def _add_detect(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    detect = commands.add_parser(
        "detect",
        help="look for what is strange in a CSV file or in recordings; status 0 also if there is something",
    )
    detect.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="a CSV file with a header, - for one on stdin, or recordings in this order",
    )
    detect.add_argument(
        "--out", type=Path, metavar="FILE", help="write a CSV file: how strange each row is; - is stdout"
    )
    detect.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw it (extra `plot`): the name ends in .png, .svg or .pdf",
    )
    detect.add_argument(
        "--columns",
        "--channels",
        dest="channels",
        type=_names,
        metavar="A,B",
        help="columns of a CSV file (all with numbers), or readings of a recording (those that were watched)",
    )
    detect.add_argument(
        "--time", metavar="COLUMN", help="the column with the times (one named time, timestamp, date ...)"
    )
    detect.add_argument(
        "--threshold", type=_share, metavar="S", help="surprise from which an anomaly begins (0.5)"
    )
    detect.add_argument(
        "--fresh", action="store_true", help="do not begin with what the recording's daemon had learned"
    )
    detect.add_argument("--skip-bad", action="store_true", help="leave broken rows and lines out")
    detect.add_argument("--json", action="store_true", help="print JSON lines: anomalies, then a summary")
    detect.set_defaults(command=_detect)


def _add_checkpoint(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("checkpoint", help="list, show or set aside what the daemon remembers")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    listed = actions.add_parser(
        "list", help="the checkpoints in the state directory, and whether they are whole"
    )
    listed.add_argument("--json", action="store_true", help="print JSON")
    listed.set_defaults(command=_checkpoint_list)

    show = actions.add_parser("show", help="what one holds: levels, weights, counts")
    show.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="a checkpoint (the newest in the state directory)"
    )
    show.add_argument("--json", action="store_true", help="print JSON")
    show.set_defaults(command=_checkpoint_show)

    reset = actions.add_parser("reset", help="set all aside: the next start begins anew; no daemon may run")
    reset.add_argument("--yes", action="store_true", help="do not ask; needed without a terminal")
    reset.set_defaults(command=_checkpoint_reset)

    for action, own in ((listed, "[--json]"), (show, "[--json] [FILE]"), (reset, "[--yes]")):
        action.usage = f"{action.prog} {own} [--config FILE] [--OPTION VALUE ...]"
        _add_options(action)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="TOML file (/etc/neuromodd/neuromodd.toml, else $XDG_CONFIG_HOME/neuromodd/neuromodd.toml)",
    )
    group = parser.add_argument_group(
        "options of the configuration",
        "Each is also a key of the file and, as NEUROMODD_MQTT__HOST, a variable.",
    )
    for option in options():
        group.add_argument(f"--{option.name}", dest=option.name, metavar="VALUE", help=_help(option))


def _help(option: Option) -> str:
    shown = str(option.default).lower() if isinstance(option.default, bool) else option.default
    default = "" if option.default in (None, ()) else f" ({shown})"
    return f"{option.description}{default}".replace("%", "%%")


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {text}, expected a whole number, 1 or more")
    return value


def _names(text: str) -> tuple[str, ...]:
    # As in a CSV file: a name with a comma stands in quotes.
    names = tuple(name.strip() for name in next(csv.reader([text]), []))
    if not names or not all(names):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected names with commas between them")
    return names


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value <= 1.0:
        raise argparse.ArgumentTypeError(f"got {text}, expected a number above 0, up to 1")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text}, expected seconds, more than 0")
    return value


def _time(text: str) -> datetime:
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        expected = "a time like 2024-05-01T12:00 (UTC unless it names an offset)"
        raise argparse.ArgumentTypeError(f"got {text!r}, expected {expected}") from None
    return value.replace(tzinfo=value.tzinfo or UTC)


def _node_name(text: str) -> str:
    if not NODE_PATTERN.match(text):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected 1 to 64 letters, digits, '_', '.' or '-'")
    return text


def _run_loop(work: Coroutine[Any, Any, T]) -> T:
    """asyncio.run without its wait for worker threads: one may hang in a connect or on a dead disk."""
    loop = SteadyLoop()
    threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="neuromodd-io")
    loop.set_default_executor(threads)
    try:
        return loop.run_until_complete(work)
    finally:
        # All is done: a second Ctrl-C from here on must not turn a clean end into another status.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        threads.shutdown(wait=False, cancel_futures=True)
        remaining = asyncio.all_tasks(loop)
        for task in remaining:
            task.cancel()
        if remaining:
            loop.run_until_complete(asyncio.wait(remaining))
        loop.close()


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def _complain(text: str) -> None:
    with contextlib.suppress(OSError):
        print(f"neuromodd: {text}", file=sys.stderr)


def _told(error: Exception) -> str:
    """The message; of a system call's failure the file and what is wrong, without Python's `[Errno 2]`."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


def _leave(status: int) -> NoReturn:
    """Exit; at once if a thread is stuck, which the interpreter would otherwise wait for without end."""
    others = [
        thread
        for thread in threading.enumerate()
        if thread is not threading.main_thread() and not thread.daemon
    ]
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    if not all(_ended(thread) for thread in others):
        os._exit(status)
    sys.exit(status)


def _ended(thread: threading.Thread) -> bool:
    thread.join(timeout=0.1)
    return not thread.is_alive()
