"""A connection that holds off who would harm the server, and takes whole frames where it has room.

What a server sends is neither masked nor, here, compressed: a frame is made once and is the same
bytes for everybody. Such frames may stand between those that the library writes, since both are
whole and go to the transport at once.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any, Final

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import Event
from websockets.protocol import State as WebSocketState

from streaming.guard import ByteBudget, Gate, Limits

__all__ = ["Framing", "GuardedConnection"]

_UNREAD_BYTES: Final = 65_536
"""Of answers to the pings of one who may send without end, before it is cut off."""
_FRAMES: Final = 8


class Framing:
    """Makes frames of messages, and one frame of a message that goes to many in turn."""

    def __init__(self) -> None:
        self._frames: dict[str | bytes, bytes] = {}

    def frame(self, message: str | bytes) -> bytes:
        """The message, whole in one frame."""
        frame = self._frames.get(message)
        if frame is None:
            if isinstance(message, str):
                made = Frame(Opcode.TEXT, message.encode())
            else:
                made = Frame(Opcode.BINARY, message)
            frame = self._frames[message] = bytes(made.serialize(mask=False))
            if len(self._frames) > _FRAMES:
                del self._frames[next(iter(self._frames))]
        return frame


class GuardedConnection(ServerConnection):
    """A connection that counts at the gate from its first byte, and may not send without end.

    Attributes: ``authorized``, whether the handshake named a right secret; ``on_room``, called when
    the transport takes more again; ``on_answer``, called when the other end has answered a
    :meth:`question`.
    """

    def __init__(self, gate: Gate, limits: Limits, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._gate = gate
        self._budget: ByteBudget | None = ByteBudget(limits, time.monotonic())
        self._entered: str | None = None
        self._asked = b""
        self.authorized = False
        self.on_room: Callable[[], None] | None = None
        self.on_answer: Callable[[], None] | None = None

    @property
    def has_room(self) -> bool:
        """Whether what is sent now goes out, or nearly so."""
        return (
            not self.paused
            and self.protocol.state is WebSocketState.OPEN
            and not self.transport.is_closing()
        )

    def send_frames(self, frames: bytes) -> None:
        """Send whole frames, in one packet where they fit into one; only while it has room."""
        self.transport.write(frames)

    def question(self) -> bytes:
        """A ping: the library at the other end answers when all before it has been read."""
        self._asked = os.urandom(4)
        return bytes(Frame(Opcode.PING, self._asked).serialize(mask=False))

    def process_event(self, event: Event) -> None:
        super().process_event(event)
        answer = event.data if isinstance(event, Frame) and event.opcode is Opcode.PONG else b""
        if self._asked and answer == self._asked and self.on_answer is not None:
            self._asked = b""
            self.on_answer()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        address = str(peer[0]) if peer else ""
        if self._gate.enter(address):
            self._entered = address
        else:
            self.transport.abort()  # to answer would be to work for whoever floods us

    def data_received(self, data: bytes) -> None:
        if self._entered is not None and self._may_send(len(data)):
            super().data_received(data)
        else:
            self.transport.abort()

    def trust(self) -> None:
        """From now on it may send as much as a sender has to."""
        self._budget = None

    def _may_send(self, count: int) -> bool:
        if self._budget is None:
            return self.transport.get_write_buffer_size() <= _UNREAD_BYTES
        return self._budget.spend(count, time.monotonic())

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.on_room is not None:
            self.on_room()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._entered is not None:
            self._gate.leave(self._entered)
            self._entered = None
        super().connection_lost(exc)
