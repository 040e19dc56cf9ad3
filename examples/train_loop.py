"""Reward the host when a training run finds a better model: each epoch is work, each new best a breakthrough.

neuromodd run --mqtt.host 127.0.0.1 --mqtt.inbound.enabled true
python examples/train_loop.py 127.0.0.1 1883 lab-7
"""

from __future__ import annotations

import json
import socket
import sys
import time

import numpy as np
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

host, port, node = (sys.argv[1:] + ["127.0.0.1", "1883", socket.gethostname()][len(sys.argv) - 1 :])[:3]


client = Client(CallbackAPIVersion.VERSION2)
client.connect(host, int(port))
client.loop_start()


def tell(topic: str, **values: object) -> None:
    """Send one message to the daemon of `node`, and wait until the broker has it."""
    client.publish(f"neuromodd/{node}/in/{topic}", json.dumps(values), qos=1).wait_for_publish(5.0)


rng = np.random.default_rng(1)
inputs = rng.normal(size=(512, 8))
outputs = inputs @ rng.normal(size=8) + rng.normal(scale=0.1, size=512)
weights, best = np.zeros(8), float("inf")
for epoch in range(20):
    began = time.perf_counter()
    weights += 0.3 * inputs.T @ (outputs - inputs @ weights) / len(inputs)
    loss = float(np.mean((outputs - inputs @ weights) ** 2))
    seconds = time.perf_counter() - began
    tell("work", rate=len(inputs) / seconds, target=1e6, source="train_loop")
    tell("reward", kind="WorkAccepted", latency_ms=1000 * seconds, units=len(inputs), source="train_loop")
    if loss < 0.5 * best:
        tell("reward", kind="BreakthroughFound", metric="loss", value=loss)
        print(f"epoch {epoch}: loss {loss:.4f}, the best so far")
        best = loss
client.disconnect()
client.loop_stop()
