"""Many listeners in one process, as light as can be: sockets, a selector, and arithmetic.

They join over WebSockets like any listener and note when each packet arrives; nothing is decoded.
"""

from __future__ import annotations

import base64
import os
import resource
import selectors
import socket
import struct
import time
from array import array
from dataclasses import dataclass
from typing import Final

from streaming.protocol import Join

__all__ = ["Arrivals", "Load", "frames", "masked"]

_BINARY: Final = 2
_CLOSE: Final = 8
_PING: Final = 9
_PONG: Final = 10
_TOKENS_HEADER: Final = struct.Struct(">BI")
_JOIN_PATIENCE_S: Final = 120.0


@dataclass
class Arrivals:
    """What the listeners of one process have got: three columns, a row a packet of one of them.

    count: how many listeners there are. cpu_s: what they took.
    """

    count: int
    listeners: array[int]
    packets: array[int]
    times_s: array[float]
    cpu_s: float


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


class _Listener:
    """One connection: what of it has been read and not understood yet, and how far it is."""

    __slots__ = ("held", "number", "open", "raw", "ready")

    def __init__(self, raw: socket.socket, number: int) -> None:
        self.raw = raw
        self.number = number
        self.held = b""
        self.open = False  # the handshake is over
        self.ready = False  # the hello has come


class Load:
    """``count`` listeners, and ``stuck`` more that join and then read nothing.

    joins_per_s: how fast they come. packet_tokens: tells packets apart by their first token.
    """

    def __init__(
        self, port: int, count: int, joins_per_s: float, stuck: int = 0, *, packet_tokens: int
    ) -> None:
        self.count = count
        self.ready = 0
        self.lost = 0
        self._port = port
        self._pause_s = 1 / joins_per_s
        self._stuck = stuck
        self._packet_tokens = packet_tokens
        self._selector = selectors.DefaultSelector()
        self._listeners = array("i")
        self._packets = array("i")
        self._times_s = array("d")
        self._cpu_from_s = _cpu_s()
        key = base64.b64encode(os.urandom(16)).decode()
        self._hello = (
            f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()
        self._join = masked(1, Join(history=0, client="fanout").encode().encode())

    def join_all(self) -> None:
        """Connect one after the other, and wait until all have been welcomed."""
        due_s = time.monotonic()
        for number in range(self.count + self._stuck):
            while (left_s := due_s - time.monotonic()) > 0:
                self.turn(left_s)
            due_s += self._pause_s
            self._connect(number)
        deadline_s = time.monotonic() + _JOIN_PATIENCE_S
        while self.ready + self.lost < self.count + self._stuck:
            if time.monotonic() > deadline_s:
                break
            self.turn(0.1)
        self._cpu_from_s = _cpu_s()

    def turn(self, timeout_s: float) -> None:
        """Read what has come."""
        for key, _ in self._selector.select(timeout_s):
            self._read(key.data)

    def arrivals(self) -> Arrivals:
        """What has come so far."""
        cpu_s = _cpu_s() - self._cpu_from_s
        return Arrivals(self.count, self._listeners, self._packets, self._times_s, cpu_s)

    def _connect(self, number: int) -> None:
        raw = socket.create_connection(("127.0.0.1", self._port))
        raw.setblocking(False)
        raw.send(self._hello)
        self._selector.register(raw, selectors.EVENT_READ, _Listener(raw, number))

    def _read(self, listener: _Listener) -> None:
        try:
            data = listener.raw.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        now_s = time.monotonic()
        if not data:
            self._lose(listener)
            return
        listener.held += data
        if not listener.open:
            head, end, rest = listener.held.partition(b"\r\n\r\n")
            if not end:
                return
            if b" 101 " not in head.split(b"\r\n", 1)[0]:
                self._lose(listener)
                return
            listener.open, listener.held = True, rest
            listener.raw.send(self._join)
        found, listener.held = frames(listener.held)
        for opcode, payload in found:
            if opcode == _BINARY:
                _, first_token = _TOKENS_HEADER.unpack_from(payload)
                self._listeners.append(listener.number)
                self._packets.append(first_token // self._packet_tokens)
                self._times_s.append(now_s)
            elif opcode == _PING:
                listener.raw.send(masked(_PONG, payload))
            elif opcode == _CLOSE:
                self._lose(listener)
                return
            elif not listener.ready:
                listener.ready = True
                self.ready += 1
                if listener.number >= self.count:
                    self._selector.unregister(listener.raw)  # from now on it reads nothing
                    return

    def _lose(self, listener: _Listener) -> None:
        self.lost += 1
        self._selector.unregister(listener.raw)
        listener.raw.close()


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
