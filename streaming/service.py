"""A running sender: source, encoder, hub, WebSocket server, broker and the reports on them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from codec.constants import SAMPLE_RATE, SAMPLES_PER_TOKEN, TOKEN_RATE
from streaming.compute import settle
from streaming.errors import SettingsError
from streaming.guard import AuthTokens, Limits, is_loopback
from streaming.hub import HISTORY_TOKENS, MAX_LAG_S, Hub, StreamInfo
from streaming.lean import sending
from streaming.mqtt import publishing
from streaming.muc import StreamHeader
from streaming.protocol import Gap
from streaming.push import pushing
from streaming.sender import PacedSource, Sender
from streaming.signals import unless
from streaming.stats import LoopStall, StatsWriter
from streaming.status import StatusLine, format_bit_rate
from streaming.store import TokenStore, restore
from streaming.web.site import open_site
from streaming.web.status import Encoding
from streaming.websocket import WebSocketServer
from streaming.worker import MODEL_PATIENCE_S, Worker

if TYPE_CHECKING:
    from codec.base import Codec, DecoderWindow, EncoderWindow
    from streaming.lean.publisher import LeanSettings
    from streaming.mqtt.publisher import MqttPublisher, MqttSettings
    from streaming.push.intake import Intake
    from streaming.push.pusher import Pusher, PushSettings
    from streaming.sources import Source

__all__ = [
    "DEFAULT_REWIND_S",
    "PRESETS",
    "Feed",
    "Preset",
    "ServiceSettings",
    "broadcast",
    "open_hub",
    "open_server",
    "packets",
    "serve",
]

logger = logging.getLogger(__name__)

_OPEN_WAIT_S: Final = 1.0
"""How long to wait for a bad source to show before the codec is loaded; a pipe may take longer."""


DEFAULT_REWIND_S: Final = 86_400.0


@dataclass(frozen=True)
class Preset:
    """``encoder_hop`` in tokens; None leaves the encoder's window as the codec has it."""

    packet_tokens: int
    encoder_hop: int | None = None


PRESETS: Final = {
    "default": Preset(packet_tokens=48),
    "low-latency": Preset(packet_tokens=8, encoder_hop=8),
}


@dataclass(frozen=True)
class ServiceSettings:
    """Where to listen and how to send.

    packet_tokens, hop: override the preset's, and each follows from the other where one alone is
    given; lookahead: overrides the codec's. All in tokens. seed: None takes the store's, or 0.
    rewind_s: how much of the stream is held for those who come back or listen to the past. store:
    folder in which it survives the end of the program. max_lag_s: who is further behind is dropped.
    auth_tokens, limits, origins, tls: see :class:`streaming.websocket.WebSocketServer`. mqtt: the
    broker to which the stream goes as well. push: the relay to which it is pushed as well.
    publish_tokens: of those who may push their stream here, where it is they who are served. lean:
    the one-way link to which it goes as well. entropy_coding: packets in fewer bits for listeners
    that take them so.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    preset: Preset = PRESETS["default"]
    packet_tokens: int | None = None
    seed: int | None = None
    rewind_s: float = DEFAULT_REWIND_S
    store: Path | None = None
    max_lag_s: float = MAX_LAG_S
    auth_tokens: Sequence[str] = field(default=(), repr=False)
    limits: Limits = field(default_factory=Limits)
    origins: Sequence[str] = ()
    tls: ssl.SSLContext | None = None
    hop: int | None = None
    lookahead: int | None = None
    mqtt: MqttSettings | None = None
    push: PushSettings | None = None
    publish_tokens: Sequence[str] = field(default=(), repr=False)
    entropy_coding: bool = False
    lean: LeanSettings | None = None


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


def packets(settings: ServiceSettings, codec: Codec) -> tuple[int, EncoderWindow]:
    """Tokens of a packet, and the encoder window: a packet is a whole number of hops.

    Otherwise packets would leave unevenly, in bursts where a hop is the longer one, and a listener
    that counts on their interval would run dry. Raises SettingsError.
    """
    window, preset = codec.encoder_window, settings.preset
    if settings.lookahead is not None:
        window = replace(window, lookahead=settings.lookahead)
    packet, hop = settings.packet_tokens, settings.hop
    usual = preset.encoder_hop or window.hop
    if packet is None:
        hop = hop or usual
        packet = -(-preset.packet_tokens // hop) * hop
    elif hop is None:
        around = window.left + window.lookahead
        longest = max(1, (codec.longest_window_tokens or packet + around) - around)
        hops = [n for n in range(1, packet + 1) if packet % n == 0 and n <= longest]
        # Short hops are dear, since every window hears much that is not its own.
        hop = min(hops, key=lambda n: max(n / usual, (usual / n) ** 2))
    elif packet % hop:
        raise SettingsError(
            f"A packet of {packet} tokens is no whole number of hops of {hop}; leave out --hop or "
            f"--packet-tokens, or make it {-(-packet // hop) * hop} tokens."
        )
    return packet, replace(window, hop=hop)


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
    identity = StreamHeader(codec.name, codec.weights, codec.digest)
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


class Feed(Protocol):
    """What puts tokens into the hub, as far as the reports on it are concerned."""

    @property
    def source_samples(self) -> int:
        """Samples at 48 kHz that have come from the source."""

    @property
    def encode_rtf(self) -> float | None:
        """Computing time per second of sound; None where nothing is encoded."""

    @property
    def reconnects(self) -> int:
        """How often the source was lost and found again."""


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
        open_site(server, hub, stall, settings.auth_tokens, encoding=encoding, decoder=decoder)
        report = _Report(hub, feed, stall, stats, status, publisher, pusher)
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
    async with WebSocketServer(
        hub,
        settings.host,
        settings.port,
        auth=AuthTokens(settings.auth_tokens),
        limits=settings.limits,
        origins=settings.origins,
        tls=settings.tls,
        intake=intake,
    ) as server:
        logger.info("listening on %s", server.url)
        yield server


def _warn_of_strangers(settings: ServiceSettings) -> None:
    """Say what is open to whoever can reach the address."""
    if is_loopback(settings.host):
        return
    if not settings.auth_tokens:
        logger.warning(
            "everybody who can reach %s can listen: --auth-token-file keeps others out",
            settings.host,
        )
    if settings.tls is None and (settings.auth_tokens or settings.publish_tokens):
        logger.warning("access tokens travel in the clear: --tls-cert encrypts them")


def open_hub(
    settings: ServiceSettings, identity: StreamHeader, packet_tokens: int, latent_tokens: int = 1
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
    info = StreamInfo(
        codec=identity.codec,
        weights=identity.weights,
        digest=identity.digest,
        seed=identity.seed if settings.seed is None else settings.seed,
        packet_tokens=packet_tokens,
        stream=identity.stream or secrets.token_hex(8),
    )
    hub = Hub(
        info,
        history_tokens=keep_tokens,
        max_lag_s=settings.max_lag_s,
        entropy_coding=settings.entropy_coding,
    )
    if store is not None:
        restore(hub, store)
        spare = -store.next_token % latent_tokens
        if spare:
            store.gap(Gap(store.next_token, spare))
        hub.go_on_at(store.next_token)
        if store.next_token:
            logger.info("going on after %.0f s of stored stream", store.next_token / TOKEN_RATE)
    return hub, store


class _Report:
    """What the statistics, the status line and the summary say, from the parts' counters."""

    def __init__(
        self,
        hub: Hub,
        feed: Feed,
        stall: LoopStall,
        stats: StatsWriter,
        status: StatusLine,
        publisher: MqttPublisher | None,
        pusher: Pusher | None,
    ) -> None:
        self._publisher = publisher
        self._pusher = pusher
        self._hub = hub
        self._feed = feed
        self._stall = stall
        self._stats = stats
        self._status = status

    async def run(self) -> None:
        """Once a second until cancelled."""
        while True:
            await asyncio.sleep(1.0)
            self._stats.write(self._values())
            self._status.update(self._hub.title, self._parts())

    def finish(self) -> None:
        """The last line of the statistics, and the summary."""
        values = self._values()
        self._stats.write(values, final=True)
        self._status.close()
        seconds = self._feed.source_samples / SAMPLE_RATE
        logger.info(
            "sent %.1f s of sound in %d tokens; %s", seconds, values["tokens"], self._summary()
        )

    def _values(self) -> dict[str, Any]:
        now_s = time.monotonic()
        traffic = self._hub.traffic
        published = None if self._publisher is None else self._publisher.traffic
        return {
            "tokens": self._hub.next_token,
            "lost_tokens": self._hub.lost_tokens,
            "samples": self._hub.next_token * SAMPLES_PER_TOKEN,
            "payload_bits_per_s": traffic.payload_bits_per_s(now_s),
            "wire_bits_per_s": traffic.wire_bits_per_s(now_s),
            "encode_rtf": self._feed.encode_rtf,
            "reconnects": self._feed.reconnects,
            "listeners": self._hub.listeners,
            "dropped_listeners": self._hub.dropped_listeners,
            "rewind_s": self._hub.held_s,
            "source_samples": self._feed.source_samples,
            "delay_s": self._hub.delay_s,
            "mqtt_bits_per_s": published and published.wire_bits_per_s(now_s),
            "max_loop_stall_ms": self._stall.longest_ms,
            "title": self._hub.title,
        }

    def _parts(self) -> list[str]:
        now_s = time.monotonic()
        listeners = self._hub.listeners
        traffic = self._hub.traffic
        parts = [
            "1 listener" if listeners == 1 else f"{listeners} listeners",
            f"payload {format_bit_rate(traffic.payload_bits_per_s(now_s))}",
            f"wire {format_bit_rate(traffic.wire_bits_per_s(now_s))}",
        ]
        if self._feed.encode_rtf is not None:
            parts.append(f"encode RTF {self._feed.encode_rtf:.3f}")
        if self._feed.reconnects:
            parts.append(f"reconnects {self._feed.reconnects}")
        if self._publisher is not None:
            published = self._publisher.traffic.wire_bits_per_s(now_s)
            away = " (away)" if self._publisher.away else ""
            parts.append(f"to the broker {format_bit_rate(published)}{away}")
        if self._pusher is not None:
            back = f", reconnects {self._pusher.reconnects}" if self._pusher.reconnects else ""
            parts.append(f"pushed{' (away)' if self._pusher.away else ''}{back}")
        return parts

    def _summary(self) -> str:
        return ", ".join(
            [*self._parts()[1:], f"listeners at once: at most {self._hub.most_listeners}"]
        )
