"""The sender's memory of its own stream: tokens of the last hours, by their index.

Plain objects without clocks. A token takes two bytes, so a day is 4.3 MB; blocks are made as the
stream grows and let go as it grows old, so a short stream takes little.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streaming.wire.messages import Gap, Tokens

__all__ = ["RewindBuffer"]

_BLOCK_TOKENS: Final = 4096


class RewindBuffer:
    """The newest ``capacity`` tokens of a stream, gaps included, for reading at any place.

    Attributes:
        next_token: one past the newest.
        oldest_token: the first that is held.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"a rewind buffer needs room for a token, not for {capacity}")
        self.capacity = capacity
        self.next_token = 0
        self._oldest = 0
        self._blocks: dict[int, NDArray[np.uint16]] = {}  # by number, in order; none in a gap
        self._gaps: list[tuple[int, int]] = []  # first token and one past the last, in order

    @property
    def oldest_token(self) -> int:
        """Index of the first token held; ``next_token`` when there is none."""
        return max(self._oldest, self.next_token - self.capacity)

    def start(self, token: int) -> None:
        """Forget everything: the next token has this index."""
        self.next_token = self._oldest = token
        self._blocks.clear()
        self._gaps.clear()

    def append(self, tokens: NDArray[np.int64]) -> None:
        """Take the tokens that follow, int64 ``[n]``."""
        done = 0
        while done < len(tokens):
            number, at = divmod(self.next_token, _BLOCK_TOKENS)
            if number not in self._blocks:
                self._blocks[number] = np.zeros(_BLOCK_TOKENS, np.uint16)
            count = min(_BLOCK_TOKENS - at, len(tokens) - done)
            self._blocks[number][at : at + count] = tokens[done : done + count]
            self.next_token += count
            done += count
        self._forget()

    def skip(self, count: int) -> None:
        """``count`` tokens are missing here."""
        first, self.next_token = self.next_token, self.next_token + count
        if self.oldest_token >= first:
            self.start(self.next_token)  # nothing is left from before
            return
        if self._gaps and self._gaps[-1][1] == first:
            first = self._gaps.pop()[0]
        self._gaps.append((first, self.next_token))
        self._forget()

    def read(self, first: int, most: int) -> Tokens | Gap | None:
        """At most ``most`` tokens from ``first`` on, or the gap that is there; None at the end.

        What is no longer held is a gap as well.
        """
        if first >= self.next_token:
            return None
        if first < self.oldest_token:
            return Gap(first, self.oldest_token - first)
        index = bisect_right(self._gaps, first, key=lambda gap: gap[0])
        if index and first < self._gaps[index - 1][1]:
            return Gap(first, self._gaps[index - 1][1] - first)
        end = self._gaps[index][0] if index < len(self._gaps) else self.next_token
        end = min(end, first + most)
        pieces, at = [], first
        while at < end:
            number, offset = divmod(at, _BLOCK_TOKENS)
            piece = self._blocks[number][offset : offset + end - at]
            pieces.append(piece)
            at += len(piece)
        return Tokens(first, np.concatenate(pieces).astype(np.int64))

    def _forget(self) -> None:
        oldest = self.oldest_token
        while self._blocks and ((first := next(iter(self._blocks))) + 1) * _BLOCK_TOKENS <= oldest:
            del self._blocks[first]
        while self._gaps and self._gaps[0][1] <= oldest:
            self._gaps.pop(0)
