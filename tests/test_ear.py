"""What others may ask for, and what they are told."""

from __future__ import annotations

import asyncio
import json
import string
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromodd.core.requests import REQUEST_LIMIT_BYTES
from neuromodd.core.rewards import BreakthroughFound, RewardEvent, WorkAccepted
from neuromodd.ear import BURST_S, COMMANDS_REMEMBERED, STALE_S, Ear
from neuromodd.errors import RequestRefusedError
from neuromodd.mqtt import Incoming, Outgoing

NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)
RATE_PER_S = 10.0
ANSWERS = "neuromodd/lab/response/me"


class Doer:
    """Remembers what it was asked to do."""

    def __init__(self) -> None:
        self.done: list[tuple[str, Any]] = []
        self.durable: list[bool] = []
        self.failure: RequestRefusedError | None = None
        self.free: asyncio.Event | None = None

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.done]

    async def _do(self, name: str, value: Any = None) -> dict[str, Any]:
        if self.failure is not None:
            raise self.failure
        if self.free is not None:
            await self.free.wait()
        self.done.append((name, value))
        return {"did": name}

    async def take_reward(self, event: RewardEvent, *, durable: bool) -> tuple[RewardEvent, bool]:
        self.durable.append(durable)
        known = [of.id for name, of in self.done if name == "reward"]
        new = event.id is None or event.id not in known
        if new:
            await self._do("reward", event)
        return event.model_copy(update={"id": event.id or "made"}), new

    async def write_checkpoint(self) -> dict[str, Any]:
        return await self._do("checkpoint")

    async def sample_now(self) -> dict[str, Any]:
        return await self._do("sample-now")

    async def forget(self) -> dict[str, Any]:
        return await self._do("reset")

    async def set_interval(self, interval_s: float) -> dict[str, Any]:
        return await self._do("set-interval", interval_s)

    async def identify(self) -> dict[str, Any]:
        return await self._do("identify")


class World:
    """An ear, what it does, and the clocks."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.doer = Doer()
        self.ear = Ear(
            node="lab",
            root="neuromodd/lab",
            guarded=("neuromodd", "homeassistant"),
            rate_per_s=RATE_PER_S,
            work_fresh_s=10.0,
            actions=self.doer,
            clock=lambda: self.now_s,
            now_utc=lambda: NOW,
        )

    async def send(
        self, name: str, payload: bytes | None, *, answer: str | None = ANSWERS, retained: bool = False
    ) -> Outgoing | None:
        size = REQUEST_LIMIT_BYTES + 1 if payload is None else len(payload)
        message = Incoming(f"neuromodd/lab/{name}", payload, size, 1, retained, answer, b"c", 1)
        return await self.ear.hear(message)

    async def ask(self, name: str, **values: Any) -> dict[str, Any]:
        """What is answered to a request."""
        answer = await self.send(name, json.dumps(values).encode())
        assert answer is not None
        found: dict[str, Any] = json.loads(answer.payload)
        return found


@pytest.fixture
def world() -> World:
    return World()


# Rewards


async def test_a_reward_is_taken(world: World) -> None:
    await world.ask("in/reward", kind="WorkAccepted", latency_ms=12)
    assert world.doer.done == [("reward", WorkAccepted(latency_ms=12.0))]


@pytest.mark.parametrize(("answer", "durable"), [(ANSWERS, True), (None, False)])
async def test_only_whoever_can_be_told_is_refused_what_can_not_be_kept(
    world: World, answer: str | None, durable: bool
) -> None:
    await world.send("in/reward", b'{"kind": "WorkAccepted"}', answer=answer)
    assert world.doer.durable == [durable]


async def test_an_event_of_the_library_is_taken_as_it_is(world: World) -> None:
    event = BreakthroughFound(metric="loss", value=0.1, id="mine", time_utc=NOW, node="lab")
    await world.send("in/reward", event.to_json().encode())
    assert world.doer.done == [("reward", event)]


async def test_whoever_sends_a_reward_is_told_its_id(world: World) -> None:
    reply = await world.ask("in/reward", kind="WorkAccepted", id="mine")
    assert (reply["ok"], reply["id"], reply["result"]) == (True, "mine", None)


async def test_a_reward_that_came_before_is_taken_once_and_is_no_fault(world: World) -> None:
    for _ in range(2):
        reply = await world.ask("in/reward", kind="WorkAccepted", id="mine")
    assert (reply["ok"], reply["result"], world.doer.names) == (True, {"repeated": True}, ["reward"])


async def test_a_reward_for_another_node_is_refused(world: World) -> None:
    reply = await world.ask("in/reward", kind="WorkAccepted", node="other")
    assert (reply["refusal"], world.doer.done) == ("invalid", [])


async def test_nobody_can_send_what_only_the_daemon_detects(world: World) -> None:
    reply = await world.ask("in/reward", kind="WorkAccepted", origin="detected")
    assert (reply["refusal"], world.doer.done) == ("invalid", [])


# Work


async def test_reported_work_is_known_while_it_is_fresh(world: World) -> None:
    await world.ask("in/work", rate=3.0, target=4.0, source="trainer")
    world.now_s += 9.9
    work = world.ear.work
    assert work is not None
    assert (work.rate, work.target, work.source) == (3.0, 4.0, "trainer")


async def test_work_that_is_not_fresh_any_more_is_none(world: World) -> None:
    await world.ask("in/work", rate=3.0)
    world.now_s += 10.0
    assert world.ear.work is None


async def test_work_may_say_itself_how_long_it_is_fresh(world: World) -> None:
    await world.ask("in/work", rate=3.0, fresh_s=60.0)
    world.now_s += 59.0
    assert world.ear.work is not None


async def test_the_newest_work_counts(world: World) -> None:
    for rate in (3.0, 5.0):
        await world.ask("in/work", rate=rate)
    assert world.ear.work is not None
    assert world.ear.work.rate == 5.0


async def test_a_new_source_of_work_is_logged_and_its_later_words_are_not(world: World) -> None:
    with structlog.testing.capture_logs() as entries:
        for rate in (1.0, 2.0, 3.0):
            await world.ask("in/work", rate=rate, source="trainer")
    assert [entry["event"] for entry in entries] == ["work_reported"]


# Commands


@pytest.mark.parametrize("command", ["checkpoint", "sample-now", "reset", "identify"])
async def test_a_command_is_done_and_answered(world: World, command: str) -> None:
    reply = await world.ask("in/command", command=command)
    assert (world.doer.names, reply["ok"], reply["result"]) == ([command], True, {"did": command})


async def test_another_interval_is_set(world: World) -> None:
    await world.ask("in/command", command="set-interval", interval_s=0.5)
    assert world.doer.done == [("set-interval", 0.5)]


@pytest.mark.parametrize("interval_s", [0.0, 0.049, 3601, "1", None, True])
async def test_an_interval_that_no_daemon_can_keep_is_refused(world: World, interval_s: Any) -> None:
    reply = await world.ask("in/command", command="set-interval", interval_s=interval_s)
    assert (reply["refusal"], world.doer.done) == ("invalid", [])


async def test_what_could_not_be_done_is_said(world: World) -> None:
    world.doer.failure = RequestRefusedError("failed", "the disk is full")
    reply = await world.ask("in/command", command="checkpoint")
    assert (reply["ok"], reply["refusal"], reply["error"]) == (False, "failed", "the disk is full")


async def test_a_command_of_an_id_is_done_once(world: World) -> None:
    replies = [await world.ask("in/command", command="reset", id="x") for _ in range(2)]
    assert ([reply["refusal"] for reply in replies], world.doer.names) == ([None, "repeated"], ["reset"])


async def test_the_memory_of_commands_is_bounded(world: World) -> None:
    for number in range(COMMANDS_REMEMBERED + 1):
        world.now_s += 1.0
        await world.ask("in/command", command="identify", id=str(number))
    assert (await world.ask("in/command", command="identify", id="0"))["ok"]


@pytest.mark.parametrize("name", ["in/command", "in/work"])
@pytest.mark.parametrize(("age_s", "refusal"), [(STALE_S - 1, None), (STALE_S + 1, "stale"), (-5.0, None)])
async def test_what_was_sent_too_long_ago_is_not_meant_any_more(
    world: World, name: str, age_s: float, refusal: str | None
) -> None:
    sent = (NOW - timedelta(seconds=age_s)).isoformat()
    values = {"command": "reset"} if name == "in/command" else {"rate": 1.0}
    assert (await world.ask(name, **values, time_utc=sent))["refusal"] == refusal


# Bad ones


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("in/reward", b""),
        ("in/reward", b"null"),
        ("in/reward", b"[]"),
        ("in/reward", b"{}"),
        ("in/reward", b"\xff\xfe"),
        ("in/reward", b"[" * 16_000),
        ("in/reward", b'{"kind": "WorkAccepted"} x'),
        ("in/reward", b'{"kind": "NoSuchThing"}'),
        ("in/reward", b'{"kind": "WorkAccepted", "latncy_ms": 1}'),
        ("in/reward", b'{"kind": "WorkAccepted", "latency_ms": -1}'),
        ("in/reward", b'{"kind": "WorkAccepted", "latency_ms": "12"}'),
        ("in/reward", b'{"kind": "WorkAccepted", "latency_ms": NaN}'),
        ("in/reward", b'{"kind": "WorkAccepted", "latency_ms": 1e999}'),
        ("in/reward", b'{"kind": "WorkAccepted", "units": ' + b"9" * 10_000 + b"}"),
        ("in/reward", b'{"kind": "WorkAccepted", "id": "a b"}'),
        ("in/reward", b'{"kind": "WorkAccepted", "time_utc": "2026-11-25T12:00:00"}'),
        ("in/reward", b'{"kind": "WorkAccepted", "source": "\\ud800"}'),
        ("in/reward", b'{"kind": "BreakthroughFound", "latency_ms": 1}'),
        ("in/work", b"{}"),
        ("in/work", b'{"rate": -1}'),
        ("in/work", b'{"rate": 1, "target": 0}'),
        ("in/work", b'{"rate": 1, "fresh_s": 1e9}'),
        ("in/command", b'"reset"'),
        ("in/command", b'{"command": "selfdestruct"}'),
        ("in/command", b'{"command": ["reset"]}'),
        ("in/command", b'{"command": "reset", "force": true}'),
    ],
)
async def test_what_is_not_as_the_schema_says_is_refused_and_changes_nothing(
    world: World, name: str, payload: bytes
) -> None:
    answer = await world.send(name, payload)
    assert answer is not None
    reply = json.loads(answer.payload)
    assert (reply["ok"], reply["refusal"], world.doer.done, world.ear.work) == (False, "invalid", [], None)


async def test_a_refusal_names_the_place_and_what_was_expected(world: World) -> None:
    reply = await world.ask("in/reward", kind="WorkAccepted", latency_ms="12")
    assert reply["error"] == "WorkAccepted.latency_ms: got '12', expected a valid number"


async def test_a_refusal_of_a_huge_value_stays_short(world: World) -> None:
    reply = await world.ask(
        "in/reward", kind="WorkAccepted", **{"x" * 50 + str(n): "y" * 1000 for n in range(9)}
    )
    assert len(reply["error"]) < 1000


async def test_what_is_too_large_is_refused(world: World) -> None:
    answer = await world.send("in/work", None)
    assert answer is not None
    assert json.loads(answer.payload)["refusal"] == "too_large"


async def test_a_retained_request_is_ignored_without_an_answer(world: World) -> None:
    answer = await world.send("in/command", b'{"command": "reset"}', retained=True)
    assert (answer, world.doer.done, world.ear.health.refused) == (None, [], {"retained": 1})


@settings(max_examples=200)
@given(payload=st.binary(max_size=300), name=st.sampled_from(["in/reward", "in/work", "in/command"]))
async def test_random_bytes_change_nothing(payload: bytes, name: str) -> None:
    world = World()
    await world.send(name, payload)
    assert (world.doer.done, world.ear.work) == ([], None)


# Rates


async def test_so_many_may_come_at_once_and_no_more(world: World) -> None:
    burst = int(RATE_PER_S * BURST_S)
    replies = [await world.ask("in/work", rate=1.0) for _ in range(burst + 1)]
    assert [reply["refusal"] for reply in replies] == [None] * burst + ["rate"]


async def test_after_a_while_more_may_come(world: World) -> None:
    for _ in range(int(RATE_PER_S * BURST_S) + 1):
        await world.ask("in/work", rate=1.0)
    world.now_s += 1.0 / RATE_PER_S
    assert (await world.ask("in/work", rate=1.0))["ok"]


async def test_rewards_that_waited_at_the_broker_are_taken_late_rather_than_refused(world: World) -> None:
    count = int(RATE_PER_S * BURST_S) + 2
    replies = [await world.ask("in/reward", kind="WorkAccepted") for _ in range(count)]
    assert ([reply["refusal"] for reply in replies], world.doer.names) == ([None] * count, ["reward"] * count)


async def test_rewards_that_no_broker_keeps_are_refused_beyond_the_rate(world: World) -> None:
    for _ in range(int(RATE_PER_S * BURST_S)):
        await world.ask("in/reward", kind="WorkAccepted")
    live = Incoming("neuromodd/lab/in/reward", b'{"kind": "WorkAccepted"}', 24, 0, False, ANSWERS, b"c", 1)
    answer = await world.ear.hear(live)
    assert answer is not None
    assert json.loads(answer.payload)["refusal"] == "rate"


async def test_what_takes_too_long_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuromodd.ear.REQUEST_S", 0.01)
    world.doer.free = asyncio.Event()
    reply = await world.ask("in/command", command="checkpoint")
    assert (reply["refusal"], reply["error"]) == ("failed", "it took more than 0.01 s, and may still be done")


async def test_a_command_that_failed_may_be_sent_again_under_its_id(world: World) -> None:
    world.doer.failure = RequestRefusedError("failed", "the disk is full")
    await world.ask("in/command", command="checkpoint", id="x")
    world.doer.failure = None
    assert (await world.ask("in/command", command="checkpoint", id="x"))["ok"]


async def test_nothing_large_is_sent_back(world: World) -> None:
    message = Incoming("neuromodd/lab/in/work", b'{"rate": 1}', 11, 1, False, ANSWERS, b"c" * 257, 1)
    assert (await world.ear.hear(message), world.ear.health.refused) == (None, {"invalid": 1})


async def test_a_flood_of_one_kind_does_not_hold_up_another(world: World) -> None:
    for _ in range(2 * int(RATE_PER_S * BURST_S)):
        await world.send("in/work", b"x")
    assert (await world.ask("in/command", command="identify"))["ok"]


# Answers


async def test_an_answer_goes_where_it_is_expected_with_what_came_along(world: World) -> None:
    answer = await world.send("in/command", b'{"command": "identify"}')
    assert answer is not None
    assert (answer.topic, answer.correlation, answer.qos, answer.retain) == (ANSWERS, b"c", 1, False)


async def test_where_no_answer_is_expected_there_is_none(world: World) -> None:
    answer = await world.send("in/command", b'{"command": "identify"}', answer=None)
    assert (answer, world.doer.names) == (None, ["identify"])


FORBIDDEN = [
    "neuromodd/lab/state",
    "neuromodd/lab/in/command",
    "neuromodd/other/response/me",
    "neuromodd/lab/response",
    "homeassistant/device/neuromodd_lab/config",
    "$SYS/broker",
    "answers/#",
    "answers/+",
    "nul\0",
    "line\nbreak",
    "x" + "/" * 100,
    "x" * 1000,
    "",
]


@pytest.mark.parametrize("topic", FORBIDDEN)
async def test_an_answer_can_not_pass_for_something_else(world: World, topic: str) -> None:
    answer = await world.send("in/command", b'{"command": "reset"}', answer=topic)
    assert (answer, world.doer.done, world.ear.health.refused) == (None, [], {"invalid": 1})


@pytest.mark.parametrize("topic", ["neuromodd/lab/response/a/b", "my/answers", "neuromoddish/x"])
async def test_an_answer_may_go_where_it_can_not_be_mistaken(world: World, topic: str) -> None:
    answer = await world.send("in/command", b'{"command": "identify"}', answer=topic)
    assert answer is not None
    assert answer.topic == topic


# What is said of it


async def test_what_was_taken_and_refused_is_counted(world: World) -> None:
    await world.ask("in/work", rate=1.0)
    await world.ask("in/work", rate="x")
    await world.send("in/work", None)
    assert (world.ear.health.taken, world.ear.health.refused) == (1, {"invalid": 1, "too_large": 1})


async def test_a_refusal_is_logged_once_a_kind(world: World) -> None:
    with structlog.testing.capture_logs() as entries:
        for _ in range(3):
            await world.send("in/work", b"x")
            await world.send("in/work", None)
    warned = [entry["refusal"] for entry in entries if entry["log_level"] == "warning"]
    assert warned == ["invalid", "too_large"]


@given(text=st.text(alphabet=string.printable, max_size=50))
async def test_whatever_is_refused_is_answered_in_json(text: str) -> None:
    answer = await World().send("in/work", text.encode())
    assert answer is not None
    assert json.loads(answer.payload)["request"] == "in/work"
