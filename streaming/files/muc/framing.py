"""Records in a file, such that damage costs only the records that it hits.

A file begins with eight bytes of magic; then come records:

    sync (16 bits: F3 50) | length (16 bits) | CRC-32 (32 bits) | message

all big-endian; length and CRC-32 are those of the message. A reader that meets anything else looks
for the next sync marker behind which length and checksum are right, so it needs nothing from the
damaged part, not even its length, and not the magic either.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final

__all__ = ["MAGIC", "MAX_MESSAGE", "RECORD_OVERHEAD", "frame", "scan"]

MAGIC: Final = b"\x89MUC\r\n\x1a\n"
"""As PNG's: a transfer that takes the file for text damages it where one sees it at once."""
MAX_MESSAGE: Final = 2048
"""Bytes; 1024 tokens are 1797, and bounded so that a damaged file costs little time to look at."""
_SYNC: Final = b"\xf3\x50"
_HEADER: Final = struct.Struct(">2sHI")
RECORD_OVERHEAD: Final = _HEADER.size
_CHUNK_BYTES: Final = 1 << 16


def frame(message: bytes) -> bytes:
    """A record around ``message``. Raises ValueError if that is empty or too long."""
    if not 1 <= len(message) <= MAX_MESSAGE:
        raise ValueError(f"a record holds 1 to {MAX_MESSAGE} bytes, not {len(message)}")
    return _HEADER.pack(_SYNC, len(message), zlib.crc32(message)) + message


def scan(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """The messages of all whole records from where ``file`` stands, each with where it ends.

    Reads as it goes, so that files of any length take little memory. Trusts nothing. Raises OSError
    if reading fails.
    """
    data, base, at_end = b"", file.tell(), False
    while True:
        at = 0
        # Up to the end a record may still be incomplete, and is looked at again with more data.
        while (at := data.find(_SYNC, at)) >= 0:
            if not at_end and len(data) - at < _HEADER.size + MAX_MESSAGE:
                break
            message = _message_at(data, at)
            if message is None:
                at += 1
            else:
                at += _HEADER.size + len(message)
                yield message, base + at
        if at_end:
            return
        done = at if at >= 0 else max(0, len(data) - 1)  # the last byte may begin a marker
        more = file.read(_CHUNK_BYTES)
        at_end = not more
        data, base = data[done:] + more, base + done


def _message_at(data: bytes, at: int) -> bytes | None:
    """The message of the record that begins there, if one does."""
    if len(data) - at < _HEADER.size:
        return None
    _, length, checksum = _HEADER.unpack_from(data, at)
    begin = at + _HEADER.size
    if not 1 <= length <= MAX_MESSAGE or begin + length > len(data):
        return None
    message = data[begin : begin + length]
    return message if zlib.crc32(message) == checksum else None
