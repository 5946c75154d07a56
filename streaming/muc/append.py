"""A ``.muc`` file that grows: what was appended survives however the program ends."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from streaming.muc.framing import scan
from streaming.muc.messages import Record, StreamHeader, end_token, read_message
from streaming.muc.writer import MucMuxer
from streaming.protocol import MAX_GAP_TOKENS, Tokens

__all__ = ["MucAppender", "Survey"]


@dataclass(frozen=True)
class Survey:
    """How a file stands: its first header, one past its last token, where its last record ends.

    closed_tokens: those of gaps that are closed, see :data:`streaming.protocol.MAX_GAP_TOKENS`.
    """

    header: StreamHeader | None
    next_token: int
    whole_bytes: int
    file_bytes: int
    closed_tokens: int = 0

    @classmethod
    def of(cls, path: Path) -> Survey:
        """Read all of ``path``. Raises OSError and FormatVersionError."""
        header, next_token, whole = None, 0, 0
        heard, closed = 0, 0
        with path.open("rb") as file:
            for message, end in scan(file):
                record, whole = read_message(message), end
                if isinstance(record, StreamHeader):
                    header = header or record
                    next_token = max(next_token, record.first_token)
                    heard = max(heard, header.first_token)
                elif record is not None:
                    next_token = max(next_token, end_token(record))
                if isinstance(record, Tokens):
                    if record.first_token - heard > MAX_GAP_TOKENS:
                        closed += record.first_token - heard
                    heard = max(heard, record.end_token)
            size = file.seek(0, os.SEEK_END)
        return cls(header, next_token, whole, size, closed)


class MucAppender:
    """Appends records to ``path``, handing each to the system before :meth:`append` returns.

    A program that is killed then loses none of them, and a torn record at the end, which only a
    crash of the machine or a full disk leaves, is cut off when the file is opened again.

    header: of a file that is new or has nothing whole in it.

    Attributes: ``bytes``, the file's length. Everything may raise OSError.
    """

    def __init__(self, path: Path, header: StreamHeader) -> None:
        self.bytes = 0
        if path.exists():
            self.bytes = Survey.of(path).whole_bytes
            os.truncate(path, self.bytes)
        self._muxer = MucMuxer(header, fresh=not self.bytes)
        self._file: BinaryIO = path.open("ab", buffering=0)

    def append(self, record: Record) -> None:
        """Write one record, with a header where one is due."""
        view = memoryview(self._muxer.push(record))
        self.bytes += len(view)
        while view:  # an unbuffered write may be cut short, by a disk that fills up for one
            view = view[self._file.write(view) :]

    def sync(self) -> None:
        """Bring what was written to the disk, where a power cut leaves it alone."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Complete the file; a second time does nothing; never raises."""
        if not self._file.closed:
            with contextlib.suppress(OSError):
                self.sync()
            with contextlib.suppress(OSError):
                self._file.close()
