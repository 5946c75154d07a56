"""The program from end to end, as a trial runs it.

    Playlist ─► PacedSource ─► Sender ─► Hub ─► WebSocketServer ═ simulated link ═ Link ─► Listener

Everything between the file and the sound card is what ``server.py`` and ``client.py`` run; only the
clock, the network and the card are simulated.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator
from typing import Any, Final, cast

from benchmarks.lab.card import SimulatedCard
from benchmarks.lab.network import DOWN, UP
from benchmarks.lab.radio import SimulatedLine
from benchmarks.lab.simulated_time import SimulatedLoop
from benchmarks.lab.taps import Arrivals, DecodedSound, KeptPlaylist
from benchmarks.lab.trial import Trial
from codec.base import Codec
from codec.constants import SAMPLE_RATE, TOKEN_BITS, TOKEN_RATE
from streaming.receive.decoding import DecodeOptions
from streaming.receive.listener import Listener
from streaming.receive.output import Output
from streaming.receive.settings import CatchUp, ListenerSettings
from streaming.send.sender import PacedSource, Sender
from streaming.stream.hub import Hub
from streaming.stream.listener_session import CodecIdentity
from streaming.support.tasks import beside
from streaming.support.worker import Worker
from streaming.transports.link import Dial
from streaming.transports.oneway.connection import OneWayDial
from streaming.transports.oneway.hello import Fec
from streaming.transports.oneway.publisher import OneWay, OneWayPublisher
from streaming.transports.websocket import connect
from streaming.transports.websocket.server import WebSocketServer
from streaming.wire.messages import TOKENS_HEADER, StreamInfo

__all__ = ["Engine"]

_SEED: Final = 0
_JOIN_S: Final = 12.0
"""The sender has been at it for so long when the listener comes, so that there is history."""
_SETTLE_S: Final = 5.0
_POINTS: Final = 600
_LEAST_STEP_S: Final = 0.25
_EPOCH_S: Final = 1.7e9


class Engine:
    """A trial as it runs; :mod:`benchmarks.lab.findings` says what came of it."""

    def __init__(self, trial: Trial, codec: Codec, loop: SimulatedLoop) -> None:
        setting = trial.setting
        self.trial, self.codec, self.loop = trial, codec, loop
        self.packet_tokens, self.encoder_window = setting.encoder(codec)
        self.decoder_window = setting.decoder(codec)
        self.problem = ""
        self.series: dict[str, list[float | None]] = {
            name: [] for name in ("t", "buffer", "target", "latency", "down")
        }
        self.began_s = 0.0
        self.wire: dict[str, float] = {}
        self.back_bits_per_s = 0.0
        self.resting_latency_s: list[float] = []

    async def run(self) -> Engine:
        """Run the trial; returns the engine with all that was measured."""
        loop, trial, codec = self.loop, self.trial, self.codec
        clock = loop.time
        self.source = KeptPlaylist(trial.song, _JOIN_S + 90.0 + trial.compared_s)
        paced = PacedSource(self.source, clock)
        worker = Worker("encode")
        info = StreamInfo(
            codec.name,
            codec.weights,
            codec.digest,
            _SEED,
            packet_tokens=self.packet_tokens,
            stream="lab",
        )
        self.hub = hub = Hub(info)
        hub.delay_s = self.encoder_window.lookahead / TOKEN_RATE
        self.arrivals = Arrivals(hub, clock)
        self.sender = sender = Sender(
            paced,
            codec,
            hub,
            worker,
            window=self.encoder_window,
            clock=clock,
            wall=lambda: _EPOCH_S + clock(),
        )
        await paced.open()
        try:
            async with beside(sender.run()) as sending, self._transport(hub) as dial:
                await asyncio.sleep(_JOIN_S)
                if sending.done():
                    sending.result()
                await self._listen(dial)
        finally:
            await paced.close()
            await worker.close()
        return self

    @contextlib.asynccontextmanager
    async def _transport(self, hub: Hub) -> AsyncIterator[Dial]:
        """The sender's end of the way to the listener; yields how the listener gets there."""
        setting, network, clock = self.trial.setting, self.loop.network, self.loop.time
        if setting.transport == "websocket":
            async with WebSocketServer(
                hub, network.server_host, 8765, clock, listen=network.sockets
            ) as server:
                yield functools.partial(connect, server.url, setting.timeout)
            return
        line = SimulatedLine(network, datagrams=setting.transport == "udp")
        fec = None if setting.fec is None else Fec.parse(setting.fec)
        address = cast(Any, line)
        async with OneWayPublisher(hub, OneWay(address, fec), clock):
            dial = OneWayDial(address, clock)
            codec = self.codec
            dial.known.append(CodecIdentity(codec.name, codec.weights, codec.digest))
            yield dial

    async def _listen(self, dial: Dial) -> None:
        setting, clock = self.trial.setting, self.loop.time
        window = self.decoder_window
        self.decoded = decoded = DecodedSound(self.trial.compared_s)
        prefill_s, device_s = (0.02, 0.04) if setting.preset == "low-latency" else (0.1, 0.1)
        self.card = card = SimulatedCard(self.trial.compared_s, prefill_s, device_s)
        self.output = output = Output([decoded], cast(Any, card), clock)
        self.listener = listener = Listener(
            dial,
            self.codec,
            output,
            settings=ListenerSettings(
                margin_s=setting.margin_s,
                most_margin_s=setting.most_margin,
                catch_up=CatchUp(setting.catch_up),
                wait=True,
                hello_timeout_s=setting.timeout,
                client="lab",
                decode=DecodeOptions(
                    steps=setting.steps,
                    guidance=setting.guidance,
                    temperature=setting.temperature,
                    hop=window.hop,
                    context=window.context,
                    lookahead=window.lookahead,
                ),
            ),
            observe=self.arrivals.observe,
            clock=clock,
        )
        decoded.place = lambda: round(listener.position_s * SAMPLE_RATE)
        self.began_s = clock()
        try:
            async with beside(card.run()), listener, asyncio.timeout(self.trial.seconds):
                try:
                    async with beside(self._watch()):
                        await listener.play()
                finally:
                    self._count_wire()
                    self.ended_s = clock()
                    self.silent_s, self.underruns = card.silent_s, card.underruns
        except TimeoutError:
            pass
        except Exception as error:  # what ends a listener is a finding, not a fault of the lab
            self.problem = str(error) or type(error).__name__

    async def _watch(self) -> None:
        """Write down how things stand, from time to time."""
        listener, network = self.listener, self.loop.network
        step_s = max(_LEAST_STEP_S, self.trial.seconds / _POINTS)
        self.snapshot: tuple[float, dict[str, int], dict[str, int], int, int] | None = None
        while True:
            now_s = self.loop.time()
            heard = self.output.first_at_s is not None
            row = {
                "t": now_s - self.began_s,
                "buffer": listener.buffered_s if heard else None,
                "target": listener.reserve.target_s,
                "latency": listener.latency_s,
                "down": float(network.link.down(now_s - network.began_s)),
            }
            for name, value in row.items():
                self.series[name].append(None if value is None else round(value, 3))
            first_at_s = self.output.first_at_s
            if first_at_s is not None and now_s >= first_at_s + _SETTLE_S:
                if self.snapshot is None:
                    self.snapshot = self._counters()
                if listener.latency_s is not None:
                    self.resting_latency_s.append(listener.latency_s)
            await asyncio.sleep(step_s)

    def _counters(self) -> tuple[float, dict[str, int], dict[str, int], int, int]:
        ways = self.loop.network.ways
        traffic = self.listener.session.traffic
        return (
            self.loop.time(),
            dict(ways[DOWN].sent),
            dict(ways[UP].sent),
            self.listener.session.next_token,
            traffic.messages,
        )

    def _count_wire(self) -> None:
        """Bits a second by kind since the beginning was over."""
        if self.snapshot is None or self.output.first_at_s is None:
            return
        then_s, down, up, first_token, messages = self.snapshot
        now_s, down_now, up_now, last_token, messages_now = self._counters()
        span_s = now_s - then_s
        if span_s < _SETTLE_S:
            return
        bits = {k: 8 * (n - down.get(k, 0)) / span_s for k, n in down_now.items()}
        payload = (last_token - first_token) * TOKEN_BITS / span_s
        index = (messages_now - messages) * TOKENS_HEADER.size * 8 / span_s
        if self.trial.setting.transport != "websocket":
            index = 0.0  # part of the frame
        self.wire = {
            "tokens": payload,
            "index": index,
            "framing": max(0.0, bits.get("data", 0.0) - payload - index),
            "headers": bits.get("headers", 0.0) + bits.get("acknowledgements", 0.0),
            "repeated": bits.get("repeated", 0.0),
            "connecting": bits.get("handshake", 0.0) + bits.get("control", 0.0),
        }
        self.back_bits_per_s = 8 * (sum(up_now.values()) - sum(up.values())) / span_s
