"""What played from which token on, as far as it is kept for rewinding."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

from streaming.wire.messages import Title

__all__ = ["Announcement", "TitleSieve", "Titles"]

_MOST_AT_ONCE: Final = 16
_MOST: Final = 1024
_MOST_AHEAD_TOKENS: Final = 1500
"""A minute: no title is told that long before its music."""


@dataclass(frozen=True)
class Announcement:
    """A title as it is told.

    Attributes:
        number: its own.
        place: it is told to who has been sent everything before this token.
    """

    number: int
    place: int
    title: Title


class Titles:
    """Titles in the order of their tokens; the oldest are forgotten beyond a thousand.

    All listeners read from here, each title by its number, so that titles are kept once and not
    for each listener. Of titles that begin with the same token the last one counts.
    """

    def __init__(self) -> None:
        self._kept: list[Announcement] = []
        self._next_number = 0

    @property
    def last(self) -> str:
        """The title announced last; empty if there is none."""
        return self._kept[-1].title.title if self._kept else ""

    def add(self, title: str, token: int, edge: int) -> Title:
        """``title`` begins at ``token``; ``edge`` is the next token of the stream.

        Returns:
            It with the token that it is given, in order and not far ahead.
        """
        token = min(token, edge + _MOST_AHEAD_TOKENS)
        if self._kept:
            token = max(token, self._kept[-1].title.token)
            if token == self._kept[-1].title.token:
                del self._kept[-1]
        added = Title(title, token)
        announcement = Announcement(self._next_number, min(token, edge), added)
        self._kept.append(announcement)
        self._next_number += 1
        del self._kept[:-_MOST]
        return added

    def at(self, token: int) -> str:
        """What plays at ``token``; empty if nothing is known of it."""
        return next((a.title.title for a in reversed(self._kept) if a.title.token <= token), "")

    def after(self, token: int) -> int:
        """Number of the first one that begins later, if there is one."""
        later = (a.number for a in self._kept if a.title.token > token)
        return next(later, self._next_number)

    def get(self, number: int) -> Announcement | None:
        """The one with this number, or the next one that is kept; None if there is none yet."""
        if number >= self._next_number:
            return None
        return self._kept[bisect_left(self._kept, number, key=lambda a: a.number)]

    def forget_before(self, token: int) -> None:
        """Nobody asks any more for what ended before ``token``."""
        while len(self._kept) > 1 and self._kept[1].title.token <= token:
            del self._kept[0]

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()
        self._next_number = 0


class TitleSieve:
    """Lets through so many titles between two pieces of music that nobody is flooded.

    The first few go on at once; of all further ones the last, when there is music again.
    """

    def __init__(self) -> None:
        self._passed = 0
        self._held: Title | None = None

    def passes(self, title: Title) -> bool:
        """Whether ``title`` goes on now; if not, it may come out of :meth:`music`."""
        self._passed += 1
        self._held = title if self._passed > _MOST_AT_ONCE else None
        return self._held is None

    def music(self) -> Title | None:
        """There is music, before which the title that was held, if any, goes on."""
        held, self._held = self._held, None
        self._passed = 0
        return held
