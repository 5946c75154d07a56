"""One trial: a song, a setting and a link, through the real engine in simulated time.

    Playlist ─► PacedSource ─► Sender ─► Hub ─► WebSocketServer ═ simulated link ═ Link ─► Listener

Everything between the file and the sound card is what ``server.py`` and ``client.py`` run; only the
clock, the network and the card are simulated.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import math
import statistics
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import soundfile as sf
import torch
from numpy.typing import NDArray

import codec as codecs
from benchmarks.analysis import Analysis
from benchmarks.lab.card import SimulatedCard
from benchmarks.lab.links import LinkModel
from benchmarks.lab.network import DOWN, UP, Network
from benchmarks.lab.radio import SimulatedLine
from benchmarks.lab.settings import Setting, SettingError
from benchmarks.lab.simulated_time import SimulatedLoop, simulate
from benchmarks.measures import compare
from benchmarks.metrics import seam_jump
from codec.base import Codec
from codec.constants import CHANNELS, SAMPLE_RATE, SAMPLES_PER_TOKEN, TOKEN_BITS, TOKEN_RATE
from streaming.decoding import DecodeOptions
from streaming.hub import Hub, StreamInfo
from streaming.lean.connection import LeanDial
from streaming.lean.hello import Fec
from streaming.lean.publisher import LeanPublisher, LeanSettings
from streaming.link import Dial
from streaming.listener import Listener
from streaming.listener_settings import CatchUp, ListenerSettings
from streaming.output import Output
from streaming.protocol import TOKENS_HEADER, Tokens
from streaming.sender import PacedSource, Sender
from streaming.session import CodecIdentity, Happening
from streaming.sinks.base import Sink
from streaming.sources.playlist import Playlist
from streaming.websocket import WebSocketServer, connect
from streaming.worker import Worker

__all__ = ["Result", "Trial", "run"]

TRANSPORTS: Final = ("websocket", "udp", "serial")
_SEED: Final = 0
_JOIN_S: Final = 12.0
"""The sender has been at it for so long when the listener comes, so that there is history."""
_SETTLE_S: Final = 5.0
_POINTS: Final = 600
_LEAST_STEP_S: Final = 0.25
_EPOCH_S: Final = 1.7e9

Audio = NDArray[np.float32]


@dataclass(frozen=True)
class Trial:
    """What to run.

    seconds: of stream from when the listener comes. compared_s: how much of it is compared with the
    original. cpu_factor: how many times as long as here computing takes. seed: of the link's lots.
    """

    song: Path
    setting: Setting = field(default_factory=Setting)
    link: LinkModel = field(default_factory=LinkModel)
    link_name: str = ""
    seconds: float = 60.0
    compared_s: float = 30.0
    cpu_factor: float = 1.0
    seed: int = 0

    @property
    def key(self) -> str:
        """Names the trial: another song, setting, link or weights make another key."""
        stat = self.song.stat()
        weights = hashlib.sha256()
        if self.setting.codec == "nano":
            from codec.nano.codec import WEIGHTS_SHA256

            weights.update(WEIGHTS_SHA256.encode())
        told = {
            **self.as_dict(),
            "size": stat.st_size,
            "changed": stat.st_mtime_ns,
            "weights": weights.hexdigest(),
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        values = asdict(self)
        values["song"] = str(self.song.resolve())
        values["link"] = self.link.as_dict()
        return values


@dataclass(frozen=True)
class Result:
    """What came of a trial; None where there was nothing to measure.

    figures: by name, see docs/lab.md. terms_s: what the latency consists of. wire: bits a second by
    kind, from sender to listener. series: ``t``, and as long as it is ``buffer``, ``target``,
    ``latency``; ``down``, when nothing passed. problem: what ended it too early.
    """

    trial: dict[str, Any]
    label: str
    figures: dict[str, float | None]
    terms_s: dict[str, float]
    wire: dict[str, float]
    series: dict[str, list[float | None]]
    problem: str = ""


class _KeptPlaylist(Playlist):
    """A song, over and over, of which the first part is kept to compare with."""

    def __init__(self, song: Path, keep_s: float) -> None:
        super().__init__([song], loop=True)
        self._room = round(keep_s * SAMPLE_RATE)
        self._kept: list[Audio] = []

    def read(self, frames: int) -> Audio:
        block = super().read(frames)
        if self._room > 0:
            self._kept.append(block[:, : self._room].copy())
            self._room -= block.shape[1]
        return block

    @property
    def kept(self) -> Audio:
        """What was read first, float32 ``[2, n]``."""
        return np.concatenate([np.zeros((CHANNELS, 0), np.float32), *self._kept], axis=1)


class _DecodedSound(Sink):
    """Puts decoded sound where it belongs in the stream, beginning where it begins."""

    def __init__(self, keep_s: float) -> None:
        self.sound = np.zeros((CHANNELS, round(keep_s * SAMPLE_RATE)), np.float32)
        self.first_sample: int | None = None
        self.end = 0
        self.place: Callable[[], int] = lambda: 0

    def write(self, block: Audio) -> None:
        first = self.place() - block.shape[1]
        if self.first_sample is None:
            self.first_sample = first
        start = first - self.first_sample
        if 0 <= start < self.sound.shape[1]:
            part = block[:, : self.sound.shape[1] - start]
            self.sound[:, start : start + part.shape[1]] = part
            self.end = max(self.end, start + part.shape[1])

    def drain(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing to release."""


class _Arrivals:
    """When packets were released and when they came."""

    def __init__(self, hub: Hub, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._released_s: dict[int, float] = {}
        self.transits_s: list[float] = []
        publish = hub.publish

        def noted(tokens: NDArray[np.int64], *args: Any, **options: Any) -> None:
            publish(tokens, *args, **options)
            self._released_s[hub.next_token] = clock()

        hub.publish = noted  # type: ignore[method-assign]

    async def observe(self, happening: Happening) -> None:
        """A listener's observer."""
        if isinstance(happening, Tokens):
            released_s = self._released_s.pop(happening.end_token, None)
            if released_s is not None:
                self.transits_s.append(self._clock() - released_s)


@functools.lru_cache(maxsize=2)
def load_codec(name: str) -> Codec:
    """A codec of that name, once a process."""
    return codecs.load(name)


def run(trial: Trial, audio_to: Path | None = None) -> Result:
    """Run a trial.

    audio_to: stem of the files for the original and for what was heard. Raises UserError,
    CodecError or SettingError where it cannot begin.
    """
    codec = load_codec(trial.setting.codec)
    trial.setting.encoder(codec), trial.setting.decoder(codec)
    if trial.setting.transport not in TRANSPORTS:
        raise SettingError(
            f"There is no transport {trial.setting.transport!r}; choose {', '.join(TRANSPORTS)}."
        )
    network = Network(trial.link, trial.seed)
    made = simulate(lambda loop: _Run(trial, codec, loop).run(), network, trial.cpu_factor)
    if audio_to is not None:
        made.save(audio_to)
    return made.result()


class _Run:
    """A trial as it runs."""

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

    async def run(self) -> _Run:
        loop, trial, codec = self.loop, self.trial, self.codec
        clock = loop.time
        self.source = _KeptPlaylist(trial.song, _JOIN_S + 90.0 + trial.compared_s)
        paced = PacedSource(self.source, clock)
        worker = Worker("encode")
        info = StreamInfo(
            codec.name, codec.weights, codec.digest, _SEED, self.packet_tokens, stream="lab"
        )
        self.hub = hub = Hub(info)
        hub.delay_s = self.encoder_window.lookahead / TOKEN_RATE
        self.arrivals = _Arrivals(hub, clock)
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
        sending = asyncio.create_task(sender.run())
        try:
            async with self._transport(hub) as dial:
                await asyncio.sleep(_JOIN_S)
                if sending.done():
                    sending.result()
                await self._listen(dial)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            await paced.close()
            await worker.close()
        return self

    @contextlib.asynccontextmanager
    async def _transport(self, hub: Hub) -> AsyncIterator[Dial]:
        """The sender's end of the way to the listener; yields how the listener gets there."""
        setting, network, clock = self.trial.setting, self.loop.network, self.loop.time
        if setting.transport == "websocket":
            async with WebSocketServer(hub, network.server_host, 8765, clock) as server:
                yield functools.partial(connect, server.url, setting.timeout)
            return
        line = SimulatedLine(network, datagrams=setting.transport == "udp")
        fec = None if setting.fec is None else Fec.parse(setting.fec)
        address = cast(Any, line)
        async with LeanPublisher(hub, LeanSettings(address, fec), clock):
            dial = LeanDial(address, clock)
            codec = self.codec
            dial.known.append(CodecIdentity(codec.name, codec.weights, codec.digest))
            yield dial

    async def _listen(self, dial: Dial) -> None:
        setting, clock = self.trial.setting, self.loop.time
        window = self.decoder_window
        self.decoded = decoded = _DecodedSound(self.trial.compared_s)
        prefill_s, device_s = (0.02, 0.04) if setting.preset == "low-latency" else (0.1, 0.1)
        self.card = card = SimulatedCard(self.trial.compared_s, prefill_s, device_s)
        self.output = output = Output([decoded], cast(Any, card), clock)
        self.listener = listener = Listener(
            output,
            self.codec,
            settings=ListenerSettings(
                margin_s=setting.margin_s,
                most_margin_s=setting.most_margin,
                catch_up=CatchUp(setting.catch_up),
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
        device = asyncio.create_task(card.run())
        watching = asyncio.create_task(self._watch())
        running = asyncio.create_task(listener.run(None, dial))
        try:
            await asyncio.wait({running}, timeout=self.trial.seconds)
            if running.done():
                running.result()
        except Exception as error:  # what ends a listener is a finding, not a fault of the lab
            self.problem = str(error) or type(error).__name__
        finally:
            watching.cancel()
            self._count_wire()
            self.ended_s = clock()
            self.silent_s, self.underruns = card.silent_s, card.underruns
            listener.stop()
            await asyncio.gather(running, return_exceptions=True)
            device.cancel()
            await asyncio.gather(device, watching, return_exceptions=True)

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
                "target": listener.jitter.target_s,
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

    # What came of it

    def result(self) -> Result:
        """All figures."""
        first_at_s = self.output.first_at_s
        figures: dict[str, float | None] = {
            "start_s": None if first_at_s is None else first_at_s - self.began_s,
            "latency_s": _median(self.resting_latency_s),
            "latency_most_s": max(self.resting_latency_s, default=None),
            "wire_bits_per_s": sum(self.wire.values()) if self.wire else None,
            "back_bits_per_s": self.back_bits_per_s if self.wire else None,
            "underruns": self.underruns,
            "silent_s": round(self.silent_s, 3),
            "silent_share": self.silent_s / max(1e-9, self.ended_s - self.began_s),
            "lost_tokens": self.listener.session.lost_tokens,
            "reconnects": self.listener.reconnects,
            "dropped": self.hub.dropped_listeners,
            "packet_s": self.packet_tokens / TOKEN_RATE,
            "encoder_window_s": self.encoder_window.tokens / TOKEN_RATE,
            "decoder_window_s": self.decoder_window.tokens / TOKEN_RATE,
            "encoder_hop_s": self.encoder_window.hop / TOKEN_RATE,
            "decoder_hop_s": self.decoder_window.hop / TOKEN_RATE,
            "lost_packets": self.loop.network.ways[DOWN].lost,
            "encode_rtf": self._rtf("encode", self.hub.next_token / TOKEN_RATE),
            "decode_rtf": self._rtf("decode", self._decoded_s()),
            **self._quality(),
        }
        return Result(
            self.trial.as_dict(),
            self.trial.setting.label,
            figures,
            self._terms(figures["latency_s"]),
            self.wire,
            self.series,
            self.problem,
        )

    def save(self, stem: Path) -> None:
        """Write the original, and what the sound card played, as files to listen to."""
        original, _ = self._pair()
        heard = self.card.heard
        for name, sound in (("original", original), ("heard", heard)):
            if sound.shape[1]:
                path = stem.with_name(f"{stem.name}-{name}.ogg")
                frames = np.clip(sound.T, -1, 1)
                with sf.SoundFile(path, "w", SAMPLE_RATE, CHANNELS, format="OGG") as file:
                    for start in range(0, len(frames), 4096):  # libsndfile's stack is small
                        file.write(frames[start : start + 4096])

    def _decoded_s(self) -> float:
        return self.listener.samples / SAMPLE_RATE

    def _rtf(self, worker: str, sound_s: float) -> float | None:
        return self.loop.busy_s[worker] / sound_s if sound_s else None

    def _pair(self) -> tuple[Audio, Audio]:
        """Original and decoded sound of the same part of the stream, each ``[2, n]``."""
        decoded = self.decoded
        first = decoded.first_sample or 0
        original = self.source.kept[:, first:]
        count = min(original.shape[1], decoded.end)
        count -= count % SAMPLES_PER_TOKEN
        return original[:, :count], decoded.sound[:, :count]

    def _quality(self) -> dict[str, float | None]:
        original, decoded = self._pair()
        if original.shape[1] < SAMPLE_RATE:
            return {}
        a, b = (Analysis(torch.from_numpy(np.ascontiguousarray(x))) for x in (original, decoded))
        period = self.decoder_window.hop * SAMPLES_PER_TOKEN
        offset = -(self.decoded.first_sample or 0) % period
        return {**compare(a, b), "seam": seam_jump(b, period, offset - period)}

    def _terms(self, latency_s: float | None) -> dict[str, float]:
        """The latency, term by term; what the terms leave is the reserve."""
        if latency_s is None:
            return {}
        hop, packet = self.decoder_window.hop, self.packet_tokens
        ends = range(packet, packet * hop // math.gcd(packet, hop) + 1, packet)
        held = max((end - self.decoder_window.lookahead) % hop for end in ends)
        hops_s = hop / TOKEN_RATE
        encode_s = (self._rtf("encode", self.hub.next_token / TOKEN_RATE) or 0.0) * (
            self.encoder_window.hop / TOKEN_RATE
        )
        terms = {
            "packet": packet / TOKEN_RATE,
            "encoder lookahead": self.encoder_window.lookahead / TOKEN_RATE,
            "encoding": encode_s * self.trial.cpu_factor,
            "link": _median(self.arrivals.transits_s) or 0.0,
            "decoder lookahead": (self.decoder_window.lookahead + held) / TOKEN_RATE,
            "decoding": (self._rtf("decode", self._decoded_s()) or 0.0)
            * hops_s
            * self.trial.cpu_factor,
        }
        terms["reserve"] = max(0.0, latency_s - sum(terms.values()))
        return terms


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None
