"""The page in a real browser, on a real daemon; and on made-up feeds, where a host has to be odd."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any

import pytest
from harness import Daemon, Listener, Mosquitto, free_port, wait_for
from playwright.sync_api import Browser, Page, expect, sync_playwright

from neuromodd.dashboard.history import Column
from neuromodd.dashboard.server import HEADERS, TYPES

StartDaemon = Callable[..., Daemon]
Listen = Callable[..., Listener]

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WAIT_MS = 20_000
PHONE, DESKTOP = {"width": 360, "height": 800}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    assert program, "chromium is not installed; `make test` installs it"
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield found
        found.close()


class Viewed:
    """An open page, and what its console said."""

    def __init__(self, browser: Browser, port: int, **how: Any) -> None:
        self.context = browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce", **how})
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda said: self.complaints.append(f"{said.type}: {said.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(f"http://127.0.0.1:{port}/")

    def live(self) -> Page:
        """Wait for the first ticks."""
        self.page.wait_for_selector("#link.live")
        self.page.wait_for_function("() => document.documentElement.dataset.sequence !== undefined")
        return self.page

    def values(self) -> tuple[int, dict[str, float | None]]:
        """The tick that is shown, and every value of it by the name of its column."""
        sequence, values = self.page.evaluate(
            """() => [
              Number(document.documentElement.dataset.sequence),
              [...document.querySelectorAll("[data-name]")].map((of) => [of.dataset.name, of.dataset.value]),
            ]"""
        )
        return sequence, {name: float(value) if value else None for name, value in values}


@pytest.fixture
def view(browser: Browser) -> Iterator[Callable[..., Viewed]]:
    """Opens pages; all are closed at the end."""
    opened: list[Viewed] = []

    def open_page(port: int, **how: Any) -> Viewed:
        opened.append(Viewed(browser, port, **how))
        return opened[-1]

    yield open_page
    for viewed in opened:
        viewed.context.close()


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def start(start_daemon: StartDaemon, mosquitto: Mosquitto, port: int) -> Callable[..., Daemon]:
    """Starts the daemon with the page on `port`."""

    def begin(*more: str) -> Daemon:
        web = ("--web.enabled", "true", "--web.port", str(port), "--mqtt.inbound.enabled", "true")
        daemon = start_daemon(*web, "--tick.interval_s", "0.5", *more, port=mosquitto.port)
        daemon.wait_log("web_listening")
        return daemon

    return begin


def at(payloads: dict[str, Any], name: str) -> Any:
    found: Any = payloads
    for key in name.split("."):
        if found is None:
            return None
        found = found[int(key)] if isinstance(found, list) else found[key]
    return found


# On a real daemon


def test_the_values_on_the_page_are_those_on_mqtt(
    start: Callable[..., Daemon],
    mosquitto: Mosquitto,
    port: int,
    listen: Listen,
    view: Callable[..., Viewed],
) -> None:
    listener = listen(mosquitto.port)
    start()
    viewed = view(port)
    viewed.live()
    viewed.page.wait_for_function("() => Number(document.documentElement.dataset.sequence) >= 4")

    def both() -> tuple[dict[str, float | None], dict[str, Any]] | None:
        # A busy host may leave states out on MQTT.
        sequence, values = viewed.values()
        payloads = {
            name: heard.json
            for name in ("state", "telemetry")
            for heard in listener.named(name)
            if heard.json["sequence"] == sequence
        }
        return (values, payloads) if len(payloads) == 2 else None

    values, payloads = wait_for(both, "a tick on the page and on MQTT")
    shown = {name: value for name, value in values.items() if value is not None}
    # Four levels, surprise, and what every host measures.
    assert len(shown) > 20
    assert shown == {name: at(payloads, name) for name in shown}
    assert viewed.complaints == []
    assert {url.split("/")[2] for url in viewed.asked} == {f"127.0.0.1:{port}"}


def test_a_reward_from_outside_appears_on_the_time_line_and_is_read_out(
    start: Callable[..., Daemon],
    mosquitto: Mosquitto,
    port: int,
    listen: Listen,
    view: Callable[..., Viewed],
) -> None:
    start()
    listener = listen(mosquitto.port)
    listener.wait("state")
    page = view(port).live()
    listener.ask("neuromodd/lab/in/reward", b'{"kind":"WorkAccepted","units":3,"source":"the queue"}')
    item = page.locator(f'#events li[data-id="{listener.wait("reward").json["id"]}"]')
    expect(item).to_contain_text("Work accepted 3.00 units, by the queue, told from outside")
    expect(page.locator("#said")).to_contain_text("Work accepted")


def test_the_page_comes_back_by_itself_when_the_daemon_was_killed_and_started_again(
    start: Callable[..., Daemon], port: int, view: Callable[..., Viewed]
) -> None:
    daemon = start()
    viewed = view(port)
    page = viewed.live()
    before = page.locator("html").get_attribute("data-sequence")
    daemon.end(signal.SIGKILL)
    expect(page.locator("#link")).to_have_text("lost", timeout=WAIT_MS)
    expect(page.locator("#stale")).to_contain_text("Stale: nothing new since")
    expect(page.locator("#said")).to_have_text("What is shown is stale.")
    start("--node", "reborn")
    expect(page.locator("#link")).to_have_text("live", timeout=WAIT_MS)
    expect(page.locator("#node")).to_have_text("reborn")
    expect(page.locator("#stale")).to_be_hidden()
    page.wait_for_function("old => document.documentElement.dataset.sequence !== old", arg=before)
    # The refused attempts in between are the browser's own to tell.
    assert [said for said in viewed.complaints if "net::ERR" not in said] == []


def test_a_daemon_that_is_stopped_is_shown_as_stale_until_it_goes_on(
    start: Callable[..., Daemon], port: int, view: Callable[..., Viewed]
) -> None:
    daemon = start()
    page = view(port).live()
    daemon.process.send_signal(signal.SIGSTOP)
    expect(page.locator("#link")).to_have_text("stale", timeout=WAIT_MS)
    expect(page.locator("#stale")).to_contain_text("No ticks arrive.")
    daemon.process.send_signal(signal.SIGCONT)
    expect(page.locator("#link")).to_have_text("live", timeout=WAIT_MS)
    expect(page.locator("#stale")).to_be_hidden()


def test_what_the_daemon_says_of_itself_is_on_the_page(
    start: Callable[..., Daemon], port: int, view: Callable[..., Viewed]
) -> None:
    start()
    page = view(port).live()
    expect(page.locator("#health dl").first).to_contain_text("connected with MQTT 5", timeout=WAIT_MS)
    expect(page.locator(".sensors tbody tr").filter(has_text="cpu")).to_contain_text("ok")
    expect(page.locator(".heat tbody tr")).to_have_count(8)
    expect(page.locator(".neurons li")).to_have_count(13)


# On a made-up feed

CHANNELS = ["cpu", "memory", "gpu", "gpu_memory", "power", "thermal", "io", "work"]
HOSTILE = "<img src=x onerror=alert(1)>"
BEGIN_S = 1_700_000_000.0


def hello(columns: Sequence[Column], **more: Any) -> dict[str, Any]:
    weights = {
        "time_utc": "2023-11-14T22:13:20Z",
        "channels": CHANNELS,
        "now": [[0.5] * 8 for _ in range(8)],
        "before": [[0.5] * 7 + [0.25] for _ in range(8)],
        "before_utc": "2023-11-14T22:03:20Z",
    }
    sensors = {"hwmon": {"state": "failed", "error": HOSTILE, "failures": 3, "duration_ms": None}}
    ticks = {"count": 9, "late": 0, "missed": 0, "gaps": 0, "lateness_p50_ms": 1, "lateness_p99_ms": 2}
    outbox = {"waiting": 2, "waiting_bytes": 9, "oldest_age_s": 1, "dropped": 0, "error": None}
    mqtt = {"connected": False, "protocol": "5", "taken_over": False, "error": HOSTILE, "outbox": outbox}
    checkpoint = {"age_s": 5.0, "written": 1, "failures": 0, "error": None}
    health = {"sensors": sensors, "ticks": ticks, "mqtt": mqtt, "checkpoint": checkpoint, "recorder": None}
    return {
        "version": "1",
        "node": HOSTILE,
        "interval_s": 1.0,
        "row_interval_s": 1.0,
        "window_s": 600.0,
        "started_utc": "2023-11-14T22:13:20Z",
        "columns": [column.values() for column in columns],
        "dimensions": {"channels": 8, "lif_neurons": 8, "izhikevich_neurons": 5},
        "info": {},
        "health": {**health, "uptime_s": 9.0},
        "alive": {},
        "fault": None,
        "events": [],
        "weights": weights,
        **more,
    }


COLUMNS = (
    Column("state.modulators.dopamine", "modulators", "dopamine", "", 0.0, 1.0),
    Column("state.surprise.total", "surprise", "total", "", 0.0, 1.0),
    Column("telemetry.cpu.utilization_ratio", "cpu", "utilization", "ratio", 0.0, 1.0),
    Column("telemetry.gpus[0].temperature_celsius", "gpus", "GPU 0 temperature", "celsius"),
    Column(f"telemetry.thermal[{HOSTILE}].temperature_celsius", "thermal", HOSTILE, "celsius"),
)


def row(second: int, *values: float | None) -> list[float | None]:
    return [second, BEGIN_S + second, *values]


class Feed:
    """Serves the page, and a stream that was written beforehand."""

    def __init__(self, events: Sequence[tuple[str, Any]]) -> None:
        stream = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events).encode()
        folder = resources.files("neuromodd.dashboard") / "page"
        ended = self._ended = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.lstrip("/") or "index.html"
                body = stream if name == "events" else (folder / name).read_bytes()
                kind = "text/event-stream" if name == "events" else TYPES[f".{name.split('.')[-1]}"]
                self.send_response(200)
                for key, value in {**HEADERS, "content-type": kind}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(body)
                self.wfile.flush()
                if name == "events":
                    ended.wait()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def feed() -> Iterator[Callable[..., Feed]]:
    """Serves streams: what `hello` says, rows, and what comes after them."""
    served: list[Feed] = []

    def serve(
        rows: Sequence[list[float | None]],
        *after: tuple[str, Any],
        columns: Sequence[Column] = COLUMNS,
        **of: Any,
    ) -> Feed:
        served.append(Feed([("hello", hello(columns, **of)), ("rows", list(rows)), ("live", {}), *after]))
        return served[-1]

    yield serve
    for one in served:
        one.close()


FAULT = {
    "id": "f",
    "class": "GpuDieDead",
    "code": "ERR_SILICON_DEAD",
    "confidence": 0.9,
    "time_utc": "2023-11-14T22:13:22Z",
    "since_utc": "2023-11-14T22:13:22Z",
    "evidence": [{"reading": "gpus.0.fault", "value": HOSTILE, "rule": "the driver has lost it"}],
}


def test_text_from_a_host_is_text_and_never_markup(
    feed: Callable[..., Feed], view: Callable[..., Viewed]
) -> None:
    served = feed([row(0, 0.5, 0.1, 0.2, 60.0, 50.0)], ("event", {"topic": "fault", "payload": FAULT}))
    viewed = view(served.port)
    page = viewed.live()
    expect(page.locator("#events .fault")).to_contain_text(HOSTILE)
    expect(page.locator("#node")).to_have_text(HOSTILE)
    assert page.locator("main img").count() == 0
    assert viewed.complaints == []


def test_a_fault_is_shown_with_its_evidence_and_in_the_head_of_the_page(
    feed: Callable[..., Feed], view: Callable[..., Viewed]
) -> None:
    served = feed([row(0, 0.5, 0.1, 0.2, 60.0, 50.0)], ("event", {"topic": "fault", "payload": FAULT}))
    page = view(served.port).live()
    item = page.locator("#events .fault")
    expect(item).to_contain_text("GpuDieDead (ERR_SILICON_DEAD)")
    expect(item).to_contain_text("confidence 90 %")
    expect(item.locator(".evidence li")).to_contain_text("the driver has lost it")
    expect(page.locator("#fault")).to_contain_text("ERR_SILICON_DEAD")


def test_what_is_not_measured_is_a_dash_and_a_group_without_values_is_named_once(
    feed: Callable[..., Feed], view: Callable[..., Viewed]
) -> None:
    served = feed([row(0, 0.5, 0.1, 0.4, None, None), row(1, 0.5, 0.1, None, None, None)])
    page = view(served.port).live()
    cpu = page.locator('[data-name="telemetry.cpu.utilization_ratio"]')
    expect(cpu).to_have_text("\u2013")
    expect(cpu).to_have_attribute("data-value", "")
    expect(page.locator("#absent")).to_contain_text("gpus, temperatures")
    assert page.locator('[data-group="gpus"]').count() == 0


def test_a_device_that_is_found_later_is_shown(
    feed: Callable[..., Feed], view: Callable[..., Viewed]
) -> None:
    values = [column.values() for column in COLUMNS]
    served = feed(
        [row(0, 0.5, 0.1, 0.4)],
        ("columns", values),
        ("row", row(1, 0.5, 0.1, 0.4, 61.5)),
        columns=COLUMNS[:3],
    )
    page = view(served.port).live()
    gpu = page.locator('[data-name="telemetry.gpus[0].temperature_celsius"]')
    expect(gpu).to_have_text("61.5 °C")


def test_the_keyboard_reaches_every_chart_and_reads_out_the_past(
    feed: Callable[..., Feed], view: Callable[..., Viewed]
) -> None:
    rows = [row(second, second / 100, 0.1, 0.4, 60.0, 50.0) for second in range(60)]
    page = view(feed(rows).port).live()
    reached = set()
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.closest('main > section, a')?.id"))
    assert {"modulators", "surprise", "spikes", "telemetry"} <= reached
    page.locator("#modulators .chart").focus()
    page.keyboard.press("Home")
    expect(page.locator("#said")).to_contain_text("dopamine 0.000, ")
    page.keyboard.press("ArrowRight")
    expect(page.locator('[data-name="state.modulators.dopamine"]')).to_have_text("0.010")
    page.keyboard.press("Escape")
    expect(page.locator('[data-name="state.modulators.dopamine"]')).to_have_text("0.590")


def test_what_has_changed_in_the_weights_is_told_by_a_sign(
    feed: Callable[..., Feed], view: Callable[..., Viewed]
) -> None:
    page = view(feed([row(0, 0.5, 0.1, 0.4, 60.0, 50.0)]).port).live()
    changed = page.locator(".heat td.changed")
    expect(changed).to_have_count(8)
    expect(changed.first).to_have_text("0.50▲.25")


def test_of_a_large_network_the_page_says_that_it_shows_the_first_neurons(
    feed: Callable[..., Feed], view: Callable[..., Viewed]
) -> None:
    rates = [Column(f"state.rates.lif.{of}", "rates", "cpu", "", 0.0, 1.0) for of in range(32)]
    large = {"channels": 8, "lif_neurons": 10_000, "izhikevich_neurons": 0}
    page = view(feed([row(0, *[0.1] * 32)], columns=rates, dimensions=large).port).live()
    expect(page.locator("#raster-scale")).to_contain_text("the first 32 of 10,000 LIF neurons")


def painted(page: Page) -> list[int]:
    """Columns of pixels of dopamine's line that have ink above the baseline."""
    found: list[int] = page.evaluate(
        """() => {
          const canvas = document.querySelector("#modulators canvas");
          const { width, height } = canvas;
          const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
          const above = Array.from({ length: height - 2 }, (_, y) => y);
          const inked = (x) => above.some((y) => data[(y * width + x) * 4 + 3] > 60);
          return Array.from({ length: width }, (_, x) => x).filter(inked);
        }"""
    )
    return found


def test_a_gap_in_time_is_a_gap_in_the_line(feed: Callable[..., Feed], view: Callable[..., Viewed]) -> None:
    seconds = [*range(200), *range(400, 600)]
    page = view(feed([row(second, 0.5, 0.1, 0.4, 60.0, 50.0) for second in seconds]).port).live()
    inked = painted(page)
    width = page.evaluate("document.querySelector('#modulators canvas').width")
    assert not [x for x in inked if 0.36 * width < x < 0.64 * width]
    assert len(inked) > 0.6 * width


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_it_fits_and_can_be_read(
    feed: Callable[..., Feed], view: Callable[..., Viewed], size: dict[str, int], scheme: str
) -> None:
    served = feed([row(0, 0.5, 0.1, 0.4, 60.0, 50.0)], ("event", {"topic": "fault", "payload": FAULT}))
    page = view(served.port, viewport=size, color_scheme=scheme).live()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    faint = page.evaluate(CONTRAST)
    assert faint == []


CONTRAST = """() => {
  const parsed = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b]
    .map((of) => of / 255)
    .map((of) => (of <= 0.04045 ? of / 12.92 : ((of + 0.055) / 1.055) ** 2.4))
    .reduce((sum, of, at) => sum + of * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (element) => {
    const stack = [];
    for (let of = element; of; of = of.parentElement) {
      const [r, g, b, a = 1] = parsed(getComputedStyle(of).backgroundColor);
      stack.push([r, g, b, a]);
      if (a === 1) break;
    }
    const over = (under, [r, g, b, a]) => [r, g, b].map((of, at) => of * a + (under[at] ?? 255) * (1 - a));
    return stack.reduceRight(over, []);
  };
  const texts = (of) => [...of.childNodes].filter((child) => child.nodeType === 3 && child.data.trim());
  return [...document.querySelectorAll("body *")]
    .filter((of) => of.checkVisibility() && texts(of).length)
    .filter((of) => !of.closest(".unseen, .skip, noscript"))
    .map((of) => {
      const both = [light(parsed(getComputedStyle(of).color)), light(behind(of))].sort((a, b) => a - b);
      return [of.textContent.trim().slice(0, 30), (both[1] + 0.05) / (both[0] + 0.05)];
    })
    .filter(([, contrast]) => contrast < 4.5);
}"""
"""Every text whose contrast to what is behind it is below that of WCAG's AA."""
