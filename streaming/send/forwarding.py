"""A running sender that encodes nothing: from ``.muc`` files, or another sender's stream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from streaming.files.store import stored_place
from streaming.send.publisher import Publisher
from streaming.send.relay import Relay
from streaming.send.replay import MucPlaylist, Replay
from streaming.send.service import broadcast, open_hub, open_server
from streaming.send.settings import ServiceSettings
from streaming.stream.history import HISTORY_TOKENS
from streaming.stream.hub import Hub
from streaming.stream.listener_session import ListenerSession
from streaming.support.guard import AuthTokens
from streaming.support.signals import unless
from streaming.support.stats import StatsWriter
from streaming.support.status_line import StatusLine
from streaming.support.worker import call_on_thread
from streaming.transports.link import Backoff, Dial, Link
from streaming.transports.push.intake import Intake
from streaming.transports.websocket import WebSocketServer
from streaming.wire.messages import Hello, Join, StreamInfo

__all__ = ["Upstream", "serve_files", "serve_publisher", "serve_upstream"]

logger = logging.getLogger(__name__)


async def serve_files(
    open_playlist: Callable[[], MucPlaylist],
    settings: ServiceSettings,
    stats: StatsWriter,
    status: StatusLine,
    stop: asyncio.Event,
) -> None:
    """Send ``.muc`` files until they end or ``stop`` is set. Raises UserError.

    open_playlist: called once, off the event loop.
    """
    playlist = await call_on_thread(open_playlist)
    # A new stream, whatever the files were recorded from: its numbers begin at 0.
    identity = replace(playlist.header.identity, stream="")
    packet_tokens = settings.packet_tokens or settings.preset.packet_tokens
    hub, store = await call_on_thread(open_hub, settings, identity, packet_tokens)
    publisher = Publisher(hub, store)
    replay = Replay(playlist, publisher)
    try:
        await broadcast(
            hub, replay, replay.run, settings, stats, status, stop, outlives=store is not None
        )
    finally:
        await publisher.close()


@dataclass(frozen=True)
class Upstream:
    """The sender whose stream is served.

    dial: connects to it. auth_token: the secret that lets us in. backoff: how to come back. waits:
    whether for one that is not there yet as well. anybody: it is whoever publishes next, and waited
    for; see :class:`streaming.transports.link.Link`.
    """

    dial: Dial
    auth_token: str = field(default="", repr=False)
    backoff: Backoff = field(default_factory=Backoff)
    waits: bool = False
    anybody: bool = False


async def serve_publisher(
    settings: ServiceSettings, stats: StatsWriter, status: StatusLine, stop: asyncio.Event
) -> None:
    """Send what is pushed here, stream after stream, until ``stop`` is set. Raises UserError."""
    intake = Intake(AuthTokens(settings.publish_tokens))
    silence = Hub(StreamInfo("", "", "", 0, packet_tokens=1), max_lag_s=settings.max_lag_s)
    async with open_server(silence, settings, intake) as server:
        # The intake itself waits, so that nothing else has to.
        upstream = Upstream(intake.dial, backoff=Backoff(0.0, 0.0), anybody=True)
        while not stop.is_set():
            logger.info("waiting for a publisher")
            await serve_upstream(upstream, settings, stats, status, stop, server)
            server.present(None)


async def serve_upstream(
    upstream: Upstream,
    settings: ServiceSettings,
    stats: StatsWriter,
    status: StatusLine,
    stop: asyncio.Event,
    server: WebSocketServer | None = None,
) -> None:
    """Send another sender's stream until that ends or ``stop`` is set. Raises UserError.

    server: see :func:`streaming.send.service.broadcast`.
    """
    join = Join(HISTORY_TOKENS, "relay")
    if settings.store is not None:
        join = await call_on_thread(_go_on, settings.store, join)
    session = ListenerSession(None, join=join, auth_token=upstream.auth_token)
    connection = None
    if not (upstream.waits or upstream.anybody):
        connection = await unless(stop, upstream.dial())
        if connection is None:
            return
    link = Link(
        session, connection, upstream.dial, backoff=upstream.backoff, anybody=upstream.anybody
    )
    try:
        relay = Relay(link)
        hello = await unless(stop, relay.meet())
        if hello is not None:
            await _relay(relay, hello, settings, stats, status, stop, server)
    finally:
        await link.close()


async def _relay(
    relay: Relay,
    hello: Hello,
    settings: ServiceSettings,
    stats: StatsWriter,
    status: StatusLine,
    stop: asyncio.Event,
    server: WebSocketServer | None,
) -> None:
    settings = replace(settings, seed=hello.seed)
    hub, store = await call_on_thread(open_hub, settings, hello.identity, hello.packet_tokens)
    publisher = Publisher(hub, store)
    feeding = asyncio.ensure_future(relay.run(publisher))

    async def run() -> None:
        await feeding

    try:
        # Who joins before the history is here would begin with nothing to begin from.
        await unless(stop, relay.wait_filled())
        await broadcast(
            hub, relay, run, settings, stats, status, stop, outlives=True, server=server
        )
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        await publisher.close()


def _go_on(folder: Path, join: Join) -> Join:
    """``join``, or where the stream in a store ends."""
    stream, next_token = stored_place(folder)
    return replace(join, next_token=next_token, stream=stream) if stream else join
