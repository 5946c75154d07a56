"""Which reader a file needs, and which files of a folder are audio."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from streaming.errors import SourceError
from streaming.sources.ffmpeg import FfmpegReader, ffmpeg_program
from streaming.sources.readers import Reader, SoundFileReader, quoted

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

_MAGIC: Final = (b"RIFF", b"RIFX", b"RF64", b"fLaC", b"OggS", b"FORM", b".snd", b"caff", b"riff")


def audio_files(folder: Path, onerror: Callable[[OSError], None] | None = None) -> list[Path]:
    """The audio files under `folder`, at all levels, sorted by path.

    Links to folders are not followed. `onerror` is told of every folder that cannot be read.
    """
    found: list[Path] = []
    for parent, _, names in os.walk(folder, onerror=onerror):
        found += [
            Path(parent, name) for name in names if Path(name).suffix.lower() in AUDIO_SUFFIXES
        ]
    return sorted(found)


def open_file(path: Path) -> Reader:
    """A reader for the audio file at `path`, chosen by what the file holds, not by its name.

    libsndfile reads the formats that it knows. MP3 goes to ffmpeg where that is installed,
    because libsndfile's decoder writes remarks on damaged files straight to our stderr.

    Raises:
        SourceError: missing, unreadable, empty, or nothing that can be decoded here.
    """
    try:
        if not path.exists():
            raise SourceError(f"{quoted(path)} does not exist.")
        if path.is_dir():
            raise SourceError(f"{quoted(path)} is a folder.")
        head = b""
        if path.is_file():  # looking into a named pipe would use up its first bytes
            with path.open("rb") as file:
                head = file.read(4)
            if not head:
                raise SourceError(f"{quoted(path)} is empty.")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no such name is possible"
        raise SourceError(f"{quoted(path)} cannot be read: {reason}.") from error

    is_mp3 = head[:3] == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0)
    has_ffmpeg = ffmpeg_program() is not None
    if head in _MAGIC or (is_mp3 and not has_ffmpeg):
        try:
            return SoundFileReader(path, path.stem)
        except SourceError:
            if not has_ffmpeg:
                raise
    if has_ffmpeg:
        return FfmpegReader(path, path.stem)
    raise SourceError(
        f"{quoted(path)} is not in a format that can be decoded without ffmpeg, "
        "which is not installed."
    )
