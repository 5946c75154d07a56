"""How far what is heard is behind the source, and what is done about it."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from codec.constants import SAMPLE_RATE, SAMPLES_PER_TOKEN, TOKEN_RATE
from streaming.listen.jitter import JitterBuffer
from streaming.listen.output import Output
from streaming.listen.playout import LiveEdge, PlayoutBuffer
from streaming.listen.settings import CatchUp, ListenerSettings
from streaming.wire.messages import MAX_GAP_TOKENS, Gap, Hello, Tokens

__all__ = ["Pace"]

logger = logging.getLogger(__name__)

_LEAST_JUMP_S: Final = 1.0
"""What is left out must be worth the two fades."""
_REST_S: Final = 5.0
"""What a jump has done must show before there is another one."""
_KEPT_TOKENS: Final = 512
"""Enough for the largest reserve and context before it."""


class Pace:
    """Watches what arrives and what is heard, and sets the speed of the sound card.

    Args:
        buffer, output: where the sound is.
        settings: see :class:`ListenerSettings`.
        clock: monotonic seconds.

    Attributes: ``jitter``, the reserve and its target.
    """

    def __init__(
        self,
        buffer: PlayoutBuffer,
        output: Output,
        settings: ListenerSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._buffer = buffer
        self._output = output
        self._settings = settings
        self._clock = clock
        self._edge = LiveEdge()
        self._recent: deque[Tokens] = deque()  # in a row
        self._jumped_s = -_REST_S
        self._decodable = 0  # up to here sound can be made of what has come
        self.jitter = self._new_jitter()

    @property
    def heard_sample(self) -> int:
        """Absolute index of the sample that is heard now, or goes into a file next."""
        buffer = self._buffer
        return max(buffer.start_sample, buffer.position_sample - self._output.unheard_samples)

    @property
    def latency_s(self) -> float | None:
        """How far what is heard now is behind the source; None before the first sample."""
        if self._output.first_at_s is None:
            return None
        return self._edge.latency_s(self.heard_sample / SAMPLE_RATE, self._clock())

    @property
    def jumps(self) -> bool:
        """Whether so much lies between what is heard and the source that it is to be left out."""
        rested = self._clock() - self._jumped_s >= _REST_S
        if self._settings.catch_up is not CatchUp.JUMP or not rested:
            return False
        return self.jitter.excess_s > max(_LEAST_JUMP_S, 0.5 * self.jitter.target_s)

    def begin(self, hello: Hello) -> None:
        """Something begins."""
        self._edge = LiveEdge()
        self._recent.clear()
        self.jitter.restart()
        if hello.next_token > hello.first_token:
            self._note(hello.next_token, hello.delay_s, hello.age_s)

    def leave(self, *, on_purpose: bool = False) -> None:
        """What comes next lies elsewhere in the stream.

        on_purpose: who has gone back to hear it again wants to stay there.
        """
        self._decodable = 0
        self.jitter = self._new_jitter()
        self.jitter.catch_up &= not on_purpose

    def received(self, item: Tokens | Gap, hello: Hello, decodable: int) -> None:
        """``item`` came; now there can be sound up to ``decodable``, a token."""
        if isinstance(item, Gap):
            self._recent.clear()
            if item.count > MAX_GAP_TOKENS:
                self._edge = LiveEdge()
                self.leave(on_purpose=not self.jitter.catch_up)
            return
        self._recent.append(item)
        end_token = item.end_token
        while end_token - self._recent[0].end_token >= _KEPT_TOKENS:
            self._recent.popleft()
        if end_token > hello.next_token:  # live
            self._note(end_token, hello.delay_s)
            if self._output.paced and self._output.first_at_s is not None:
                ahead = self._decodable * SAMPLES_PER_TOKEN - self.heard_sample
                self._output.speed = self.jitter.arrived(
                    end_token / TOKEN_RATE, max(0, ahead) / SAMPLE_RATE, self._clock()
                )
        self._decodable = decodable

    def jump(self, hello: Hello) -> tuple[Hello, list[Tokens]]:
        """What a sender would tell who joined now, with the same tokens that have come already."""
        logger.info("leaving out %.1f s, to be where it should be", self.jitter.excess_s)
        self._jumped_s = self._clock()
        self.jitter.restart()
        tokens = list(self._recent)
        first, end = tokens[0].first_token, tokens[-1].end_token
        return replace(hello, first_token=first, next_token=end, age_s=0.0), tokens

    def _note(self, end_token: int, delay_s: float, age_s: float = 0.0) -> None:
        self._edge.arrived(end_token, self._clock(), delay_s=delay_s, age_s=age_s)

    def _new_jitter(self) -> JitterBuffer:
        settings = self._settings
        catch_up = settings.catch_up is not CatchUp.NONE
        return JitterBuffer(settings.margin_s, settings.most_margin_s, catch_up=catch_up)
