"""What feeds a broadcast with sound: source, encoder, hub and store."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from codec.constants import TOKEN_RATE
from streaming.files.store import TokenStore
from streaming.send.sender import PacedSource, Sender
from streaming.send.settings import ServiceSettings, packets
from streaming.stream.history import HISTORY_TOKENS
from streaming.stream.hub import Hub
from streaming.support.compute import settle
from streaming.support.tasks import cancel, unless
from streaming.support.worker import MODEL_PATIENCE_S, Worker
from streaming.web.status import Encoding
from streaming.wire.messages import Gap, StreamIdentity, StreamInfo

if TYPE_CHECKING:
    from codec.base import Codec
    from streaming.audio.sources import Source
    from streaming.send.broadcast import Broadcast

__all__ = ["open_hub", "serve"]

logger = logging.getLogger(__name__)

_OPEN_WAIT_S: Final = 1.0
"""How long to wait for a bad source to show before the codec is loaded; a pipe may take longer."""


async def serve(
    source: Source,
    load_codec: Callable[[], Codec],
    on_air: Broadcast,
) -> None:
    """Send ``source`` until it ends or is stopped. Raises UserError or CodecError.

    Args:
        load_codec: called once, off the event loop.
    """
    paced = PacedSource(source)
    worker = Worker("encoder")
    opening = asyncio.ensure_future(paced.open())
    try:
        await asyncio.wait({opening}, timeout=_OPEN_WAIT_S)
        if opening.done():
            opening.result()
        codec = await unless(on_air.stop, worker.run(load_codec))
        if codec is not None:
            await _send(paced, opening, codec, worker, on_air)
    finally:
        await cancel(opening)
        await paced.close()
        await worker.close(MODEL_PATIENCE_S)


async def _send(
    source: PacedSource,
    opening: asyncio.Future[None],
    codec: Codec,
    worker: Worker,
    on_air: Broadcast,
) -> None:
    packet_tokens, window = packets(on_air.settings, codec)
    codec.check_window(window)
    await unless(on_air.stop, worker.run(codec.warm_up, window))
    settle()
    identity = StreamIdentity(codec.name, codec.weights, codec.digest)
    hub, store = await worker.run(
        open_hub, on_air.settings, identity, packet_tokens, codec.latent_tokens
    )
    # Until the first packet shows it: no token is there before its lookahead.
    hub.delay_s = window.lookahead / TOKEN_RATE
    sender = Sender(source, codec, hub, worker, window=window, store=store)

    async def send() -> None:
        await opening
        await sender.run()

    try:
        await on_air.carry(
            hub,
            sender,
            send,
            outlives=store is not None,
            encoding=Encoding(lambda: sender.encode_rtf, sender.encode_timing),
            decoder=codec.decoder_window,
        )
    finally:
        if store is not None:
            store.close()


def open_hub(
    settings: ServiceSettings, identity: StreamIdentity, packet_tokens: int, latent_tokens: int = 1
) -> tuple[Hub, TokenStore | None]:
    """The hub, with what an earlier run has left in the store. Blocking calls.

    Args:
        identity: its seed is taken if neither settings nor store have one; without a name of the
            stream the store's is taken, or one is made up.
        latent_tokens: tokens of a latent frame, at a whole one of which the stream goes on.
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
