"""A running sender that encodes nothing: from ``.muc`` files, or another sender's stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from streaming.files.store import stored_place
from streaming.send.publisher import Publisher
from streaming.send.relay import Relay
from streaming.send.replay import MucPlaylist, Replay
from streaming.send.service import open_hub
from streaming.stream.history import HISTORY_TOKENS
from streaming.stream.listener_session import ListenerSession
from streaming.support.tasks import beside, unless
from streaming.support.worker import call_on_thread
from streaming.transports.link import Dial, Link
from streaming.transports.reconnecting import Backoff
from streaming.wire.messages import Hello, Join

if TYPE_CHECKING:
    from streaming.send.broadcast import Broadcast

__all__ = ["Upstream", "serve_files", "serve_upstream"]


async def serve_files(
    open_playlist: Callable[[], MucPlaylist],
    on_air: Broadcast,
) -> None:
    """Send ``.muc`` files until they end or are stopped. Raises UserError.

    Args:
        open_playlist: called once, off the event loop.
    """
    playlist = await call_on_thread(open_playlist)
    # A new stream, whatever the files were recorded from: its numbers begin at 0.
    identity = replace(playlist.header.identity, stream="")
    settings = on_air.settings
    packet_tokens = settings.packet_tokens or settings.preset.packet_tokens
    hub, store = await call_on_thread(open_hub, settings, identity, packet_tokens)
    publisher = Publisher(hub, store)
    replay = Replay(playlist, publisher)
    try:
        await on_air.carry(hub, replay, replay.run, outlives=store is not None)
    finally:
        await publisher.close()


@dataclass(frozen=True)
class Upstream:
    """The sender whose stream is served.

    Attributes:
        dial: connects to it.
        auth_token: the secret that lets us in.
        backoff: how to come back.
        waits: whether for one that is not there yet as well.
        anybody: it is whoever publishes next, and waited for; see
            :class:`streaming.transports.link.Link`.
    """

    dial: Dial
    auth_token: str = field(default="", repr=False)
    backoff: Backoff = field(default_factory=Backoff)
    waits: bool = False
    anybody: bool = False


async def serve_upstream(upstream: Upstream, on_air: Broadcast) -> None:
    """Send another sender's stream until that ends or is stopped. Raises UserError."""
    settings, stop = on_air.settings, on_air.stop
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
            await _relay(relay, hello, on_air)
    finally:
        await link.close()


async def _relay(relay: Relay, hello: Hello, on_air: Broadcast) -> None:
    settings = replace(on_air.settings, seed=hello.seed)
    hub, store = await call_on_thread(open_hub, settings, hello.identity, hello.packet_tokens)
    publisher = Publisher(hub, store)
    try:
        async with beside(relay.run(publisher)) as feeding:
            # Who joins before the history is here would begin with nothing to begin from.
            await unless(on_air.stop, relay.wait_filled())
            await on_air.carry(hub, relay, lambda: feeding, outlives=True)
    finally:
        await publisher.close()


def _go_on(folder: Path, join: Join) -> Join:
    """``join``, or where the stream in a store ends."""
    stream, next_token = stored_place(folder)
    return replace(join, next_token=next_token, stream=stream) if stream else join
