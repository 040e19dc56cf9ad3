"""A disk that fails under running daemons, and heals: nothing stops, nothing is lost, all is said once.

The daemons, one for each fault, live through the same few seconds side by side; the tests look at what came.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from failing_disk import FAULTS, FailingDisk
from harness import Daemon, Heard, Listener, Mosquitto, wait_for

# An open file is still written when its directory's permissions are gone, or renaming fails.
CHECKPOINT_FAILS = [name for name in FAULTS if name != "short writes"]
OUTBOX_FAILS = [name for name in CHECKPOINT_FAILS if name not in ("EACCES", "rename fails")]
SOUND_OUTBOX = [name for name in FAULTS if name not in OUTBOX_FAILS]
REQUESTS = 5


class Patient:
    """A daemon over a disk of its own, and what was heard of it."""

    def __init__(self, fault: str, library: Path, directory: Path, listener: Listener, port: int) -> None:
        self.fault = fault
        self.node = fault.replace(" ", "-")
        self.root = f"neuromodd/{self.node}"
        self.listener = listener
        self.disk = FailingDisk(library, directory / self.node, directory / f"{self.node}.faults")
        self._known: dict[int, Any] = {}
        self.ticks: dict[str, int] = {}
        self.rewards: dict[str, int] = {}
        self.daemon = Daemon(
            [
                *("--node", self.node, "--checkpoint.directory", str(self.disk.directory)),
                *("--mqtt.host", "127.0.0.1", "--mqtt.port", str(port), "--log.format", "json"),
                *("--tick.interval_s", "0.1", "--checkpoint.interval_s", "0.2"),
                *("--mqtt.inbound.enabled", "true", "--mqtt.health_interval_s", "1"),
                # Of work at 10 a second: a reward is detected every other tick.
                *("--rewards.work_units", "2"),
            ],
            self.disk.environ,
        )

    def heard(self, name: str) -> list[Any]:
        return [self._parsed(of) for of in list(self.listener.heard) if of.topic == f"{self.root}/{name}"]

    def _parsed(self, heard: Heard) -> Any:
        # Each once: all of them are looked at again and again.
        if id(heard) not in self._known:
            self._known[id(heard)] = heard.json
        return self._known[id(heard)]

    @property
    def health(self) -> dict[str, Any]:
        heard: list[dict[str, Any]] = self.heard("health")
        return heard[-1] if heard else {}

    @property
    def errors(self) -> tuple[str | None, str | None]:
        """Of the checkpoints and of the outbox, as last said."""
        health = self.health
        return health["checkpoint"]["error"], health["mqtt"]["outbox"]["error"]

    @property
    def published(self) -> list[str]:
        return [of["id"] for of in self.heard("reward")]

    @property
    def logged(self) -> list[str]:
        return [of["id"] for of in self.daemon.logged("reward")]

    def ask(self, kind: str, number: int, *, answered: bool) -> None:
        payload = f'{{"kind": "WorkAccepted", "id": "{kind}-{number}"}}'.encode()
        answer = f"{self.root}/response/{kind}-{number}" if answered else None
        self.listener.ask(f"{self.root}/in/reward", payload, answer=answer)

    def answer(self, kind: str, number: int) -> dict[str, Any]:
        heard: list[dict[str, Any]] = self.heard(f"response/{kind}-{number}")
        return heard[0] if heard else {}

    def answers(self, kind: str) -> list[dict[str, Any]]:
        return [self.answer(kind, number) for number in range(REQUESTS)]

    def mark(self, when: str) -> None:
        self.ticks[when] = len(self.heard("telemetry"))
        self.rewards[when] = len(self.logged)


def each(patients: Sequence[Patient], condition: Callable[[Patient], object], what: str) -> None:
    for patient in patients:
        wait_for(lambda: condition(patient), f"{patient.fault}: {what}", 40.0)  # noqa: B023 - waited for


@pytest.fixture(scope="module")
def ward(faults_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Patient]]:
    """All that happened, over and done: sound, failing, healed."""
    directory = tmp_path_factory.mktemp("ward")
    broker = Mosquitto(directory)
    listener = Listener(broker.port, newest=True)
    patients = [Patient(fault, faults_library, directory, listener, broker.port) for fault in FAULTS]
    try:
        live_through(patients)
        yield {patient.fault: patient for patient in patients}
    finally:
        for patient in patients:
            patient.daemon.close()
        listener.close()
        broker.stop()


def live_through(patients: list[Patient]) -> None:
    each(patients, lambda of: of.health and of.health["checkpoint"]["written"] > 0, "a checkpoint")
    for patient in patients:
        patient.listener.ask(f"{patient.root}/in/work", b'{"rate": 10, "fresh_s": 3600}')
    each(patients, lambda of: len(of.published) >= 2, "rewards")

    for patient in patients:
        patient.disk.fail(*FAULTS[patient.fault])
        patient.mark("failing")
    each([of for of in patients if of.fault in CHECKPOINT_FAILS], lambda of: of.errors[0], "checkpoint error")
    each([of for of in patients if of.fault in OUTBOX_FAILS], lambda of: of.errors[1], "outbox error")
    for patient in patients:
        for number in range(REQUESTS):
            patient.ask("answered", number, answered=True)
            patient.ask("mute", number, answered=False)
    each(patients, lambda of: all(of.answers("answered")), "answers")
    for patient in patients:
        patient.mark("asked")
    each(patients, lambda of: len(of.heard("telemetry")) > of.ticks["asked"] + 20, "ticks")

    for patient in patients:
        patient.disk.heal()
    each(patients, lambda of: of.errors == (None, None), "no error in health")
    written = {of.fault: of.health["checkpoint"]["written"] for of in patients}
    each(patients, lambda of: of.health["checkpoint"]["written"] > written[of.fault] + 1, "checkpoints")
    for patient in patients:
        patient.mark("healed")
        patient.ask("afterwards", 0, answered=True)
    each(patients, lambda of: "afterwards-0" in of.published and of.answer("afterwards", 0), "an answer")
    each(patients, lambda of: set(of.logged[: of.rewards["healed"]]) <= set(of.published), "all rewards")


@pytest.mark.parametrize("fault", FAULTS)
def test_the_daemon_ticks_on(ward: dict[str, Patient], fault: str) -> None:
    patient = ward[fault]
    sequences = [of["sequence"] for of in patient.heard("telemetry")]
    assert sequences == sorted(set(sequences))
    assert patient.ticks["healed"] - patient.ticks["failing"] > 20
    assert (patient.daemon.process.poll(), patient.health["sinks_failed"]) == (None, {})
    assert "Traceback" not in "\n".join(patient.daemon.lines)


@pytest.mark.parametrize("fault", CHECKPOINT_FAILS)
def test_a_checkpoint_that_fails_is_said_in_health_and_in_one_line_of_the_log(
    ward: dict[str, Patient], fault: str
) -> None:
    patient = ward[fault]
    reasons = {of["checkpoint"]["error"] for of in patient.heard("health")} - {None}
    assert reasons == {f"{patient.disk.directory}: {os.strerror(FAULTS[fault][0])}"}
    lines = [len(patient.daemon.logged(event)) for event in ("checkpoint_failed", "checkpoint_back")]
    assert (lines, patient.health["checkpoint"]["failures"] > 5) == ([1, 1], True)


@pytest.mark.parametrize("fault", OUTBOX_FAILS)
def test_an_outbox_that_fails_is_said_in_health_and_in_one_line_of_the_log(
    ward: dict[str, Patient], fault: str
) -> None:
    patient = ward[fault]
    reasons = {of["mqtt"]["outbox"]["error"] for of in patient.heard("health")} - {None}
    assert reasons
    assert all(str(patient.disk.directory / "outbox.sqlite3") in reason for reason in reasons)
    lines = [len(patient.daemon.logged(f"outbox_{event}")) for event in ("failed", "back", "damaged")]
    assert lines == [1, 1, 0]


def test_writes_that_come_short_are_made_up_for_and_nobody_hears_of_it(ward: dict[str, Patient]) -> None:
    heard = ward["short writes"].heard("health")
    errors = [(of["checkpoint"]["error"], of["mqtt"]["outbox"]["error"]) for of in heard]
    assert set(errors) == {(None, None)}


@pytest.mark.parametrize("fault", FAULTS)
def test_checkpoints_are_written_again_when_the_fault_is_gone(ward: dict[str, Patient], fault: str) -> None:
    health = ward[fault].health["checkpoint"]
    assert health["error"] is None
    assert health["age_s"] < 10.0
    assert len(list(ward[fault].disk.directory.glob("checkpoint-*.json"))) >= 5


@pytest.mark.parametrize("fault", FAULTS)
def test_no_reward_that_was_detected_is_lost(ward: dict[str, Patient], fault: str) -> None:
    patient = ward[fault]
    events = patient.daemon.logged("reward")[patient.rewards["failing"] : patient.rewards["healed"]]
    detected = {of["id"] for of in events if of["origin"] == "detected"}
    assert len(detected) > 5
    assert detected <= set(patient.published)


@pytest.mark.parametrize("fault", FAULTS)
def test_no_reward_comes_twice_over_one_connection(ward: dict[str, Patient], fault: str) -> None:
    times = Counter(ward[fault].published)
    repeated = {identity: count for identity, count in times.items() if count > 1}
    assert repeated == {} or ward[fault].health["mqtt"]["connections"] > 1


@pytest.mark.parametrize("fault", FAULTS)
def test_a_reward_whose_sender_can_not_be_told_comes_out_all_the_same(
    ward: dict[str, Patient], fault: str
) -> None:
    assert {f"mute-{number}" for number in range(REQUESTS)} <= set(ward[fault].published)


@pytest.mark.parametrize("fault", OUTBOX_FAILS)
def test_a_reward_that_can_not_be_kept_is_refused_and_does_not_come_out(
    ward: dict[str, Patient], fault: str
) -> None:
    answers = ward[fault].answers("answered")
    assert {(of["ok"], of["refusal"]) for of in answers} == {(False, "failed")}
    assert all("it can't be kept: " in of["error"] for of in answers)
    assert not any(of.startswith("answered-") for of in ward[fault].published)


@pytest.mark.parametrize("fault", SOUND_OUTBOX)
def test_a_reward_that_can_be_kept_is_taken_and_comes_out(ward: dict[str, Patient], fault: str) -> None:
    assert {of["ok"] for of in ward[fault].answers("answered")} == {True}
    assert {f"answered-{number}" for number in range(REQUESTS)} <= set(ward[fault].published)


@pytest.mark.parametrize("fault", FAULTS)
def test_rewards_are_taken_again_when_the_fault_is_gone(ward: dict[str, Patient], fault: str) -> None:
    assert ward[fault].answer("afterwards", 0)["ok"]
