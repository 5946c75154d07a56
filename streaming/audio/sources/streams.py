"""Streams of bytes: a pipe, an address, a file that is read from front to back."""

from __future__ import annotations

import io
import select
import threading
from collections.abc import Iterator
from typing import Final, Protocol

from streaming.audio.sources.ffmpeg import FfmpegReader
from streaming.audio.sources.ogg import OGG_MAGIC, OggLinks
from streaming.audio.sources.readers import UNDECODABLE, ChainReader, Feed, Reader
from streaming.errors import SourceError

__all__ = ["ByteStream", "FileStream", "StreamReader"]

_POLL_S: Final = 0.1
_READ_BYTES: Final = 1 << 16


class ByteStream(Protocol):
    """Bytes, in order."""

    def read(self) -> bytes:
        """Wait for the next ones and return them; `b""` at the end, and from then on."""
        ...

    def close(self) -> None:
        """Release everything; safe to call twice."""
        ...


class FileStream:
    """What comes out of an open file or pipe, until it ends or `stopped` is set.

    A named pipe must have been opened without blocking; its first writer is waited for.
    """

    def __init__(self, file: io.FileIO, stopped: threading.Event) -> None:
        self._file = file
        self._stopped = stopped

    def read(self) -> bytes:
        """The next bytes as soon as there are any; empty at the end, or after an interruption."""
        while not self._stopped.is_set():
            if select.select([self._file], [], [], _POLL_S)[0]:
                data = self._file.read(_READ_BYTES)
                if data is not None:
                    return data
        return b""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class StreamReader(ChainReader):
    """Decodes a stream of bytes with ffmpeg, an Ogg stream link by link.

    Args:
        stream: closed with the reader, and if that cannot be made.
        name: the title if there are no tags.
        shown: what it is, for a message.
        stopped: gives up waiting.

    Raises:
        SourceError: as `FfmpegReader`.
    """

    def __init__(
        self,
        stream: ByteStream,
        name: str,
        shown: str,
        stopped: threading.Event,
    ) -> None:
        self._stream = stream
        try:
            super().__init__(_parts(stream.read, name, shown, stopped), shown)
        except BaseException:
            stream.close()
            raise

    def close(self) -> None:
        """Close the link that plays, and the stream."""
        super().close()
        self._stream.close()


def _parts(feed: Feed, name: str, shown: str, stopped: threading.Event) -> Iterator[Reader | str]:
    head = b""
    while len(head) < len(OGG_MAGIC) and (data := feed()):
        head += data
    feed = _resumed(head, feed)
    if head[: len(OGG_MAGIC)] != OGG_MAGIC:
        yield FfmpegReader(feed, name, stopped, shown=shown)
        return
    links = OggLinks(feed)
    while links.next_link() and not stopped.is_set():
        link = _Link(links)
        try:
            yield FfmpegReader(link.read, name, stopped)
        except SourceError:
            yield UNDECODABLE
        link.end()


class _Link:
    """One link for one decoder, which may want less of it than there is."""

    def __init__(self, links: OggLinks) -> None:
        self._links = links
        self._turn = threading.Lock()
        self._ended = False

    def read(self) -> bytes:
        """The next bytes as soon as there are any; empty at the end, or after an interruption."""
        with self._turn:
            return b"" if self._ended else self._links.read()

    def end(self) -> None:
        """From here on the decoder gets nothing."""
        with self._turn:
            self._ended = True


def _resumed(head: bytes, feed: Feed) -> Feed:
    """`feed` with `head` before it."""
    rest = [head]
    return lambda: rest.pop() if rest else feed()
