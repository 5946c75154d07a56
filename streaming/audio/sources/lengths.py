"""How much sound an audio file's header promises, against how much there is.

Programs that write into a pipe, and recorders that were killed, leave sizes of 0 or as large as
the field allows. Those say nothing. A smaller size that the file does not reach says that the
end of the sound is missing.
"""

from __future__ import annotations

import enum
import os
import struct
from dataclasses import dataclass
from typing import BinaryIO, Final

__all__ = ["Promise", "flac_samples", "promise"]


class Promise(enum.Enum):
    """What the header of a file of uncompressed sound, or one like it, is worth."""

    KEPT = enum.auto()
    """It names a length, and the file has all of it."""
    BROKEN = enum.auto()
    """It names a length, and the file ends before."""
    NONE = enum.auto()
    """It names none."""


@dataclass(frozen=True)
class _Chunks:
    """How a format is cut into chunks; `sound` begins the name of the one with the samples."""

    first: int
    head: struct.Struct
    sound: bytes
    padding: int = 2
    size_counts_head: bool = False
    kinds: tuple[bytes, ...] = ()
    """What follows the file's size, if other formats are cut alike."""


_WAVE = (b"WAVE",)
_FORMATS: Final = {
    b"RIFF": _Chunks(12, struct.Struct("<4sI"), b"data", kinds=_WAVE),
    b"RIFX": _Chunks(12, struct.Struct(">4sI"), b"data", kinds=_WAVE),
    b"RF64": _Chunks(12, struct.Struct("<4sI"), b"data", kinds=_WAVE),
    b"BW64": _Chunks(12, struct.Struct("<4sI"), b"data", kinds=_WAVE),
    b"FORM": _Chunks(12, struct.Struct(">4sI"), b"SSND", kinds=(b"AIFF", b"AIFC")),
    b"riff": _Chunks(40, struct.Struct("<16sq"), b"data", padding=8, size_counts_head=True),
    b"caff": _Chunks(8, struct.Struct(">4sq"), b"data", padding=1),
}
_AU: Final = struct.Struct(">4sII")
_DS64: Final = struct.Struct("<QQ")  # sizes of the file and of the samples (EBU Tech 3306)
_MOST_CHUNKS: Final = 1000
_FLAC_HEAD: Final = 26
_FLAC_COUNT_BITS: Final = 36


def promise(file: BinaryIO) -> Promise | None:
    """Compare a WAV, RF64, W64, AIFF, CAF or AU file's header with the file; None: it is none."""
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    magic = file.read(4)
    if magic == b".snd":
        file.seek(0)
        head = file.read(_AU.size)
        if len(head) < _AU.size:
            return Promise.NONE
        _, start, size = _AU.unpack(head)
        if start + size < end:  # a file that was appended to
            return Promise.NONE
        return _judge(size, end - start)
    layout = _FORMATS.get(magic)
    if layout is None or (layout.kinds and file.read(8)[4:] not in layout.kinds):
        return None
    at, long_size = layout.first, 0
    for _ in range(_MOST_CHUNKS):
        file.seek(at)
        head = file.read(layout.head.size)
        if len(head) < layout.head.size:
            break
        name, size = layout.head.unpack(head)
        at += len(head)
        size -= len(head) if layout.size_counts_head else 0
        if name.startswith(layout.sound):
            if magic in (b"RF64", b"BW64") and size == 0xFFFF_FFFF:
                size = long_size
            return _judge(size, end - at)
        if name == b"ds64":
            sizes = file.read(_DS64.size)
            long_size = _DS64.unpack(sizes)[1] if len(sizes) == _DS64.size else 0
        if size < 0:
            break
        at += -(-size // layout.padding) * layout.padding
    return Promise.NONE


def _judge(size: int, there: int) -> Promise:
    if 0 < size <= there:
        return Promise.KEPT
    unknown = (
        size <= 0
        or 0x7FFF_0000 <= size <= 0x8000_0000
        or 0xFFFF_0000 <= size <= 0xFFFF_FFFF
        or size >= 1 << 62
    )
    return Promise.NONE if unknown else Promise.BROKEN


def flac_samples(file: BinaryIO) -> int | None:
    """Samples per channel that a FLAC file's header promises; None: it does not (RFC 9639, 8.2)."""
    file.seek(0)
    head = file.read(_FLAC_HEAD)
    if len(head) < _FLAC_HEAD or head[:4] != b"fLaC":
        return None
    most = (1 << _FLAC_COUNT_BITS) - 1
    count = int.from_bytes(head[18:26], "big") & most
    return None if count in (0, most) else count
