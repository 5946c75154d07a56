"""One listener's place in the stream, and what is sent to it from there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from codec.constants import TOKEN_RATE
from streaming.wire.messages import MAX_TOKENS_PER_MESSAGE, Failure

if TYPE_CHECKING:
    from streaming.stream.hub import Hub

__all__ = ["Outbox"]

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
        "_hello",
        "_hub",
        "_known_from",
        "_last_word",
        "_least_behind",
        "_live_from",
        "_place",
        "_rewind",
        "_title",
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
        self._title = hub.titles.after(first_token)  # the next one to tell
        self._hello: str | None = None
        self._last_word: str | None = None
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
        said = self._hello is None and self._last_word is None
        told = self.failure is not None or self._hub.titles.get(self._title) is None
        return said and told and self._place >= self._rewind.next_token

    def greet(self, hello: str) -> None:
        """Send this first."""
        self._hello = hello

    def forgive(self, tokens: int) -> None:
        """So many tokens are about to come at once, which is not this listener's fault."""
        self._least_behind += tokens

    def lags(self, max_lag_s: float, fresh: int = 0) -> bool:
        """Whether this listener has fallen too far behind.

        fresh: so many tokens were published just now, which nobody can have taken yet.
        """
        lag = self._rewind.next_token - self._place - self._least_behind - fresh
        return lag > max_lag_s * TOKEN_RATE

    def move(self) -> None:
        """The stream has moved on."""
        self._wake()

    def fail(self, failure: Failure) -> None:
        """Nothing follows but why."""
        self.failure = failure
        self._hello = None
        self.close(failure.encode())

    def close(self, last_word: str) -> None:
        """Nothing follows what can be taken but this."""
        self._last_word = last_word
        self.closed = True
        self._wake()

    def take(self) -> str | bytes | None:
        """The next message to send, which then counts as sent; None when there is none now."""
        if self._hello is not None:
            hello, self._hello = self._hello, None
            return hello
        place, edge = self._place, self._rewind.next_token
        title = None if self.failure is not None else self._hub.titles.get(self._title)
        if title is not None and title.place <= place:
            self._title = title.number + 1
            return title.message
        if self.failure is not None or place >= edge:
            last_word, self._last_word = self._last_word, None
            return last_word
        most = MAX_TOKENS_PER_MESSAGE
        packet = self._hub.info.packet_tokens
        if place < self._live_from:
            most = min(most, self._live_from - place)
        elif edge - place <= _FEW_PACKETS * packet:
            most = packet
        if title is not None:
            most = min(most, title.place - place)
        message, self._place = self._hub.read(place, most, self._known_from)
        self._least_behind = min(self._least_behind, edge - self._place)
        return message
