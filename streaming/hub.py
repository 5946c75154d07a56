"""One stream to many listeners: rolling history, bounded queues, joining at any moment.

Plain objects without threads, sockets and clocks. Everything is called on one thread, in a program
that of the event loop.

When a queue is full: a listener that has not taken the tokens of ``max_lag_s`` seconds (or a
thousand messages, should they be without tokens) is dropped with an error event. What was queued
for it is let go; nobody else notices.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from codec.constants import TOKEN_RATE
from streaming.protocol import (
    MAX_TOKENS_PER_MESSAGE,
    End,
    Failure,
    Gap,
    Hello,
    Join,
    Title,
    Tokens,
    clean_text,
)
from streaming.stats import Traffic

__all__ = ["HISTORY_TOKENS", "MAX_LAG_S", "Hub", "Outbox", "StreamInfo"]

HISTORY_TOKENS: Final = 1024
"""Tokens kept for those who join: 41 s, 1792 bytes."""
MAX_LAG_S: Final = 30.0
_MAX_QUEUED_MESSAGES: Final = 1000
_MAX_TITLES: Final = 64


@dataclass(frozen=True)
class StreamInfo:
    """What does not change during a stream and is said in every hello."""

    codec: str
    weights: str
    digest: str
    seed: int
    packet_tokens: int


class Outbox:
    """What is queued for one listener. Only the hub puts in; :meth:`take` takes out.

    Attributes: ``closed`` when nothing more will be put in, ``failure`` if that is for a fault.
    """

    def __init__(self, max_lag_s: float, wake: Callable[[], None]) -> None:
        self._max_lag_s = max_lag_s
        self._wake = wake
        self._queue: deque[tuple[str | bytes, int]] = deque()
        self._behind_tokens = 0
        self.closed = False
        self.failure: Failure | None = None

    @property
    def lag_s(self) -> float:
        """Seconds of live stream that wait here; history sent on joining does not count."""
        return self._behind_tokens / TOKEN_RATE

    def put(self, message: str | bytes, live_tokens: int = 0) -> None:
        """Queue ``message``; drops everything and fails where the listener is too far behind."""
        self._queue.append((message, live_tokens))
        self._behind_tokens += live_tokens
        if self.lag_s > self._max_lag_s or len(self._queue) > _MAX_QUEUED_MESSAGES:
            reason = f"This listener fell more than {self._max_lag_s:.0f} s behind the stream."
            self.failure = Failure("lag", reason)
            self._queue.clear()
            self._behind_tokens = 0
            self._queue.append((self.failure.encode(), 0))
            self.closed = True
        self._wake()

    def close(self) -> None:
        """Nothing follows what is queued."""
        self.closed = True
        self._wake()

    def take(self) -> str | bytes | None:
        """The next message to send, which then no longer counts as waiting; None if none is."""
        if not self._queue:
            return None
        message, live_tokens = self._queue.popleft()
        self._behind_tokens -= live_tokens
        return message


class Hub:
    """The stream as it stands, and everyone who listens to it.

    Attributes: ``next_token``, the live edge, one past the last token published; ``traffic``, what
    each listener is sent of the live stream; ``dropped_listeners``, how many fell too far behind;
    ``most_listeners``, how many there were at once.
    """

    def __init__(
        self,
        info: StreamInfo,
        *,
        history_tokens: int = HISTORY_TOKENS,
        max_lag_s: float = MAX_LAG_S,
    ) -> None:
        self.info = info
        self.next_token = 0
        self.delay_s = 0.0
        self.lost_tokens = 0  # left out because the source lost them
        self.dropped_listeners = 0
        self.most_listeners = 0
        self.traffic = Traffic()
        self._history_tokens = history_tokens
        self._max_lag_s = max_lag_s
        self._packets: deque[Tokens] = deque()
        self._held_tokens = 0
        self._titles: deque[Title] = deque()
        self._released_s: float | None = None
        self._end: End | None = None
        self._outboxes: set[Outbox] = set()

    @property
    def listeners(self) -> int:
        """How many listeners are joined."""
        return len(self._outboxes)

    @property
    def ended(self) -> bool:
        """Whether the stream is over."""
        return self._end is not None

    @property
    def title(self) -> str:
        """The title announced last."""
        return self._titles[-1].title if self._titles else ""

    def publish(self, tokens: NDArray[np.int64], now_s: float, delay_s: float = 0.0) -> None:
        """Send the next packet, int64 ``[n]``, 1 <= n <= 1024, to all and keep it as history.

        delay_s: seconds from the source sample at the packet's end to this moment.
        """
        packet = Tokens(self.next_token, np.array(tokens, dtype=np.int64))
        message = packet.encode()
        self.next_token = packet.end_token
        self.delay_s = max(0.0, delay_s)
        self._released_s = now_s
        self._packets.append(packet)
        self._held_tokens += len(packet.tokens)
        while self._held_tokens - len(self._packets[0].tokens) >= self._history_tokens:
            self._held_tokens -= len(self._packets.popleft().tokens)
        while len(self._titles) > 1 and self._titles[1].token <= self._oldest_token:
            self._titles.popleft()
        self._broadcast(message, now_s, len(packet.tokens))

    def set_title(self, title: str, token: int, now_s: float) -> None:
        """Announce that ``title`` begins at ``token``; nothing is sent when it is the same."""
        title = clean_text(title)
        if title == self.title:
            return
        announced = Title(title, token)
        self._titles.append(announced)
        if len(self._titles) > _MAX_TITLES:
            self._titles.popleft()
        self._broadcast(announced.encode(), now_s)

    def skip(self, count: int, now_s: float) -> None:
        """Leave out ``count`` tokens that the source lost. History does not reach across a gap."""
        gap = Gap(self.next_token, count)
        self.lost_tokens += count
        self.next_token += count
        self._packets.clear()
        self._held_tokens = 0
        self._broadcast(gap.encode(), now_s)

    def end(self, reason: str, now_s: float) -> None:
        """The stream is over: everyone is told, and nothing more is sent."""
        if self._end is not None:
            return
        self._end = End(self.next_token, reason)
        self._broadcast(self._end.encode(), now_s)
        for outbox in self._outboxes:
            outbox.close()

    def join(self, join: Join, now_s: float, wake: Callable[[], None] = lambda: None) -> Outbox:
        """Let a listener in: hello, titles and history as of this moment, then the live stream.

        wake: called whenever the outbox has something new or was closed.
        """
        oldest = self._oldest_token
        if join.next_token is not None and join.next_token <= self.next_token:
            first = max(oldest, join.next_token)
        else:
            first = max(oldest, self.next_token - join.history)
        outbox = Outbox(self._max_lag_s, wake)
        title = next((t.title for t in reversed(self._titles) if t.token <= first), "")
        age_s = 0.0 if self._released_s is None else max(0.0, now_s - self._released_s)
        hello = Hello(
            codec=self.info.codec,
            weights=self.info.weights,
            digest=self.info.digest,
            seed=self.info.seed,
            first_token=first,
            next_token=self.next_token,
            age_s=age_s,
            delay_s=self.delay_s,
            packet_tokens=self.info.packet_tokens,
            title=title,
        )
        outbox.put(hello.encode())
        for announced in self._titles:
            if announced.token > first:
                outbox.put(announced.encode())
        tokens = self._tokens_from(first)
        for start in range(0, len(tokens), MAX_TOKENS_PER_MESSAGE):
            part = tokens[start : start + MAX_TOKENS_PER_MESSAGE]
            outbox.put(Tokens(first + start, part).encode())
        if self._end is not None:
            outbox.put(self._end.encode())
            outbox.close()
        self._outboxes.add(outbox)
        self.most_listeners = max(self.most_listeners, self.listeners)
        return outbox

    def leave(self, outbox: Outbox) -> None:
        """Forget a listener; a second time does nothing."""
        self._outboxes.discard(outbox)

    @property
    def _oldest_token(self) -> int:
        return self._packets[0].first_token if self._packets else self.next_token

    def _tokens_from(self, first: int) -> NDArray[np.int64]:
        """Held tokens ``[first, next_token)``."""
        held = [packet.tokens for packet in self._packets if packet.end_token > first]
        if not held:
            return np.zeros(0, dtype=np.int64)
        return np.concatenate(held)[first - self.next_token :]

    def _broadcast(self, message: str | bytes, now_s: float, tokens: int = 0) -> None:
        size = len(message) if isinstance(message, bytes) else len(message.encode())
        self.traffic.add(size, now_s, tokens=tokens, end_token=self.next_token)
        for outbox in list(self._outboxes):
            outbox.put(message, tokens)
            if outbox.failure is not None:
                self._outboxes.discard(outbox)
                self.dropped_listeners += 1
