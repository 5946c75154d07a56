"""Where sound goes: blocks to every sink, each on a thread of its own, since sinks may wait."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from codec.constants import SAMPLE_RATE
from streaming.audio.sinks.base import Sink
from streaming.errors import SinkClosed
from streaming.support.worker import Worker

__all__ = ["Output", "SoundCard"]

logger = logging.getLogger(__name__)

Audio = NDArray[np.float32]

_CLOSE_TIMEOUT_S: Final = 3.0
_DRAIN_S: Final = 0.3


class SoundCard(Protocol):
    """A sink that plays in real time, such as :class:`streaming.audio.sinks.SoundCardSink`."""

    @property
    def buffered_samples(self) -> int:
        """48 kHz samples written and not yet heard."""

    @property
    def underruns(self) -> int:
        """How often the sound ran out before its end."""

    speed: float
    """How fast what is written next is played: a factor."""

    def write(self, block: Audio) -> None:
        """Take float32 ``[2, n]``; waits while the card's buffer is full."""

    def drop(self) -> None:
        """Fade out and let go of what was written and not played; from any thread."""

    def interrupt(self) -> None:
        """Wait no longer for a device that is lost; from any thread."""

    def drain(self) -> None:
        """Play what has been written to its end, and wait for it."""

    def close(self) -> None:
        """Stop playing."""


class Output:
    """Hands blocks on to all sinks, in order and one after the other.

    Files and pipes take a block as soon as it is there. A sound card takes it when its buffer has
    room, and so sets the pace if there is one. A pipe that nobody reads holds up the sound card
    beside it; files do not.

    Make it inside the event loop.

    Args:
        files: take all sound as it is.
        card: plays it.
        clock: monotonic seconds.

    Attributes:
        first_at_s: when the first sample was handed over, on ``clock``; None: not yet.
    """

    def __init__(
        self,
        files: Sequence[Sink] = (),
        card: SoundCard | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = [(file, Worker("file")) for file in files]
        self._card = card
        self._card_worker = Worker("sound card")
        self._open = list(self._files)
        self._clock = clock
        self._closed = False
        self.first_at_s: float | None = None

    @property
    def card(self) -> SoundCard | None:
        """The sound card, or what stands in for one."""
        return self._card

    @property
    def unheard_samples(self) -> int:
        """Samples handed over that the sound card has yet to play; 0 without one."""
        return 0 if self._card is None or self._closed else self._card.buffered_samples

    @property
    def paced(self) -> bool:
        """Whether a sound card sets the pace."""
        return self._card is not None

    @property
    def speed(self) -> float:
        """How fast the sound card plays what comes next; files get everything as it is."""
        return 1.0 if self._card is None else self._card.speed

    @speed.setter
    def speed(self, speed: float) -> None:
        if self._card is not None:
            self._card.speed = speed

    @property
    def underruns(self) -> int:
        """How often the sound card ran dry; 0 without one."""
        return 0 if self._card is None else self._card.underruns

    async def write(self, block: Audio, due_s: float = 0.0) -> None:
        """Hand float32 ``[2, n]`` on, to the sound card not before ``due_s`` on ``clock``.

        Returns when every sink has taken all of it.

        Raises:
            SinkError: a sink fails.
            SinkClosed: nobody is left who listens.
        """
        for file, worker in list(self._open):
            try:
                await worker.run(file.write, block)
            except SinkClosed:
                self._open.remove((file, worker))
                if not self._open and self._card is None:
                    raise
                logger.info("whoever read the pipe has gone; the sound goes on elsewhere")
            else:
                self._note_first()
        if self._card is not None:
            if (hold_s := due_s - self._clock()) > 0:
                await asyncio.sleep(hold_s)
            self._note_first()
            await self._card_worker.run(self._card.write, block)
        self._note_first()

    def drop(self) -> None:
        """What the sound card was given and has not played fades out and is let go."""
        if self._card is not None:
            self._card.drop()

    async def drain(self) -> None:
        """Wait until the sound card has played everything."""
        if self._card is not None:
            # Most of the wait is here, where it can be cancelled.
            await asyncio.sleep(max(0.0, self._card.buffered_samples / SAMPLE_RATE - _DRAIN_S))
            await self._card_worker.run(self._card.drain)

    async def close(self) -> None:
        """Stop the sound card and complete the files; a second time does nothing.

        Raises:
            SinkError: the first of those that cannot be completed, after closing all.
        """
        if self._closed:
            return
        self._closed = True
        if self._card is not None:
            self._card.interrupt()
        closing = [worker.run(file.close) for file, worker in self._files]
        if self._card is not None:
            closing.append(self._card_worker.run(self._card.close))
        tasks = [asyncio.ensure_future(call) for call in closing]
        _, stuck = await asyncio.wait(tasks, timeout=_CLOSE_TIMEOUT_S) if tasks else ((), ())
        for task in stuck:
            task.cancel()
        if stuck:
            logger.warning("an output takes nothing any more and is left as it is")
        for worker in (self._card_worker, *(worker for _, worker in self._files)):
            await worker.close(0.0 if stuck else _CLOSE_TIMEOUT_S)
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):  # not the cancelling above
                raise result

    def _note_first(self) -> None:
        if self.first_at_s is None:
            self.first_at_s = self._clock()
