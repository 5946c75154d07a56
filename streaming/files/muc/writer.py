"""Writes ``.muc`` files: records one after another, the header again now and then."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from codec.constants import SAMPLES_PER_TOKEN
from streaming.files.muc.framing import MAGIC, frame
from streaming.files.muc.messages import Finish, Record, StreamHeader, message_bytes
from streaming.wire.messages import Title, Tokens

__all__ = ["RECORD_TOKENS", "MucEncoder", "MucMuxer"]

RECORD_TOKENS: Final = 256
"""Tokens of a record (10 s, 448 bytes), where nothing speaks for fewer.

Framing and index are 3 % of them, and so much is lost when one byte is damaged.
"""
_HEADER_EVERY: Final = 16_384
"""Tokens (eleven minutes), after which the header is written again: 0.6 % of them."""


class MucMuxer:
    """Records to bytes, which are to be appended to one file in this order.

    A second header follows the first tokens, and more follow later, so that no damage in one place
    can hide what the file is.

    Args:
        fresh: whether the file is still empty.
    """

    def __init__(self, header: StreamHeader, *, fresh: bool = True) -> None:
        self.header = header
        self._header_bytes = frame(message_bytes(header))
        self._fresh = fresh
        self._until_header = 1

    def begin(self) -> bytes:
        """What a file begins with; nothing if it has begun. The first :meth:`push` gives it too."""
        fresh, self._fresh = self._fresh, False
        return MAGIC + self._header_bytes if fresh else b""

    def push(self, record: Record) -> bytes:
        """What to append for ``record``: tokens in records of at most :data:`RECORD_TOKENS`."""
        out = [self.begin()]
        if isinstance(record, Tokens):
            for at in range(0, len(record.tokens), RECORD_TOKENS):
                part = record.tokens[at : at + RECORD_TOKENS]
                out.append(frame(Tokens(record.first_token + at, part).encode()))
                self._until_header -= len(part)
                if self._until_header <= 0:
                    out.append(self._header_bytes)
                    self._until_header = _HEADER_EVERY
        else:
            out.append(frame(message_bytes(record)))
        return b"".join(out)


class MucEncoder:
    """A whole file from its tokens, in as few records as can be."""

    def __init__(self, header: StreamHeader) -> None:
        self._muxer = MucMuxer(header)
        self._pending = np.zeros(0, dtype=np.int64)
        self._written = header.first_token

    def title(self, title: str) -> bytes:
        """Bytes to append: ``title`` plays from the next token on."""
        return self._muxer.push(Title(title, self._written + len(self._pending)))

    def tokens(self, tokens: NDArray[np.int64]) -> bytes:
        """Bytes to append for further tokens, int64 ``[n]``, n >= 0; may be none as yet."""
        self._pending = np.concatenate([self._pending, tokens])
        whole = len(self._pending) // RECORD_TOKENS * RECORD_TOKENS
        return self._flush(whole)

    def finish(self, samples: int) -> bytes:
        """Bytes to append at the end of music of ``samples`` at 48 kHz.

        Raises ValueError if the last token does not hold the last sample.
        """
        last = self._flush(len(self._pending))
        padding = (self._written - self._muxer.header.music_from) * SAMPLES_PER_TOKEN - samples
        if not 0 <= padding < SAMPLES_PER_TOKEN:
            raise ValueError(f"{self._written} tokens are not those of {samples} samples")
        return last + self._muxer.push(Finish(self._written, padding))

    def _flush(self, count: int) -> bytes:
        if not count:
            return b""
        tokens, self._pending = self._pending[:count], self._pending[count:]
        first, self._written = self._written, self._written + count
        return self._muxer.push(Tokens(first, tokens))
