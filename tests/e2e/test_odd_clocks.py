"""The daemon as a real process that is stopped and goes on, and whose clocks leap and are set back.

Each of a few lives is lived once, and every test says one thing of one of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import statistics
import struct
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, Heard, Listener, Mosquitto, wait_for

from neuromodd.core.frame import TelemetryFrame
from neuromodd.recording import RecordingReader
from neuromodd.sinks.checkpoint_file import decode
from neuromodd.sinks.outbox import FILE_NAME

# Deadlines and gaps are judged here: a machine that is busy with other tests would be blamed on the daemon.
pytestmark = pytest.mark.alone

INTERVAL_S = 0.2
REWARDS = 40
AT_ONCE = 20
"""So many rewards go out at once; the others wait their turn in the outbox."""

YEAR_S, HOUR_S = 31_536_000.0, 3600.0

ARGUMENTS = (
    *("--node", "lab", "--log.format", "json", "--tick.interval_s", str(INTERVAL_S)),
    *("--mqtt.host", "127.0.0.1", "--mqtt.health_interval_s", "1", "--mqtt.keepalive_s", "5"),
    *("--mqtt.inbound.enabled", "true", "--mqtt.inbound.rate_per_s", "1000"),
    *("--mqtt.outbox.rate_per_s", "5", "--recorder.enabled", "true"),
    # No rewards but those that are sent, whatever else this host has to do.
    *("--rewards.busy_ticks", "3600", "--rewards.source_ticks", "3600"),
)


@dataclass
class Life:
    """A daemon, its broker, and whoever listens there; what became of them."""

    directory: Path
    broker: Mosquitto
    listener: Listener
    daemon: Daemon
    marks: dict[str, int] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def mark(self, name: str, ticks: int = 4) -> None:
        """Name this moment by the frames that were heard before it, and live on for some ticks."""
        self.marks[name] = len(self.listener.named("telemetry"))
        self.listener.wait("telemetry", count=self.marks[name] + ticks)

    def heard_in(self, name: str, topic: str = "telemetry") -> list[Heard]:
        """What was heard from a moment to the next; the first frame, of which it is not sure, aside."""
        frames = self.listener.named("telemetry")
        following = min((of for of in self.marks.values() if of > self.marks[name]), default=len(frames))
        part = frames[self.marks[name] + 1 : following]
        if topic == "telemetry":
            return part
        return [of for of in self.listener.named(topic) if part[0].at_s <= of.at_s <= part[-1].at_s]

    @property
    def state(self) -> Path:
        return self.directory / "state"

    def recorded(self) -> list[TelemetryFrame]:
        """All frames of all recordings, in the order of their files."""
        found = []
        for path in sorted((self.state / "recordings").glob("recording-*")):
            with RecordingReader(path) as reader:
                found += [item.content for item in reader if isinstance(item.content, TelemetryFrame)]
        return found

    def health(self) -> Any:
        return self.listener.named("health")[-1].json

    def reward_ids(self) -> list[str]:
        return [heard.json["id"] for heard in self.listener.named("reward")]

    def send_rewards(self) -> set[str]:
        """Send more rewards than go out at once, and wait until the daemon has lived through all."""
        sent = {f"reward-{number}" for number in range(REWARDS)}
        before = len(self.daemon.logged("reward"))
        for identity in sorted(sent):
            payload = json.dumps({"kind": "BreakthroughFound", "id": identity}).encode()
            self.listener.ask("neuromodd/lab/in/reward", payload)
        self.daemon.wait_log("reward", count=before + REWARDS)
        return sent


@contextlib.contextmanager
def live(directory: Path, *arguments: str, environ: dict[str, str] | None = None) -> Iterator[Life]:
    broker = Mosquitto(directory)
    listener = Listener(broker.port, newest=True)
    state = ("--checkpoint.directory", str(directory / "state"), "--mqtt.port", str(broker.port))
    daemon = Daemon([*ARGUMENTS, *state, *arguments], environ or {})
    try:
        listener.wait("telemetry", count=2)
        yield Life(directory, broker, listener, daemon)
    finally:
        # What is stopped would not end.
        if daemon.process.poll() is None:
            daemon.process.send_signal(signal.SIGCONT)
        daemon.close()
        listener.close()
        broker.stop()


# A process that is stopped until the broker has given it up


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    with live(tmp_path_factory.mktemp("stopped")) as life:
        listener, process = life.listener, life.daemon.process
        life.notes["sent"] = life.send_rewards()
        # One of after the last reward: a later one would have raised the level again.
        life.notes["state before"] = listener.wait("state", count=len(listener.named("state")) + 2).json
        assert life.notes["state before"]["modulators"]["phasic"]["dopamine"] > 0.5
        process.send_signal(signal.SIGSTOP)
        with contextlib.closing(sqlite3.connect(f"file:{life.state / FILE_NAME}?mode=ro", uri=True)) as box:
            (life.notes["waiting"],) = box.execute(
                "SELECT count(*) FROM outbox WHERE name = 'reward'"
            ).fetchone()
        online = len(listener.named("status"))
        listener.wait("status", lambda heard: heard.payload == b"offline")
        process.send_signal(signal.SIGCONT)
        listener.wait("status", lambda heard: heard.payload == b"online", count=online + 1)
        life.notes["state after"] = listener.wait(
            "state", lambda heard: heard.json["sequence"] > life.notes["state before"]["sequence"] + 2
        ).json
        wait_for(lambda: life.notes["sent"] <= set(life.reward_ids()), "every reward")
        health = listener.wait("health", lambda heard: heard.json["ticks"]["gaps"] > 0)
        seen = len([heard for heard in listener.named("telemetry") if heard.at_s <= health.at_s])
        listener.wait("telemetry", count=seen + 8)
        assert life.daemon.end() == 0
        yield life


def gap_of(life: Life) -> int:
    (place,) = [place for place, frame in enumerate(life.recorded()) if frame.gap]
    return place


def test_a_stop_is_one_gap(stopped: Life) -> None:
    assert [frame.gap for frame in stopped.recorded()].count(True) == 1


def test_the_gap_is_as_long_as_the_stop(stopped: Life) -> None:
    frames, place = stopped.recorded(), gap_of(stopped)
    assert frames[place].interval_s == pytest.approx(
        frames[place].monotonic_s - frames[place - 1].monotonic_s
    )
    # The broker gives a silent client up after one and a half times its keepalive.
    assert (frames[place].interval_s or 0.0) > 6.0


def test_a_stop_is_logged_once(stopped: Life) -> None:
    assert len(stopped.daemon.logged("gap")) == 1


def test_a_stop_is_counted_once(stopped: Life) -> None:
    assert stopped.health()["ticks"]["gaps"] == 1


def test_ticks_that_never_took_place_are_counted_and_not_made_up_for(stopped: Life) -> None:
    ticks = stopped.health()["ticks"]
    frames = stopped.recorded()[: ticks["count"]]
    intervals = (frames[-1].monotonic_s - frames[0].monotonic_s) / INTERVAL_S
    assert ticks["count"] + ticks["missed"] == pytest.approx(intervals + 1, abs=2.0)
    assert ticks["missed"] > 6.0 / INTERVAL_S - 2


def test_after_a_stop_no_burst_of_ticks_comes(stopped: Life) -> None:
    frames, place = stopped.recorded(), gap_of(stopped)
    after = [frame.monotonic_s - frames[place].monotonic_s for frame in frames[place + 1 :]]
    # The gap itself came late, so the next of the grid may be near.
    assert len([at_s for at_s in after if at_s < INTERVAL_S]) <= 1
    assert len([at_s for at_s in after if at_s < 1.0]) <= 1.0 / INTERVAL_S + 1


def test_over_a_stop_there_are_no_rates(stopped: Life) -> None:
    frame = stopped.recorded()[gap_of(stopped)]
    assert frame.cpu is not None
    assert (frame.cpu.utilization_ratio, frame.cpu.context_switches_per_s, frame.work) == (None, None, None)


def test_after_a_stop_the_rates_are_those_of_their_own_time(stopped: Life) -> None:
    after = stopped.recorded()[gap_of(stopped) + 2 :]
    assert len(after) > 3
    for frame in after:
        assert frame.cpu is not None
        assert 0.0 <= (frame.cpu.utilization_ratio or 0.0) <= 1.0
        assert 0.0 < (frame.cpu.context_switches_per_s or 0.0) < 1e7


def test_no_frame_is_lost_or_repeated_over_a_stop(stopped: Life) -> None:
    sequences = [frame.sequence for frame in stopped.recorded()]
    assert sequences == list(range(len(sequences)))


@pytest.mark.parametrize(("level", "left_a_second"), [("dopamine", 0.95), ("acetylcholine", 0.99)])
def test_over_a_stop_a_reward_decays_by_the_time_that_passed(
    stopped: Life, level: str, left_a_second: float
) -> None:
    times = {frame.sequence: frame.monotonic_s for frame in stopped.recorded()}
    before, after = stopped.notes["state before"], stopped.notes["state after"]
    passed_s = times[after["sequence"]] - times[before["sequence"]]
    assert passed_s > 6.0
    phasic = [of["modulators"]["phasic"][level] for of in (before, after)]
    assert phasic[1] == pytest.approx(phasic[0] * left_a_second**passed_s, rel=0.01, abs=1e-6)


def test_rewards_that_waited_in_the_outbox_over_a_stop_arrive(stopped: Life) -> None:
    assert stopped.notes["waiting"] >= REWARDS - AT_ONCE
    assert stopped.notes["sent"] <= set(stopped.reward_ids())


def test_over_a_stop_nothing_is_dropped_from_the_outbox(stopped: Life) -> None:
    assert stopped.health()["mqtt"]["outbox"]["dropped"] == 0


def test_a_daemon_that_the_broker_gave_up_is_back_and_says_so(stopped: Life) -> None:
    said = [heard.payload for heard in stopped.listener.named("status")]
    assert said == [b"online", b"offline", b"online", b"offline"]
    assert stopped.health()["mqtt"]["connections"] == 2


def test_a_stop_blames_no_sensor(stopped: Life) -> None:
    assert {of["failures"] for of in stopped.health()["sensors"].values()} == {0}
    assert not stopped.daemon.logged("sensor_hung")


# A process whose clocks are wrong


class OddClocks:
    """What is added to the clocks of a process that was started with `environ`."""

    def __init__(self, directory: Path) -> None:
        source = Path(__file__).parent.parent / "odd_clock.c"
        library = directory / "odd_clock.so"
        strict = ["gcc", "-std=gnu17", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
        subprocess.run([*strict, "-o", library, source], check=True)
        self._file = directory / "clocks"
        self.ahead_s = {"wall": 0.0, "monotonic": 0.0, "boot": 0.0}
        self.move()
        self.environ = {"LD_PRELOAD": str(library), "ODD_CLOCK_FILE": str(self._file)}

    def move(self, **by_s: float) -> None:
        """Let clocks leap, all of them at once."""
        for name, seconds in by_s.items():
            self.ahead_s[name] += seconds
        shifts = struct.pack("3q", *(int(seconds * 1e9) for seconds in self.ahead_s.values()))
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o600)
        os.pwrite(descriptor, shifts, 0)
        os.close(descriptor)


WALLS = {"true": 0.0, "year ahead": YEAR_S, "year back": -YEAR_S, "true again": 0.0}
"""How far ahead the wall clock is in each part of the life."""

LEAPS = ("asleep", "all leap", "all set back")


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    directory = tmp_path_factory.mktemp("odd")
    clocks = OddClocks(directory)
    with live(directory, "--checkpoint.interval_s", "0.5", environ=clocks.environ) as life:
        life.notes["sent"] = life.send_rewards()
        for name, ahead_s in WALLS.items():
            clocks.move(wall=ahead_s - life.notes.get("wall", 0.0))
            life.notes["wall"] = ahead_s
            life.listener.ask("neuromodd/lab/in/reward", b'{"kind": "WorkAccepted"}')
            life.mark(name)
        clocks.move(boot=HOUR_S)
        life.mark("asleep")
        clocks.move(boot=HOUR_S, monotonic=HOUR_S)
        life.mark("all leap")
        checkpoints = life.health()["checkpoint"]["written"]
        clocks.move(boot=-5 * HOUR_S, monotonic=-5 * HOUR_S)
        life.mark("all set back", 8)
        life.listener.wait("health", lambda heard: heard.json["checkpoint"]["written"] > checkpoints + 2)
        wait_for(lambda: life.notes["sent"] <= set(life.reward_ids()), "every reward")
        assert life.daemon.end() == 0
        yield life


def parsed(time_utc: str) -> float:
    return datetime.fromisoformat(time_utc).timestamp()


@pytest.mark.parametrize("part", WALLS)
def test_frames_have_the_time_that_the_wall_clock_shows(odd: Life, part: str) -> None:
    heard = odd.heard_in(part)
    started = time.time() - time.monotonic()
    assert len(heard) > 2
    for of in heard:
        assert parsed(of.json["time_utc"]) == pytest.approx(started + of.at_s + WALLS[part], abs=5.0)


@pytest.mark.parametrize("part", WALLS)
def test_a_step_of_the_wall_clock_is_no_gap(odd: Life, part: str) -> None:
    frames = odd.listener.named("telemetry")
    # The very frame of the step too.
    at = odd.marks[part]
    assert {of.json["gap"] for of in frames[at : at + 3]} == {False}


@pytest.mark.parametrize("part", LEAPS)
def test_a_leap_of_the_clock_of_the_frames_is_one_gap(odd: Life, part: str) -> None:
    frames = odd.listener.named("telemetry")
    at = odd.marks[part]
    assert [of.json["gap"] for of in frames[at - 1 : at + 3]].count(True) == 1


@pytest.mark.parametrize(
    ("part", "longest_s"), [("asleep", HOUR_S + 5.0), ("all leap", HOUR_S + 5.0), ("all set back", 0.0)]
)
def test_the_gap_of_a_leap_is_as_long_as_the_leap(odd: Life, part: str, longest_s: float) -> None:
    frames, at = odd.listener.named("telemetry"), odd.marks[part]
    (gap,) = [of.json for of in frames[at - 1 : at + 3] if of.json["gap"]]
    assert longest_s - 5.0 <= gap["interval_s"] <= longest_s


@pytest.mark.parametrize("part", [*WALLS, *LEAPS])
def test_whatever_the_clocks_did_ticks_come_at_their_interval_afterwards(odd: Life, part: str) -> None:
    intervals = [of.json["interval_s"] for of in odd.heard_in(part)[1:]]
    assert statistics.median(intervals) == pytest.approx(INTERVAL_S, rel=0.5)


@pytest.mark.parametrize("part", [*WALLS, *LEAPS])
def test_whatever_the_clocks_did_rates_are_those_of_their_own_time(odd: Life, part: str) -> None:
    for of in odd.heard_in(part)[2:]:
        assert 0.0 <= of.json["cpu"]["utilization_ratio"] <= 1.0
        assert 0.0 < of.json["cpu"]["context_switches_per_s"] < 1e7


def numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for name, of in value.items():
            yield from numbers(of, f"{path}.{name}")
    elif isinstance(value, list):
        for of in value:
            yield from numbers(of, path)
    elif isinstance(value, (int, float)):
        yield path, value


def test_nothing_negative_is_said_on_any_topic(odd: Life) -> None:
    for name in ("telemetry", "state", "health", "reward", "info"):
        heard = odd.listener.named(name)
        assert heard
        for of in heard:
            found = [(path, number) for path, number in numbers(of.json) if number < 0.0]
            # Phasic parts have a sign, and so has the cold.
            assert [pair for pair in found if "phasic" not in pair[0] and "celsius" not in pair[0]] == []


def test_no_frame_is_lost_or_repeated_whatever_the_clocks_did(odd: Life) -> None:
    sequences = [frame.sequence for frame in odd.recorded()]
    assert sequences == list(range(len(sequences)))


def test_rewards_have_ids_of_the_time_that_the_wall_clock_shows(odd: Life) -> None:
    own = [of for of in odd.listener.named("reward") if not of.json["id"].startswith("reward-")]
    assert len(own) == len({of.json["id"] for of in own}) == len(WALLS)
    started = time.time() - time.monotonic()
    minted = sorted((uuid.UUID(of.json["id"]).int >> 80) / 1000.0 for of in own)
    true_s = [started + of.at_s for of in own]
    expected = sorted(at_s + ahead_s for at_s, ahead_s in zip(true_s, WALLS.values(), strict=True))
    assert minted == pytest.approx(expected, abs=30.0)


def test_nothing_expires_from_the_outbox_whatever_the_clocks_did(odd: Life) -> None:
    assert odd.health()["mqtt"]["outbox"]["dropped"] == 0
    assert odd.notes["sent"] <= set(odd.reward_ids())


def test_a_reward_decays_by_an_hour_asleep(odd: Life) -> None:
    assert odd.heard_in("true again", "state")[-1].json["modulators"]["phasic"]["dopamine"] > 0.2
    assert odd.heard_in("asleep", "state")[0].json["modulators"]["phasic"]["dopamine"] < 1e-6


def test_the_connection_outlasts_every_step_and_leap(odd: Life) -> None:
    # The keepalive is reckoned by the monotonic clock: after a leap of that a new connection is no fault.
    assert odd.health()["mqtt"]["connections"] <= 3
    assert [of.payload for of in odd.listener.named("status")][-2:] == [b"online", b"offline"]


def test_health_is_said_on_after_the_clocks_were_set_back(odd: Life) -> None:
    assert len(odd.heard_in("all set back", "health")) >= 1


def test_the_newest_checkpoint_is_the_last_one_whatever_the_clocks_said(odd: Life) -> None:
    newest = max(odd.state.glob("checkpoint-*.json"))
    _, saved = decode(newest, newest.read_bytes())
    assert saved["sequence"] == odd.recorded()[-1].sequence + 1


def test_no_sensor_is_blamed_for_the_clocks(odd: Life) -> None:
    assert {of["failures"] for of in odd.health()["sensors"].values()} == {0}


def test_nothing_failed_whatever_the_clocks_did(odd: Life) -> None:
    said = {entry["event"] for entry in odd.daemon.events if entry["level"] in {"warning", "error"}}
    assert said <= {"gap", "mqtt_unavailable"}


# Another boot, of which the wall clock tells nonsense


@dataclass(frozen=True)
class Boot:
    """What was saved before it, and what its daemon said first."""

    saved: Any
    frame: Any
    state: Any
    health: Any


BOOTS = {"boot-b": -YEAR_S, "boot-c": 2 * YEAR_S}
"""How far the wall clock is off from one boot to the next."""


@pytest.fixture(scope="module")
def boots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Boot]:
    directory = tmp_path_factory.mktemp("boots")
    clocks = OddClocks(directory)
    boot_id = directory / "proc/sys/kernel/random/boot_id"
    boot_id.parent.mkdir(parents=True)
    boot_id.write_text("boot-a\n")
    arguments = ("--sensors.procfs_root", str(directory / "proc"), "--tick.interval_s", "0.1")
    found: dict[str, Boot] = {}
    with live(directory, *arguments, environ=clocks.environ) as life:
        life.listener.ask("neuromodd/lab/in/reward", b'{"kind": "BreakthroughFound"}')
        life.listener.wait("state", lambda heard: heard.json["modulators"]["phasic"]["dopamine"] > 0.9)
        assert life.daemon.end() == 0
    for name, wall_s in BOOTS.items():
        newest = max((directory / "state").glob("checkpoint-*.json"))
        _, saved = decode(newest, newest.read_bytes())
        boot_id.write_text(f"{name}\n")
        # The clock of a boot begins anew.
        begun_s = clocks.ahead_s["boot"] + time.clock_gettime(time.CLOCK_BOOTTIME)
        clocks.move(wall=wall_s, boot=10.0 - begun_s)
        with live(directory, *arguments, environ=clocks.environ) as life:
            health = life.listener.wait("health").json
            frame = life.listener.named("telemetry")[0].json
            state = life.listener.wait("state").json
            assert life.daemon.end() == 0
        found[name] = Boot(saved, frame, state, health)
    return found


@pytest.mark.parametrize("name", BOOTS)
def test_after_a_reboot_frames_are_counted_on(boots: dict[str, Boot], name: str) -> None:
    boot = boots[name]
    assert (boot.frame["sequence"], boot.frame["boot_id"]) == (boot.saved["sequence"], name)


@pytest.mark.parametrize(("name", "left"), [("boot-b", 1.0), ("boot-c", 0.0)])
def test_over_a_reboot_a_reward_stays_or_fades_and_never_grows(
    boots: dict[str, Boot], name: str, left: float
) -> None:
    saved = boots[name].saved["phasic"]["dopamine"]
    assert saved > 0.5
    assert boots[name].state["modulators"]["phasic"]["dopamine"] == pytest.approx(left * saved, abs=0.02)


@pytest.mark.parametrize("name", BOOTS)
def test_after_a_reboot_nothing_negative_is_said(boots: dict[str, Boot], name: str) -> None:
    said = [pair for of in (boots[name].frame, boots[name].health) for pair in numbers(of)]
    assert [pair for pair in said if pair[1] < 0.0] == []
