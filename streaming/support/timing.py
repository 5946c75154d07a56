"""How long something takes, counted in classes: what averages hide and quantiles need."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

__all__ = ["Timing"]

_BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Timing:
    """Durations in seconds, counted by upper bounds; memory does not grow with their number.

    Attributes:
        bounds_s: ascending.
        count, total_s: of all.
        longest_s: so far.
    """

    def __init__(self, bounds_s: Sequence[float] = _BOUNDS_S) -> None:
        self.bounds_s = tuple(bounds_s)
        self.count = 0
        self.total_s = 0.0
        self.longest_s = 0.0
        self._counts = [0] * (len(self.bounds_s) + 1)

    def add(self, duration_s: float) -> None:
        """Count one; a clock that went backwards counts as no time."""
        duration_s = max(0.0, duration_s)
        self.count += 1
        self.total_s += duration_s
        self.longest_s = max(self.longest_s, duration_s)
        self._counts[bisect_left(self.bounds_s, duration_s)] += 1

    def cumulative(self) -> list[int]:
        """How many took at most each of the bounds, and last how many there were at all."""
        return list(accumulate(self._counts))

    def quantile_s(self, share: float) -> float | None:
        """A duration that ``share`` of them (0 to 1) did not exceed; None while there is none.

        It is the upper bound of its class, or the longest one where that is less.
        """
        if not self.count:
            return None
        for bound_s, within in zip(self.bounds_s, self.cumulative(), strict=False):
            if within >= share * self.count:
                return min(bound_s, self.longest_s)
        return self.longest_s
