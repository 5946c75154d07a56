"""A WebSocket server that counts its connections from accept() on, for pages and for streams."""

from __future__ import annotations

import functools
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from streaming.support.forwarded import Proxies
from streaming.support.guard import Gate, Limits, is_loopback
from streaming.support.http import Answer
from streaming.transports.websocket.common import library_logger
from streaming.transports.websocket.connection import GuardedConnection
from streaming.transports.websocket.door import Door, listen_on

__all__ = ["GuardedServer", "warn_of_strangers"]

logger = logging.getLogger(__name__)

Listen = Callable[[str, int, Door], Awaitable[Sequence[socket.socket]]]
"""See :func:`streaming.transports.websocket.door.listen_on`."""


class GuardedServer:
    """Serves all addresses of a host, with one gate before them.

    Args:
        gate: counts the connections.
        handler: serves a WebSocket.
        answer: what a request gets; None lets a WebSocket begin.
        listen: makes the sockets; in a simulated network, others.
        options: of the library's ``serve``, except for what is said here.

    Attributes:
        port: once it is open.
    """

    def __init__(
        self,
        gate: Gate,
        limits: Limits,
        handler: Callable[[GuardedConnection], Awaitable[None]],
        answer: Callable[[GuardedConnection, Request], Awaitable[Answer | None]],
        tls: ssl.SSLContext | None = None,
        listen: Listen = listen_on,
        **options: Any,
    ) -> None:
        self._door = Door(gate, limits)
        self._listen = listen
        self._answer = answer
        self._answering: set[GuardedConnection] = set()
        self._servers: list[Server] = []
        self.port = 0
        self._serve = functools.partial(
            serve,
            cast(Callable[[ServerConnection], Awaitable[None]], handler),
            compression=None,
            create_connection=cast(
                type[ServerConnection], functools.partial(GuardedConnection, self._door, limits)
            ),
            process_request=cast(
                Callable[[ServerConnection, Request], Awaitable[Response | None]], self._respond
            ),
            open_timeout=None,  # the door has one; answers take as long as they are read
            ssl_handshake_timeout=limits.handshake_s if tls else None,
            ping_interval=None,
            logger=library_logger,
            server_header=None,
            ssl=tls,
            **options,
        )

    @property
    def connections(self) -> set[ServerConnection]:
        """Those whose handshake is done."""
        return {connection for server in self._servers for connection in server.connections}

    async def open(self, host: str, port: int) -> None:
        """Listen; port 0 takes any free one. Raises OSError or OverflowError."""
        listening = list(await self._listen(host, port, self._door))
        self.port = listening[0].getsockname()[1]
        try:
            while listening:
                self._servers.append(await self._serve(sock=listening[0]))
                del listening[0]
        except BaseException:
            for one in listening:
                one.close()
            await self.close()
            raise

    async def close(self) -> None:
        """Listen no longer, close all WebSockets, and cut what only begins or is being answered."""
        for server in self._servers:
            server.close()
        for caller in list(self._door.callers.values()):
            if not caller.stays:
                caller.cut()
        for connection in self._answering:
            connection.transport.abort()
        for server in self._servers:
            await server.wait_closed()

    async def _respond(self, connection: GuardedConnection, request: Request) -> Response | None:
        """Answer in the library's stead, which gives an answer two seconds to be read."""
        self._answering.add(connection)
        try:
            answer = await self._answer(connection, request)
            if answer is None:
                return None
            await connection.deliver(answer)
            return answer.response()  # which nobody gets: the connection is closed
        finally:
            self._answering.discard(connection)


def warn_of_strangers(
    host: str, proxies: Proxies, tls: ssl.SSLContext | None, *, keep_out: str, secretive: bool
) -> None:
    """Say what is open to whoever can reach ``host``, or the proxy before it.

    Args:
        keep_out: the option that lets in only some; empty if it was given.
        secretive: whether tokens are named.
    """
    here_alone = is_loopback(host)
    if keep_out and (proxies or not here_alone):
        logger.warning(
            "everybody who can reach %s can listen: %s keeps others out",
            "the proxy" if here_alone else host,
            keep_out,
        )
    if tls is None and secretive and not here_alone:
        logger.warning("access tokens travel in the clear: --tls-cert encrypts them")
