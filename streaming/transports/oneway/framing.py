"""Frames for a link that carries bytes and nothing else: two bytes before a body, two behind it.

    sync and kind (10101 kkk) | length of the body (8 bits) | body | CRC-16, or a keyed tag

The checksum is CRC-16/IBM-3740 (polynomial 1021, initial value FFFF, big-endian; "CCITT-FALSE").
It finds every damage of up to three bits and every burst of up to 16. Before the frame it runs over
a *salt* that is not sent: what both ends know already, such as the weights and the seed. So a frame
of another stream, or one that would land elsewhere, is as wrong as one that is damaged.

If both ends have a key, six bytes in the checksum's place are a tag: BLAKE2s with that key and
a digest of six bytes, over the same salt and frame. Who has no key can neither make a frame
nor change one.

No byte is escaped. A reader tries every place where a frame could begin, and takes what has the
right checksum; so damage costs the frames that it hits and no other.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

__all__ = [
    "MAX_BODY",
    "MAX_FRAME",
    "MAX_KEY_BYTES",
    "Frame",
    "Kind",
    "Scanner",
    "encode_frame",
    "frame_overhead",
]

_SYNC: Final = 0b10101_000
_HEADER_BYTES: Final = 2
_CRC_BYTES: Final = 2
_CRC_START: Final = 0xFFFF
_TAG_BYTES: Final = 6
MAX_BODY: Final = 255
MAX_FRAME: Final = MAX_BODY + _HEADER_BYTES + _TAG_BYTES
MAX_KEY_BYTES: Final = hashlib.blake2s.MAX_KEY_SIZE


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
"""The salt of a frame of this kind with a body of so many bytes; None if there is no such."""


def frame_overhead(key: bytes = b"") -> int:
    """Bytes of a frame beside its body."""
    return _HEADER_BYTES + _check_bytes(key)


def encode_frame(kind: Kind, body: bytes, salt: bytes = b"", key: bytes = b"") -> bytes:
    """A frame around ``body``.

    Args:
        salt: enters its checksum or tag without being sent.
        key: of its tag; empty: it has a checksum.

    Raises:
        ValueError: the body is too long.
    """
    if len(body) > MAX_BODY:
        raise ValueError(f"a frame holds at most {MAX_BODY} bytes, not {len(body)}")
    data = bytes((_SYNC | kind, len(body))) + body
    return data + _check(salt, data, key)


class Scanner:
    """Finds frames in what comes from a link, whatever is between them.

    Feed it with :meth:`push`, then call :meth:`next` until it returns None. It holds less than a
    frame, and looks at each byte as the beginning of at most one.

    Args:
        expect: the salt of a frame of a certain kind and length; None: there can be no such.
        key: of the frames' tags; empty: they have checksums.
        place: with a key, what goes behind the salt of a frame with a certain body.
    """

    def __init__(
        self,
        expect: Expect,
        key: bytes = b"",
        place: Callable[[Kind, bytes], bytes] = lambda kind, body: b"",
    ) -> None:
        self._expect = expect
        self._key = key
        self._place = place
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
        """The next frame; None if more bytes are needed."""
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
            whole = end + _check_bytes(self._key)
            if whole > len(data):
                return None
            body = data[self._at + _HEADER_BYTES : end]
            if self._key:
                salt += self._place(kind, body)
            check = _check(salt, data[self._at : end], self._key)
            if hmac.compare_digest(check, data[end:whole]):
                self._at = whole
                return Frame(kind, body)
            self._at += 1
        return None


def _check_bytes(key: bytes) -> int:
    return _TAG_BYTES if key else _CRC_BYTES


def _check(salt: bytes, data: bytes, key: bytes) -> bytes:
    if key:
        return hashlib.blake2s(salt + data, key=key, digest_size=_TAG_BYTES).digest()
    checksum = binascii.crc_hqx(data, binascii.crc_hqx(salt, _CRC_START))
    return checksum.to_bytes(_CRC_BYTES, "big")
