"""Checkpoints with bits flipped and ends cut off, through the way on which the daemon takes one up."""

from __future__ import annotations

import errno
import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import structlog
from failing_disk import FailingDisk
from harness import Daemon, Mosquitto, wait_for

from neuromodd.core.brain import Brain
from neuromodd.core.frame import CpuSample, TelemetryFrame
from neuromodd.sinks.checkpoint import CheckpointStore
from neuromodd.sinks.checkpoint_file import MISFITS, encode, read_checkpoint

START = datetime(2024, 5, 1, 12, tzinfo=UTC)
BODY_FLIPS = 500


class Pair(NamedTuple):
    """Two checkpoints of a brain that lived."""

    store: CheckpointStore
    dimensions: dict[str, int]
    older: Path
    newer: Path
    state: dict[str, Any]

    @property
    def names(self) -> set[str]:
        return {path.name for path in self.store.directory.iterdir()}


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    brain = Brain(compiled=False)
    store = CheckpointStore(tmp_path / "state", keep=3)
    store.directory.mkdir()
    dimensions = brain.parameters.engine.dimensions
    paths, states = [], []
    for second in range(40):
        brain.step(
            TelemetryFrame(
                node="lab",
                sequence=second,
                time_utc=START + timedelta(seconds=second),
                monotonic_s=float(second),
                boot_id="boot",
                interval_s=1.0,
                cpu=CpuSample(utilization_ratio=second % 7 / 7),
            )
        )
        if second in (19, 39):
            states.append(json.loads(json.dumps(brain.state())))
            step = brain.engine.step_count
            paths.append(store.write(brain.state(), step=step, dimensions=dimensions, created_utc=""))
    older, newer = paths
    return Pair(store, dimensions, older, newer, states[0])


def header_bytes(data: bytes) -> int:
    return data.index(b',"state":')


def flipped(data: bytes, bits: Iterator[int]) -> Iterator[bytes]:
    for bit in bits:
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


def check_each(pair: Pair, damaged: Iterator[bytes]) -> int:
    """That each is refused and set aside with a message, and the one before used; how many there were."""
    aside = pair.newer.with_suffix(".damaged")
    count = 0
    for data in damaged:
        pair.newer.write_bytes(data)
        with structlog.testing.capture_logs() as entries:
            restored = pair.store.newest(pair.dimensions)
        assert restored is not None
        assert (restored.path, restored.state) == (pair.older, pair.state)
        assert [(of["event"], of["moved_to"]) for of in entries] == [("checkpoint_damaged", str(aside))]
        assert aside.read_bytes() == data
        count += 1
    assert pair.names == {pair.older.name, aside.name}
    return count


def test_a_flipped_bit_at_any_offset_of_the_header_is_found(pair: Pair) -> None:
    data = pair.newer.read_bytes()
    rng = random.Random(17)  # noqa: S311 - which bit, no secret
    bits = (8 * offset + rng.randrange(8) for offset in range(header_bytes(data) + 1))
    assert check_each(pair, flipped(data, bits)) > 200


def test_a_cut_at_any_offset_of_the_header_is_found(pair: Pair) -> None:
    data = pair.newer.read_bytes()
    assert check_each(pair, (data[:length] for length in range(header_bytes(data) + 1))) > 200


def test_500_flipped_bits_of_the_body_are_found(pair: Pair) -> None:
    data = pair.newer.read_bytes()
    rng = random.Random(19)  # noqa: S311 - which bits, no secret
    body = range(8 * header_bytes(data), 8 * len(data))
    assert check_each(pair, flipped(data, iter(rng.sample(body, BODY_FLIPS)))) == BODY_FLIPS


def test_500_cuts_of_the_body_are_found(pair: Pair) -> None:
    data = pair.newer.read_bytes()
    rng = random.Random(23)  # noqa: S311 - where to cut, no secret
    lengths = rng.sample(range(header_bytes(data), len(data)), BODY_FLIPS)
    assert check_each(pair, (data[:length] for length in lengths)) == BODY_FLIPS


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_every_flipped_bit_and_every_cut_of_a_checkpoint_is_found(pair: Pair) -> None:
    data = pair.newer.read_bytes()
    assert check_each(pair, flipped(data, iter(range(8 * len(data))))) == 8 * len(data)
    assert check_each(pair, (data[:length] for length in range(len(data)))) == len(data)


def test_the_damage_is_what_is_refused(pair: Pair) -> None:
    # The same way with nothing flipped, or all of the above would say nothing.
    restored = pair.store.newest(pair.dimensions)
    assert restored is not None
    assert restored.path == pair.newer


# A whole file that is no state of a brain: its checksum says so, and yet


def altered(state: Any, rng: random.Random) -> Any:
    """A copy with one value somewhere replaced by something of another kind, or gone."""
    copy = json.loads(json.dumps(state))
    place: Any = copy
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = rng.choice(keys)
        if not isinstance(place[key], (dict, list)) or not place[key] or rng.random() < 0.15:
            break
        place = place[key]
    if rng.random() < 0.2:
        del place[key]
    else:
        place[key] = rng.choice([None, "x", [], {}, -1, 1e308, [[]], {"a": 1}, True, 10**400])
    return copy


def test_a_whole_file_with_a_state_of_something_else_never_ends_in_an_unforeseen_error(pair: Pair) -> None:
    rng = random.Random(29)  # noqa: S311 - what to alter, no secret
    header, state = read_checkpoint(pair.newer)
    refused = 0
    for _ in range(1000):
        pair.newer.write_bytes(encode(header, altered(state, rng)))
        restored = pair.store.newest(pair.dimensions)
        assert restored is not None
        try:
            Brain(compiled=False).restore(restored.state)
        except MISFITS:
            refused += 1
    assert refused > 500


# Through real daemons


@pytest.fixture
def left_behind(
    mosquitto: Mosquitto, start_daemon: Callable[..., Daemon], tmp_path: Path
) -> Callable[..., list[Path]]:
    """The checkpoints of a daemon that was here, oldest first."""

    def leave() -> list[Path]:
        daemon = start_daemon(
            "--tick.interval_s", "0.05", "--checkpoint.interval_s", "0.05", port=mosquitto.port
        )
        wait_for(lambda: len(list((tmp_path / "state").glob("checkpoint-*.json"))) >= 4, "checkpoints")
        assert daemon.end() == 0
        return sorted((tmp_path / "state").glob("checkpoint-*.json"))

    return leave


def test_a_daemon_goes_back_as_far_as_it_must_and_sets_each_damaged_one_aside(
    mosquitto: Mosquitto, start_daemon: Callable[..., Daemon], left_behind: Callable[..., list[Path]]
) -> None:
    *_, good, cut, changed = left_behind()
    cut.write_bytes(cut.read_bytes()[:-1])
    data = bytearray(changed.read_bytes())
    data[len(data) // 2] ^= 1
    changed.write_bytes(data)
    # And what only bears the name of one.
    nested = good.with_name("checkpoint-9000000000000000.json")
    nested.write_bytes(b"[" * 100_000)
    folder = good.with_name("checkpoint-9000000000000001.json")
    folder.mkdir()
    empty = good.with_name("checkpoint-9000000000000002.json")
    empty.touch()
    daemon = start_daemon(port=mosquitto.port)
    assert daemon.wait_log("resumed")["checkpoint"] == str(good)
    daemon.wait_log("started")
    bad = [empty, folder, nested, changed, cut]
    assert [entry["path"] for entry in daemon.logged("checkpoint_damaged")] == [str(path) for path in bad]
    assert all(path.with_suffix(".damaged").exists() and not path.exists() for path in bad)
    assert "Traceback" not in "\n".join(daemon.lines)


def test_where_no_checkpoint_can_be_read_a_daemon_begins_anew_and_keeps_them(
    mosquitto: Mosquitto,
    start_daemon: Callable[..., Daemon],
    left_behind: Callable[..., list[Path]],
    disk: FailingDisk,
) -> None:
    paths = left_behind()
    disk.fail(errno.EIO, "r")
    daemon = start_daemon(port=mosquitto.port, environ=disk.environ)
    daemon.wait_log("started")
    disk.heal()
    reasons = {entry["reason"] for entry in daemon.logged("checkpoint_damaged")}
    assert reasons == {"it can't be read: Input/output error"}
    assert len(daemon.logged("checkpoint_damaged")) == len(paths)
    assert daemon.logged("started")[0]["step"] == 20
    assert all(path.with_suffix(".damaged").exists() for path in paths)
