"""A running sender that encodes nothing: from ``.muc`` files, or from another sender."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from streaming.hub import HISTORY_TOKENS
from streaming.link import Backoff, Dial, Link
from streaming.muc import StreamHeader
from streaming.protocol import Hello, Join
from streaming.publishing import Publisher
from streaming.relay import Relay
from streaming.replay import MucPlaylist, Replay
from streaming.service import ServiceSettings, broadcast, open_hub
from streaming.session import ListenerSession
from streaming.signals import unless
from streaming.stats import StatsWriter
from streaming.status import StatusLine
from streaming.store import stored_place
from streaming.worker import call_on_thread

__all__ = ["Upstream", "serve_files", "serve_upstream"]

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
    identity = replace(playlist.header, stream="", first_token=0)
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
    whether for one that is not there yet as well.
    """

    dial: Dial
    auth_token: str = field(default="", repr=False)
    backoff: Backoff = field(default_factory=Backoff)
    waits: bool = False


async def serve_upstream(
    upstream: Upstream,
    settings: ServiceSettings,
    stats: StatsWriter,
    status: StatusLine,
    stop: asyncio.Event,
) -> None:
    """Send another sender's stream until that ends or ``stop`` is set. Raises UserError."""
    join = Join(HISTORY_TOKENS, "relay")
    if settings.store is not None:
        join = await call_on_thread(_go_on, settings.store, join)
    session = ListenerSession(None, join=join, auth_token=upstream.auth_token)
    connection = None if upstream.waits else await unless(stop, upstream.dial())
    if connection is None and not upstream.waits:
        return
    link = Link(session, connection, upstream.dial, backoff=upstream.backoff)
    try:
        relay = Relay(link)
        hello = await unless(stop, relay.meet())
        if hello is not None:
            await _relay(relay, hello, settings, stats, status, stop)
    finally:
        await link.close()


async def _relay(
    relay: Relay,
    hello: Hello,
    settings: ServiceSettings,
    stats: StatsWriter,
    status: StatusLine,
    stop: asyncio.Event,
) -> None:
    identity = StreamHeader(
        hello.codec, hello.weights, hello.digest, hello.seed, stream=hello.stream
    )
    settings = replace(settings, seed=hello.seed)
    hub, store = await call_on_thread(open_hub, settings, identity, hello.packet_tokens)
    publisher = Publisher(hub, store)
    feeding = asyncio.ensure_future(relay.run(publisher))

    async def run() -> None:
        await feeding

    try:
        # Who joins before the history is here would begin with nothing to begin from.
        await unless(stop, relay.wait_filled())
        await broadcast(hub, relay, run, settings, stats, status, stop, outlives=True)
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        await publisher.close()


def _go_on(folder: Path, join: Join) -> Join:
    """``join``, or where the stream in a store ends."""
    stream, next_token = stored_place(folder)
    return replace(join, next_token=next_token, stream=stream) if stream else join
