"""A listener's side: a broker as the connection of a :class:`streaming.transports.link.Link`."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final

from streaming.transports.mqtt.address import MqttAddress
from streaming.transports.mqtt.broker import Broker
from streaming.transports.mqtt.view import HELLO_WAIT_S, WINDOW_WAIT_S, StreamView
from streaming.wire.messages import Join, Message

__all__ = ["MqttConnection", "connect_mqtt"]

SILENCE_S: Final = 15.0
"""Eight packets of the default preset: unlikely on a connection that stands."""


class MqttConnection:
    """Messages of one stream at a broker, as they would come from a sender over a WebSocket.

    The listener's join message goes nowhere: what it asks for is answered from what the broker has
    retained. Use within ``async with``.
    """

    def __init__(self, broker: Broker, silence_s: float = SILENCE_S) -> None:
        self._broker = broker
        self._silence_s = silence_s
        self._view: StreamView | None = None

    async def __aenter__(self) -> MqttConnection:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def send(self, message: Message) -> None:
        """Take the join message, by which the stream begins. Raises TransportError."""
        if not isinstance(message, Join):
            raise ValueError("a listener sends nothing but a join message")
        self._view = StreamView(self._broker.address, message)
        await self._do(self._view)

    async def __aiter__(self) -> AsyncIterator[Message]:
        view = self._view
        if view is None:
            raise ValueError("the join message comes first")
        while True:
            try:
                async with asyncio.timeout(self._patience_s(view)):
                    received = await self._broker.receive()
            except TimeoutError:
                if view.begun:
                    await self._check()
                    continue
                messages = view.waited()
            else:
                messages = view.receive(received)
            await self._do(view)
            for message in messages:
                yield message

    async def close(self) -> None:
        """Leave the broker; never raises."""
        await self._broker.close()

    def _patience_s(self, view: StreamView) -> float:
        if view.begun:
            return self._silence_s
        return WINDOW_WAIT_S if view.met else HELLO_WAIT_S

    async def _do(self, view: StreamView) -> None:
        """Subscribe and unsubscribe as the view wants."""
        wanted, unwanted = list(view.wanted), list(view.unwanted)
        view.wanted.clear()
        view.unwanted.clear()
        if wanted:
            await self._broker.subscribe(*wanted)
        if unwanted:
            await self._broker.unsubscribe(*unwanted)

    async def _check(self) -> None:
        """A broker that has vanished looks as a sender that is silent: ask for its word."""
        await self._broker.subscribe(self._broker.address.status)


async def connect_mqtt(address: MqttAddress, tls: ssl.SSLContext | None = None) -> MqttConnection:
    """Connect to the broker of a stream. Raises TransportError, or RefusedError for good."""
    broker = Broker(address, tls)
    await broker.__aenter__()
    return MqttConnection(broker)
