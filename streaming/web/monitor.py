"""Sound on its way to a sound card, to be seen and heard elsewhere as well."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from codec.constants import SAMPLE_RATE
from streaming.receive.output import SoundCard
from streaming.web.spectrum import COLUMN_SAMPLES, Spectrum

__all__ = ["Column", "Monitor", "Piece"]

_KEPT_S: Final = 10.0  # more than any card holds


@dataclass(frozen=True)
class Piece:
    """Sound, 16-bit samples of left and right in turns, from ``first_sample`` on."""

    first_sample: int
    samples: int
    pcm: bytes


@dataclass(frozen=True)
class Column:
    """A column of the spectrogram at ``index``, in columns."""

    index: int
    bands: bytes


class Monitor:
    """A sound card that passes everything on to another one and notes it.

    Fulfils :class:`streaming.receive.output.SoundCard`. One thread writes; whoever shows the sound
    takes from :meth:`pieces` and :meth:`columns` on another. What nobody takes is forgotten after
    ten seconds. Samples count from the start and are those that are heard: what is dropped does not
    count, so that the picture has no hole.
    """

    def __init__(self, card: SoundCard) -> None:
        self.card = card
        self.drops = 0
        self._lock = threading.Lock()
        self._written = 0
        self._edge = 0  # one past the last sample that the card has
        self._heard = 0
        self._spectrum = Spectrum()
        self._pieces: deque[Piece] = deque()
        self._columns: deque[Column] = deque(maxlen=int(_KEPT_S * SAMPLE_RATE) // COLUMN_SAMPLES)

    @property
    def heard_samples(self) -> int:
        """How many samples have been heard so far."""
        with self._lock:
            return self._note_heard()

    @property
    def buffered_samples(self) -> int:
        """48 kHz samples written and not yet heard."""
        return self.card.buffered_samples

    @property
    def underruns(self) -> int:
        """How often the sound ran out before its end."""
        return self.card.underruns

    @property
    def speed(self) -> float:
        """How fast what is written next is played: a factor."""
        return self.card.speed

    @speed.setter
    def speed(self, speed: float) -> None:
        self.card.speed = speed

    def write(self, block: NDArray[np.float32]) -> None:
        """Take float32 ``[2, n]``; waits as the card does."""
        scaled = np.rint(np.clip(block.T, -1.0, 1.0) * 32767).astype("<i2")
        with self._lock:
            first, drops = self._written, self.drops
            self._pieces.append(Piece(first, block.shape[1], scaled.tobytes()))
            while self._pieces[0].first_sample < first - _KEPT_S * SAMPLE_RATE:
                self._pieces.popleft()
            for bands in self._spectrum.push(block):
                self._columns.append(Column(first // COLUMN_SAMPLES, bands))
                first += COLUMN_SAMPLES
            self._written += block.shape[1]
            end = self._written
        self.card.write(block)
        with self._lock:
            if self.drops == drops:
                self._edge = end

    def pieces(self, until_sample: int) -> list[Piece]:
        """What begins before ``until_sample`` and was not taken yet."""
        taken = []
        with self._lock:
            while self._pieces and self._pieces[0].first_sample < until_sample:
                taken.append(self._pieces.popleft())
        return taken

    def columns(self) -> list[Column]:
        """The columns that were not taken yet."""
        with self._lock:
            taken = list(self._columns)
            self._columns.clear()
        return taken

    def drop(self) -> None:
        """Let go of what was written and not played; from any thread."""
        with self._lock:
            self._written = self._edge = self._note_heard()
            self._pieces.clear()
            self._columns.clear()
            self.drops += 1
        self.card.drop()

    def interrupt(self) -> None:
        """Wait no longer for a device that is lost; from any thread."""
        self.card.interrupt()

    def drain(self) -> None:
        """Play what has been written to its end, and wait for it."""
        self.card.drain()

    def close(self) -> None:
        """Stop playing."""
        self.card.close()

    def _note_heard(self) -> int:
        """Never backwards, although a card takes a long block bit by bit."""
        self._heard = max(self._heard, self._edge - self.card.buffered_samples)
        return self._heard
