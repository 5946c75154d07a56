"""What keeps time where no sound card does: for sound that is heard in a browser."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from codec.constants import SAMPLE_RATE

__all__ = ["ClockCard"]

_POLL_S: Final = 0.02
_PREFILL_S: Final = 0.1


class ClockCard:
    """Takes sound at the pace at which a sound card would play it, and plays none.

    Fulfils :class:`streaming.receive.output.SoundCard`. Holds little, so that what is shown as
    heard and what a browser plays stay close together.

    Args:
        buffer_s: seconds of sound that ``write`` takes without waiting.
        clock, sleep: monotonic seconds; how to let some pass.
    """

    def __init__(
        self,
        buffer_s: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.underruns = 0
        self._capacity = round(buffer_s * SAMPLE_RATE)
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._speed = 1.0
        self._level = 0.0  # samples, at `_at_s`
        self._at_s = clock()
        self._playing = False
        self._interrupted = threading.Event()

    @property
    def speed(self) -> float:
        """How fast what is held runs out: a factor."""
        return self._speed

    @speed.setter
    def speed(self, speed: float) -> None:
        with self._lock:
            self._run()
            self._speed = speed

    @property
    def buffered_samples(self) -> int:
        """48 kHz samples written and not yet due."""
        with self._lock:
            self._run()
            return round(self._level)

    def write(self, block: NDArray[np.float32]) -> None:
        """Take float32 ``[2, n]``; waits while too much is held."""
        while self.buffered_samples >= self._capacity and not self._interrupted.is_set():
            self._sleep(_POLL_S)
        with self._lock:
            self._run()
            self._level += block.shape[1]
            self._playing |= self._level >= _PREFILL_S * SAMPLE_RATE

    def drop(self) -> None:
        """Let go of what is held; from any thread."""
        with self._lock:
            self._run()
            self._level, self._playing = 0.0, False

    def interrupt(self) -> None:
        """Wait no longer; from any thread."""
        self._interrupted.set()

    def drain(self) -> None:
        """Wait until what is held has run out."""
        with self._lock:
            self._run()
            self._playing = True
        while self.buffered_samples and not self._interrupted.is_set():
            self._sleep(_POLL_S)

    def close(self) -> None:
        """Nothing to release."""
        self.interrupt()

    def _run(self) -> None:
        """Let what is held run out as far as time has passed."""
        now_s = self._clock()
        elapsed_s, self._at_s = max(0.0, now_s - self._at_s), now_s
        if not self._playing:
            return
        self._level -= elapsed_s * SAMPLE_RATE * self._speed
        if self._level <= 0:
            self._level, self._playing = 0.0, False
            self.underruns += 1
