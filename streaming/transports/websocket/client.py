"""A listener's connection to a sender, or a publisher's to a relay, each fault in one sentence."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from types import TracebackType
from typing import Final
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websocket_connect
from websockets.asyncio.connection import Connection as WebSocket
from websockets.exceptions import (
    ConnectionClosed,
    InvalidProxy,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidURI,
    ProxyError,
    WebSocketException,
)

from streaming.errors import ProtocolError, RefusedError, TransportError, reason_of
from streaming.support.guard import is_loopback
from streaming.support.status_line import printable
from streaming.transports.websocket.common import (
    CLOSE_TIMEOUT_S,
    GOING_AWAY,
    NORMAL,
    TOO_BIG,
    library_logger,
    one_packet,
)
from streaming.wire.messages import MAX_SERVER_MESSAGE, Message
from streaming.wire.parsing import decode

__all__ = ["SILENCE_S", "TIMEOUT_S", "Connection", "check_address", "connect"]

SILENCE_S: Final = 15.0
"""Eight packets of the default preset: unlikely on a connection that stands."""
TIMEOUT_S: Final = 20.0
"""For connecting, and for an answer, on any usual link; a slow one takes longer."""

_UNREAD_BYTES: Final = 2 * MAX_SERVER_MESSAGE
_REDIRECTS: Final = frozenset({300, 301, 302, 303, 307, 308})


class Connection:
    """A listener's connection: :meth:`send`, and ``async for`` over the messages that arrive.

    The iteration ends when the sender closes in good order. Use within ``async with``.

    Args:
        url: what the other end is called.
        silence_s, timeout_s: see :func:`connect`.

    Raises:
        TransportError: while iterating, the connection breaks.
        ProtocolError: while iterating, on what is no message of ours or too long.
    """

    def __init__(
        self,
        connection: WebSocket,
        url: str,
        silence_s: float | None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._connection = connection
        self._url = url
        self._silence_s = silence_s
        self._timeout_s = timeout_s

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def send(self, message: Message) -> None:
        """Send one message. Raises TransportError if the connection is gone."""
        try:
            await self._connection.send(message.encode())
        except ConnectionClosed as closed:
            raise self._broken(closed) from None

    async def __aiter__(self) -> AsyncIterator[Message]:
        async for data in self.received():
            yield decode(data)

    async def received(self) -> AsyncIterator[str | bytes]:
        """The same as it comes in, for who counts its bytes before reading it."""
        try:
            while True:
                try:
                    async with asyncio.timeout(self._silence_s):
                        message = await self._connection.recv()
                except TimeoutError:
                    await self._check()
                else:
                    yield message
        except ConnectionClosed as closed:
            received = closed.rcvd.code if closed.rcvd else None
            if received not in (NORMAL, GOING_AWAY):
                raise self._broken(closed) from None

    def one_packet(self) -> contextlib.AbstractContextManager[None]:
        """What is sent within goes out together: headers are the larger part."""
        return one_packet(self._connection)

    async def ask(self, patience_s: float, answered: Callable[[], None]) -> None:
        """Have ``answered`` called when the other end has read all that was sent so far.

        Args:
            patience_s: if it takes longer, the connection is cut.

        Raises:
            TransportError: the connection is gone.
        """
        try:
            pong = asyncio.ensure_future(await self._connection.ping())
        except ConnectionClosed as closed:
            raise self._broken(closed) from None
        cutting = asyncio.get_running_loop().call_later(patience_s, self.abort)

        def done(pong: asyncio.Future[float]) -> None:
            cutting.cancel()
            if not pong.cancelled() and pong.exception() is None:
                answered()

        pong.add_done_callback(done)

    def abort(self) -> None:
        """Cut the connection at once."""
        self._connection.transport.abort()

    async def _check(self) -> None:
        """A connection whose other end has vanished looks as one on which nothing is said: ask."""
        pong = await self._connection.ping()
        try:
            async with asyncio.timeout(self._timeout_s):
                await pong
        except TimeoutError:
            self.abort()
            raise TransportError(
                f"{self._url} does not answer any more", "start the listener again"
            ) from None

    async def close(self) -> None:
        """Close in good order, within two seconds; at once when cancelled."""
        try:
            await self._connection.close()
        finally:
            self.abort()

    def _broken(self, closed: ConnectionClosed) -> TransportError | ProtocolError:
        if closed.sent is not None and closed.sent.code == TOO_BIG:
            return ProtocolError(
                f"What {self._url} sends is longer than any message of ours; check the address."
            )
        return TransportError(f"The connection to {self._url} broke", "start the listener again")


class _BoundedConnection(ClientConnection):
    """Hangs up on who sends pings and does not read the answers, which would pile up here."""

    def data_received(self, data: bytes) -> None:
        if self.transport.get_write_buffer_size() > _UNREAD_BYTES:
            self.transport.abort()
        else:
            super().data_received(data)


class _Connect(websocket_connect):
    """Follows redirects within the origin alone.

    Who answers elsewhere is not who was asked, and must not be told the access token, which is in
    the first message.
    """

    def process_redirect(self, exc: Exception) -> Exception | str:
        if not isinstance(exc, InvalidStatus) or exc.response.status_code not in _REDIRECTS:
            return exc
        location = exc.response.headers.get("Location", "")
        try:
            target = urljoin(self.uri, location)
            scheme, colon, rest = target.partition(":")
            target = {"http": "ws", "https": "wss"}.get(scheme.lower(), scheme) + colon + rest
            if _origin(target) == _origin(self.uri):
                return target
        except ValueError:  # no address at all
            target = location
        return TransportError(
            f"{self.uri} sends listeners on to {printable(target)!r}, which is not followed; give "
            "that address instead if it is to be trusted."
        )


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port. Raises ValueError if there are no such."""
    parts = urlsplit(url)
    port = parts.port or {"ws": 80, "wss": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, port


def check_address(url: str) -> None:
    """Raise TransportError if ``url`` can be no sender's address."""
    with contextlib.suppress(ValueError):  # square brackets that do not match, for one
        parts = urlsplit(url)
        if parts.scheme in ("ws", "wss") and parts.hostname:
            return
    raise TransportError(f"{url!r} is not the address of a sender; write ws://HOST:PORT.")


async def connect(
    url: str,
    timeout_s: float = TIMEOUT_S,
    silence_s: float | None = SILENCE_S,
    tls: ssl.SSLContext | None = None,
) -> Connection:
    """Connect to a sender, through the environment's proxy if it names one for that address.

    Args:
        timeout_s: for connecting, and later for each answer.
        silence_s: after so long without a message the sender is asked whether it is still there;
            None: it has nothing to say.
        tls: for ``wss://``, see :mod:`streaming.support.tls`.

    Raises:
        TransportError: there is no connection; says why in one sentence.
        RefusedError: the sender does not let us in.
    """
    proxy = _proxy_for(url)
    try:
        connection = await _Connect(
            url,
            proxy=proxy,
            compression=None,
            ssl=tls,
            max_size=MAX_SERVER_MESSAGE,
            open_timeout=timeout_s,
            ping_interval=None,
            close_timeout=CLOSE_TIMEOUT_S,
            logger=library_logger,
            user_agent_header=None,
            create_connection=_BoundedConnection,
        )
    except ssl.SSLCertVerificationError as error:  # a ValueError as well
        raise TransportError(
            f"The certificate of {url} cannot be trusted ({error.verify_message}); name its issuer "
            "with --ca."
        ) from None
    except (ImportError, InvalidProxy, ProxyError) as error:
        raise TransportError(_unreachable_through(url, proxy or "", error)) from None
    except (ssl.SSLError, ConnectionResetError, ConnectionAbortedError) as error:
        if tls is None:
            raise TransportError(_unreachable(url, error, proxy)) from None
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
    except TimeoutError:
        late = TimeoutError(f"within {timeout_s:.0f} s")
        raise TransportError(_unreachable(url, late, proxy)) from None
    except OSError as error:
        raise TransportError(_unreachable(url, error, proxy)) from None
    return Connection(connection, url, silence_s, timeout_s)


def _turned_away(url: str, status: int) -> TransportError | RefusedError:
    if status == HTTPStatus.UNAUTHORIZED:
        return RefusedError("auth", "This sender needs an access token, and yours is not right.")
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        return TransportError(f"{url} takes no more listeners just now; try again later.")
    return TransportError(
        f"What answers at {url} is no WebSocket server for us (status {status}); check the address."
    )


def _unreachable(url: str, error: OSError, proxy: str | None) -> str:
    if proxy is not None:
        return _unreachable_through(url, proxy, error)
    if isinstance(error, TimeoutError):
        return f"{url} did not answer {error}; check host and port."
    if isinstance(error, socket.gaierror):
        return f"The host in {url} is unknown; check its spelling."
    # Several addresses of one host may have been tried: then there is no single number.
    if isinstance(error, ConnectionRefusedError) or "Connect call failed" in str(error):
        return f"Nothing listens at {url}; start the server first, or check host and port."
    return f"Cannot connect to {url} ({_reason(error)}); check host, port and network."


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer {error}"
    return reason_of(error)


def _proxy_for(url: str) -> str | None:
    """The proxy that the environment names for ``url``, as the WebSocket library takes it.

    None for what is on this machine.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:  # connecting says what is wrong with it
        return None
    if is_loopback(host) or proxy_bypass(host if port is None else f"{host}:{port}"):
        return None
    proxies = getproxies()
    # RFC 6455 prefers SOCKS, and the way for HTTPS to the one for HTTP, which may not let us pass.
    kinds = ["wss", "socks", "https"] if parts.scheme == "wss" else ["ws", "socks", "https", "http"]
    proxy = next(filter(None, (proxies.get(kind) for kind in [*kinds, "all"])), None)
    if proxy is None:
        return None
    scheme, _, rest = proxy.rpartition("://")
    return f"{'socks5h' if scheme == 'socks' else scheme or 'http'}://{rest}"


def _unreachable_through(url: str, proxy: str, error: Exception) -> str:
    """What went wrong on the way to ``url`` through ``proxy``, whose password is not told."""
    scheme, _, rest = proxy.partition("://")
    named = f"{scheme}://{rest.rpartition('@')[2].rstrip('/')}"
    if isinstance(error, ImportError):
        return (
            f"The way to {url} leads through {named}, and a SOCKS proxy needs the Python package "
            "python-socks: pip install 'music350[socks]'."
        )
    if isinstance(error, InvalidProxy):
        reason = error.msg
    elif isinstance(error, InvalidProxyStatus):
        reason = f"status {error.response.status_code}"
    elif isinstance(error, OSError):
        reason = _reason(error)
    else:
        reason = str(error.__cause__ or error)
    return (
        f"Cannot reach {url} through the proxy {named} that the environment names ({reason}); "
        "correct https_proxy, http_proxy or all_proxy, or name the host in no_proxy."
    )
