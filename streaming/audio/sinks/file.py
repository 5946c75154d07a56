"""Audio files: WAV, FLAC, Ogg Vorbis and Opus, by the suffix of their name."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from codec.constants import CHANNELS, SAMPLE_RATE
from streaming.audio.level import sanitise
from streaming.audio.sinks.base import Sink
from streaming.audio.sinks.wav import WavWriter
from streaming.errors import SinkError
from streaming.support.locking import lock
from streaming.support.status_line import printable

__all__ = ["FILE_SUFFIXES", "FileSink", "to_pcm16"]

FILE_SUFFIXES: Final = (".wav", ".flac", ".ogg", ".opus")
# libsndfile's Vorbis encoder keeps a whole block on its stack and dies of large ones.
_MAX_BLOCK_FRAMES: Final = 4096


class _Writer(Protocol):
    def write(self, data: Any) -> None: ...
    def close(self) -> None: ...


def to_pcm16(block: NDArray[np.float32]) -> NDArray[np.int16]:
    """Round float32 `[2, n]` within ±1 to interleaved 16-bit `[n, 2]`; beyond ±1 is clipped."""
    scaled = np.rint(np.clip(sanitise(block), -1.0, 1.0).T * np.float32(32767.0))
    return np.ascontiguousarray(scaled.astype("<i2"))


class FileSink(Sink):
    """Writes an audio file with 16 bits a sample, at the name given, as the sound comes in.

    The file is created by the first `write`, so a program that fails before it has sound
    leaves an older file of that name alone. It is locked until it is closed, so that two programs
    never write into one. WAV files are valid at every moment; the others can be played up to where
    they were written if the program is killed.

    Args:
        path: of the file.
        overwrite: whether it may be there already.

    Raises:
        SinkError: the suffix is unknown, the file is there or the place cannot be written.
    """

    def __init__(self, path: str | Path, *, overwrite: bool = False) -> None:
        self.path = Path(path)
        self._overwrite = overwrite
        self._name = f"'{printable(str(self.path), 300)}'"
        self._writer: _Writer | None = None
        self._closed = False
        self.samples = 0
        suffix = self.path.suffix.lower()
        if suffix not in FILE_SUFFIXES:
            known = ", ".join(FILE_SUFFIXES)
            raise SinkError(
                f"{self._name} has no suffix of a known audio file; use one of {known}."
            )
        self._create: Callable[[], _Writer] = {
            ".wav": lambda: WavWriter(self._open(), SAMPLE_RATE, CHANNELS),
            ".flac": lambda: self._encoder("FLAC", "PCM_16"),
            ".ogg": lambda: self._encoder("OGG", "VORBIS"),
            ".opus": lambda: self._encoder("OGG", "OPUS"),
        }[suffix]
        self._check_place()

    def _check_place(self) -> None:
        folder = self.path.parent
        if not folder.is_dir():
            raise SinkError(f"{self._name} cannot be written: there is no such folder.")
        if self.path.is_dir():
            raise SinkError(f"{self._name} cannot be written: it is a folder.")
        if self.path.is_file():
            if not self._overwrite:
                raise self._exists()
            self._check_free()
        if not os.access(self.path if self.path.exists() else folder, os.W_OK):
            raise SinkError(f"{self._name} cannot be written: permission denied.")

    def _check_free(self) -> None:
        """Report a program that already writes there; one that comes later shows in `_open`."""
        with contextlib.suppress(PermissionError), self.path.open("rb") as file:
            try:
                lock(file.fileno())
            except BlockingIOError:
                raise self._in_use() from None

    def _open(self) -> int:
        """The file, empty and locked; a device or pipe as it is."""
        new = not self._overwrite and not self.path.exists()
        flags = os.O_RDWR | os.O_CREAT | (os.O_EXCL if new else 0)
        try:
            descriptor = os.open(self.path, flags, 0o666)
        except FileExistsError:  # since we looked
            raise self._exists() from None
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                if not (new or self._overwrite):
                    raise self._exists()
                lock(descriptor)
                os.ftruncate(descriptor, 0)
        except BlockingIOError:
            os.close(descriptor)
            raise self._in_use() from None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _encoder(self, container: str, subtype: str) -> _Writer:
        # Through a descriptor of ours, since libsndfile reports no reason for a failed open.
        descriptor = self._open()
        try:
            return soundfile.SoundFile(
                descriptor,
                "w",
                samplerate=SAMPLE_RATE,
                channels=CHANNELS,
                format=container,
                subtype=subtype,
                closefd=True,
            )
        except BaseException:
            os.close(descriptor)
            raise

    def write(self, block: NDArray[np.float32]) -> None:
        """Encode and write a block. Raises SinkError, and ValueError after :meth:`close`."""
        if self._closed:
            raise ValueError("write() after close()")
        try:
            if self._writer is None:
                self._writer = self._create()
            for start in range(0, block.shape[1], _MAX_BLOCK_FRAMES):
                frames = to_pcm16(block[:, start : start + _MAX_BLOCK_FRAMES])
                if isinstance(self._writer, WavWriter):
                    self._writer.write(frames.tobytes())
                else:
                    self._writer.write(frames)
        except (OSError, soundfile.SoundFileError, AssertionError) as error:
            raise self._failure(error) from error
        self.samples += block.shape[1]

    def drain(self) -> None:
        """A file keeps no one waiting."""

    def close(self) -> None:
        """Complete the file and close it."""
        self._closed = True
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.close()
            except (OSError, soundfile.SoundFileError) as error:
                raise self._failure(error) from error

    def _exists(self) -> SinkError:
        return SinkError(
            f"{self._name} is there already; choose another name, or give --overwrite."
        )

    def _in_use(self) -> SinkError:
        return SinkError(f"Another program writes to {self._name}; stop it or choose another name.")

    def _failure(self, error: Exception) -> SinkError:
        reason = getattr(error, "strerror", None) or "the disk may be full"
        return SinkError(f"{self._name} cannot be written: {reason}.")
