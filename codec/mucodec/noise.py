"""The flow's starting noise, kept from one window to the next and drawn ahead.

Windows overlap by most of their length and see the same noise where they do; what is new in the
next one can be drawn while a GPU computes this one.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codec.noise import keyed_normal

__all__ = ["NoiseAhead"]

Rows = NDArray[np.float32]
_MOST_STREAMS = 8
"""Streams whose noise is kept: 2 MB each for the longest windows."""


@dataclass(frozen=True)
class _Kept:
    """Rows of frames from ``first`` on, and by how much the last window ended later than before."""

    first: int
    rows: Rows
    end: int
    advance: int


class NoiseAhead:
    """:func:`codec.noise.keyed_normal` of a width and purpose, for windows that move along."""

    def __init__(self, width: int, purpose: int) -> None:
        self.width, self.purpose = width, purpose
        self._kept: dict[int, _Kept] = {}  # by seed, the one used last at the end
        self._lock = threading.Lock()

    def rows(self, seed: int, first: int, frames: int) -> Rows:
        """Noise of a window, float32 ``[frames, width]``."""
        with self._lock:
            end = first + frames
            kept = self._kept.pop(seed, None)
            if kept is None or not kept.first <= first <= kept.first + len(kept.rows):
                kept = _Kept(first, np.zeros((0, self.width), np.float32), end, 0)
            rows = self._extended(seed, kept, end)[first - kept.first :]
            self._kept[seed] = _Kept(first, rows, end, max(0, end - kept.end))
            while len(self._kept) > _MOST_STREAMS:
                del self._kept[next(iter(self._kept))]
            return rows[:frames]

    def draw_ahead(self, seed: int) -> None:
        """Draw what the next window needs, if it lies as much further on as the last one did."""
        with self._lock:
            if (kept := self._kept.get(seed)) is not None:
                rows = self._extended(seed, kept, kept.end + kept.advance)
                self._kept[seed] = _Kept(kept.first, rows, kept.end, kept.advance)

    def _extended(self, seed: int, kept: _Kept, end: int) -> Rows:
        """The rows kept, with those up to ``end`` behind them."""
        start = kept.first + len(kept.rows)
        if end <= start:
            return kept.rows
        new = keyed_normal(seed, start, end - start, self.width, self.purpose)
        return np.concatenate([kept.rows, new])
