"""Readers: one audio file or stream each, at its own sample rate, mixed to stereo."""

from __future__ import annotations

import io
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import soundfile
from numpy.typing import NDArray

from codec.constants import CHANNELS, SAMPLE_RATE
from streaming.audio.resample import MAX_RATE, MIN_RATE
from streaming.audio.sources.channels import to_stereo
from streaming.errors import SourceError
from streaming.support.status_line import printable

__all__ = [
    "CORRUPT",
    "ENDS_EARLY",
    "UNDECODABLE",
    "ChainReader",
    "Feed",
    "Reader",
    "SoundFileReader",
    "check_rate",
    "quoted",
    "tagged_title",
]

logger = logging.getLogger(__name__)

Feed = Callable[[], bytes]
"""Waits for the next bytes of a stream and returns them; `b""` at its end, and from then on."""

ENDS_EARLY: Final = "it ends early"
CORRUPT: Final = "it is corrupt"
UNDECODABLE: Final = "a part of it cannot be decoded"
_TITLE_LIMIT: Final = 200
_SECRET: Final = re.compile(r"^(\w+://)[^/?#]*@")


def quoted(place: Path | str) -> str:
    """A file's name or an address for a message: one line in quotation marks, no password in it."""
    shown = _SECRET.sub(r"\1", str(place))
    return f"'{printable(shown, 300)}'"


def tagged_title(title: str, artist: str, fallback: str) -> str:
    """What to show for a file: "artist – title" as far as it is tagged, else `fallback`."""
    title = printable(title, _TITLE_LIMIT).strip()
    artist = printable(artist, _TITLE_LIMIT).strip()
    if title and artist:
        return printable(f"{artist} – {title}", _TITLE_LIMIT)
    return title or printable(fallback, _TITLE_LIMIT).strip()


def check_rate(rate: int, shown: str) -> None:
    """Raise SourceError if sound of that rate cannot be resampled; shown: what it is of."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise SourceError(
            f"{shown} has {rate} samples a second; from {MIN_RATE} to {MAX_RATE} can be played."
        )


class Reader(ABC):
    """Audio from one place. After the end, `damage` says what was wrong with it, if anything.

    Attributes:
        rate: samples per second of what `read` returned last.
        title: what to show while that plays.
        frames_read, seconds_read: how much was returned so far.
        expected_frames: as many as there should be; None if that is not known.
        damage: None, or how the audio fell short ("it ends early").
    """

    def __init__(self, rate: int, title: str) -> None:
        self.rate = rate
        self.title = title
        self.frames_read = 0
        self.seconds_read = 0.0
        self.expected_frames: int | None = None
        self.damage: str | None = None

    def read(self, frames: int) -> NDArray[np.float32]:
        """1 to `frames` finite samples `[2, n]`; `[2, 0]` at the end, also of bad audio."""
        try:
            block = self._read(frames)
        except Exception as error:  # a fault of a library's must not end what plays after this
            logger.debug("reading failed", exc_info=True)
            self.damage = f"reading it failed ({printable(str(error) or type(error).__name__)})"
            block = np.zeros((CHANNELS, 0), np.float32)
        self.frames_read += block.shape[1]
        self.seconds_read += block.shape[1] / self.rate
        if not block.shape[1] and self.frames_read < (self.expected_frames or 0):
            self.damage = self.damage or ENDS_EARLY
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
        file: a path, an open file, or the descriptor of a pipe (which libsndfile reads for WAV
            and AU only).
        name: the title if the file has no tags.

    Raises:
        SourceError: libsndfile cannot open it.
    """

    def __init__(self, file: Path | io.RawIOBase | int, name: str) -> None:
        shown = quoted(file if isinstance(file, Path) else name)
        try:
            self._file = soundfile.SoundFile(
                str(file) if isinstance(file, Path) else file, closefd=False
            )
        except Exception as error:  # of many types, a TypeError among them
            raise SourceError(f"{shown} is not audio that can be decoded.") from error
        try:
            check_rate(self._file.samplerate, shown)
        except SourceError:
            self._file.close()
            raise
        super().__init__(
            self._file.samplerate, tagged_title(self._file.title, self._file.artist, name)
        )
        self._is_ogg = self._file.format == "OGG"
        self.uncompressed = self._file.format not in ("FLAC", "OGG", "MP3") and (
            self._file.subtype.startswith(("PCM", "FLOAT", "DOUBLE", "ULAW", "ALAW"))
        )
        if self._file.seekable() and (self.uncompressed or self._is_ogg):
            self.expected_frames = self._file.frames  # of others it may be a guess

    def _read(self, frames: int) -> NDArray[np.float32]:
        try:
            block = self._file.read(frames, dtype="float32", always_2d=True)
        except soundfile.SoundFileError:
            self.damage = f"{CORRUPT}, or of unknown length; ffmpeg may play more of it"
            return np.zeros((CHANNELS, 0), np.float32)
        return to_stereo(block, ogg_order=self._is_ogg)

    def interrupt(self) -> None:
        """A file never waits."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class ChainReader(Reader):
    """Plays readers one after another as one: rate and title are those of the current reader.

    Args:
        parts: the readers, opened one by one as they are needed and closed in here; instead of
            one that cannot be opened, what is wrong with it.
        shown: what they are parts of, for a message.

    Raises:
        SourceError: there is no reader among them.
    """

    def __init__(self, parts: Iterator[Reader | str], shown: str) -> None:
        super().__init__(SAMPLE_RATE, "")
        self._parts = parts
        self._part = self._next()
        if self._part is None:
            raise SourceError(f"{shown} is not audio that can be decoded.")
        self.rate, self.title = self._part.rate, self._part.title

    def _read(self, frames: int) -> NDArray[np.float32]:
        while self._part is not None:
            block = self._part.read(frames)
            if block.shape[1]:
                self.rate, self.title = self._part.rate, self._part.title
                return block
            self.damage = self.damage or self._part.damage
            self._part.close()
            self._part = self._next()
        return np.zeros((CHANNELS, 0), np.float32)

    def _next(self) -> Reader | None:
        for part in self._parts:
            if isinstance(part, Reader):
                return part
            self.damage = self.damage or part
        return None

    def interrupt(self) -> None:
        """Interrupt the reader that plays."""
        part = self._part
        if part is not None:
            part.interrupt()

    def close(self) -> None:
        """Close the reader that plays."""
        part, self._part = self._part, None
        if part is not None:
            part.close()
