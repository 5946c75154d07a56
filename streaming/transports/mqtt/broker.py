"""A connection to a broker: what aiomqtt does, with our errors.

MQTT 5 without a session that outlives the connection: what was missed is asked for, not queued.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from streaming.errors import RefusedError, TransportError, UserError, reason_of
from streaming.support.tasks import cancel
from streaming.transports.mqtt.address import MqttAddress
from streaming.transports.mqtt.wire import KEEPALIVE_S

try:
    import aiomqtt
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties
    from paho.mqtt.subscribeoptions import SubscribeOptions
except ModuleNotFoundError:  # an extra; whoever needs it is told by Broker
    if not TYPE_CHECKING:
        aiomqtt = None

__all__ = ["Broker", "Received", "Will"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

# The library logs what it raises as well.
_library_logger = logging.getLogger(f"{__name__}.library")
_library_logger.setLevel(logging.CRITICAL)

_TIMEOUT_S: Final = 10.0
MAX_PACKET_BYTES: Final = 8192
"""A window of 1024 tokens has 1797 bytes. The broker is told to keep longer packets to itself, and
left if it does not."""
_QUEUED_PACKETS: Final = 1024
_BAD_PASSWORD: Final = 134
_NOT_AUTHORIZED: Final = 135
_WRONG_VERSION: Final = (1, 132)


@dataclass(frozen=True)
class Received:
    """A message from the broker.

    Attributes:
        left_s: whole seconds until it expires; None if it does not.
    """

    topic: str
    payload: bytes
    left_s: int | None = None


@dataclass(frozen=True)
class Will:
    """What the broker says for a client that has vanished; retained for ``expiry_s``."""

    topic: str
    payload: bytes
    expiry_s: int


class Broker:
    """A connection to a broker, within ``async with``.

    Args:
        address: of the broker; its topic is not looked at.
        tls: for ``mqtts://``, see :mod:`streaming.support.tls`.
        will: said when this connection breaks without an end.
        identifier: of the client; one that comes back with it takes the place of its former self.
        keepalive_s: a broker that is silent for so long is asked whether it is still there.
        on_lost: called when the connection has broken.

    Raises:
        TransportError: from every call, if the connection is gone.
        RefusedError: on entering, if the broker refuses this client.
        UserError: on entering, if aiomqtt is not installed.
    """

    def __init__(
        self,
        address: MqttAddress,
        tls: ssl.SSLContext | None = None,
        *,
        will: Will | None = None,
        identifier: str = "",
        keepalive_s: int = KEEPALIVE_S,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self.address = address
        self._tls = tls
        self._will = will
        self._identifier = identifier
        self._keepalive_s = keepalive_s
        self._on_lost = on_lost
        self._client: aiomqtt.Client | None = None
        self._pump: asyncio.Task[None] | None = None
        self._flooded = False
        self._arrived: asyncio.Queue[Received | None] = asyncio.Queue(_QUEUED_PACKETS)

    async def __aenter__(self) -> Broker:
        if aiomqtt is None:
            raise UserError(
                "MQTT needs the Python package aiomqtt; install it: pip install 'aiomqtt>=2.5,<3'."
            )
        address = self.address
        limits = Properties(PacketTypes.CONNECT)
        limits.MaximumPacketSize = MAX_PACKET_BYTES
        client = aiomqtt.Client(
            address.host,
            address.port,
            username=address.user,
            password=address.password,
            identifier=self._identifier,
            protocol=aiomqtt.ProtocolVersion.V5,
            properties=limits,
            tls_context=self._tls,
            will=_will(self._will),
            keepalive=self._keepalive_s,
            timeout=_TIMEOUT_S,
            max_queued_incoming_messages=_QUEUED_PACKETS,
            logger=_library_logger,
        )
        self._limit(client)
        try:
            await client.__aenter__()
        except aiomqtt.MqttError as error:
            raise _cannot_connect(address, error, tls=self._tls is not None) from None
        except (ValueError, UnicodeError):  # a host that is no name
            raise TransportError(f"The host in {address} is no name of a host.") from None
        self._client = client
        self._pump = asyncio.create_task(self._receive_all(client))
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Say goodbye, so that the will is not said; a second time does nothing."""
        client, self._client = self._client, None
        if client is None or self._pump is None:
            return
        try:
            await client.__aexit__(None, None, None)
        except aiomqtt.MqttError as error:  # no answer, in ten seconds
            logger.debug("%s: %s", self.address, error)
            self._pump.cancel()
        # It ends by itself, for the connection is over, once it need not wait for anybody.
        while not self._pump.done():
            if not self._arrived.empty():
                self._arrived.get_nowait()
            await asyncio.sleep(0)

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        qos: int = 0,
        expiry_s: int | None = None,
    ) -> None:
        """Hand one message to the broker.

        Args:
            retain: keep it for those who subscribe later.
            qos: 0, or 1 to wait until the broker confirms it.
            expiry_s: when it is to be forgotten.
        """
        properties = None
        if expiry_s is not None:
            properties = Properties(PacketTypes.PUBLISH)
            properties.MessageExpiryInterval = expiry_s
        await self._call(self._connected().publish(topic, payload, qos, retain, properties))

    async def subscribe(self, *topics: str) -> None:
        """Want what is published there, and first what is retained. Raises RefusedError as well."""
        wanted = [(topic, SubscribeOptions(qos=0)) for topic in topics]
        codes = await self._call(self._connected().subscribe(wanted))
        if any(getattr(code, "is_failure", False) for code in codes):
            raise RefusedError(
                "auth", f"what is at {self.address} may not be read by us.", by="broker"
            )

    async def unsubscribe(self, *topics: str) -> None:
        """Want it no longer."""
        await self._call(self._connected().unsubscribe(list(topics)))

    async def receive(self) -> Received:
        """The next message that arrives."""
        received = await self._arrived.get()
        if received is None:
            self._arrived.put_nowait(None)  # whoever asks again is told the same
            raise self._broken("it was lost")
        return received

    def check(self) -> None:
        """Raise TransportError if the connection is known to be broken."""
        if self._pump is None or self._pump.done():
            raise self._broken("it was lost")

    def _limit(self, client: aiomqtt.Client) -> None:
        """Read no packet that is too long, and hold no more of them than fit into the queue.

        The library takes whatever a broker announces, and asks for the rest of a packet at once.
        """
        library: Any = client._client
        receive = library._sock_recv

        def bounded(count: int) -> bytes:
            held = max(len(library._in_messages), len(library._out_packet))
            if count > MAX_PACKET_BYTES or held > _QUEUED_PACKETS:
                self._flooded = True
                raise ConnectionError
            data: bytes = receive(count)
            return data

        library._sock_recv = bounded

    async def _receive_all(self, client: aiomqtt.Client) -> None:
        try:
            async for message in client.messages:
                left = getattr(message.properties, "MessageExpiryInterval", None)
                await self._arrived.put(Received(message.topic.value, message.payload, left))
        except aiomqtt.MqttError as error:
            if self._client is not None:
                logger.debug("%s: %s", self.address, error)
                self._on_lost()
            await self._arrived.put(None)

    async def _call(self, call: Coroutine[Any, Any, T]) -> T:
        """The result of a call that the broker answers; the library waits on when it is lost."""
        assert self._pump is not None
        calling = asyncio.ensure_future(call)
        try:
            await asyncio.wait({calling, self._pump}, return_when=asyncio.FIRST_COMPLETED)
            if calling.done():
                return calling.result()
        except aiomqtt.MqttError as error:
            raise self._broken(error) from None
        finally:
            await cancel(calling)
        raise self._broken("it was lost")

    def _connected(self) -> aiomqtt.Client:
        if self._client is None:
            raise TransportError(f"There is no connection to the broker of {self.address}.")
        return self._client

    def _broken(self, error: object) -> TransportError:
        logger.debug("%s: %s", self.address, error)
        if self._flooded:
            return TransportError(
                f"The broker of {self.address} sends more than it was told that we take; check the "
                "address."
            )
        return TransportError(
            f"The connection to the broker of {self.address} broke", "start the listener again"
        )


def _will(will: Will | None) -> aiomqtt.Will | None:
    if will is None:
        return None
    properties = Properties(PacketTypes.WILLMESSAGE)
    properties.MessageExpiryInterval = will.expiry_s
    return aiomqtt.Will(will.topic, will.payload, qos=1, retain=True, properties=properties)


def _cannot_connect(
    address: MqttAddress, error: aiomqtt.MqttError, *, tls: bool
) -> TransportError | RefusedError:
    if isinstance(error, aiomqtt.MqttCodeError):
        return _turned_away(address, error)
    cause = error.__context__  # the library keeps no more of it than its text
    if isinstance(cause, ssl.SSLCertVerificationError):
        return TransportError(
            f"The certificate of {address} cannot be trusted ({cause.verify_message}); name its "
            "issuer with --ca."
        )
    if isinstance(cause, (ssl.SSLError, ConnectionResetError)) and tls:
        reason = getattr(cause, "reason", None) or "connection reset"
        return TransportError(
            f"No TLS with {address} ({reason}): the broker may speak none, or want a certificate "
            "(--mqtt-cert)."
        )
    if isinstance(cause, socket.gaierror):
        return TransportError(f"The host in {address} is unknown; check its spelling.")
    if isinstance(cause, ConnectionRefusedError):
        return TransportError(
            f"No broker listens at {address}; start it first, or check host and port."
        )
    if isinstance(cause, OSError) and not isinstance(cause, TimeoutError):
        return TransportError(
            f"Cannot connect to {address} ({reason_of(cause)}); check host and port."
        )
    return TransportError(
        f"What answers at {address} does not greet us as a broker does; check host and port, and "
        "whether it wants mqtts:// or a certificate (--mqtt-cert)."
    )


def _turned_away(
    address: MqttAddress, error: aiomqtt.MqttCodeError
) -> TransportError | RefusedError:
    code = getattr(error.rc, "value", error.rc)
    if code in (_BAD_PASSWORD, _NOT_AUTHORIZED):
        why = "it wants a user" if address.user is None else "user or password is wrong"
        return RefusedError("auth", f"{address} does not let us in, {why}.", by="broker")
    if code in _WRONG_VERSION:
        return TransportError(f"The broker of {address} speaks no MQTT 5, which is needed.")
    return TransportError(f"The broker of {address} turns us away ({error}); try again later.")
