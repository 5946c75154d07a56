"""Many listeners in one process, as light as can be: sockets, epoll, and arithmetic.

They join over WebSockets like any listener and note when each packet arrives; nothing is decoded.
Between two looks at its sockets the process rests for some milliseconds, so that it looks at many
at once: on a machine that the server shares, waking it for every packet would be most of the work.
The rest counts as delay.
"""

from __future__ import annotations

import base64
import os
import resource
import select
import socket
import struct
import time
from array import array
from collections.abc import Callable
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
_REST_S: Final = 0.004


@dataclass
class Arrivals:
    """What the listeners of one process have got: three columns, a row a packet of one of them.

    count: how many listeners there are. cpu_s: computing since all had joined. joined_s: time from
    the first call to the last welcome. welcomes_s: of each listener, from its call to its welcome.
    """

    count: int
    listeners: array[int]
    packets: array[int]
    times_s: array[float]
    cpu_s: float
    joined_s: float
    welcomes_s: array[float]


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

    __slots__ = ("called_s", "held", "number", "open", "raw", "ready")

    def __init__(self, raw: socket.socket, number: int, called_s: float) -> None:
        self.raw = raw
        self.number = number
        self.called_s = called_s
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
        self._epoll = select.epoll()
        self._by_file: dict[int, _Listener] = {}
        self._listeners = array("i")
        self._packets = array("i")
        self._times_s = array("d")
        self._welcomes_s = array("d")
        self._joined_s = 0.0
        self._cpu_from_s = _cpu_s()
        key = base64.b64encode(os.urandom(16)).decode()
        self._hello = (
            f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()
        self._join = masked(1, Join(history=0, client="fanout").encode().encode())

    def join_all(self) -> None:
        """Connect one after the other, and wait until all have been welcomed."""
        began_s = due_s = time.monotonic()
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
        self._joined_s = time.monotonic() - began_s
        self._cpu_from_s = _cpu_s()

    def turn(self, timeout_s: float) -> None:
        """Wait until something has come, for ``timeout_s`` at most, and read it."""
        for file, _ in self._epoll.poll(timeout_s):
            self._read(self._by_file[file])

    def run(self, stop: Callable[[], bool]) -> None:
        """Read what comes until ``stop``."""
        while not stop():
            self.turn(0.05)
            time.sleep(_REST_S)
        self.turn(0.0)

    def arrivals(self) -> Arrivals:
        """What has come so far."""
        cpu_s = _cpu_s() - self._cpu_from_s
        return Arrivals(
            self.count,
            self._listeners,
            self._packets,
            self._times_s,
            cpu_s,
            self._joined_s,
            self._welcomes_s,
        )

    def _connect(self, number: int) -> None:
        called_s = time.monotonic()
        raw = socket.create_connection(("127.0.0.1", self._port))
        raw.setblocking(False)
        raw.send(self._hello)
        self._by_file[raw.fileno()] = _Listener(raw, number, called_s)
        self._epoll.register(raw.fileno(), select.EPOLLIN)

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
        if listener.ready and not listener.held and _is_one_packet(data):
            self._note(listener, data, 2, now_s)  # nearly always
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
            try:
                listener.raw.send(self._join)
            except OSError:
                self._lose(listener)
                return
        found, listener.held = frames(listener.held)
        for opcode, payload in found:
            if opcode == _BINARY:
                self._note(listener, payload, 0, now_s)
            elif opcode == _PING:
                try:
                    listener.raw.send(masked(_PONG, payload))
                except OSError:
                    self._lose(listener)
                    return
            elif opcode == _CLOSE:
                self._lose(listener)
                return
            elif not listener.ready:
                listener.ready = True
                self.ready += 1
                self._welcomes_s.append(now_s - listener.called_s)
                if listener.number >= self.count:
                    self._epoll.unregister(listener.raw.fileno())  # it reads nothing from now on
                    return

    def _note(self, listener: _Listener, data: bytes, at: int, now_s: float) -> None:
        _, first_token = _TOKENS_HEADER.unpack_from(data, at)
        self._listeners.append(listener.number)
        self._packets.append(first_token // self._packet_tokens)
        self._times_s.append(now_s)

    def _lose(self, listener: _Listener) -> None:
        self.lost += 1
        file = listener.raw.fileno()
        self._epoll.unregister(file)
        del self._by_file[file]
        listener.raw.close()


def _is_one_packet(data: bytes) -> bool:
    """Whether these are the bytes of one short binary frame and no more."""
    return data[0] == 0x80 | _BINARY and data[1] < 126 and len(data) == 2 + data[1]


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
