"""The client's half of `neuromodd health`, against sockets that play daemons."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from neuromodd.cli import main
from neuromodd.health import SOCKET_NAME, ask, ask_quickly, print_answer

GOOD = b'{"verdict": "ticking", "reason": "it does", "health": {}}\n'
BAD = b'{"verdict": "not_ticking", "reason": "it does not", "health": {}}\n'


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No daemon of this machine is asked."""
    monkeypatch.setattr("neuromodd.health.UNIT_DIRECTORY", tmp_path / "unit")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Plays a daemon that says the text to its first caller; None says nothing. Gives its directory."""
    listening = []

    def start(text: bytes | None, name: str = "run") -> Path:
        directory = tmp_path / name
        directory.mkdir()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.append(listener)
        listener.bind(str(directory / SOCKET_NAME))
        listener.listen()

        def answer(text: bytes) -> None:
            # Asked by nobody, or by one who has heard enough.
            with contextlib.suppress(OSError):
                caller, _ = listener.accept()
                with caller:
                    caller.sendall(text)

        if text is not None:
            threading.Thread(target=answer, args=(text,), daemon=True).start()
        return directory

    yield start
    for listener in listening:
        listener.close()


def test_of_several_the_first_that_is_there_is_asked(play: Callable[..., Path], tmp_path: Path) -> None:
    first, second = play(BAD, "first"), play(GOOD, "second")
    assert ask([tmp_path / "missing", first, second]).report["reason"] == "it does not"


def test_a_socket_that_nobody_listens_on_is_passed_over(play: Callable[..., Path], tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(tmp_path / SOCKET_NAME))
    left.close()
    assert ask([tmp_path, play(GOOD)]).ticking


def test_one_that_does_not_answer_in_time_is_stuck_and_no_other_is_asked(play: Callable[..., Path]) -> None:
    began_s = time.monotonic()
    answer = ask([play(None, "stuck"), play(GOOD, "well")], 0.2)
    assert (answer.report["verdict"], answer.found) == ("no_answer", True)
    assert answer.report["reason"].endswith("no answer within 0.2 s")
    assert time.monotonic() - began_s < 5.0


def test_one_whose_queue_of_callers_is_full_is_stuck(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / SOCKET_NAME))
        listener.listen(0)
        waiting = [ask([tmp_path], 0.1).report["verdict"] for _ in range(3)]
    assert waiting == ["no_answer"] * 3


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b'{"verdict": "ticking"}', b"\xff\xfe", b'"' + b"x" * 2_000_000 + b'"']
)
def test_an_answer_that_is_no_report_is_none(play: Callable[..., Path], text: bytes) -> None:
    report = ask([play(text)], 5.0).report
    assert report["verdict"] == "no_answer"
    assert "no answer that can be read" in report["reason"]


def test_without_a_daemon_every_place_that_was_looked_at_is_named(tmp_path: Path) -> None:
    reason = ask([tmp_path / "one", tmp_path / "two"]).report["reason"]
    assert str(tmp_path / "one" / SOCKET_NAME) in reason
    assert str(tmp_path / "two" / SOCKET_NAME) in reason


@pytest.mark.parametrize(("text", "status"), [(GOOD, 0), (BAD, 1), (None, 1)])
def test_as_json_it_is_one_line_whatever_the_answer(
    play: Callable[..., Path], text: bytes | None, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert print_answer(ask([play(text)], 0.5), as_json=True) == status
    printed = capsys.readouterr()
    assert printed.err == ""
    assert len(printed.out.splitlines()) == 1
    assert (json.loads(printed.out)["verdict"] == "ticking") is (status == 0)


@pytest.mark.parametrize(
    ("text", "status", "out", "err"),
    [(GOOD, 0, "ticking: it does\n", ""), (BAD, 1, "", "neuromodd: it does not\n")],
)
def test_for_people_it_is_one_line(
    play: Callable[..., Path],
    text: bytes,
    status: int,
    out: str,
    err: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert print_answer(ask([play(text)], 5.0), as_json=False) == status
    assert capsys.readouterr() == (out, err)


def test_the_quick_way_asks_in_the_first_runtime_directory(
    play: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{play(GOOD)}:/elsewhere")
    assert ask_quickly([]) == 0


def test_the_quick_way_knows_the_directory_of_the_unit(play: Callable[..., Path]) -> None:
    play(BAD, "unit")
    assert ask_quickly(["--json"]) == 1


@pytest.mark.parametrize("arguments", [[], ["--json"], ["--timeout-s", "1"], ["--help"]])
def test_the_quick_way_leaves_the_rest_to_the_configuration(arguments: list[str]) -> None:
    assert ask_quickly(arguments) is None


def test_last_it_asks_in_the_state_directory_of_the_configuration(
    play: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["health", "--checkpoint.directory", str(play(GOOD))])
    assert (ended.value.code, capsys.readouterr().out) == (0, "ticking: it does\n")


def test_a_faulty_configuration_is_said_and_is_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["health", "--config", str(tmp_path / "missing.toml")])
    assert ended.value.code == 1
    assert "missing.toml" in capsys.readouterr().err
