"""Recording in a real daemon, and replaying what it recorded."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from harness import Daemon, Listener, Mosquitto, wait_for

FAST = ("--tick.interval_s", "0.1", "--recorder.enabled", "true")
NEUROMODD = (sys.executable, "-m", "neuromodd")

StartDaemon = Callable[..., Daemon]
Listen = Callable[[int], Listener]


def neuromodd(*arguments: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*NEUROMODD, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    return done


def recordings(directory: Path) -> list[Path]:
    return sorted(directory.glob("recording-*"))


def published(listener: Listener) -> dict[int, bytes]:
    return {heard.json["sequence"]: heard.payload for heard in listener.named("state")}


def replayed(path: Path) -> dict[int, bytes]:
    return {json.loads(line)["sequence"]: line for line in path.read_bytes().splitlines()}


@pytest.mark.parametrize("compress", ["false", "true"])
def test_a_replay_of_a_killed_daemon_gives_what_it_published(
    start_daemon: StartDaemon, mosquitto: Mosquitto, listen: Listen, tmp_path: Path, compress: str
) -> None:
    config = tmp_path / "neuromodd.toml"
    config.write_text("[modulators]\nwork_target = 1.0\n")
    listener = listen(mosquitto.port)
    arguments = (*FAST, "--config", str(config), "--recorder.compress", compress)

    # A first life, so that the recording to come does not begin with a fresh brain.
    daemon = start_daemon(*arguments, port=mosquitto.port)
    listener.wait("state", count=5)
    assert daemon.end() == 0
    last = max(published(listener))

    daemon = start_daemon(*arguments, port=mosquitto.port)
    listener.wait("state", lambda heard: heard.json["sequence"] > last, count=10)
    # From outside: it changes what the same frames mean.
    config.write_text("[modulators]\nwork_target = 0.01\ndopamine_floor = 0.05\n")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_log("reloaded")
    after = max(published(listener))
    # A busy host may leave states out.
    # Two more than are counted below: what was said last need not be on the disk.
    listener.wait("state", lambda heard: heard.json["sequence"] > after, count=12)
    daemon.process.kill()
    daemon.wait()

    second = recordings(tmp_path / "state" / "recordings")[-1]
    assert '{"input":{"kind":"settings"' in text(second)
    neuromodd("replay", second, "--out", tmp_path / "ticks.jsonl")
    heard, again = published(listener), replayed(tmp_path / "ticks.jsonl")
    assert set(again) >= set(range(last + 1, after + 10))
    assert {sequence: heard[sequence] for sequence in again if sequence in heard} == {
        sequence: line for sequence, line in again.items() if sequence in heard
    }
    assert len(set(again) & set(heard)) >= 20


def test_the_recordings_of_a_daemon_are_rotated_and_bounded_and_each_can_be_replayed(
    start_daemon: StartDaemon, mosquitto: Mosquitto, listen: Listen, tmp_path: Path
) -> None:
    directory = tmp_path / "elsewhere"
    bounds = ("--recorder.rotate_bytes", "20000", "--recorder.max_bytes", "60000")
    listener = listen(mosquitto.port)
    daemon = start_daemon(*FAST, *bounds, "--recorder.directory", str(directory), port=mosquitto.port)
    names: set[str] = set()

    def rotated() -> bool:
        names.update(path.name for path in recordings(directory))
        return len(names) >= 6

    wait_for(rotated, "six recordings", timeout_s=60.0)
    assert daemon.end() == 0
    left = recordings(directory)
    assert left[0].name > min(names)
    assert sum(path.stat().st_size for path in left) <= 60_000 + 20_000
    heard = published(listener)
    for path in left[1:]:
        neuromodd("replay", path, "--out", tmp_path / "ticks.jsonl")
        again = replayed(tmp_path / "ticks.jsonl")
        assert again == {sequence: heard[sequence] for sequence in again}
    neuromodd("replay", *left, "--out", tmp_path / "ticks.jsonl", "--checkpoint-out", tmp_path / "end.json")
    newest = max((tmp_path / "state").glob("checkpoint-*.json"))
    assert state_of(tmp_path / "end.json") == state_of(newest)


def state_of(path: Path) -> object:
    return json.loads(path.read_bytes())["state"]


def test_health_tells_of_the_recorder(
    start_daemon: StartDaemon, mosquitto: Mosquitto, listen: Listen
) -> None:
    listener = listen(mosquitto.port)
    start_daemon(*FAST, "--mqtt.health_interval_s", "1", port=mosquitto.port)
    health = listener.wait("health", lambda heard: heard.json["recorder"]["frames"] > 3).json["recorder"]
    assert health["file"].startswith("recording-")
    assert health["total_bytes"] > 1000
    assert (health["dropped"], health["failures"], health["error"]) == (0, 0, None)


def test_a_directory_that_another_one_records_into_is_refused(
    start_daemon: StartDaemon, mosquitto: Mosquitto, listen: Listen, tmp_path: Path
) -> None:
    start_daemon(*FAST, port=mosquitto.port)
    listen(mosquitto.port).wait("state")
    directory = tmp_path / "state" / "recordings"
    refused = neuromodd("record", "-n", "1", "--recorder.directory", directory, status=3)
    assert "locked by" in refused.stderr


# The commands


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    directory = tmp_path / "recordings"
    done = neuromodd(
        "record", "-n", "5", "--tick.interval_s", "0.05", "--recorder.directory", directory, "--node", "lab"
    )
    assert done.stdout.startswith("5 frames")
    (path,) = recordings(directory)
    return path


def test_frames_are_recorded_without_a_daemon_and_replayed(recorded: Path) -> None:
    done = neuromodd("replay", recorded, "--out", "-")
    assert [json.loads(line)["sequence"] for line in done.stdout.splitlines()] == [0, 1, 2, 3, 4]
    assert done.stderr.startswith("5 frames in ")
    # A pipe is no terminal: no bar.
    assert "\r" not in done.stderr


def test_recording_ends_in_good_order_when_asked(tmp_path: Path) -> None:
    directory = tmp_path / "recordings"
    process = subprocess.Popen(
        [*NEUROMODD, "record", "--tick.interval_s", "0.05", "--recorder.directory", str(directory)],
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: any(text(path).count('{"node"') > 2 for path in recordings(directory)), "three frames")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    frames = int(out.split()[0])
    assert text(recordings(directory)[0]).count('{"node"') == frames


def test_recording_does_not_wait_for_a_frame_that_is_not_to_come(tmp_path: Path) -> None:
    directory = tmp_path / "recordings"
    # Far beyond the time limit of `neuromodd`.
    neuromodd("record", "-n", "1", "--tick.interval_s", "3600", "--recorder.directory", directory)
    assert text(recordings(directory)[0]).count('{"node"') == 1


def test_frames_that_do_not_reach_the_disk_are_a_failure(tmp_path: Path) -> None:
    directory = tmp_path / "recordings"
    options = ["--tick.interval_s", "0.05", "--recorder.directory", str(directory)]
    # A limit of 1 KiB a file; the header alone is longer.
    limited = ["bash", "-c", 'ulimit -f 1; exec "$@"', "bash", *NEUROMODD]
    done = subprocess.run(
        [*limited, "record", "-n", "5", *options], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stdout.startswith("0 frames")
    told = f"neuromodd: 5 of 5 frames are missing in the recordings: {directory}: File too large"
    assert done.stderr.splitlines()[-1] == told


def is_asleep(pid: int) -> bool:
    """Whether the kernel has put the process to sleep."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def test_an_interrupted_replay_tells_what_it_did(recorded: Path, tmp_path: Path) -> None:
    pipe, checkpoint = tmp_path / "pipe", tmp_path / "c.json"
    os.mkfifo(pipe)
    # Whoever runs the tests in the background has them inherit that SIGINT is ignored.
    listening = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    start = f"{listening}; from neuromodd.cli import main; main()"
    command = [sys.executable, "-c", start, "replay", str(pipe), "--checkpoint-out", str(checkpoint)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        # Without its header, so that it says when it has come to the frames; then it waits for more.
        with pipe.open("wb", buffering=0) as writer:
            writer.write(b"".join(recorded.read_bytes().splitlines(keepends=True)[1:]))
            assert "no header" in process.stderr.readline()
            # A signal just before it falls asleep would be noticed only when it wakes up.
            wait_for(lambda: is_asleep(process.pid), "the replay to wait for more")
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert told.startswith("neuromodd: interrupted after ")
    assert told.endswith(f"; {checkpoint} is not written\n")
    assert not checkpoint.exists()


def test_a_broken_line_is_told_with_its_file_and_number(recorded: Path) -> None:
    lines = recorded.read_bytes().splitlines(keepends=True)
    recorded.write_bytes(b"".join([*lines[:3], b"{broken\n", *lines[3:]]))
    refused = neuromodd("replay", recorded, status=1)
    assert f"{recorded}:4: " in refused.stderr
    done = neuromodd("replay", recorded, "--skip-bad")
    assert f"{recorded}:4: skipped: " in done.stderr
    assert done.stdout.startswith("5 frames in ")
    assert "lines skipped 1" in done.stdout


def test_a_recording_is_not_overwritten_by_its_own_replay(recorded: Path) -> None:
    before = recorded.read_bytes()
    refused = neuromodd("replay", recorded, "--out", recorded, status=1)
    assert "--out: got" in refused.stderr
    assert recorded.read_bytes() == before


def test_a_recording_that_is_not_there_is_told_with_its_name(tmp_path: Path) -> None:
    refused = neuromodd("replay", tmp_path / "nofile.jsonl", status=1)
    assert refused.stderr == f"neuromodd: {tmp_path}/nofile.jsonl: No such file or directory\n"


def test_on_a_terminal_there_is_a_progress_bar(recorded: Path) -> None:
    # Frames enough for a picture or two.
    lines = recorded.read_bytes().splitlines(keepends=True)
    recorded.write_bytes(b"".join([lines[0], *lines[1:] * 500]))
    leader, follower = pty.openpty()
    process = subprocess.Popen([*NEUROMODD, "replay", str(recorded)], stdout=subprocess.PIPE, stderr=follower)
    os.close(follower)
    seen = b""
    try:
        while part := os.read(leader, 4096):
            seen += part
    except OSError:
        # How Linux says that the other end is closed.
        pass
    os.close(leader)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"frames/s" in seen
    assert b"[###" in seen
    # It is removed at the end.
    assert seen.endswith(b"\r\x1b[K")
    assert out.startswith(b"2500 frames in ")


def test_memory_images_are_made_of_a_daemons_checkpoint(
    start_daemon: StartDaemon, mosquitto: Mosquitto, listen: Listen, tmp_path: Path
) -> None:
    daemon = start_daemon("--tick.interval_s", "0.05", port=mosquitto.port)
    listen(mosquitto.port).wait("state", count=10)
    assert daemon.end() == 0
    target = tmp_path / "mem"
    neuromodd("export-mem", target, "--checkpoint.directory", tmp_path / "state")
    engine = state_of(max((tmp_path / "state").glob("checkpoint-*.json")))["engine"]  # type: ignore[index]
    words = [int(line, 16) for line in (target / "parameters.mem").read_text().split()]
    assert words == [int(256 * theta) for theta in engine["theta"]]
    assert len((target / "parameters_weights.mem").read_text().split()) == 64
    assert (target / "parameters_decay.mem").read_text().split() == ["0026"] * 8


def test_without_a_checkpoint_there_is_nothing_to_export(tmp_path: Path) -> None:
    refused = neuromodd("export-mem", tmp_path / "mem", "--checkpoint.directory", tmp_path, status=1)
    assert "no checkpoint" in refused.stderr


def text(path: Path) -> str:
    """The lines of a recording, unpacked."""
    data = path.read_bytes()
    if path.suffix == ".zst":
        data = zstandard.ZstdDecompressor().stream_reader(data).read()
    return data.decode()
