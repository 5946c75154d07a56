"""Reads ``.muc`` files, whole, cut off or damaged: what can be read comes out in order, once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from codec.constants import SAMPLE_RATE, SAMPLES_PER_TOKEN, TOKEN_RATE
from streaming.errors import FormatVersionError, SourceError
from streaming.files.muc.framing import MAGIC, RECORD_OVERHEAD, scan
from streaming.files.muc.messages import (
    Clock,
    Finish,
    Record,
    StreamHeader,
    end_token,
    read_message,
)
from streaming.stream.timeline import Timeline
from streaming.support.status_line import printable
from streaming.wire.messages import MAX_GAP_TOKENS, MAX_UNIX_S, Gap, Title, Tokens

__all__ = ["Item", "MucInfo", "MucReader"]

logger = logging.getLogger(__name__)

_MOST_SILENCE: Final = 3600 * TOKEN_RATE
"""So much may be missing in any file."""

Item: TypeAlias = Tokens | Gap | Title
"""What :meth:`MucReader.items` yields: each of tokens and gaps begins where the last one ended."""


@dataclass
class MucInfo:
    """What is in a file. Context before the music is not counted.

    Attributes:
        first_token, end_token: of the music, lost tokens included.
        tokens: how many could be read.
        lost_tokens: how many could not, in so many ``gaps``.
        samples: the music's length at 48 kHz.
        complete: whether the end is there.
        damaged_bytes: those in no whole record.
        file_bytes: all.
        titles: each with the token from which on it plays.
    """

    header: StreamHeader
    first_token: int = 0
    end_token: int = 0
    tokens: int = 0
    gaps: int = 0
    lost_tokens: int = 0
    samples: int = 0
    complete: bool = False
    damaged_bytes: int = 0
    file_bytes: int = 0
    titles: list[Title] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Length of the music."""
        return self.samples / SAMPLE_RATE

    def check_silence(self, name: str) -> None:
        """Raise SourceError if far more of the file ``name`` is missing than is there.

        A few bytes can name a gap of any length, and what stands in for it takes time and room.
        """
        if self.lost_tokens > max(self.tokens, _MOST_SILENCE):
            raise SourceError(
                f"{name} holds {self.tokens / TOKEN_RATE:.0f} s of music, and "
                f"{self.lost_tokens / TOKEN_RATE:.0f} s are missing in it; --force puts silence in "
                "their place."
            )


class MucReader:
    """A ``.muc`` file. Blocking calls: on an event loop a worker thread's business.

    Attributes:
        header: the first that was found.
        finish: the end, if it is there and :meth:`items` has come to it.
        timeline: when what has come out of :meth:`items` was played.

    Raises:
        SourceError: the file cannot be read or is none of ours; reading may raise it later as well,
            since disks fail.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.name = f"'{printable(str(path), 300)}'"
        self.finish: Finish | None = None
        self.timeline = Timeline()
        self._whole_bytes = 0
        self.header = self._find_header()

    def items(self, *, context: bool = False) -> Iterator[Item]:
        """Tokens, gaps and titles in order, without overlaps, from where the music begins on.

        Numbers are the file's, up to the first gap of more than ten minutes. That is closed: what
        follows has lower numbers from there on.

        Args:
            context: whether what the decoder is to have before the music comes first.
        """
        self.finish = None
        self.timeline = Timeline()
        clock: Clock | None = None
        first = self.header.first_token if context else self.header.music_from
        place, closed = first, 0
        for record in self._records():
            if isinstance(record, Title):
                token = max(first, record.token - closed)
                yield Title(record.title, token if token - place <= MAX_GAP_TOKENS else place)
                continue
            if isinstance(record, Clock):
                clock = record
            if isinstance(record, (StreamHeader, Clock, Gap)):
                continue  # a gap shows by the number of what follows it
            end = end_token(record) - closed
            begin = record.first_token - closed if isinstance(record, Tokens) else end
            if begin - place > MAX_GAP_TOKENS:
                closed, begin, end = closed + begin - place, place, end - (begin - place)
            if end < place:
                continue
            if begin > place:
                yield Gap(place, begin - place)
            if isinstance(record, Tokens) and end > place:
                if clock is not None:
                    self._note(max(begin, place), closed, clock)
                yield Tokens(max(begin, place), record.tokens[max(0, place - begin) :])
            place = end
            self.finish = record if isinstance(record, Finish) else None

    def _note(self, token: int, closed: int, clock: Clock) -> None:
        """When ``token`` was played, which the file numbers ``closed`` higher."""
        unix_s = clock.at_s + (token + closed - clock.token) / TOKEN_RATE
        if 0 <= unix_s <= MAX_UNIX_S:
            self.timeline.note(token, unix_s)

    def describe(self) -> MucInfo:
        """Read all of it and say what is there."""
        info = MucInfo(self.header)
        for item in self.items():
            if isinstance(item, Title):
                info.titles.append(item)
                continue
            if not info.tokens and not info.gaps:
                info.first_token = item.first_token
            if isinstance(item, Gap):
                info.gaps += 1
                info.lost_tokens += item.count
            else:
                info.tokens += len(item.tokens)
            info.end_token = end_token(item)
        info.samples = (info.tokens + info.lost_tokens) * SAMPLES_PER_TOKEN
        if self.finish is not None:
            info.complete = True
            info.samples -= min(info.samples, self.finish.padding)
        info.file_bytes = self.path.stat().st_size
        info.damaged_bytes = max(0, info.file_bytes - self._whole_bytes)
        return info

    def _find_header(self) -> StreamHeader:
        for record in self._records():
            if isinstance(record, StreamHeader):
                return record
        raise SourceError(f"{self.name} is no .muc file, or too damaged to tell what is in it.")

    def _records(self) -> Iterator[Record]:
        """What there is, up to where another stream begins."""
        header: StreamHeader | None = None
        try:
            with self.path.open("rb") as file:
                self._whole_bytes = len(MAGIC) if file.read(len(MAGIC)) == MAGIC else 0
                file.seek(0)
                for message, _ in scan(file):
                    record = read_message(message)
                    if isinstance(record, StreamHeader):
                        header = header or record
                        if record != header:
                            logger.warning("%s holds another stream from there on", self.name)
                            return
                    self._whole_bytes += RECORD_OVERHEAD + len(message)
                    if record is not None:
                        yield record
        except FormatVersionError as error:
            raise SourceError(f"{self.name} {error}") from None
        except (OSError, ValueError) as error:  # a name with a null character is a ValueError
            reason = getattr(error, "strerror", None) or "no such name is possible"
            raise SourceError(f"{self.name} cannot be read: {reason}.") from None
