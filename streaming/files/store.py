"""The stream on disk, so that a sender that was killed goes on where it stopped.

A folder holds segments named after their first token, each a ``.muc`` file of its own
(:mod:`streaming.files.muc`) that says what stream this is and can be played as it is. Files are
only ever appended to. Every record is handed to the system before its tokens are sent to anybody,
so a sender that is killed (``kill -9``) loses none that a listener has; every few seconds the disk
is told to keep them, so that a power cut loses no more than those. On opening, what was torn off in
the middle of a record is cut away; damage elsewhere costs the records that it hit, and is then a
gap. Segments older than the rewind time go.

A disk that fails or is full costs the packets of that time and not the music: each packet tries
anew. No token number is used twice, whatever became of the files
(:mod:`streaming.files.high_water`).

Blocking calls: a worker thread's business.
"""

from __future__ import annotations

import contextlib
import dataclasses
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
from streaming.errors import FormatVersionError, SettingsError, reason_of
from streaming.files.high_water import RESERVED_TOKENS, HighWaterMark
from streaming.files.muc.append import MucAppender, Survey
from streaming.files.muc.framing import scan
from streaming.files.muc.messages import Clock, Record, StreamHeader, read_message
from streaming.stream.timeline import Timeline
from streaming.support.locking import lock
from streaming.wire.messages import Gap, StreamIdentity, Title, Tokens

if TYPE_CHECKING:
    from streaming.stream.history import History

__all__ = ["TokenStore", "stored_place"]

logger = logging.getLogger(__name__)

_SEGMENT_BYTES: Final = 1 << 20
_STORING: Final = "storing the stream"
_MARKING: Final = "noting which token numbers are used"
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

    Attributes:
        identity: seed and name of the stream included.
        next_token: one past the last token that is stored.
        sent_token: one past the last that may have been sent, where the stream goes on. To begin
            with it is ``next_token`` for a relay, whose numbers are another's.

    Raises:
        SettingsError: the folder cannot be used or holds another stream.
    """

    def __init__(
        self,
        folder: Path,
        identity: StreamIdentity,
        *,
        seed: int | None = None,
        keep_tokens: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder
        self.next_token = 0
        self._keep_tokens = keep_tokens
        self._clock = clock
        self._segment: MucAppender | None = None
        self._timeline = Timeline()
        self._failing: set[str] = set()
        self._mark: HighWaterMark | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / "lock").open("wb")
        except OSError as error:
            raise self._unusable(error) from None
        try:
            lock(self._lock.fileno())
            self.identity, begun = self._identify(identity, seed)
            self.sent_token = self.next_token
            # A relay's numbers are its sender's, which it may ask for the same tokens again.
            if not identity.stream:
                self._mark = HighWaterMark(folder / "mark", self.identity.stream)
                if begun:  # without a mark it is of an older version, or was lost
                    unknown = self.next_token + RESERVED_TOKENS
                    sent = unknown if self._mark.sent is None else self._mark.sent
                    self.sent_token = max(self.next_token, sent)
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

    def restore(self, history: History) -> None:
        """Put what is stored into ``history``, which must be fresh."""
        clock: Clock | None = None
        for record in self.records():
            if isinstance(record, Title):
                history.append_title(record.title, record.token)
            elif isinstance(record, Clock):
                clock = record
            elif isinstance(record, Tokens) and record.first_token >= history.next_token:
                history.go_on_at(record.first_token)
                ended_s = None
                if clock is not None:
                    ended_s = clock.at_s + (record.end_token - clock.token) / TOKEN_RATE
                history.append(record.tokens, ended_s)

    def tokens(self, packet: Tokens, unix_s: float) -> None:
        """Append tokens whose last one ended at ``unix_s``, and which may be sent from then on."""
        self._use(packet.end_token)
        with self._trying(_STORING):
            segment = self._roll(packet.first_token)
            began_s = unix_s - len(packet.tokens) / TOKEN_RATE
            if self._timeline.note(packet.first_token, began_s):
                segment.append(Clock(packet.first_token, max(0.0, began_s)))
            segment.append(packet)
            self.next_token = packet.end_token

    def title(self, title: Title) -> None:
        """Append what plays from its token on."""
        with self._trying(_STORING):
            self._roll(self.sent_token).append(title)

    def gap(self, gap: Gap) -> None:
        """Append that tokens are missing."""
        end_token = gap.first_token + gap.count
        self._use(end_token)
        with self._trying(_STORING):
            self._roll(gap.first_token).append(gap)
            self.next_token = end_token

    def close(self) -> None:
        """Bring everything to the disk; a second time does nothing."""
        if self._segment is not None:
            self._segment.close()
            self._segment = None
        if self._mark is not None:
            with contextlib.suppress(OSError):
                self._mark.close()
        self._lock.close()

    def _use(self, end_token: int) -> None:
        """Numbers up to there are used from now on, whatever becomes of what is stored."""
        self.sent_token = max(self.sent_token, end_token)
        if self._mark is not None:
            with self._trying(_MARKING):
                self._mark.raise_to(self.sent_token)

    @contextlib.contextmanager
    def _trying(self, what: str) -> Iterator[None]:
        """The music is more important than its record: what fails is told once, and tried again."""
        try:
            yield
        except OSError as error:
            if what not in self._failing:
                self._failing.add(what)
                told = "%s in %s does not work (%s) and is tried again with each packet"
                logger.warning(told, what, self.folder, reason_of(error))
        else:
            if what in self._failing:
                self._failing.remove(what)
                logger.warning("%s in %s works again", what, self.folder)

    def _identify(self, wanted: StreamIdentity, seed: int | None) -> tuple[StreamIdentity, bool]:
        """What the stream is, and whether it has begun: is there, or will be from now on."""
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
            return there.identity, True
        seed = wanted.seed if seed is None else seed
        stream = wanted.stream or secrets.token_hex(8)
        return dataclasses.replace(wanted.identity, seed=seed, stream=stream), False

    def _check(self, there: StreamIdentity, wanted: StreamIdentity, seed: int | None) -> None:
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

    def _roll(self, first_token: int) -> MucAppender:
        """The segment to append to: the present one while it has room, and then another."""
        present = self._segment
        if present is not None and present.bytes < _SEGMENT_BYTES:
            return present
        header = StreamHeader(**vars(self.identity), first_token=first_token)
        path = self.folder / f"{first_token:010d}.muc"
        try:
            self._segment = MucAppender(path, header, clock=self._clock)
        except OSError as error:
            if present is None:
                raise
            logger.debug("no new segment yet (%s): the present one grows", reason_of(error))
            return present
        self._timeline = Timeline()  # so that every segment says when it played
        if present is not None:
            present.close()
        with contextlib.suppress(OSError):  # they go with the next one
            for old, after in pairwise(_segments(self.folder)):
                if int(after.stem) <= first_token - self._keep_tokens:
                    old.unlink()
        return self._segment

    def _unusable(self, error: OSError) -> SettingsError:
        return SettingsError(
            f"Cannot store the stream in {self.folder} ({reason_of(error)}); choose another folder "
            "with --store."
        )


def stored_place(folder: Path) -> tuple[str, int]:
    """Name of the stream that is in a store, empty if there is none, and its next token.

    Raises SettingsError if it cannot be read.
    """
    try:
        surveys = [Survey.of(path) for path in _segments(folder)] if folder.is_dir() else []
    except FormatVersionError as error:
        raise SettingsError(f"What is in {folder} {error}") from None
    except OSError as error:
        raise SettingsError(f"Cannot read the stream in {folder} ({reason_of(error)}).") from None
    names = [survey.header.stream for survey in surveys if survey.header is not None]
    return (
        next(iter(names), ""),
        max((survey.next_token for survey in surveys), default=0),
    )


def _segments(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))
