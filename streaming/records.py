"""What a segment of a stored stream holds: eight bytes of magic, then records,

    length (16 bits) | CRC-32 of what follows (32 bits) | kind (8 bits) | body

all big-endian, the length that of kind and body.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from streaming.errors import ProtocolError
from streaming.packing import pack_tokens, packed_size, unpack_tokens
from streaming.protocol import (
    MAX_INDEX,
    MAX_TOKENS_PER_MESSAGE,
    Gap,
    Title,
    Tokens,
    clean_text,
)

__all__ = ["MAGIC", "Record", "Stamped", "end_token", "read_records", "record_bytes"]

MAGIC: Final = b"M350LOG1"
_HEADER: Final = struct.Struct(">HI")
_TOKENS: Final = struct.Struct(">BId")  # kind, index, Unix time of the last one's end
_TITLE: Final = struct.Struct(">BI")
_GAP: Final = struct.Struct(">BII")
_TOKENS_KIND, _TITLE_KIND, _GAP_KIND = _KINDS = 1, 2, 3
_MAX_BODY: Final = _TOKENS.size + packed_size(MAX_TOKENS_PER_MESSAGE)


@dataclass(frozen=True)
class Stamped:
    """Tokens and the Unix time at which the last of them ended."""

    tokens: Tokens
    unix_s: float


Record: TypeAlias = Stamped | Title | Gap


def record_bytes(record: Record) -> bytes:
    """As it is written."""
    if isinstance(record, Stamped):
        packet = record.tokens
        body = _TOKENS.pack(_TOKENS_KIND, packet.first_token, record.unix_s)
        body += pack_tokens(packet.tokens)
    elif isinstance(record, Title):
        body = _TITLE.pack(_TITLE_KIND, record.token) + clean_text(record.title).encode()
    else:
        body = _GAP.pack(_GAP_KIND, record.first_token, record.count)
    return _HEADER.pack(len(body), zlib.crc32(body)) + body


def read_records(data: bytes) -> Iterator[tuple[Record, int]]:
    """The whole records of a segment, each with the place where it ends.

    Trusts nothing in ``data``: what is damaged is passed over, up to the next record whose length,
    kind and checksum are right.
    """
    if not data.startswith(MAGIC):
        return
    at = len(MAGIC)
    while at + _HEADER.size < len(data):
        length, checksum = _HEADER.unpack_from(data, at)
        begin = at + _HEADER.size
        record = None
        if length <= _MAX_BODY and data[begin] in _KINDS:
            body = data[begin : begin + length]
            if len(body) == length and zlib.crc32(body) == checksum:
                record = _read_record(body)
        if record is None:
            at += 1
        else:
            at = begin + length
            yield record, at


def end_token(record: Record) -> int:
    """One past the last token that it speaks of; 0 for a title."""
    if isinstance(record, Gap):
        return record.first_token + record.count
    return record.tokens.end_token if isinstance(record, Stamped) else 0


def _read_record(body: bytes) -> Record | None:
    try:
        if body[:1] == bytes([_TOKENS_KIND]):
            _, first, unix_s = _TOKENS.unpack_from(body)
            values = unpack_tokens(body[_TOKENS.size :])
            if len(values) and first + len(values) <= MAX_INDEX and 0 <= unix_s < 1e12:
                return Stamped(Tokens(first, values), unix_s)
        elif body[:1] == bytes([_TITLE_KIND]):
            _, token = _TITLE.unpack_from(body)
            return Title(clean_text(body[_TITLE.size :].decode()), token)
        elif body[:1] == bytes([_GAP_KIND]) and len(body) == _GAP.size:
            _, first, count = _GAP.unpack(body)
            if count and first + count <= MAX_INDEX:
                return Gap(first, count)
    except (struct.error, ProtocolError, UnicodeDecodeError):
        pass
    return None
