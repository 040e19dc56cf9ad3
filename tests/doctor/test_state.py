"""The state directory: may a daemon live there, and what has it left?"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from neuromodd.config import CheckpointSettings, RecorderSettings, Settings
from neuromodd.doctor.findings import Finding
from neuromodd.doctor.memory import (
    Kept,
    age_text,
    examine_memory,
    examine_outbox,
    judge_checkpoints,
    needed_bytes,
)
from neuromodd.doctor.presence import NOBODY, Presence
from neuromodd.doctor.state import Mount, examine_directory, mount_of, size_text, why_there
from neuromodd.doctor.surroundings import Surroundings
from neuromodd.health import Answer
from neuromodd.sinks.checkpoint_file import write_checkpoint

HOST = Surroundings(container=None, machine=None, user="lab", root=False)
DIMENSIONS = Settings().engine.dimensions
NOW = datetime(2026, 11, 25, tzinfo=UTC)

MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
40 27 0:50 / /var/lib rw,relatime - nfs4 server:/lib rw,vers=4.2
41 27 0:51 / /var/lib rw,relatime - tmpfs tmpfs rw
42 27 0:52 / /srv/my\\040disk ro,relatime - ext4 /dev/sdb1 rw
43 27 0:53 / /mnt rw,relatime - ext4 /dev/sdc1 ro
"""


@pytest.fixture
def examine(tmp_path: Path) -> Callable[..., dict[str, Finding]]:
    """Looks at the directory `state`, on a file system of a given type."""

    def run(
        type_: str = "ext4", *, around: Surroundings = HOST, needed: int = 0, options: str = "rw"
    ) -> dict[str, Finding]:
        (tmp_path / "proc/self").mkdir(parents=True, exist_ok=True)
        (tmp_path / "proc/self/mountinfo").write_text(f"1 1 0:1 / / {options} - {type_} disk rw\n")
        found = examine_directory(
            tmp_path / "state",
            "checkpoint.directory",
            procfs=tmp_path / "proc",
            around=around,
            needed_bytes=needed,
            presence=NOBODY,
        )
        return {of.name: of for of in found}

    return run


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    return folder


@pytest.mark.parametrize(
    ("path", "mount"),
    [
        ("/home/lab", Mount("/", "ext4", read_only=False)),
        ("/var/lib/neuromodd", Mount("/var/lib", "tmpfs", read_only=False)),
        ("/var/library", Mount("/", "ext4", read_only=False)),
        ("/srv/my disk/state", Mount("/srv/my disk", "ext4", read_only=True)),
        ("/mnt", Mount("/mnt", "ext4", read_only=True)),
    ],
)
def test_the_nearest_and_latest_mount_holds_a_path(path: str, mount: Mount) -> None:
    assert mount_of(MOUNTS, path) == mount


@pytest.mark.usefixtures("state")
def test_a_directory_that_is_well_says_what_it_is(examine: Callable[..., dict[str, Finding]]) -> None:
    found = examine()
    assert {of.verdict for of in found.values()} == {"ok"}
    assert found["directory"].finding.endswith("mode 0700")
    assert list(found) == ["directory", "file system", "writable", "hard links", "space"]


def test_looking_leaves_nothing_behind(state: Path, examine: Callable[..., dict[str, Finding]]) -> None:
    examine()
    assert list(state.iterdir()) == []


def test_a_directory_that_is_missing_is_not_made(
    tmp_path: Path, examine: Callable[..., dict[str, Finding]]
) -> None:
    assert examine()["directory"].finding.endswith("is not there yet; the daemon makes it")
    assert not (tmp_path / "state").exists()


def test_a_file_in_its_place_is_a_failure(tmp_path: Path, examine: Callable[..., dict[str, Finding]]) -> None:
    (tmp_path / "state").touch()
    assert examine()["directory"].verdict == "failure"


def test_a_directory_that_others_may_write_is_a_warning(
    state: Path, examine: Callable[..., dict[str, Finding]]
) -> None:
    state.chmod(0o777)
    found = examine()["directory"]
    assert (found.verdict, found.remedy) == ("warning", f"chmod 700 {state}")


@pytest.mark.usefixtures("state")
@pytest.mark.parametrize(
    ("type_", "words"),
    [
        ("tmpfs", "lost at a reboot"),
        ("overlay", "lost with the container"),
        ("nfs4", "a server that is away"),
    ],
)
def test_a_file_system_that_does_not_keep_well_is_a_warning(
    examine: Callable[..., dict[str, Finding]], type_: str, words: str
) -> None:
    found = examine(type_, around=HOST._replace(container="Docker"))["file system"]
    assert (found.verdict, words in found.finding) == ("warning", True)


@pytest.mark.usefixtures("state")
def test_a_file_system_that_is_mounted_read_only_is_a_failure(
    examine: Callable[..., dict[str, Finding]],
) -> None:
    assert examine(options="ro,relatime")["file system"].verdict == "failure"


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EIO])
def test_a_disk_that_takes_no_file_is_a_failure_in_the_kernels_words(
    state: Path,
    examine: Callable[..., dict[str, Finding]],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("neuromodd.doctor.state.os.fsync", refuse)
    found = examine()["writable"]
    assert found.verdict == "failure"
    assert os.strerror(number) in found.finding
    assert list(state.iterdir()) == []


@pytest.mark.usefixtures("state")
def test_a_file_system_without_hard_links_is_a_note(
    examine: Callable[..., dict[str, Finding]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert examine()["hard links"].verdict == "note"


@pytest.mark.usefixtures("state")
def test_less_space_than_may_be_needed_is_a_warning(examine: Callable[..., dict[str, Finding]]) -> None:
    assert examine(needed=2**60)["space"].verdict == "warning"


def test_what_is_needed_grows_with_what_may_be_recorded(state: Path) -> None:
    recorder = RecorderSettings(enabled=True, directory=state / "recordings")
    more = needed_bytes(state, Settings(recorder=recorder)) - needed_bytes(state, Settings())
    assert more == recorder.max_bytes


def test_it_is_told_which_rule_chose_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = Settings(checkpoint=CheckpointSettings(directory=tmp_path))
    assert why_there(named, {"STATE_DIRECTORY": "/x"}) == "checkpoint.directory"
    assert why_there(Settings(), {"STATE_DIRECTORY": "/x"}) == "$STATE_DIRECTORY"
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert why_there(Settings(), {"XDG_STATE_HOME": "/x"}) == "$XDG_STATE_HOME"
    assert why_there(Settings(), {}) == "the default of this user"


def test_a_size_is_told_in_its_largest_unit() -> None:
    assert [size_text(of) for of in (0, 1536, 5 * 2**30)] == ["0 B", "1.5 KiB", "5 GiB"]


# What is kept there


def write(folder: Path, step: int, *, dimensions: dict[str, int] | None = None) -> Path:
    path = folder / f"checkpoint-{step:016d}.json"
    write_checkpoint(path, {}, dimensions=dimensions or DIMENSIONS, created_utc=datetime.now(UTC).isoformat())
    return path


def memory(folder: Path, presence: Presence = NOBODY) -> dict[str, Finding]:
    settings = Settings(checkpoint=CheckpointSettings(directory=folder))
    return {of.name: of for of in examine_memory(folder, settings, presence)}


def test_an_empty_directory_is_well(state: Path) -> None:
    assert memory(state)["checkpoints"].finding == "none yet: the next start begins anew"


def test_checkpoints_are_counted_and_the_newest_named(state: Path) -> None:
    write(state, 20)
    newest = write(state, 40)
    assert memory(state)["checkpoints"].finding == f"2, the newest {newest.name}, 0 s old"


def test_a_damaged_checkpoint_is_a_warning_where_there_is_one_before_it(state: Path) -> None:
    before = write(state, 20)
    newest = write(state, 40)
    newest.write_bytes(newest.read_bytes()[:-20])
    found = memory(state)["checkpoints"]
    assert found.verdict == "warning"
    assert found.finding.endswith(f"{before.name} is used instead")


def test_a_damaged_checkpoint_that_is_the_only_one_is_a_failure_and_stays(state: Path) -> None:
    path = write(state, 20)
    path.write_bytes(b"")
    assert memory(state)["checkpoints"].verdict == "failure"
    assert path.exists()


def test_a_checkpoint_of_another_network_is_a_failure(state: Path) -> None:
    write(state, 20, dimensions={**DIMENSIONS, "lif_neurons": 16})
    found = memory(state)["checkpoints"]
    assert found.verdict == "failure"
    assert "lif_neurons 16" in found.finding


def test_a_checkpoint_of_a_time_to_come_is_a_warning() -> None:
    kept = Kept(Path("checkpoint-1.json"), NOW + timedelta(hours=3), 1, ())
    found = judge_checkpoints(kept, now_utc=NOW)
    assert (found.verdict, "is 3 h ahead of this clock" in found.finding) == ("warning", True)


def test_what_was_set_aside_is_counted(state: Path) -> None:
    write(state, 20).rename(state / "checkpoint-0000000000000020.damaged")
    assert memory(state)["set aside"].finding.startswith("1 ")


def test_recordings_are_counted_where_there_are_any(state: Path) -> None:
    assert "recordings" not in memory(state)
    (state / "recordings").mkdir()
    (state / "recordings/recording-000001-20261125T000000Z.jsonl").write_bytes(b"x" * 2048)
    assert memory(state)["recordings"].finding.startswith("1 file in ")
    assert "2 KiB of 1 GiB" in memory(state)["recordings"].finding


@pytest.fixture
def outbox(state: Path) -> Iterator[Path]:
    path = state / "outbox.sqlite3"
    file = sqlite3.connect(path)
    file.execute("CREATE TABLE outbox (number INTEGER)")
    file.executemany("INSERT INTO outbox VALUES (?)", [(1,), (2,)])
    file.commit()
    file.close()
    yield path
    assert sorted(of.name for of in state.iterdir() if of.name.startswith("outbox")) == [path.name]


def test_what_waits_is_counted_without_a_file_beside_the_outbox(outbox: Path) -> None:
    assert examine_outbox(outbox, NOBODY).finding == "2 messages for the broker"


def test_an_outbox_that_is_damaged_is_a_warning(outbox: Path) -> None:
    outbox.write_bytes(b"nothing of the kind" * 100)
    assert examine_outbox(outbox, NOBODY).verdict == "warning"


def test_a_journal_that_a_kill_left_is_not_taken_for_damage(state: Path) -> None:
    (state / "outbox.sqlite3").touch()
    (state / "outbox.sqlite3-wal").write_bytes(b"x")
    assert examine_outbox(state / "outbox.sqlite3", NOBODY).verdict == "ok"


def running(outbox: dict[str, Any]) -> Presence:
    report = {"verdict": "ticking", "reason": "it does", "health": {"mqtt": {"outbox": outbox}}}
    return Presence(Answer(report, found=True))


def test_a_daemon_that_runs_is_believed_about_its_outbox(state: Path) -> None:
    presence = running({"waiting": 3, "waiting_bytes": 900, "error": None})
    assert examine_outbox(state / "outbox.sqlite3", presence).finding == "3 messages for the broker, 900 B"


def test_an_outbox_in_memory_alone_is_a_failure(state: Path) -> None:
    presence = running({"waiting": 3, "waiting_bytes": 900, "error": "disk full"})
    assert examine_outbox(state / "outbox.sqlite3", presence).verdict == "failure"


def test_an_age_is_told_in_its_largest_whole_unit() -> None:
    assert [age_text(of) for of in (119.0, 120.0, 7200.0, 172_800.0)] == ["119 s", "2 min", "2 h", "2 d"]
