"""Files and folders, one after another."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from streaming.audio.sources.base import DecodedSource
from streaming.audio.sources.files import audio_files, open_file
from streaming.audio.sources.lists import LIST_SUFFIXES, is_hls, local_entries
from streaming.audio.sources.readers import Reader, quoted
from streaming.audio.sources.web import is_web_address, open_address
from streaming.errors import SourceError
from streaming.support.status_line import printable

__all__ = ["FileSource", "Playlist"]

logger = logging.getLogger(__name__)

_MOST_LIST_BYTES: Final = 1 << 20
_MOST_DEPTH: Final = 5


@dataclass(eq=False)
class _Item:
    """One place in the playlist; the same song may be in it twice.

    Attributes:
        depth: how many playlists lie around the one that named it.
    """

    song: Path | str
    depth: int = 0
    warned: bool = False


class Playlist(DecodedSource):
    """Plays files, folders with all that is in them, and what is on the web, without gaps.

    A playlist in a file or on the web (M3U, PLS) stands for what it names. An Internet radio does
    not end, and is come back to when it is lost.

    An item that cannot be played is left out with one warning, for good: so a looped playlist
    of unplayable files ends in an error instead of spinning. An item that is damaged part of
    the way plays as far as it can be read.

    Args:
        songs: files, folders and addresses (``http://``, ``https://``). Folders are searched at
            all levels, in sorted order.
        loop: start over at the end, without end.
        shuffle: play each round in a random order.
        seed: of that order; None draws one.
        title: shown instead of the files' own titles.

    Raises (from `open` and `read`):
        SourceError: nothing (or nothing any more) can be played.
    """

    def __init__(
        self,
        songs: Sequence[str | Path],
        loop: bool = False,
        shuffle: bool = False,
        seed: int | None = None,
        title: str | None = None,
    ) -> None:
        super().__init__(title)
        self._songs = [_song(song) for song in songs]
        self._loop = loop
        self._shuffle = shuffle
        self._random = random.Random(seed)
        self._items: list[_Item] = []
        self._queue: list[_Item] = []
        self._current: _Item | None = None
        self._first_round = True
        self._problems = 0
        self._last_problem = "no files were named."

    def _open(self) -> None:
        for song in self._songs:
            if isinstance(song, Path) and song.is_dir():
                found = audio_files(song, onerror=self._folder_unreadable)
                if not found:
                    self._problem(f"There are no audio files in {quoted(song)}.")
                self._items += map(_Item, found)
            else:
                self._items.append(_Item(song))
        super()._open()

    def _next_reader(self) -> Reader | None:
        while not self._stopped.is_set():
            if not self._queue:
                if not self._items:
                    raise SourceError(self._nothing_to_play())
                if not (self._first_round or self._loop):
                    return None
                self._first_round = False
                self._queue = list(self._items)
                if self._shuffle:
                    self._random.shuffle(self._queue)
            self._current = self._queue.pop(0)
            try:
                opened = self._open_song(self._current.song)
                if isinstance(opened, Reader):
                    return opened
                self._replace(opened)
            except SourceError as error:
                if not self._stopped.is_set():
                    self._remove(str(error))
            except Exception as error:  # of a library: the next one may be better
                logger.debug("opening failed", exc_info=True)
                reason = printable(str(error) or type(error).__name__)
                self._remove(f"{quoted(self._current.song)} cannot be played: {reason}.")
        return None

    def _open_song(self, song: Path | str) -> Reader | list[str]:
        """A reader, or the songs that are named there. Raises SourceError."""
        if isinstance(song, str):
            return open_address(song, self._stopped)
        if song.suffix.lower() in LIST_SUFFIXES and song.is_file():
            with song.open("rb") as file:
                data = file.read(_MOST_LIST_BYTES)
            if not is_hls(data):
                return local_entries(song, data)
        return open_file(song, self._stopped)

    def _replace(self, songs: list[str]) -> None:
        """Put what a list names in its place."""
        current = self._current
        assert current is not None
        if not songs or current.depth == _MOST_DEPTH:
            self._remove(f"{quoted(current.song)} names no songs.")
            return
        items = [_Item(_song(song), current.depth + 1) for song in songs]
        place = self._items.index(current)
        self._items[place : place + 1] = items
        self._queue[:0] = items

    def _reader_done(self, reader: Reader) -> None:
        assert self._current is not None
        name = quoted(self._current.song)
        if reader.frames_read == 0:
            damage = reader.damage
            self._remove(f"{name} cannot be played: {damage}." if damage else f"{name} is empty.")
        elif reader.damage and not self._current.warned:
            self._current.warned = True
            logger.warning(
                "%s was played for %.1f s only: %s.",
                name,
                reader.seconds_read,
                reader.damage,
            )

    def _remove(self, problem: str) -> None:
        assert self._current is not None
        self._items.remove(self._current)
        self._problem(problem)

    def _problem(self, problem: str) -> None:
        self._problems += 1
        self._last_problem = problem
        if len(self._songs) > 1 or self._items or self._queue:
            logger.warning("Skipped: %s", problem)

    def _folder_unreadable(self, error: OSError) -> None:
        self._problem(f"The folder {quoted(error.filename)} cannot be read: {error.strerror}.")

    def _nothing_to_play(self) -> str:
        if self._problems <= 1:
            return f"Nothing to play: {self._last_problem}"
        return (
            f"Nothing to play: {self._problems} items failed, the last one so: {self._last_problem}"
        )


class FileSource(Playlist):
    """One file, once. See `Playlist`."""

    def __init__(self, path: str | Path, title: str | None = None) -> None:
        super().__init__([path], title=title)


def _song(song: str | Path) -> Path | str:
    text = str(song)
    return text if is_web_address(text) else Path(text)
