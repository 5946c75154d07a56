"""Whether a listener still takes what it is sent, which full kernels hide for minutes.

What was handed to a connection may wait in the sender's kernel, on the way, or in a receiver that
nobody reads: at 350 bit/s a usual receive buffer is half an hour of music. So a listener is asked
from time to time (by a ping that travels in one packet with its tokens, and costs eight bytes of
it) and answers when it has read so far. No more than ``WINDOW_TOKENS`` are sent ahead of that.

A plain object: times are handed in.
"""

from __future__ import annotations

from typing import Final

from codec.constants import TOKEN_RATE

__all__ = ["IDLE_S", "WINDOW_TOKENS", "Heartbeat", "ask_interval_s"]

WINDOW_TOKENS: Final = 4096
"""7 KB: enough to catch up with a day within a minute where an answer takes a tenth of a second."""
IDLE_S: Final = 60.0
"""Who is sent nothing for so long is asked all the same."""


def ask_interval_s(max_lag_s: float) -> float:
    """Seconds between two questions to a listener that may be ``max_lag_s`` behind."""
    return min(IDLE_S, max(1.0, max_lag_s / 3))


class Heartbeat:
    """Questions to one listener, one at a time.

    Args:
        max_lag_s: who has not answered for so long has stopped reading. A longer time is granted if
            more than that is on the way: as long as it takes at the stream's own speed, for who
            catches up over a slow link is not behind.
    """

    __slots__ = ("_asked_after", "_interval_s", "_last_s", "_max_lag_s", "_sent", "deadline_s")

    def __init__(self, max_lag_s: float, now_s: float) -> None:
        self._max_lag_s = max_lag_s
        self._interval_s = ask_interval_s(max_lag_s)
        self._last_s = now_s
        self._sent = 0  # tokens that no answer has covered
        self._asked_after = 0  # so many of them were sent before the question
        self.deadline_s: float | None = None
        """When the question that is open must have been answered; None: none is."""

    @property
    def full(self) -> bool:
        """Whether nothing more should be sent before an answer."""
        return self._sent >= WINDOW_TOKENS

    @property
    def idle_at_s(self) -> float:
        """When to ask though nothing is sent."""
        return self._last_s + IDLE_S

    def sent(self, tokens: int) -> None:
        """So many more were sent."""
        self._sent += tokens

    def due(self, now_s: float) -> bool:
        """Whether to ask along with what is sent now."""
        late = now_s - self._last_s >= self._interval_s
        return self.deadline_s is None and (late or self._sent >= WINDOW_TOKENS // 2)

    def ask(self, now_s: float) -> float:
        """The listener is asked; returns the seconds within which it must have answered."""
        self._last_s = now_s
        self._asked_after = self._sent
        patience_s = max(self._max_lag_s, self._sent / TOKEN_RATE)
        self.deadline_s = now_s + patience_s
        return patience_s

    def answer(self) -> None:
        """It has read all that was sent before the question."""
        self._sent -= self._asked_after
        self._asked_after = 0
        self.deadline_s = None

    def overdue(self, now_s: float) -> bool:
        """Whether the answer should have come by now."""
        return self.deadline_s is not None and now_s >= self.deadline_s
