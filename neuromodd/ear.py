"""The ear: takes what others send to `in/*`, and says what became of it.

A request is bounded in size and rate, checked against its schema, and then done or refused; whatever is
refused changes nothing. It is answered on its response topic (MQTT 5), counted in `health`, and logged once a
kind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol

import structlog

from neuromodd.core.frame import WorkSample
from neuromodd.core.payloads import InboundHealth
from neuromodd.core.requests import (
    REQUEST_LIMIT_BYTES,
    CheckpointCommand,
    Command,
    IdentifyCommand,
    Reply,
    ResetCommand,
    RewardRequest,
    SampleNowCommand,
    SetIntervalCommand,
    WorkRequest,
    parse_request,
    reward_from,
)
from neuromodd.core.rewards import RewardEvent
from neuromodd.errors import RequestRefusedError, shortened
from neuromodd.mqtt import Incoming, Outgoing
from neuromodd.pace import Pace
from neuromodd.sinks.publisher import NAMED

STALE_S = 30.0
"""A command or a work rate that was sent longer ago is not meant any more."""

BURST_S = 10.0
"""So many seconds' worth of requests may come at once."""

COMMANDS_REMEMBERED = 256

RESPONSE_LEVEL = "response"
"""Below the node's topics, answers are wanted here only: not where they would pass for what it publishes."""

TOPIC_LIMIT = 512
LEVELS_LIMIT = 32
CORRELATION_LIMIT = 256
"""Of what is sent back: brokers hang up on whoever publishes more of it than they like."""

REQUEST_S = 5.0
"""What a request may take that needs the disk."""

log = structlog.get_logger()


class Actions(Protocol):
    """What the daemon can be asked to do. Each may raise RequestRefusedError."""

    async def take_reward(self, event: RewardEvent, *, durable: bool) -> tuple[RewardEvent, bool]:
        """Take an event in; it with its id, and whether it is new.

        A `durable` one is refused where the disk fails; any other is then kept in memory.
        """

    async def write_checkpoint(self) -> dict[str, Any]:
        """Write a checkpoint."""

    async def sample_now(self) -> dict[str, Any]:
        """Take a tick."""

    async def forget(self) -> dict[str, Any]:
        """Begin anew."""

    async def set_interval(self, interval_s: float) -> dict[str, Any]:
        """Tick at another interval."""

    async def identify(self) -> dict[str, Any]:
        """Say who this is."""


class _Work(NamedTuple):
    sample: WorkSample
    until_s: float


class Ear:
    """Hears requests. Mutable.

    Args:
        node: the host's name in topics.
        root: `<prefix>/<node>`, below which its topics are.
        guarded: first parts of topics on which nothing is answered.
        rate_per_s: requests a second and topic; ten seconds' worth may come at once.
        work_fresh_s: how long a work rate holds that does not say so itself.
        actions: what can be done.
        clock: monotonic seconds.
        now_utc: the wall clock.
    """

    def __init__(
        self,
        *,
        node: str,
        root: str,
        guarded: tuple[str, ...],
        rate_per_s: float,
        work_fresh_s: float,
        actions: Actions,
        clock: Callable[[], float],
        now_utc: Callable[[], datetime],
    ) -> None:
        self._node = node
        self._root = root
        self._guarded = guarded
        self._rate_per_s = rate_per_s
        self._work_fresh_s = work_fresh_s
        self._actions = actions
        self._clock = clock
        self._now_utc = now_utc
        self._paces: dict[str, Pace] = {}
        self._work: _Work | None = None
        self._commands: dict[str, None] = {}
        self._taken = 0
        self._refused: dict[str, int] = {}

    @property
    def work(self) -> WorkSample | None:
        """The work that was reported, while it is fresh."""
        if self._work is not None and self._clock() >= self._work.until_s:
            log.info("work_stale", source=self._work.sample.source)
            self._work = None
        return None if self._work is None else self._work.sample

    @property
    def health(self) -> InboundHealth:
        """What became of requests."""
        return InboundHealth(taken=self._taken, refused=dict(self._refused))

    async def hear(self, message: Incoming) -> Outgoing | None:
        """Do what a message asks for; the answer, if one is expected and may be given."""
        name = message.topic.removeprefix(f"{self._root}/")
        answered = message.response_topic is not None and self._may_answer(message.response_topic)
        try:
            try:
                async with asyncio.timeout(REQUEST_S):
                    reply = await self._do(
                        name, message, answerable=answered or message.response_topic is None
                    )
            except TimeoutError:
                raise RequestRefusedError(
                    "failed", f"it took more than {REQUEST_S:g} s, and may still be done"
                ) from None
        except RequestRefusedError as error:
            self._refuse(name, error)
            reply = Reply(node=self._node, request=name, ok=False, refusal=error.kind, error=error.reason)
            # A retained message asks anew with every connection, and nobody waits for the answer.
            answered = answered and error.kind != "retained"
            if message.correlation is not None and len(message.correlation) > CORRELATION_LIMIT:
                answered = False
        else:
            self._taken += 1
        if not answered or message.response_topic is None:
            return None
        return Outgoing(
            message.response_topic,
            reply.to_json().encode(),
            qos=1,
            content_type="application/json",
            properties=NAMED,
            correlation=message.correlation,
        )

    async def _do(self, name: str, message: Incoming, *, answerable: bool) -> Reply:
        pace = self._paces.setdefault(
            name, Pace(self._rate_per_s, burst=self._rate_per_s * BURST_S, clock=self._clock)
        )
        over = not pace.take()
        # What waited at the broker is not to be lost: see below.
        if over and not (message.qos and name == "in/reward"):
            raise RequestRefusedError("rate", f"more than {self._rate_per_s:g} a second; try again later")
        if message.payload is None:
            raise RequestRefusedError(
                "too_large", f"got {message.size} bytes, expected {REQUEST_LIMIT_BYTES} at most"
            )
        if message.retained:
            raise RequestRefusedError("retained", "a retained request is none; publish it without retain")
        if message.correlation is not None and len(message.correlation) > CORRELATION_LIMIT:
            raise RequestRefusedError(
                "invalid",
                f"got {len(message.correlation)} bytes of correlation data, "
                f"expected {CORRELATION_LIMIT} at most",
            )
        if not answerable:
            raise RequestRefusedError(
                "invalid",
                f"got response topic {shortened(message.response_topic)}, expected {self._root}/"
                f"{RESPONSE_LEVEL}/... or a topic that is nobody else's",
            )
        request = parse_request(name, message.payload)
        if over:
            # The broker sends no more than a few before this one is acknowledged.
            await pace.wait(1)
        if isinstance(request, WorkRequest):
            return self._take_work(name, request)
        if isinstance(
            request,
            (CheckpointCommand, SampleNowCommand, ResetCommand, SetIntervalCommand, IdentifyCommand),
        ):
            return await self._obey(name, request)
        return await self._take_reward(name, request, told=message.response_topic is not None)

    async def _take_reward(self, name: str, request: RewardRequest, *, told: bool) -> Reply:
        if request.node not in (None, self._node):
            raise RequestRefusedError(
                "invalid", f"node: got {shortened(request.node)}, expected {self._node}"
            )
        # Whoever hears of it can send it again; for anybody else memory is better than nothing.
        event, new = await self._actions.take_reward(reward_from(request), durable=told)
        result = None if new else {"repeated": True}
        return Reply(node=self._node, request=name, ok=True, id=event.id, result=result)

    def _take_work(self, name: str, request: WorkRequest) -> Reply:
        self._check_age(request.time_utc)
        if self._work is None or self._work.sample.source != request.source:
            log.info("work_reported", source=request.source)
        sample = WorkSample(
            rate=request.rate, target=request.target, latency_ms=request.latency_ms, source=request.source
        )
        fresh_s = self._work_fresh_s if request.fresh_s is None else request.fresh_s
        self._work = _Work(sample, self._clock() + fresh_s)
        return Reply(node=self._node, request=name, ok=True, result={"fresh_s": fresh_s})

    async def _obey(self, name: str, command: Command) -> Reply:
        self._check_age(command.time_utc)
        if command.id in self._commands:
            raise RequestRefusedError("repeated", f"the command of id {command.id} came before")
        log.info("command", **command.model_dump(mode="json", exclude_none=True, exclude={"time_utc"}))
        match command:
            case CheckpointCommand():
                result = await self._actions.write_checkpoint()
            case SampleNowCommand():
                result = await self._actions.sample_now()
            case ResetCommand():
                result = await self._actions.forget()
            case SetIntervalCommand():
                result = await self._actions.set_interval(command.interval_s)
            case IdentifyCommand():
                result = await self._actions.identify()
        if command.id is not None:
            self._commands[command.id] = None
            if len(self._commands) > COMMANDS_REMEMBERED:
                del self._commands[next(iter(self._commands))]
        return Reply(node=self._node, request=name, ok=True, id=command.id, result=result)

    def _check_age(self, time_utc: datetime | None) -> None:
        if time_utc is not None and self._now_utc() - time_utc > timedelta(seconds=STALE_S):
            raise RequestRefusedError(
                "stale", f"got time_utc {time_utc.isoformat()}, expected {STALE_S:.0f} s ago at most"
            )

    def _may_answer(self, response_topic: str) -> bool:
        if not 0 < len(response_topic) <= TOPIC_LIMIT or response_topic.count("/") > LEVELS_LIMIT:
            return False
        if any(of in response_topic for of in "+#") or not response_topic.isprintable():
            return False
        if response_topic.startswith(f"{self._root}/{RESPONSE_LEVEL}/"):
            return True
        return not response_topic.startswith(("$", *(f"{of}/" for of in self._guarded)))

    def _refuse(self, name: str, error: RequestRefusedError) -> None:
        first = error.kind not in self._refused
        self._refused[error.kind] = self._refused.get(error.kind, 0) + 1
        say = log.warning if first else log.debug
        say("request_refused", request=name, refusal=error.kind, error=error.reason)
