"""Serves a hub to listeners over WebSockets, and holds off who would harm it."""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request

from streaming.errors import ProtocolError, TransportError, reason_of
from streaming.stream.hub import Hub
from streaming.stream.listener_session import State
from streaming.stream.sender_session import NO_PUBLISHERS, SenderSession
from streaming.support.forwarded import Proxies
from streaming.support.guard import AuthTokens, Gate, Guesses, Limits
from streaming.support.http import (
    FULL_HOUSE,
    HEALTH,
    TOO_MANY_GUESSES,
    Answer,
    bearer,
    origin_hosts,
    origin_may,
    route,
    text,
)
from streaming.support.sparse_log import SparseLog
from streaming.transports.websocket.common import CLOSE_TIMEOUT_S, GOING_AWAY, NORMAL
from streaming.transports.websocket.common import peer as _peer
from streaming.transports.websocket.connection import GuardedConnection
from streaming.transports.websocket.door import listen_on
from streaming.transports.websocket.guarded import GuardedServer, Listen
from streaming.transports.websocket.writer import Turns, Writer
from streaming.wire.messages import MAX_CLIENT_MESSAGE, MAX_SERVER_MESSAGE, Failure, Publish
from streaming.wire.parsing import decode

if TYPE_CHECKING:
    from websockets.datastructures import Headers

    from streaming.transports.push.intake import Intake

__all__ = ["WebSocketServer"]

logger = logging.getLogger(__name__)

_WRITE_BUFFER_BYTES: Final = 4096
_SEND_BUFFER_BYTES: Final = 16_384
"""Small, so that a listener which stops reading shows as one that lags, not as a full kernel."""

_BACKLOG: Final = 512
"""So many may knock at once; who finds no place there comes again after a second."""

_PROTOCOL_ERROR: Final = 1002
_POLICY_VIOLATION: Final = 1008
_FAILURE_CODES: Final = {"protocol": _PROTOCOL_ERROR}
_TOO_MANY_GUESSES: Final = Failure("busy", TOO_MANY_GUESSES)


class Site(Protocol):
    """Answers plain requests; see :class:`streaming.web.site.Site`."""

    async def answer(self, path: str, headers: Headers, address: str) -> Answer:
        """What is at ``path``, for who asks from ``address``."""


class WebSocketServer:
    """Serves a hub on ``ws://host:port`` within ``async with``; port 0 takes any free one.

    Args:
        auth: who may listen; the secret comes in the join message or in the header
            ``Authorization: Bearer …``, never in the address, which gets logged.
        origins: web pages that may listen, such as ``https://radio.example``, besides our own.
        tls: makes it ``wss://``.
        intake: takes publishers, in whose stead nobody can be heard yet: until :meth:`present`,
            listeners are asked to come again.
        proxies: reverse proxies that say for whom they ask.
        listen: makes the sockets; in a simulated network, others.

    Attributes:
        site: answers requests that want no WebSocket; without one they get 426.
        names: hosts by which this server is known besides its addresses.
        guesses: slows down who names wrong secrets.

    Raises:
        TransportError: on entering, it cannot listen there.
    """

    def __init__(
        self,
        hub: Hub,
        host: str,
        port: int,
        clock: Callable[[], float] = time.monotonic,
        *,
        auth: AuthTokens | None = None,
        limits: Limits | None = None,
        origins: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
        intake: Intake | None = None,
        proxies: Proxies | None = None,
        listen: Listen = listen_on,
    ) -> None:
        self._intake = intake
        self._proxies = proxies or Proxies()
        self._silent = intake is not None
        self.site: Site | None = None
        self._hub = hub
        self._auth = auth or AuthTokens()
        self._limits = limits or Limits()
        self._origins = origins
        self.names = [host, *origin_hosts(origins)]
        self._tls = tls
        self.gate = Gate(self._limits, self._proxies.trusts)
        self.guesses = Guesses(clock=clock)
        self._host = host
        self._clock = clock
        self._server = GuardedServer(
            self.gate,
            self._limits,
            self._serve,
            self._answer,
            tls,
            listen,
            # The session refuses what is too long for a listener; a publisher may say more.
            max_size=MAX_CLIENT_MESSAGE if intake is None else MAX_SERVER_MESSAGE,
            max_queue=4,
            write_limit=_WRITE_BUFFER_BYTES,
            close_timeout=CLOSE_TIMEOUT_S,
            backlog=_BACKLOG,
        )
        self._turns: Turns | None = None
        self._wrong_secrets = SparseLog(logger)
        self._never_joined = SparseLog(logger)
        self.port = port

    @property
    def url(self) -> str:
        """Where listeners connect to."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'wss' if self._tls else 'ws'}://{host}:{self.port}"

    def figures(self) -> dict[str, Any]:
        """See :class:`streaming.transports.outlet.Running`."""
        return {
            "kind": "websocket",
            "listeners": self._hub.listeners,
            "connections": self.gate.open,
            "refused_connections": self.gate.refused,
        }

    async def failed(self) -> None:
        """It goes on for ever."""

    def present(self, hub: Hub | None) -> None:
        """From now on this is what those hear who come; None: they are asked to come again."""
        self._silent = hub is None
        self._hub = hub or self._hub

    async def __aenter__(self) -> WebSocketServer:
        self._turns = Turns()
        try:
            await self._server.open(self._host, self.port)
        except (OSError, OverflowError) as error:
            raise self._cannot_listen(error) from None
        self.port = self._server.port
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for connection in self._server.connections:
            _cut_later(connection)
        await self._server.close()

    async def drained(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Wait until all listeners have left, as they do after the end, or for ``timeout_s``."""
        deadline_s = self._clock() + timeout_s
        while self._hub.listeners and self._clock() < deadline_s:
            await asyncio.sleep(0.02)

    async def _answer(self, connection: GuardedConnection, request: Request) -> Answer | None:
        """Answer a plain request; None lets a WebSocket begin."""
        may_stay = connection.introduce(self._proxies) and not connection.reserved
        plain = not connection.wants_websocket
        if plain and self.site is not None and (may_stay or route(request.path) == HEALTH):
            return await self.site.answer(request.path, request.headers, connection.address)
        if not may_stay:
            return FULL_HOUSE
        if plain:
            return text(
                HTTPStatus.UPGRADE_REQUIRED, "Here are WebSockets alone.", Upgrade="websocket"
            )
        # No web page may listen in on somebody's sound input unless it is named or our own.
        if not origin_may(request.headers, self._origins, self.names):
            return text(HTTPStatus.FORBIDDEN, "This web page may not listen here.")
        return await self._authorize(connection, bearer(request.headers))

    async def _authorize(self, connection: GuardedConnection, given: str) -> Answer | None:
        """Check the header if there is one: a wrong secret gets no WebSocket at all."""
        if not self._auth or not given:
            return None
        if not await self.guesses.turn(connection.address):
            return text(HTTPStatus.TOO_MANY_REQUESTS, TOO_MANY_GUESSES)
        if not self._auth.admit(given):
            self._warn_of_secret(connection)
            return text(HTTPStatus.UNAUTHORIZED, "Wrong access token.")
        self.guesses.right(connection.address)
        connection.authorized = True
        return None

    def _warn_of_secret(self, connection: GuardedConnection) -> None:
        self._wrong_secrets.warning("listener %s has no right access token", _peer(connection))

    def _admit(self, connection: GuardedConnection, hub: Hub, auth_token: str) -> Failure | None:
        if not connection.authorized and not self._auth.admit(auth_token):
            self._warn_of_secret(connection)
            return Failure("auth", "This sender needs an access token, and yours is not right.")
        # Who connected before a stream was presented here would join what was here before.
        late = self._silent or hub is not self._hub
        return Failure("away", "Nobody publishes here yet.") if late else None

    def _admit_publisher(self, connection: GuardedConnection, publish: Publish) -> Failure | None:
        if self._intake is None:
            return NO_PUBLISHERS
        refusal = self._intake.admit(connection, publish)
        if refusal is None:
            connection.trust()
        return refusal

    async def _serve(self, connection: GuardedConnection) -> None:
        assert self._turns is not None
        hub = self._hub
        connection.stay()
        raw = connection.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux: a listener whose network has vanished
            unheard_ms = round(1000 * min(hub.max_lag_s, 3600.0))
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unheard_ms)
        closing: list[asyncio.Task[None]] = []

        def ended() -> None:
            session.leave()
            _cut_later(connection)
            closing.append(asyncio.create_task(connection.close(self._close_code(session))))

        writer = Writer(
            connection,
            hub,
            self._turns,
            self._clock,
            admit=functools.partial(self._admit, connection, hub),
            admit_publisher=functools.partial(self._admit_publisher, connection),
            on_end=ended,
            on_failure=functools.partial(_cut_later, connection),
        )
        session = writer.session
        try:
            joined = await self._read(connection, session)  # which ends with the connection
        finally:
            session.leave()
            writer.stop()
        if session.publishes and self._intake is not None:
            await self._intake.hold(connection)
            return
        if closing:
            await closing[0]
        failure = session.failure
        if joined:
            why = f": {failure.message}" if failure else ""
            logger.info("listener %s left%s", _peer(connection), why)
        elif failure and failure.code != "auth":
            self._never_joined.warning("%s did not join: %s", _peer(connection), failure.message)

    def _close_code(self, session: SenderSession) -> int:
        if session.failure is not None:
            return _FAILURE_CODES.get(session.failure.code, _POLICY_VIOLATION)
        return GOING_AWAY if self._hub.away else NORMAL

    async def _read(self, connection: GuardedConnection, session: SenderSession) -> bool:
        """Hand messages to the session while it stands; returns whether it has joined."""
        joined = False
        try:
            async for data in connection:
                if joined:
                    self._hear(session, data)
                    continue
                await self._receive_first(connection, session, data)
                if session.publishes:
                    return False
                joined = session.state is State.STREAMING
                if joined:
                    logger.info("listener %s joined", _peer(connection))
        except ConnectionClosed as closed:
            logger.debug("%s: %s", _peer(connection), closed)
        return joined

    async def _receive_first(
        self, connection: GuardedConnection, session: SenderSession, data: str | bytes
    ) -> None:
        """Hand on what may name a secret, when it is its turn."""
        secretive = bool(self._auth or self._intake)
        if secretive and not await self.guesses.turn(connection.address):
            session.refuse(_TOO_MANY_GUESSES)
            return
        self._hear(session, data)
        if secretive and (session.failure is None or session.failure.code != "auth"):
            self.guesses.right(connection.address)

    def _hear(self, session: SenderSession, data: str | bytes) -> None:
        """Hand a message to the session, or refuse what is none."""
        try:
            if len(data) > MAX_CLIENT_MESSAGE:
                raise ProtocolError(f"A first message of {len(data)} bytes is too long.")
            session.receive(decode(data), self._clock())
        except ProtocolError as error:
            session.refuse(Failure("protocol", str(error)))

    def _cannot_listen(self, error: OSError | OverflowError) -> TransportError:
        if isinstance(error, socket.gaierror):
            return TransportError(
                f"Cannot listen on the unknown host {self._host!r}; check --host."
            )
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            return TransportError(
                f"Port {self.port} is in use; stop what runs there or choose another with --port."
            )
        return TransportError(
            f"Cannot listen on {self._host} port {self.port} ({reason_of(error)}); choose others "
            "with --host and --port."
        )


def _cut_later(connection: ServerConnection) -> None:
    """Cut the connection unless it closes by itself soon: closing waits for slow readers."""
    asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, connection.transport.abort)
