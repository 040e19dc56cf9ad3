from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TextIO

import pytest
import structlog

from neuromodd import logs


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """What `configure` changes is for the whole process."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def events(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(capsys)]


def test_off_a_terminal_an_event_is_a_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(level="info", form="auto")
    structlog.get_logger().info("started", node="lab")
    (event,) = events(capsys)
    assert (event["event"], event["level"], event["node"]) == ("started", "info", "lab")


def test_an_event_has_its_time_in_utc(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(level="info", form="json")
    before = datetime.now(UTC)
    structlog.get_logger().info("started")
    assert before <= datetime.fromisoformat(events(capsys)[0]["time_utc"]) <= datetime.now(UTC)


def test_on_a_terminal_an_event_is_readable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    logs.configure(level="info", form="auto")
    structlog.get_logger().info("started", node="lab")
    assert "started" in (line := lines(capsys)[0])
    assert not line.startswith("{")


@pytest.mark.parametrize(("form", "starts"), [("console", False), ("json", True)])
def test_the_form_may_be_chosen(
    form: Literal["console", "json"], starts: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(level="info", form=form)
    structlog.get_logger().info("started")
    assert lines(capsys)[0].startswith("{") is starts


def test_off_a_terminal_the_console_form_has_no_colours(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(level="info", form="console")
    structlog.get_logger().info("started", node="lab")
    assert "\x1b" not in lines(capsys)[0]


def test_a_value_that_json_does_not_know_is_written_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(level="info", form="json")
    structlog.get_logger().info("started", value={1})
    assert events(capsys)[0]["value"] == "{1}"


def test_an_exception_is_part_of_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(level="info", form="json")
    try:
        int("odd")
    except ValueError:
        structlog.get_logger().exception("failed")
    assert "ValueError: invalid literal" in events(capsys)[0]["exception"]


LEVELS = ("debug", "info", "warning", "error")


@pytest.mark.parametrize("level", LEVELS)
def test_events_below_the_level_are_left_out(
    level: Literal["debug", "info", "warning", "error"], capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(level=level, form="json")
    for name in LEVELS:
        getattr(structlog.get_logger(), name)("event")
    assert [event["level"] for event in events(capsys)] == list(LEVELS[LEVELS.index(level) :])


def test_the_level_may_be_changed_for_loggers_that_are_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(level="error", form="json")
    log = structlog.get_logger()
    log.info("early")
    logs.configure(level="info", form="json")
    log.info("late")
    assert [event["event"] for event in events(capsys)] == ["late"]


def test_a_warning_of_a_library_is_an_event_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(level="info", form="json")
    logging.getLogger("some.library").warning("%d of %d", 1, 2)
    (event,) = events(capsys)
    assert (event["event"], event["library"], event["message"]) == (
        "library_message",
        "some.library",
        "1 of 2",
    )


def test_what_a_library_merely_mentions_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(level="debug", form="json")
    logging.getLogger("some.library").info("by the way")
    assert lines(capsys) == []


def test_configured_twice_a_library_is_heard_once(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(level="info", form="json")
    logs.configure(level="info", form="json")
    logging.getLogger("some.library").warning("once")
    assert len(lines(capsys)) == 1


def test_a_stream_that_can_not_be_written_is_borne(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        logs.configure(level="info", form="json")
        for _ in range(3):
            structlog.get_logger().info("said")
        monkeypatch.undo()
        # What the file could not write when it was flushed, it tries again when it is closed.
        with contextlib.suppress(OSError):
            full.close()


def journal(path: Path, monkeypatch: pytest.MonkeyPatch) -> TextIO:
    """Standard error as a service has it: a stream that $JOURNAL_STREAM names."""
    stream = path.open("w", encoding="utf-8")
    found = os.fstat(stream.fileno())
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_the_journal_is_told_the_priority_of_each_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with journal(tmp_path / "err", monkeypatch):
        logs.configure(level="debug", form="auto")
        for level in ("debug", "info", "warning", "error"):
            getattr(structlog.get_logger(), level)("told")
        try:
            (tmp_path / "nowhere").read_text()
        except OSError:
            structlog.get_logger().exception("told")
    lines = (tmp_path / "err").read_text().splitlines()
    assert [line[:4] for line in lines] == ["<7>{", "<6>{", "<4>{", "<3>{", "<3>{"]
    assert all(json.loads(line[3:])["event"] == "told" for line in lines)


def test_a_file_is_not_taken_for_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with journal(tmp_path / "err", monkeypatch):
        monkeypatch.setenv("JOURNAL_STREAM", "1:2")
        logs.configure(level="info", form="json")
        structlog.get_logger().info("told")
    assert (tmp_path / "err").read_text().startswith("{")
