"""A ``.muc`` file that grows: what was appended survives however the program ends."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from streaming.files.muc.framing import scan
from streaming.files.muc.messages import Record, StreamHeader, end_token, read_message
from streaming.files.muc.writer import MucMuxer
from streaming.support.locking import lock, sync_folder
from streaming.wire.messages import MAX_GAP_TOKENS, Tokens

__all__ = ["MucAppender", "Survey"]

_SYNC_S: Final = 5.0


@dataclass(frozen=True)
class Survey:
    """How a file stands: its first header, one past its last token, where its last record ends.

    Attributes:
        closed_tokens: those of gaps that are closed, see
            :data:`streaming.wire.messages.MAX_GAP_TOKENS`.
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

    A program that is killed then loses none of them. The disk is told to keep the header at once,
    and every five seconds what has come since. A torn record at the end, which only a crash of the
    machine leaves, is cut off when the file is opened again. The file is locked until it is closed,
    so that nobody else appends to it. What could not be appended is not there in part either.

    Args:
        header: of a file that is new or has nothing whole in it; it is written at once.
        new: there must be no such file.
        clock: monotonic seconds.

    Attributes:
        bytes: the file's length.
        survey: what was there before.

    Raises:
        OSError: from everything.
        FileExistsError: there is a file, and it is to be new.
        BlockingIOError: another program appends to it.
    """

    def __init__(
        self,
        path: Path,
        header: StreamHeader,
        *,
        new: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._synced_s = clock()
        made = _create(path)
        if new and not made:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        self._file: BinaryIO = path.open("ab", buffering=0)
        try:
            lock(self._file.fileno())
        except OSError:
            self._file.close()
            raise
        try:
            self.survey = Survey.of(path)
            self.bytes = self.survey.whole_bytes
            self._file.truncate(self.bytes)
            self._muxer = MucMuxer(header, fresh=not self.bytes)
            if begin := self._muxer.begin():
                self._write(begin)
                self.sync()
        except BaseException:
            if made:
                with contextlib.suppress(OSError):
                    path.unlink()
            self._file.close()
            raise
        if made:
            sync_folder(path.parent)

    def append(self, record: Record) -> None:
        """Write one record, with a header where one is due."""
        self._write(self._muxer.push(record))
        if self._clock() - self._synced_s >= _SYNC_S:
            self.sync()

    def sync(self) -> None:
        """Bring what was written to the disk, where a power cut leaves it alone."""
        self._synced_s = self._clock()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Complete the file; a second time does nothing; never raises."""
        if not self._file.closed:
            with contextlib.suppress(OSError):
                self.sync()
            with contextlib.suppress(OSError):
                self._file.close()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:  # an unbuffered write may be cut short, by a disk that fills up for one
                view = view[self._file.write(view) :]
        except OSError:
            with contextlib.suppress(OSError):  # otherwise it is damage, which readers pass over
                self._file.truncate(self.bytes)
            raise
        self.bytes += len(data)


def _create(path: Path) -> bool:
    """Make an empty file, unless there is one already; says whether it was made."""
    try:
        path.open("xb").close()
    except FileExistsError:
        return False
    return True
