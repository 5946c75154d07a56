"""Readers: one audio file or stream each, at its own sample rate, mixed to stereo."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final

import numpy as np
import soundfile
from numpy.typing import NDArray

from streaming.errors import SourceError
from streaming.sources.channels import to_stereo
from streaming.status import printable

__all__ = ["Reader", "SoundFileReader", "quoted", "tagged_title"]

_TITLE_LIMIT: Final = 200
_OGG_PAGE: Final = b"OggS"
_OGG_LAST_PAGE: Final = 0x04
_OGG_TAIL_BYTES: Final = 1 << 17  # an Ogg page has at most 65307 bytes


def quoted(path: Path | str) -> str:
    """A file's name for a message: one line, in quotation marks."""
    return f"'{printable(str(path), 300)}'"


def tagged_title(title: str, artist: str, fallback: str) -> str:
    """What to show for a file: "artist – title" as far as it is tagged, else `fallback`."""
    title = printable(title, _TITLE_LIMIT).strip()
    artist = printable(artist, _TITLE_LIMIT).strip()
    if title and artist:
        return printable(f"{artist} – {title}", _TITLE_LIMIT)
    return title or printable(fallback, _TITLE_LIMIT).strip()


class Reader(ABC):
    """Audio from one place. After the end, `damage` says what was wrong with it, if anything.

    Attributes:
        rate: samples per second of what `read` returns.
        title: what to show while it plays.
        frames_read: samples returned so far.
        damage: None, or how the audio fell short ("it ends early").
    """

    def __init__(self, rate: int, title: str) -> None:
        self.rate = rate
        self.title = title
        self.frames_read = 0
        self.damage: str | None = None

    def read(self, frames: int) -> NDArray[np.float32]:
        """1 to `frames` finite samples `[2, n]`; `[2, 0]` at the end, also of bad audio."""
        block = self._read(frames)
        self.frames_read += block.shape[1]
        return block

    @abstractmethod
    def _read(self, frames: int) -> NDArray[np.float32]:
        """As `read`."""

    @abstractmethod
    def interrupt(self) -> None:
        """Make a `read` that waits in another thread return."""

    @abstractmethod
    def close(self) -> None:
        """Release everything; safe to call twice."""


class SoundFileReader(Reader):
    """Reads what libsndfile reads: WAV, FLAC, Ogg Vorbis, Opus, MP3, AIFF, AU, CAF, W64.

    Args:
        file: a path, or the descriptor of a pipe (which libsndfile reads for WAV and AU only).
        name: the title if the file has no tags.

    Raises:
        SourceError: libsndfile cannot open it.
    """

    def __init__(self, file: Path | int, name: str) -> None:
        try:
            self._file = soundfile.SoundFile(
                str(file) if isinstance(file, Path) else file, closefd=False
            )
        except (soundfile.SoundFileError, OSError, ValueError) as error:
            shown = quoted(file if isinstance(file, Path) else name)
            raise SourceError(f"{shown} is not audio that can be decoded.") from error
        super().__init__(
            self._file.samplerate, tagged_title(self._file.title, self._file.artist, name)
        )
        self._path = file if isinstance(file, Path) else None
        self._is_ogg = self._file.format == "OGG"
        self._seekable = self._file.seekable()

    def _read(self, frames: int) -> NDArray[np.float32]:
        try:
            block = self._file.read(frames, dtype="float32", always_2d=True)
        except soundfile.SoundFileError:
            self.damage = "it is corrupt"
            return np.zeros((2, 0), np.float32)
        if len(block) == 0 and self.damage is None:
            self.damage = self._shortfall()
        return to_stereo(block, ogg_order=self._is_ogg)

    def _shortfall(self) -> str | None:
        """What is missing at the end of the file, as far as its format lets us know."""
        if self._path is None or not self._seekable:
            return None
        # libsndfile cuts the length of a truncated WAV or AIFF to what is there and says so
        # in its log alone.
        truncated = (
            self.frames_read < self._file.frames
            or "(should be" in self._file.extra_info
            or (self._is_ogg and not _ogg_is_complete(self._path))
        )
        return "it ends early" if truncated else None

    def interrupt(self) -> None:
        """A file never waits."""

    def close(self) -> None:
        self._file.close()


def _ogg_is_complete(path: Path) -> bool:
    """Whether the last page of an Ogg file is marked as the last one (RFC 3533, section 6)."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _OGG_TAIL_BYTES))
            tail = file.read()
    except OSError:
        return False
    at = tail.rfind(_OGG_PAGE)
    return 0 <= at < len(tail) - 5 and bool(tail[at + 5] & _OGG_LAST_PAGE)
