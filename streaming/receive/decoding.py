"""From tokens to sound, off the event loop: the decoder's thread, and who keeps it busy."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from codec.constants import SAMPLE_RATE, SAMPLES_PER_TOKEN
from streaming.audio.fading import FADE_SAMPLES
from streaming.audio.fading import fade_out as fall
from streaming.receive.concealment import Concealment
from streaming.receive.playout import PlayoutBuffer, StartPlan, plan_start
from streaming.support.stats import RealTimeFactor
from streaming.support.worker import MODEL_PATIENCE_S, Worker
from streaming.wire.messages import Gap, Tokens

if TYPE_CHECKING:
    from codec.base import Codec, DecoderWindow, DecodeSettings
    from codec.stream import StreamDecoder

__all__ = ["DecodeOptions", "DecodeThread", "Regenerator"]

Audio = NDArray[np.float32]


@dataclass(frozen=True)
class DecodeOptions:
    """How to decode; None leaves it to the stream (seed) or to the codec (all others).

    solver, warp: see `codec.sampling`. hop, context, lookahead: decoder window in tokens; a shorter
    hop is sooner but computes more.
    """

    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None
    temperature: float | None = None
    solver: str = "euler"
    warp: float = 1.0
    hop: int | None = None
    context: int | None = None
    lookahead: int | None = None

    def window(self, codec: Codec) -> DecoderWindow:
        """The decoder window in tokens."""
        wanted = {"hop": self.hop, "context": self.context, "lookahead": self.lookahead}
        given = {name: tokens for name, tokens in wanted.items() if tokens is not None}
        return dataclasses.replace(codec.decoder_window, **given)

    def settings(self) -> DecodeSettings:
        """The sampler's settings."""
        from codec.base import DecodeSettings

        return DecodeSettings(self.steps, self.guidance, self.temperature, self.solver, self.warp)


class DecodeThread:
    """One stream's decoder. Everything that touches torch happens on its thread.

    Attributes: `rtf`, computing time per second of sound.
    """

    def __init__(
        self,
        codec: Codec,
        options: DecodeOptions | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.codec = codec
        self.options = options or DecodeOptions()
        self.rtf = RealTimeFactor()
        self._clock = clock
        self._worker = Worker("decode")
        self._decoder: StreamDecoder | None = None

    @property
    def window(self) -> DecoderWindow:
        """The decoder window in tokens."""
        return self.options.window(self.codec)

    def plan(
        self, next_token: int, first_token: int, packet_tokens: int, age_s: float, margin_s: float
    ) -> StartPlan:
        """Where to start; see `plan_start`. Latent frames may be several tokens long."""
        return plan_start(
            next_token=next_token,
            first_token=self.whole_frame(first_token),
            packet_tokens=packet_tokens,
            age_s=age_s,
            margin_s=margin_s,
            hop=self.window.hop,
            lookahead=self.window.lookahead,
        )

    def decodable(self, next_token: int) -> int:
        """Up to which token sound can be made when all before `next_token` has come."""
        hop = self.window.hop
        return max(0, (next_token - self.window.lookahead) // hop * hop)

    def whole_frame(self, token: int) -> int:
        """The first token from `token` on at which a latent frame begins."""
        unit = self.codec.latent_tokens
        return -(-token // unit) * unit

    async def start(self, *, first_token: int, start_token: int, stream_seed: int) -> None:
        """Make ready to be fed tokens from `first_token` on; sound starts at `start_token`."""
        await self._worker.run(self._start, first_token, start_token, stream_seed)

    async def feed(self, tokens: NDArray[np.int64]) -> bool:
        """Take further tokens, int64 `[n]`; says whether a window is ready."""
        return await self._worker.run(self._feed, tokens)

    async def finish(self) -> bool:
        """No more tokens will come; says whether a window is ready."""
        return await self._worker.run(self._finish)

    async def step(self) -> tuple[Audio, bool]:
        """Decode one window that is ready: float32 `[2, n]`, and whether another one is ready."""
        audio, busy_s, ready = await self._worker.run(self._step)
        self.rtf.add(busy_s, audio.shape[1] / SAMPLE_RATE)
        return audio, ready

    async def close(self) -> None:
        """End the thread, after the window that it may be at."""
        await self._worker.close(MODEL_PATIENCE_S)

    # What follows runs on the thread.

    def _start(self, first_token: int, start_token: int, stream_seed: int) -> None:
        from codec.stream import StreamDecoder

        seed = self.options.seed
        self._decoder = StreamDecoder(
            self.codec,
            seed=stream_seed if seed is None else seed,
            first_token=first_token,
            start_token=start_token,
            window=self.window,
            settings=self.options.settings(),
        )

    def _feed(self, tokens: NDArray[np.int64]) -> bool:
        assert self._decoder is not None
        self._decoder.feed(tokens)
        return self._decoder.ready()

    def _finish(self) -> bool:
        assert self._decoder is not None
        self._decoder.finish()
        return self._decoder.ready()

    def _step(self) -> tuple[Audio, float, bool]:
        assert self._decoder is not None
        began_s = self._clock()
        # A copy, so that the block does not keep a whole window alive while it waits.
        audio = np.array(self._decoder.step(), order="C")
        return audio, self._clock() - began_s, self._decoder.ready()


class Regenerator:
    """Turns what was received into sound in the play-out buffer, as that has room.

    Args:
        decoder: started already.
        buffer: takes the sound; decoding waits while it has no room.
        start_token: where the sound begins.
        fade_in: it begins in the middle of something.
    """

    def __init__(
        self,
        decoder: DecodeThread,
        buffer: PlayoutBuffer,
        *,
        start_token: int = 0,
        fade_in: bool = False,
    ) -> None:
        self._decoder = decoder
        self._buffer = buffer
        self._concealment = Concealment(start_token * SAMPLES_PER_TOKEN, fade_in=fade_in)

    async def feed(self, item: Tokens | Gap) -> None:
        """Decode tokens, or what stands in for lost ones."""
        for tokens in self._concealment.pieces(item):
            await self._decode(await self._decoder.feed(tokens))

    async def finish(self, *, fade_out: bool = False) -> None:
        """Nothing follows: decode the rest without lookahead, on ``fade_out`` to a soft end."""
        await self._decode(await self._decoder.finish(), fade_out=fade_out)

    async def _decode(self, ready: bool, *, fade_out: bool = False) -> None:
        """Decode every window that is ready."""
        while ready and self._buffer.open:
            block, ready = await self._decoder.step()
            self._concealment.shape(block)
            if fade_out and not ready:
                count = min(FADE_SAMPLES, block.shape[1])
                block[:, block.shape[1] - count :] *= fall(count)
            await self._buffer.put(block)
