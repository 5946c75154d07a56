"""Which reader a file needs, and which files of a folder are audio."""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from streaming.audio.sources.ffmpeg import FfmpegReader, ffmpeg_program
from streaming.audio.sources.lengths import Promise, flac_samples, promise
from streaming.audio.sources.ogg import OGG_MAGIC, OggLinks
from streaming.audio.sources.readers import (
    CORRUPT,
    ENDS_EARLY,
    UNDECODABLE,
    ChainReader,
    Reader,
    SoundFileReader,
    quoted,
)
from streaming.audio.sources.streams import FileStream, StreamReader
from streaming.errors import SourceError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["AUDIO_SUFFIXES", "audio_files", "open_file"]

AUDIO_SUFFIXES: Final = frozenset(
    f".{name}"
    for names in (
        ("wav", "wave", "flac", "ogg", "oga", "opus", "mp3", "aif", "aiff", "aifc", "au", "snd"),
        ("caf", "w64", "rf64", "m4a", "m4b", "aac", "mp4", "mka", "webm", "wma", "wv", "ape"),
        ("mpc", "tta", "ac3", "dts", "amr", "mp2", "spx"),
    )
    for name in names
)
"""The files of a folder that are tried; files named one by one are tried whatever their name."""

_READ_BYTES: Final = 1 << 16


def audio_files(folder: Path, onerror: Callable[[OSError], None] | None = None) -> list[Path]:
    """The audio files under `folder`, at all levels, sorted by path.

    Links to folders are not followed. Whatever is not a file, such as a named pipe, is left out.
    `onerror` is told of every folder that cannot be read.
    """
    found: list[Path] = []
    for parent, _, names in os.walk(folder, onerror=onerror):
        paths = [Path(parent, name) for name in names]
        found += [path for path in paths if path.suffix.lower() in AUDIO_SUFFIXES and _may_be(path)]
    return sorted(found)


def _may_be(path: Path) -> bool:
    """Whether it is a file, or a broken link, which is worth a word when its turn comes."""
    return path.is_file() or not path.exists()


def open_file(path: Path, stopped: threading.Event) -> Reader:
    """A reader for the audio file or named pipe at `path`, chosen by what it holds.

    Uncompressed sound whose header tells the truth about its length is libsndfile's: exact, and
    without a process. All else is ffmpeg's if that is installed, since it plays on after
    damage and does without lengths; what it does not know goes to libsndfile. Without ffmpeg
    libsndfile plays what it can.

    Raises:
        SourceError: missing, unreadable, empty, or nothing that can be decoded here.
    """
    try:
        if not path.exists():
            raise SourceError(f"{quoted(path)} does not exist.")
        if path.is_dir():
            raise SourceError(f"{quoted(path)} is a folder.")
        if path.is_fifo():
            return _open_pipe(path, stopped)
        if not path.is_file():
            raise SourceError(f"{quoted(path)} is neither a file nor a pipe.")
        with path.open("rb") as file:
            head = file.read(12)
            if not head:
                raise SourceError(f"{quoted(path)} is empty.")
            promised, flac = promise(file), flac_samples(file)
        reader = _open(path, head, promised, stopped)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no such name is possible"
        raise SourceError(f"{quoted(path)} cannot be read: {reason}.") from error
    if promised is Promise.BROKEN:
        reader.damage = ENDS_EARLY
    reader.expected_frames = reader.expected_frames or flac
    return reader


def _open(path: Path, head: bytes, promised: Promise | None, stopped: threading.Event) -> Reader:
    has_ffmpeg = ffmpeg_program() is not None
    try:
        if head.startswith(OGG_MAGIC):
            return ChainReader(_links(path, stopped), quoted(path))
        if not has_ffmpeg:
            return SoundFileReader(path, path.stem)
    except SourceError as error:
        if has_ffmpeg:
            raise
        raise SourceError(
            f"{quoted(path)} is not in a format that can be decoded without ffmpeg, "
            "which is not installed."
        ) from error
    if promised is Promise.KEPT:
        with contextlib.suppress(SourceError):
            return _uncompressed(path)
    # Of itself ffmpeg doubts a WAV file's length of 0, but not that of an RF64 file.
    endless = promised is Promise.NONE and head.endswith(b"WAVE")
    options = ("-ignore_length", "1") if endless else ()
    try:
        return FfmpegReader(path, path.stem, stopped, options)
    except SourceError:
        if promised is None:
            raise
        return _uncompressed(path)


def _open_pipe(path: Path, stopped: threading.Event) -> Reader:
    if ffmpeg_program() is None:
        raise SourceError(
            f"{quoted(path)} is a pipe, which takes ffmpeg, and that is not installed."
        )
    file = io.FileIO(os.open(path, os.O_RDONLY | os.O_NONBLOCK))  # waits for no writer here
    return StreamReader(FileStream(file, stopped), path.stem, quoted(path), stopped)


def _uncompressed(path: Path) -> Reader:
    reader = SoundFileReader(path, path.stem)
    if not reader.uncompressed:
        reader.close()
        raise SourceError(f"{quoted(path)} is not audio that can be decoded.")
    return reader


def _links(path: Path, stopped: threading.Event) -> Iterator[Reader | str]:
    """The links of an Ogg file, each looked through before it is played.

    libsndfile plays those that are intact, to the exact sample, and ffmpeg what it does not know.
    """
    with path.open("rb", buffering=0) as file:
        links = OggLinks(lambda: file.read(_READ_BYTES))
        start = 0
        while links.next_link():
            end = start + sum(map(len, iter(links.read, b"")))
            with _Part(path, start, end) as part:
                yield _open_link(part, path.stem, links.intact, stopped)
            start = end
        if not links.complete:
            yield ENDS_EARLY


def _open_link(part: _Part, name: str, intact: bool, stopped: threading.Event) -> Reader | str:
    with contextlib.suppress(SourceError):
        if intact or ffmpeg_program() is None:
            reader = SoundFileReader(part, name)
            reader.damage = None if intact else CORRUPT
            return reader
    with contextlib.suppress(SourceError):
        part.seek(0)
        return FfmpegReader(lambda: part.read(_READ_BYTES), name, stopped)
    return UNDECODABLE


class _Part(io.RawIOBase):
    """The bytes of a file from one place to another, as a file."""

    def __init__(self, path: Path, start: int, end: int) -> None:
        self._file = path.open("rb")
        self._start, self._end = start, end
        self._file.seek(start)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer).cast("B")
        return self._file.readinto(view[: max(0, self._end - self._file.tell())])

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: self._start, os.SEEK_CUR: self._file.tell(), os.SEEK_END: self._end}
        return self._file.seek(base[whence] + offset) - self._start

    def tell(self) -> int:
        return self._file.tell() - self._start

    def close(self) -> None:
        self._file.close()
        super().close()
