"""WebSocket adapters: they move messages between connections and sessions, nothing more.

No compression (tokens do not compress), and keepalive pings once a minute from the server alone:
at 350 bit/s every byte counts. A listener that does not answer a ping in time is disconnected.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, cast

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websocket_connect
from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as websocket_serve
from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException
from websockets.http11 import Request, Response

from streaming.errors import ProtocolError, RefusedError, TransportError
from streaming.guard import AuthTokens, ByteBudget, Gate, Limits
from streaming.hub import Hub
from streaming.protocol import MAX_CLIENT_MESSAGE, MAX_SERVER_MESSAGE
from streaming.session import SenderSession, State
from streaming.stats import PING_INTERVAL_S
from streaming.web.http import is_upgrade, origin_hosts, origin_may, text

if TYPE_CHECKING:
    from streaming.web.site import Site

__all__ = ["Connection", "WebSocketServer", "connect"]

logger = logging.getLogger(__name__)

# The library reports every port scan with a traceback: of use only to whoever debugs it.
_library_logger = logging.getLogger(f"{__name__}.library")
_library_logger.setLevel(logging.CRITICAL)

_PING_TIMEOUT_S: Final = 30.0
SILENCE_S: Final = 15.0
"""Eight packets of the default preset: unlikely on a connection that stands."""
_PONG_TIMEOUT_S: Final = 10.0
_CLOSE_TIMEOUT_S: Final = 2.0
"""Time for the last message and the closing handshake; then the connection is cut."""
_WRITE_BUFFER_BYTES: Final = 4096
_SEND_BUFFER_BYTES: Final = 16_384
"""Small, so that a listener which stops reading shows as one that lags, not as a full kernel."""

_NORMAL: Final = 1000
_GOING_AWAY: Final = 1001
_PROTOCOL_ERROR: Final = 1002
_POLICY_VIOLATION: Final = 1008
_TOO_BIG: Final = 1009
_FAILURE_CODES: Final = {"protocol": _PROTOCOL_ERROR}


class _GuardedConnection(ServerConnection):
    """A connection that counts at the gate from its first byte, and may not send without end."""

    def __init__(self, gate: Gate, limits: Limits, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._gate = gate
        self._budget = ByteBudget(limits, time.monotonic())
        self._entered: str | None = None
        self.authorized = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        address = str(peer[0]) if peer else ""
        if self._gate.enter(address):
            self._entered = address
        else:
            self.transport.abort()  # to answer would be to work for whoever floods us

    def data_received(self, data: bytes) -> None:
        if self._entered is not None and self._budget.spend(len(data), time.monotonic()):
            super().data_received(data)
        else:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._entered is not None:
            self._gate.leave(self._entered)
            self._entered = None
        super().connection_lost(exc)


class WebSocketServer:
    """Serves a hub on ``ws://host:port`` within ``async with``; port 0 takes any free one.

    Args:
        auth: who may listen; the secret comes in the join message or in the header
            ``Authorization: Bearer …``, never in the address, which gets logged.
        origins: web pages that may listen, such as ``https://radio.example``, besides our own.
        tls: makes it ``wss://``.

    Attributes: ``site``, which answers requests that want no WebSocket; without one they get 426.

    Raises TransportError where it cannot listen there.
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
    ) -> None:
        self.site: Site | None = None
        self._hub = hub
        self._auth = auth or AuthTokens()
        self._limits = limits or Limits()
        self._origins = origins
        self._names = [host, *origin_hosts(origins)]
        self._tls = tls
        self.gate = Gate(self._limits)
        self._host = host
        self._clock = clock
        self._server: Server | None = None
        self.port = port
        self.join_timeout_s: float | None = None

    @property
    def url(self) -> str:
        """Where listeners connect to."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'wss' if self._tls else 'ws'}://{host}:{self.port}"

    async def __aenter__(self) -> WebSocketServer:
        try:
            self._server = await websocket_serve(
                self._serve,
                self._host,
                self.port,
                compression=None,
                process_request=self._answer,
                create_connection=cast(
                    type[ServerConnection],
                    functools.partial(_GuardedConnection, self.gate, self._limits),
                ),
                open_timeout=self._limits.handshake_s,
                ssl=self._tls,
                max_size=MAX_CLIENT_MESSAGE,
                max_queue=4,
                write_limit=_WRITE_BUFFER_BYTES,
                ping_interval=PING_INTERVAL_S,
                ping_timeout=min(_PING_TIMEOUT_S, self._hub.max_lag_s),
                close_timeout=_CLOSE_TIMEOUT_S,
                logger=_library_logger,
                server_header=None,
            )
        except (OSError, OverflowError) as error:
            raise self._cannot_listen(error) from None
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        for connection in list(self._server.connections):
            _cut_later(connection)
        self._server.close()
        await self._server.wait_closed()

    async def drained(self, timeout_s: float = _CLOSE_TIMEOUT_S) -> None:
        """Wait until all listeners have left, as they do after the end, or for ``timeout_s``."""
        deadline_s = self._clock() + timeout_s
        while self._hub.listeners and self._clock() < deadline_s:
            await asyncio.sleep(0.02)

    async def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer a plain request; None lets a WebSocket begin."""
        if self.site is not None and not is_upgrade(request.headers):
            return (await self.site.answer(request.path, request.headers)).response()
        # No web page may listen in on somebody's sound input unless it is named or our own.
        if not origin_may(request.headers, self._origins, self._names):
            return text(HTTPStatus.FORBIDDEN, "This web page may not listen here.").response()
        return self._authorize(connection, request)

    def _authorize(self, connection: ServerConnection, request: Request) -> Response | None:
        """Check the header where there is one: a wrong secret gets no WebSocket at all."""
        assert isinstance(connection, _GuardedConnection)
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        if self._auth and kind.lower() == "bearer":
            if not self._auth.admit(given.strip()):
                logger.warning("listener %s has a wrong access token", _peer(connection))
                return connection.respond(HTTPStatus.UNAUTHORIZED, "Wrong access token.\n")
            connection.authorized = True
        return None

    def _admit(self, connection: ServerConnection, auth_token: str) -> bool:
        assert isinstance(connection, _GuardedConnection)
        if connection.authorized or self._auth.admit(auth_token):
            return True
        logger.warning("listener %s has no right access token", _peer(connection))
        return False

    async def _serve(self, connection: ServerConnection) -> None:
        raw = connection.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux: a listener whose network has vanished
            unheard_ms = round(1000 * min(self._hub.max_lag_s, 3600.0))
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unheard_ms)
        wake = asyncio.Event()

        def woken() -> None:
            wake.set()
            if session.failure is not None:
                _cut_later(connection)  # the writer may be stuck in a send that never ends

        admit = functools.partial(self._admit, connection)
        session = SenderSession(self._hub, self._clock(), woken, admit)
        reader = asyncio.create_task(self._read(connection, session))
        writer = asyncio.create_task(self._write(connection, session, wake))
        try:
            await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
            if session.state is State.ENDED:
                await writer
        finally:
            session.leave()
            reader.cancel()
            writer.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)
        failure = session.failure
        logger.info(
            "listener %s left%s", _peer(connection), f": {failure.message}" if failure else ""
        )
        code = _NORMAL if failure is None else _FAILURE_CODES.get(failure.code, _POLICY_VIOLATION)
        _cut_later(connection)
        await connection.close(code)

    async def _read(self, connection: ServerConnection, session: SenderSession) -> None:
        try:
            async for data in connection:
                before = session.state
                session.receive(data, self._clock())
                if before is State.JOINING and session.state is State.STREAMING:
                    logger.info("listener %s joined", _peer(connection))
        except ConnectionClosed as closed:
            logger.debug("%s: %s", _peer(connection), closed)

    async def _write(
        self, connection: ServerConnection, session: SenderSession, wake: asyncio.Event
    ) -> None:
        try:
            while True:
                wake.clear()
                while (message := session.take()) is not None:
                    await connection.send(message)
                if session.state is State.ENDED:
                    return
                timeout_s = None
                if session.state is State.JOINING:
                    timeout_s = max(0.0, session.join_deadline_s - self._clock())
                try:
                    await asyncio.wait_for(wake.wait(), timeout_s)
                except (TimeoutError, asyncio.TimeoutError):  # two classes until Python 3.11
                    session.tick(self._clock())
        except ConnectionClosed as closed:
            logger.debug("%s: %s", _peer(connection), closed)

    def _cannot_listen(self, error: OSError | OverflowError) -> TransportError:
        if isinstance(error, socket.gaierror):
            return TransportError(
                f"Cannot listen on the unknown host {self._host!r}; check --host."
            )
        number = error.errno if isinstance(error, OSError) else None
        if number == errno.EADDRINUSE:
            return TransportError(
                f"Port {self.port} is in use; stop what runs there or choose another with --port."
            )
        reason = os.strerror(number) if number else str(error)
        return TransportError(
            f"Cannot listen on {self._host} port {self.port} ({reason}); choose others with "
            "--host and --port."
        )


class Connection:
    """A listener's connection: :meth:`send`, and ``async for`` over the messages that arrive.

    The iteration ends when the sender closes in good order; it raises TransportError where the
    connection breaks and ProtocolError where a message is too long. Use within ``async with``.
    """

    def __init__(self, connection: ClientConnection, url: str, silence_s: float) -> None:
        self._connection = connection
        self._url = url
        self._silence_s = silence_s

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def send(self, message: str | bytes) -> None:
        """Send one message. Raises TransportError where the connection is gone."""
        try:
            await self._connection.send(message)
        except ConnectionClosed as closed:
            raise self._broken(closed) from None

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        try:
            while True:
                try:
                    yield await asyncio.wait_for(self._connection.recv(), self._silence_s)
                except (TimeoutError, asyncio.TimeoutError):  # two classes until Python 3.11
                    await self._check()
        except ConnectionClosed as closed:
            received = closed.rcvd.code if closed.rcvd else None
            if received not in (_NORMAL, _GOING_AWAY):
                raise self._broken(closed) from None

    async def _check(self) -> None:
        """A connection whose other end has vanished looks as one on which nothing is said: ask."""
        pong = await self._connection.ping()
        try:
            await asyncio.wait_for(pong, _PONG_TIMEOUT_S)
        except (TimeoutError, asyncio.TimeoutError):
            self._connection.transport.abort()
            raise TransportError(
                f"{self._url} does not answer any more; start the listener again."
            ) from None

    async def close(self) -> None:
        """Close in good order, within two seconds."""
        await self._connection.close()

    def _broken(self, closed: ConnectionClosed) -> TransportError | ProtocolError:
        if closed.sent is not None and closed.sent.code == _TOO_BIG:
            return ProtocolError(
                f"What {self._url} sends is longer than any message of ours; check the address."
            )
        return TransportError(f"The connection to {self._url} broke; start the listener again.")


async def connect(
    url: str,
    timeout_s: float = 10.0,
    silence_s: float = SILENCE_S,
    tls: ssl.SSLContext | None = None,
) -> Connection:
    """Connect to a sender. Raises TransportError with one sentence where that fails.

    silence_s: after so long without a message the sender is asked whether it is still there.
    tls: for ``wss://``, see :mod:`streaming.tls`.
    """
    try:
        connection = await websocket_connect(
            url,
            compression=None,
            ssl=tls,
            max_size=MAX_SERVER_MESSAGE,
            open_timeout=timeout_s,
            ping_interval=None,
            close_timeout=_CLOSE_TIMEOUT_S,
            logger=_library_logger,
            user_agent_header=None,
        )
    except ssl.SSLCertVerificationError as error:  # a ValueError as well
        raise TransportError(
            f"The certificate of {url} cannot be trusted ({error.verify_message}); name its issuer "
            "with --ca."
        ) from None
    except (ssl.SSLError, ConnectionResetError, ConnectionAbortedError) as error:
        if tls is None:
            raise TransportError(_unreachable(url, error)) from None
        raise TransportError(f"What answers at {url} speaks no TLS; try ws:// instead.") from None
    except (InvalidURI, ValueError):
        raise TransportError(
            f"{url!r} is not the address of a sender; write ws://HOST:PORT."
        ) from None
    except InvalidStatus as error:
        raise _turned_away(url, error.response.status_code) from None
    except WebSocketException:
        raise TransportError(
            f"What answers at {url} is no WebSocket server; check host and port."
        ) from None
    except (TimeoutError, asyncio.TimeoutError):
        raise TransportError(
            f"{url} did not answer within {timeout_s:.0f} s; check host and port."
        ) from None
    except socket.gaierror:
        raise TransportError(f"The host in {url} is unknown; check its spelling.") from None
    except OSError as error:
        raise TransportError(_unreachable(url, error)) from None
    return Connection(connection, url, silence_s)


def _turned_away(url: str, status: int) -> TransportError | RefusedError:
    if status == HTTPStatus.UNAUTHORIZED:
        return RefusedError("auth", "This sender needs an access token, and yours is not right.")
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        return TransportError(f"{url} takes no more listeners just now; try again later.")
    return TransportError(
        f"What answers at {url} is no WebSocket server for us (status {status}); check the address."
    )


def _unreachable(url: str, error: OSError) -> str:
    # Several addresses of one host may have been tried: then there is no single number.
    if isinstance(error, ConnectionRefusedError) or "Connect call failed" in str(error):
        return f"Nothing listens at {url}; start the server first, or check host and port."
    reason = os.strerror(error.errno) if error.errno else str(error)
    return f"Cannot connect to {url} ({reason}); check host, port and network."


def _cut_later(connection: ServerConnection) -> None:
    """Cut the connection unless it closes by itself soon: closing waits for slow readers."""
    asyncio.get_running_loop().call_later(_CLOSE_TIMEOUT_S, connection.transport.abort)


def _peer(connection: ServerConnection) -> str:
    address = connection.remote_address
    return f"{address[0]}:{address[1]}" if address else "(gone)"
