"""HTTP for the web view: the page and its stream, the metrics, the health. Read-only.

The only importer of starlette and uvicorn. Whoever can reach the port can read all of it, so by default it
is on loopback; and a page of somebody else's, which a browser on this host has open, is kept out by
answering to this host's own names alone (DNS rebinding), and by telling the browser to share nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from importlib import resources
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from neuromodd.dashboard.metrics import exposition

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from neuromodd.dashboard.web import Page, Web

CONNECTIONS_LIMIT = 256
"""Those above are hung up on: each takes a file descriptor that a sensor may need."""

BACKLOG = 64

PATIENCE_S = 10.0
"""A client that has not asked by then, or has not read what it asked for, is hung up on."""

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

Endpoint = Callable[["Request"], Awaitable[Response]]


async def serve(web: Web, link: socket.socket, stop: asyncio.Event) -> None:
    """Answer on `link` until `stop`."""
    # A stranger's broken request is nothing that a log of ours needs a line for.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    config = uvicorn.Config(
        application(web),
        http=_Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=1,
    )
    await _Server(config, stop).serve([link])


def application(web: Web) -> Starlette:
    """The routes, behind the guard."""
    routes = [Route(path, _sent(body, kind)) for path, (body, kind) in _files().items()]
    routes += [
        Route("/events", _events(web)),
        Route("/metrics", _metrics(web)),
        Route("/healthz", _alive(web)),
        Route("/readyz", _ready(web)),
    ]
    own = socket.gethostname().lower()
    short = own.partition(".")[0]
    listed = (name.lower().rstrip(".") for name in web.settings.names)
    names = frozenset({"localhost", own, short, f"{short}.local", *listed})
    return Starlette(routes=routes, middleware=[Middleware(_Guard, names=names)])


class _Server(uvicorn.Server):
    """uvicorn inside of a daemon: the signals are the daemon's, and nothing wakes up to look for an end."""

    def __init__(self, config: uvicorn.Config, stop: asyncio.Event) -> None:
        super().__init__(config)
        self._stop = stop

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self._stop.wait()


class _Connection(H11Protocol):
    """A connection of uvicorn that waits for nobody, neither for a request nor for a reader."""

    _asking: asyncio.TimerHandle | None = None
    _reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS_LIMIT:
            transport.abort()
        else:
            self._await_request()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._await_request()

    def _await_request(self) -> None:
        """Give the client its time to ask, unless it is being answered."""
        # There is none before the first request.
        cycle: RequestResponseCycle | None = self.cycle
        idle = cycle is None or cycle.response_complete
        if idle and self._asking is None:
            self._asking = self.loop.call_later(PATIENCE_S, self.transport.abort)
        elif not idle and self._asking is not None:
            self._asking.cancel()
            self._asking = None

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._reading is None:
            self._reading = self.loop.call_later(PATIENCE_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in (self._asking, self._reading):
            if timer is not None:
                timer.cancel()


class _Stream(StreamingResponse):
    """The stream of a page, which is closed however it ends."""

    def __init__(self, web: Web, page: Page) -> None:
        super().__init__(web.stream(page), media_type="text/event-stream")
        self._web, self._page = web, page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._web.close(self._page)


class _Guard:
    """Refuses what is not meant for this host or asked by another's page, and adds the headers."""

    def __init__(self, app: ASGIApp, names: frozenset[str]) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        app: ASGIApp = self._app
        if not answers_to(host, self._names):
            app = PlainTextResponse(
                f"This host does not answer to the name {host!r}; web.names may list it.\n", status_code=421
            )
        elif is_foreign(headers.get(b"sec-fetch-site"), headers.get(b"sec-fetch-mode")):
            app = PlainTextResponse("Not for the pages of others.\n", status_code=403)
        await app(scope, receive, send_on)


def is_foreign(site: str | None, mode: str | None) -> bool:
    """Whether a browser asks for another site's page, which can't read the answer but would cost us work."""
    return site not in {None, "none", "same-origin"} and mode != "navigate"


def answers_to(host: str, names: frozenset[str]) -> bool:
    """Whether a Host header means this host: one of its names, or an address, which no DNS can turn."""
    name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return name.lower().rstrip(".") in names


def _files() -> dict[str, tuple[bytes, str]]:
    """The files of the page by their paths, with their types."""
    files = {}
    for file in (resources.files("neuromodd.dashboard") / "page").iterdir():
        kind = TYPES.get("." + file.name.rpartition(".")[2])
        if kind is not None:
            path = "/" if file.name == "index.html" else f"/{file.name}"
            files[path] = (file.read_bytes(), kind)
    return files


def _sent(body: bytes, kind: str) -> Endpoint:
    async def send(_: Request) -> Response:
        return Response(body, media_type=kind)

    return send


def _events(web: Web) -> Endpoint:
    async def events(_: Request) -> Response:
        page = web.open()
        if page is None:
            return PlainTextResponse("Too many pages are open.\n", status_code=503)
        return _Stream(web, page)

    return events


def _metrics(web: Web) -> Endpoint:
    async def metrics(request: Request) -> Response:
        body, kind = exposition(web, request.headers.get("accept", ""))
        return Response(body, headers={"content-type": kind})

    return metrics


def _alive(web: Web) -> Endpoint:
    async def alive(_: Request) -> Response:
        report = web.source.alive()
        return JSONResponse(report, status_code=200 if report["verdict"] == "ticking" else 503)

    return alive


def _ready(web: Web) -> Endpoint:
    async def ready(_: Request) -> Response:
        connected = web.source.alive()["health"]["mqtt"]["connected"]
        report = {
            "ready": connected and web.newest is not None,
            "ticked": web.newest is not None,
            "broker": "connected" if connected else "awaited",
        }
        return JSONResponse(report, status_code=200 if report["ready"] else 503)

    return ready
