"""One stream to many listeners: rewind buffer, joining at any moment, nothing queued twice.

Plain objects without threads, sockets and clocks. Everything is called on one thread, in a program
that of the event loop.

A listener is a place in the stream (:mod:`streaming.stream.outbox`): what it is to be sent is read
from the rewind buffer when its connection has room, so a thousand listeners that are an hour behind
take no more memory than those who are live. One that has fallen ``max_lag_s`` seconds further back
than it was before is dropped with an error event; nobody else notices. Who catches up on what was
missed, or listens to the past on purpose, is not behind in this sense.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from codec.constants import TOKEN_RATE
from streaming.stream.coded import PacketWriter
from streaming.stream.outbox import Outbox
from streaming.stream.packets import Packets
from streaming.stream.rewind import RewindBuffer
from streaming.stream.timeline import Timeline
from streaming.stream.titles import Titles
from streaming.stream.traffic import Traffic
from streaming.wire.messages import (
    CODED_KIND,
    MAX_TOKENS_PER_MESSAGE,
    End,
    Failure,
    Gap,
    Hello,
    Join,
    StreamInfo,
    Title,
    Tokens,
    clean_text,
)

__all__ = ["HISTORY_TOKENS", "MAX_LAG_S", "Hub"]

HISTORY_TOKENS: Final = 1024
"""Tokens kept for those who join, where nothing else is asked for: 41 s."""
MAX_LAG_S: Final = 30.0
_MAX_SPARE_S: Final = 600.0


class Hub:
    """The stream as it stands, and everyone who listens to it.

    entropy_coding: code packets in fewer bits for listeners that take them so.

    Attributes: ``rewind``, what is held of the stream; ``timeline``, when it played; ``titles``,
    what is announced in it; ``traffic``, what each listener is sent of the live stream; ``drops``,
    how many were sent away, by the code of the failure; ``joins``, how many came, ``returns`` of
    them for what they had missed; ``most_listeners``, how many there were at once; ``max_lag_s``.
    """

    def __init__(
        self,
        info: StreamInfo,
        *,
        history_tokens: int = HISTORY_TOKENS,
        max_lag_s: float = MAX_LAG_S,
        entropy_coding: bool = False,
    ) -> None:
        self._writer = PacketWriter() if entropy_coding else None
        self.info = info
        self.delay_s = 0.0
        self.lost_tokens = 0  # left out because the source lost them
        self.drops: Counter[str] = Counter()
        self.joins = 0
        self.returns = 0
        self.most_listeners = 0
        self.traffic = Traffic()
        self._history_tokens = history_tokens
        # Whoever joins at the far end, or lags, must not have the ground taken from under its feet.
        spare = round(min(max_lag_s, _MAX_SPARE_S) * TOKEN_RATE) + MAX_TOKENS_PER_MESSAGE
        self.rewind = RewindBuffer(history_tokens + spare)
        self.timeline = Timeline()
        self.max_lag_s = max_lag_s
        self.titles = Titles()
        self._released_s: float | None = None
        self._packets = Packets(self.rewind)
        self._last_word: End | Failure | None = None
        self._outboxes: set[Outbox] = set()
        self._carriers = 0

    @property
    def next_token(self) -> int:
        """The live edge, one past the last token published."""
        return self.rewind.next_token

    @property
    def listeners(self) -> int:
        """How many listeners are joined; one that carries the stream on to others is none."""
        return len(self._outboxes) - self._carriers

    @property
    def dropped_listeners(self) -> int:
        """How many fell too far behind."""
        return self.drops["lag"]

    def lags_s(self) -> list[float]:
        """How far each listener has fallen behind, see :attr:`Outbox.lag_s`."""
        return [outbox.lag_s for outbox in self._outboxes if not outbox.carrier]

    def age_s(self, now_s: float) -> float | None:
        """Seconds since the last packet was released; None before the first one."""
        return None if self._released_s is None else max(0.0, now_s - self._released_s)

    @property
    def held_s(self) -> float:
        """Seconds of the stream that can be listened to again."""
        held = self.next_token - self.rewind.oldest_token
        return min(held, self._history_tokens) / TOKEN_RATE

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
        return self.titles.last

    def publish(
        self,
        tokens: NDArray[np.int64],
        now_s: float,
        delay_s: float = 0.0,
        unix_s: float | None = None,
        *,
        late: bool = False,
    ) -> None:
        """Send the next packet, int64 ``[n]``, 1 <= n <= 1024, to all and keep it for rewinding.

        delay_s: seconds from the source sample at the packet's end to this moment. unix_s: this
        moment by the clock on the wall; without it nobody can ask for an hour. late: it comes in a
        burst after it was held up, so that nobody has fallen behind by it.
        """
        if late:
            self._forgive(len(tokens))
        packet = Tokens(self.next_token, tokens)
        message = self._packets.encode(packet)
        self.delay_s = max(0.0, delay_s)
        self._released_s = now_s
        self.restore(tokens, None if unix_s is None else unix_s - self.delay_s)
        self._count(message, now_s, len(tokens))

    def restore(self, tokens: NDArray[np.int64], unix_s: float | None) -> None:
        """Keep tokens, int64 ``[n]``, for rewinding; the last of them ended at ``unix_s``."""
        if unix_s is not None:
            self.timeline.note(self.next_token, unix_s - len(tokens) / TOKEN_RATE)
        self.rewind.append(tokens)
        oldest = self.rewind.oldest_token
        self.timeline.forget_before(oldest)
        self.titles.forget_before(oldest)

    def go_on_at(self, token: int) -> None:
        """Make ``token`` the next one; what lies between was lost, unless nothing came before."""
        if not self.next_token:
            self.rewind.start(token)
        elif token > self.next_token:
            self.rewind.skip(token - self.next_token)

    def begin_anew(self, info: StreamInfo, token: int) -> None:
        """Another stream takes the place of this one, with ``token`` as its next.

        All listeners are asked to come again: what follows is not what they can go on with.
        """
        self.info = info
        self.rewind.start(token)
        self.timeline = Timeline()
        self.titles.clear()
        self._packets.forget()
        for outbox in list(self._outboxes):
            self.leave(outbox)
            outbox.fail(Failure("away", "The stream begins anew here."))

    def restore_title(self, title: Title) -> None:
        """Keep a title of what is kept for rewinding."""
        self.titles.add(title.title, title.token, self.next_token)

    def set_title(self, title: str, token: int, now_s: float) -> bool:
        """Announce that ``title`` begins at ``token``; False, and no word, when it is the same."""
        title = clean_text(title)
        if title == self.title:
            return False
        announced = self.titles.add(title, token, self.next_token)
        self._count(announced.encode(), now_s)
        return True

    def skip(self, count: int, now_s: float) -> None:
        """Leave out ``count`` tokens that the source lost."""
        gap = Gap(self.next_token, count)
        self.lost_tokens += count
        self._forgive(count)  # however long it is, it is one message
        self.rewind.skip(count)
        self._count(gap.encode(), now_s)

    def end(self, reason: str, now_s: float) -> None:
        """The stream is over: everyone is told, and nothing more is sent."""
        self._close(End(self.next_token, reason), now_s)

    def go_away(self, reason: str, now_s: float) -> None:
        """The stream is not over, but nothing more is sent here: listeners do well to come back."""
        self._close(Failure("away", reason), now_s)

    def hello(self, first_token: int, now_s: float) -> Hello:
        """The stream as of this moment, for who is sent it from ``first_token`` on."""
        return Hello(
            **vars(self.info),
            first_token=first_token,
            next_token=self.next_token,
            age_s=self.age_s(now_s) or 0.0,
            delay_s=self.delay_s,
            title=self.titles.at(first_token),
            first_at_s=self.timeline.time_of(first_token),
        )

    def join(
        self,
        join: Join,
        now_s: float,
        wake: Callable[[], None] = lambda: None,
        *,
        carrier: bool = False,
    ) -> Outbox:
        """Let a listener in: hello, titles and history as of this moment, then the live stream.

        wake: called whenever the outbox has something new or was closed. carrier: whether it is no
        listener but carries the stream on to others.
        """
        first = self._first_token(join)
        outbox = Outbox(self, first, wake, carrier=carrier, coded=CODED_KIND in join.kinds)
        outbox.greet(self.hello(first, now_s).encode())
        if self._last_word is not None:
            outbox.close(self._last_word.encode())
        self._outboxes.add(outbox)
        self._carriers += carrier
        self.joins += not carrier
        came_back = bool(join.stream) and join.stream == self.info.stream
        self.returns += came_back and not carrier
        self.most_listeners = max(self.most_listeners, self.listeners)
        wake()
        return outbox

    def leave(self, outbox: Outbox) -> None:
        """Forget a listener; a second time does nothing."""
        if outbox in self._outboxes:
            self._outboxes.remove(outbox)
            self._carriers -= outbox.carrier

    def recent(self, most: int) -> Tokens | None:
        """The newest tokens without a gap between them, at most ``most``; None where none are."""
        return self._packets.recent(most)

    def drop(self, outbox: Outbox) -> None:
        """Let go of a listener that has fallen behind; who has left already is no such one."""
        if outbox in self._outboxes:
            self.leave(outbox)
            self.drops["lag"] += not outbox.carrier
            reason = f"This listener fell more than {self.max_lag_s:g} s behind the stream."
            outbox.fail(Failure("lag", reason))

    def read(
        self, place: int, most: int, known_from: int | None = None
    ) -> tuple[bytes | str | None, int]:
        """A message with at most ``most`` tokens from ``place`` on, and the place after it.

        known_from: the listener takes coded packets, and has what there is from this token on.
        """
        message, end = self._packets.read(place, most)
        newest = end == self.next_token and isinstance(message, bytes)
        if known_from is not None and self._writer is not None and newest:
            packet = self.rewind.read(place, end - place)
            assert isinstance(packet, Tokens)
            message = self._writer.write(self.info, self.rewind, packet, known_from) or message
        return message, end

    def _first_token(self, join: Join) -> int:
        """Where the history of a listener begins."""
        wanted = self.next_token - join.history
        moment = None if join.at_s is None else self.timeline.token_at(join.at_s)
        ours = not join.stream or join.stream == self.info.stream
        if moment is not None:
            wanted = moment
        elif join.next_token is not None and ours and join.next_token <= self.next_token:
            wanted = join.next_token
        oldest = max(self.rewind.oldest_token, self.next_token - self._history_tokens)
        return min(max(oldest, wanted), self.next_token)

    def _close(self, last_word: End | Failure, now_s: float) -> None:
        if self._last_word is None:
            self._last_word = last_word
            message = last_word.encode()
            for outbox in self._outboxes:
                outbox.close(message)
            self._count(message, now_s)

    def _forgive(self, tokens: int) -> None:
        for outbox in self._outboxes:
            outbox.forgive(tokens)

    def _count(self, message: str | bytes, now_s: float, tokens: int = 0) -> None:
        size = len(message) if isinstance(message, bytes) else len(message.encode())
        self.traffic.add(size, now_s, tokens=tokens, end_token=self.next_token)
        for outbox in list(self._outboxes):
            if outbox.lags(self.max_lag_s, tokens):
                self.drop(outbox)
            else:
                outbox.move()
