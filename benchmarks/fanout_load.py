"""Listeners that join over WebSockets like any other and decode nothing."""

from __future__ import annotations

import base64
import os
import struct
from typing import Final

from benchmarks.crowd import Crowd, Member
from streaming.wire.messages import Join

__all__ = ["Load", "frames", "masked"]

_BINARY: Final = 2
_CLOSE: Final = 8
_PING: Final = 9
_PONG: Final = 10
_TOKENS_HEADER: Final = struct.Struct(">BI")


def masked(opcode: int, payload: bytes) -> bytes:
    """A frame from a client, at most 65535 bytes long; the mask is one that changes nothing."""
    size = len(payload)
    head = (
        bytes([0x80 | opcode, 0x80 | size])
        if size < 126
        else struct.pack(">BBH", 0x80 | opcode, 0x80 | 126, size)
    )
    return head + bytes(4) + payload


def frames(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The whole frames at the beginning of what a server sent, opcode and payload; and the rest."""
    found = []
    place = 0
    while len(data) - place >= 2:
        size, start = data[place + 1] & 0x7F, place + 2
        if size == 126:
            if len(data) - start < 2:
                break
            size, start = int.from_bytes(data[start : start + 2], "big"), start + 2
        elif size == 127:
            raise ValueError("no message of ours is as long as that")
        if len(data) - start < size:
            break
        found.append((data[place] & 0x0F, data[start : start + size]))
        place = start + size
    return found, data[place:]


class Load(Crowd):
    """``count`` listeners of the WebSocket server on ``port``, see :class:`Crowd`."""

    def __init__(
        self, port: int, count: int, joins_per_s: float, stuck: int = 0, *, packet_tokens: int
    ) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        greeting = (
            f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()
        super().__init__(port, greeting, count, joins_per_s, stuck, packet_tokens=packet_tokens)
        self._join = masked(1, Join(history=0, client="fanout").encode().encode())

    def take(self, listener: Member, data: bytes, now_s: float) -> None:
        """Note when a packet came; anything else is passed over."""
        if listener.ready and not listener.held and _is_one_packet(data):
            self.note(listener, _TOKENS_HEADER.unpack_from(data, 2)[1], now_s)  # nearly always
            return
        listener.held += data
        if not listener.open:
            head, end, rest = listener.held.partition(b"\r\n\r\n")
            if not end:
                return
            if b" 101 " not in head.split(b"\r\n", 1)[0]:
                self.lose(listener)
                return
            listener.open, listener.held = True, rest
            listener.raw.send(self._join)
        found, listener.held = frames(listener.held)
        for opcode, payload in found:
            if opcode == _BINARY:
                self.note(listener, _TOKENS_HEADER.unpack_from(payload)[1], now_s)
            elif opcode == _PING:
                listener.raw.send(masked(_PONG, payload))
            elif opcode == _CLOSE:
                self.lose(listener)
                return
            elif not listener.ready:
                self.welcome(listener, now_s)
                if listener.number >= self.count:
                    return


def _is_one_packet(data: bytes) -> bool:
    """Whether these are the bytes of one short binary frame and no more."""
    return data[0] == 0x80 | _BINARY and data[1] < 126 and len(data) == 2 + data[1]
