"""Records a stream to a ``.muc`` file as it comes, without decoding it: no model, no torch.

What has come is in the file at once, so a listener that is killed loses none of it. Started again
with the same file, it goes on there: what was missed meanwhile comes first, as long as the sender
has it. A file is never overwritten: another stream goes into ``NAME-2.muc`` and so on.

Blocking calls: a worker thread's business.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from codec.constants import SAMPLES_PER_TOKEN
from streaming.errors import FormatVersionError, SinkError
from streaming.muc import MUC_SUFFIX, Clock, Finish, StreamHeader
from streaming.muc.append import MucAppender, Survey
from streaming.muc.messages import Record
from streaming.protocol import MAX_GAP_TOKENS, End, Gap, Hello, Join, Title, Tokens
from streaming.session import Happening
from streaming.status import printable
from streaming.titles import TitleSieve

__all__ = ["Recorder"]

logger = logging.getLogger(__name__)


class Recorder:
    """Writes what happens in a stream to ``path``.

    limit_samples: of music at 48 kHz, after which :attr:`full` is set; None: any number.

    Attributes: ``path``, the file that is written to; ``samples`` of music in it, as long as it
    will play: lost ones included, but for gaps of more than ten minutes, which are closed;
    ``bytes``, its length; ``full``.

    Raises SinkError where the file cannot be written, or exists and is no ``.muc`` file.
    """

    def __init__(self, path: Path | str, limit_samples: int | None = None) -> None:
        self.path = Path(path)
        self.full = limit_samples == 0
        self.samples = 0
        self._wanted = self.path
        self._limit = limit_samples
        self._file: MucAppender | None = None
        self._header: StreamHeader | None = None
        self._titles = TitleSieve()
        self._next_token = 0
        self._missing = 0  # tokens just before the next one
        self._closed = 0  # tokens of gaps that are closed
        self._ended = False
        if self.path.suffix.lower() != MUC_SUFFIX:
            raise SinkError(f"{self._name} must end in {MUC_SUFFIX}, which is what is recorded.")
        self._there = self._look(self.path)

    @property
    def bytes(self) -> int:
        """Length of the file."""
        return 0 if self._file is None else self._file.bytes

    def join(self, join: Join) -> Join:
        """The first message to the sender: ``join``, or where the file that is there ends."""
        if self._there is None or self._there.header is None:
            return join
        return Join(
            join.history,
            join.client,
            next_token=self._there.next_token,
            stream=self._there.header.stream,
        )

    def take(self, happening: Happening) -> None:
        """Write what happened. Raises SinkError."""
        try:
            if isinstance(happening, Hello):
                self._begin(happening)
            elif isinstance(happening, Title):
                if self._titles.passes(happening):
                    self._append(happening)
            elif isinstance(happening, Gap):
                self._reach(happening.first_token + happening.count)
            elif isinstance(happening, Tokens):
                self._tokens(happening)
            elif isinstance(happening, End):
                self._reach(happening.token)
                self._end(happening.reason or "the source has ended")
        except OSError as error:
            raise self._failure(error) from None

    def close(self, reason: str | None = None) -> None:
        """Complete the file; reason: why the music ends here, where it does. Never raises."""
        if self._file is None:
            return
        if reason is not None and not self._ended:
            try:
                self._end(reason)
            except OSError as error:
                logger.warning("%s", self._failure(error))
        self._file.close()

    @property
    def _name(self) -> str:
        return f"'{printable(str(self.path), 300)}'"

    def _look(self, path: Path) -> Survey | None:
        """What is in the file already; None where it is new."""
        try:
            there = Survey.of(path)
        except FileNotFoundError:
            if not path.parent.is_dir():
                raise SinkError(
                    f"{self._name} cannot be written: there is no such folder."
                ) from None
            return None
        except FormatVersionError as error:
            raise SinkError(f"{self._name} {error}") from None
        except OSError as error:
            raise self._failure(error) from None
        if there.header is None and there.file_bytes:
            raise SinkError(f"{self._name} exists and is no .muc file; choose another name.")
        return there if there.header is not None else None

    def _begin(self, hello: Hello) -> None:
        """A stream begins, or goes on further than one can wait for."""
        header = StreamHeader(
            hello.codec, hello.weights, hello.digest, hello.seed, hello.first_token, hello.stream
        )
        if self._file is not None and self._goes_on(self._header, self._next_token, hello):
            return
        self._titles = TitleSieve()
        there = self._there if self._file is None else None
        if self._file is not None:
            self._file.close()
        if there is not None and self._goes_on(there.header, there.next_token, hello):
            assert there.header is not None
            header, self._next_token = there.header, there.next_token
            self._closed = there.closed_tokens
            logger.info("going on in %s after %d tokens", self._name, there.next_token)
        else:
            if there is not None or self._file is not None:
                self.path = self._free_name()
                logger.info("another stream: recording it to %s", self._name)
            self._next_token, self._closed = hello.first_token, 0
        self._missing = 0
        self._header, self._ended = header, False
        self._file = MucAppender(self.path, header)
        self._count()
        if hello.first_at_s is not None:
            self._append(Clock(hello.first_token, hello.first_at_s))
        if hello.title:
            self._append(Title(hello.title, hello.first_token))

    def _goes_on(self, header: StreamHeader | None, next_token: int, hello: Hello) -> bool:
        """Whether ``hello`` begins the rest of what is in a file up to ``next_token``."""
        if header is None or not hello.stream or hello.next_token < next_token:
            return False
        ours = (header.codec, header.digest, header.seed, header.stream)
        return ours == (hello.codec, hello.digest, hello.seed, hello.stream)

    def _free_name(self) -> Path:
        number = 2
        while (path := self._wanted.with_stem(f"{self._wanted.stem}-{number}")).exists():
            number += 1
        return path

    def _tokens(self, packet: Tokens) -> None:
        tokens = packet.tokens[max(0, self._next_token - packet.first_token) :]
        if self._limit is not None:
            left = -(-(self._limit - self.samples) // SAMPLES_PER_TOKEN)
            tokens = tokens[: max(0, left)]
        if len(tokens):
            if self._missing > MAX_GAP_TOKENS:
                self._closed += self._missing
            self._missing = 0
            if (title := self._titles.music()) is not None:
                self._append(title)
            self._next_token = max(self._next_token, packet.first_token)
            self._append(Tokens(self._next_token, tokens))
            self._next_token += len(tokens)
            self._count()

    def _reach(self, token: int) -> None:
        """Tokens up to there are missing."""
        closes = self._missing + token - self._next_token > MAX_GAP_TOKENS
        if self._limit is not None and not closes:
            left = -(-(self._limit - self.samples) // SAMPLES_PER_TOKEN)
            token = min(token, self._next_token + left)
        if token > self._next_token:
            self._append(Gap(self._next_token, token - self._next_token))
            self._missing += token - self._next_token
            self._next_token = token
            self._count()

    def _count(self) -> None:
        assert self._header is not None
        closed = self._closed + (self._missing if self._missing > MAX_GAP_TOKENS else 0)
        tokens = self._next_token - self._header.first_token - closed
        self.samples = tokens * SAMPLES_PER_TOKEN
        self.full = self._limit is not None and self.samples >= self._limit

    def _end(self, reason: str) -> None:
        padding = max(0, self.samples - self._limit) if self._limit is not None else 0
        self._append(Finish(self._next_token, min(padding, SAMPLES_PER_TOKEN - 1), reason))
        self._ended = True

    def _append(self, record: Record) -> None:
        assert self._file is not None  # a hello comes first
        self._file.append(record)

    def _failure(self, error: OSError) -> SinkError:
        reason = os.strerror(error.errno) if error.errno else str(error)
        return SinkError(f"{self._name} cannot be written: {reason}.")
