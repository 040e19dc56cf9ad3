"""The web view of a real daemon, asked over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, Listener, Mosquitto, free_port, wait_for
from web_client import Stream, get
from web_moments import anomaly, episode, felt, moment

from neuromodd.config import WebSettings
from neuromodd.core.messages import Message, anomaly_event
from neuromodd.core.surprise import DEFAULT_CHANNELS, SurpriseParameters
from neuromodd.dashboard import server
from neuromodd.dashboard.server import answers_to, serve
from neuromodd.dashboard.web import PAGES_LIMIT, QUEUE_LIMIT, Page, Source, Web
from neuromodd.errors import MissingExtraError

StartDaemon = Callable[..., Daemon]
Listen = Callable[..., Listener]


@pytest.fixture
def look() -> Iterator[Callable[[int], Stream]]:
    """Opens streams; all are closed at the end."""
    opened: list[Stream] = []

    def open_stream(port: int) -> Stream:
        opened.append(Stream(port))
        return opened[-1]

    yield open_stream
    for stream in opened:
        stream.close()


def web(port: int, *more: str) -> tuple[str, ...]:
    return ("--web.enabled", "true", "--web.port", str(port), "--tick.interval_s", "0.2", *more)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def daemon(start_daemon: StartDaemon, mosquitto: Mosquitto, port: int) -> Daemon:
    """One with the web view on `port`, that has ticked."""
    started = start_daemon(*web(port), port=mosquitto.port)
    started.wait_log("web_listening")
    started.wait_log("mqtt_connected")
    return started


@pytest.fixture(scope="module")
def at_rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a daemon that those share who change nothing."""
    directory = tmp_path_factory.mktemp("at-rest")
    broker, port = Mosquitto(directory), free_port()
    state = ("--node", "lab", "--log.format", "json", "--checkpoint.directory", str(directory / "state"))
    daemon = Daemon([*state, "--mqtt.host", "127.0.0.1", "--mqtt.port", str(broker.port), *web(port)], {})
    daemon.wait_log("web_listening")
    daemon.wait_log("mqtt_connected")
    yield port
    daemon.close()
    broker.stop()


@pytest.mark.usefixtures("daemon")
def test_a_page_is_told_the_history_first_and_then_what_is_new(
    port: int, look: Callable[[int], Stream]
) -> None:
    stream = look(port)
    before = stream.until("live")
    (hello,) = before["hello"]
    assert hello["node"] == "lab"
    assert hello["row_interval_s"] == 1.0
    assert hello["dimensions"] == {"channels": 8, "lif_neurons": 8, "izhikevich_neurons": 5}
    watched = [column["name"] for column in hello["columns"] if column["group"] == "surprise"]
    assert watched == ["state.surprise.total", *(f"state.surprise.channels.{of}" for of in DEFAULT_CHANNELS)]
    assert (hello["surprise"]["threshold"], hello["surprise"]["units"]["network"]) == (0.5, "bytes_per_s")
    assert hello["fault"]["class"] == "UnknownAmbiguity" or hello["fault"]["code"]
    rows = [row for part in before["rows"] for row in part]
    assert rows[0][0] == 0
    row = stream.until("row")["row"][0]
    assert row[0] == rows[-1][0] + 5
    assert len(row) == len(hello["columns"]) + 2


@pytest.mark.usefixtures("daemon")
def test_a_row_says_what_the_state_and_the_telemetry_of_its_tick_say(
    mosquitto: Mosquitto, port: int, listen: Listen, look: Callable[[int], Stream]
) -> None:
    listener = listen(mosquitto.port)
    listener.wait("state")
    stream = look(port)
    names = [column["name"] for column in stream.until("hello")["hello"][0]["columns"]]

    rows: dict[int, list[Any]] = {}

    def both() -> tuple[list[Any], Any, Any] | None:
        # A busy host may leave states out on MQTT.
        sequence, _, *values = stream.until("row")["row"][0]
        rows[sequence] = values
        states, frames = (
            {heard.json["sequence"]: heard.json for heard in listener.named(name)}
            for name in ("state", "telemetry")
        )
        common = rows.keys() & states.keys() & frames.keys()
        return next(((rows[of], states[of], frames[of]) for of in common), None)

    values, state, telemetry = wait_for(both, "a tick on the stream and on MQTT")
    row = dict(zip(names, values, strict=True))
    assert row["state.modulators.dopamine"] == state["modulators"]["dopamine"]
    assert row["state.surprise.channels.cpu"] == state["surprise"]["channels"]["cpu"]
    assert row["telemetry.cpu.utilization_ratio"] == telemetry["cpu"]["utilization_ratio"]
    assert row["telemetry.memory.available_bytes"] == telemetry["memory"]["available_bytes"]


def test_a_reward_reaches_a_page_as_it_reaches_mqtt(
    start_daemon: StartDaemon, mosquitto: Mosquitto, port: int, listen: Listen, look: Callable[[int], Stream]
) -> None:
    listener = listen(mosquitto.port)
    inbound = ("--mqtt.inbound.enabled", "true")
    start_daemon(*web(port, *inbound), port=mosquitto.port).wait_log("web_listening")
    listener.wait("state")
    stream = look(port)
    stream.until("live")
    listener.ask("neuromodd/lab/in/reward", b'{"kind":"WorkAccepted","units":3.0,"source":"<b>me</b>"}')
    event = stream.until("event", lambda data: data["topic"] == "reward")["event"][-1]
    assert event["payload"] == listener.wait("reward").json
    # One that looks later is told of it too.
    (hello,) = look(port).until("hello")["hello"]
    assert event in hello["events"]


def test_an_anomaly_reaches_a_page_as_it_reaches_mqtt_and_who_looks_later_too(
    live: Callable[..., Any],
) -> None:
    view, life = Web(WebSettings(enabled=True), source(), 1.0), live()
    page = view.open()
    assert page is not None
    for tick in episode([life.tick() for _ in range(8)], 2, 6):
        view.offer(tick)
    told = [
        {"topic": "anomaly", "payload": {**anomaly_event("lab", of).payload, "replayed": False}}
        for of in (anomaly(since_s=2.0), anomaly("end", since_s=2.0, duration_s=4.0))
    ]
    sent = [json.loads(of.partition(b"data: ")[2]) for of in page._waiting if of.startswith(b"event: event")]
    hello = view._hello()
    for events in (sent, hello["events"]):
        assert [event for event in events if event["topic"] == "anomaly"] == told
    assert hello["anomaly"] is None
    held = anomaly(since_s=2.0)
    view.offer(felt(life.tick(), moment(0.7, episode=held)))
    assert view._hello()["anomaly"] == told[0]["payload"]


@pytest.mark.usefixtures("daemon")
def test_the_weights_come_with_those_of_before(port: int, look: Callable[[int], Stream]) -> None:
    stream = look(port)
    weights = stream.until("weights")["weights"][0]
    assert weights["channels"][0] == "cpu"
    assert [len(row) for row in weights["now"]] == [8] * 8
    assert [len(row) for row in weights["before"]] == [8] * 8
    assert weights["before_utc"] <= weights["time_utc"]


@pytest.mark.parametrize(
    "host", ["localhost:1", "127.0.0.1", "[::1]:9464", "192.168.1.7:80", socket.gethostname()]
)
def test_the_page_answers_to_this_hosts_names_and_to_addresses(at_rest: int, host: str) -> None:
    assert get(at_rest, "/", host=host).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example:9464", "", "[evil]", "127.0.0.1.evil.example"]
)
def test_nothing_answers_to_another_name(host: str) -> None:
    assert not answers_to(host, frozenset({"localhost"}))


@pytest.mark.parametrize("path", ["/", "/events", "/metrics", "/healthz", "/readyz"])
def test_a_page_that_a_foreign_name_was_turned_to_gets_nothing(at_rest: int, path: str) -> None:
    answer = get(at_rest, path, host="evil.example")
    assert answer.status == 421
    assert b"web.names" in answer.body


def test_a_name_that_is_listed_is_answered_to(
    start_daemon: StartDaemon, mosquitto: Mosquitto, port: int
) -> None:
    daemon = start_daemon(*web(port, "--web.names", "lab.example"), port=mosquitto.port)
    daemon.wait_log("web_listening")
    assert get(port, "/", host="LAB.example.:80").status == 200


@pytest.mark.parametrize("path", ["/", "/page.js", "/page.css", "/metrics", "/healthz", "/nothing"])
def test_every_answer_tells_the_browser_to_run_and_share_nothing_else(at_rest: int, path: str) -> None:
    headers = get(at_rest, path).headers
    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; ")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    ("site", "mode", "status"),
    [
        ("cross-site", "no-cors", 403),
        ("same-site", "cors", 403),
        ("cross-site", "navigate", 200),
        ("same-origin", "cors", 200),
        ("none", "navigate", 200),
    ],
)
def test_the_page_of_another_site_makes_the_daemon_do_nothing(
    at_rest: int, site: str, mode: str, status: int
) -> None:
    fetched = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}
    assert get(at_rest, "/metrics", **fetched).status == status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_written(at_rest: int, method: str) -> None:
    assert get(at_rest, "/", method=method).status == 405


def test_it_is_alive_and_not_ready_while_there_is_no_broker(start_daemon: StartDaemon, port: int) -> None:
    daemon = start_daemon(*web(port), port=free_port())
    daemon.wait_log("web_listening")
    alive = get(port, "/healthz")
    assert (alive.status, alive.json["verdict"]) == (200, "ticking")
    ready = get(port, "/readyz")
    assert (ready.status, ready.json) == (503, {"ready": False, "ticked": True, "broker": "awaited"})


def test_it_is_ready_after_a_tick_with_a_broker(at_rest: int) -> None:
    answer = get(at_rest, "/readyz")
    assert (answer.status, answer.json) == (200, {"ready": True, "ticked": True, "broker": "connected"})


def test_a_port_that_is_taken_is_named_and_used_when_it_is_free(
    start_daemon: StartDaemon, mosquitto: Mosquitto, port: int, listen: Listen
) -> None:
    listener = listen(mosquitto.port)
    with socket.create_server(("127.0.0.1", port)):
        daemon = start_daemon(*web(port), port=mosquitto.port)
        error = daemon.wait_log("web_failed")["error"]
        assert f"127.0.0.1:{port}" in error
        assert "web.port" in error
        # It goes on ticking, and says it in its health.
        listener.wait("health", lambda heard: heard.json["web"] == {"pages": 0, "error": error})
        listener.wait("state", count=5)
    daemon.wait_log("web_listening")
    assert get(port, "/healthz").status == 200
    assert len(daemon.logged("web_failed")) == 1
    listener.wait("health", lambda heard: heard.json["web"] == {"pages": 0, "error": None})


def test_a_daemon_with_open_pages_stops_in_time_and_ends_their_streams(
    daemon: Daemon, port: int, look: Callable[[int], Stream]
) -> None:
    streams = [look(port) for _ in range(3)]
    for stream in streams:
        stream.until("row")
    assert daemon.end() == 0
    for stream in streams:
        assert all(name for name, _ in stream.events())
    assert daemon.logged("sink_failed") == []
    assert daemon.logged("library_message") == []


@pytest.mark.usefixtures("daemon")
def test_more_pages_than_allowed_are_turned_away_until_one_is_closed(
    port: int, look: Callable[[int], Stream]
) -> None:
    streams = [look(port) for _ in range(PAGES_LIMIT)]
    streams[-1].until("live")
    assert get(port, "/events").status == 503
    assert get(port, "/healthz").status == 200
    streams[0].close()
    wait_for(lambda: get(port, "/metrics").body.count(b"neuromodd_web_pages 63.0"), "a page less")
    look(port).until("live")


def test_who_opens_a_page_and_never_reads_holds_up_nobody(
    daemon: Daemon, mosquitto: Mosquitto, port: int, listen: Listen, look: Callable[[int], Stream]
) -> None:
    listener = listen(mosquitto.port)
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            deaf = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            # Many requests in one: answers without end, which nobody takes.
            request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500
            deaf.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                deaf.send(request)
        seeing = look(port)
        seeing.until("live")
        begin_s = time.monotonic()
        for _ in range(3):
            seeing.until("row")
        # One a second.
        assert time.monotonic() - begin_s < 10.0
        listener.wait("state", count=10)
    assert daemon.logged("sink_failed") == []


@pytest.mark.usefixtures("daemon")
def test_garbage_on_the_port_harms_nothing(port: int, daemon: Daemon) -> None:
    for garbage in (b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/9.9\r\n\r\n", b"A" * 200_000, b"GET /events"):
        link = socket.create_connection(("127.0.0.1", port), timeout=5.0)
        with link, contextlib.suppress(OSError):
            link.sendall(garbage)
            link.shutdown(socket.SHUT_WR)
            while link.recv(65_536):
                pass
    assert get(port, "/healthz").status == 200
    assert daemon.logged("library_message") == []


def test_another_interval_is_told_to_the_pages(
    start_daemon: StartDaemon, mosquitto: Mosquitto, port: int, look: Callable[[int], Stream], tmp_path: Path
) -> None:
    config = tmp_path / "neuromodd.toml"
    config.write_text(f"[web]\nenabled = true\nport = {port}\n[tick]\ninterval_s = 0.2\n")
    daemon = start_daemon("--config", str(config), port=mosquitto.port)
    daemon.wait_log("web_listening")
    stream = look(port)
    stream.until("live")
    config.write_text(f"[web]\nenabled = true\nport = {port}\n[tick]\ninterval_s = 2.0\n")
    daemon.process.send_signal(signal.SIGHUP)
    # The stream ends, so that the page begins afresh.
    assert all(name != "hello" for name, _ in stream.events())
    (hello,) = look(port).until("hello")["hello"]
    assert (hello["interval_s"], hello["row_interval_s"]) == (2.0, 2.0)


@contextlib.asynccontextmanager
async def served(web: Web) -> AsyncIterator[int]:
    """The port of a server in this loop."""
    link = socket.create_server(("127.0.0.1", 0))
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(web, link, stop))
    try:
        yield link.getsockname()[1]
    finally:
        stop.set()
        await serving


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def hung_up(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        while await reader.read(65_536):
            pass


ASKED = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def test_who_connects_and_does_not_ask_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PATIENCE_S", 0.2)
    async with served(Web(WebSettings(enabled=True), source(), 1.0)) as port:
        for before, begun in ((b"", b""), (b"", b"GET / HT"), (ASKED, b"GET / HT")):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(before)
            if before:
                await reader.readuntil(b"\r\n\r\n")
            writer.write(begun)
            async with asyncio.timeout(10.0):
                await hung_up(reader)
            await close(writer)


async def test_connections_beyond_the_bound_are_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTIONS_LIMIT", 3)
    async with served(Web(WebSettings(enabled=True), source(), 1.0)) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        reader, one_more = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(5.0):
            await hung_up(reader)
        for _, writer in [*held, (reader, one_more)]:
            await close(writer)


async def test_who_does_not_read_is_hung_up_on_and_its_page_closed(
    monkeypatch: pytest.MonkeyPatch, live: Callable[..., Any], everything: dict[str, Any]
) -> None:
    monkeypatch.setattr(server, "PATIENCE_S", 0.3)
    web, life = Web(WebSettings(enabled=True), source(), 1.0), live()
    tick = life.tick(**everything)
    for second in range(600):
        moved = tick.frame.model_copy(update={"time_utc": tick.frame.time_utc + timedelta(seconds=second)})
        web.offer(tick.model_copy(update={"frame": moved}))
    async with served(web) as port:
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        deaf.connect(("127.0.0.1", port))
        deaf.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(10.0):
            while not web.health.pages:  # noqa: ASYNC110 - it sets no event
                await asyncio.sleep(0.01)
            while web.health.pages:
                # Enough to fill whatever the kernel holds for it.
                web.said(Message("info", b"x" * 500_000))
                await asyncio.sleep(0.01)
        deaf.close()


async def test_the_history_of_many_pages_is_made_in_small_parts(
    live: Callable[..., Any], everything: dict[str, Any]
) -> None:
    web, life = Web(WebSettings(enabled=True), source(), 1.0), live()
    tick = life.tick(**everything)
    for second in range(600):
        moved = tick.frame.model_copy(update={"time_utc": tick.frame.time_utc + timedelta(seconds=second)})
        web.offer(tick.model_copy(update={"frame": moved}))
    made = 0

    async def read() -> None:
        nonlocal made
        page = web.open()
        assert page is not None
        async for message in web.stream(page):
            made += message.startswith(b"event: rows")
            if message.startswith(b"event: live"):
                break

    pages = [asyncio.create_task(read()) for _ in range(4)]
    rounds = 0
    while not all(page.done() for page in pages):
        before = made
        await asyncio.sleep(0)
        rounds += 1
        assert made - before <= 2
    await asyncio.gather(*pages)
    assert made == 4 * 75
    assert rounds >= made // 2


def source() -> Source:
    return Source(
        node="lab",
        started_utc=datetime(2024, 5, 1, tzinfo=UTC),
        dimensions={"channels": 8, "lif_neurons": 8, "izhikevich_neurons": 5},
        alive=lambda: {"verdict": "ticking", "health": {}},
        info=lambda: Message("info", b"{}"),
        weights=lambda: [[0.5] * 8] * 8,
        surprise=SurpriseParameters,
    )


async def test_another_threshold_is_told_to_the_pages() -> None:
    threshold = 0.5
    asked = source()._replace(surprise=lambda: SurpriseParameters(threshold=threshold))
    view = Web(WebSettings(enabled=True), asked, 1.0)
    page = view.open()
    assert page is not None
    view.follow(1.0)
    page.put(b"still open")
    assert len(page._waiting) == 1
    threshold = 0.7
    view.follow(1.0)
    # The stream ends, so that the page begins afresh.
    assert [message async for message in page.messages()] == []
    assert view._hello()["surprise"]["threshold"] == 0.7


def test_without_its_packages_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else object())
    with pytest.raises(MissingExtraError, match=r"pip install 'neuromodd\[web\]'"):
        Web(WebSettings(enabled=True), source(), 1.0)


async def test_a_page_that_does_not_keep_up_is_let_go_with_nothing_kept_for_it() -> None:
    page = Page()
    for number in range(QUEUE_LIMIT + 1):
        page.put(str(number).encode())
    assert [message async for message in page.messages()] == []
