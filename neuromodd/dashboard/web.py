"""The web view as a sink: takes in ticks, and sends each open page what is new.

Nothing is made into text before somebody looks: without a page, a tick costs the row that the history
keeps. With pages, each message is encoded once for all of them. A page that does not keep up is let go; it
comes back by itself and begins afresh.
"""

from __future__ import annotations

import asyncio
import errno
import importlib
import importlib.util
import json
import os
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import structlog

from neuromodd import __version__
from neuromodd.config import WebSettings
from neuromodd.core.anomaly import Anomaly
from neuromodd.core.brain import Tick
from neuromodd.core.encoding import CHANNELS
from neuromodd.core.messages import Message, anomaly_event, encoded, fault_event, reward_event
from neuromodd.core.payloads import WebHealth
from neuromodd.core.surprise import SurpriseParameters
from neuromodd.dashboard.history import LIF_LIMIT, WINDOW_S, History, Snapshot
from neuromodd.dashboard.strange import unit_of
from neuromodd.errors import MissingExtraError
from neuromodd.processes import listening_process

PACKAGES = ("prometheus_client", "starlette", "uvicorn")
"""What the extra `web` brings; the server and the metrics import it."""

PAGES_LIMIT = 64
EVENTS_LIMIT = 256

QUEUE_LIMIT = 64
"""Messages that wait for a page, a minute's worth: beyond them it does not keep up."""

ROWS_A_MESSAGE = 8
"""Of the history at once: a millisecond or two of work, so that a tick that is due is not held up."""

WEIGHTS_EVERY_ROWS = 10

QUIET_S = 15.0
"""After so long without a message a comment is sent: it shows whether the other end is still there."""

BIND_RETRY_S = 5.0
STOP_S = 1.5

WEIGHT_DIGITS = 4

log = structlog.get_logger()


class Source(NamedTuple):
    """What the web view asks the daemon for, when it is asked itself.

    Attributes:
        node: the node's name.
        started_utc: when the daemon began.
        dimensions: of the network.
        alive: whether it ticks, with its `health`, as `neuromodd health --json` tells it.
        info: the payload of MQTT.
        weights: those of now, a row a LIF neuron.
        surprise: its settings; the channels stay what they are at the start.
    """

    node: str
    started_utc: datetime
    dimensions: Mapping[str, int]
    alive: Callable[[], dict[str, Any]]
    info: Callable[[], Message]
    weights: Callable[[], Sequence[Sequence[float]]]
    surprise: Callable[[], SurpriseParameters]


class Web:
    """A sink for people's eyes. Mutable.

    Args:
        settings: of the section `web`.
        source: the daemon.
        interval_s: from one tick to the next.

    Raises:
        MissingExtraError: the extra `web` is not installed.
    """

    name = "web"

    def __init__(self, settings: WebSettings, source: Source, interval_s: float) -> None:
        if any(importlib.util.find_spec(package) is None for package in PACKAGES):
            raise MissingExtraError("web.enabled", "web")
        self.settings = settings
        self.source = source
        self.interval_s = interval_s
        surprise = source.surprise()
        self.watched = surprise.channels if surprise.enabled else ()
        self._threshold = surprise.threshold
        self.history = History(
            interval_s=interval_s,
            lif=source.dimensions["lif_neurons"],
            bank=source.dimensions["izhikevich_neurons"],
            surprise=self.watched,
            weights=source.weights,
        )
        self.newest: Tick | None = None
        self.rewards: dict[tuple[str, str], int] = {}
        self.anomalies = 0
        self.error: str | None = None
        self._events: deque[dict[str, Any]] = deque(maxlen=EVENTS_LIMIT)
        self._pages: set[Page] = set()
        self._rows_to_weights = 0
        self._columns_told = len(self.history.columns)
        # However many pages are opened, one part of one history is made in each round of the loop.
        self._making = asyncio.Lock()
        self._ticked = asyncio.Event()
        self._stop = asyncio.Event()
        self._stopped = asyncio.Event()

    @property
    def health(self) -> WebHealth:
        """What `health` says of it."""
        return WebHealth(pages=len(self._pages), error=self.error)

    def follow(self, interval_s: float) -> None:
        """Expect ticks at another interval; the pages begin afresh with it, or with another threshold."""
        threshold = self.source.surprise().threshold
        if (interval_s, threshold) == (self.interval_s, self._threshold):
            return
        self._threshold = threshold
        self.interval_s = interval_s
        self.history.follow(interval_s)
        self._let_go()

    def offer(self, tick: Tick) -> None:
        """Keep what the pages of the next ten minutes may want, and tell those that are open."""
        self.newest = tick
        row = self.history.take(tick)
        if len(self.history.columns) != self._columns_told:
            self._columns_told = len(self.history.columns)
            self._send("columns", self._columns())
        for event in tick.events:
            reward = reward_event(event)
            kind = (reward.payload["kind"], reward.payload["origin"])
            self.rewards[kind] = self.rewards.get(kind, 0) + 1
            self._note("reward", reward.payload)
        if tick.fault_changed:
            self._note("fault", self._fault(tick))
        if tick.surprise is not None and tick.surprise.change is not None:
            self._take_anomaly(tick.surprise.change)
        if row is not None and self._pages:
            self._send("row", self.history.encodable(row))
            self._rows_to_weights -= 1
            if self._rows_to_weights <= 0:
                self._rows_to_weights = WEIGHTS_EVERY_ROWS
                self._send("weights", self._weights())
        self._ticked.set()

    def said(self, message: Message) -> None:
        """Pass on `info` or `health` as it was published."""
        for page in list(self._pages):
            page.put(_framed(message.name, message.payload))

    async def run(self) -> None:
        """Serve from the first tick on, until `stop`."""
        await self._ticked.wait()
        self._stopped.clear()
        try:
            serve = await _server()
            link = await self._bound()
            if link is not None:
                await serve(self, link, self._stop)
        finally:
            self._stopped.set()

    async def stop(self) -> None:
        """End all streams and close the port."""
        self._stop.set()
        self._let_go()
        if self._ticked.is_set():
            async with asyncio.timeout(STOP_S):
                await self._stopped.wait()

    async def _bound(self) -> socket.socket | None:
        """A socket that listens, as soon as the address is free; None if it is to stop before."""
        failed = None
        while not self._stop.is_set():
            try:
                link = _listen(self.settings.host, self.settings.port)
            except OSError as error:
                if error.errno != failed:
                    failed = error.errno
                    self.error = await self._reason(error)
                    # It says it all, and a traceback no more.
                    log.error("web_failed", error=self.error, retry_s=BIND_RETRY_S)  # noqa: TRY400
                await _set_within(self._stop, BIND_RETRY_S)
            else:
                self.error = None
                log.info("web_listening", page=self.page)
                return link
        return None

    async def _reason(self, error: OSError) -> str:
        why = os.strerror(error.errno) if error.errno else str(error)
        if error.errno == errno.EADDRINUSE:
            holder = await asyncio.to_thread(listening_process, self.settings.port)
            taken = "" if holder is None else f" by {holder}"
            return f"{self.settings.place}: {why}{taken}; set web.port for another"
        return f"{self.settings.place}: {why}"

    @property
    def page(self) -> str:
        """Where the page is."""
        return f"http://{self.settings.place}/"

    def open(self) -> Page | None:
        """A page, to be closed with `close`; None if that would be too many."""
        if len(self._pages) >= PAGES_LIMIT or self._stop.is_set():
            return None
        page = Page()
        self._pages.add(page)
        return page

    def close(self, page: Page) -> None:
        """Forget a page."""
        self._pages.discard(page)

    async def stream(self, page: Page) -> AsyncIterator[bytes]:
        """What a page is sent: the history, and then what is new."""
        yield b"retry: 1000\n" + _event("hello", self._hello())
        rows = list(self.history.rows)
        for first in range(0, len(rows), ROWS_A_MESSAGE):
            async with self._making:
                part = [self.history.encodable(row) for row in rows[first : first + ROWS_A_MESSAGE]]
                message = _event("rows", part)
                await asyncio.sleep(0)
            yield message
        yield _event("live", {})
        async for message in page.messages():
            yield message

    def _hello(self) -> dict[str, Any]:
        alive = self.source.alive()
        health = alive.pop("health")
        return {
            "version": __version__,
            "node": self.source.node,
            "interval_s": self.interval_s,
            "row_interval_s": self.history.row_interval_s,
            "window_s": WINDOW_S,
            "started_utc": _utc(self.source.started_utc),
            "columns": self._columns(),
            "dimensions": self.source.dimensions,
            "info": json.loads(self.source.info().payload),
            "health": health,
            "alive": alive,
            "fault": None if self.newest is None else self._fault(self.newest),
            "surprise": self._surprise(),
            "anomaly": None if self.newest is None else self._episode(self.newest),
            "events": list(self._events),
            "weights": self._weights(),
        }

    def _columns(self) -> list[dict[str, Any]]:
        return [column.values() for column in self.history.columns]

    def _weights(self) -> dict[str, Any] | None:
        if self.history.earlier is None:
            return None
        now, before = self.history.snapshot(), self.history.earlier
        return {
            "time_utc": _utc(datetime.fromtimestamp(now.time_s, UTC)),
            "channels": CHANNELS[:LIF_LIMIT],
            "now": _shown(now),
            "before": _shown(before),
            "before_utc": _utc(datetime.fromtimestamp(before.time_s, UTC)),
        }

    def _fault(self, tick: Tick) -> dict[str, Any]:
        return {**fault_event(self.source.node, tick.fault).payload, "replayed": False}

    def _take_anomaly(self, anomaly: Anomaly) -> None:
        self.anomalies += anomaly.phase == "begin"
        self._note("anomaly", anomaly_event(self.source.node, anomaly).payload)

    def _episode(self, tick: Tick) -> dict[str, Any] | None:
        """The anomaly that goes on, as it began; None if there is none."""
        if tick.surprise is None or tick.surprise.episode is None:
            return None
        return {**anomaly_event(self.source.node, tick.surprise.episode).payload, "replayed": False}

    def _surprise(self) -> dict[str, Any] | None:
        """What the pages need to know of the surprise beside its columns; None if it is disabled."""
        if not self.watched:
            return None
        units = {name: unit_of(name) for name in self.watched}
        return {"threshold": self._threshold, "units": units}

    def _note(self, topic: Literal["reward", "fault", "anomaly"], payload: dict[str, Any]) -> None:
        event = {"topic": topic, "payload": {**payload, "replayed": False}}
        self._events.append(event)
        self._send("event", event)

    def _send(self, name: str, values: Any) -> None:  # noqa: ANN401 - JSON values
        if self._pages:
            message = _event(name, values)
            for page in list(self._pages):
                page.put(message)

    def _let_go(self) -> None:
        for page in self._pages:
            page.close()


class Page:
    """One open page, and the messages that wait for it. Mutable."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._present = asyncio.Event()
        self._closed = False

    def put(self, message: bytes) -> None:
        """Add a message; a page that has not taken those before is let go."""
        if len(self._waiting) >= QUEUE_LIMIT:
            self.close()
        elif not self._closed:
            self._waiting.append(message)
            self._present.set()

    def close(self) -> None:
        """End its stream."""
        self._closed = True
        self._waiting.clear()
        self._present.set()

    async def messages(self) -> AsyncIterator[bytes]:
        """What was put, and a comment whenever there is nothing for long; ends when it is closed."""
        while not self._closed:
            if self._waiting:
                message = b"".join(self._waiting)
                self._waiting.clear()
                yield message
                continue
            self._present.clear()
            if not await _set_within(self._present, QUIET_S):
                yield b": still here\n\n"


async def _server() -> Callable[[Web, socket.socket, asyncio.Event], Awaitable[None]]:
    """The server, whose packages take a tenth of a second to import: in a thread, so that ticks go on."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="web-import")
    try:
        module = "neuromodd.dashboard.server"
        loaded = await asyncio.get_running_loop().run_in_executor(thread, importlib.import_module, module)
    finally:
        thread.shutdown(wait=False)
    serve: Callable[[Web, socket.socket, asyncio.Event], Awaitable[None]] = loaded.serve
    return serve


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=family, dualstack_ipv6=both)


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


def _event(name: str, values: Any) -> bytes:  # noqa: ANN401 - JSON values
    return _framed(name, encoded(values))


def _framed(name: str, payload: bytes) -> bytes:
    # JSON has no line breaks but those that it escapes.
    return b"event: " + name.encode() + b"\ndata: " + payload + b"\n\n"


def _shown(snapshot: Snapshot) -> list[list[float]]:
    return [[round(weight, WEIGHT_DIGITS) for weight in row] for row in snapshot.weights]


def _utc(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")
