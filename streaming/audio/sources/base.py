"""What a source is, and the part that every decoding source shares."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from codec.constants import CHANNELS, SAMPLE_RATE
from streaming.audio.level import limit
from streaming.audio.resample import Resampler
from streaming.audio.sources.readers import Reader

if TYPE_CHECKING:
    from typing import Self

__all__ = ["DecodedSource", "Source"]

_CHUNK_FRAMES: Final = 4096


class Source(ABC):
    """A stream of 48 kHz stereo, read by one thread (usually a worker: `read` may block).

    Use it as a context manager, or call `open()` and `close()` from the reading thread.
    `stop()` alone may be called from anywhere: it makes a `read` that waits return, and
    every `read` after it says that the stream has ended.

    Args:
        title: shown instead of what the source itself says that it plays.
    """

    live = False
    """Whether the source keeps real time by itself (a sound input does, a file does not)."""

    def __init__(self, title: str | None = None) -> None:
        self._fixed_title = title
        self._title = title or ""
        self._title_listeners: list[Callable[[str], None]] = []
        self._pending = np.zeros((CHANNELS, 0), np.float32)
        self._stopped = threading.Event()
        self._opened = False

    @property
    def title(self) -> str:
        """What is playing: the title of the last block that `read` returned."""
        return self._title

    def on_title(self, listener: Callable[[str], None]) -> None:
        """Call `listener(title)` whenever the title changes.

        It is called from the reading thread, inside the `read` that returns the first samples
        under the new title; no block spans two titles.
        """
        self._title_listeners.append(listener)

    def open(self) -> None:
        """Acquire what the source needs; called by the first `read` if nobody did before.

        Raises:
            SourceError: the source cannot be opened or holds nothing that can be played.
        """
        if not self._opened:
            self._opened = True
            self._open()

    def read(self, frames: int) -> NDArray[np.float32]:
        """The next samples, `[2, n]` float32 within ±1 at 48 kHz.

        Waits for at least one sample and returns at most `frames`; fewer do not mean the end.
        `n == 0` does, and then stays so.

        Raises:
            SourceError: the source failed for good.
        """
        if frames < 1:
            raise ValueError(f"read() needs at least 1 frame, got {frames}")
        self.open()
        self._fill()
        block, self._pending = self._pending[:, :frames], self._pending[:, frames:]
        return block

    def stop(self) -> None:
        """End the stream from any thread; a `read` that waits returns soon."""
        self._stopped.set()

    def close(self) -> None:
        """Release everything; safe to call twice."""
        self.stop()
        self._pending = self._pending[:, :0]
        self._close()

    def __enter__(self) -> Self:
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _fill(self) -> None:
        """Have at least one sample pending, or be at the end."""
        while self._pending.shape[1] == 0 and not self._stopped.is_set():
            chunk = self._produce()
            if chunk is None:
                self._stopped.set()
            else:
                self._pending = limit(chunk)

    def _set_title(self, title: str) -> None:
        title = self._fixed_title or title
        if title != self._title:
            self._title = title
            for listener in self._title_listeners:
                listener(title)

    @abstractmethod
    def _open(self) -> None:
        """Acquire resources."""

    @abstractmethod
    def _produce(self) -> NDArray[np.float32] | None:
        """Some finite samples `[2, n]` at 48 kHz, n ≥ 0; None at the end."""

    @abstractmethod
    def _close(self) -> None:
        """Release resources, also half-acquired ones."""


class DecodedSource(Source):
    """Plays readers one after another without a gap.

    What has one sample rate passes through the same resampler as one signal, whichever readers it
    comes from, so an album whose tracks run into each other stays seamless, and so does a loop.
    """

    def __init__(self, title: str | None = None) -> None:
        super().__init__(title)
        self._reader: Reader | None = None
        self._resampler: Resampler | None = None
        self._held: NDArray[np.float32] | None = None
        self._ended = False

    @abstractmethod
    def _next_reader(self) -> Reader | None:
        """The reader to play next, or None when there is no more."""

    def _reader_done(self, reader: Reader) -> None:
        """Hear that `reader` has given all that it has (see its `seconds_read`, `damage`)."""

    def _open(self) -> None:
        # The first samples show whether there is anything to play at all.
        self._fill()

    def _produce(self) -> NDArray[np.float32] | None:
        if self._reader is None:
            if self._ended:
                return None
            self._reader = self._next_reader()
            if self._reader is None:
                self._ended = True
                return self._flush()
        block, self._held = self._held, None
        if block is None:
            block = self._reader.read(_CHUNK_FRAMES)
        if block.shape[1] == 0:
            reader, self._reader = self._reader, None
            reader.close()
            if not self._stopped.is_set():
                self._reader_done(reader)
            return block
        if self._resampler is None or self._resampler.in_rate != self._reader.rate:
            if (tail := self._flush()).shape[1]:  # still under the title before
                self._held = block
                return tail
            self._resampler = Resampler(self._reader.rate, SAMPLE_RATE)
        self._set_title(self._reader.title)
        return self._resampler.push(block)

    def _flush(self) -> NDArray[np.float32]:
        if self._resampler is None:
            return np.zeros((CHANNELS, 0), np.float32)
        return self._resampler.finish()

    def stop(self) -> None:
        """Also interrupt the reader, which may be waiting for its input."""
        super().stop()
        reader = self._reader
        if reader is not None:
            reader.interrupt()

    def _close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
