"""Files and folders, one after another."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from streaming.errors import SourceError
from streaming.sources.base import DecodedSource
from streaming.sources.files import audio_files, open_file
from streaming.sources.readers import Reader, quoted
from streaming.status import printable

__all__ = ["FileSource", "Playlist"]

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Item:
    """One place in the playlist; the same file may be in it twice."""

    path: Path
    warned: bool = False


class Playlist(DecodedSource):
    """Plays files, and folders with all that is in them, without gaps.

    An item that cannot be played is left out with one warning, for good: so a looped playlist
    of unplayable files ends in an error instead of spinning. An item that is damaged part of
    the way plays as far as it can be read.

    Args:
        paths: files and folders. Folders are searched at all levels, in sorted order.
        loop: start over at the end, without end.
        shuffle: play each round in a random order.
        seed: of that order; None draws one.
        title: shown instead of the files' own titles.

    Raises (from `open` and `read`):
        SourceError: nothing (or nothing any more) can be played.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        loop: bool = False,
        shuffle: bool = False,
        seed: int | None = None,
        title: str | None = None,
    ) -> None:
        super().__init__(title)
        self._paths = [Path(path) for path in paths]
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
        for path in self._paths:
            if path.is_dir():
                found = audio_files(path, onerror=self._folder_unreadable)
                if not found:
                    self._problem(f"There are no audio files in {quoted(path)}.")
                self._items += map(_Item, found)
            else:
                self._items.append(_Item(path))
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
                return open_file(self._current.path, self._stopped)
            except SourceError as error:
                if not self._stopped.is_set():
                    self._remove(str(error))
            except Exception as error:  # of a library: the next one may be better
                logger.debug("opening failed", exc_info=True)
                self._remove(
                    f"{quoted(self._current.path)} cannot be played: {printable(str(error))}."
                )
        return None

    def _reader_done(self, reader: Reader) -> None:
        assert self._current is not None
        name = quoted(self._current.path)
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
        if len(self._paths) > 1 or self._items or self._queue:
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
