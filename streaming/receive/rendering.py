"""From what was received to sound in the play-out buffer, from the place where it is to begin."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from codec.constants import SAMPLES_PER_TOKEN, TOKEN_RATE
from streaming.receive.decoding import DecodeThread, Regenerator
from streaming.receive.playout import PlayoutBuffer
from streaming.stream.timeline import StartAt
from streaming.wire.messages import MAX_GAP_TOKENS, Gap, Hello, Tokens

__all__ = ["Beginning", "Received", "Rendering"]

logger = logging.getLogger(__name__)

_QUEUED_MESSAGES: Final = 4096


@dataclass(frozen=True)
class Beginning:
    """Something begins: ``hello`` said so at ``at_s``, and ``start`` is where to begin in it.

    margin_s: sound that should still be there when the next packet comes. whole: the sound begins
    with the first token that comes, wherever that is.
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


Received: TypeAlias = Beginning | Tokens | Gap


class Rendering:
    """Decodes what :meth:`put` hands it, within :meth:`run`, as the play-out buffer has room.

    Args:
        place: what begins.
        decoder: not started yet.
        buffer: takes the sound.
        clock: monotonic seconds.
        begun: told with which token the sound of what a hello began begins, and after how many
            samples of other sound.
    """

    def __init__(
        self,
        place: Beginning,
        decoder: DecodeThread,
        buffer: PlayoutBuffer,
        clock: Callable[[], float] = time.monotonic,
        begun: Callable[[Hello, int, int], Awaitable[None]] | None = None,
    ) -> None:
        self._place = place
        self._decoder = decoder
        self._buffer = buffer
        self._clock = clock
        self._begun = begun
        self._queue: asyncio.Queue[Received | None] = asyncio.Queue(_QUEUED_MESSAGES)

    async def put(self, item: Received | None) -> None:
        """Take what follows, or begins anew; None: nothing more. Waits while the queue is full."""
        await self._queue.put(item)

    def abandon(self) -> None:
        """Let go of all that was put and not handed out, with a moment that fades out."""
        while not self._queue.empty():
            self._queue.get_nowait()
        self._buffer.cut()

    async def run(self) -> None:
        """Decode until None was put, then finish the buffer."""
        place = self._place
        history: deque[Tokens | Gap] = deque()
        regenerator: Regenerator | None = None
        anew = False
        missing = 0
        while True:
            item = await self._queue.get()
            missing = missing + item.count if isinstance(item, Gap) else 0
            closes = missing > (0 if regenerator is None and place.whole else MAX_GAP_TOKENS)
            if isinstance(item, Beginning) or (closes and regenerator is not None):
                if regenerator is not None:
                    await regenerator.finish(fade_out=True)
                place = item if isinstance(item, Beginning) else replace(place, whole=True)
                regenerator = None
                anew = True
            if isinstance(item, Beginning) or closes:
                history.clear()
                continue
            if item is not None:
                history.append(item)
                self._forget(history, place)
            if regenerator is None and history and (item is None or place.complete(item)):
                start_token = await self._start(place, history)
                regenerator = Regenerator(
                    self._decoder,
                    self._buffer,
                    start_token=start_token,
                    fade_in=anew,
                )
            if regenerator is not None:
                while history:
                    await regenerator.feed(history.popleft())
            if item is None:
                break
        if regenerator is not None:
            await regenerator.finish()
        self._buffer.finish()

    def _forget(self, history: deque[Tokens | Gap], place: Beginning) -> None:
        """Keep no more of the history than what the sound can begin with."""
        window = self._decoder.window
        packets = 2 * place.hello.packet_tokens + place.margin_s * TOKEN_RATE
        kept = window.context + 2 * window.hop + window.lookahead + packets
        while _end(history[-1]) - _end(history[0]) > kept:
            history.popleft()

    async def _start(self, place: Beginning, history: deque[Tokens | Gap]) -> int:
        """Choose the place where the sound begins, see `plan_start`."""
        hello, decoder = place.hello, self._decoder
        first_token, next_token = history[0].first_token, _end(history[-1])
        if place.in_the_past and not place.whole:
            heard = place.start.first_heard(hello.first_token)
            start_token, hold_s = decoder.whole_frame(max(heard, first_token)), 0.0
        else:
            live = next_token > hello.next_token or hello.next_token == hello.first_token
            age_s = 0.0 if live else hello.age_s + self._clock() - place.at_s
            plan = decoder.plan(next_token, first_token, hello.packet_tokens, age_s, place.margin_s)
            start_token, hold_s = plan.start_token, plan.hold_s
            if place.whole:
                start_token = decoder.whole_frame(first_token)
        buffer = self._buffer
        buffer.begin(start_token * SAMPLES_PER_TOKEN, self._clock() + hold_s)
        if self._begun is not None:
            await self._begun(hello, start_token, buffer.samples + buffer.buffered_samples)
        logger.debug("starting at token %d, in %.2f s", start_token, hold_s)
        await decoder.start(
            first_token=first_token, start_token=start_token, stream_seed=hello.seed
        )
        return start_token


def _end(item: Tokens | Gap) -> int:
    """Index one past the last token."""
    return item.end_token if isinstance(item, Tokens) else item.first_token + item.count
