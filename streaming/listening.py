"""The front door for listeners: :func:`listen` gives sound, :func:`tokens` what it is made of."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from streaming.errors import TransportError
from streaming.receive.settings import ListenerSettings
from streaming.stream.listener_session import ListenerSession
from streaming.stream.timeline import StartAt
from streaming.stream.traffic import Traffic
from streaming.support.tls import client_context
from streaming.support.worker import call_on_thread
from streaming.transports.link import Dial, Link
from streaming.transports.mqtt.address import MqttAddress, is_mqtt, read_credentials
from streaming.transports.websocket import TIMEOUT_S, connect

if TYPE_CHECKING:
    from streaming.wire.messages import Join

__all__ = ["Origin", "check_address", "find", "tokens"]


@dataclass(frozen=True)
class Origin:
    """Where a stream comes from; :func:`find` makes one of an address.

    dial: makes a connection. traffic: counts what arrives on it. start: where to begin in it.
    """

    dial: Dial
    traffic: Traffic
    start: StartAt


async def find(
    url: str | Path,
    start: StartAt | None = None,
    *,
    timeout_s: float = TIMEOUT_S,
    ca: Path | None = None,
    cert: Path | None = None,
    key: Path | None = None,
    user: str | None = None,
    password_file: Path | None = None,
    force: bool = False,
) -> Origin:
    """Where the stream at ``url`` comes from; nothing is connected yet.

    Args:
        url: ``ws://`` or ``wss://`` of a sender or relay, ``mqtt://`` or ``mqtts://`` of a broker
            with the stream's topic, or the path of a ``.muc`` file.
        start: where to begin; by default live, or with the first token of a file.
        timeout_s: for connecting, and later for each answer.
        ca: certificates to trust instead of the system's, PEM.
        cert, key: what the broker is shown, PEM. user, password_file: to log in at the broker.
        force: whether to play a file most of which is missing.

    Raises:
        UserError: what is wrong with the address, or with the file.
    """
    start = start or StartAt()
    address = str(url)
    if "://" not in address and Path(url).suffix.lower() == ".muc":
        from streaming.files.playback import FileConnection, load_history, place_in

        history = await call_on_thread(load_history, url, force=force)

        async def dial() -> FileConnection:
            return FileConnection(history)

        return Origin(dial, Traffic(), place_in(history, start))
    tls = functools.partial(client_context, address, ca)
    if is_mqtt(address):
        broker = read_credentials(MqttAddress.parse(address), user, password_file)
        from streaming.transports.mqtt.connection import connect_mqtt
        from streaming.transports.mqtt.wire import listener_traffic

        way = functools.partial(connect_mqtt, broker, tls(cert, key))
        return Origin(way, listener_traffic(broker), start)
    check_address(address)
    return Origin(functools.partial(connect, address, timeout_s, tls=tls()), Traffic(), start)


def check_address(url: str) -> None:
    """Raise TransportError if ``url`` can be no sender's address."""
    with contextlib.suppress(ValueError):  # square brackets that do not match, for one
        parts = urlsplit(url)
        if parts.scheme in ("ws", "wss") and parts.hostname:
            return
    raise TransportError(f"{url!r} is not the address of a sender; write ws://HOST:PORT.")


@contextlib.asynccontextmanager
async def tokens(
    origin: Origin | str | Path,
    settings: ListenerSettings | None = None,
    *,
    join: Join | None = None,
) -> AsyncIterator[Link]:
    """A stream as it is sent: no codec is loaded, so that any stream can be followed.

    ::

        async with streaming.tokens("ws://radio.example:8765") as stream:
            async for event in stream: ...

    Events are a :class:`Hello`, then :class:`Tokens`, :class:`Gap` and :class:`Title` in the order
    of the stream, each token once, and :class:`End`. When the connection is lost it is made again,
    and what was missed comes first. A second Hello says that another stream has taken its place.

    Args:
        origin: an address, see :func:`find`, or what that made of it.
        settings: how to listen, as far as it does not concern sound.
        join: what to ask the sender for, instead of what ``settings`` say.

    Raises:
        UserError: on entering, if there is no connection; while iterating, why nothing more comes.
    """
    settings = settings or ListenerSettings()
    if not isinstance(origin, Origin):
        origin = await find(origin, settings.start, timeout_s=settings.hello_timeout_s)
    join = join or origin.start.join(settings.history_tokens, settings.client)
    session = ListenerSession(None, join=join, auth_token=settings.auth_token)
    session.traffic = origin.traffic
    link = Link(
        session,
        None if settings.wait else await origin.dial(),
        None if settings.backoff.attempts == 0 else origin.dial,
        backoff=settings.backoff,
        hello_timeout_s=settings.hello_timeout_s,
    )
    try:
        yield link
    finally:
        await link.close()
