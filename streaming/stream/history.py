"""What is held of a stream: its newest tokens, when they played and what they were called.

Plain objects without threads, sockets and clocks. A sender's hub reads from here for each of its
listeners; a store, a recording that is played and a relay fill it in the same way.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from codec.constants import TOKEN_RATE
from streaming.stream.rewind import RewindBuffer
from streaming.stream.timeline import Timeline
from streaming.stream.titles import Titles
from streaming.wire.messages import (
    MAX_TOKENS_PER_MESSAGE,
    CodedTokens,
    Gap,
    Hello,
    Join,
    Message,
    StreamInfo,
    Title,
    Tokens,
)

__all__ = ["HISTORY_TOKENS", "Cursor", "History"]

HISTORY_TOKENS: Final = 1024
"""Tokens kept for those who join, where nothing else is asked for: 41 s."""
_NEWEST: Final = 4
_FEW_PACKETS: Final = 4
"""Who is further behind is sent several packets in one message."""

Piece: TypeAlias = Tokens | CodedTokens | Gap


class History:
    """The newest ``keep_tokens`` of the stream ``info``, and ``spare_tokens`` more for laggards.

    The newest packets are the same objects for everybody who reads them.

    Attributes:
        rewind: the tokens.
        timeline: when they played.
        titles: what played.
    """

    def __init__(
        self, info: StreamInfo, keep_tokens: int = HISTORY_TOKENS, spare_tokens: int = 0
    ) -> None:
        self.info = info
        self.rewind = RewindBuffer(keep_tokens + spare_tokens)
        self.timeline = Timeline()
        self.titles = Titles()
        self._keep_tokens = keep_tokens
        self._newest: dict[int, tuple[Tokens, CodedTokens | None]] = {}  # by first token

    @property
    def next_token(self) -> int:
        """The live edge, one past the last token."""
        return self.rewind.next_token

    @property
    def oldest_token(self) -> int:
        """The first token that is kept."""
        return max(self.rewind.oldest_token, self.next_token - self._keep_tokens)

    @property
    def held_s(self) -> float:
        """Seconds of the stream that can be listened to again."""
        return (self.next_token - self.oldest_token) / TOKEN_RATE

    @property
    def title(self) -> str:
        """The title announced last."""
        return self.titles.last

    def append(self, tokens: NDArray[np.int64], ended_s: float | None = None) -> None:
        """Take tokens, int64 ``[n]``, the last of which ended at the Unix time ``ended_s``."""
        if ended_s is not None:
            self.timeline.note(self.next_token, ended_s - len(tokens) / TOKEN_RATE)
        self.rewind.append(tokens)
        oldest = self.rewind.oldest_token
        self.timeline.forget_before(oldest)
        self.titles.forget_before(oldest)

    def append_packet(
        self, packet: Tokens, ended_s: float | None, coded: CodedTokens | None = None
    ) -> None:
        """The same for a packet that most listeners take next; coded: in fewer bits."""
        self._newest[packet.first_token] = packet, coded
        if len(self._newest) > _NEWEST:
            del self._newest[next(iter(self._newest))]
        self.append(packet.tokens, ended_s)

    def append_title(self, title: str, token: int) -> Title:
        """``title`` begins at ``token``; returns it with the token that it is given."""
        return self.titles.add(title, token, self.next_token)

    def skip(self, count: int) -> None:
        """``count`` tokens are missing here."""
        self.rewind.skip(count)

    def go_on_at(self, token: int) -> None:
        """Make ``token`` the next one; what lies between was lost, unless nothing came before."""
        if not self.next_token:
            self.rewind.start(token)
        elif token > self.next_token:
            self.rewind.skip(token - self.next_token)

    def begin_anew(self, info: StreamInfo, token: int) -> None:
        """Another stream takes the place of this one, with ``token`` as its next."""
        self.info = info
        self.rewind.start(token)
        self.timeline = Timeline()
        self.titles.clear()
        self._newest.clear()

    def read(
        self, place: int, most: int, known_from: int | None = None
    ) -> tuple[Piece | None, int]:
        """At most ``most`` tokens from ``place`` on, or the gap that is there; and where it ends.

        Args:
            known_from: the newest packet may be a coded one, if it is conditioned on tokens that
                are not before this one.
        """
        packet, coded = self._newest.get(place, (None, None))
        if packet is not None and packet.end_token == min(place + most, self.next_token):
            if (
                known_from is not None
                and coded is not None
                and known_from <= coded.first_token - coded.context
                and packet.end_token == self.next_token
            ):
                return coded, packet.end_token
            return packet, packet.end_token
        part = self.rewind.read(place, most)
        if part is None:
            return None, place
        return part, place + part.count if isinstance(part, Gap) else part.end_token

    def recent(self, most: int) -> Tokens | None:
        """The newest tokens without a gap between them, at most ``most``; None where none are."""
        place = max(self.rewind.oldest_token, self.next_token - most)
        newest = None
        while (part := self.rewind.read(place, most)) is not None:
            if isinstance(part, Gap):
                newest, place = None, place + part.count
            else:
                newest, place = part, part.end_token
        return newest

    def first_token(self, join: Join) -> int:
        """Where a listener begins that asks with ``join``."""
        wanted = self.next_token - join.history
        moment = None if join.at_s is None else self.timeline.token_at(join.at_s)
        ours = not join.stream or join.stream == self.info.stream
        if moment is not None:
            wanted = moment
        elif join.next_token is not None and ours and join.next_token <= self.next_token:
            wanted = join.next_token
        return min(max(self.oldest_token, wanted), self.next_token)

    def hello(self, first_token: int, age_s: float = 0.0, delay_s: float = 0.0) -> Hello:
        """The stream as of this moment, for who is sent it from ``first_token`` on."""
        return Hello(
            **vars(self.info),
            first_token=first_token,
            next_token=self.next_token,
            age_s=age_s,
            delay_s=delay_s,
            title=self.titles.at(first_token),
            first_at_s=self.timeline.time_of(first_token),
        )


class Cursor:
    """A place in a history; :meth:`take` moves it on.

    Args:
        coded: whether to take the newest packets in fewer bits.
    """

    # Thousands of these are gone through with each packet: what lies together is read faster.
    __slots__ = ("_history", "_known_from", "_live_from", "_rewind", "_title", "place")

    def __init__(self, history: History, place: int, *, coded: bool = False) -> None:
        self._history = history
        self._rewind = history.rewind
        self.place = place
        """The token that is taken next."""
        self._known_from = place if coded else None
        self._live_from = history.next_token
        self._title = history.titles.after(place)  # the next one to tell

    @property
    def exhausted(self) -> bool:
        """Whether :meth:`take` has nothing now."""
        told = self._history.titles.get(self._title) is None
        return told and self.place >= self._rewind.next_token

    def take(self) -> Message | None:
        """What comes next: a title, tokens or a gap; None when there is nothing now."""
        history, place, edge = self._history, self.place, self._rewind.next_token
        title = history.titles.get(self._title)
        if title is not None and title.place <= place:
            self._title = title.number + 1
            return title.title
        if place >= edge:
            return None
        most = MAX_TOKENS_PER_MESSAGE
        packet = history.info.packet_tokens
        if place < self._live_from:
            most = min(most, self._live_from - place)
        elif edge - place <= _FEW_PACKETS * packet:
            most = packet
        if title is not None:
            most = min(most, title.place - place)
        message, self.place = history.read(place, most, self._known_from)
        return message
