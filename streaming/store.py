"""The stream on disk, so that a sender that was killed goes on where it stopped.

A folder holds segments named after their first token, each a ``.muc`` file of its own
(:mod:`streaming.muc`) that says what stream this is and can be played as it is. Files are only ever
appended to. Every record is handed to the system before its tokens are sent to anybody, so a sender
that is killed (``kill -9``) loses none that a listener has; every few seconds the disk is told to
keep them, so that a power cut loses no more than those. On opening, what was torn off in the middle
of a record is cut away; damage elsewhere costs the records that it hit, and is then a gap. Segments
older than the rewind time go.

Blocking calls: a worker thread's business.
"""

from __future__ import annotations

import dataclasses
import fcntl
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

from codec.constants import TOKEN_RATE
from streaming.errors import FormatVersionError, SettingsError
from streaming.muc.append import MucAppender, Survey
from streaming.muc.framing import scan
from streaming.muc.messages import Clock, Record, StreamHeader, read_message
from streaming.protocol import Gap, Title, Tokens
from streaming.timeline import Timeline

if TYPE_CHECKING:
    from streaming.hub import Hub

__all__ = ["TokenStore", "restore", "stored_place"]

logger = logging.getLogger(__name__)

_SEGMENT_BYTES: Final = 1 << 20
_SYNC_S: Final = 5.0
_NAME: Final = re.compile(r"(\d{10})\.muc", re.ASCII)
_OLD_NAME: Final = re.compile(r"stream\.json|\d{10}\.tokens", re.ASCII)


class TokenStore:
    """An append-only log of a stream in ``folder``, which is made if need be.

    Args:
        folder: used by one sender at a time.
        identity: codec and digest must be those of the stream that is there already, and so must
            the name of the stream, unless it is empty. Otherwise a name is made up, once.
        seed: must be that of the stream that is there; None takes that, or the identity's.
        keep_tokens: older segments are deleted.
        clock: monotonic seconds.

    Attributes: ``identity``, seed and name of the stream included; ``next_token``, where the stream
    goes on.

    Raises SettingsError where the folder cannot be used or holds another stream.
    """

    def __init__(
        self,
        folder: Path,
        identity: StreamHeader,
        *,
        seed: int | None = None,
        keep_tokens: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder
        self.next_token = 0
        self._keep_tokens = keep_tokens
        self._clock = clock
        self._synced_s = clock()
        self._broken = False
        self._segment: MucAppender | None = None
        self._timeline = Timeline()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / "lock").open("wb")
        except OSError as error:
            raise self._unusable(error) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.identity = self._identify(identity, seed)
        except BlockingIOError:
            self._lock.close()
            raise SettingsError(
                f"Another sender writes to {folder}; stop it or choose another folder with --store."
            ) from None
        except OSError as error:
            self._lock.close()
            raise self._unusable(error) from None
        except FormatVersionError as error:
            self._lock.close()
            raise SettingsError(f"What is in {folder} {error}") from None
        except SettingsError:
            self._lock.close()
            raise

    def records(self) -> Iterator[Record]:
        """All that is held, in order; what is missing in between is left to the indices."""
        for path in _segments(self.folder):
            with path.open("rb") as file:
                for message, _ in scan(file):
                    if (record := read_message(message)) is not None:
                        yield record

    def tokens(self, packet: Tokens, unix_s: float) -> None:
        """Append tokens whose last one ended at ``unix_s``."""
        self._roll(packet.first_token)
        began_s = unix_s - len(packet.tokens) / TOKEN_RATE
        if self._timeline.note(packet.first_token, began_s):
            self._append(Clock(packet.first_token, max(0.0, began_s)))
        self._append(packet)
        self.next_token = packet.end_token

    def title(self, title: Title) -> None:
        """Append what plays from its token on."""
        self._append(title)

    def gap(self, gap: Gap) -> None:
        """Append that tokens are missing."""
        self._append(gap)
        self.next_token = gap.first_token + gap.count

    def close(self) -> None:
        """Bring everything to the disk; a second time does nothing."""
        if self._segment is not None:
            self._segment.close()
            self._segment = None
        self._lock.close()

    def _identify(self, wanted: StreamHeader, seed: int | None) -> StreamHeader:
        """What the stream is, from what is there or for good from now on."""
        segments = _segments(self.folder)
        if not segments and any(_OLD_NAME.fullmatch(path.name) for path in self.folder.iterdir()):
            raise SettingsError(
                f"{self.folder} holds a stream in the format of an older version, which this one "
                "does not read; choose another folder with --store."
            )
        surveys = [Survey.of(path) for path in segments]
        there = next((survey.header for survey in surveys if survey.header is not None), None)
        if there is not None:
            self._check(there, wanted, seed)
        elif any(survey.file_bytes for survey in surveys):
            raise SettingsError(
                f"{segments[0]} is damaged; move it away, or choose another folder with --store."
            )
        self.next_token = max((survey.next_token for survey in surveys), default=0)
        for path, survey in zip(segments, surveys, strict=True):
            if torn := survey.file_bytes - survey.whole_bytes:
                logger.warning("%s: %d damaged bytes at its end", path.name, torn)
                if path == segments[-1]:
                    os.truncate(path, survey.whole_bytes)
        if there is not None:
            return there
        stream = wanted.stream or secrets.token_hex(8)
        return dataclasses.replace(
            wanted, seed=wanted.seed if seed is None else seed, stream=stream
        )

    def _check(self, there: StreamHeader, wanted: StreamHeader, seed: int | None) -> None:
        if (there.codec, there.digest) != (wanted.codec, wanted.digest):
            raise SettingsError(
                f"{self.folder} holds a stream of {there.codec} ({there.digest[:12]}…) and this is "
                f"{wanted.codec} ({wanted.digest[:12]}…); choose another folder with --store."
            )
        if seed is not None and seed != there.seed:
            raise SettingsError(
                f"{self.folder} holds a stream of seed {there.seed}; leave out --seed or choose "
                "another folder with --store."
            )
        if wanted.stream and wanted.stream != there.stream:
            raise SettingsError(
                f"{self.folder} holds the stream {there.stream} and this is {wanted.stream}; "
                "choose another folder with --store."
            )

    def _roll(self, first_token: int) -> None:
        """See to it that there is a segment with room, and none that is too old."""
        if self._broken or (self._segment is not None and self._segment.bytes < _SEGMENT_BYTES):
            return
        try:
            if self._segment is not None:
                self._segment.close()
                self._segment = None
            header = dataclasses.replace(self.identity, first_token=first_token)
            self._segment = MucAppender(self.folder / f"{first_token:010d}.muc", header)
            self._timeline = Timeline()  # so that every segment says when it played
            segments = _segments(self.folder)
            for path, after in pairwise(segments):
                if int(after.stem) <= first_token - self._keep_tokens:
                    path.unlink()
        except OSError as error:
            self._give_up(error)

    def _append(self, record: Record) -> None:
        if self._segment is None:
            self._roll(self.next_token)
        if self._broken:
            return
        assert self._segment is not None
        try:
            self._segment.append(record)
            if self._clock() - self._synced_s >= _SYNC_S:
                self._segment.sync()
                self._synced_s = self._clock()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        # The music is more important than its record; what is torn is mended on the next start.
        self._broken = True
        logger.warning("no more is stored in %s (%s)", self.folder, _reason(error))

    def _unusable(self, error: OSError) -> SettingsError:
        return SettingsError(
            f"Cannot store the stream in {self.folder} ({_reason(error)}); choose another folder "
            "with --store."
        )


def restore(hub: Hub, store: TokenStore) -> None:
    """Put what is stored into ``hub``, which must be fresh."""
    clock: Clock | None = None
    for record in store.records():
        if isinstance(record, Title):
            hub.restore_title(record)
        elif isinstance(record, Clock):
            clock = record
        elif isinstance(record, Tokens) and record.first_token >= hub.next_token:
            hub.go_on_at(record.first_token)
            unix_s = None
            if clock is not None:
                unix_s = clock.at_s + (record.end_token - clock.token) / TOKEN_RATE
            hub.restore(record.tokens, unix_s)


def stored_place(folder: Path) -> tuple[str, int]:
    """Name of the stream that is in a store, empty where there is none, and its next token.

    Raises SettingsError where it cannot be read.
    """
    try:
        surveys = [Survey.of(path) for path in _segments(folder)] if folder.is_dir() else []
    except FormatVersionError as error:
        raise SettingsError(f"What is in {folder} {error}") from None
    except OSError as error:
        raise SettingsError(f"Cannot read the stream in {folder} ({_reason(error)}).") from None
    names = [survey.header.stream for survey in surveys if survey.header is not None]
    return (
        next(iter(names), ""),
        max((survey.next_token for survey in surveys), default=0),
    )


def _segments(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
