"""Frames for a link that carries bytes and nothing else: two bytes before a body, two behind it.

    sync and kind (10101 kkk) | length of the body (8 bits) | body | CRC-16

The checksum is CRC-16/IBM-3740 (polynomial 1021, initial value FFFF, big-endian; "CCITT-FALSE").
It finds every damage of up to three bits and every burst of up to 16. Before the frame it runs over
a *salt* that is not sent: what both ends know already, such as the weights and the seed. So a frame
of another stream, or one that would land elsewhere, is as wrong as one that is damaged.

No byte is escaped. A reader tries every place where a frame could begin, and takes what has the
right checksum; so damage costs the frames that it hits and no other.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

__all__ = ["FRAME_OVERHEAD", "MAX_BODY", "MAX_FRAME", "Frame", "Kind", "Scanner", "encode_frame"]

_SYNC: Final = 0b10101_000
_HEADER_BYTES: Final = 2
_CRC_BYTES: Final = 2
_CRC_START: Final = 0xFFFF
FRAME_OVERHEAD: Final = _HEADER_BYTES + _CRC_BYTES
MAX_BODY: Final = 255
MAX_FRAME: Final = MAX_BODY + FRAME_OVERHEAD


class Kind(IntEnum):
    """What a frame holds; three bits."""

    HELLO = 0
    TOKENS = 1
    PLACED = 2
    PARITY = 3
    TITLE = 4
    END = 5


_KINDS: Final = {int(kind): kind for kind in Kind}


@dataclass(frozen=True)
class Frame:
    """A frame whose checksum was right."""

    kind: Kind
    body: bytes


Expect = Callable[[Kind, int], "bytes | None"]
"""The salt of a frame of this kind with a body of so many bytes; None where there is no such."""


def encode_frame(kind: Kind, body: bytes, salt: bytes = b"") -> bytes:
    """A frame around ``body``. Raises ValueError where that is too long."""
    if len(body) > MAX_BODY:
        raise ValueError(f"a frame holds at most {MAX_BODY} bytes, not {len(body)}")
    data = bytes((_SYNC | kind, len(body))) + body
    return data + _checksum(salt, data).to_bytes(_CRC_BYTES, "big")


class Scanner:
    """Finds frames in what comes from a link, whatever is between them.

    Feed it with :meth:`push`, then call :meth:`next` until it returns None. It holds less than a
    frame, and looks at each byte as the beginning of at most one.
    """

    def __init__(self, expect: Expect) -> None:
        self._expect = expect
        self._data = b""
        self._at = 0

    @property
    def unread_bytes(self) -> int:
        """How many bytes have been pushed and not been looked at."""
        return len(self._data) - self._at

    def push(self, data: bytes) -> None:
        """Take more bytes."""
        self._data = self._data[self._at :] + data
        self._at = 0

    def clear(self) -> None:
        """What was begun is not gone on with: the end of a datagram."""
        self._data, self._at = b"", 0

    def next(self) -> Frame | None:
        """The next frame; None where more bytes are needed."""
        data = self._data
        while self._at < len(data):
            kind = _KINDS.get(data[self._at] ^ _SYNC)
            if kind is None:
                self._at += 1
                continue
            if self._at + 1 == len(data):
                return None
            length = data[self._at + 1]
            salt = self._expect(kind, length)
            end = self._at + _HEADER_BYTES + length
            if salt is None:
                self._at += 1
                continue
            if end + _CRC_BYTES > len(data):
                return None
            checksum = int.from_bytes(data[end : end + _CRC_BYTES], "big")
            if _checksum(salt, data[self._at : end]) == checksum:
                body = data[self._at + _HEADER_BYTES : end]
                self._at = end + _CRC_BYTES
                return Frame(kind, body)
            self._at += 1
        return None


def _checksum(salt: bytes, data: bytes) -> int:
    return binascii.crc_hqx(data, binascii.crc_hqx(salt, _CRC_START))
