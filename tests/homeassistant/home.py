"""A small Home Assistant in this process: the core, its registries and the MQTT integration; no frontend."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from homeassistant.bootstrap import async_load_base_functionality
from homeassistant.config_entries import ConfigEntries, ConfigEntry
from homeassistant.core import CoreState, HomeAssistant
from homeassistant.helpers import device_registry, entity_registry
from homeassistant.loader import async_setup

WAIT_S = 20.0


@contextlib.asynccontextmanager
async def home(folder: Path, port: int | None = None) -> AsyncIterator[Any]:
    """Home Assistant with an empty configuration; connected to the broker on `port` where one is given."""
    (folder / "configuration.yaml").write_bytes(b"")
    hass = HomeAssistant(str(folder))
    hass.config.skip_pip = True
    async_setup(hass)
    hass.config_entries = ConfigEntries(hass, {})
    await async_load_base_functionality(hass)
    # The MQTT integration asks for these two, for its dialogs alone.
    hass.config.components |= {"http", "file_upload"}
    hass.set_state(CoreState.running)
    try:
        if port is not None:
            await connect(hass, port)
        yield hass
    finally:
        await hass.async_stop(force=True)


async def connect(hass: Any, port: int) -> None:
    values: dict[str, Any] = {
        "data": {"broker": "127.0.0.1", "port": port, "discovery": True},
        "domain": "mqtt",
        "discovery_keys": {},
        "options": {},
        "source": "user",
        "title": "broker",
        "unique_id": None,
        "version": 1,
        "minor_version": 1,
    }
    # Later versions ask for these.
    if "subentries_data" in inspect.signature(ConfigEntry).parameters:
        values["subentries_data"] = ()
    await hass.config_entries.async_add(ConfigEntry(**values))


@contextlib.contextmanager
def at_home(folder: Path) -> Iterator[Callable[..., Any]]:
    """Gives what calls a function inside of a Home Assistant, with that as its first argument."""
    with asyncio.Runner() as runner:
        inside = home(folder)
        hass = runner.run(inside.__aenter__())

        async def call(function: Callable[..., Any], *arguments: Any) -> Any:
            return function(hass, *arguments)

        yield lambda *of: runner.run(call(*of))
        runner.run(inside.__aexit__(None, None, None))


async def until(look: Callable[[], Any], expected: Any) -> None:
    """Wait until `look` gives what is expected; fail with both after the deadline."""
    deadline = time.monotonic() + WAIT_S
    while (found := look()) != expected and time.monotonic() < deadline:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0.02)
    assert found == expected


def unique_ids(hass: Any) -> set[str]:
    return set(entities(hass))


def entities(hass: Any) -> dict[str, Any]:
    """What the entity registry holds, by unique id."""
    return {entry.unique_id: entry for entry in entity_registry.async_get(hass).entities.values()}


def devices(hass: Any) -> list[Any]:
    return list(device_registry.async_get(hass).devices.values())


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 3 * WAIT_S))


@contextlib.contextmanager
def broker(folder: Path) -> Iterator[int]:
    """A mosquitto of one's own; gives its port."""
    program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n", encoding="utf-8")
    process = subprocess.Popen([program, "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + WAIT_S
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < deadline, "mosquitto does not listen"
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(WAIT_S)
