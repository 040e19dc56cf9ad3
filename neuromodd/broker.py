"""The embedded broker: the only importer of amqtt (extra `broker`).

It spares a first try the set-up of a broker. It speaks MQTT 3.1.1 on the loopback interface, knows no
users, and forgets what is retained when it stops: for anything that lasts, set `mqtt.host`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from neuromodd.errors import BrokerStartError
from neuromodd.processes import listening_process

MAX_CONNECTIONS = 100
STOP_S = 2.0


@contextlib.asynccontextmanager
async def embedded_broker(host: str, port: int) -> AsyncIterator[None]:
    """Run a broker on host and port for as long as the context lasts.

    Raises:
        BrokerStartError: the port is taken, or the broker can't start for another reason.
    """
    from amqtt.broker import Broker  # noqa: PLC0415 - an extra, imported where it is used
    from amqtt.contexts import BrokerConfig, ListenerConfig  # noqa: PLC0415
    from amqtt.errors import BrokerError  # noqa: PLC0415

    # It logs every start-up fault with a traceback, and then raises it: once is enough.
    logging.getLogger("amqtt").setLevel(logging.CRITICAL)
    logging.getLogger("transitions").setLevel(logging.CRITICAL)
    await _check_free(host, port)

    class OwnSubscriptions(Broker):  # type: ignore[misc]  # amqtt has no types
        """A broker that tells each client what it asked for; amqtt 0.12 tells a new one what others did."""

        async def _publish_retained_messages_for_subscription(self, subscription: Any, session: Any) -> None:  # noqa: ANN401
            if any(of is session for of, _ in self._subscriptions.get(subscription[0], ())):
                await super()._publish_retained_messages_for_subscription(subscription, session)

    broker = OwnSubscriptions(
        BrokerConfig(
            listeners={"default": ListenerConfig(bind=f"{host}:{port}", max_connections=MAX_CONNECTIONS)},
            plugins={"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        )
    )
    try:
        await broker.start()
    except BrokerError as error:
        raise BrokerStartError(f"the embedded broker can't start on {host}:{port}: {error}") from None
    try:
        yield
    finally:
        await _stop(broker)


async def _stop(broker: Any) -> None:  # noqa: ANN401 - amqtt has no types
    """End the broker and its connections, also where amqtt 0.12 does not come to an end.

    Its reader of a session may miss that it is to stop, if it has a message in its hands; then neither this
    connection nor the socket on which it listens would be closed.
    """
    handlers = [handler for _, handler in broker._sessions.values()]  # noqa: SLF001 - it offers no other way
    for server in broker._servers.values():  # noqa: SLF001 - likewise
        if server.instance is not None:
            server.instance.close()
    try:
        async with asyncio.timeout(STOP_S):
            await broker.shutdown()
    except TimeoutError:
        for handler in handlers:
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(STOP_S):
                    await handler.writer.close()


async def _check_free(host: str, port: int) -> None:
    try:
        server = await asyncio.start_server(lambda _reader, writer: writer.close(), host, port)
    except OSError as error:
        holder = listening_process(port) or "another process"
        raise BrokerStartError(
            f"{host}:{port} is taken by {holder} ({error.strerror}); "
            "set mqtt.host to use the broker there, or mqtt.port for another port"
        ) from None
    server.close()
    await server.wait_closed()
