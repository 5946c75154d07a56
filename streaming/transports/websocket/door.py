"""Listening sockets whose connections count from the moment at which they are accepted."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import os
import socket
import time
from typing import Any, Final

from streaming.support.guard import Gate, Limits, Place
from streaming.support.sparse_log import SparseLog

__all__ = ["Caller", "Door", "listen_on"]

logger = logging.getLogger(__name__)

_AT_ONCE: Final = 512
"""The event loop sees to its other work after so many connections that were turned away."""
_REST_S: Final = 0.5
_NOT_HERE: Final = frozenset((errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT))
_EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class Caller(socket.socket):
    """An accepted connection: it has its place until it is closed, and not for ever.

    Unless it is told to :meth:`stay`, it is cut when the time for handshakes is over, however far
    its TLS or WebSocket handshake has come.
    """

    def __init__(self, accepted: socket.socket, door: Door, place: Place, time_s: float) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, accepted.detach())
        self.place = place
        self._door = door
        self._cutting = asyncio.get_running_loop().call_later(time_s, self.cut)
        door.callers[self.fileno()] = self

    @property
    def stays(self) -> bool:
        """Whether the handshakes are done."""
        return self._cutting.cancelled()

    def stay(self) -> None:
        """The handshakes are done."""
        self._cutting.cancel()

    def cut(self) -> None:
        """End it; the event loop finds the end, and closes it."""
        with contextlib.suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it, and give its place back."""
        if self._door.callers.get(self.fileno()) is self:
            del self._door.callers[self.fileno()]
            self._cutting.cancel()
            self.place.leave()
        super().close()


class Door:
    """Lets connections in as far as the gate has places.

    One too many is closed without an answer: to answer would be to work for whoever floods us.

    Attributes:
        callers: those that are open, by file descriptor.
    """

    def __init__(self, gate: Gate, limits: Limits) -> None:
        self._gate = gate
        self._limits = limits
        self.callers: dict[int, Caller] = {}
        self.exhausted = SparseLog(logger)

    def caller(self, transport: asyncio.BaseTransport) -> Caller | None:
        """The connection of ``transport``; None if it did not come in here."""
        return self.callers.get(transport.get_extra_info("socket").fileno())

    def admit(self, accepted: socket.socket, peer: Any) -> Caller | None:
        """The connection if there is a place for it; otherwise it is closed."""
        place = self._gate.enter(str(peer[0]) if peer else "")
        if place is None:
            accepted.close()
            return None
        limits = self._limits
        time_s = limits.reserve_s if place.reserved else limits.handshake_s
        return Caller(accepted, self, place, time_s)


class _Listening(socket.socket):
    """Hands out callers alone.

    It holds one file open that it does not need. When the process has no other left, it is closed
    for a moment, so that a connection can be accepted and closed: otherwise it would wait in the
    system's queue, and wake the event loop without end.
    """

    def __init__(self, family: int, protocol: int, door: Door) -> None:
        # By the protocol the event loop knows that small packets are not to wait (TCP_NODELAY).
        super().__init__(family, socket.SOCK_STREAM, protocol)
        self._door = door
        self._spare = os.open(os.devnull, os.O_RDONLY)
        self._rests_until_s = -math.inf

    def accept(self) -> tuple[socket.socket, Any]:
        for _ in range(0 if time.monotonic() < self._rests_until_s else _AT_ONCE):
            try:
                accepted, peer = super().accept()
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._turn_away(error)
                continue
            caller = self._door.admit(accepted, peer)
            if caller is not None:
                return caller, peer
        raise BlockingIOError

    def close(self) -> None:
        self._let_go()
        super().close()

    def _let_go(self) -> None:
        if self._spare >= 0:
            os.close(self._spare)
        self._spare = -1

    def _turn_away(self, error: OSError) -> None:
        """Accept and close one connection in spite of ``error``.

        Raises OSError if that fails: then the event loop leaves the socket alone for a second.
        """
        self._door.exhausted.warning(
            "connections are turned away, since the system has nothing left for them (%s)",
            error.strerror,
        )
        self._let_go()
        try:
            super().accept()[0].close()
        except OSError:
            self._rests_until_s = time.monotonic() + _REST_S
            raise
        finally:
            with contextlib.suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY)


async def listen_on(host: str, port: int, door: Door) -> list[socket.socket]:
    """Sockets bound to the addresses of ``host``, not listening yet; port 0 takes any free one.

    Raises:
        OSError: there is none.
        OverflowError: there can be no such port.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    bound: list[socket.socket] = []
    missing: OSError | None = None
    with contextlib.ExitStack() as unless_all_went_well:
        for family, _, protocol, _, address in dict.fromkeys(found):
            try:
                listening = _Listening(family, protocol, door)
                unless_all_went_well.callback(listening.close)
                if os.name == "posix":
                    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listening.bind((address[0], port, *address[2:]))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                missing = error  # such as ::1 of localhost on a machine without IPv6
            else:
                bound.append(listening)
                port = listening.getsockname()[1]
        if missing is not None and not bound:
            raise missing
        unless_all_went_well.pop_all()
    return bound
