"""Play-out: where in the stream the sound starts, and the decoded sound that waits to be heard.

Times are seconds of one monotonic clock and are handed in; positions count from the start of the
stream.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, replace
from math import floor

import numpy as np
from numpy.typing import NDArray

from codec.constants import TOKEN_RATE
from streaming.audio.fading import FADE_SAMPLES, fade_out

__all__ = ["Block", "PlayoutBuffer", "StartPlan", "plan_start"]

Audio = NDArray[np.float32]


@dataclass(frozen=True)
class StartPlan:
    """Where to start, and how long to wait with the first sample on a sound card."""

    start_token: int
    hold_s: float


def plan_start(
    *,
    next_token: int,
    first_token: int,
    packet_tokens: int,
    age_s: float,
    margin_s: float,
    hop: int,
    lookahead: int,
) -> StartPlan:
    """The latest start from which play-out at once never runs dry.

    Packets of `packet_tokens` arrive every `packet_tokens / 25` seconds, the last one `age_s`
    ago, and sound can be made up to the decodable edge. At the moment just before each coming
    packet, `margin_s` of sound must still be there. Where the edge moves unevenly (a packet
    is no multiple of the hop), the worst packet of the cycle decides.

    Args:
        next_token: one past the last token received.
        first_token: first token received; the start is never before it. When too little has
            been received, the plan starts there and holds the first sample back instead.
        packet_tokens: tokens per packet.
        age_s: seconds since the last packet was released.
        margin_s: spare sound against jitter and for decoding.
        hop: decoder hop in tokens.
        lookahead: decoder lookahead in tokens.
    """
    waited = min(max(age_s, 0.0) * TOKEN_RATE, packet_tokens)
    margin = max(margin_s, 0.0) * TOKEN_RATE
    latest = min(  # the edge not cut off at 0, so that it moves alike in every cycle
        (next_token + arrived * packet_tokens - lookahead) // hop * hop
        - ((arrived + 1) * packet_tokens - waited + margin)
        for arrived in range(hop)
    )
    # Rounding errors of the times must not cost a whole token.
    start = floor(latest + 1e-6)
    return StartPlan(max(start, first_token), max(0, first_token - start) / TOKEN_RATE)


@dataclass(frozen=True)
class Block:
    """Sound in the play-out buffer, and where in the stream it lies.

    Attributes:
        sound: float32 `[2, n]`.
        first_sample: absolute index of its first sample.
        start_sample: absolute index at which the uninterrupted sound began that it belongs to.
        due_s: when it may be heard, not before.
    """

    sound: Audio
    first_sample: int
    start_sample: int
    due_s: float = 0.0

    @property
    def samples(self) -> int:
        """Its length."""
        return self.sound.shape[1]

    def part(self, first: int, end: int | None = None) -> Block:
        """The samples from `first` to `end` of it."""
        return replace(self, sound=self.sound[:, first:end], first_sample=self.first_sample + first)


class PlayoutBuffer:
    """Decoded sound on its way to the sinks: a bounded queue with one producer and one consumer.

    Nothing is dropped but by :meth:`cut`. One block may go over the capacity, so memory is
    bounded by capacity plus one decoder window.

    Args:
        capacity_samples: how much may wait before `put` does.
        limit_samples: how many samples may pass altogether; the rest is cut off. None: any number.

    Attributes:
        samples: handed out so far.
    """

    def __init__(self, capacity_samples: int, limit_samples: int | None = None) -> None:
        self._blocks: deque[Block] = deque()
        self._capacity = capacity_samples
        self._left = limit_samples
        self._next = self._last = Block(np.zeros((2, 0), np.float32), 0, 0)
        self._begun = False
        self._changed = asyncio.Event()  # wakes the producer and the consumer alike
        self._ended = False
        self.samples = 0

    @property
    def position_sample(self) -> int:
        """Absolute index of the next sample to be handed out."""
        return self._front.first_sample

    @property
    def start_sample(self) -> int:
        """Absolute index at which the sound began that the next sample belongs to."""
        return self._front.start_sample

    @property
    def buffered_samples(self) -> int:
        """Samples that wait."""
        return sum(block.samples for block in self._blocks)

    @property
    def finished(self) -> bool:
        """Whether nothing more will be put."""
        return self._ended or self._left == 0

    @property
    def open(self) -> bool:
        """Whether what is put now will be handed out."""
        return self._begun and not self.finished

    def begin(self, sample: int, due_s: float = 0.0) -> None:
        """What is put from now on begins at this absolute index, to be heard from `due_s` on."""
        self._next = Block(self._next.sound, sample, sample, due_s)
        self._begun = True

    async def put(self, sound: Audio) -> None:
        """Append float32 `[2, n]`, then wait until there is room for more.

        What goes beyond the limit is cut off and ends it. What is put after `cut` and before the
        next `begin` is let go.
        """
        if not self.open:
            return
        self._append(sound)
        while self.open and self.buffered_samples >= self._capacity:
            self._changed.clear()
            await self._changed.wait()

    async def get(self, max_samples: int) -> Block | None:
        """The next block, of 1 to `max_samples`; waits for it. None: nothing comes any more."""
        while not self._blocks and not self.finished:
            self._changed.clear()
            await self._changed.wait()
        return self._pop(max_samples) if self._blocks else None

    def cut(self) -> None:
        """Let go of what waits, but for a moment that fades out.

        If nothing waits, what was handed out last falls to zero from where it was.
        """
        last = self._last.sound
        head = self._blocks[0].part(0, FADE_SAMPLES) if self._blocks else None
        if self._left is not None:
            self._left += self.buffered_samples
        self._blocks.clear()
        if head is not None:
            self._next = replace(head, due_s=0.0)
            self._append(head.sound * fade_out(head.samples))
        elif last.any() and not self.finished:
            self._append(last * fade_out(FADE_SAMPLES))
        self._begun = False
        self._changed.set()

    def finish(self) -> None:
        """Nothing more will be put."""
        self._ended = True
        self._changed.set()

    @property
    def _front(self) -> Block:
        return self._blocks[0] if self._blocks else self._next

    def _append(self, sound: Audio) -> None:
        block = replace(self._next, sound=sound[:, : self._left])
        if block.samples:
            self._blocks.append(block)
            self._next = block.part(block.samples)
        if self._left is not None:
            self._left -= block.samples
        self._changed.set()

    def _pop(self, max_samples: int) -> Block:
        block = self._blocks.popleft()
        if block.samples > max_samples:
            self._blocks.appendleft(block.part(max_samples))
            block = block.part(0, max_samples)
        self._last = block.part(block.samples - 1)
        self.samples += block.samples
        self._changed.set()
        return block
