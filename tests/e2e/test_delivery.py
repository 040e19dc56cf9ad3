"""Nothing valued is lost: rewards through kills of the broker and of the daemon, and hostile senders."""

from __future__ import annotations

import array
import fcntl
import json
import random
import signal
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from harness import Daemon, Listener, Mosquitto, wait_for
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

StartDaemon = Callable[..., Daemon]
StartBroker = Callable[..., Mosquitto]

REWARDS = 1000
BROKER_KILLS = 20
DAEMON_KILLS = 5
ANSWERS = "neuromodd/lab/response/sender"
OPEN = ("--mqtt.inbound.enabled", "true", "--mqtt.inbound.rate_per_s", "10000")


class Party:
    """Somebody on the broker with a session that lasts, who comes back at once when it was away."""

    def __init__(self, port: int, identifier: str, topic: str) -> None:
        self.here = threading.Event()
        self._topic = topic
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=identifier, protocol=paho.MQTTv5)
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: self.here.set()
        self._client.on_disconnect = lambda *_: self.here.clear()
        self._client.on_message = self._hear
        self._client.reconnect_delay_set(min_delay=0.05, max_delay=0.05)  # type: ignore[arg-type]
        lasting = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        lasting.SessionExpiryInterval = 3600
        self._client.connect("127.0.0.1", port, clean_start=False, properties=lasting)
        self._client.loop_start()

    def _hear(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Subscriber(Party):
    """Keeps the rewards that arrive."""

    def __init__(self, port: int) -> None:
        self.ids: list[str] = []
        super().__init__(port, "subscriber", "neuromodd/lab/reward")

    def has_read_all(self) -> bool:
        """Whether nothing that was sent to it waits in the kernel."""
        unread = array.array("i", [0])
        connection = self._client.socket()
        assert connection is not None
        fcntl.ioctl(connection.fileno(), termios.FIONREAD, unread)
        return unread[0] == 0

    def _hear(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        reward = json.loads(message.payload)
        # The host may find one of its own in the load of this test.
        if reward["origin"] == "external":
            self.ids.append(reward["id"])


class Sender(Party):
    """Sends rewards until each has been answered: what was not is sent again, under its id."""

    def __init__(self, port: int) -> None:
        self.open = {f"reward-{number}" for number in range(REWARDS)}
        self.refused: list[str] = []
        self._stop = threading.Event()
        super().__init__(port, "sender", ANSWERS)
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _hear(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        reply = json.loads(message.payload)
        if reply["ok"]:
            self.open.discard(reply["id"])
        else:
            self.refused.append(reply["error"])

    def _send(self) -> None:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ResponseTopic = ANSWERS
        sent_s: dict[str, float] = {}
        while self.open and not self._stop.is_set():
            now_s = time.monotonic()
            for identity in sorted(self.open)[:60]:
                if now_s - sent_s.get(identity, -1.0) < 1.0:
                    continue
                sent_s[identity] = now_s
                payload = json.dumps({"kind": "WorkAccepted", "id": identity, "latency_ms": 5})
                self._client.publish("neuromodd/lab/in/reward", payload, qos=1, properties=properties)
            self._stop.wait(0.1)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        super().close()


@pytest.fixture
def parties() -> Iterator[list[Party]]:
    """Those who are to be closed at the end."""
    found: list[Party] = []
    yield found
    for party in found:
        party.close()


def test_a_thousand_rewards_survive_twenty_kills_of_the_broker_and_five_of_the_daemon(
    start_mosquitto: StartBroker, start_daemon: StartDaemon, parties: list[Party], tmp_path: Path
) -> None:
    # A broker that is killed may lose what it has acknowledged and not yet passed on, which is not the
    # daemon's to answer for. So it keeps sessions on the disk, passes everything on at once, and is frozen
    # wherever it is until the subscriber has read what was sent to it; then it is killed.
    broker = start_mosquitto(
        [
            "allow_anonymous true",
            "persistence true",
            f"persistence_location {tmp_path}/",
            "autosave_on_changes true",
            "autosave_interval 1",
            "max_inflight_messages 0",
        ]
    )
    fast = (*OPEN, "--tick.interval_s", "0.05", "--mqtt.outbox.rate_per_s", "10000")
    daemon = start_daemon(*fast, port=broker.port)
    daemon.wait_log("mqtt_connected")
    subscriber = Subscriber(broker.port)
    parties.append(subscriber)
    assert subscriber.here.wait(10.0)
    sender = Sender(broker.port)
    parties.append(sender)
    rng = random.Random(5)  # noqa: S311 - when to kill, no secret
    kills_of_the_daemon = set(rng.sample(range(BROKER_KILLS), DAEMON_KILLS))
    for kill in range(BROKER_KILLS):
        goal = (kill + 1) * REWARDS // (BROKER_KILLS + 1)
        wait_for(
            lambda: len(set(subscriber.ids)) >= goal and subscriber.here.is_set(),  # noqa: B023 - waited for
            f"{goal} rewards after {kill} kills",
            60.0,
        )
        if kill in kills_of_the_daemon:
            assert daemon.end(signal.SIGKILL) == -signal.SIGKILL
        broker.freeze()
        wait_for(subscriber.has_read_all, "the subscriber")
        broker.stop(signal.SIGKILL)
        subscriber.here.clear()
        broker.start()
        if kill in kills_of_the_daemon:
            daemon = start_daemon(*fast, port=broker.port)
    wait_for(lambda: not sender.open, "an answer to each reward", 60.0)
    wait_for(lambda: len(set(subscriber.ids)) == REWARDS, f"{REWARDS} distinct rewards", 60.0)
    assert (set(subscriber.ids), sender.refused) == ({f"reward-{number}" for number in range(REWARDS)}, [])


def hostile(rng: random.Random, number: int) -> bytes:
    """One of 10,000 messages that nobody means well with."""
    # More than a double holds.
    nines = b"9" * rng.randrange(400, 9000)
    kinds: list[Callable[[], bytes]] = [
        lambda: rng.randbytes(rng.randrange(2000)),
        lambda: b"[" * rng.randrange(1, 16_000),
        lambda: b'{"a":' * rng.randrange(1, 3000) + b"1" + b"}" * 3000,
        lambda: b'{"kind": "WorkAccepted", "units": ' + nines + b"}",
        lambda: b'{"rate": 1e' + nines[:5] + b"9}",
        lambda: b'{"kind": "WorkAccepted", "latency_ms": "' + nines + b'"}',
        lambda: b'{"command": "set-interval", "interval_s": -1}',
        lambda: b'{"command": {"command": "reset"}}',
        lambda: b'{"command": "reset", "id": ' + nines[:300] + b"}",
        lambda: b'{"kind": "WorkAccepted", "source": "\\ud800"}',
        lambda: b'{"kind": null, "rate": null, "command": null}',
        lambda: json.dumps({"rate": 1, **{f"x{n}": n for n in range(rng.randrange(1, 900))}}).encode(),
    ]
    if number % 200 == 0:
        return rng.randbytes(1024) * 1024
    return rng.choice(kinds)()


@pytest.mark.parametrize(("protocol", "count"), [("5", 10_000), ("3.1.1", 3_000)])
def test_hostile_messages_change_nothing_and_hold_nothing_up(
    mosquitto: Mosquitto,
    start_daemon: StartDaemon,
    listen: Callable[..., Listener],
    protocol: str,
    count: int,
) -> None:
    listener = listen(mosquitto.port, newest=True)
    daemon = start_daemon(
        *(*OPEN, "--tick.interval_s", "0.05", "--mqtt.health_interval_s", "1"),
        *("--mqtt.protocol", protocol),
        port=mosquitto.port,
    )
    listener.wait("telemetry", count=3)
    before = listener.named("info")[-1].payload
    rng = random.Random(7)  # noqa: S311 - the same messages each time
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="hostile")
    client.connect("127.0.0.1", mosquitto.port)
    client.loop_start()
    for number in range(count):
        name = rng.choice(["in/reward", "in/work", "in/command"])
        sent = client.publish(f"neuromodd/lab/{name}", hostile(rng, number), qos=rng.choice((0, 1)))
        # No more on their way than the broker queues for a subscriber.
        if number % 100 == 0:
            sent.wait_for_publish(20.0)
    sent.wait_for_publish(20.0)
    client.disconnect()
    client.loop_stop()
    # Requests of one topic are heard in their order: this one comes after all but commands and work.
    listener.ask("neuromodd/lab/in/reward", b'{"kind": "WorkAccepted", "id": "end"}')
    listener.wait("reward", lambda heard: heard.json["id"] == "end", timeout_s=60.0)
    seen = len(listener.named("health"))
    health = listener.wait("health", count=seen + 1).json
    rewards = [heard.json for heard in listener.named("reward")]
    found: dict[str, Any] = {
        "alive": daemon.process.poll() is None,
        "rewards": [of["id"] for of in rewards if of["origin"] == "external"],
        "info": listener.named("info")[-1].payload == before,
        "work": listener.named("telemetry")[-1].json["work"]["source"],
        "taken": health["mqtt"]["inbound"]["taken"],
    }
    assert found == {"alive": True, "rewards": ["end"], "info": True, "work": "utilization", "taken": 1}
    assert sum(health["mqtt"]["inbound"]["refused"].values()) > count / 4
    # On an idle machine some 10 ms; a busy one must not fail the test.
    assert health["ticks"]["lateness_p99_ms"] < 250.0
    assert health["mqtt"]["connections"] == 1
