"""Where a listener starts in the stream, how far behind live it is, and what waits to be played.

Plain objects: times are handed in, nothing here sleeps, decodes or opens a device.
All times are seconds of one monotonic clock; positions count from the start of the stream.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import floor

import numpy as np
from numpy.typing import NDArray

from codec.constants import TOKEN_RATE
from streaming.audio.fading import FADE_SAMPLES, fade_out

__all__ = ["LiveEdge", "PlayoutBuffer", "StartPlan", "fill_gap", "plan_start"]

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


class LiveEdge:
    """Estimates where the source is by now, from the tokens that have arrived.

    A token that ends at `end / 25` seconds, released `delay_s` after its last sample and just
    arrived, shows that the source is at least `end / 25 + delay_s` seconds in; since then it has
    gone on at the speed of time. Most packets arrive later than they could, so the largest
    estimate of the last minute is the best; an older one would hide that clocks drift.
    """

    _WINDOW_S = 60.0

    def __init__(self) -> None:
        self._leads: deque[tuple[float, float]] = deque()  # (arrival, lead), leads decreasing

    def arrived(self, end_token: int, now_s: float, *, delay_s: float, age_s: float = 0.0) -> None:
        """Tokens up to `end_token` were released `age_s` before `now_s`.

        delay_s: seconds from a source sample to the release of its token.
        """
        lead = end_token / TOKEN_RATE + delay_s + age_s - now_s
        while self._leads and self._leads[-1][1] <= lead:
            self._leads.pop()
        self._leads.append((now_s, lead))
        while self._leads[0][0] < now_s - self._WINDOW_S:
            self._leads.popleft()

    def position_s(self, now_s: float) -> float | None:
        """Where the source is at `now_s`, in seconds of the stream; None before any arrival."""
        return self._leads[0][1] + now_s if self._leads else None

    def latency_s(self, heard_s: float, now_s: float) -> float | None:
        """How far `heard_s`, the position being heard at `now_s`, is behind the source."""
        edge_s = self.position_s(now_s)
        return None if edge_s is None else edge_s - heard_s


class PlayoutBuffer:
    """Decoded sound on its way to the sinks: a bounded first-in-first-out queue of blocks.

    Whoever decodes asks `has_room` before the next window and waits while it is False; nothing
    is ever dropped here. One window may go over the capacity, so memory is bounded by capacity
    plus one window.

    Args:
        start_sample: absolute index of the first sample that will be pushed.
        capacity_samples: how much may wait before `has_room` says no.
        limit_samples: how many samples may pass altogether; the rest is cut off. None: any number.
    """

    def __init__(
        self, start_sample: int, capacity_samples: int, limit_samples: int | None = None
    ) -> None:
        self._blocks: deque[Audio] = deque()
        self._capacity = capacity_samples
        self._limit = limit_samples
        self._pushed = 0
        self.samples = 0  # handed out so far
        self.start_sample = start_sample
        self._before_start = 0  # samples handed out before `start_sample`
        self._last: Audio | None = None  # the sample handed out last, `[2, 1]`
        self._jumps: deque[tuple[int, int]] = deque()  # samples pushed before, position after
        self.on_pull: Callable[[], None] = lambda: None  # called whenever room was made
        self.finished = limit_samples == 0

    @property
    def position_sample(self) -> int:
        """Absolute index of the next sample to be handed out."""
        return self.start_sample + self.samples - self._before_start

    @property
    def pushed_samples(self) -> int:
        """Samples handed out so far, and those that wait."""
        return self._pushed

    @property
    def buffered_samples(self) -> int:
        """Samples that wait."""
        return self._pushed - self.samples

    @property
    def has_room(self) -> bool:
        """Whether another window may be pushed now."""
        return not self.finished and self.buffered_samples < self._capacity

    @property
    def exhausted(self) -> bool:
        """Whether everything that will ever come has been handed out."""
        return self.finished and not self._blocks

    def push(self, block: Audio) -> None:
        """Append float32 `[2, n]`; what goes beyond the limit is cut off and ends it."""
        if self.finished:
            return
        if self._limit is not None:
            block = block[:, : self._limit - self._pushed]
        if block.shape[1]:
            self._blocks.append(block)
            self._pushed += block.shape[1]
        self.finished = self._pushed == self._limit

    def jump(self, sample: int) -> None:
        """What is pushed from now on begins at this absolute index."""
        self._jumps.append((self._pushed, sample))
        self._pass_jumps()

    def cut(self) -> None:
        """Let go what waits, but for a moment that fades out.

        Where nothing waits, what was handed out last falls to zero from where it was.
        """
        last = self._last
        head = self.pull(FADE_SAMPLES)
        self._pushed -= self.buffered_samples
        self._blocks.clear()
        self._jumps = deque((min(at, self._pushed), sample) for at, sample in self._jumps)
        if head is not None:
            self.samples -= head.shape[1]
            self._blocks.append(head * fade_out(head.shape[1]))
        elif last is not None and last.any():
            self.push(last * fade_out(FADE_SAMPLES))
        self._pass_jumps()
        self.on_pull()

    def finish(self) -> None:
        """Nothing more will be pushed."""
        self.finished = True

    def pull(self, max_samples: int | None = None) -> Audio | None:
        """The next block, float32 `[2, n]` with 1 <= n <= max_samples; None when nothing waits."""
        if not self._blocks or (max_samples is not None and max_samples < 1):
            return None
        block = self._blocks.popleft()
        if max_samples is not None and block.shape[1] > max_samples:
            self._blocks.appendleft(block[:, max_samples:])
            block = block[:, :max_samples]
        self.samples += block.shape[1]
        self._last = block[:, -1:]
        self._pass_jumps()
        self.on_pull()
        return block

    def _pass_jumps(self) -> None:
        while self._jumps and self._jumps[0][0] <= self.samples:
            self._before_start, self.start_sample = self._jumps.popleft()


def fill_gap(last_tokens: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Stand-ins for `count` lost tokens, so that the timeline stays exact.

    The tokens heard last are played backwards and forwards again in turns: that keeps loudness
    and harmony for a moment and has no jump at the turning points.

    Args:
        last_tokens: int64 `[n]`, the tokens before the gap; may be empty (then code 0 is used).
        count: how many are missing.
    """
    if not len(last_tokens):
        return np.zeros(count, dtype=np.int64)
    there_and_back = np.concatenate([last_tokens[::-1], last_tokens])
    return np.resize(there_and_back, count).astype(np.int64)
