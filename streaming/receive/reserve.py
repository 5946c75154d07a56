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

Or what lies between what is heard and the source is left out, if that was asked for.
"""

from __future__ import annotations

import logging
from bisect import bisect_left, insort
from collections import deque
from dataclasses import replace
from typing import Final

from codec.constants import SAMPLE_RATE, SAMPLES_PER_TOKEN, TOKEN_RATE
from streaming.receive.settings import CatchUp, ListenerSettings
from streaming.wire.messages import MAX_GAP_TOKENS, Gap, Hello, Tokens

__all__ = ["COARSE", "FINE", "Adaptation", "LiveEdge", "ReserveControl"]

logger = logging.getLogger(__name__)

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
_LEAST_JUMP_S: Final = 1.0
"""What is left out must be worth the two fades."""
_REST_S: Final = 5.0
"""What a jump has done must show before there is another one."""
_KEPT_TOKENS: Final = 512
"""Enough for the largest reserve and context before it."""


class ReserveControl:
    """Watches live packets arrive and says how fast to play.

    Args:
        least_s, most_s: bounds of the target. What lies below a least of zero is never wanted.
        catch_up: whether a reserve far above its target is played away.

    Attributes:
        target_s: how much sound there should be when a packet comes.
        reserve_s: how much there was, smoothed; None before the first packet.
        speed: how fast to play, a factor.
        drift: by how much the sender's clock is faster than the sound card's.
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
        """What the last few packets have all found above the target; 0 if too few have come."""
        if len(self._recent) < _RECENT:
            return 0.0
        return max(0.0, min(self._recent) - self.target_s)

    def arrived(self, stream_s: float, reserve_s: float, now_s: float) -> float:
        """A packet that ends at ``stream_s`` came at ``now_s`` and found ``reserve_s`` of sound.

        Only live packets count, and only while sound plays.

        Returns:
            The new speed.
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


class LiveEdge:
    """Estimates where the source is by now, from the tokens that have arrived.

    A token that ends at `end / 25` seconds, released `delay_s` after its last sample and just
    arrived, shows that the source is at least `end / 25 + delay_s` seconds in; since then it has
    gone on at the speed of time. Most packets arrive later than they could, so the largest
    estimate of the last minute is the best; an older one would hide that clocks drift.
    """

    _WINDOW_S = 60.0

    def __init__(self) -> None:
        self._leads: deque[tuple[float, float]] = deque()  # (arrival, lead), leads decreasing

    def arrived(self, end_token: int, now_s: float, *, delay_s: float, age_s: float = 0.0) -> None:
        """Tokens up to `end_token` were released `age_s` before `now_s`.

        Args:
            delay_s: seconds from a source sample to the release of its token.
        """
        lead = end_token / TOKEN_RATE + delay_s + age_s - now_s
        while self._leads and self._leads[-1][1] <= lead:
            self._leads.pop()
        self._leads.append((now_s, lead))
        while self._leads[0][0] < now_s - self._WINDOW_S:
            self._leads.popleft()

    def position_s(self, now_s: float) -> float | None:
        """Where the source is at `now_s`, in seconds of the stream; None before any arrival."""
        return self._leads[0][1] + now_s if self._leads else None

    def latency_s(self, heard_s: float, now_s: float) -> float | None:
        """How far `heard_s`, the position being heard at `now_s`, is behind the source."""
        edge_s = self.position_s(now_s)
        return None if edge_s is None else edge_s - heard_s


class Adaptation:
    """Watches what arrives and what is heard, and says how fast to play and what to leave out.

    A plain object: times are handed in, monotonic seconds.

    Attributes:
        reserve: its control.
    """

    def __init__(self, settings: ListenerSettings) -> None:
        self._settings = settings
        self._edge = LiveEdge()
        self._recent: deque[Tokens] = deque()  # in a row
        self._jumped_s: float | None = None
        self._decodable = 0  # up to here sound can be made of what has come
        self.reserve = self._new_control(settings.catch_up is not CatchUp.NONE)

    def latency_s(self, heard_sample: int, now_s: float) -> float | None:
        """How far what is heard now is behind the source; None before anything came."""
        return self._edge.latency_s(heard_sample / SAMPLE_RATE, now_s)

    def begin(self, hello: Hello, now_s: float) -> None:
        """Something begins."""
        self._edge = LiveEdge()
        self._recent.clear()
        self.reserve.restart()
        if hello.next_token > hello.first_token:
            self._edge.arrived(hello.next_token, now_s, delay_s=hello.delay_s, age_s=hello.age_s)

    def leave(self, *, on_purpose: bool = False) -> None:
        """What comes next lies elsewhere in the stream.

        Args:
            on_purpose: who has gone back to hear it again wants to stay there.
        """
        self._decodable = 0
        self.reserve = self._new_control(
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
        """``item`` came.

        Args:
            decodable: up to this token there can be sound now.
            heard_sample: what a sound card plays; None if there is none, or nothing is heard yet.

        Returns:
            How fast to play from now on, a factor.
        """
        if isinstance(item, Gap):
            self._recent.clear()
            if item.count > MAX_GAP_TOKENS:
                self._edge = LiveEdge()
                self.leave(on_purpose=not self.reserve.catch_up)
            return self.reserve.speed
        self._recent.append(item)
        end_token = item.end_token
        while end_token - self._recent[0].end_token >= _KEPT_TOKENS:
            self._recent.popleft()
        if end_token > hello.next_token:  # live
            self._edge.arrived(end_token, now_s, delay_s=hello.delay_s)
            if heard_sample is not None:
                ahead = self._decodable * SAMPLES_PER_TOKEN - heard_sample
                self.reserve.arrived(end_token / TOKEN_RATE, max(0, ahead) / SAMPLE_RATE, now_s)
        self._decodable = decodable
        return self.reserve.speed

    def jump(self, hello: Hello, now_s: float) -> tuple[Hello, list[Tokens]] | None:
        """What to go on with, if what lies between what is heard and the source is to be left out.

        Returns:
            What a sender would tell a listener that joined now, and the tokens that have come
            already; None if nothing is to be left out.
        """
        reserve, jumped_s = self.reserve, self._jumped_s
        rested = jumped_s is None or now_s - jumped_s >= _REST_S
        if self._settings.catch_up is not CatchUp.JUMP or not rested:
            return None
        if reserve.excess_s <= max(_LEAST_JUMP_S, 0.5 * reserve.target_s):
            return None
        logger.info("leaving out %.1f s, to be where it should be", reserve.excess_s)
        self._jumped_s = now_s
        reserve.restart()
        tokens = list(self._recent)
        first, end = tokens[0].first_token, tokens[-1].end_token
        return replace(hello, first_token=first, next_token=end, age_s=0.0), tokens

    def _new_control(self, catch_up: bool) -> ReserveControl:
        settings = self._settings
        return ReserveControl(settings.margin_s, settings.most_margin_s, catch_up=catch_up)
