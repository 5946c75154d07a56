"""Gains over time: sound that ends or begins in the middle of something, without a click."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from codec.constants import SAMPLE_RATE

__all__ = ["FADE_SAMPLES", "Envelope", "fade_out"]

FADE_SAMPLES: Final = SAMPLE_RATE // 50
"""20 ms: over which sound ends or begins."""


def fade_out(samples: int) -> NDArray[np.float32]:
    """Gains float32 `[n]` from 1 to 0, a raised cosine; reversed they fade in."""
    at = (np.arange(samples, dtype=np.float32) + 0.5) / max(1, samples)
    return (0.5 + 0.5 * np.cos(np.pi * at)).astype(np.float32)


class Envelope:
    """Silences in a stream of sound, each with a fade before and after it.

    Args:
        position: absolute index of the first sample that will be handed to :meth:`apply`.
    """

    def __init__(self, position: int) -> None:
        self._position = position
        # First sample of the fade, of the silence, after the silence, after the fade.
        self._spans: list[tuple[int, int, int, int]] = []

    def silence(self, first: int, end: int, fall_samples: int = FADE_SAMPLES) -> None:
        """Fade out from sample `first` on, be silent, and fade in from `end` on."""
        self._spans.append((first, min(end, first + fall_samples), end, end + FADE_SAMPLES))

    def apply(self, block: NDArray[np.float32]) -> None:
        """Shape the next samples, float32 `[2, n]`, in place."""
        begin, end = self._position, self._position + block.shape[1]
        self._position = end
        for fall, silent, rise, full in self._spans:
            _scale(block, begin, fall, fade_out(silent - fall))
            block[:, max(0, silent - begin) : max(0, rise - begin)] = 0.0
            _scale(block, begin, rise, fade_out(full - rise)[::-1])
        self._spans = [span for span in self._spans if span[3] > end]


def _scale(block: NDArray[np.float32], begin: int, at: int, gains: NDArray[np.float32]) -> None:
    """Multiply the part of `block` (which begins at sample `begin`) that `gains` from `at` meet."""
    first, last = max(begin, at), min(begin + block.shape[1], at + len(gains))
    if first < last:
        block[:, first - begin : last - begin] *= gains[first - at : last - at]
