"""The stream on disk, so that a sender that was killed goes on where it stopped.

A folder holds ``stream.json``, which says what stream this is, and segments named after their first
token, which hold records (:mod:`streaming.records`). Files are only ever appended to. Every record
is handed to the system before its tokens are sent to anybody, so a sender that is killed (``kill
-9``) loses none that a listener has; every few seconds the disk is told to keep them, so that a
power cut loses no more than those. On opening, what was torn off in the middle of a record is cut
away; damage elsewhere costs the records that it hit, and is then a gap. Segments older than the
rewind time go.

Blocking calls: a worker thread's business.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from streaming.errors import SettingsError
from streaming.protocol import MAX_SEED, Gap, Title, Tokens
from streaming.records import MAGIC, Record, Stamped, end_token, read_records, record_bytes

if TYPE_CHECKING:
    from streaming.hub import Hub

__all__ = ["StoreIdentity", "TokenStore", "restore"]

logger = logging.getLogger(__name__)

_SEGMENT_BYTES: Final = 1 << 20
_SYNC_S: Final = 5.0
_NAME: Final = re.compile(r"(\d{10})\.tokens", re.ASCII)
_STREAM: Final = re.compile(r"[0-9a-f]{16}", re.ASCII)


@dataclass(frozen=True)
class StoreIdentity:
    """What must not change while token numbers go on. stream: a name given on the first opening."""

    codec: str
    digest: str
    seed: int
    stream: str = ""


class TokenStore:
    """An append-only log of a stream in ``folder``, which is made if need be.

    Args:
        folder: used by one sender at a time.
        codec, digest: must be those of the stream that is there already.
        seed: None takes the one that is there, or 0.
        keep_tokens: older segments are deleted.
        clock: monotonic seconds.

    Attributes: ``identity``; ``next_token``, where the stream goes on.

    Raises SettingsError where the folder cannot be used or holds another stream.
    """

    def __init__(
        self,
        folder: Path,
        *,
        codec: str,
        digest: str,
        seed: int | None = None,
        keep_tokens: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder
        self._keep_tokens = keep_tokens
        self._clock = clock
        self._synced_s = clock()
        self._broken = False
        self._segment: BinaryIO | None = None
        self._segment_bytes = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / "lock").open("wb")
        except OSError as error:
            raise self._unusable(error) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.identity = self._identify(codec, digest, seed)
            self.next_token = self._mend()
        except BlockingIOError:
            self._lock.close()
            raise SettingsError(
                f"Another sender writes to {folder}; stop it or choose another folder with --store."
            ) from None
        except OSError as error:
            self._lock.close()
            raise self._unusable(error) from None
        except SettingsError:
            self._lock.close()
            raise

    def records(self) -> Iterator[Record]:
        """All that is held, in order; what is missing in between is left to the indices."""
        for path in self._segments():
            for record, _ in read_records(path.read_bytes()):
                yield record

    def tokens(self, packet: Tokens, unix_s: float) -> None:
        """Append tokens whose last one ended at ``unix_s``."""
        self._roll(packet.first_token)
        self._append(record_bytes(Stamped(packet, unix_s)))
        self.next_token = packet.end_token

    def title(self, title: Title) -> None:
        """Append what plays from its token on."""
        self._append(record_bytes(title))

    def gap(self, gap: Gap) -> None:
        """Append that tokens are missing."""
        self._append(record_bytes(gap))
        self.next_token = gap.first_token + gap.count

    def close(self) -> None:
        """Bring everything to the disk; a second time does nothing."""
        if self._segment is not None:
            with contextlib.suppress(OSError):
                os.fsync(self._segment.fileno())
            self._segment.close()
            self._segment = None
        self._lock.close()

    def _identify(self, codec: str, digest: str, seed: int | None) -> StoreIdentity:
        path = self.folder / "stream.json"
        try:
            there = _read_identity(path.read_bytes())
        except FileNotFoundError:
            identity = StoreIdentity(codec, digest, seed or 0, secrets.token_hex(8))
            text = json.dumps({"version": 1, **vars(identity)})
            fresh = path.with_suffix(".new")
            with fresh.open("w", encoding="utf-8") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
            return identity
        if there is None:
            raise SettingsError(
                f"{path} is damaged; move it away, or choose another folder with --store."
            )
        if (there.codec, there.digest) != (codec, digest):
            raise SettingsError(
                f"{self.folder} holds a stream of {there.codec} ({there.digest[:12]}…) and this is "
                f"{codec} ({digest[:12]}…); choose another folder with --store."
            )
        if seed is not None and seed != there.seed:
            raise SettingsError(
                f"{self.folder} holds a stream of seed {there.seed}; leave out --seed or choose "
                "another folder with --store."
            )
        return there

    def _segments(self) -> list[Path]:
        found = [path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)]
        return sorted(found)

    def _mend(self) -> int:
        """Cut off what the last segment has beyond its last whole record; where the stream ends."""
        next_token = 0
        segments = self._segments()
        for path in segments:
            data = path.read_bytes()
            whole = len(MAGIC) if data.startswith(MAGIC) else 0
            for record, end in read_records(data):
                whole = end
                next_token = max(next_token, end_token(record))
            if whole < len(data):
                logger.warning("%s: %d damaged bytes at its end", path.name, len(data) - whole)
                if path == segments[-1]:
                    os.truncate(path, whole)
        return next_token

    def _roll(self, first_token: int) -> None:
        """See to it that there is a segment with room, and none that is too old."""
        if self._broken or (self._segment is not None and self._segment_bytes < _SEGMENT_BYTES):
            return
        try:
            if self._segment is not None:
                os.fsync(self._segment.fileno())
                self._segment.close()
                self._segment = None
            path = self.folder / f"{first_token:010d}.tokens"
            self._segment = path.open("ab", buffering=0)
            self._segment_bytes = self._segment.seek(0, os.SEEK_END)
            if not self._segment_bytes:
                self._write(MAGIC)
            segments = self._segments()
            for path, after in pairwise(segments):
                if int(after.stem) <= first_token - self._keep_tokens:
                    path.unlink()
        except OSError as error:
            self._give_up(error)

    def _append(self, record: bytes) -> None:
        if self._segment is None:
            self._roll(self.next_token)
        if self._broken:
            return
        try:
            self._write(record)
            if self._clock() - self._synced_s >= _SYNC_S:
                assert self._segment is not None
                os.fsync(self._segment.fileno())
                self._synced_s = self._clock()
        except OSError as error:
            self._give_up(error)

    def _write(self, data: bytes) -> None:
        assert self._segment is not None
        view = memoryview(data)
        while view:  # an unbuffered write may be cut short, by a disk that fills up for one
            view = view[self._segment.write(view) :]
        self._segment_bytes += len(data)

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
    for record in store.records():
        if isinstance(record, Title):
            hub.restore_title(record)
        elif isinstance(record, Stamped) and record.tokens.first_token >= hub.next_token:
            hub.go_on_at(record.tokens.first_token)
            hub.restore(record.tokens.tokens, record.unix_s)


def _read_identity(data: bytes) -> StoreIdentity | None:
    try:
        fields: Any = json.loads(data)
        identity = StoreIdentity(
            fields["codec"], fields["digest"], fields["seed"], fields["stream"]
        )
        texts = all(isinstance(t, str) for t in (identity.codec, identity.digest, identity.stream))
        if not texts or type(identity.seed) is not int or fields["version"] != 1:
            return None
        if not 0 <= identity.seed <= MAX_SEED or not _STREAM.fullmatch(identity.stream):
            return None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return identity


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
