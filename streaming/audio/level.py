"""Make sane samples of anything, one sample at a time.

Both functions look at each sample alone, so any split of the input into blocks gives the
same output bit for bit, and nothing in the future of a sample changes it. `limit` uses
only additions, multiplications and divisions: those are rounded alike whatever the length
of an array, which vectorised transcendental functions do not promise.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["CEILING", "KNEE", "MAX_INPUT", "limit", "sanitise"]

KNEE: Final = np.float32(0.9)
"""Magnitudes up to here pass `limit` unchanged."""
CEILING: Final = np.float32(0.999)
"""`limit` approaches this magnitude and never exceeds it."""
MAX_INPUT: Final = np.float32(1e3)
"""`sanitise` clamps here, so that no filter after it can overflow."""


def sanitise(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Replace NaN and infinities by 0 and clamp to ±`MAX_INPUT`.

    Args:
        block: float32, any shape. Returned as it is when there is nothing to replace.

    Returns:
        float32 of the same shape, finite everywhere.
    """
    magnitude = np.abs(block)
    # A NaN makes the comparison false, so one pass covers all three cases.
    if bool(np.all(magnitude <= MAX_INPUT)):
        return block
    finite = np.where(np.isfinite(block), block, np.float32(0.0))
    return np.clip(finite, -MAX_INPUT, MAX_INPUT)


def limit(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bend what is louder than `KNEE` smoothly towards `CEILING`.

    With k = CEILING - KNEE and the excess e = |x| - KNEE, the output is
    sign(x) · (KNEE + k·e / (k + e)): its slope is 1 at the knee, it rises monotonically and
    its bound is `CEILING`. So input that clips is rounded off and can never wrap.

    Args:
        block: finite float32, any shape. Returned as it is when nothing exceeds the knee.

    Returns:
        float32 of the same shape within ±`CEILING`.
    """
    magnitude = np.abs(block)
    if bool(np.all(magnitude <= KNEE)):
        return block
    room = CEILING - KNEE
    excess = np.maximum(magnitude - KNEE, np.float32(0.0))
    # The same formula in the form that stays monotonic when every step is rounded.
    bent = np.maximum(CEILING - room * room / (room + excess), KNEE)
    return np.where(magnitude <= KNEE, block, np.copysign(bent, block))
