"""The sending side: a source read in real time, encoded off the event loop, released in packets.

    source --(reading thread)--> blocks --(bounded queue)--> encoder --(its thread)--> hub

When encoding cannot keep up, the queue of four seconds fills and reading waits: a file then falls
behind real time, a live input loses what its own buffer cannot hold. Both are said in the log.
The stream is encoded whether anybody listens or not, so that who joins has history to start from.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from codec.constants import CHANNELS, SAMPLE_RATE, SAMPLES_PER_TOKEN
from streaming.audio.level import sanitise
from streaming.send.pacing import RealTimePacer
from streaming.send.publisher import Publisher
from streaming.stream.hub import Hub
from streaming.support.stats import RealTimeFactor
from streaming.support.tasks import beside
from streaming.support.timing import Timing
from streaming.support.worker import Worker

if TYPE_CHECKING:
    from codec.base import Codec, EncoderWindow
    from codec.stream import StreamEncoder
    from streaming.audio.sources import Source
    from streaming.files.store import TokenStore

__all__ = ["BLOCK_SAMPLES", "PacedSource", "Sender"]

logger = logging.getLogger(__name__)

BLOCK_SAMPLES: Final = 2 * SAMPLES_PER_TOKEN
"""80 ms: divides every even hop, so that no window waits for the rest of a block."""
_QUEUED_BLOCKS: Final = 50
_RTF_BLOCKS: Final = 250  # 20 s
_SLIP_WARNING_S: Final = 1.0
_CLOSE_TIMEOUT_S: Final = 2.0


class PacedSource:
    """A source read on a thread of its own, not faster than real time.

    A block comes out when its last sample is due, as from a live input. Live sources keep time by
    themselves. Needs a running event loop.
    """

    def __init__(
        self,
        source: Source,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._source = source
        self._clock = clock
        self._sleep = sleep
        self._worker = Worker("source")
        self._pacer: RealTimePacer | None = None
        self._slip_told_s = 0.0

    @property
    def title(self) -> str:
        """Title of the block read last."""
        return self._source.title

    async def open(self) -> None:
        """Open the source; a pipe may take long to begin. Raises UserError."""
        await self._worker.run(self._source.open)

    async def read(self) -> NDArray[np.float32]:
        """The next block when it is due, float32 ``[2, n]``; n = 0 at the end.

        Raises UserError if the source fails.
        """
        if self._source.live:
            return await self._worker.run(self._source.read, BLOCK_SAMPLES)
        if self._pacer is None:
            self._pacer = RealTimePacer(self._clock)
        await self._sleep(self._pacer.wait_s(BLOCK_SAMPLES))
        block = await self._worker.run(self._source.read, BLOCK_SAMPLES)
        # What is too late is forgiven in due(): the stream goes on at its own pace from there.
        self._pacer.due()
        self._pacer.take(block.shape[1])
        if self._pacer.slipped_s > self._slip_told_s + _SLIP_WARNING_S:
            self._slip_told_s = self._pacer.slipped_s
            logger.warning(
                "source or encoder is late: the stream has lost %.1f s so far", self._slip_told_s
            )
        return block

    async def close(self) -> None:
        """Stop and close the source; one that hangs is left to its thread, which ends with us."""
        self._source.stop()
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._worker.run(self._source.close)
        except TimeoutError:
            logger.debug("the source does not let go")
        await self._worker.close(timeout_s=0.1)


class Sender:
    """Encodes a source and publishes its tokens to a hub in packets at absolute multiples.

    Goes on at the token at which the hub stands, as if the source began there.

    Args:
        window: encoder window, the codec's own by default.
        worker: the thread on which the codec runs.
        store: where every packet is written before it is sent.
        wall: Unix time in seconds.

    Attributes:
        source_samples: read so far.
        encode_rtf: the real-time factor of encoding.
        encode_timing: how long its windows took.
    """

    reconnects = 0  # a source of sound finds its way back by itself

    def __init__(
        self,
        source: PacedSource,
        codec: Codec,
        hub: Hub,
        worker: Worker,
        *,
        window: EncoderWindow | None = None,
        store: TokenStore | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._publisher = Publisher(hub, store, clock=clock, wall=wall)
        self._first_token = hub.next_token
        self._codec = codec
        self._hub = hub
        self._worker = worker
        self._window = window
        self._clock = clock
        self._packet_tokens = hub.info.packet_tokens
        self._pending = np.zeros(0, dtype=np.int64)
        self._arrivals: deque[tuple[int, float]] = deque()
        self._factor = RealTimeFactor(_RTF_BLOCKS)
        self.encode_timing = Timing()
        self.source_samples = 0

    @property
    def encode_rtf(self) -> float | None:
        """Computing time per second of sound; None until something was encoded."""
        return self._factor.value

    async def run(self) -> None:
        """Send until the source ends, then flush and tell the listeners.

        Raises UserError if the source fails midway, after all that came before it was sent.
        """
        blocks: asyncio.Queue[NDArray[np.float32]] = asyncio.Queue(_QUEUED_BLOCKS)
        try:
            async with beside(self._read(blocks)) as reading:
                await self._encode(blocks)
                problem = await reading
        finally:
            await self._publisher.close()
        if problem is not None:
            self._publisher.end("the source failed")
            raise problem
        self._publisher.end("the source has ended")

    async def _read(self, blocks: asyncio.Queue[NDArray[np.float32]]) -> Exception | None:
        """Read to the end, which an empty block marks; returns what ended it too early, if any."""
        problem: Exception | None = None
        try:
            while (block := await self._source.read()).shape[1]:
                first_token = self._first_token + self.source_samples // SAMPLES_PER_TOKEN
                title = self._source.title
                await self._publisher.title(title, first_token)
                self.source_samples += block.shape[1]
                self._arrivals.append((self.source_samples, self._clock()))
                await blocks.put(block)
        except Exception as error:  # the encoder must hear of the end, whatever the reason
            problem = error
        await blocks.put(np.zeros((CHANNELS, 0), dtype=np.float32))
        return problem

    async def _encode(self, blocks: asyncio.Queue[NDArray[np.float32]]) -> None:
        encoder = await self._worker.run(self._make_encoder)
        while (block := await blocks.get()).shape[1]:
            self._take(*await self._worker.run(_push, encoder, block))
            await self._release()
        self._take(*await self._worker.run(_push, encoder, None))
        await self._release(everything=True)

    def _make_encoder(self) -> StreamEncoder:
        from codec.stream import StreamEncoder

        return StreamEncoder(self._codec, self._window)

    def _take(self, tokens: NDArray[np.int64], busy_s: float, sound_s: float) -> None:
        self._factor.add(busy_s, sound_s)
        if len(tokens):  # only then was a window encoded
            self.encode_timing.add(busy_s)
        self._pending = np.concatenate([self._pending, tokens])

    async def _release(self, *, everything: bool = False) -> None:
        """Publish the packets that are complete, and the last incomplete one on ``everything``."""
        while len(self._pending):
            done = self._hub.next_token - self._first_token
            count = self._packet_tokens - done % self._packet_tokens
            if len(self._pending) < count and not everything:
                return
            packet, self._pending = self._pending[:count], self._pending[count:]
            await self._publisher.tokens(packet, came_s=self._came_s(len(packet)))

    def _came_s(self, tokens: int) -> float:
        """When the last sample of the packet to be released came from the source."""
        end_token = self._hub.next_token + tokens - self._first_token
        end_sample = end_token * SAMPLES_PER_TOKEN
        while len(self._arrivals) > 1 and self._arrivals[0][0] < end_sample:
            self._arrivals.popleft()
        return self._arrivals[0][1]


def _push(
    encoder: StreamEncoder, block: NDArray[np.float32] | None
) -> tuple[NDArray[np.int64], float, float]:
    """Encode a block (None: the end): tokens int64 ``[k]``, seconds busy, seconds of sound."""
    start_s = time.perf_counter()
    if block is None:
        tokens = encoder.finish()
    else:
        tokens = encoder.push(sanitise(block))
    sound_s = 0.0 if block is None else block.shape[1] / SAMPLE_RATE
    return tokens, time.perf_counter() - start_s, sound_s
