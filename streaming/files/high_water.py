"""Up to which number the tokens of a stored stream may have been sent.

What is stored may be less than what was sent: a disk was full, a power cut took what was not on it
yet, a file was lost. If the numbers of such tokens were given to others, a listener that has heard
them would silently pass over as many new ones.

So a small file holds two numbers. One is exact, and is handed to the system before the tokens are
sent: it holds however the program ends. The other is ahead of it, and is on the disk before the
tokens up to it are sent: it holds after a power cut, at the price of numbers that were never sent.
"""

from __future__ import annotations

import errno
import io
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from codec.constants import TOKEN_RATE
from streaming.errors import ProtocolError
from streaming.files.muc.framing import frame, scan
from streaming.support.locking import sync_folder
from streaming.wire.messages import MAX_INDEX, MAX_NAME
from streaming.wire.parsing import parse_object

__all__ = ["RESERVED_TOKENS", "HighWaterMark"]

RESERVED_TOKENS: Final = 10 * TOKEN_RATE
"""So many numbers at most are left out after a power cut; the disk is told as often."""
_SLOT_BYTES: Final = 512
"""A sector, which is written whole or not at all; the two are written in turns."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_MOST_WRITES: Final = 2**53 - 1


@dataclass(frozen=True)
class _Mark:
    """One past the last token of ``stream`` that may have been sent.

    One mark holds while the system runs that calls itself ``boot``, the other after its end.
    ``write`` counts the marks.
    """

    write: int
    stream: str
    boot: str
    token: int
    reserved: int

    def encode(self) -> bytes:
        fields = {"type": "mark", **asdict(self)}
        return frame(json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode())


class HighWaterMark:
    """The mark of ``stream`` in the file ``path``, which is made if need be.

    Blocking calls; everything may raise OSError.

    Args:
        boot: names this run of the system; empty if it has no name, and then each end of the
            program that was not in good order counts as a power cut.

    Attributes:
        sent: one past the last token that may have been sent; None if nothing is known.
    """

    def __init__(self, path: Path, stream: str, boot: str | None = None) -> None:
        self._stream = stream
        self._boot = _boot_id() if boot is None else boot
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if (size := os.fstat(self._file).st_size) < 2 * _SLOT_BYTES:
                # So that a disk that fills up later has the room already.
                _write_all(self._file, bytes(2 * _SLOT_BYTES - size), size)
                os.fsync(self._file)
                sync_folder(path.parent)
            found = _newest(os.pread(self._file, 2 * _SLOT_BYTES, 0))
        except OSError:
            os.close(self._file)
            raise
        self._writes = 0 if found is None else found.write + 1
        self._token = 0  # as it was told to this object
        self._reserved = 0  # of what this object has written, on the disk
        self.sent: int | None = None
        if found is not None and found.stream == stream:
            same = bool(self._boot) and found.boot == self._boot
            self.sent = found.token if same else found.reserved

    def raise_to(self, token: int) -> None:
        """Tokens up to ``token`` are about to be sent."""
        self._token = token
        if token <= self._reserved:
            self._write(token, self._reserved)
        else:
            reserved = min(MAX_INDEX, token + RESERVED_TOKENS)
            self._write(token, reserved)
            os.fsync(self._file)
            self._reserved = reserved

    def close(self) -> None:
        """Nothing more will be sent, and no number need be left out; a second time does nothing."""
        if self._file < 0:
            return
        try:
            if self._token:
                self._write(self._token, self._token)
                os.fsync(self._file)
        finally:
            os.close(self._file)
            self._file = -1

    def _write(self, token: int, reserved: int) -> None:
        mark = _Mark(self._writes, self._stream, self._boot, token, reserved)
        slot = self._writes % 2 * _SLOT_BYTES
        _write_all(self._file, mark.encode().ljust(_SLOT_BYTES, b"\0"), slot)
        self._writes += 1


def _write_all(descriptor: int, data: bytes, at: int) -> None:
    if os.pwrite(descriptor, data, at) < len(data):  # which a full disk does
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _newest(data: bytes) -> _Mark | None:
    """The last mark that was written and is whole."""
    marks = [mark for message, _ in scan(io.BytesIO(data)) if (mark := _read_mark(message))]
    return max(marks, key=lambda mark: mark.write, default=None)


def _read_mark(message: bytes) -> _Mark | None:
    try:
        kind, read = parse_object(message.decode())
        if kind != "mark":
            return None
        return _Mark(
            read.integer("write", high=_MOST_WRITES),
            read.text("stream", MAX_NAME),
            read.text("boot", MAX_NAME),
            read.integer("token"),
            read.integer("reserved"),
        )
    except (ProtocolError, UnicodeDecodeError):
        return None


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
