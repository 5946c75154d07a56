"""One listener's place in the stream, and what is sent to it from there."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from codec.constants import TOKEN_RATE
from streaming.protocol import MAX_TOKENS_PER_MESSAGE, Failure

if TYPE_CHECKING:
    from streaming.hub import Hub

__all__ = ["Outbox"]

_MAX_QUEUED_EVENTS: Final = 1000
_FEW_PACKETS: Final = 4
"""A listener that is further behind is sent several packets in one message."""


class Outbox:
    """One listener's place in the stream; :meth:`take` moves it on.

    Attributes: ``closed`` when nothing more will follow what can be taken, ``failure`` if that is
    for a fault; ``carrier``, whether it carries the stream on to others. coded: the listener takes
    entropy-coded packets.
    """

    # Thousands of these are gone through with each packet: what lies together is read faster.
    __slots__ = (
        "_events",
        "_hub",
        "_known_from",
        "_least_behind",
        "_live_from",
        "_place",
        "_rewind",
        "_wake",
        "carrier",
        "closed",
        "failure",
    )

    def __init__(
        self,
        hub: Hub,
        first_token: int,
        wake: Callable[[], None],
        *,
        carrier: bool = False,
        coded: bool = False,
    ) -> None:
        self._hub = hub
        self._rewind = hub.rewind
        self.carrier = carrier
        self._wake = wake
        self._place = first_token
        self._known_from = first_token if coded else None
        self._least_behind = self._behind
        self._live_from = hub.next_token
        # Each with the place in the stream before which it is not sent.
        self._events: deque[tuple[int, str]] = deque()
        self.closed = False
        self.failure: Failure | None = None

    @property
    def place(self) -> int:
        """The token that is taken next."""
        return self._place

    @property
    def lag_s(self) -> float:
        """Seconds that this listener has fallen behind, counted from where it was best."""
        return max(0, self._behind - self._least_behind) / TOKEN_RATE

    @property
    def _behind(self) -> int:
        return self._rewind.next_token - self._place

    @property
    def exhausted(self) -> bool:
        """Whether :meth:`take` has nothing now."""
        return not self._events and self._place >= self._rewind.next_token

    def announce(self, event: str, token: int) -> None:
        """Send ``event`` as soon as everything before ``token`` was sent."""
        self._events.append((token, event))

    def forgive(self, tokens: int) -> None:
        """So many tokens are about to come at once, which is not this listener's fault."""
        self._least_behind += tokens

    def lags(self, max_lag_s: float, fresh: int = 0) -> bool:
        """Whether this listener has fallen too far behind.

        fresh: so many tokens were published just now, which nobody can have taken yet.
        """
        lag = self._rewind.next_token - self._place - self._least_behind - fresh
        return lag > max_lag_s * TOKEN_RATE or len(self._events) > _MAX_QUEUED_EVENTS

    def move(self) -> None:
        """The stream has moved on."""
        self._wake()

    def fail(self, failure: Failure) -> None:
        """Nothing follows but why."""
        self.failure = failure
        self._events.clear()
        self._events.append((0, failure.encode()))
        self.close()

    def close(self) -> None:
        """Nothing follows what can be taken."""
        self.closed = True
        self._wake()

    def take(self) -> str | bytes | None:
        """The next message to send, which then counts as sent; None when there is none now."""
        if self._events and self._events[0][0] <= self._place:
            return self._events.popleft()[1]
        place, edge = self._place, self._rewind.next_token
        if self.failure is not None or place >= edge:
            return None
        most = MAX_TOKENS_PER_MESSAGE
        packet = self._hub.info.packet_tokens
        if place < self._live_from:
            most = min(most, self._live_from - place)
        elif edge - place <= _FEW_PACKETS * packet:
            most = packet
        if self._events:
            most = min(most, self._events[0][0] - place)
        message, self._place = self._hub.read(place, most, self._known_from)
        self._least_behind = min(self._least_behind, edge - self._place)
        return message
