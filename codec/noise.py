"""Gaussian noise that depends on a seed and an absolute frame index alone.

Overlapping windows see the same noise, whatever their position, and so do two listeners. Only the
raw Philox bits of numpy are used (their stream is guaranteed never to change); the normal
distribution is made here by Box-Muller in float64.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["keyed_normal"]

_MASK = (1 << 64) - 1


def keyed_normal(
    seed: int, first_frame: int, frames: int, width: int, purpose: int = 0
) -> NDArray[np.float32]:
    """Standard normal noise, float32 ``[frames, width]``, row i keyed by ``first_frame + i``.

    Args:
        first_frame: may be negative (before the stream).
        purpose: separates independent uses of one seed.
    """
    pairs = (width + 1) // 2
    raw = np.empty((frames, 2 * pairs), dtype=np.uint64)
    for row in range(frames):
        counter = np.array([0, 0, (first_frame + row) & _MASK, purpose], dtype=np.uint64)
        raw[row] = np.random.Philox(key=seed & _MASK, counter=counter).random_raw(2 * pairs)
    # 53 random bits each; the half-step keeps the logarithm's argument above zero.
    uniform = ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    radius = np.sqrt(-2.0 * np.log(uniform[:, :pairs]))
    angle = 2.0 * np.pi * uniform[:, pairs:]
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return normal[:, :width].astype(np.float32)
