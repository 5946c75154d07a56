"""What stands in for tokens that are lost, so that the timeline stays exact."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from codec.constants import SAMPLE_RATE, SAMPLES_PER_TOKEN, TOKEN_RATE
from streaming.audio.fading import Envelope
from streaming.wire.messages import Gap, Tokens

__all__ = ["Concealment", "fill_gap"]

_PIECE_TOKENS: Final = 64
_KEPT_TOKENS: Final = TOKEN_RATE  # what a gap is filled with
_CONTINUED_TOKENS: Final = TOKEN_RATE
_LONG_FADE: Final = SAMPLE_RATE // 2


class Concealment:
    """Tokens in the place of lost ones, and the fades that belong to them.

    Args:
        position: absolute index of the first sample that will be handed to :meth:`shape`.
        fade_in: it begins in the middle of something.
    """

    def __init__(self, position: int, *, fade_in: bool = False) -> None:
        self._last_tokens = np.zeros(0, dtype=np.int64)
        self._envelope = Envelope(position)
        if fade_in:
            self._envelope.silence(0, position)

    def pieces(self, item: Tokens | Gap) -> Iterator[NDArray[np.int64]]:
        """Tokens to decode, int64 ``[n]`` at a time: those that came, or stand-ins for them."""
        if isinstance(item, Tokens):
            self._last_tokens = np.concatenate([self._last_tokens, item.tokens])[-_KEPT_TOKENS:]
            yield item.tokens
        else:
            # The decoder goes on from its context for a second; what follows would be made up.
            end = item.first_token + item.count
            silent_from = item.first_token + _CONTINUED_TOKENS
            if end > silent_from:
                spt = SAMPLES_PER_TOKEN
                self._envelope.silence(silent_from * spt, end * spt, fall_samples=_LONG_FADE)
            for done in range(0, item.count, _PIECE_TOKENS):
                yield fill_gap(self._last_tokens, min(_PIECE_TOKENS, item.count - done))

    def shape(self, block: NDArray[np.float32]) -> None:
        """Fade the next samples, float32 ``[2, n]``, in place if that is needed."""
        self._envelope.apply(block)


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
