"""One listener's place in a stream, and what is sent to it from there."""

from __future__ import annotations

from collections.abc import Callable

from codec.constants import TOKEN_RATE
from streaming.stream.history import Cursor, History
from streaming.wire.messages import End, Failure, Hello, Message

__all__ = ["Subscription"]


class Subscription(Cursor):
    """A cursor of a listener that is greeted, may lag, and is told the end.

    Args:
        wake: called when there is something new to take, or nothing ever more.
        outlet: whether it is no listener but an outlet that hands the stream on to others.
        coded: whether the listener takes entropy-coded packets.

    Attributes:
        closed: whether nothing more will follow what can be taken.
        failure: why, if that is for a fault.
    """

    __slots__ = ("_hello", "_last_word", "_least_behind", "closed", "failure", "outlet", "wake")

    def __init__(
        self,
        history: History,
        hello: Hello,
        wake: Callable[[], None],
        *,
        outlet: bool = False,
        coded: bool = False,
    ) -> None:
        super().__init__(history, hello.first_token, coded=coded)
        self.outlet = outlet
        self.wake = wake
        self._least_behind = self._behind
        self._hello: Hello | None = hello
        self._last_word: End | Failure | None = None
        self.closed = False
        self.failure: Failure | None = None

    @property
    def lag_s(self) -> float:
        """Seconds that this listener has fallen behind, counted from where it was best."""
        return max(0, self._behind - self._least_behind) / TOKEN_RATE

    @property
    def _behind(self) -> int:
        return self._rewind.next_token - self.place

    @property
    def exhausted(self) -> bool:
        """Whether :meth:`take` has nothing now."""
        said = self._hello is None and self._last_word is None
        told = self.failure is not None or self._history.titles.get(self._title) is None
        return said and told and self.place >= self._rewind.next_token

    def forgive(self, tokens: int) -> None:
        """So many tokens are about to come at once, which is not this listener's fault."""
        self._least_behind += tokens

    def lags(self, max_lag_s: float, fresh: int = 0) -> bool:
        """Whether this listener has fallen too far behind.

        Args:
            fresh: so many tokens were published just now, which nobody can have taken yet.
        """
        lag = self._rewind.next_token - self.place - self._least_behind - fresh
        return lag > max_lag_s * TOKEN_RATE

    def fail(self, failure: Failure) -> None:
        """Nothing follows but why."""
        self.failure = failure
        self._hello = None
        self.close(failure)

    def close(self, last_word: End | Failure) -> None:
        """Nothing follows what can be taken but this."""
        self._last_word = last_word
        self.closed = True
        self.wake()

    def take(self) -> Message | None:
        """The next message to send, which then counts as sent; None when there is none now."""
        if self._hello is not None:
            hello, self._hello = self._hello, None
            return hello
        message = None if self.failure is not None else super().take()
        if message is None:
            last_word, self._last_word = self._last_word, None
            return last_word
        self._least_behind = min(self._least_behind, self._behind)
        return message
