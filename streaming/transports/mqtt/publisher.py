"""The sender's side: a hub's stream to a broker, whether anybody subscribes there or not.

The hub sees one more place in its stream, as that of a WebSocket listener. What is taken there goes
to the broker message by message; with every packet the retained window moves on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Final

from codec.constants import TOKEN_RATE
from streaming.errors import ProtocolError, RefusedError, TransportError
from streaming.stream.hub import Hub
from streaming.stream.subscription import Subscription
from streaming.stream.traffic import Traffic
from streaming.support.tasks import beside, cancel
from streaming.transports.mqtt.address import MqttAddress, stream_tag
from streaming.transports.mqtt.broker import Broker, Will
from streaming.transports.mqtt.view import OFFLINE, ONLINE, WINDOW_EXPIRY_S, read_payload
from streaming.transports.mqtt.wire import wire_bytes
from streaming.transports.reconnecting import Backoff, Reconnecting
from streaming.wire.messages import (
    MAX_TOKENS_PER_MESSAGE,
    Failure,
    Hello,
    Join,
    Message,
    Title,
    Tokens,
)

__all__ = ["DEFAULT_WINDOW_S", "Mqtt", "MqttPublisher"]

logger = logging.getLogger(__name__)

DEFAULT_WINDOW_S: Final = 256 / TOKEN_RATE
"""What listeners ask for when they join: enough for the decoder's context."""
MAX_WINDOW_S: Final = MAX_TOKENS_PER_MESSAGE / TOKEN_RATE
_SIGN_OF_LIFE_S: Final = 600.0
_EXPIRY_S: Final = 3600
"""Hello and status of a sender that has vanished; one that lives repeats them more often."""
_KEEPALIVE_S: Final = 20
_ECHO_S: Final = 10.0
_KEEPALIVE_BITS_PER_S: Final = 8 * (52 + 2) / _KEEPALIVE_S
_CLOSE_TIMEOUT_S: Final = 2.0


@dataclass(frozen=True)
class Mqtt:
    """Publish to a broker: an :class:`streaming.transports.outlet.Outlet`.

    Attributes:
        address: ``mqtt://HOST:PORT/TOPIC``, or what was read of one.
        tls: for ``mqtts://``.
        window_s: how much of the stream is retained.
        backoff: how to come back.
    """

    address: MqttAddress | str
    tls: ssl.SSLContext | None = None
    window_s: float = DEFAULT_WINDOW_S
    backoff: Backoff = field(default_factory=Backoff)

    def __call__(self, hub: Hub) -> MqttPublisher:
        """What publishes ``hub``. Raises SettingsError if the address cannot be read."""
        return MqttPublisher(hub, self)


class MqttPublisher(Reconnecting):
    """Publishes a hub within ``async with``, across as many connections as it takes.

    A connection that is lost is made again, for ever. Leaving takes leave of the broker, after what
    the hub has still to say.

    Attributes:
        traffic: what goes to the broker.

    Raises:
        TransportError: on entering, the broker cannot be reached.
        RefusedError: on entering, the broker refuses us.
    """

    def __init__(
        self, hub: Hub, settings: Mqtt, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(settings.backoff, clock)
        self._hub = hub
        self._settings = settings
        address = settings.address
        self._address = MqttAddress.parse(address) if isinstance(address, str) else address
        self._tag = stream_tag(hub.info)
        self._window_tokens = min(
            MAX_TOKENS_PER_MESSAGE,
            max(hub.info.packet_tokens, round(settings.window_s * TOKEN_RATE)),
        )
        # With the same name again, the broker drops the connection that we gave up first.
        self._identifier = f"music350-{self._tag}-{secrets.token_hex(4)}"
        self._place = hub.next_token  # up to here everything was handed to the broker
        self._hello_at_s = 0.0
        self._dated = False  # whether the hello can tell when the stream played
        self._wake = asyncio.Event()
        self._leaving = False
        self._task: asyncio.Task[None] | None = None
        self.traffic = Traffic(framing=int, keepalive_bits_per_s=_KEEPALIVE_BITS_PER_S)

    async def __aenter__(self) -> MqttPublisher:
        broker = await self._connect()
        self._task = asyncio.create_task(self._run(broker))
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._task is not None
        self._leaving = True
        self._wake.set()
        if self.away:
            self._task.cancel()
        await cancel(self._task, within_s=_CLOSE_TIMEOUT_S)
        if not self._task.cancelled():
            self._task.result()

    @property
    def url(self) -> str:
        """Where the stream is found, without user and password."""
        return str(self._address)

    def figures(self) -> dict[str, Any]:
        """See :class:`streaming.transports.outlet.Running`."""
        rate = self.traffic.wire_bits_per_s(self._clock())
        return {
            "kind": "mqtt",
            "bits_per_s": rate,
            "away": self.away,
            "reconnects": self.reconnects,
        }

    async def failed(self) -> None:
        """It comes back for ever."""

    async def _connect(self) -> Broker:
        broker = Broker(
            self._address,
            self._settings.tls,
            will=Will(self._address.status, OFFLINE, _EXPIRY_S),
            identifier=self._identifier,
            keepalive_s=_KEEPALIVE_S,
            on_lost=self._wake.set,
        )
        await broker.__aenter__()
        self._connected()
        logger.info("publishing %sto %s", "again " if self.reconnects else "", self._address)
        return broker

    async def _run(self, broker: Broker | None) -> None:
        """Publish until the stream is over."""
        async for _ in self._attempts():
            try:
                broker = broker or await self._connect()
                await self._publish_all(broker)
                return
            except (TransportError, RefusedError) as error:
                if self.away:
                    logger.debug("not yet: %s", error)
                else:
                    logger.warning("coming back to the broker, since %s", error.cause)
            finally:
                if broker is not None:
                    await broker.close()
                    broker = None

    async def _publish_all(self, broker: Broker) -> None:
        """On one connection, to the end of the stream, or of those that follow one another."""
        try:
            await self._begin_stream(broker)
            async with beside(self._watch(broker)):
                await self._publish_stream(broker)
                while not (self._leaving or self._hub.ended):
                    await self._begin_stream(broker)
                    await self._publish_stream(broker)
        finally:
            await self._say_goodbye(broker)

    async def _begin_stream(self, broker: Broker) -> None:
        """Go on where we were, unless the hub has begun another stream."""
        tag = stream_tag(self._hub.info)
        if tag != self._tag:
            self._tag, self._place = tag, 0
        await self._say_hello(broker)

    async def _publish_stream(self, broker: Broker) -> None:
        """What was missed, then live, until there is no more or our place in the hub is lost."""
        oldest = self._hub.next_token - self._window_tokens
        join = Join(history=0, next_token=max(0, self._place, oldest))
        subscription = self._hub.join(join, self._clock(), self._wake.set, outlet=True)
        try:
            await self._move_window(broker)
            while True:
                self._wake.clear()
                broker.check()
                await self._publish_waiting(broker, subscription)
                if subscription.closed or self._leaving:
                    return
                left_s = self._hello_at_s + _SIGN_OF_LIFE_S - self._clock()
                try:
                    async with asyncio.timeout(left_s):
                        await self._wake.wait()
                except TimeoutError:
                    await self._say_hello(broker)
        finally:
            self._hub.leave(subscription)

    async def _watch(self, broker: Broker) -> None:
        """Warn where nobody can hear us, or where somebody else speaks in our place."""
        with contextlib.suppress(TransportError, ProtocolError):  # which others will notice
            await broker.subscribe(self._address.hello)
            try:
                async with asyncio.timeout(_ECHO_S):
                    received = await broker.receive()
            except TimeoutError:
                logger.warning(
                    "nothing that is published at %s comes back: does the broker let this user "
                    "publish there?",
                    self._address,
                )
                received = await broker.receive()
            while True:
                hello = read_payload(received.payload)
                if isinstance(hello, Hello) and stream_tag(hello) != self._tag:
                    logger.warning("another sender publishes at %s too", self._address)
                received = await broker.receive()

    async def _publish_waiting(self, broker: Broker, subscription: Subscription) -> None:
        """What is to be taken now, in order."""
        while (message := subscription.take()) is not None:
            if isinstance(message, Failure):
                logger.debug("the hub says: %s", message.message)  # to us, not to listeners
                continue
            if isinstance(message, Hello):
                continue  # it is retained in a place of its own
            if isinstance(message, Tokens) and message.end_token == self._hub.next_token:
                # Before the packet itself: who comes between the two gets it twice, not never.
                await self._move_window(broker)
            data = message.encode()
            payload = data if isinstance(data, bytes) else data.encode()
            await self._publish(broker, self._address.live(self._tag), payload, of=message)
            if isinstance(message, Tokens):
                self._place = message.end_token
                if not self._dated:
                    await self._say_hello(broker)
            elif isinstance(message, Title):
                await self._say_hello(broker)

    async def _say_hello(self, broker: Broker) -> None:
        """That we are here, and with which stream; to be repeated before it expires."""
        await self._publish(broker, self._address.status, ONLINE, expiry_s=_EXPIRY_S, qos=1)
        self._hello_at_s = self._clock()
        hello = self._hub.hello(self._hub.next_token, self._hello_at_s)
        self._dated = self._hub.age_s(self._hello_at_s) is not None
        # What plays now may have been announced for a token that is still to come.
        text = replace(hello, title=self._hub.title).encode()
        await self._publish(broker, self._address.hello, text.encode(), expiry_s=_EXPIRY_S, qos=1)

    async def _move_window(self, broker: Broker) -> None:
        window = self._hub.history.recent(self._window_tokens)
        if window is not None:
            topic = self._address.window(self._tag)
            await self._publish(broker, topic, window.encode(), expiry_s=WINDOW_EXPIRY_S)

    async def _say_goodbye(self, broker: Broker) -> None:
        """As far as it is heard: nothing to start from remains, and nobody waits in vain."""
        with contextlib.suppress(TransportError):
            await self._publish(broker, self._address.window(self._tag), b"", expiry_s=1)
            await self._publish(broker, self._address.status, OFFLINE, expiry_s=_EXPIRY_S, qos=1)

    async def _publish(
        self,
        broker: Broker,
        topic: str,
        payload: bytes,
        *,
        expiry_s: int | None = None,
        qos: int = 0,
        of: Message | None = None,
    ) -> None:
        """Publish, retained where it expires, and count it. of: the message that it is."""
        retain = expiry_s is not None
        await broker.publish(topic, payload, retain=retain, qos=qos, expiry_s=expiry_s)
        size = wire_bytes(topic, len(payload), expires=retain, acknowledged=qos > 0)
        count, end = (len(of.tokens), of.end_token) if isinstance(of, Tokens) else (0, 0)
        self.traffic.add(size, self._clock(), tokens=count, end_token=end)
