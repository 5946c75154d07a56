"""What played from which token on, as far as it is kept for rewinding."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from streaming.protocol import Title

__all__ = ["Titles"]

_MOST: Final = 1024


class Titles:
    """Titles in the order of their tokens; the oldest are forgotten beyond a thousand."""

    def __init__(self) -> None:
        self._titles: deque[Title] = deque(maxlen=_MOST)

    @property
    def last(self) -> str:
        """The title announced last; empty where there is none."""
        return self._titles[-1].title if self._titles else ""

    def add(self, title: Title) -> None:
        """``title`` follows."""
        self._titles.append(title)

    def at(self, token: int) -> str:
        """What plays at ``token``; empty where nothing is known of it."""
        return next((t.title for t in reversed(self._titles) if t.token <= token), "")

    def after(self, token: int) -> Iterator[Title]:
        """Those that begin later."""
        return (title for title in self._titles if title.token > token)

    def forget_before(self, token: int) -> None:
        """Nobody asks any more for what ended before ``token``."""
        while len(self._titles) > 1 and self._titles[1].token <= token:
            self._titles.popleft()

    def clear(self) -> None:
        """Forget all."""
        self._titles.clear()
