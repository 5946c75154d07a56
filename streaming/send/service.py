"""A running sender: source, encoder, hub, WebSocket server, broker and the reports on them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from codec.constants import TOKEN_RATE
from streaming.files.store import TokenStore
from streaming.send.report import Feed, ServiceReport
from streaming.send.sender import PacedSource, Sender
from streaming.send.settings import ServiceSettings, packets
from streaming.stream.history import HISTORY_TOKENS
from streaming.stream.hub import Hub
from streaming.support.compute import settle
from streaming.support.guard import AuthTokens, fit_to_files, is_loopback
from streaming.support.signals import unless
from streaming.support.stats import LoopStall, StatsWriter
from streaming.support.status_line import StatusLine
from streaming.support.worker import MODEL_PATIENCE_S, Worker
from streaming.transports.mqtt import publishing
from streaming.transports.oneway import sending
from streaming.transports.push import pushing
from streaming.transports.websocket import WebSocketServer
from streaming.web.site import open_site
from streaming.web.status import Encoding
from streaming.wire.messages import Gap, StreamIdentity, StreamInfo

if TYPE_CHECKING:
    from codec.base import Codec, DecoderWindow
    from streaming.audio.sources import Source
    from streaming.transports.push.intake import Intake

__all__ = ["broadcast", "open_hub", "open_server", "serve"]

logger = logging.getLogger(__name__)

logger = logging.getLogger(__name__)

_OPEN_WAIT_S: Final = 1.0
"""How long to wait for a bad source to show before the codec is loaded; a pipe may take longer."""


async def serve(
    source: Source,
    load_codec: Callable[[], Codec],
    settings: ServiceSettings,
    stats: StatsWriter,
    status: StatusLine,
    stop: asyncio.Event,
) -> None:
    """Send ``source`` until it ends or ``stop`` is set, then log a summary.

    load_codec: called once, off the event loop. Raises UserError or CodecError with one sentence.
    """
    paced = PacedSource(source)
    worker = Worker("encoder")
    opening = asyncio.ensure_future(paced.open())
    try:
        await asyncio.wait({opening}, timeout=_OPEN_WAIT_S)
        if opening.done():
            opening.result()
        codec = await unless(stop, worker.run(load_codec))
        if codec is not None:
            await _send(paced, opening, codec, worker, settings, stats, status, stop)
    finally:
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        await paced.close()
        await worker.close(MODEL_PATIENCE_S)


async def _send(
    source: PacedSource,
    opening: asyncio.Future[None],
    codec: Codec,
    worker: Worker,
    settings: ServiceSettings,
    stats: StatsWriter,
    status: StatusLine,
    stop: asyncio.Event,
) -> None:
    packet_tokens, window = packets(settings, codec)
    codec.check_window(window)
    await unless(stop, worker.run(codec.warm_up, window))
    settle()
    identity = StreamIdentity(codec.name, codec.weights, codec.digest)
    hub, store = await worker.run(open_hub, settings, identity, packet_tokens, codec.latent_tokens)
    # Until the first packet shows it: no token is there before its lookahead.
    hub.delay_s = window.lookahead / TOKEN_RATE
    sender = Sender(source, codec, hub, worker, window=window, store=store)

    async def send() -> None:
        await opening
        await sender.run()

    try:
        await broadcast(
            hub,
            sender,
            send,
            settings,
            stats,
            status,
            stop,
            outlives=store is not None,
            encoding=Encoding(lambda: sender.encode_rtf, sender.encode_timing),
            decoder=codec.decoder_window,
        )
    finally:
        if store is not None:
            store.close()


async def broadcast(
    hub: Hub,
    feed: Feed,
    run: Callable[[], Awaitable[None]],
    settings: ServiceSettings,
    stats: StatsWriter,
    status: StatusLine,
    stop: asyncio.Event,
    *,
    outlives: bool,
    encoding: Encoding | None = None,
    decoder: DecoderWindow | None = None,
    server: WebSocketServer | None = None,
) -> None:
    """Let listeners hear ``hub`` while ``run()`` feeds it or until ``stop`` is set; log a summary.

    feed: what is reported on. outlives: whether the stream goes on when this program is stopped.
    encoding, decoder: see :func:`streaming.web.site.open_site`. server: one that listens already.
    Raises what ``run`` raises, UserError where one cannot listen there, and ProtocolError where the
    relay to which the stream is pushed refuses it.
    """
    stall = LoopStall()
    async with contextlib.AsyncExitStack() as stack:
        if server is None:
            server = await stack.enter_async_context(open_server(hub, settings))
        publisher = await stack.enter_async_context(publishing(hub, settings.mqtt))
        pusher = await stack.enter_async_context(pushing(hub, settings.push))
        await stack.enter_async_context(sending(hub, settings.lean))
        server.present(hub)
        open_site(
            server,
            hub,
            stall,
            settings.auth_tokens,
            encoding=encoding,
            decoder=decoder,
            player=settings.web_player,
        )
        report = ServiceReport(hub, feed, stall, stats, status, publisher, pusher)
        helpers = [asyncio.ensure_future(stall.watch()), asyncio.ensure_future(report.run())]
        try:
            await unless(stop, run() if pusher is None else pusher.alongside(run()))
        finally:
            if outlives:  # unless the stream has ended: then this comes too late
                hub.go_away("It was stopped, and goes on here when it is back.", time.monotonic())
            else:
                hub.end("the sender was stopped", time.monotonic())
            await server.drained()
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            report.finish()


@contextlib.asynccontextmanager
async def open_server(
    hub: Hub, settings: ServiceSettings, intake: Intake | None = None
) -> AsyncIterator[WebSocketServer]:
    """Listen as the settings say. Raises UserError where that fails.

    intake: takes the publishers without whom there is nothing to hear yet.
    """
    _warn_of_strangers(settings)
    limits, too_many = fit_to_files(settings.limits)
    if too_many:
        logger.warning("%s", too_many)
    async with WebSocketServer(
        hub,
        settings.host,
        settings.port,
        auth=AuthTokens(settings.auth_tokens),
        limits=limits,
        origins=settings.origins,
        proxies=settings.proxies,
        tls=settings.tls,
        intake=intake,
    ) as server:
        logger.info("listening on %s", server.url)
        yield server


def _warn_of_strangers(settings: ServiceSettings) -> None:
    """Say what is open to whoever can reach the address, or the proxy before it."""
    here_alone = is_loopback(settings.host)
    if not settings.auth_tokens and (settings.proxies or not here_alone):
        logger.warning(
            "everybody who can reach %s can listen: --auth-token-file keeps others out",
            "the proxy" if here_alone else settings.host,
        )
    secretive = settings.auth_tokens or settings.publish_tokens
    if settings.tls is None and secretive and not here_alone:
        logger.warning("access tokens travel in the clear: --tls-cert encrypts them")


def open_hub(
    settings: ServiceSettings, identity: StreamIdentity, packet_tokens: int, latent_tokens: int = 1
) -> tuple[Hub, TokenStore | None]:
    """The hub, with what an earlier run has left in the store. Blocking calls.

    identity: its seed is taken where neither settings nor store have one; without a name of the
    stream the store's is taken, or one is made up. latent_tokens: tokens of a latent frame, at a
    whole one of which the stream goes on.
    """
    keep_tokens = max(HISTORY_TOKENS, round(settings.rewind_s * TOKEN_RATE))
    store = None
    if settings.store is not None:
        store = TokenStore(settings.store, identity, seed=settings.seed, keep_tokens=keep_tokens)
        identity = store.identity
    identity = replace(
        identity,
        seed=identity.seed if settings.seed is None else settings.seed,
        stream=identity.stream or secrets.token_hex(8),
    )
    info = StreamInfo(**vars(identity), packet_tokens=packet_tokens)
    hub = Hub(
        info,
        history_tokens=keep_tokens,
        max_lag_s=settings.max_lag_s,
        entropy_coding=settings.entropy_coding,
    )
    if store is not None:
        store.restore(hub.history)
        missing = store.sent_token - store.next_token
        if missing:
            told = "going on after a gap of %.1f s: so much may have been sent and is not stored"
            logger.warning(told, missing / TOKEN_RATE)
        missing += -store.sent_token % latent_tokens
        if missing:
            store.gap(Gap(store.next_token, missing))
        hub.history.go_on_at(store.sent_token)
        if store.next_token:
            logger.info("going on after %.0f s of stored stream", store.next_token / TOKEN_RATE)
    return hub, store
