"""How many samples of a source are due: real time kept without sleeping in here."""

from __future__ import annotations

import time
from collections.abc import Callable

from codec.constants import SAMPLE_RATE

__all__ = ["RealTimePacer"]


class RealTimePacer:
    """Releases samples at exactly `rate` a second against an injected clock.

    The caller asks `due()`, delivers that many samples or fewer, and tells with `take()`.
    After a stall it may catch up, but by at most `max_burst_s`: what lies further back is
    forgiven (the schedule slips, and `slipped_s` says by how much in all), so that a machine
    that slept for an hour does not send an hour of music at once. A clock that goes
    backwards is taken to stand still.

    Args:
        now: a clock in seconds, such as `time.monotonic`.
        rate: samples per second.
        lead_s: how far ahead of the clock delivery may run (a head start, paid once).
        max_burst_s: the most that `due()` may return, in seconds, the head start not counted.
    """

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        rate: int = SAMPLE_RATE,
        lead_s: float = 0.0,
        max_burst_s: float = 0.5,
    ) -> None:
        if lead_s < 0 or max_burst_s <= 0:
            raise ValueError(f"need lead_s >= 0 and max_burst_s > 0: {lead_s}, {max_burst_s}")
        self._now = now
        self._rate = rate
        self._lead_s = lead_s
        self._max_burst = max(1, round((max_burst_s + lead_s) * rate))
        self._origin = self._latest = now()
        self._base = 0  # samples taken when `_origin` was set
        self.taken = 0
        self.slipped_s = 0.0

    def due(self) -> int:
        """Samples that may be delivered now; 0 when delivery is on time or ahead."""
        behind = self._target() - self.taken
        if behind > self._max_burst:
            excess_s = (behind - self._max_burst) / self._rate
            self._origin += excess_s
            self.slipped_s += excess_s
            # Rounding may leave one sample over; the bound holds all the same.
            behind = min(self._target() - self.taken, self._max_burst)
        return max(0, behind)

    def take(self, samples: int) -> None:
        """Note that `samples` were delivered. More than were due is allowed: it is owed back."""
        if samples < 0:
            raise ValueError(f"cannot take {samples} samples")
        self.taken += samples

    def wait_s(self, samples: int) -> float:
        """Seconds from now until `samples` more are due; 0.0 when they are due already."""
        elapsed = (self.taken + samples - self._base) / self._rate
        return max(0.0, self._origin + elapsed - self._lead_s - self._clock())

    def restart(self) -> None:
        """Start the schedule anew from this moment, for instance after a wait on a live source."""
        self._origin = self._clock()
        self._base = self.taken

    def _clock(self) -> float:
        self._latest = max(self._latest, self._now())
        return self._latest

    def _target(self) -> int:
        elapsed_s = self._clock() - self._origin + self._lead_s
        # The small addition keeps a sample due at the very moment that wait_s() named.
        return self._base + int(elapsed_s * self._rate + 1e-3)
