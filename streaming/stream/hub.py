"""One stream to many listeners: who is joined, and how far each has come.

Plain objects without threads, sockets and clocks. Everything is called on one thread, in a program
that of the event loop.

A listener is a subscription (:mod:`streaming.stream.subscription`): what it is to be sent is read
from the history when its connection has room, so a thousand listeners that are an hour behind take
no more memory than those who are live. One that has fallen ``max_lag_s`` seconds further back than
it was before is dropped with an error message; nobody else notices. Who catches up on what was
missed, or listens to the past on purpose, is not behind in this sense.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from codec.constants import TOKEN_RATE
from streaming.stream.coded import code_packet
from streaming.stream.history import HISTORY_TOKENS, History
from streaming.stream.subscription import Subscription
from streaming.stream.traffic import Traffic
from streaming.wire.messages import (
    CODED_KIND,
    MAX_TOKENS_PER_MESSAGE,
    CodedTokens,
    End,
    Failure,
    Gap,
    Hello,
    Join,
    Message,
    StreamInfo,
    Tokens,
    clean_text,
    encoded_size,
)

__all__ = ["MAX_LAG_S", "Hub"]

MAX_LAG_S: Final = 30.0
_MAX_SPARE_S: Final = 600.0


class Hub:
    """The stream as it stands, and everyone who listens to it.

    Args:
        entropy_coding: whether packets are to be published in fewer bits as well (:meth:`code`).

    Attributes:
        history: what is held of the stream.
        traffic: what each listener is sent of the live stream.
        drops: how many were sent away, by the code of the failure.
        joins: how many came.
        returns: how many of them came for what they had missed.
        most_listeners: how many there were at once.
    """

    def __init__(
        self,
        info: StreamInfo,
        *,
        history_tokens: int = HISTORY_TOKENS,
        max_lag_s: float = MAX_LAG_S,
        entropy_coding: bool = False,
    ) -> None:
        self.entropy_coding = entropy_coding
        self.delay_s = 0.0
        self.lost_tokens = 0  # left out because the source lost them
        self.drops: Counter[str] = Counter()
        self.joins = 0
        self.returns = 0
        self.most_listeners = 0
        self.traffic = Traffic()
        # Whoever joins at the far end, or lags, must not have the ground taken from under its feet.
        spare = round(min(max_lag_s, _MAX_SPARE_S) * TOKEN_RATE) + MAX_TOKENS_PER_MESSAGE
        self.history = History(info, history_tokens, spare)
        self.max_lag_s = max_lag_s
        self._released_s: float | None = None
        self._last_word: End | Failure | None = None
        self._subscriptions: set[Subscription] = set()
        self._outlets = 0

    @property
    def info(self) -> StreamInfo:
        """The stream."""
        return self.history.info

    @property
    def next_token(self) -> int:
        """The live edge, one past the last token published."""
        return self.history.next_token

    @property
    def listeners(self) -> int:
        """How many listeners are joined; an outlet that hands the stream on to others is none."""
        return len(self._subscriptions) - self._outlets

    @property
    def dropped_listeners(self) -> int:
        """How many fell too far behind."""
        return self.drops["lag"]

    def lags_s(self) -> list[float]:
        """How far each listener has fallen behind, see :attr:`Subscription.lag_s`."""
        return [
            subscription.lag_s for subscription in self._subscriptions if not subscription.outlet
        ]

    def age_s(self, now_s: float) -> float | None:
        """Seconds since the last packet was released; None before the first one."""
        return None if self._released_s is None else max(0.0, now_s - self._released_s)

    @property
    def ended(self) -> bool:
        """Whether nothing more will be published."""
        return self._last_word is not None

    @property
    def away(self) -> bool:
        """Whether that is because the sender goes and means to come back."""
        return isinstance(self._last_word, Failure)

    @property
    def title(self) -> str:
        """The title announced last."""
        return self.history.title

    def code(self, packet: Tokens) -> CodedTokens | None:
        """The next packet in fewer bits, to be published along with it; None if it has none.

        Takes milliseconds: a worker thread's business.
        """
        return code_packet(self.history, packet)

    def publish(
        self,
        tokens: NDArray[np.int64],
        now_s: float,
        delay_s: float = 0.0,
        unix_s: float | None = None,
        *,
        late: bool = False,
        coded: CodedTokens | None = None,
    ) -> None:
        """Send the next packet, int64 ``[n]``, 1 <= n <= 1024, to all and keep it for rewinding.

        Args:
            delay_s: seconds from the source sample at the packet's end to this moment.
            unix_s: this moment by the clock on the wall; without it nobody can ask for an hour.
            late: it comes in a burst after it was held up, so that nobody has fallen behind by it.
            coded: see :meth:`code`.
        """
        if late:
            self._forgive(len(tokens))
        packet = Tokens(self.next_token, np.array(tokens))  # whose owner may go on to use it
        packet.check()
        self.delay_s = max(0.0, delay_s)
        self._released_s = now_s
        ended_s = None if unix_s is None else unix_s - self.delay_s
        self.history.append_packet(packet, ended_s, coded)
        self._count(packet, now_s, len(tokens))

    def begin_anew(self, info: StreamInfo, token: int) -> None:
        """Another stream takes the place of this one, with ``token`` as its next.

        All listeners are asked to come again: what follows is not what they can go on with.
        """
        self.history.begin_anew(info, token)
        for subscription in list(self._subscriptions):
            self.leave(subscription)
            subscription.fail(Failure("away", "The stream begins anew here."))

    def set_title(self, title: str, token: int, now_s: float) -> bool:
        """Announce that ``title`` begins at ``token``; False, and no word, when it is the same."""
        title = clean_text(title)
        if title == self.title:
            return False
        self._count(self.history.append_title(title, token), now_s)
        return True

    def skip(self, count: int, now_s: float) -> None:
        """Leave out ``count`` tokens that the source lost."""
        gap = Gap(self.next_token, count)
        self.lost_tokens += count
        self._forgive(count)  # however long it is, it is one message
        self.history.skip(count)
        self._count(gap, now_s)

    def end(self, reason: str, now_s: float) -> None:
        """The stream is over: everyone is told, and nothing more is sent."""
        self._close(End(self.next_token, reason), now_s)

    def go_away(self, reason: str, now_s: float) -> None:
        """The stream is not over, but nothing more is sent here: listeners do well to come back."""
        self._close(Failure("away", reason), now_s)

    def hello(self, first_token: int, now_s: float) -> Hello:
        """The stream as of this moment, for who is sent it from ``first_token`` on."""
        return self.history.hello(first_token, self.age_s(now_s) or 0.0, self.delay_s)

    def join(
        self,
        join: Join,
        now_s: float,
        wake: Callable[[], None] = lambda: None,
        *,
        outlet: bool = False,
    ) -> Subscription:
        """Let a listener in: hello, titles and history as of this moment, then the live stream.

        Args:
            wake: called whenever there is something new to take, or nothing ever more.
            outlet: whether it is no listener but an outlet that hands the stream on to others.
        """
        hello = self.hello(self.history.first_token(join), now_s)
        coded = CODED_KIND in join.kinds
        subscription = Subscription(self.history, hello, wake, outlet=outlet, coded=coded)
        if self._last_word is not None:
            subscription.close(self._last_word)
        self._subscriptions.add(subscription)
        self._outlets += outlet
        self.joins += not outlet
        came_back = bool(join.stream) and join.stream == self.info.stream
        self.returns += came_back and not outlet
        self.most_listeners = max(self.most_listeners, self.listeners)
        wake()
        return subscription

    def leave(self, subscription: Subscription) -> None:
        """Forget a listener; a second time does nothing."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
            self._outlets -= subscription.outlet

    def drop(self, subscription: Subscription) -> None:
        """Let go of a listener that has fallen behind; who has left already is no such one."""
        if subscription in self._subscriptions:
            self.leave(subscription)
            self.drops["lag"] += not subscription.outlet
            reason = f"This listener fell more than {self.max_lag_s:g} s behind the stream."
            subscription.fail(Failure("lag", reason))

    def _close(self, last_word: End | Failure, now_s: float) -> None:
        if self._last_word is None:
            self._last_word = last_word
            for subscription in self._subscriptions:
                subscription.close(last_word)
            self._count(last_word, now_s)

    def _forgive(self, tokens: int) -> None:
        for subscription in self._subscriptions:
            subscription.forgive(tokens)

    def _count(self, message: Message, now_s: float, tokens: int = 0) -> None:
        size = encoded_size(message)
        self.traffic.add(size, now_s, tokens=tokens, end_token=self.next_token)
        for subscription in list(self._subscriptions):
            if subscription.lags(self.max_lag_s, tokens):
                self.drop(subscription)
            else:
                subscription.wake()
