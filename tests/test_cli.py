from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from jsonschema import Draft202012Validator

from neuromodd import __version__
from neuromodd.cli import main
from neuromodd.config import options
from neuromodd.core.schemas import SCHEMA_NAMES
from neuromodd.errors import (
    BrokerStartError,
    CheckpointMismatchError,
    ConfigurationError,
    ConfigurationFault,
    StateDirectoryError,
    StateDirectoryLockedError,
)

PROJECT = Path(__file__).parents[1]


class Ended(NamedTuple):
    """What a command left behind."""

    status: object
    out: str
    err: str


class Run:
    """Runs a command line in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Ended:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return Ended(ended.value.code, *self._capsys.readouterr())


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(capsys)


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No configuration but what a test brings."""
    for name in os.environ:
        if name.upper().startswith("NEUROMODD_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr("neuromodd.loading.SYSTEM_FILE", tmp_path / "etc" / "neuromodd.toml")
    return monkeypatch


# Help


def test_it_tells_its_version(run: Run) -> None:
    assert run("--version")[:2] == (0, f"neuromodd {__version__}\n")


def test_help_shows_examples(run: Run) -> None:
    ended = run("--help")
    assert ended.status == 0
    assert "examples:\n  neuromodd run " in ended.out


def test_help_tells_the_exit_status(run: Run) -> None:
    assert "2 configuration, 3 state directory locked" in run("--help").out


@pytest.mark.parametrize("command", ["run", "check", "sample"])
def test_every_option_is_a_flag(run: Run, command: str) -> None:
    text = run(command, "--help").out
    assert [option.name for option in options() if f"--{option.name} VALUE" not in text] == []


@pytest.mark.parametrize("command", ["run", "check", "sample", "record", "export-mem", "capture"])
def test_a_mistake_does_not_bring_every_option_to_the_screen(run: Run, command: str) -> None:
    usage, *rest = run(command, "--config").err.splitlines()
    assert usage.startswith(f"usage: neuromodd {command} ")
    assert usage.endswith("[--config FILE] [--OPTION VALUE ...]")
    assert len(rest) == 1


@pytest.mark.parametrize("number", ["x", "0", "-1", "1.5"])
def test_a_wrong_number_is_told_in_plain_words(run: Run, number: str) -> None:
    told = run("record", f"-n={number}").err.splitlines()[-1]
    assert told.endswith(f"argument -n: got {number}, expected a whole number, 1 or more")


@pytest.mark.parametrize(
    "arguments", [(), ("nonsense",), ("check", "--mqtt.hostt", "x"), ("sample", "-n", "0")]
)
def test_a_wrong_command_line_exits_with_2(run: Run, arguments: Sequence[str]) -> None:
    ended = run(*arguments)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("usage: neuromodd")


# check


def test_check_says_that_a_configuration_is_right(run: Run) -> None:
    ended = run("check", "--mqtt.host", "broker")
    assert ended.status == 0
    assert ended.out.endswith("The configuration is right.\n")


def test_check_says_what_would_run(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "neuromodd.toml"
    file.write_text(
        f'node = "lab"\n[tick]\ninterval_s = 0.5\n[mqtt]\nhost = "broker"\nprefix = "site"\n'
        f'[mqtt.tls]\nenabled = true\n[checkpoint]\ndirectory = "{tmp_path}/state"\n'
        '[sensors]\ndisabled = ["nvml", "hwmon"]\n'
    )
    assert run("check", "--config", file).out.splitlines()[:-1] == [
        f"configuration    {file}",
        "node             lab",
        "tick             every 0.5 s, 20 network steps each",
        "broker           broker:8883 with TLS",
        "topics           site/lab/#",
        f"state directory  {tmp_path}/state",
        "sensors          /proc and /sys",
        "disabled         nvml, hwmon",
    ]


def test_check_says_who_is_listened_to_and_told(run: Run) -> None:
    options = ("--mqtt.inbound.enabled", "true", "--homeassistant.enabled", "true", "--node", "lab")
    lines = run("check", "--mqtt.host", "broker", *options).out.splitlines()
    assert "listens to       neuromodd/lab/in/#" in lines
    assert "Home Assistant   is told below homeassistant/device/" in lines


def test_check_says_when_there_is_no_file(run: Run) -> None:
    assert "configuration    defaults, no file\n" in run("check", "--mqtt.host", "broker").out


def test_check_says_when_the_broker_is_embedded(run: Run) -> None:
    assert "embedded broker  127.0.0.1:1001\n" in run("check", "--mqtt.port", "1001").out


def test_check_makes_no_state_directory(run: Run, tmp_path: Path) -> None:
    run("check", "--mqtt.host", "broker", "--checkpoint.directory", tmp_path / "state")
    assert not (tmp_path / "state").exists()


def test_check_lists_every_fault_on_a_line_of_its_own(
    run: Run, tmp_path: Path, clean_environment: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "neuromodd.toml"
    file.write_text("[mqtt]\nport = 0\n[tick]\ninterval_s = 0.0\n")
    clean_environment.setenv("NEUROMODD_LOG__LEVEL", "loud")
    ended = run("check", "--config", file, "--engine.seed", "x")
    places = [line.split(":")[1].strip() for line in ended.err.splitlines()]
    assert (ended.status, ended.out) == (2, "")
    assert sorted(places) == ["engine.seed", "log.level", "mqtt.port", "tick.interval_s"]


def test_check_tells_a_fault_with_place_value_expectation_and_origin(run: Run) -> None:
    expected = "neuromodd: mqtt.port: got '0', expected greater than or equal to 1 (from --mqtt.port)\n"
    assert run("check", "--mqtt.port", "0").err == expected


def test_check_of_a_file_that_is_not_there_exits_with_2(run: Run, tmp_path: Path) -> None:
    ended = run("check", "--config", tmp_path / "none.toml")
    assert ended.status == 2
    assert f"{tmp_path}/none.toml: got No such file" in ended.err


def test_check_without_any_broker_exits_with_2(run: Run) -> None:
    assert run("check", "--mqtt.embedded", "false").status == 2


def test_check_passes_warnings_on(run: Run, clean_environment: pytest.MonkeyPatch) -> None:
    clean_environment.setenv("NEUROMODD_NODDE", "lab")
    ended = run("check", "--mqtt.host", "broker")
    assert ended.status == 0
    assert "NEUROMODD_NODDE is not an option" in ended.err


@pytest.mark.parametrize("faulty", [False, True])
def test_check_does_not_show_the_password(
    run: Run, clean_environment: pytest.MonkeyPatch, faulty: bool
) -> None:
    clean_environment.setenv("NEUROMODD_MQTT__PASSWORD", "hunter2")
    arguments = () if faulty else ("--mqtt.username", "lab", "--mqtt.host", "broker")
    ended = run("check", *arguments)
    assert (ended.status, "hunter2" in ended.out + ended.err) == (2 if faulty else 0, False)


# schema


@pytest.mark.parametrize("name", SCHEMA_NAMES)
def test_a_schema_is_valid_json_schema(run: Run, name: str) -> None:
    Draft202012Validator.check_schema(json.loads(run("schema", name).out))


def test_without_a_name_all_schemas_are_printed(run: Run) -> None:
    ended = run("schema")
    assert (ended.status, tuple(json.loads(ended.out))) == (0, SCHEMA_NAMES)


def test_all_topics_are_printed_as_one_document(run: Run) -> None:
    ended = run("schema", "--asyncapi")
    assert (ended.status, json.loads(ended.out)["asyncapi"]) == (0, "3.0.0")


def test_a_schema_that_is_not_known_exits_with_2(run: Run) -> None:
    ended = run("schema", "status")
    assert ended.status == 2
    assert "telemetry" in ended.err


# sample


@pytest.fixture(scope="module")
def sampled() -> list[Any]:
    """Two frames of this machine."""
    command = [sys.executable, "-m", "neuromodd", "sample", "-n", "2", "--tick.interval_s", "0.2"]
    clean = {name: text for name, text in os.environ.items() if not name.startswith("NEUROMODD_")}
    process = subprocess.run(
        command,
        cwd=PROJECT,
        env={**clean, "XDG_CONFIG_HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60.0,
    )
    return [json.loads(line) for line in process.stdout.splitlines()]


def test_sample_prints_as_many_frames_as_it_is_asked_for(sampled: list[Any]) -> None:
    assert [frame["sequence"] for frame in sampled] == [0, 1]


def test_sampled_frames_have_rates_from_the_first_on(sampled: list[Any]) -> None:
    assert [frame["cpu"]["context_switches_per_s"] is None for frame in sampled] == [False, False]
    assert [frame["cpu"]["utilization_ratio"] is None for frame in sampled] == [False, False]


def test_sampled_frames_come_at_the_interval(sampled: list[Any]) -> None:
    assert 0.1 < sampled[1]["interval_s"] < 5.0


# How it ends


def failing(failure: BaseException) -> object:
    def command(_parsed: object) -> int:
        raise failure

    return command


FAULT = ConfigurationFault(place="mqtt.host", got="nothing", expected="a broker")


@pytest.mark.parametrize(
    ("failure", "status", "said"),
    [
        (ConfigurationError([FAULT]), 2, str(FAULT)),
        (CheckpointMismatchError(None, "a", "b"), 2, "checkpoint: got a, expected b"),
        (StateDirectoryLockedError(Path("/state"), "process 7"), 3, "locked by process 7"),
        (StateDirectoryError("no room"), 1, "no room"),
        (BrokerStartError("taken"), 1, "taken"),
        (OSError("odd"), 1, "neuromodd: odd\n"),
        (FileNotFoundError(2, "No such file", "r.jsonl"), 1, "neuromodd: r.jsonl: No such file\n"),
        (OSError(28, "No space left on device"), 1, "neuromodd: No space left on device\n"),
        (ExceptionGroup("", [ExceptionGroup("", [OSError("inner")])]), 1, "OSError: inner"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_a_failure_has_its_exit_status_and_a_line_without_a_traceback(
    run: Run, clean_environment: pytest.MonkeyPatch, failure: BaseException, status: int, said: str
) -> None:
    clean_environment.setattr("neuromodd.cli._check", failing(failure))
    ended = run("check")
    assert ended.status == status
    assert said in ended.err
    assert len(ended.err.splitlines()) == bool(said)


def test_a_fault_of_the_program_in_a_group_shows_where(
    run: Run, clean_environment: pytest.MonkeyPatch
) -> None:
    clean_environment.setattr("neuromodd.cli._check", failing(ExceptionGroup("", [KeyError("inner")])))
    ended = run("check")
    assert ended.status == 1
    assert "KeyError: 'inner'" in ended.err


def test_a_thread_that_is_stuck_does_not_keep_the_program_from_ending() -> None:
    code = (
        "import threading; from neuromodd import cli;"
        "threading.Thread(target=threading.Event().wait).start(); cli._leave(3)"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=False, timeout=60.0)
    assert process.returncode == 3


def test_a_reader_that_has_enough_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "neuromodd", "schema"],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (0, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_a_closed_stream_is_borne(closed: str) -> None:
    command = f"{sys.executable} -m neuromodd schema state {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_user_without_a_home_gets_a_fault_and_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", fail)
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    for name in ("STATE_DIRECTORY", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit) as ended:
        main(["check", "--mqtt.host", "broker.lan"])
    assert ended.value.code == 2
    assert "checkpoint.directory" in capsys.readouterr().err


def test_a_warning_is_not_lost_beside_a_fault(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEUROMODD_FOO", "1")
    with pytest.raises(SystemExit):
        main(["check", "--tick.interval_s", "0"])
    assert "NEUROMODD_FOO" in capsys.readouterr().err


FPGA = PROJECT / "tests/data/fpga"


def test_fpga_prints_what_the_reports_say(run: Run) -> None:
    ended = run(
        "fpga", FPGA / "zynq7_2017.4_timing.rpt", "--utilization", FPGA / "zynq7_2017.4_utilization.rpt"
    )
    told = dict(line.split(maxsplit=1) for line in ended.out.splitlines())
    assert ended.status == 0
    assert (float(told["wns_ns"]) > 0.0, told["tool_version"]) == (True, "2017.4")
    assert 0.0 < float(told["lut_utilization_ratio"]) < 1.0


def test_fpga_on_negative_slack_exits_1(run: Run) -> None:
    ended = run("fpga", "--json", FPGA / "zynqusp_2020.2_timing.rpt")
    assert ended.status == 1
    assert json.loads(ended.out)["wns_ns"] < 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.rpt"], "nowhere.rpt: no such file"),
        ([PROJECT / "README.md"], "report_timing_summary"),
        ([FPGA / "zynq7_2017.4_timing.rpt", "--utilization", "nowhere.rpt"], "nowhere.rpt: no such file"),
    ],
)
def test_fpga_without_a_report_exits_2(run: Run, arguments: list[object], message: str) -> None:
    ended = run("fpga", *arguments)
    assert (ended.status, ended.out) == (2, "")
    assert message in ended.err


def test_fpga_on_a_design_without_constraints_says_that_there_is_nothing_to_judge(run: Run) -> None:
    ended = run("fpga", FPGA / "artix7_2019.1_unconstrained_timing.rpt")
    assert ended.status == 0
    assert "no path is constrained" in ended.err


def test_fpga_on_a_pulse_that_is_too_short_exits_1(run: Run, tmp_path: Path) -> None:
    text = (FPGA / "zynq7_2017.4_timing.rpt").read_text()
    report = tmp_path / "timing.rpt"
    report.write_text(text.replace(" 3.750", "-3.750"))
    ended = run("fpga", "--json", report)
    assert ended.status == 1
    assert json.loads(ended.out)["wpws_ns"] < 0.0
