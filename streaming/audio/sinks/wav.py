"""A WAV writer whose file is valid at every moment, also when the program is killed.

libsndfile writes the sizes into the header when the file is closed; here they follow the
data once a second. Recordings beyond 4 GiB (six hours) turn into RF64, for which the header
keeps a reserve (EBU Tech 3306).
"""

from __future__ import annotations

import os
import struct
from typing import Final

__all__ = ["WavWriter"]

_SIZE_LIMIT: Final = 0xFFFF_FFFF
_DS64_BYTES: Final = 28
_HEADER: Final = struct.Struct("<4sI4s 4sI28s 4sIHHIIHH 4sI")
_PCM: Final = 1
_SAMPLE_BYTES: Final = 2


class WavWriter:
    """Writes interleaved little-endian 16-bit samples.

    Args:
        descriptor: of an empty file, open for writing; closed here, also if this fails.
        rate: samples per second and channel.
        channels: samples per frame.

    Raises (also from `write` and `close`):
        OSError: the file cannot be written.
    """

    def __init__(self, descriptor: int, rate: int, channels: int) -> None:
        self._rate = rate
        self._channels = channels
        self._data_bytes = 0
        self._unmarked_bytes = 0
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        try:
            self._write_all(self._header())
        except OSError:
            self._file.close()
            raise

    def write(self, data: bytes) -> None:
        """Append whole frames."""
        self._write_all(data)
        self._data_bytes += len(data)
        self._unmarked_bytes += len(data)
        if self._unmarked_bytes >= self._rate * self._channels * _SAMPLE_BYTES:
            self._mark()

    def close(self) -> None:
        """Bring the header up to date and close; safe to call twice."""
        if not self._file.closed:
            try:
                self._mark()
            finally:
                self._file.close()

    def _mark(self) -> None:
        self._unmarked_bytes = 0
        self._file.seek(0)
        self._write_all(self._header())
        self._file.seek(0, os.SEEK_END)

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:  # an unbuffered write may be cut short, by a disk that fills up for one
            view = view[self._file.write(view) :]

    def _header(self) -> bytes:
        data = self._data_bytes
        riff = _HEADER.size - 8 + data
        frame_bytes = self._channels * _SAMPLE_BYTES
        if riff <= _SIZE_LIMIT:
            start = (b"RIFF", riff, b"WAVE", b"JUNK", _DS64_BYTES, b"")
        else:
            sizes = struct.pack("<QQQI", riff, data, data // frame_bytes, 0)
            start = (b"RF64", _SIZE_LIMIT, b"WAVE", b"ds64", _DS64_BYTES, sizes)
        bits = 8 * _SAMPLE_BYTES
        byte_rate = self._rate * frame_bytes
        form = (b"fmt ", 16, _PCM, self._channels, self._rate, byte_rate, frame_bytes, bits)
        return _HEADER.pack(*start, *form, b"data", min(data, _SIZE_LIMIT))
