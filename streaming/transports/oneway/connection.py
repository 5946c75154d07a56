"""A listener's side: a one-way link as the connection of a Link."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

import codec
from streaming.errors import ProtocolError, TransportError
from streaming.stream.listener_session import CodecIdentity
from streaming.stream.traffic import Traffic
from streaming.transports.oneway.ports import Address, Port
from streaming.transports.oneway.receiver import OneWayReceiver
from streaming.wire.messages import Message

__all__ = ["OneWayConnection", "OneWayDial"]

logger = logging.getLogger(__name__)

_SILENCE_S: Final = 15.0
_PUZZLED_S: Final = 60.0
"""Two hellos should have come by then."""


class OneWayDial:
    """Opens the link and waits for the first hello; a :data:`streaming.transports.link.Dial`.

    Args:
        key: of the frames' tags; empty: they have none.

    Attributes:
        known: the codecs that can be decoded here, to be added to.
        traffic: to count what arrives with, byte for byte.
    """

    def __init__(
        self,
        address: Address,
        clock: Callable[[], float] = time.monotonic,
        key: bytes = b"",
    ) -> None:
        self._address = address
        self._clock = clock
        self._key = key
        self._reached: dict[bytes, int] = {}
        self._successor = b""
        self._unread_bytes = 0
        self.known: list[CodecIdentity] = []
        self.traffic = Traffic(framing=self._count, keepalive_bits_per_s=0.0)

    async def __call__(self) -> OneWayConnection:
        """Open the link and hear its hello.

        Raises:
            TransportError: the link cannot be opened, or is lost.
            ProtocolError: what is heard cannot be decoded here.
        """
        port = await self._address.open_reader()
        receiver = OneWayReceiver(
            self._identify,
            datagrams=self._address.datagrams,
            key=self._key,
            reached=self._reached,
        )
        connection = OneWayConnection(port, receiver, self)
        try:
            logger.info("listening on %s, for a hello first", self._address)
            successor, self._successor = self._successor, b""
            await connection.meet(successor)
        except BaseException:
            await connection.close()
            raise
        hello = receiver.hello
        if hello is not None and hello.fec is not None:
            wait_s = hello.fec.wait_s(hello.packet_tokens)
            logger.info(
                "losses are repaired within %.1f s; to play on meanwhile: --buffer %d",
                wait_s,
                math.ceil(wait_s),
            )
        return connection

    def heard(self, data: bytes) -> None:
        """So much came from the link."""
        self._unread_bytes += len(data) + self._address.frame_overhead

    def begin_with(self, frame: bytes) -> None:
        """The next connection has heard this already."""
        self._successor = frame

    @property
    def puzzle(self) -> str:
        """What to say if something comes and no hello is in it."""
        return "something comes, but no hello that can be read: is it the right speed, and " + (
            "has the sender the same --link-key-file?"
            if self._key
            else "does the sender have a --link-key-file?"
        )

    def now_s(self) -> float:
        """Monotonic seconds."""
        return self._clock()

    def _count(self, message_bytes: int) -> int:
        """Everything since the message before: noise, what was repaired and what was repeated."""
        count, self._unread_bytes = self._unread_bytes, 0
        return count

    def _identify(self, digest: bytes) -> CodecIdentity:
        begins = digest.hex()
        for identity in (*self.known, *(CodecIdentity(*one) for one in codec.bundled())):
            if identity.digest.startswith(begins):
                return identity
        raise ProtocolError(
            f"The stream is made with weights whose SHA-256 begins with {begins}, and none "
            "such are here; choose the sender's --codec and the same version on both sides."
        )


class OneWayConnection:
    """Messages of the stream on a link, as they would come from a sender over a WebSocket."""

    def __init__(self, port: Port, receiver: OneWayReceiver, dial: OneWayDial) -> None:
        self._port = port
        self._receiver = receiver
        self._dial = dial
        self._waiting: list[Message] = []
        self._silent = False

    async def meet(self, heard: bytes = b"") -> None:
        """Wait until a hello has come.

        Args:
            heard: bytes from before.

        Raises:
            TransportError: the link is lost.
        """
        self._take(heard)
        puzzled_s = math.inf
        while not self._waiting:
            data = await self._read()
            self._take(data)
            now_s = self._dial.now_s()
            puzzled_s = min(puzzled_s, now_s + _PUZZLED_S)
            if now_s >= puzzled_s and not self._waiting:
                puzzled_s = now_s + _PUZZLED_S
                logger.warning("%s", self._dial.puzzle)

    async def send(self, message: Message) -> None:
        """Nobody hears it: what is asked for is what there is."""

    async def __aiter__(self) -> AsyncIterator[Message]:
        while True:
            while self._waiting:
                yield self._waiting.pop(0)
            self._take(await self._read())

    async def close(self) -> None:
        """Close the link; never raises."""
        self._port.close()
        if self._receiver.repaired:
            logger.info("%d packets were repaired", self._receiver.repaired)

    def _take(self, data: bytes) -> None:
        if not data:
            return
        self._dial.heard(data)
        try:
            self._waiting += self._receiver.receive(data, self._dial.now_s())
        except TransportError:
            self._dial.begin_with(self._receiver.successor)
            raise

    async def _read(self) -> bytes:
        reading = asyncio.ensure_future(self._port.read())
        try:
            while not (await asyncio.wait({reading}, timeout=_SILENCE_S))[0]:
                if not self._silent:
                    self._silent = True
                    logger.warning("nothing has come for %.0f s; waiting", _SILENCE_S)
                self._waiting += self._receiver.silence()
                if self._waiting:
                    return b""
            data = reading.result()
            if self._silent:
                self._silent = False
                logger.info("something comes again")
            return data
        finally:
            reading.cancel()
