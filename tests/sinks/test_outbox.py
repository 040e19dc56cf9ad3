from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from neuromodd.core.messages import Event
from neuromodd.errors import NotKeptError
from neuromodd.sinks import outbox as module
from neuromodd.sinks.outbox import FILE_NAME, RETRY_S, VERSION, Entry, Outbox


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / FILE_NAME


MakeOutbox = Callable[..., Outbox]


@pytest.fixture
def open_outbox(path: Path, clock: Clock) -> Iterator[MakeOutbox]:
    """Opens the outbox in the state directory; all are closed at the end."""
    path.parent.mkdir()
    made: list[Outbox] = []

    def make(
        *,
        max_events: int = 1000,
        max_bytes: int = 10**7,
        max_age_s: float = 1e6,
        boot: str | None = "boot-a",
    ) -> Outbox:
        made.append(
            Outbox(
                path,
                max_events=max_events,
                max_bytes=max_bytes,
                max_age_s=max_age_s,
                boot=boot,
                clock=clock,
            )
        )
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def outbox(open_outbox: MakeOutbox) -> Outbox:
    return open_outbox()


def reward(number: int, text: str = "") -> Event:
    return Event(f"id-{number}", "reward", {"number": number, "text": text})


def telemetry(number: int, text: str = "") -> Event:
    return Event(f"frame-{number}", "telemetry", {"number": number, "text": text})


def size_of(event: Event) -> int:
    return len(json.dumps(event.payload, separators=(",", ":"), ensure_ascii=False).encode())


def put(outbox: Outbox, *events: Event, session: str | None = None) -> None:
    outbox.add(events, session=session)


def ids(outbox: Outbox, limit: int = 10_000, without: Sequence[str] = ()) -> list[str]:
    return [entry.event.id for entry in outbox.oldest(limit, without=without)]


def drained(outbox: Outbox) -> list[str]:
    """What goes out, two at a time, each removed as it is acknowledged."""
    sent: list[str] = []
    while entries := outbox.oldest(2):
        sent += [entry.event.id for entry in entries]
        outbox.remove([entry.number for entry in entries])
        assert len(sent) < 100_000
    return sent


# What goes out


def test_rows_come_in_the_order_in_which_they_were_put_there(outbox: Outbox) -> None:
    for number in range(5):
        put(outbox, reward(2 * number), reward(2 * number + 1))
    assert ids(outbox) == [f"id-{number}" for number in range(10)]


def test_a_row_comes_back_as_it_was_put_there(outbox: Outbox) -> None:
    event = Event("ä\0'\"", "fault", {"text": "Grüße\n\0", "none": None, "number": 0.1, "of": [{}]})
    put(outbox, event, session="s:1")
    [entry] = outbox.oldest(1)
    assert (entry.event, entry.session) == (event, "s:1")


def test_no_more_rows_come_than_were_asked_for(outbox: Outbox) -> None:
    put(outbox, *map(reward, range(5)))
    assert ids(outbox, 3) == ["id-0", "id-1", "id-2"]


def test_rows_of_a_topic_that_rests_are_left_out(outbox: Outbox) -> None:
    put(outbox, reward(0), telemetry(0), reward(1), Event("f", "fault", {}))
    assert ids(outbox, 2, without=("reward", "telemetry")) == ["f"]


def test_removed_rows_do_not_come_again(outbox: Outbox) -> None:
    put(outbox, *map(reward, range(4)))
    numbers = [entry.number for entry in outbox.oldest(4)]
    outbox.remove([numbers[2], numbers[0]])
    assert ids(outbox) == ["id-1", "id-3"]


def test_removing_a_row_twice_removes_no_other(outbox: Outbox) -> None:
    put(outbox, reward(0))
    [entry] = outbox.oldest(1)
    outbox.remove([entry.number])
    put(outbox, reward(1))
    outbox.remove([entry.number])
    assert ids(outbox) == ["id-1"]


def test_rows_are_there_after_the_file_is_opened_again(open_outbox: MakeOutbox) -> None:
    before = open_outbox()
    put(before, reward(0), reward(1), session="s:1")
    before.close()
    assert [(of.event, of.session) for of in open_outbox().oldest(5)] == [
        (reward(0), "s:1"),
        (reward(1), "s:1"),
    ]


def test_new_rows_come_behind_those_of_an_earlier_run(open_outbox: MakeOutbox) -> None:
    before = open_outbox()
    put(before, reward(0))
    before.close()
    after = open_outbox()
    put(after, reward(1))
    assert ids(after) == ["id-0", "id-1"]


def test_health_says_what_waits(outbox: Outbox, clock: Clock) -> None:
    put(outbox, reward(0))
    clock.now_s += 5.0
    put(outbox, reward(1))
    health = outbox.health
    assert (health.waiting, health.oldest_age_s, health.error) == (2, 5.0, None)
    assert health.waiting_bytes == size_of(reward(0)) + size_of(reward(1))


def test_health_says_what_waits_after_a_removal(outbox: Outbox, clock: Clock) -> None:
    put(outbox, reward(0, "long"))
    clock.now_s += 5.0
    put(outbox, reward(1))
    outbox.remove([outbox.oldest(1)[0].number])
    health = outbox.health
    assert (health.waiting, health.waiting_bytes, health.oldest_age_s) == (1, size_of(reward(1)), 0.0)


def test_health_says_what_waits_after_a_start(open_outbox: MakeOutbox) -> None:
    before = open_outbox()
    put(before, reward(0), reward(1))
    before.close()
    after = open_outbox()
    after.left_over()
    assert after.health == before.health


def test_an_event_that_can_not_be_written_does_not_hold_up_the_others(outbox: Outbox) -> None:
    with structlog.testing.capture_logs() as entries:
        put(outbox, reward(0), Event("\ud800", "reward", {}), Event("x", "reward", {"v": float("nan")}))
        put(outbox, reward(1))
    assert ids(outbox) == ["id-0", "id-1"]
    assert [entry["event"] for entry in entries] == ["outbox_refused"] * 2


def test_the_files_are_for_their_owner_alone(outbox: Outbox, path: Path) -> None:
    put(outbox, reward(0))
    modes = {of.name: stat.S_IMODE(of.stat().st_mode) for of in path.parent.iterdir()}
    assert modes == {FILE_NAME: 0o600, f"{FILE_NAME}-wal": 0o600, f"{FILE_NAME}-shm": 0o600}


def test_a_commit_is_synced(outbox: Outbox) -> None:
    put(outbox, reward(0))
    assert outbox._file is not None
    asked = [outbox._file.execute(f"PRAGMA {of}").fetchone()[0] for of in ("journal_mode", "synchronous")]
    assert asked == [b"wal", 2]


def steps_of_an_add(outbox: Outbox, event: Event) -> int:
    """Instructions of SQLite's machine, in tens."""
    assert outbox._file is not None
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    outbox._file.set_progress_handler(count, 10)
    put(outbox, event)
    outbox._file.set_progress_handler(None, 0)
    return steps


@pytest.mark.parametrize("event", [reward(-1), telemetry(-1)], ids=["reward", "telemetry"])
@pytest.mark.parametrize("spare", [0, 1], ids=["at the bound", "below the bound"])
def test_an_add_among_ten_thousand_rows_costs_as_much_as_among_ten(
    open_outbox: MakeOutbox, path: Path, event: Event, spare: int
) -> None:
    costs = []
    for rows in (10, 10_000):
        outbox = open_outbox(max_events=rows + spare)
        put(outbox, *map(reward, range(rows)))
        costs.append(steps_of_an_add(outbox, event))
        outbox.close()
        path.unlink()
    assert costs[1] <= 2 * costs[0]


# Bounds


def test_beyond_the_count_the_oldest_give_way(open_outbox: MakeOutbox) -> None:
    outbox = open_outbox(max_events=3)
    for number in range(5):
        put(outbox, reward(number))
    assert ids(outbox) == ["id-2", "id-3", "id-4"]


def test_beyond_the_bytes_the_oldest_give_way(open_outbox: MakeOutbox) -> None:
    outbox = open_outbox(max_bytes=3 * size_of(reward(0)))
    for number in range(5):
        put(outbox, reward(number))
    assert ids(outbox) == ["id-2", "id-3", "id-4"]


def test_bytes_are_those_of_the_payload_as_it_is_sent(open_outbox: MakeOutbox) -> None:
    outbox = open_outbox(max_bytes=size_of(reward(0, "ä" * 100)))
    put(outbox, reward(0, "ä" * 100))
    assert outbox.health.waiting_bytes == size_of(reward(0, "ä" * 100)) > 200


def test_an_event_larger_than_all_that_may_wait_gives_way_itself(open_outbox: MakeOutbox) -> None:
    outbox = open_outbox(max_bytes=100)
    put(outbox, reward(0, "x" * 200))
    assert (outbox.waiting, outbox.health.dropped) == (0, 1)


def test_telemetry_gives_way_before_anything_else(open_outbox: MakeOutbox) -> None:
    outbox = open_outbox(max_events=3)
    put(outbox, reward(0), telemetry(0), telemetry(1))
    put(outbox, reward(1), reward(2))
    assert ids(outbox) == ["id-0", "id-1", "id-2"]


def test_a_frame_gives_way_itself_where_all_the_others_are_rewards(open_outbox: MakeOutbox) -> None:
    outbox = open_outbox(max_events=2)
    put(outbox, reward(0), reward(1), telemetry(0))
    assert ids(outbox) == ["id-0", "id-1"]


def test_of_telemetry_the_oldest_gives_way(open_outbox: MakeOutbox) -> None:
    outbox = open_outbox(max_events=3)
    put(outbox, telemetry(0), reward(0), telemetry(1), telemetry(2))
    assert ids(outbox) == ["id-0", "frame-1", "frame-2"]


def test_what_is_too_old_is_dropped(open_outbox: MakeOutbox, clock: Clock) -> None:
    outbox = open_outbox(max_age_s=60.0)
    put(outbox, reward(0))
    clock.now_s += 30.0
    put(outbox, reward(1))
    clock.now_s += 31.0
    outbox.expire()
    assert ids(outbox) == ["id-1"]


def test_what_is_too_old_is_dropped_when_something_is_added(open_outbox: MakeOutbox, clock: Clock) -> None:
    outbox = open_outbox(max_age_s=60.0)
    put(outbox, reward(0))
    clock.now_s += 61.0
    put(outbox, reward(1))
    assert (ids(outbox), outbox.health.dropped) == (["id-1"], 1)


@pytest.mark.parametrize("later_s", [-900.0, 0.0, 3.2e7])
def test_rows_of_an_earlier_boot_count_as_new(open_outbox: MakeOutbox, clock: Clock, later_s: float) -> None:
    before = open_outbox(max_age_s=60.0, boot="boot-a")
    put(before, reward(0))
    before.close()
    clock.now_s += later_s
    after = open_outbox(max_age_s=60.0, boot="boot-b")
    after.expire()
    assert (ids(after), after.health.oldest_age_s) == (["id-0"], 0.0)


def test_rows_of_an_earlier_run_of_this_boot_have_their_age(open_outbox: MakeOutbox, clock: Clock) -> None:
    before = open_outbox(max_age_s=60.0)
    put(before, reward(0))
    before.close()
    clock.now_s += 61.0
    assert ids(open_outbox(max_age_s=60.0)) == []


def test_what_gives_way_is_counted(open_outbox: MakeOutbox) -> None:
    outbox = open_outbox(max_events=3)
    put(outbox, *map(reward, range(10)))
    assert outbox.health.dropped == 7


def test_what_gives_way_is_said_at_first_and_as_often_as_it_has_doubled(open_outbox: MakeOutbox) -> None:
    outbox = open_outbox(max_events=1)
    with structlog.testing.capture_logs() as entries:
        for number in range(20):
            put(outbox, reward(number))
    assert [entry["messages"] for entry in entries if entry["event"] == "outbox_dropped"] == [1, 2, 4, 8, 16]


def test_a_smaller_bound_holds_from_the_start_on(open_outbox: MakeOutbox) -> None:
    before = open_outbox()
    put(before, *map(reward, range(10)))
    before.close()
    assert ids(open_outbox(max_events=2)) == ["id-8", "id-9"]


def test_an_hour_of_outage_takes_no_more_memory_than_a_few_minutes(
    open_outbox: MakeOutbox, path: Path, clock: Clock
) -> None:
    outbox = open_outbox(max_events=500, max_bytes=400_000)
    used, sizes, waiting = [], [], []
    tracemalloc.start()
    try:
        for second in range(3600):
            clock.now_s += 1.0
            events = [telemetry(second, "x" * 1000)] + ([reward(second)] if second % 10 == 0 else [])
            put(outbox, *events)
            if second % 600 == 599:
                used.append(tracemalloc.get_traced_memory()[0])
                sizes.append(sum(of.stat().st_size for of in path.parent.glob(f"{FILE_NAME}*")))
                waiting.append((outbox.health.waiting, outbox.health.waiting_bytes))
    finally:
        tracemalloc.stop()
    assert max(used) - used[0] < 200_000
    assert all(rows <= 500 and size <= 400_000 for rows, size in waiting)
    assert sizes[-1] <= 1.1 * sizes[1]
    outbox.close()
    assert path.stat().st_size < 2 * 400_000
    assert [of for of in ids(open_outbox()) if of.startswith("id-")] == [
        f"id-{second}" for second in range(0, 3600, 10)
    ]


def test_the_file_shrinks_when_it_is_emptied(outbox: Outbox, path: Path) -> None:
    put(outbox, *(reward(number, "x" * 1000) for number in range(1000)))
    full = size_on_disk(outbox, path)
    drained(outbox)
    assert size_on_disk(outbox, path) < full / 10


def test_of_a_large_file_little_is_kept_in_memory(outbox: Outbox) -> None:
    put(outbox, reward(1))
    assert outbox._file is not None
    (negative_kibibytes,) = outbox._file.execute("PRAGMA cache_size").fetchone()
    assert -256 <= negative_kibibytes < 0


def size_on_disk(outbox: Outbox, path: Path) -> int:
    outbox.close()
    return path.stat().st_size


# What came in


def test_a_request_is_taken_once(outbox: Outbox) -> None:
    assert [outbox.take_in("a", "{}") for _ in range(3)] == [True, False, False]


def test_a_request_is_taken_once_also_by_two_runs(open_outbox: MakeOutbox) -> None:
    before = open_outbox()
    before.take_in("a", "{}")
    before.close()
    assert open_outbox().take_in("a", "{}") is False


def test_a_request_that_was_lived_through_is_not_taken_again(outbox: Outbox) -> None:
    outbox.take_in("a", "{}")
    outbox.add([reward(0)], session=None, done=["a"])
    assert outbox.take_in("a", "{}") is False


def test_requests_that_were_not_lived_through_are_left_over_in_their_order(
    open_outbox: MakeOutbox,
) -> None:
    before = open_outbox()
    for identity in ("c", "a", "b"):
        before.take_in(identity, f'"{identity}"')
    before.close()
    assert open_outbox().left_over() == [("c", '"c"'), ("a", '"a"'), ("b", '"b"')]


def test_a_request_that_was_lived_through_is_not_left_over(outbox: Outbox) -> None:
    outbox.take_in("a", "{}")
    outbox.take_in("b", "{}")
    outbox.add([], session=None, done=["a"])
    assert outbox.left_over() == [("b", "{}")]


def test_the_last_ids_are_remembered(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEEN_LIMIT", 100)
    for number in range(150):
        outbox.take_in(f"id-{number}", "{}")
    again = [outbox.take_in(f"id-{number}", "{}") for number in (149, 50, 49)]
    assert again == [False, False, True]


# Notes


def test_a_note_survives(open_outbox: MakeOutbox) -> None:
    before = open_outbox()
    before.take_note("a", {"b": [1, None]})
    before.close()
    assert open_outbox().note("a") == {"b": [1, None]}


def test_what_was_not_noted_is_none(outbox: Outbox) -> None:
    assert outbox.note("a") is None


def test_a_note_of_none_forgets(outbox: Outbox) -> None:
    outbox.take_note("a", 1)
    outbox.take_note("a", None)
    assert outbox.note("a") is None


# A file that is damaged


def damaged_page(path: Path, page: int) -> None:
    data = bytearray(path.read_bytes())
    data[page * 4096 : (page + 1) * 4096] = bytes(4096)
    path.write_bytes(data)


def replaced_by(data: bytes) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.write_bytes(data)

    return replace


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def replaced_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "something").touch()


def of_a_newer_format(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute(f"PRAGMA user_version = {VERSION + 1}")


def without_a_column(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("ALTER TABLE outbox RENAME COLUMN payload TO load")


def without_sense(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.executescript("DROP TABLE outbox; CREATE TABLE outbox (number TEXT PRIMARY KEY) WITHOUT ROWID;")


DAMAGES = [
    pytest.param(replaced_by(b"garbage"), id="garbage"),
    pytest.param(replaced_by(b"garbage" * 10_000), id="much garbage"),
    pytest.param(replaced_by(bytes(8192)), id="zeros"),
    pytest.param(truncated, id="truncated"),
    pytest.param(replaced_by_directory, id="directory"),
    pytest.param(of_a_newer_format, id="newer format"),
    pytest.param(without_a_column, id="another column"),
    pytest.param(without_sense, id="another table"),
    pytest.param(lambda path: damaged_page(path, 0), id="first page"),
    pytest.param(lambda path: damaged_page(path, 2), id="another page"),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_set_aside_and_a_new_one_begun(
    open_outbox: MakeOutbox, path: Path, damage: Callable[[Path], None]
) -> None:
    before = open_outbox()
    put(before, *(reward(number, "x" * 500) for number in range(100)))
    before.close()
    damage(path)
    after = open_outbox()
    with structlog.testing.capture_logs() as entries:
        put(after, reward(1000))
    assert ids(after) == ["id-1000"]
    assert after.health.error is None
    assert [entry["event"] for entry in entries if entry["log_level"] == "warning"] == ["outbox_damaged"]
    assert path.with_suffix(".damaged").exists()
    after.close()
    assert ids(open_outbox()) == ["id-1000"]


@pytest.mark.parametrize("times", [2, 3])
def test_a_damaged_file_is_set_aside_where_another_was_before(
    open_outbox: MakeOutbox, path: Path, times: int
) -> None:
    outbox = open_outbox()
    for number in range(times):
        for damage in (replaced_by(b"garbage"), replaced_by_directory):
            put(outbox, reward(number))
            outbox.close()
            damage(path)
    put(outbox, reward(times))
    assert (ids(outbox), outbox.health.error) == ([f"id-{times}"], None)


def test_an_empty_file_is_a_new_one(open_outbox: MakeOutbox, path: Path) -> None:
    path.touch()
    outbox = open_outbox()
    put(outbox, reward(0))
    assert (ids(outbox), path.with_suffix(".damaged").exists()) == (["id-0"], False)


def one_file(open_outbox: MakeOutbox, path: Path) -> tuple[bytes, dict[str, Event]]:
    """A file with something in every table, and its events by their ids."""
    events = [reward(number, "text" * 20) for number in range(20)] + [telemetry(0), telemetry(1)]
    outbox = open_outbox()
    put(outbox, *events, session="s:1")
    outbox.take_in("a", '"event"')
    outbox.take_note("n", {"note": 1})
    outbox.close()
    return path.read_bytes(), {event.id: event for event in events}


def check_altered(outbox: Outbox, written: dict[str, Event]) -> None:
    """Whatever the file has become: nothing is raised, and nothing goes out that nobody put there."""
    outbox.note("n")
    assert outbox.left_over() in ([], [("a", '"event"')])
    outbox.take_in("b", "{}")
    put(outbox, reward(1000))
    entries = outbox.oldest(100)
    found = {entry.event.id: entry.event for entry in entries}
    assert found.pop("id-1000") == reward(1000)
    assert all(written[identity] == event for identity, event in found.items())
    outbox.remove([entry.number for entry in entries])
    assert ids(outbox) == []
    assert (outbox.waiting, outbox.health.error) == (0, None)


def test_a_header_with_any_byte_altered_raises_nothing(open_outbox: MakeOutbox, path: Path) -> None:
    data, written = one_file(open_outbox, path)
    for place in range(100):
        for mask in (0x01, 0x80, 0xFF):
            altered = bytearray(data)
            altered[place] ^= mask
            shutil.rmtree(path.parent)
            path.parent.mkdir()
            path.write_bytes(altered)
            outbox = open_outbox()
            check_altered(outbox, written)
            outbox.close()


def test_pages_with_bytes_altered_at_random_raise_nothing(open_outbox: MakeOutbox, path: Path) -> None:
    data, written = one_file(open_outbox, path)
    used = [place for place, byte in enumerate(data) if byte]
    random_ = random.Random(1)  # noqa: S311 - a seed
    for _ in range(250):
        altered = bytearray(data)
        for _ in range(random_.choice((1, 1, 1, 5))):
            altered[random_.choice(used)] = random_.randrange(256)
        shutil.rmtree(path.parent)
        path.parent.mkdir()
        path.write_bytes(altered)
        outbox = open_outbox()
        check_altered(outbox, written)
        outbox.close()


def test_a_row_that_is_not_as_it_was_written_is_dropped_and_the_others_go_out(
    open_outbox: MakeOutbox, path: Path
) -> None:
    before = open_outbox()
    put(before, reward(0), reward(1, "something"), reward(2))
    before.close()
    path.write_bytes(path.read_bytes().replace(b"something", b"somethimg"))
    after = open_outbox()
    with structlog.testing.capture_logs() as entries:
        assert drained(after) == ["id-0", "id-2"]
    assert after.health.dropped == 1
    assert "outbox_rows_damaged" in [entry["event"] for entry in entries]


def test_after_a_damage_no_number_is_given_twice(outbox: Outbox, path: Path) -> None:
    put(outbox, *map(reward, range(3)))
    under_way = [entry.number for entry in outbox.oldest(3)]
    outbox.close()
    path.write_bytes(b"garbage")
    put(outbox, reward(3), reward(4))
    # The broker acknowledges what was sent from the old file.
    outbox.remove(under_way)
    assert ids(outbox) == ["id-3", "id-4"]


# A disk that fails


class Disk:
    """Lets statements fail: a single one by its index, or all those of a kind until told otherwise."""

    def __init__(self) -> None:
        self.statements = 0
        self.fail_at: int | None = None
        self.late = False
        self.failed = 0
        self.broken: Callable[[str], bool] = lambda _: False

    def before(self, statement: str) -> None:
        self.statements += 1
        if self.broken(statement) or (not self.late and self.statements == self.fail_at):
            self._fail()

    def after(self) -> None:
        if self.late and self.statements == self.fail_at:
            self._fail()

    def _fail(self) -> None:
        self.failed += 1
        raise sqlite3.OperationalError("disk I/O error")


def writes(statement: str) -> bool:
    return not statement.startswith(("SELECT", "PRAGMA"))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """A disk under all files that are opened from now on."""
    disk = Disk()
    monkeypatch.setattr(sqlite3, "connect", connect_over(disk))
    return disk


def connect_over(disk: Disk) -> Callable[..., sqlite3.Connection]:
    class Connection(sqlite3.Connection):
        def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
            disk.before(statement)
            cursor = super().execute(statement, *parameters)
            disk.after()
            return cursor

        def executemany(self, statement: str, parameters: Any, /) -> sqlite3.Cursor:
            disk.before(statement)
            cursor = super().executemany(statement, parameters)
            disk.after()
            return cursor

        def executescript(self, statements: str, /) -> sqlite3.Cursor:
            disk.before(statements)
            cursor = super().executescript(statements)
            disk.after()
            return cursor

        def commit(self) -> None:
            disk.before("COMMIT")
            super().commit()
            disk.after()

    def connect(path: Path, **options: Any) -> sqlite3.Connection:
        disk.before("CONNECT")
        return Connection(path, **options)

    return connect


class Life:
    """A few hours of an outbox, and what is to come of them."""

    def __init__(self, outbox: Outbox, clock: Clock, disk: Disk) -> None:
        self.outbox = outbox
        self.clock = clock
        self.disk = disk
        self.added: list[str] = []
        self.sent: list[str] = []
        self.told = True

    def step(self, work: Callable[[], object]) -> None:
        failed = self.disk.failed
        work()
        if self.disk.failed > failed and self.disk.fail_at is not None:
            self.told = self.told and "disk I/O error" in (self.outbox.health.error or "")
            self.clock.now_s += RETRY_S

    def add(self, *events: Event, done: Sequence[str] = ()) -> None:
        self.added += [event.id for event in events]
        self.step(lambda: self.outbox.add(events, session=None, done=done))

    def send(self, count: int) -> None:
        entries: list[Entry] = []
        self.step(lambda: entries.extend(self.outbox.oldest(count)))
        self.sent += [entry.event.id for entry in entries]
        # Meanwhile something else happens.
        self.add(reward(100 + len(self.added)))
        self.step(lambda: self.outbox.remove([entry.number for entry in entries]))

    def live(self) -> None:
        for number in range(3):
            self.add(reward(number), telemetry(number))
        self.step(lambda: self.outbox.take_in("a", '"a"'))
        self.step(lambda: self.outbox.take_in("b", '"b"'))
        self.step(lambda: self.outbox.take_note("n", 1))
        self.send(2)
        self.add(reward(50), done=["a"])
        self.step(self.outbox.expire)
        self.send(2)
        self.step(lambda: self.outbox.take_note("n", 2))
        self.add(reward(51))
        self.send(3)


@pytest.mark.parametrize("late", [False, True], ids=["before it is done", "after it was done"])
def test_whichever_statement_fails_nothing_is_lost_or_sent_twice_or_out_of_order(
    open_outbox: MakeOutbox, path: Path, clock: Clock, disk: Disk, late: bool
) -> None:
    disk.late = late
    # The first is the opening, which has no afterwards.
    index, failed = int(late), True
    while failed:
        index += 1
        disk.statements, disk.failed, disk.fail_at = 0, 0, index
        shutil.rmtree(path.parent)
        path.parent.mkdir()
        life = Life(open_outbox(), clock, disk)
        life.live()
        failed = disk.failed > 0
        disk.fail_at = None
        outbox = life.outbox
        clock.now_s += RETRY_S
        assert (outbox.take_in("a", ""), outbox.take_in("b", "")) == (False, False), index
        assert (life.told, outbox.health.error) == (True, None), index
        outbox.close()
        again = open_outbox()
        assert (again.left_over(), again.note("n")) == ([("b", '"b"')], 2), index
        waiting = [of for of in life.added if of not in life.sent]
        assert (life.sent, again.waiting) == (life.added[: len(life.sent)], len(waiting)), index
        assert drained(again) == waiting, index
        again.close()
    assert index > 100


@pytest.mark.parametrize("point", range(40))
def test_a_kill_between_two_statements_leaves_request_and_outcome_both_or_neither(
    open_outbox: MakeOutbox, path: Path, disk: Disk, point: int
) -> None:
    outbox = open_outbox()
    outbox.take_in("a", '"a"')
    copy = path.parent.with_name("copy")

    def kill(_statement: str) -> bool:
        if disk.statements == disk.fail_at:
            shutil.copytree(path.parent, copy)
        return False

    disk.broken, disk.late, disk.fail_at = kill, True, disk.statements + 1 + point
    # A statement's index is that of the one before which all files are copied, as a kill leaves them.
    with contextlib.suppress(sqlite3.OperationalError):
        outbox.add([reward(0)], session=None, done=["a"])
    outbox.close()
    if copy.exists():
        shutil.rmtree(path.parent)
        copy.rename(path.parent)
    disk.fail_at, disk.broken = None, lambda _: False
    after = open_outbox()
    assert (after.left_over(), ids(after)) in (([("a", '"a"')], []), ([], ["id-0"]))


def test_while_nothing_can_be_written_all_goes_on_in_order(outbox: Outbox, disk: Disk, clock: Clock) -> None:
    put(outbox, reward(0), reward(1))
    disk.broken = writes
    put(outbox, reward(2))
    clock.now_s += RETRY_S
    put(outbox, reward(3))
    assert drained(outbox) == ["id-0", "id-1", "id-2", "id-3"]


def test_a_row_under_way_while_the_disk_comes_back_is_not_sent_again(
    outbox: Outbox, disk: Disk, clock: Clock
) -> None:
    disk.broken = lambda _: True
    put(outbox, reward(0), reward(1))
    under_way = outbox.oldest(1)
    disk.broken = lambda _: False
    clock.now_s += RETRY_S
    put(outbox, reward(2))
    outbox.remove([entry.number for entry in under_way])
    assert ids(outbox) == ["id-1", "id-2"]


def test_a_row_removed_while_nothing_can_be_written_is_gone_after_a_restart(
    open_outbox: MakeOutbox, disk: Disk, clock: Clock
) -> None:
    outbox = open_outbox()
    put(outbox, reward(0), reward(1))
    disk.broken = writes
    outbox.remove([outbox.oldest(1)[0].number])
    disk.broken = lambda _: False
    clock.now_s += RETRY_S
    outbox.expire()
    outbox.close()
    assert ids(open_outbox()) == ["id-1"]


def test_rows_that_can_not_even_be_read_come_when_they_can(outbox: Outbox, disk: Disk, clock: Clock) -> None:
    put(outbox, reward(0), reward(1))
    [first] = outbox.oldest(1)
    disk.broken = lambda _: True
    outbox.remove([first.number])
    put(outbox, reward(2))
    assert ids(outbox) == ["id-2"]
    assert outbox.waiting == 3
    disk.broken = lambda _: False
    clock.now_s += RETRY_S
    assert ids(outbox) == ["id-1", "id-2"]


def test_rows_of_an_earlier_run_come_before_those_from_before_the_file_could_be_opened(
    open_outbox: MakeOutbox, disk: Disk, clock: Clock
) -> None:
    before = open_outbox()
    put(before, *map(reward, range(5)))
    before.close()
    disk.broken = lambda _: True
    after = open_outbox()
    put(after, reward(5), reward(6))
    under_way = after.oldest(1)
    disk.broken = lambda _: False
    clock.now_s += RETRY_S
    put(after, reward(7))
    after.remove([entry.number for entry in under_way])
    assert drained(after) == ["id-0", "id-1", "id-2", "id-3", "id-4", "id-6", "id-7"]


def test_the_bounds_hold_in_memory_too(open_outbox: MakeOutbox, disk: Disk, clock: Clock) -> None:
    outbox = open_outbox(max_events=3, max_age_s=60.0)
    put(outbox, reward(0))
    disk.broken = lambda _: True
    clock.now_s += 61.0
    put(outbox, telemetry(0), reward(1), reward(2))
    put(outbox, reward(3))
    assert (ids(outbox), outbox.health.dropped) == (["id-1", "id-2", "id-3"], 1)
    disk.broken = lambda _: False
    clock.now_s += RETRY_S
    assert (ids(outbox), outbox.health.dropped) == (["id-1", "id-2", "id-3"], 2)


def test_the_bytes_are_bounded_in_memory_too(open_outbox: MakeOutbox, disk: Disk) -> None:
    outbox = open_outbox(max_bytes=2 * size_of(reward(0)))
    disk.broken = lambda _: True
    put(outbox, *map(reward, range(5)))
    assert (ids(outbox), outbox.health.waiting_bytes) == (["id-3", "id-4"], 2 * size_of(reward(0)))


def test_age_is_bounded_in_memory_too(open_outbox: MakeOutbox, disk: Disk, clock: Clock) -> None:
    outbox = open_outbox(max_age_s=60.0)
    disk.broken = lambda _: True
    put(outbox, reward(0))
    clock.now_s += 61.0
    outbox.expire()
    assert (ids(outbox), outbox.health.dropped) == ([], 1)


def test_a_disk_that_fails_is_said_once(outbox: Outbox, disk: Disk, clock: Clock) -> None:
    put(outbox, reward(0))
    with structlog.testing.capture_logs() as entries:
        disk.broken = writes
        for number in range(10):
            put(outbox, reward(number))
            clock.now_s += RETRY_S
        disk.broken = lambda _: False
        put(outbox, reward(10))
    assert [entry["event"] for entry in entries] == ["outbox_failed", "outbox_back"]


def test_a_disk_that_fails_is_left_alone_for_a_while(outbox: Outbox, disk: Disk, clock: Clock) -> None:
    disk.broken = lambda _: True
    for number in range(10):
        clock.now_s += RETRY_S / 10
        put(outbox, reward(number))
    assert disk.failed == 1


def test_a_request_is_taken_once_while_the_disk_fails(outbox: Outbox, disk: Disk) -> None:
    outbox.take_in("a", "{}")
    disk.broken = writes
    taken = [outbox.take_in(identity, "{}") for identity in ("b", "a", "b")]
    assert taken == [True, False, False]


def test_a_request_that_came_while_the_disk_failed_is_left_over(open_outbox: MakeOutbox, disk: Disk) -> None:
    outbox = open_outbox()
    disk.broken = lambda _: True
    outbox.take_in("a", "{}")
    outbox.take_in("b", "{}")
    outbox.add([], session=None, done=["a"])
    disk.broken = lambda _: False
    outbox.close()
    assert open_outbox().left_over() == [("b", "{}")]


def test_a_durable_request_is_refused_while_the_disk_fails_and_taken_afterwards(
    outbox: Outbox, disk: Disk, clock: Clock
) -> None:
    assert outbox.take_in("a", "{}", durable=True)
    disk.broken = writes
    for _ in range(2):
        with pytest.raises(NotKeptError, match=r"can't be kept: .*disk I/O error"):
            outbox.take_in("b", "{}", durable=True)
    assert outbox.take_in("a", "{}", durable=True) is False
    disk.broken = lambda _: False
    clock.now_s += RETRY_S
    assert [outbox.take_in("b", "{}", durable=True) for _ in range(2)] == [True, False]
    assert outbox.left_over() == [("a", "{}"), ("b", "{}")]


def test_nobody_is_told_of_a_request_in_memory_that_it_is_kept(
    outbox: Outbox, disk: Disk, clock: Clock
) -> None:
    disk.broken = writes
    assert outbox.take_in("a", "{}")
    with pytest.raises(NotKeptError):
        outbox.take_in("a", "{}", durable=True)
    disk.broken = lambda _: False
    clock.now_s += RETRY_S
    assert outbox.take_in("a", "{}", durable=True) is False
    assert outbox.left_over() == [("a", "{}")]


# The commit of a request: the fifth statement.
@pytest.mark.parametrize("readable", [True, False])
def test_a_request_that_was_refused_is_not_found_kept_because_its_commit_was_done_after_all(
    outbox: Outbox, disk: Disk, clock: Clock, readable: bool
) -> None:
    outbox.left_over()
    disk.late, disk.fail_at = True, disk.statements + 5
    disk.broken = lambda statement: not readable and statement.startswith("SELECT id, crc, event")
    with pytest.raises(NotKeptError):
        outbox.take_in("a", "{}", durable=True)
    assert disk.failed == 2 - readable
    disk.broken, disk.fail_at = (lambda _: False), None
    clock.now_s += RETRY_S
    assert outbox.left_over() == []
    assert outbox.take_in("a", "{}", durable=True)


def test_a_request_whose_commit_was_done_after_all_is_taken_as_new(outbox: Outbox, disk: Disk) -> None:
    outbox.left_over()
    disk.late, disk.fail_at = True, disk.statements + 5
    assert [outbox.take_in("a", "{}") for _ in range(2)] == [True, False]
    assert disk.failed == 1


def test_a_note_that_was_taken_while_the_disk_failed_survives(open_outbox: MakeOutbox, disk: Disk) -> None:
    outbox = open_outbox()
    outbox.take_note("a", 1)
    outbox.take_note("b", 1)
    disk.broken = lambda _: True
    outbox.take_note("a", 2)
    outbox.take_note("b", None)
    assert (outbox.note("a"), outbox.note("b")) == (2, None)
    disk.broken = lambda _: False
    outbox.close()
    after = open_outbox()
    assert (after.note("a"), after.note("b")) == (2, None)


def test_what_is_in_memory_reaches_a_disk_that_is_back_when_the_outbox_is_closed(
    open_outbox: MakeOutbox, disk: Disk
) -> None:
    outbox = open_outbox()
    disk.broken = lambda _: True
    put(outbox, reward(0))
    disk.broken = lambda _: False
    outbox.close()
    assert ids(open_outbox()) == ["id-0"]


def test_what_can_not_be_saved_at_the_end_is_said(outbox: Outbox, disk: Disk) -> None:
    disk.broken = lambda _: True
    put(outbox, reward(0), reward(1))
    with structlog.testing.capture_logs() as entries:
        outbox.close()
    assert [(of["event"], of["messages"]) for of in entries] == [("outbox_not_saved", 2)]
    assert "disk I/O error" in entries[0]["error"]


def move_away(directory: Path) -> Path:
    return directory.rename(directory.with_name("elsewhere"))


def test_while_the_directory_is_away_all_goes_on(outbox: Outbox, path: Path) -> None:
    put(outbox, reward(0), reward(1))
    outbox.remove([outbox.oldest(1)[0].number])
    move_away(path.parent)
    put(outbox, reward(2))
    assert ids(outbox) == ["id-1", "id-2"]
    assert str(path) in (outbox.health.error or "")


def test_after_the_directory_is_back_all_is_there_once(
    open_outbox: MakeOutbox, path: Path, clock: Clock
) -> None:
    outbox = open_outbox()
    put(outbox, *map(reward, range(3)))
    elsewhere = move_away(path.parent)
    put(outbox, reward(3))
    outbox.remove([outbox.oldest(1)[0].number])
    elsewhere.rename(path.parent)
    clock.now_s += RETRY_S
    put(outbox, reward(4))
    assert outbox.health.error is None
    outbox.close()
    assert ids(open_outbox()) == ["id-1", "id-2", "id-3", "id-4"]


@pytest.mark.parametrize("victim", ["directory", "file"])
def test_after_the_file_was_deleted_all_is_in_a_new_one(
    open_outbox: MakeOutbox, path: Path, clock: Clock, victim: str
) -> None:
    outbox = open_outbox()
    put(outbox, *map(reward, range(3)))
    outbox.take_in("a", "{}")
    if victim == "file":
        path.unlink()
    else:
        shutil.rmtree(path.parent)
        put(outbox, reward(3))
        path.parent.mkdir()
    clock.now_s += RETRY_S
    outbox.remove([outbox.oldest(1)[0].number])
    assert (outbox.health.error, outbox.take_in("a", "{}")) == (None, False)
    outbox.close()
    after = open_outbox()
    assert ids(after) == [f"id-{number}" for number in range(1, after.waiting + 1)]
    assert after.waiting == (2 if victim == "file" else 3)


def test_a_file_that_another_program_has_locked_is_no_reason_to_lose_anything(
    open_outbox: MakeOutbox, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_S", 0.0)
    outbox = open_outbox()
    put(outbox, reward(0))
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        put(outbox, reward(1))
        assert "locked" in (outbox.health.error or "")
        assert ids(outbox) == ["id-0", "id-1"]
    clock.now_s += RETRY_S
    put(outbox, reward(2))
    assert (ids(outbox), outbox.health.error) == (["id-0", "id-1", "id-2"], None)


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file of this process can grow beyond `size`: the system refuses the write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_on_a_disk_that_is_full_nothing_is_lost(open_outbox: MakeOutbox, clock: Clock) -> None:
    outbox = open_outbox()
    put(outbox, *(reward(number, "x" * 500) for number in range(20)))
    errors = set()
    with full_disk(100_000), structlog.testing.capture_logs():
        for number in range(20, 400):
            put(outbox, reward(number, "x" * 500))
            errors.add(outbox.health.error is None)
            clock.now_s += 0.5
        sent = [entry.event.id for entry in outbox.oldest(50)]
        outbox.remove([entry.number for entry in outbox.oldest(50)])
    assert errors == {True, False}
    clock.now_s += RETRY_S
    outbox.expire()
    assert outbox.health.error is None
    outbox.close()
    assert sent + ids(open_outbox()) == [f"id-{number}" for number in range(400)]


def test_where_a_file_can_not_even_be_made_all_goes_on(open_outbox: MakeOutbox, clock: Clock) -> None:
    outbox = open_outbox()
    with full_disk(0), structlog.testing.capture_logs():
        put(outbox, reward(0))
        assert (ids(outbox), outbox.health.error is None) == (["id-0"], False)
    clock.now_s += RETRY_S
    put(outbox, reward(1))
    outbox.close()
    assert ids(open_outbox()) == ["id-0", "id-1"]


def test_health_may_be_read_while_another_thread_works(
    open_outbox: MakeOutbox, disk: Disk, clock: Clock
) -> None:
    outbox = open_outbox(max_events=200)
    ended = threading.Event()

    def work() -> None:
        for number in range(600):
            if number % 50 == 0:
                disk.broken = writes if number % 100 else lambda _: False
                clock.now_s += RETRY_S
            put(outbox, reward(number))
            if number % 3 == 0:
                outbox.remove([entry.number for entry in outbox.oldest(2)])
        ended.set()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        while thread.is_alive() and not ended.wait(0.0002):
            assert 0 <= outbox.health.waiting <= 200
    finally:
        thread.join(30.0)
    assert ended.is_set()


# A process that is killed

VICTIM = """
import os, sys
from pathlib import Path
from neuromodd.core.messages import Event
from neuromodd.sinks.outbox import Outbox

def say(text):
    os.write(1, (text + chr(10)).encode())

def live(number):
    bounds = {"max_events": 10**6, "max_bytes": 10**9, "max_age_s": 1e9}
    outbox = Outbox(Path(sys.argv[1]), **bounds, boot="b", clock=lambda: 1.0)
    outbox.left_over()
    say(f"start {os.getpid()}")
    while True:
        say(f"adds id-{number}")
        outbox.add([Event(f"id-{number}", "reward", {"text": "x" * (number % 7 * 300)})], session=None)
        say(f"added id-{number}")
        number += 1
        if number % 3 == 0:
            entries = outbox.oldest(2)
            for entry in entries:
                say(f"removes {entry.event.id}")
            outbox.remove([entry.number for entry in entries])
            for entry in entries:
                say(f"removed {entry.event.id}")

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        live(int(line))
    os.waitpid(child, 0)
    say("ended")
"""


def test_a_process_killed_at_any_point_loses_nothing_that_it_was_told_is_kept(
    open_outbox: MakeOutbox, path: Path
) -> None:
    random_ = random.Random(7)  # noqa: S311 - a seed
    told: dict[str, list[str]] = {of: [] for of in ("adds", "added", "removes", "removed", "start")}
    # A process that starts the others, so that each takes no second to begin.
    with subprocess.Popen(
        [sys.executable, "-c", VICTIM, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        for _ in range(30):
            parent.stdin.write(f"{len(told['adds'])}\n")
            parent.stdin.flush()
            left = random_.randrange(1, 60)
            for line in parent.stdout:
                if line == "ended\n":
                    break
                kind, _, value = line.strip().partition(" ")
                told[kind].append(value)
                left -= 1
                if left == 0:
                    for _ in range(random_.randrange(20_000)):
                        pass
                    os.kill(int(told["start"][-1]), signal.SIGKILL)
            outbox = open_outbox(max_events=10**6, max_bytes=10**9, boot="b")
            there = ids(outbox)
            outbox.close()
            assert there == sorted(there, key=lambda of: int(of.removeprefix("id-")))
            assert set(told["added"]) - set(told["removes"]) <= set(there)
            assert set(there) <= set(told["adds"]) - set(told["removed"])
        parent.stdin.close()
    assert not path.with_suffix(".damaged").exists()
    assert len(told["removed"]) > 30


# Against a model

LIMIT = 6


class Against(RuleBasedStateMachine):
    """An outbox, and a list that is to say the same whatever happens to the disk."""

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.disk = Disk()
        self.clock = Clock()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(sqlite3, "connect", connect_over(self.disk))
        self.outbox = self.make()
        self.model: list[Event] = []
        self.under_way: list[Entry] = []
        self.open_requests: list[str] = []
        self.requests = 0
        self.number = 0
        self.dropped = 0

    def make(self) -> Outbox:
        return Outbox(
            self.directory / FILE_NAME,
            max_events=LIMIT,
            max_bytes=10**6,
            max_age_s=1e9,
            boot="boot-a",
            clock=self.clock,
        )

    def teardown(self) -> None:
        if hasattr(self, "patch"):
            self.outbox.close()
            self.patch.undo()
            shutil.rmtree(self.directory)

    @rule(kinds=st.lists(st.sampled_from([reward, telemetry]), max_size=4), settle=st.booleans())
    def add(self, kinds: list[Callable[[int], Event]], settle: bool) -> None:
        events = [kind(self.number + place) for place, kind in enumerate(kinds)]
        done = self.open_requests[:1] if settle else []
        self.outbox.add(events, session=None, done=done)
        self.number += len(kinds)
        self.open_requests = self.open_requests[len(done) :]
        self.model += events
        while len(self.model) > LIMIT:
            first = next((of for of in self.model if of.name == "telemetry"), self.model[0])
            self.model.remove(first)
            self.dropped += 1

    @rule(count=st.integers(0, LIMIT), without=st.sampled_from([(), ("telemetry",), ("reward",)]))
    def oldest(self, count: int, without: tuple[str, ...]) -> None:
        self.under_way = self.outbox.oldest(count, without=without)
        expected = [event for event in self.model if event.name not in without][:count]
        assert [entry.event for entry in self.under_way] == expected

    @precondition(lambda self: self.under_way)
    @rule(chosen=st.integers(1, 2**LIMIT - 1))
    def remove(self, chosen: int) -> None:
        acknowledged = [of for place, of in enumerate(self.under_way) if chosen >> place & 1]
        self.outbox.remove([of.number for of in acknowledged])
        gone = {of.event.id for of in acknowledged}
        self.model = [event for event in self.model if event.id not in gone]

    @rule(again=st.booleans())
    def take_in(self, again: bool) -> None:
        if again and self.requests:
            assert not self.outbox.take_in(f"request-{self.requests - 1}", "")
        else:
            assert self.outbox.take_in(f"request-{self.requests}", "")
            self.open_requests.append(f"request-{self.requests}")
            self.requests += 1

    # One fault at a time: where reading fails just when writing has, rows stay away until the disk is back.
    @rule(ahead=st.integers(1, 12))
    def one_statement_fails(self, ahead: int) -> None:
        self.disk.broken, self.disk.fail_at = (lambda _: False), self.disk.statements + ahead

    @rule()
    def nothing_can_be_written(self) -> None:
        self.disk.broken, self.disk.fail_at = writes, None

    @rule()
    def the_disk_is_back(self) -> None:
        self.disk.broken, self.disk.fail_at = (lambda _: False), None
        self.clock.now_s += RETRY_S
        self.outbox.expire()
        assert self.outbox.health.error is None

    @rule()
    def time_passes(self) -> None:
        self.clock.now_s += RETRY_S

    @rule()
    def another_run(self) -> None:
        self.the_disk_is_back()
        self.outbox.close()
        self.outbox = self.make()
        self.dropped = 0
        self.under_way = []
        assert [identity for identity, _ in self.outbox.left_over()] == self.open_requests

    @invariant()
    def as_much_waits(self) -> None:
        health = self.outbox.health
        assert (health.waiting, health.dropped) == (len(self.model), self.dropped)
        assert health.waiting_bytes == sum(map(size_of, self.model))


def test_whatever_happens_to_the_disk_it_says_what_a_list_would() -> None:
    run_state_machine_as_test(
        Against,
        settings=settings(
            derandomize=True,
            deadline=None,
            max_examples=60,
            stateful_step_count=40,
            suppress_health_check=list(HealthCheck),
        ),
    )
