"""Records a stream to a ``.muc`` file as it comes, without decoding it: no model, no torch.

What has come is in the file at once, so a listener that is killed loses none of it. Started again
with the same file, it goes on there: what was missed meanwhile comes first, as long as the sender
has it. A file is never overwritten: another stream goes into ``NAME-2.muc`` and so on.

What is recorded is what was asked for; beside a listener that plays, exactly what is played. What
was sent before it is kept as context for decoders.

Blocking calls: a worker thread's business.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from codec.constants import SAMPLES_PER_TOKEN
from streaming.errors import FormatVersionError, SinkError, reason_of
from streaming.files.muc import MUC_SUFFIX, Clock, Finish, StreamHeader
from streaming.files.muc.append import MucAppender, Survey
from streaming.files.muc.messages import MAX_CONTEXT, Record
from streaming.stream.listener_session import Event
from streaming.stream.timeline import StartAt
from streaming.stream.titles import TitleSieve
from streaming.support.status_line import printable
from streaming.wire.messages import MAX_GAP_TOKENS, End, Gap, Hello, Join, Title, Tokens

__all__ = ["Recorder"]

logger = logging.getLogger(__name__)


_MOST_WAITING: Final = 1024
_MOST_FILES: Final = 100
"""A sender whose stream is another one each time does not fill the folder."""


@dataclass
class _Beginning:
    """What begins with ``hello``, and what of it has come before it was known what is heard."""

    hello: Hello
    waiting: deque[Event] = field(default_factory=lambda: deque(maxlen=_MOST_WAITING))


class Recorder:
    """Writes what happens in a stream to ``path``.

    Args:
        limit_samples: of music at 48 kHz, after which it is :attr:`full`; None: any number.
        start: where in the stream to begin.
        waits: it is another that decides where the sound begins, and says so by :meth:`hear`.

    Attributes:
        path: the file that is written to.

    Raises:
        SinkError: the file cannot be written, is written by another program, or exists and is no
            ``.muc`` file.
    """

    def __init__(
        self,
        path: Path | str,
        limit_samples: int | None = None,
        *,
        start: StartAt | None = None,
        waits: bool = False,
    ) -> None:
        self.path = Path(path)
        self._wanted = self.path
        self._limit = limit_samples
        self._start = start or StartAt()
        self._waits = waits
        self._beginnings: deque[_Beginning] = deque(maxlen=_MOST_WAITING)
        self._file: MucAppender | None = None
        self._files = 0
        self._header: StreamHeader | None = None  # of the file, which there is once there is music
        self._clock: Clock | None = None
        self._titles: deque[Title] = deque(maxlen=_MOST_WAITING)  # until there is music
        self._sieve = TitleSieve()  # from then on
        self._next_token = 0
        self._missing = 0  # tokens just before the next one
        self._closed = 0  # tokens of gaps that are closed
        self._before = 0  # samples in earlier files
        self._end_sample: int | None = None  # at which there is enough
        self._ended = False
        if self.path.suffix.lower() != MUC_SUFFIX:
            raise SinkError(f"{self._name} must end in {MUC_SUFFIX}, which is what is recorded.")
        self._there = self._look()

    @property
    def bytes(self) -> int:
        """Length of the file."""
        return 0 if self._file is None else self._file.bytes

    @property
    def samples(self) -> int:
        """Of music in the file and in those before it, as long as it will play.

        Lost ones are included, except in gaps of more than ten minutes, which are skipped.
        """
        if self._header is None:
            return self._before
        closed = self._closed + (self._missing if self._closes else 0)
        tokens = self._next_token - self._header.music_from - closed
        return self._before + max(0, tokens) * SAMPLES_PER_TOKEN

    @property
    def full(self) -> bool:
        """Whether there is enough."""
        if self._end_sample is None or self._header is None or self._closes:
            return self._limit == 0
        here = max(self._next_token, self._header.music_from)
        return here * SAMPLES_PER_TOKEN >= self._end_sample

    def join(self, join: Join) -> Join:
        """The first message to the sender: ``join``, or where the file that is there ends."""
        there = None if self._there is None else self._there.survey
        if there is None or there.header is None:
            return join
        return Join(
            join.history, join.client, next_token=there.next_token, stream=there.header.stream
        )

    def take(self, event: Event) -> None:
        """Write what happened, or keep it until it is known what is heard. Raises SinkError."""
        if isinstance(event, Hello):
            self._beginnings.append(_Beginning(event))
            if not self._waits:
                first, edge = event.first_token, event.next_token
                past = self._start.in_the_past(first, edge)
                self.hear(event, self._start.first_heard(first) if past else first)
        elif self._beginnings:
            self._beginnings[-1].waiting.append(event)
        else:
            self._try(event)

    def hear(self, hello: Hello, token: int, samples: int | None = None) -> None:
        """What ``hello`` began is heard from ``token`` on, after ``samples`` of other sound.

        What began before and was not heard is left out.

        Args:
            samples: None stands for as many as have been recorded.

        Raises:
            SinkError: it cannot be written.
        """
        if self.full:
            return
        if not any(beginning.hello is hello for beginning in self._beginnings):
            # It is heard already, and what came in between is passed over.
            self._end_at(token, samples)
            return
        while (beginning := self._beginnings.popleft()).hello is not hello:
            pass
        self._end_sample = None
        if self._begin(hello, _first_token(beginning), token):
            self._try(Gap(self._next_token, token - self._next_token))
            self._close_gap()
        self._end_at(max(token, self._next_token) if samples is None else token, samples)
        for event in beginning.waiting:
            if not self.full:
                self._try(event)

    def close(self, reason: str | None = None) -> None:
        """Complete the file; reason: why the music ends here, where it does. Never raises."""
        if self._file is not None and reason is not None and not self._ended:
            try:
                self._end(reason)
            except OSError as error:
                logger.warning("%s", self._failure(error))
        for file in (self._file, self._there):
            if file is not None:
                file.close()

    @property
    def _closes(self) -> bool:
        """Whether what is missing before the next token will be left out."""
        return self._missing > MAX_GAP_TOKENS

    @property
    def _name(self) -> str:
        return f"'{printable(str(self.path), 300)}'"

    def _look(self) -> MucAppender | None:
        """The recording that is there already; None if there is none, or an empty file."""
        if not self.path.parent.is_dir():
            raise SinkError(f"{self._name} cannot be written: there is no such folder.")
        if not self.path.exists():
            return None
        try:
            if not self.path.is_file() and not self.path.is_dir():
                raise SinkError(f"{self._name} is no file that one could record to.")
            header = Survey.of(self.path).header
            if header is not None:
                return MucAppender(self.path, header)
            if self.path.stat().st_size:
                raise SinkError(f"{self._name} exists and is no .muc file; choose another name.")
        except FormatVersionError as error:
            raise SinkError(f"{self._name} {error}") from None
        except BlockingIOError:
            raise SinkError(
                f"Another program records to {self._name}; stop it or choose another name."
            ) from None
        except OSError as error:
            raise self._failure(error) from None
        return None

    def _begin(self, hello: Hello, first_token: int, token: int) -> bool:
        """A stream begins, or goes on elsewhere; says whether that is in the file that there is."""
        if self._file is not None and self._goes_on(self._header, self._next_token, hello):
            return True
        self._before, self._header = self.samples, None
        self._sieve = TitleSieve()
        there, self._there = self._there, None
        self._ended, self._missing, self._closed = False, 0, 0
        if there is not None:
            survey, header = there.survey, there.survey.header
            # What is missing in between was missed, or it was never wanted.
            wanted = self._start.live or token <= survey.next_token
            if wanted and self._goes_on(header, survey.next_token, hello):
                self._file, self._header, self._next_token = there, header, survey.next_token
                self._titles.clear()
                self._closed = survey.closed_tokens
                logger.info("going on in %s after %d tokens", self._name, self._next_token)
                self._try(Title(hello.title, hello.first_token) if hello.title else None)
                return True
            there.close()
        if self._file is not None:
            self._file.close()
            self._file = None
        first = max(first_token, token - MAX_CONTEXT)
        self._header = StreamHeader(**vars(hello.identity), first_token=first, start_token=token)
        self._next_token = first
        at_s = hello.first_at_s
        self._clock = None if at_s is None else Clock(hello.first_token, at_s)
        self._titles.clear()
        if hello.title:
            self._titles.append(Title(hello.title, token))
        return False

    def _end_at(self, token: int, samples: int | None) -> None:
        """There is to be as much from ``token`` on as is left of the limit after ``samples``."""
        if self._limit is not None:
            left = self._limit - (self.samples if samples is None else samples)
            self._end_sample = token * SAMPLES_PER_TOKEN + left

    def _goes_on(self, header: StreamHeader | None, next_token: int, hello: Hello) -> bool:
        """Whether ``hello`` begins the rest of what is in a file up to ``next_token``."""
        if header is None or not hello.stream or hello.next_token < next_token:
            return False
        return header.same_stream(hello)

    def _try(self, event: Event | None) -> None:
        try:
            self._write(event)
        except OSError as error:
            raise self._failure(error) from None

    def _write(self, event: Event | None) -> None:
        assert self._header is not None  # a hello comes first
        if isinstance(event, Title):
            self._announce(event, self._header.music_from)
        elif isinstance(event, Gap):
            self._reach(event.first_token + event.count)
        elif isinstance(event, Tokens):
            self._tokens(event)
        elif isinstance(event, End):
            self._reach(event.token)
            self._end(event.reason or "the source has ended")

    def _announce(self, title: Title, music_from: int) -> None:
        if self._file is not None and self._next_token > music_from:
            if self._sieve.passes(title):
                self._append(title)
        elif title.token > music_from:
            self._titles.append(title)
        else:  # the last of those is what is heard first
            self._titles.clear()
            self._titles.append(Title(title.title, music_from))

    def _tokens(self, packet: Tokens) -> None:
        first = max(self._next_token, packet.first_token)
        if first < packet.end_token:
            self._close_gap()
        tokens = packet.tokens[first - packet.first_token :]
        tokens = tokens[: max(0, self._last(first + len(tokens)) - first)]
        if len(tokens):
            self._pass(Tokens(first, tokens), first + len(tokens))

    def _close_gap(self) -> None:
        """What is missing ends here; where it is left out, as much more is wanted."""
        if self._closes:
            self._closed += self._missing
            if self._end_sample is not None:
                self._end_sample += self._missing * SAMPLES_PER_TOKEN
        self._missing = 0

    def _reach(self, token: int) -> None:
        """Tokens up to there are missing."""
        if self._missing + token - self._next_token <= MAX_GAP_TOKENS:  # otherwise it is closed
            token = self._last(token)
        if (count := token - self._next_token) > 0:
            self._pass(Gap(self._next_token, count), token)
            self._missing += count

    def _pass(self, record: Tokens | Gap, end_token: int) -> None:
        assert self._header is not None
        if isinstance(record, Tokens) and (title := self._sieve.music()) is not None:
            self._append(title)
        while self._titles and end_token > self._header.music_from:
            self._append(self._titles[0])
            self._titles.popleft()
        self._append(record)
        self._next_token = end_token

    def _last(self, token: int) -> int:
        """``token``, or one past the last token that is wanted."""
        if self._end_sample is None:
            return token
        return min(token, -(-self._end_sample // SAMPLES_PER_TOKEN))

    def _end(self, reason: str) -> None:
        padding = 0
        if self._end_sample is not None and not self._closes:
            padding = max(0, self._next_token * SAMPLES_PER_TOKEN - self._end_sample)
        self._append(Finish(self._next_token, min(padding, SAMPLES_PER_TOKEN - 1), reason))
        self._ended = True

    def _append(self, record: Record) -> None:
        if self._file is None:
            assert self._header is not None
            self._file = self._make(self._header)
            if self._clock is not None:
                self._file.append(self._clock)
        self._file.append(record)

    def _make(self, header: StreamHeader) -> MucAppender:
        """A file of its own, under a name that is free."""
        if self._files == _MOST_FILES:
            raise SinkError(
                f"The sender has begun another stream again and again: {_MOST_FILES} files are "
                f"enough, and {self._name} is the last."
            )
        for number in itertools.count(1):
            stem = self._wanted.stem if number == 1 else f"{self._wanted.stem}-{number}"
            self.path = self._wanted.with_stem(stem)
            empty = number == 1 and self.path.exists() and not self.path.stat().st_size
            try:
                file = MucAppender(self.path, header, new=not empty)
            except (FileExistsError, BlockingIOError):
                continue
            break
        if number > 1:
            logger.info("another stream: recording it to %s", self._name)
        self._files += 1
        return file

    def _failure(self, error: OSError) -> SinkError:
        return SinkError(f"{self._name} cannot be written: {reason_of(error)}.")


def _first_token(beginning: _Beginning) -> int:
    """The first token that has come, unless all that waits has room and begins with the hello's."""
    waiting = beginning.waiting
    if len(waiting) < _MOST_WAITING:
        return beginning.hello.first_token
    return next(
        (item.first_token for item in waiting if isinstance(item, (Tokens, Gap))),
        beginning.hello.first_token,
    )
