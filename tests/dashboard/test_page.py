"""The page in a real browser: against a real daemon, and against ticks that are made up."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, Listener, Mosquitto, free_port, wait_for
from playwright.sync_api import Browser, Page, expect, sync_playwright
from web_feed import HEALTH, Feed
from web_moments import SENTENCE, STRANGE, anomaly, episode, felt, moment

from neuromodd.core.brain import Brain, BrainParameters
from neuromodd.core.frame import TemperatureSample
from neuromodd.core.parameters import EngineConfig
from neuromodd.core.rewards import BreakthroughFound, SourceSwitch, WorkAccepted
from neuromodd.core.surprise import SurpriseParameters

Live = Callable[..., Any]
Open = Callable[..., Page]
Feeds = Callable[..., Feed]

ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)

VALUES = """() => ({
  sequence: Number(document.documentElement.dataset.sequence),
  values: Object.fromEntries([...document.querySelectorAll("[data-name]")].map(
    (shown) => [shown.dataset.name, JSON.parse(shown.dataset.value)]))
})"""
"""What the page shows at one instant, by the names of the columns."""

CONTRASTS = """() => {
  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour, below) => {
    pen.fillStyle = `rgb(${below})`;
    pen.fillRect(0, 0, 1, 1);
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const ground = (node) => (node
    ? rgb(getComputedStyle(node).backgroundColor, ground(node.parentElement)) : [255, 255, 255]);
  const luminance = (colour) => colour
    .map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    const seen = node.checkVisibility() && !node.closest(".unseen, .skip, script, noscript");
    if (!walk.currentNode.textContent.trim() || !seen) continue;
    const below = ground(node);
    const [one, other] = [below, rgb(getComputedStyle(node).color, below)].map(luminance);
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    found.push([ratio, node.className, node.textContent]);
  }
  return found.sort(([one], [other]) => one - other);
}"""
"""Each text that can be seen with its contrast to what is under it, the least first."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    assert program, "chromium is not installed; `make test` installs it"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=ARGUMENTS.split())
        yield started
        started.close()


class Watched:
    """What a page asked for and complained of."""

    def __init__(self, page: Page) -> None:
        self.requests: list[str] = []
        self.troubles: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("requestfailed", lambda request: self.troubles.append(f"failed: {request.url}"))
        page.on("console", lambda message: self.troubles.append(message.text))
        page.on("pageerror", lambda error: self.troubles.append(str(error)))


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    """Opens pages and waits until they are live; each in a window of its own, closed at the end."""
    contexts = []

    def opened(url: str, *, before: Callable[[Page], None] = lambda _: None, **window: Any) -> Page:
        window = {"viewport": {"width": 1280, "height": 900}, "timezone_id": "Asia/Tokyo", **window}
        contexts.append(browser.new_context(**window, locale="en-GB"))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000.0)
        before(page)
        page.goto(url)
        if window.get("java_script_enabled", True):
            page.wait_for_selector("html[data-link=live]")
        return page

    yield opened
    for context in contexts:
        context.close()


class Host:
    """A daemon with a page, its broker, and somebody who listens there."""

    def __init__(self, directory: Path) -> None:
        self.broker = Mosquitto(directory)
        self.listener = Listener(self.broker.port)
        self._web_port = free_port()
        self._directory = directory
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._web_port}/"

    def start(self) -> None:
        arguments = {
            "--node": "lab",
            "--log.format": "json",
            "--checkpoint.directory": str(self._directory / "state"),
            "--mqtt.host": "127.0.0.1",
            "--mqtt.port": str(self.broker.port),
            "--mqtt.inbound.enabled": "true",
            "--web.enabled": "true",
            "--web.port": str(self._web_port),
        }
        self.daemon = Daemon([part for pair in arguments.items() for part in pair], {})
        self.daemon.wait_log("web_listening")
        self.daemon.wait_log("mqtt_connected")

    def close(self) -> None:
        self.daemon.close()
        self.listener.close()
        self.broker.stop()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One that all share, with the default interval; whoever stops it lets it go on."""
    started = Host(tmp_path_factory.mktemp("host"))
    yield started
    started.close()


@pytest.fixture
def feed() -> Iterator[Feeds]:
    """Starts feeds of lives; all are closed at the end."""
    started = []

    def start(life: Any, ticks: list[Any], **more: Any) -> Feed:
        started.append(Feed(life.brain, **more))
        started[-1].offer(ticks)
        return started[-1]

    yield start
    for feed in started:
        feed.close()


def flat(document: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every value of a payload by the name of its column."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield from flat(value, f"{path}.{key}")
    elif isinstance(document, list):
        for place, value in enumerate(document):
            named = isinstance(value, dict)
            name = f"{path}[{value.get('index', value.get('name'))}]" if named else f"{path}.{place}"
            yield from flat(value, name)
    else:
        yield path, document


def same_tick(host: Host, page: Page) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the page shows and what MQTT says of one and the same tick, by the names of the columns."""

    def both() -> tuple[dict[str, Any], dict[str, Any]] | None:
        shown = page.evaluate(VALUES)
        # A busy host may leave a state out on MQTT; then another tick has to do.
        published = [
            flat(heard.json, name)
            for name in ("state", "telemetry")
            for heard in host.listener.named(name)
            if heard.json["sequence"] == shown["sequence"]
        ]
        return (shown["values"], dict(chain(*published))) if len(published) == 2 else None

    return wait_for(both, "a tick on the page and on MQTT")


def test_every_value_on_the_page_is_that_of_mqtt_for_the_same_tick(host: Host, visit: Open) -> None:
    shown, published = same_tick(host, visit(host.url))
    assert shown == {name: published[name] for name in shown}
    levels = ("state.modulators", "state.surprise", "state.rates")
    measured = {name for name, value in published.items() if value is not None and name.startswith(levels)}
    assert measured <= set(shown)
    assert sum(value is not None for value in shown.values()) > 40


def test_the_page_asks_this_host_alone_and_complains_of_nothing(host: Host, visit: Open) -> None:
    watched: list[Watched] = []
    page = visit(host.url, before=lambda page: watched.append(Watched(page)))
    sequence = page.evaluate(VALUES)["sequence"]
    wait_for(lambda: page.evaluate(VALUES)["sequence"] > sequence, "a tick more on the page")
    assert watched[0].troubles == []
    assert {f"{host.url}page.js", f"{host.url}events"} <= set(watched[0].requests)
    assert all(url.startswith(host.url) for url in watched[0].requests)


def test_a_reward_that_is_sent_in_is_listed_and_said(host: Host, visit: Open) -> None:
    page = visit(host.url)
    reward = b'{"kind":"WorkAccepted","units":3.0,"latency_ms":12.5,"source":"the night build"}'
    host.listener.ask("neuromodd/lab/in/reward", reward)
    newest = page.locator("#events li[data-topic=reward]", has_text="the night build").first
    expect(newest).to_contain_text("Work accepted 3 units, from the night build, in 12.5 ms")
    expect(page.locator("#said")).to_contain_text("Work accepted")


def test_a_daemon_that_hangs_is_shown_as_stale_until_it_goes_on(host: Host, visit: Open) -> None:
    page = visit(host.url)
    banner = page.locator("#stale")
    expect(banner).to_be_hidden()
    host.daemon.process.send_signal(signal.SIGSTOP)
    try:
        page.wait_for_selector("html[data-link=stale]")
        assert re.match(r"Stale: last row \d\d:\d\d:\d\d, \d+ s ago\.", banner.inner_text())
        expect(page).to_have_title(re.compile("stale"))
        expect(page.locator("#said")).to_contain_text("Stale")
    finally:
        host.daemon.process.send_signal(signal.SIGCONT)
    page.wait_for_selector("html[data-link=live]")
    expect(banner).to_be_hidden()
    expect(page.locator("#said")).to_contain_text("back")


def test_the_page_comes_back_after_a_kill_and_a_restart_and_begins_afresh(
    tmp_path: Path, visit: Open
) -> None:
    host = Host(tmp_path)
    try:
        page = visit(host.url)
        wait_for(lambda: page.evaluate(VALUES)["sequence"] >= 2, "two ticks on the page")
        host.daemon.process.kill()
        host.daemon.wait()
        page.wait_for_selector("html[data-link=lost]")
        expect(page.locator("#stale")).to_contain_text("No connection to the daemon")
        host.daemon.close()
        host.start()
        page.wait_for_selector("html[data-link=live]")
        expect(page.locator("#stale")).to_be_hidden()
        shown, published = same_tick(host, page)
        assert shown == {name: published[name] for name in shown}
    finally:
        host.close()


def test_ten_minutes_are_there_at_once_and_the_arrow_keys_read_them_out(
    live: Live, feed: Feeds, visit: Open, everything: dict[str, Any]
) -> None:
    life = live()
    page = visit(feed(life, [life.tick(**everything) for _ in range(700)]).url)
    chart = page.get_by_role("slider", name="dopamine, over time")
    chart.focus()
    said: list[str] = []
    for key in ("End", "ArrowLeft", "PageDown", "Shift+ArrowLeft", "Home"):
        page.keyboard.press(key)
        said.append(chart.get_attribute("aria-valuetext") or "")
    # The last of 700 is 11:39 after nine in the evening in Tokyo.
    times = [text.rpartition("at ")[2] for text in said]
    assert times == ["21:11:39", "21:11:38", "21:10:38", "21:10:28", "21:01:39"]
    assert all(re.match(r"dopamine \d\.\d{3}, tonic \d\.\d{3}, phasic ", text) for text in said)
    expect(page.locator("#tip")).to_contain_text("21:01:39")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("slider", name="cortisol, over time")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#tip")).to_be_hidden()


def test_the_pointer_reads_out_what_is_under_it(
    live: Live, feed: Feeds, visit: Open, everything: dict[str, Any]
) -> None:
    life = live()
    page = visit(feed(life, [life.tick(**everything) for _ in range(20)]).url)
    page.locator("#modulators .slider").first.hover(position={"x": 2, "y": 10})
    expect(page.locator("#tip")).to_contain_text("dopamine")
    expect(page.locator("#tip")).to_contain_text("21:00:00")
    page.mouse.move(2, 2)
    expect(page.locator("#tip")).to_be_hidden()


def test_the_tab_key_finds_all_there_is_and_each_has_a_name(
    live: Live, feed: Feeds, visit: Open, everything: dict[str, Any]
) -> None:
    life = live()
    life.brain.take(WorkAccepted(source="a"))
    page = visit(feed(life, episode([life.tick(**everything) for _ in range(20)], 5, 15)).url)
    focused = """() => {
      const on = document.activeElement;
      const name = on.getAttribute("aria-label") ?? on.textContent;
      const section = on.closest("section");
      return [section?.id || section?.ariaLabel || on.className || on.id, name.trim()];
    }"""
    stops = []
    for _ in range(60):
        page.keyboard.press("Tab")
        stops.append(tuple(page.evaluate(focused)))
        if page.evaluate("document.activeElement === document.body"):
            break
    places = [place for place, _ in stops]
    assert places[:2] == ["skip", "zone"]
    wanted = {"modulators", "surprise", "spikes", "events", "weights", "CPU", "GPU 0", "Tick"}
    assert wanted <= set(places)
    # One stop a section or card, and not one a chart.
    assert len(stops) < 30
    assert all(name for _, name in stops[:-1])


def test_the_arrow_keys_walk_through_the_weights(
    live: Live, feed: Feeds, visit: Open, everything: dict[str, Any]
) -> None:
    life = live()
    page = visit(feed(life, [life.tick(**everything) for _ in range(20)]).url)
    grid = page.get_by_role("grid").first
    grid.locator("td[tabindex='0']").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    weight = life.brain.engine.weights[1][1]
    expect(page.locator("#weights .readout").first).to_contain_text(f"memory to memory: {weight:.3f}")
    exact = json.loads(page.evaluate("document.activeElement.dataset.value"))
    assert exact == pytest.approx(weight, abs=1e-4)


def test_what_strangers_call_their_things_is_shown_as_text(
    live: Live, feed: Feeds, visit: Open, everything: dict[str, Any]
) -> None:
    hostile = "</script><img src=x onerror=document.title='owned'><b id=owned>"
    life = live()
    life.brain.take(WorkAccepted(source=hostile))
    life.brain.take(BreakthroughFound(metric=hostile, value=1.0))
    life.brain.take(SourceSwitch(previous=hostile, current="&lt;"))
    sensors = (TemperatureSample(name=hostile, temperature_celsius=1.0),)
    status = {"state": "failed", "error": hostile, "failures": 1, "duration_ms": None}
    health = {**HEALTH, "sensors": {hostile: status}, "mqtt": {**HEALTH["mqtt"], "error": hostile}}
    page = visit(feed(life, [life.tick(**{**everything, "thermal": sensors})], health=health).url)
    for section in ("#events", "#telemetry", "#health"):
        expect(page.locator(section)).to_contain_text(hostile)
    expect(page.locator("#events")).to_contain_text("&lt;")
    assert page.locator("#owned, img[src=x]").count() == 0
    assert "owned" not in page.title()


def test_what_this_host_never_measured_is_left_out_and_said(live: Live, feed: Feeds, visit: Open) -> None:
    life = live()
    page = visit(feed(life, [life.tick() for _ in range(3)]).url)
    expect(page.locator("#telemetry-note")).to_contain_text("Not measured on this host: CPU, memory, GPUs,")
    expect(page.locator("#surprise-note")).to_contain_text(
        "Not measured, or still being learned: all, cpu, memory,"
    )
    assert page.locator("[data-name^='telemetry.']").count() == 0


def test_a_reading_that_fails_is_a_dash_and_one_that_is_new_appears(
    live: Live, feed: Feeds, visit: Open, everything: dict[str, Any]
) -> None:
    life = live()
    served = feed(life, [life.tick(cpu=everything["cpu"]) for _ in range(3)])
    page = visit(served.url)
    served.offer([life.tick(gpus=everything["gpus"])])
    lost = page.locator("[data-name='telemetry.cpu.utilization_ratio']")
    expect(lost).to_have_attribute("data-value", "null")
    expect(lost).to_have_text(re.compile(r"^\W not measured$"))
    found = page.locator("[data-name='telemetry.gpus[0].temperature_celsius']")
    expect(found).to_have_text("66.0 °C")


def test_a_fault_is_shown_with_its_evidence_and_its_end(
    live: Live, feed: Feeds, visit: Open, everything: dict[str, Any]
) -> None:
    life = live()
    well = {**everything, "gpus": everything["gpus"][:1]}
    served = feed(life, [life.tick(**well) for _ in range(5)])
    page = visit(served.url)
    served.offer([life.tick(**everything) for _ in range(20)])
    expect(page.locator("#fault")).to_have_text(re.compile(r"ERR_SILICON_DEAD for \d+ s"))
    entry = page.locator("#events li[data-kind=bad]").first
    expect(entry).to_contain_text("Fault: GpuDieDead")
    expect(entry.locator(".evidence")).to_contain_text("gpus.1.lost true — device lost")
    expect(page.locator("#said")).to_contain_text("GpuDieDead")
    served.offer([life.tick(**well) for _ in range(30)])
    expect(page.locator("#fault")).not_to_contain_text("ERR_SILICON_DEAD")


def test_an_anomaly_is_told_while_it_holds_with_what_was_read_and_expected(
    live: Live, feed: Feeds, visit: Open, everything: dict[str, Any]
) -> None:
    life = live()
    well = {**everything, "gpus": everything["gpus"][:1]}
    ticks = episode([life.tick(**well) for _ in range(40)], 20, 35)
    served = feed(life, ticks[:20])
    page = visit(served.url)
    banner = page.get_by_role("region", name="Anomaly")
    expect(banner).to_be_hidden()
    served.offer(ticks[20:30])
    expect(banner).to_contain_text(f"{SENTENCE}.")
    expect(banner).to_contain_text("Anomaly for 9 s")
    expect(banner).to_contain_text("Surprise 0.640: of normal moments here, 1 in 2.5 million is as strange.")
    cells = banner.get_by_role("row", name="network").get_by_role("cell").all_inner_texts()
    assert cells == ["114 MiB/s", "977 KiB/s to 2.86 MiB/s", "0.410", "0.410"]
    expect(page.locator("#said")).to_contain_text(SENTENCE)
    expect(page).to_have_title(re.compile("anomaly"))
    served.offer(ticks[30:])
    expect(banner).to_be_hidden()
    newest = page.locator("#events li[data-topic=anomaly]").first
    expect(newest).to_contain_text(f"Anomaly over after 15 s: {SENTENCE}")
    expect(newest.locator(".evidence")).to_contain_text("cpu 97.0 % — 5.0 % to 20.0 % was expected")


def test_who_looks_later_is_told_of_anomalies_that_were_and_of_one_that_holds(
    live: Live, feed: Feeds, visit: Open, everything: dict[str, Any]
) -> None:
    life = live()
    past = episode([life.tick(**everything) for _ in range(40)], 5, 20)
    held = anomaly(since_s=30.0)
    now = [felt(tick, moment(0.7, episode=held)) for tick in past[30:]]
    page = visit(feed(life, [*past[:30], *now]).url)
    expect(page.get_by_role("region", name="Anomaly")).to_contain_text(SENTENCE)
    expect(page.locator("#events-note")).to_contain_text("1 anomaly since the daemon began")
    spans = page.evaluate(
        """async () => {
          const { Store } = await import("/store.js");
          const { episodes } = await import("/anomalies.js");
          return new Promise((done) => {
            const store = new Store(() => {});
            const stream = new EventSource("/events");
            for (const name of ["hello", "rows", "live"])
              stream.addEventListener(name, ({ data }) => {
                store.take(name, JSON.parse(data));
                if (name === "live") done(episodes(store).map(({ from, to }) => to - from));
              });
          });
        }"""
    )
    assert spans == [15, 9]
    chart = page.get_by_role("img", name=re.compile("^In ten minutes .* 2 anomalies; now .*, an anomaly$"))
    expect(chart).to_be_visible()


def test_an_anomaly_that_the_daemon_has_forgotten_is_none(
    live: Live, feed: Feeds, visit: Open, everything: dict[str, Any]
) -> None:
    life = live()
    served = feed(life, episode([life.tick(**everything) for _ in range(10)], 5, None))
    page = visit(served.url)
    banner = page.get_by_role("region", name="Anomaly")
    expect(banner).to_be_visible()
    served.offer([felt(life.tick(**everything), moment())])
    expect(banner).to_be_hidden()


def test_the_arrow_keys_read_out_how_rare_a_moment_was_and_that_it_was_an_anomaly(
    live: Live, feed: Feeds, visit: Open, everything: dict[str, Any]
) -> None:
    life = live()
    page = visit(feed(life, episode([life.tick(**everything) for _ in range(40)], 20, 30)).url)
    chart = page.get_by_role("slider", name="surprise, all, over time")
    chart.focus()
    said = []
    for key in ("End", "PageDown", "Shift+ArrowRight", "Shift+ArrowRight"):
        page.keyboard.press(key)
        said.append((chart.get_attribute("aria-valuetext") or "").rpartition(", at ")[0])
    calm = "all 0.130, 1 in 20"
    assert said == [
        calm,
        "all 0.040, usual",
        "all 0.100, 1 in 10",
        "all 0.640, 1 in 2.5 million, an anomaly",
    ]
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("slider", name="surprise, cpu, over time")).to_be_focused()


def test_the_channels_of_surprise_are_those_that_are_watched(live: Live, feed: Feeds, visit: Open) -> None:
    names = ("cpu", "disk.busy_ratio")
    life = live()
    life.brain = Brain(BrainParameters(surprise=SurpriseParameters(channels=names)), compiled=False)
    page = visit(feed(life, [felt(life.tick(), moment(names=names)) for _ in range(3)]).url)
    shown = page.locator("#surprise [data-name]")
    named = shown.evaluate_all("(all) => all.map((one) => one.dataset.name)")
    of = "state.surprise"
    assert named == [f"{of}.total", f"{of}.channels.cpu", f"{of}.channels.disk.busy_ratio"]
    expect(page.locator("#surprise-note")).to_contain_text(
        "0.3 is one in a thousand, 0.5 one in 100\u202f000"
    )
    expect(page.locator("#surprise-note")).to_contain_text("From 0.500 in all (dashed) an anomaly begins")


def test_where_surprise_is_disabled_it_is_said(live: Live, feed: Feeds, visit: Open) -> None:
    life = live()
    life.brain = Brain(BrainParameters(surprise=SurpriseParameters(enabled=False)), compiled=False)
    page = visit(feed(life, [life.tick() for _ in range(3)]).url)
    expect(page.locator("#surprise-note")).to_have_text("It is disabled (surprise.enabled).")


def test_every_chart_says_in_words_what_it_shows(
    live: Live, feed: Feeds, visit: Open, everything: dict[str, Any]
) -> None:
    life = live()
    page = visit(feed(life, [life.tick(**everything) for _ in range(20)]).url)
    expect(page.get_by_role("img").first).to_have_accessible_name(
        re.compile("dopamine over ten minutes: now ")
    )
    words = page.evaluate("[...document.querySelectorAll('canvas')].map((chart) => chart.ariaLabel)")
    assert len(words) > 60
    assert all(re.search("ten minutes|^Rewards|^In ten", said) for said in words), words
    assert "CPU, utilization, over ten minutes: now 33.3 %, from 33.3 %" in words


def test_of_a_large_network_the_first_neurons_are_shown(live: Live, feed: Feeds, visit: Open) -> None:
    life = live()
    life.brain = Brain(
        BrainParameters(engine=EngineConfig(lif_neurons=1000, izhikevich_neurons=40)), compiled=False
    )
    page = visit(feed(life, [life.tick() for _ in range(2)]).url)
    expect(page.locator("#spikes-note")).to_contain_text("the first 32 of 1\u202f000 LIF")
    expect(page.locator("#spikes-note")).to_contain_text("the first 16 of 40 Izhikevich")
    expect(page.locator("#weights-note")).to_contain_text("The first 32 of 1\u202f000 neurons")
    assert page.locator("[data-name^='state.rates.']").count() == 48


def test_nothing_has_to_be_scrolled_sideways(
    live: Live, feed: Feeds, visit: Open, everything: dict[str, Any]
) -> None:
    life = live()
    life.brain.take(WorkAccepted(source="anamewithoutanyplacetobreakit" * 4))
    ticks = episode([life.tick(**everything) for _ in range(20)], 10, None)
    long = "thermal.a sensor/with a_very_long_name_of_its_own.temperature_celsius"
    channels = tuple(of.model_copy(update={"name": long}) for of in STRANGE)
    held = anomaly(since_s=10.0, channels=channels, sentence=long * 3)
    page = visit(feed(life, [*ticks, felt(life.tick(), moment(0.7, change=held, episode=held))]).url)
    expect(page.get_by_role("region", name="Anomaly")).to_be_visible()
    hidden = """() => [document.documentElement, ...document.querySelectorAll(".scroll")]
      .map((part) => part.scrollWidth - part.clientWidth)"""
    for width in (320, 360, 768, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate(hidden) == [0, 0], width


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_every_text_can_be_read(
    live: Live, feed: Feeds, visit: Open, everything: dict[str, Any], scheme: str
) -> None:
    life = live()
    ticks = episode([life.tick(**everything) for _ in range(30)], 10, None)
    page = visit(feed(life, ticks).url, color_scheme=scheme)
    expect(page.get_by_role("region", name="Anomaly")).to_be_visible()
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 300
    assert contrasts[0][0] >= 4.5, contrasts[:5]
    dark = (
        sum(page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")) < 300
    )
    assert dark == (scheme == "dark")


def test_times_turn_to_utc_and_stay_so(live: Live, feed: Feeds, visit: Open) -> None:
    life = live()
    page = visit(feed(life, [life.tick(), life.tick()]).url)
    expect(page.locator("#tick")).to_contain_text("21:00:01")
    page.get_by_role("button", name="UTC").click()
    expect(page.locator("#tick")).to_contain_text("12:00:01 UTC")
    page.reload()
    expect(page.locator("#tick")).to_contain_text("12:00:01 UTC")


def test_a_daemon_of_another_version_brings_its_own_page(
    live: Live, feed: Feeds, visit: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = live()
    served = feed(life, [life.tick(), life.tick()])
    page = visit(served.url)
    page.evaluate("window.old = true")
    served.follow(2.0)
    # The same version: it goes on.
    wait_for(lambda: "a tick each 2 s" in page.locator("#about").inner_text(), "another interval")
    assert page.evaluate("window.old")
    monkeypatch.setattr("neuromodd.dashboard.web.__version__", "99.0")
    served.follow(3.0)
    expect(page.locator("#about")).to_contain_text("neuromodd 99.0")
    wait_for(lambda: page.evaluate("window.old !== true"), "the page of the other version")


def test_without_javascript_the_page_says_where_the_numbers_are(host: Host, visit: Open) -> None:
    page = visit(host.url, java_script_enabled=False)
    expect(page.locator("noscript .banner")).to_contain_text("/metrics")


def test_a_page_that_is_open_for_days_keeps_no_more_than_its_window(host: Host, visit: Open) -> None:
    kept = visit(host.url).evaluate(
        """async () => {
          const { Store } = await import("/store.js");
          const store = new Store(() => {});
          const column = { name: "a", group: "b", low: null, high: null };
          store.take("hello", { window_s: 600, row_interval_s: 1, columns: [column] });
          for (let at = 0; at < 5000; at += 1) {
            store.take("row", [at, 1000 + at + (at > 4000 ? 100 : 0) + (at > 4900 ? 50 : 0), at]);
            store.take("event", { topic: "reward", payload: {} });
          }
          return [store.rows.length, store.events.length, store.gaps];
        }"""
    )
    # The gap before that is as long gone as the rows on both sides of it.
    assert kept == [551, 256, [[6000, 6051]]]


def test_what_was_not_measured_is_a_gap_in_the_line(host: Host, visit: Open) -> None:
    pieces = visit(host.url).evaluate(
        """async () => {
          const { Store } = await import("/store.js");
          const { pieces } = await import("/lines.js");
          const store = new Store(() => {});
          store.take("hello", { window_s: 600, row_interval_s: 1, columns: [{ name: "a", group: "b" }] });
          // Not measured at 3, no rows from 5 to 60.
          const values = [[1, 10], [2, 11], [3, null], [4, 12], [60, 13], [61, 14]];
          store.take("rows", values.map(([at, value], sequence) => [sequence, at, value]));
          return pieces({ store, x: (time) => time }, store.columns[0], (value) => value);
        }"""
    )
    assert pieces == [[[1, 10], [2, 11]], [[4, 12]], [[60, 13], [61, 14]]]


def test_a_stream_that_was_refused_or_is_dead_is_opened_anew(host: Host, visit: Open) -> None:
    opened = {("CLOSED", 4): 1, ("CLOSED", 6): 2, ("OPEN", 19): 1, ("OPEN", 21): 2, ("CONNECTING", 21): 2}
    tried = visit(host.url).evaluate(
        """async (cases) => {
          const { Stream } = await import("/stream.js");
          const { EventSource } = window;
          return cases.map(([state, silence]) => {
            let [tried, now] = [0, 0];
            performance.now = () => now;
            window.EventSource = class extends EventTarget {
              static OPEN = EventSource.OPEN;
              static CLOSED = EventSource.CLOSED;
              readyState = EventSource[state];
              constructor() { super(); tried += 1; }
              close() {}
            };
            const stream = new Stream({ complete: true, interval: 1 }, () => {});
            now = 1000 * silence;
            stream.judge();
            return tried;
          });
        }""",
        list(opened),
    )
    assert tried == list(opened.values())


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        ("", 6.6, "6.600"),
        ("", 12, "12.0"),
        ("bytes", 0, "0 B"),
        ("bytes", 12_345_678_901, "11.5 GiB"),
        ("bytes_per_s", 2e6 / 3, "651 KiB/s"),
        ("celsius", -3.04, "\N{MINUS SIGN}3.0 °C"),
        ("hz", 3_412_345_678.9, "3.41 GHz"),
        ("ms", 0.0004, "0.00 ms"),
        ("per_s", 12_345.678, "12.3 k/s"),
        ("ratio", 1 / 3, "33.3 %"),
        ("ratio", -0.0001, "0.0 %"),
        ("rpm", 1234.0, "1234 rpm"),
        ("volts", 1.0125, "1.012 V"),
        ("watts", 45.678901, "45.7 W"),
        ("watts", None, "not measured"),
    ],
)
def test_numbers_are_written_as_people_read_them(
    blank: Page, unit: str, value: float | None, text: str
) -> None:
    shown = blank.evaluate(
        """async ([value, unit]) => {
          const { written } = await import("/format.js");
          return written(value, { name: "a", unit });
        }""",
        [value, unit],
    )
    assert shown == text


@pytest.fixture(scope="module")
def blank(host: Host, browser: Browser) -> Iterator[Page]:
    """A page whose modules are asked one by one."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(host.url)
    yield page
    context.close()


def test_health_tells_broker_checkpoint_and_sensors(
    live: Live, feed: Feeds, visit: Open, everything: dict[str, Any]
) -> None:
    life = live()
    served = feed(life, [life.tick(**everything)])
    page = visit(served.url)
    expect(page.locator("[data-fact=broker]")).to_contain_text("connected")
    expect(page.locator("[data-fact=checkpoint]")).to_contain_text("at 1 May, 20:59:47")
    expect(page.locator("[data-sensor=nvml]")).to_contain_text("past its deadline of 2.0 s")
    expect(page.locator("[data-sensor=rapl]")).to_contain_text("failed")
    absent = page.locator("[data-sensor=amdgpu]")
    expect(absent).to_be_hidden()
    page.get_by_text("2 find nothing to measure here").click()
    expect(absent).to_contain_text("no card")
    down = {**HEALTH["mqtt"], "connected": False, "error": "Connection refused"}
    served.say("health", {**HEALTH, "mqtt": down})
    expect(page.locator("[data-fact=broker]")).to_contain_text("not connected")
    expect(page.locator("[data-fact=broker]")).to_contain_text("Connection refused")
    expect(absent).to_be_visible()
