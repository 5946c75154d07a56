"""How far what is heard is behind the source, and what is done about it."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import replace
from typing import Final

from codec.constants import SAMPLE_RATE, SAMPLES_PER_TOKEN, TOKEN_RATE
from streaming.receive.jitter import JitterBuffer
from streaming.receive.playout import LiveEdge
from streaming.receive.settings import CatchUp, ListenerSettings
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
    """Watches what arrives and what is heard, and says how fast to play and what to leave out.

    A plain object: times are handed in, monotonic seconds.

    Attributes: ``jitter``, the reserve and its target.
    """

    def __init__(self, settings: ListenerSettings) -> None:
        self._settings = settings
        self._edge = LiveEdge()
        self._recent: deque[Tokens] = deque()  # in a row
        self._jumped_s: float | None = None
        self._decodable = 0  # up to here sound can be made of what has come
        self.jitter = self._new_jitter(settings.catch_up is not CatchUp.NONE)

    def latency_s(self, heard_sample: int, now_s: float) -> float | None:
        """How far what is heard now is behind the source; None before anything came."""
        return self._edge.latency_s(heard_sample / SAMPLE_RATE, now_s)

    def begin(self, hello: Hello, now_s: float) -> None:
        """Something begins."""
        self._edge = LiveEdge()
        self._recent.clear()
        self.jitter.restart()
        if hello.next_token > hello.first_token:
            self._edge.arrived(hello.next_token, now_s, delay_s=hello.delay_s, age_s=hello.age_s)

    def leave(self, *, on_purpose: bool = False) -> None:
        """What comes next lies elsewhere in the stream.

        on_purpose: who has gone back to hear it again wants to stay there.
        """
        self._decodable = 0
        self.jitter = self._new_jitter(
            self._settings.catch_up is not CatchUp.NONE and not on_purpose
        )

    def received(
        self,
        item: Tokens | Gap,
        hello: Hello,
        decodable: int,
        heard_sample: int | None,
        now_s: float,
    ) -> float:
        """``item`` came; now there can be sound up to ``decodable``, a token.

        heard_sample: what a sound card plays; None if there is none, or nothing is heard yet.
        Returns how fast to play from now on, a factor.
        """
        if isinstance(item, Gap):
            self._recent.clear()
            if item.count > MAX_GAP_TOKENS:
                self._edge = LiveEdge()
                self.leave(on_purpose=not self.jitter.catch_up)
            return self.jitter.speed
        self._recent.append(item)
        end_token = item.end_token
        while end_token - self._recent[0].end_token >= _KEPT_TOKENS:
            self._recent.popleft()
        if end_token > hello.next_token:  # live
            self._edge.arrived(end_token, now_s, delay_s=hello.delay_s)
            if heard_sample is not None:
                ahead = self._decodable * SAMPLES_PER_TOKEN - heard_sample
                self.jitter.arrived(end_token / TOKEN_RATE, max(0, ahead) / SAMPLE_RATE, now_s)
        self._decodable = decodable
        return self.jitter.speed

    def jump(self, hello: Hello, now_s: float) -> tuple[Hello, list[Tokens]] | None:
        """What to go on with, if what lies between what is heard and the source is to be left out.

        Returns what a sender would tell who joined now, with the tokens that have come already.
        """
        jitter, jumped_s = self.jitter, self._jumped_s
        rested = jumped_s is None or now_s - jumped_s >= _REST_S
        if self._settings.catch_up is not CatchUp.JUMP or not rested:
            return None
        if jitter.excess_s <= max(_LEAST_JUMP_S, 0.5 * jitter.target_s):
            return None
        logger.info("leaving out %.1f s, to be where it should be", jitter.excess_s)
        self._jumped_s = now_s
        jitter.restart()
        tokens = list(self._recent)
        first, end = tokens[0].first_token, tokens[-1].end_token
        return replace(hello, first_token=first, next_token=end, age_s=0.0), tokens

    def _new_jitter(self, catch_up: bool) -> JitterBuffer:
        settings = self._settings
        return JitterBuffer(settings.margin_s, settings.most_margin_s, catch_up=catch_up)
