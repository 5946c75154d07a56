"""Standard input: any audio that can be read from a pipe, or bare samples."""

from __future__ import annotations

import io
import logging
import os
import select
import stat
import sys
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from codec.constants import CHANNELS, SAMPLE_RATE
from streaming.audio.resample import MAX_RATE, MIN_RATE
from streaming.audio.sources.base import DecodedSource
from streaming.audio.sources.channels import to_stereo
from streaming.audio.sources.ffmpeg import ffmpeg_program
from streaming.audio.sources.readers import Feed, Reader, SoundFileReader
from streaming.audio.sources.streams import FileStream, StreamReader
from streaming.errors import SettingsError, SourceError

__all__ = ["RawFormat", "RawReader", "StdinSource"]

logger = logging.getLogger(__name__)

_POLL_S: Final = 0.1
_MAX_CHANNELS: Final = 64
_NAME: Final = "standard input"


@dataclass(frozen=True)
class RawFormat:
    """Bare interleaved little-endian samples: "s16" or "f32", their rate and channels."""

    encoding: str
    rate: int = SAMPLE_RATE
    channels: int = CHANNELS

    @classmethod
    def parse(cls, text: str) -> RawFormat:
        """Read `ENCODING[:RATE[:CHANNELS]]`, for instance "f32", "s16:44100" or "s16:44100:1".

        Raises:
            SettingsError: it says something else.
        """
        encoding, *numbers = text.split(":")
        encoding = encoding.removesuffix("le")
        try:
            rate, channels = [int(number) for number in numbers] + [SAMPLE_RATE, CHANNELS][
                len(numbers) :
            ]
        except ValueError:
            rate = channels = 0
        if (
            encoding not in ("s16", "f32")
            or not MIN_RATE <= rate <= MAX_RATE
            or not 1 <= channels <= _MAX_CHANNELS
        ):
            raise SettingsError(
                f"{text!r} is not a sample format; write s16 or f32, then the rate and the "
                "channels if they are not 48000 and 2, as in s16:44100:2."
            )
        return cls(encoding, rate, channels)


class RawReader(Reader):
    """Reads bare samples from a stream of bytes, as they come in."""

    def __init__(self, feed: Feed, raw: RawFormat, name: str) -> None:
        super().__init__(raw.rate, name)
        self._feed = feed
        self._channels = raw.channels
        self._is_float = raw.encoding == "f32"
        self._frame_bytes = raw.channels * (4 if self._is_float else 2)
        self._rest = b""

    def _read(self, frames: int) -> NDArray[np.float32]:
        while len(self._rest) < self._frame_bytes:
            if not (data := self._feed()):
                return np.zeros((CHANNELS, 0), np.float32)
            self._rest += data
        whole = min(frames, len(self._rest) // self._frame_bytes) * self._frame_bytes
        data, self._rest = self._rest[:whole], self._rest[whole:]
        return to_stereo(self._decode(data).reshape(-1, self._channels))

    def _decode(self, data: bytes) -> NDArray[np.float32]:
        if self._is_float:
            return np.frombuffer(data, "<f4").astype(np.float32)
        return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768.0)

    def interrupt(self) -> None:
        """The stream ends by itself."""

    def close(self) -> None:
        """The stream belongs to the caller."""


class StdinSource(DecodedSource):
    """Plays what comes in on standard input.

    Without `raw` the input is an audio file or stream: ffmpeg decodes it if it is
    installed; else a redirected file may have any format that libsndfile knows, and a pipe
    must carry WAV or AU, the formats that it can read without seeking.

    Args:
        raw: the input is bare samples of this format.
        title: shown while it plays.
        descriptor: read here instead of standard input.
    """

    def __init__(
        self,
        raw: RawFormat | None = None,
        title: str | None = None,
        descriptor: int | None = None,
    ) -> None:
        super().__init__(title)
        self._raw = raw
        self._descriptor = descriptor
        self._last_reader: Reader | None = None

    def _next_reader(self) -> Reader | None:
        if self._last_reader is None:
            descriptor = self._wait_for_input()
            if descriptor is None:
                return None
            try:
                self._last_reader = self._open_reader(descriptor)
            except SourceError:
                if self._stopped.is_set():
                    return None
                raise
            return self._last_reader
        if self._last_reader.frames_read == 0 and not self._stopped.is_set():
            reason = self._last_reader.damage or "it is empty"
            raise SourceError(f"Standard input cannot be played: {reason}.")
        return None

    def _reader_done(self, reader: Reader) -> None:
        if reader.damage and reader.frames_read:
            logger.warning(
                "%s was played for %.1f s only: %s.",
                _NAME.capitalize(),
                reader.seconds_read,
                reader.damage,
            )

    def _wait_for_input(self) -> int | None:
        """The descriptor once there is something to read from it; None when stopped before."""
        descriptor = sys.stdin.fileno() if self._descriptor is None else self._descriptor
        if os.isatty(descriptor):
            raise SourceError("Standard input is a terminal; send audio into it through a pipe.")
        try:
            os.read(descriptor, 0)
        except OSError as error:
            raise _unreadable(error) from None
        while not self._stopped.is_set():
            if select.select([descriptor], [], [], _POLL_S)[0]:
                return descriptor
        return None

    def _open_reader(self, descriptor: int) -> Reader:
        stream = FileStream(io.FileIO(descriptor, closefd=False), self._stopped)
        if self._raw is not None:
            return RawReader(stream.read, self._raw, _NAME)
        if ffmpeg_program() is not None:
            return StreamReader(stream, _NAME, _NAME.capitalize(), self._stopped)
        try:
            return SoundFileReader(descriptor, _NAME)
        except SourceError as error:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                advice = "install ffmpeg for more formats than WAV, FLAC, Ogg and MP3"
            else:
                advice = "without ffmpeg a pipe must carry WAV (or name the format of bare samples)"
            raise SourceError(
                f"Standard input is not audio that can be decoded; {advice}."
            ) from error


def _unreadable(error: OSError) -> SourceError:
    return SourceError(f"Standard input cannot be read ({error.strerror}); is it closed?")
