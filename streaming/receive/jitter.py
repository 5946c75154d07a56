"""How much sound a listener keeps in reserve, and how fast it plays to keep it so.

Plain objects: times are handed in. The *reserve* is the sound that could still have been played
when a packet came in, so it is by how much that packet could have been later. Its *target* follows
from how unevenly packets arrive, between a least and a most. Two clocks that differ by a few parts
in a million fill or empty every buffer in the end; here that shows as a reserve that creeps away,
and is answered by playing a little faster or slower:

- near its target the reserve is held by a slow proportional-integral control of at most
  ``FINE`` (0.05 %), whose integral is the measured difference of the clocks;
- far from it (an outage or a late packet has made the sound late, or packets have begun to come
  less evenly) the speed changes by at most ``COARSE`` (1 %, a sixth of a semitone) until it is
  back.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from typing import Final

__all__ = ["COARSE", "FINE", "JitterBuffer"]

FINE: Final = 0.0005
COARSE: Final = 0.01
_WINDOW_S: Final = 300.0
_MOST_PACKETS: Final = 7500
"""As many as come in that time where each holds one token."""
_LATE_SHARE: Final = 0.99
_SAFETY: Final = 1.5
_SMOOTHING_S: Final = 20.0
_GAIN: Final = 0.002  # speed per second of error: a time constant of 500 s
_INTEGRAL_GAIN: Final = _GAIN**2 / 4  # critically damped
_COARSE_TIME_S: Final = 20.0
_RECENT: Final = 3
_MOST_STEP_S: Final = 30.0  # a silence longer than this says nothing about clocks


class JitterBuffer:
    """Watches live packets arrive and says how fast to play.

    Args:
        least_s, most_s: bounds of the target. What lies below a least of zero is never wanted.
        catch_up: whether a reserve far above its target is played away.

    Attributes: ``target_s``; ``reserve_s``, smoothed (None before the first packet); ``speed``, a
    factor; ``drift``, by how much the sender's clock is faster than the sound card's.
    """

    def __init__(self, least_s: float = 0.5, most_s: float = 8.0, *, catch_up: bool = True) -> None:
        self.least_s = least_s
        self.most_s = max(most_s, least_s)
        self.catch_up = catch_up
        self.target_s = least_s
        self.reserve_s: float | None = None
        self.speed = 1.0
        self.drift = 0.0
        self._coarse = False
        self._seen_s = 0.0
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._transits: deque[tuple[float, float]] = deque()  # when, how long relative to others
        self._sorted: list[float] = []

    @property
    def excess_s(self) -> float:
        """What the last few packets have all found above the target; 0 where too few have come."""
        if len(self._recent) < _RECENT:
            return 0.0
        return max(0.0, min(self._recent) - self.target_s)

    def arrived(self, stream_s: float, reserve_s: float, now_s: float) -> float:
        """A packet that ends at ``stream_s`` came at ``now_s`` and found ``reserve_s`` of sound.

        Returns the new speed. Only live packets count, and only while sound plays.
        """
        self._note_transit(now_s - stream_s, now_s)
        step_s = min(max(0.0, now_s - self._seen_s), _MOST_STEP_S)
        self._seen_s = now_s
        self._recent.append(reserve_s)
        if self.reserve_s is None:
            self.reserve_s = reserve_s
            return self.speed
        self.reserve_s += (reserve_s - self.reserve_s) * min(1.0, step_s / _SMOOTHING_S)
        self._control(self.reserve_s - self.target_s, step_s)
        return self.speed

    def restart(self) -> None:
        """The reserve has changed by other means; clocks and arrivals are what they were."""
        self.reserve_s = None
        self._recent.clear()
        self._coarse = False
        self.speed = 1.0 + self.drift

    def _control(self, error_s: float, step_s: float) -> None:
        far_s = max(0.5 * self.target_s, 0.3)
        if abs(error_s) > far_s:
            self._coarse = True
        elif abs(error_s) < 0.1 * self.target_s:
            self._coarse = False
        if self._coarse and error_s > 0 and not self.catch_up:
            self.speed = 1.0 + self.drift  # behind on purpose, and no further
        elif self._coarse:
            change = max(FINE, min(COARSE, abs(error_s) / _COARSE_TIME_S))
            self.speed = 1.0 + (change if error_s > 0 else -change)
        else:
            wanted = self.drift + _INTEGRAL_GAIN * error_s * step_s
            self.drift = min(FINE, max(-FINE, wanted))
            change = self.drift + _GAIN * error_s
            self.speed = 1.0 + min(FINE, max(-FINE, change))

    def _note_transit(self, transit_s: float, now_s: float) -> None:
        self._transits.append((now_s, transit_s))
        insort(self._sorted, transit_s)
        while self._transits[0][0] < now_s - _WINDOW_S or len(self._transits) > _MOST_PACKETS:
            _, old_s = self._transits.popleft()
            del self._sorted[bisect_left(self._sorted, old_s)]
        count = len(self._sorted)
        spread_s = self._sorted[int(_LATE_SHARE * (count - 1))] - self._sorted[count // 2]
        if count > 1 and self._sorted[-1] - self._sorted[count // 2] > spread_s and count < 100:
            spread_s = self._sorted[-1] - self._sorted[count // 2]  # too few for a share of them
        self.target_s = min(self.most_s, max(self.least_s, _SAFETY * spread_s))
