"""What is live elsewhere: played as it comes, come back to when it is lost."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from codec.constants import CHANNELS
from streaming.audio.sources.readers import Reader
from streaming.errors import SourceError

__all__ = ["RadioReader"]

logger = logging.getLogger(__name__)

_BLOCK_FRAMES: Final = 4096
_START_S: Final = 2.0
"""How much sound must have come before it is played, at first and after a silence."""
_MOST_S: Final = 10.0
"""How much may wait here; the rest waits in the network and at the station."""
_PATIENCE_S: Final = 0.2
_BEHIND_S: Final = 0.5
"""How far behind a reader may be and still catch up."""
_MOST_SILENCE_S: Final = 5.0  # a machine that slept has nothing to make up for
_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 30.0
_GOOD_S: Final = 10.0
"""A connection that lasted so long was none of a row of vain attempts."""
_POLL_S: Final = 0.1


class RadioReader(Reader):
    """Plays readers of one live stream, each begun where the one before it broke.

    A thread receives. When nothing does, silence takes its place for as long, so that a
    stream made of this keeps time; sound begins again when some of it has come together.

    Args:
        dial: connects and returns a reader of what is live there from now on. If that ends without
            damage, the stream has ended; else it is dialled again, for as long as it takes.
        shown: what it is, for messages.

    Attributes:
        losses: how often it was lost.

    Raises:
        SourceError: the first connection fails.
    """

    def __init__(self, dial: Callable[[], Reader], shown: str) -> None:
        self._dial = dial
        self._shown = shown
        self._current = dial()
        super().__init__(self._current.rate, self._current.title)
        self._change = threading.Condition()  # over what follows
        self._waiting: deque[tuple[int, str, NDArray[np.float32]]] = deque()  # rate, title, block
        self._waiting_s = 0.0
        self._ended = False
        self._closed = False
        self._flowing = False
        self._covered_s: float | None = None  # until when there was sound, or silence in its place
        self._wait_s = _FIRST_WAIT_S
        self.losses = 0
        threading.Thread(target=self._receive, name="radio", daemon=True).start()

    def _read(self, frames: int) -> NDArray[np.float32]:
        with self._change:
            while not self._closed:
                if self._flowing or self._ended or self._waiting_s >= _START_S:
                    if self._waiting:
                        self._flowing = True
                        return self._sound(frames)
                    if self._ended:
                        break
                silence = self._silence(frames)
                if silence.shape[1]:
                    self._flowing = False
                    return silence
                self._change.wait(_POLL_S)
        return np.zeros((CHANNELS, 0), np.float32)

    def _sound(self, frames: int) -> NDArray[np.float32]:
        self.rate, self.title, block = self._waiting.popleft()
        if block.shape[1] > frames:
            self._waiting.appendleft((self.rate, self.title, block[:, frames:]))
            block = block[:, :frames]
        seconds, now_s = block.shape[1] / self.rate, time.monotonic()
        self._waiting_s -= seconds
        before_s = now_s if self._covered_s is None else self._covered_s
        self._covered_s = max(before_s, now_s - _BEHIND_S) + seconds
        self._change.notify_all()
        return block

    def _silence(self, frames: int) -> NDArray[np.float32]:
        """As much of it as there should have been sound until now; none before the first sound."""
        now_s = time.monotonic()
        if self._covered_s is None or now_s - self._covered_s < _PATIENCE_S:
            return np.zeros((CHANNELS, 0), np.float32)
        self._covered_s = max(self._covered_s, now_s - _MOST_SILENCE_S)
        count = min(frames, round((now_s - self._covered_s) * self.rate))
        self._covered_s += count / self.rate
        return np.zeros((CHANNELS, count), np.float32)

    def _receive(self) -> None:
        """On its own thread: receive, over as many connections as necessary."""
        while self._take_in() is not None and not self._closed:
            self.losses += 1
            logger.warning("%s has stopped; silence takes its place until it is back.", self._shown)
            if not self._come_back():
                break
            logger.info("%s is back.", self._shown)
        with self._change:
            self._ended = True
            self._change.notify_all()

    def _take_in(self) -> str | None:
        """Take in all of the current connection; returns its damage."""
        reader = self._current
        try:
            while (block := reader.read(_BLOCK_FRAMES)).shape[1]:
                with self._change:
                    self._change.wait_for(lambda: self._closed or self._waiting_s < _MOST_S)
                    if self._closed:
                        return None
                    self._waiting.append((reader.rate, reader.title, block))
                    self._waiting_s += block.shape[1] / reader.rate
                    self._change.notify_all()
        finally:
            reader.close()
        if reader.seconds_read >= _GOOD_S:
            self._wait_s = _FIRST_WAIT_S
        return reader.damage

    def _come_back(self) -> bool:
        """Dial until there is a connection; False when nobody wants one any more."""
        while True:
            with self._change:
                spread_s = self._wait_s * (0.5 + 0.5 * random.random())
                self._wait_s = min(_LONGEST_WAIT_S, 1.5 * self._wait_s)
                if self._change.wait_for(lambda: self._closed, spread_s):
                    return False
            try:
                self._current = self._dial()
            except SourceError as error:
                logger.debug("not yet: %s", error)
            else:
                if self._closed:
                    self._current.close()
                return not self._closed

    def interrupt(self) -> None:
        """End the thread that receives, and every wait for it."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        self._current.interrupt()

    def close(self) -> None:
        """Interrupt what receives, which then closes by itself."""
        self.interrupt()
