"""The front door for listeners: :func:`listen` gives sound, :func:`tokens` what it is made of."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from streaming.audio.sinks import SoundCardSink
from streaming.receive.listener import Listener
from streaming.receive.output import Output
from streaming.receive.settings import ListenerSettings
from streaming.stream.listener_session import ListenerSession
from streaming.stream.timeline import StartAt
from streaming.stream.traffic import Traffic
from streaming.support.tls import client_context
from streaming.support.worker import call_model, call_on_thread
from streaming.transports.link import Dial, Link
from streaming.transports.mqtt.address import MqttAddress, is_mqtt, read_credentials
from streaming.transports.websocket import TIMEOUT_S, check_address, connect

if TYPE_CHECKING:
    from codec.base import Codec
    from streaming.audio.sinks import Sink
    from streaming.receive.decoding import DecodeOptions
    from streaming.wire.messages import Join

__all__ = ["Origin", "find", "listen", "tokens"]


@dataclass(frozen=True)
class Origin:
    """Where a stream comes from; :func:`find` makes one of an address.

    Attributes:
        dial: makes a connection.
        traffic: counts what arrives on it.
        start: where to begin in it.
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


@contextlib.asynccontextmanager
async def listen(
    origin: Origin | str | Path,
    *sinks: Sink,
    codec: Codec | str = "nano",
    settings: ListenerSettings | None = None,
) -> AsyncIterator[Listener]:
    """A stream as sound.

    ::

        async with streaming.listen("ws://radio.example:8765") as radio:
            async for block in radio: ...  # float32 [2, n], 48 kHz
            print(radio.title, radio.latency_s)

        async with streaming.listen("tape.muc", streaming.FileSink("tape.wav")) as radio:
            await radio.play()

    When the connection is lost it is made again, and what was missed is heard late; an outage of
    any length is bridged. A live stream comes at the pace of time, a file as fast as it is decoded
    unless a sound card is among ``sinks``. What is not taken in time holds up the sender.

    Args:
        origin: an address, see :func:`find`, or what that made of it.
        sinks: take the sound as well, each on a thread of its own; closed on leaving. At most one
            is a :class:`SoundCardSink`, which sets the pace.
        codec: what the stream is expected to be made with, by name or loaded; another one is
            loaded if the stream names it.
        settings: how to listen and where to begin.

    Raises:
        UserError: on entering, if there is no connection; while iterating, why nothing more comes,
            after all that came was heard.
        CodecError: if the stream's codec cannot be loaded.
    """
    settings = settings or ListenerSettings()
    cards = [sink for sink in sinks if isinstance(sink, SoundCardSink)]
    files = [sink for sink in sinks if not isinstance(sink, SoundCardSink)]
    output = Output(files, next(iter(cards), None))
    try:
        if not isinstance(origin, Origin):
            origin = await find(origin, settings.start, timeout_s=settings.hello_timeout_s)
        load = functools.partial(_load_decoder, settings.decode)
        listener = Listener(
            origin.dial,
            await call_model(load, codec) if isinstance(codec, str) else codec,
            output,
            load=load,
            settings=replace(settings, start=origin.start),
            traffic=origin.traffic,
        )
        async with listener:
            yield listener
    finally:
        await output.close()


def _load_decoder(options: DecodeOptions, name: str) -> Codec:
    """A codec that is ready to decode. Raises CodecError."""
    import codec

    codec.require_live_decoding(name)
    loaded = codec.load(name, part="decoder")
    loaded.warm_up(options.window(loaded), options.settings())
    return loaded


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
