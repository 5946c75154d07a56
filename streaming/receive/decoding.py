"""From what was received to sound in the play-out buffer; the decoder has a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from codec.constants import SAMPLE_RATE, SAMPLES_PER_TOKEN, TOKEN_RATE
from streaming.audio.fading import FADE_SAMPLES
from streaming.audio.fading import fade_out as fall
from streaming.receive.concealment import Concealment
from streaming.receive.playout import PlayoutBuffer, StartPlan, plan_start
from streaming.stream.timeline import StartAt
from streaming.support.stats import RealTimeFactor
from streaming.support.worker import MODEL_PATIENCE_S, Worker
from streaming.wire.messages import MAX_GAP_TOKENS, Gap, Hello, Tokens

if TYPE_CHECKING:
    from codec.base import Codec, DecoderWindow, DecodeSettings
    from codec.stream import StreamDecoder

__all__ = ["Beginning", "DecodeOptions", "DecodeThread", "Decoding"]

logger = logging.getLogger(__name__)

_QUEUED_MESSAGES: Final = 4096

Audio = NDArray[np.float32]


@dataclass(frozen=True)
class DecodeOptions:
    """How to decode; None leaves it to the stream (seed) or to the codec (all others).

    Attributes:
        seed: of the noise.
        steps, guidance, temperature: see :class:`codec.base.DecodeSettings`.
        solver, warp: see :mod:`codec.sampling`.
        hop, context, lookahead: decoder window in tokens; a shorter hop is sooner but computes
            more.
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
        return replace(codec.decoder_window, **given)

    def settings(self) -> DecodeSettings:
        """The sampler's settings."""
        from codec.base import DecodeSettings

        return DecodeSettings(self.steps, self.guidance, self.temperature, self.solver, self.warp)


class DecodeThread:
    """One stream's decoder. Everything that touches the model happens on its thread.

    Attributes:
        rtf: computing time per second of sound.
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


@dataclass(frozen=True)
class Beginning:
    """Something begins, as ``hello`` said.

    Attributes:
        hello: what begins.
        at_s: when it came.
        start: where to begin in it.
        margin_s: sound that should still be there when the next packet comes.
        whole: the sound begins with the first token that comes, wherever that is.
    """

    hello: Hello
    at_s: float
    start: StartAt
    margin_s: float
    whole: bool = False

    @property
    def in_the_past(self) -> bool:
        """Whether the sound is to begin before the live edge."""
        return self.start.in_the_past(self.hello.first_token, self.hello.next_token)

    def complete(self, item: Tokens | Gap) -> bool:
        """Whether the history is complete with ``item``, or need not be.

        A sender that has hours to tell before the live edge is not waited for.
        """
        edge = min(self.hello.next_token, self.hello.first_token + MAX_GAP_TOKENS)
        return self.whole or _end(item) >= edge or self.in_the_past


class Decoding:
    """Decodes what :meth:`put` hands it, within :meth:`run`, as the play-out buffer has room.

    Args:
        beginning: what begins.
        decoder: not started yet.
        buffer: takes the sound.
        clock: monotonic seconds.
        begun: told with which token the sound of what a hello began begins, and after how many
            samples of other sound.
    """

    def __init__(
        self,
        beginning: Beginning,
        decoder: DecodeThread,
        buffer: PlayoutBuffer,
        clock: Callable[[], float] = time.monotonic,
        begun: Callable[[Hello, int, int], Awaitable[None]] | None = None,
    ) -> None:
        self._beginning = beginning
        self._decoder = decoder
        self._buffer = buffer
        self._clock = clock
        self._begun = begun
        self._queue: asyncio.Queue[Beginning | Tokens | Gap | None] = asyncio.Queue(
            _QUEUED_MESSAGES
        )
        self._history: deque[Tokens | Gap] = deque()  # until it is known where the sound begins
        self._concealment: Concealment | None = None  # from then on

    async def put(self, item: Beginning | Tokens | Gap | None) -> None:
        """Take what follows, or begins anew; None: nothing more. Waits while the queue is full."""
        await self._queue.put(item)

    def abandon(self) -> None:
        """Let go of all that was put and not handed out, with a moment that fades out."""
        while not self._queue.empty():
            self._queue.get_nowait()
        self._buffer.cut()

    async def run(self) -> None:
        """Decode until None was put."""
        history = self._history
        anew = False
        missing = 0
        while True:
            item = await self._queue.get()
            missing = missing + item.count if isinstance(item, Gap) else 0
            waits = self._concealment is None
            closes = missing > (0 if waits and self._beginning.whole else MAX_GAP_TOKENS)
            if isinstance(item, Beginning) or (closes and not waits):
                await self._finish(fade_out=True)
                after = replace(self._beginning, whole=True)
                self._beginning = item if isinstance(item, Beginning) else after
                anew = True
            if isinstance(item, Beginning) or closes:
                history.clear()
                continue
            if item is not None:
                history.append(item)
                self._forget()
            ready = item is None or self._beginning.complete(item)
            if self._concealment is None and history and ready:
                await self._start(anew)
            if self._concealment is not None:
                while history:
                    for tokens in self._concealment.pieces(history.popleft()):
                        await self._decode(await self._decoder.feed(tokens))
            if item is None:
                break
        await self._finish()

    async def _finish(self, *, fade_out: bool = False) -> None:
        """Decode the rest without lookahead, on ``fade_out`` to a soft end."""
        if self._concealment is not None:
            await self._decode(await self._decoder.finish(), fade_out=fade_out)
            self._concealment = None

    async def _decode(self, ready: bool, *, fade_out: bool = False) -> None:
        """Decode every window that is ready."""
        assert self._concealment is not None
        while ready and self._buffer.open:
            block, ready = await self._decoder.step()
            self._concealment.shape(block)
            if fade_out and not ready:
                count = min(FADE_SAMPLES, block.shape[1])
                block[:, block.shape[1] - count :] *= fall(count)
            await self._buffer.put(block)

    def _forget(self) -> None:
        """Keep no more of the history than what the sound can begin with."""
        window, beginning, history = self._decoder.window, self._beginning, self._history
        packets = 2 * beginning.hello.packet_tokens + beginning.margin_s * TOKEN_RATE
        kept = window.context + 2 * window.hop + window.lookahead + packets
        while _end(history[-1]) - _end(history[0]) > kept:
            history.popleft()

    async def _start(self, anew: bool) -> None:
        """Choose the place where the sound begins, see `plan_start`.

        anew: it fades in there, since there was other sound before.
        """
        beginning, decoder, buffer = self._beginning, self._decoder, self._buffer
        hello = beginning.hello
        first_token, next_token = self._history[0].first_token, _end(self._history[-1])
        if beginning.in_the_past and not beginning.whole:
            heard = beginning.start.first_heard(hello.first_token)
            start_token, hold_s = decoder.whole_frame(max(heard, first_token)), 0.0
        else:
            live = next_token > hello.next_token or hello.next_token == hello.first_token
            age_s = 0.0 if live else hello.age_s + self._clock() - beginning.at_s
            margin_s = beginning.margin_s
            plan = decoder.plan(next_token, first_token, hello.packet_tokens, age_s, margin_s)
            start_token, hold_s = plan.start_token, plan.hold_s
            if beginning.whole:
                start_token = decoder.whole_frame(first_token)
        buffer.begin(start_token * SAMPLES_PER_TOKEN, self._clock() + hold_s)
        if self._begun is not None:
            await self._begun(hello, start_token, buffer.samples + buffer.buffered_samples)
        logger.debug("starting at token %d, in %.2f s", start_token, hold_s)
        await decoder.start(
            first_token=first_token, start_token=start_token, stream_seed=hello.seed
        )
        self._concealment = Concealment(start_token * SAMPLES_PER_TOKEN, fade_in=anew)


def _end(item: Tokens | Gap) -> int:
    """Index one past the last token."""
    return item.end_token if isinstance(item, Tokens) else item.first_token + item.count
