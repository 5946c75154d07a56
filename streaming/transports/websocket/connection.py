"""A connection that holds off who would harm the server, and takes whole frames where it has room.

What a server sends is neither masked nor, here, compressed: a frame is made once and is the same
bytes for everybody. Such frames may stand between those that the library writes, since both are
whole and go to the transport at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import Event
from websockets.protocol import State as WebSocketState

from streaming.support.forwarded import Proxies
from streaming.support.guard import ByteBudget, Limits
from streaming.support.http import METHOD_NOT_ALLOWED, Answer, is_upgrade
from streaming.transports.websocket.door import Caller, Door
from streaming.wire.messages import Message

__all__ = ["Framing", "GuardedConnection"]

logger = logging.getLogger(__name__)

_UNREAD_BYTES: Final = 65_536
"""Of answers to the pings of one who may send without end, before it is cut off."""
_STALLED_S: Final = 30.0
"""An answer of which nothing was taken for so long is given up."""
_LOOK_S: Final = 5.0
_FLUSH_LOOK_S: Final = 0.05
_UNSENT_BYTES: Final = 16_384
"""So much of an answer lies in the system unsent, so that the slowest progress shows here."""
_FRAMES: Final = 8
_METHODS: Final = (b"GET", b"HEAD")
_LONGEST_METHOD: Final = 20
_LONGEST_LINE: Final = 8192
_OLD_VERSION: Final = re.compile(rb" HTTP/1\.0\r$")
_TOKEN: Final = re.compile(rb"[\w!#$%&'*+.^`|~-]{1,20}")


class Framing:
    """Makes frames of messages, and one frame of a message that goes to many in turn."""

    def __init__(self) -> None:
        self._frames: dict[int, tuple[Message, bytes]] = {}  # by which object it is

    def frame(self, message: Message) -> bytes:
        """The message, whole in one frame."""
        found = self._frames.get(id(message))
        if found is not None:
            return found[1]
        data = message.encode()
        if isinstance(data, str):
            made = Frame(Opcode.TEXT, data.encode())
        else:
            made = Frame(Opcode.BINARY, data)
        frame = bytes(made.serialize(mask=False))
        self._frames[id(message)] = message, frame
        if len(self._frames) > _FRAMES:
            del self._frames[next(iter(self._frames))]
        return frame


class GuardedConnection(ServerConnection):
    """A connection that may not send without end, and knows who is at its other end.

    Attributes:
        address: who that is, in front of any trusted proxy once :meth:`introduce` was called.
        authorized: whether the handshake named a right secret.
        on_room: called when the transport takes more again.
        on_answer: called when the other end has answered a :meth:`question`.
    """

    def __init__(self, door: Door, limits: Limits, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._door = door
        self._caller: Caller | None = None
        self._budget: ByteBudget | None = ByteBudget(limits, time.monotonic())
        self._method: bytes | None = None
        self._begun = b""  # of a request, until its method is known
        self._asked = b""
        self.address = ""
        self.authorized = False
        self.on_room: Callable[[], None] | None = None
        self.on_answer: Callable[[], None] | None = None

    @property
    def head(self) -> bool:
        """Whether headers alone are asked for."""
        return self._method == b"HEAD"

    @property
    def wants_websocket(self) -> bool:
        """Whether a WebSocket is asked for, rather than an answer."""
        return self.request is not None and not self.head and is_upgrade(self.request.headers)

    @property
    def reserved(self) -> bool:
        """Whether it is beyond the limits, and may only ask for health."""
        return self._caller is not None and self._caller.place.reserved

    def introduce(self, proxies: Proxies) -> bool:
        """Learn from the request who asks; False if too many connections are from there."""
        assert self.request is not None
        self.address = proxies.client(self.address, self.request.headers)
        return self._caller is None or self._caller.place.move(self.address)

    def stay(self) -> None:
        """The handshakes are done, and have no time limit any more."""
        if self._caller is not None:
            self._caller.stay()

    async def deliver(self, answer: Answer) -> None:
        """Answer the request and wait until the connection is closed, however slowly it is read.

        It is cut when the other end has taken nothing for half a minute.
        """
        if answer.status < HTTPStatus.BAD_REQUEST and not self.reserved:
            self.stay()
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # Linux
            raw = self.transport.get_extra_info("socket")
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        response = answer.response()
        if self.head:
            response.body = b""
        try:
            async with self._progress() as write:
                await write(response.serialize())
                if answer.pieces is not None and not self.head:
                    async with contextlib.aclosing(answer.pieces()) as pieces:
                        async for piece in pieces:
                            await write(piece)
        except (OSError, TimeoutError) as error:
            logger.debug("the answer for %s was given up: %r", self.address, error)
        finally:
            self.transport.abort()
            await self.wait_closed()

    @contextlib.asynccontextmanager
    async def _progress(self) -> AsyncIterator[Callable[[bytes], Awaitable[None]]]:
        """Write to the transport while the other end takes something now and then, and hang up.

        Raises TimeoutError if it does not, OSError if it has gone.
        """
        loop = asyncio.get_running_loop()
        handed = taken = 0
        ending = False
        timer = loop.call_later(_LOOK_S, lambda: look())

        async def write(data: bytes) -> None:
            nonlocal handed
            if self.transport.is_closing():
                raise ConnectionAbortedError
            handed += len(data)
            self.transport.write(data)
            await self.drain()

        def look() -> None:
            nonlocal taken, timer
            waiting = self.transport.get_write_buffer_size()
            if handed - waiting > taken or not (waiting or ending):
                limit.reschedule(loop.time() + _STALLED_S)
            taken = handed - waiting
            timer = loop.call_later(_LOOK_S, look)

        try:
            async with asyncio.timeout(_STALLED_S) as limit:
                yield write
                if self.transport.can_write_eof():
                    self.transport.write_eof()
                else:  # TLS, which shuts down for two seconds at most
                    while self.transport.get_write_buffer_size():
                        await asyncio.sleep(_FLUSH_LOOK_S)
                    self.transport.close()
                ending = True
                await self.wait_closed()
        finally:
            timer.cancel()

    @property
    def has_room(self) -> bool:
        """Whether what is sent now goes out, or nearly so."""
        return (
            not self.paused
            and self.state is WebSocketState.OPEN
            and not self.transport.is_closing()
        )

    def send_frames(self, frames: bytes) -> None:
        """Send whole frames, in one packet if they fit into one; only while it has room."""
        self.transport.write(frames)

    def question(self) -> bytes:
        """A ping: the library at the other end answers when all before it has been read."""
        self._asked = os.urandom(4)
        return bytes(Frame(Opcode.PING, self._asked).serialize(mask=False))

    def process_event(self, event: Event) -> None:
        """See whether it answers a :meth:`question`."""
        super().process_event(event)
        answer = event.data if isinstance(event, Frame) and event.opcode is Opcode.PONG else b""
        if self._asked and answer == self._asked and self.on_answer is not None:
            self._asked = b""
            self.on_answer()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Find the caller that the door let in, and its address."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else ""
        self._caller = self._door.caller(transport)

    def data_received(self, data: bytes) -> None:
        """Take what comes, within the limits and of methods that are answered."""
        if not self._may_send(len(data)):
            self.transport.abort()
        elif self._method is None:
            self._begin(data)
        elif self._method in _METHODS:
            super().data_received(data)

    def _begin(self, data: bytes) -> None:
        """Read the request line, which the library does not suit.

        It takes every request for a GET, hangs up on a body, and refuses HTTP/1.0, which old radios
        speak and which our answers suit.
        """
        self._begun += data
        method, space, _ = self._begun.partition(b" ")
        if not space and len(self._begun) <= _LONGEST_METHOD:
            return
        line, ended, rest = self._begun.partition(b"\n")
        if method in _METHODS and not ended and len(self._begun) <= _LONGEST_LINE:
            return
        begun, self._begun = self._begun, b""
        if method in _METHODS:
            self._method = method
            line = _OLD_VERSION.sub(b" HTTP/1.1\r", line).removeprefix(method)
            super().data_received(b"GET" + line + ended + rest)
        elif not _TOKEN.fullmatch(method):
            self._method = b"GET"  # nothing of HTTP, which the library finds out
            super().data_received(begun)
        else:
            self._method = method
            self.transport.write(METHOD_NOT_ALLOWED.response().serialize())
            if self.transport.can_write_eof():
                self.transport.write_eof()
            else:
                self.transport.close()

    def trust(self) -> None:
        """From now on it may send as much as a sender has to."""
        self._budget = None

    def _may_send(self, count: int) -> bool:
        if self._budget is None:
            return self.transport.get_write_buffer_size() <= _UNREAD_BYTES
        return self._budget.spend(count, time.monotonic())

    def resume_writing(self) -> None:
        """Tell that there is room again."""
        super().resume_writing()
        if self.on_room is not None:
            self.on_room()
