"""What both ends of a WebSocket share."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterator
from typing import Final

from websockets.asyncio.connection import Connection

__all__ = [
    "CLOSE_TIMEOUT_S",
    "GOING_AWAY",
    "NORMAL",
    "TOO_BIG",
    "library_logger",
    "one_packet",
    "peer",
]

# The library reports every port scan with a traceback: of use only to whoever debugs it.
library_logger = logging.getLogger("streaming.transports.websocket.library")
library_logger.setLevel(logging.CRITICAL)

CLOSE_TIMEOUT_S: Final = 2.0
"""Time for the last message and the closing handshake; then the connection is cut."""

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
TOO_BIG: Final = 1009


def peer(connection: Connection) -> str:
    """Address and port of the other end, and behind a trusted proxy who that asks for."""
    address = connection.remote_address
    if not address:
        return "(gone)"
    told = getattr(connection, "address", address[0])
    through = f"{address[0]}:{address[1]}"
    return through if told == address[0] else f"{told} through {through}"


@contextlib.contextmanager
def one_packet(connection: Connection) -> Iterator[None]:
    """Have the system put what is sent meanwhile into one packet: headers are the larger part."""
    raw = connection.transport.get_extra_info("socket")
    cork = getattr(socket, "TCP_CORK", None)  # Linux
    if raw is None or cork is None:
        yield
        return
    raw.setsockopt(socket.IPPROTO_TCP, cork, 1)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # closed meanwhile
            raw.setsockopt(socket.IPPROTO_TCP, cork, 0)
