"""What a sound card's callback plays: pure arithmetic on a ring buffer, no device."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

import numpy as np
from numpy.typing import NDArray

from codec.constants import CHANNELS
from streaming.audio.ring import RingBuffer

__all__ = ["FADE_S", "Player"]

FADE_S: Final = 0.005
_VOLUME_STEP: Final = 1e-4  # -80 dB: a smaller change of volume cannot click


class _State(Enum):
    PAUSED = auto()
    """Silence, until enough has been written."""
    PLAYING = auto()
    ENDING = auto()
    """The last samples fade out."""


class Player:
    """Feeds an audio callback from a ring buffer; never waits, raises or allocates buffers.

    It always keeps `FADE_S` of sound in reserve. When no more than that is left, the reserve
    fades out, which is an underrun unless the sound was told to end; when enough is there
    again, the sound fades in. So running out is never a click, and every sample written is
    played, but for what fits into less than one fade at the very end.

    One thread calls `write`, `finish` and `cut`; any may call `drop`; the callback alone calls
    `fill`.

    Args:
        rate: samples per second of the device.
        capacity_s: seconds of sound that may wait.
        prefill_s: seconds that must wait before the sound starts or resumes.
        volume: factor, see `volume`.
    """

    def __init__(
        self, rate: int, capacity_s: float = 4.0, prefill_s: float = 0.1, volume: float = 1.0
    ) -> None:
        self._fade = max(1, round(FADE_S * rate))
        self._ring = RingBuffer(CHANNELS, max(round(capacity_s * rate), 4 * self._fade))
        self._prefill = min(max(1, round(prefill_s * rate)), self._ring.capacity - 2 * self._fade)
        self._line = np.arange(1, self._fade + 1, dtype=np.float32) / np.float32(self._fade)
        # A raised cosine: its slope is zero at both ends.
        self._rise = (0.5 - 0.5 * np.cos(np.pi * self._line)).astype(np.float32)
        self._fall = self._rise[::-1].copy()
        self._scratch = np.zeros(self._fade, np.float32)
        self._state = _State.PAUSED
        self._faded = 0  # how far the fade has come: 0 is silence, self._fade full level
        self._finishing = False
        self._cut = False
        self._drop_to = 0  # place in the ring before which nothing is to be heard any more
        self._volume_now = self.volume = volume
        self.underruns = 0

    volume: float
    """Factor on the samples; changes take effect over `FADE_S`."""

    @property
    def buffered(self) -> int:
        """Samples written and not yet played."""
        return self._ring.available

    @property
    def free(self) -> int:
        """Samples that can be written at once."""
        return self._ring.free

    @property
    def silent(self) -> bool:
        """Whether nothing is playing just now."""
        return self._state is _State.PAUSED

    def write(self, block: NDArray[np.float32]) -> int:
        """Queue the start of `block` `[2, n]` as far as it fits; returns how many samples."""
        count = self._ring.write(block)
        if count:
            self._finishing = False
        return count

    def finish(self) -> None:
        """What has been written is all for now: play it to its end, which is no underrun."""
        self._finishing = True

    def cut(self) -> None:
        """Fade out at once and stay silent for good."""
        self._cut = True

    def drop(self) -> None:
        """Fade out at once and let go what has been written so far; the rest is played."""
        self._drop_to = self._ring.written

    def pause(self) -> None:
        """Begin with a fade when `fill` is called next. Only while nothing calls it."""
        self._state = _State.PAUSED
        self._faded = 0

    def fill(self, out: NDArray[np.float32]) -> None:
        """Write the next samples into `out` `[2, n]`."""
        if self._state is _State.PAUSED:
            self._try_to_start()
        done, wanted = 0, out.shape[1]
        while done < wanted and self._state is not _State.PAUSED:
            if self._state is _State.PLAYING:
                done += self._play(out[:, done:])
            else:
                done += self._end(out[:, done:])
        out[:, done:] = 0.0
        self._apply_volume(out)

    def _try_to_start(self) -> None:
        self._ring.skip(self._drop_to - self._ring.taken)
        waiting = self._ring.available
        if self._cut:
            self._ring.skip(waiting)
        elif self._finishing and waiting <= self._fade:
            self._ring.skip(waiting)  # less than a fade in and out would take
        elif self._finishing or waiting >= self._prefill + self._fade:
            self._state = _State.PLAYING

    def _play(self, out: NDArray[np.float32]) -> int:
        """Play up to the reserve; returns how many samples, 0 when the state has changed."""
        count = min(out.shape[1], self._ring.available - self._fade)
        dropping = self._ring.taken < self._drop_to
        if count <= 0 or self._cut or dropping:
            self._state = _State.ENDING
            if not (self._finishing or self._cut or dropping):
                self.underruns += 1
            return 0
        if self._faded == self._fade:
            return self._ring.read_into(out[:, :count])
        count = min(count, self._fade - self._faded)
        self._ring.read_into(out[:, :count])
        out[:, :count] *= self._rise[self._faded : self._faded + count]
        self._faded += count
        return count

    def _end(self, out: NDArray[np.float32]) -> int:
        """Play the fade-out as far as it fits; returns how many samples."""
        count = min(out.shape[1], self._faded)
        at = self._fade - self._faded
        self._ring.read_into(out[:, :count])
        out[:, :count] *= self._fall[at : at + count]
        self._faded -= count
        if self._faded == 0:
            self._state = _State.PAUSED
        return count

    def _apply_volume(self, out: NDArray[np.float32]) -> None:
        target = self.volume
        change = target - self._volume_now
        if abs(change) < _VOLUME_STEP:
            self._volume_now = target
            if target != 1.0:
                out *= np.float32(target)
        else:
            count = min(out.shape[1], self._fade)
            ramp = self._scratch[:count]
            np.multiply(self._line[:count], np.float32(change), out=ramp)
            ramp += np.float32(self._volume_now)
            out[:, :count] *= ramp
            self._volume_now += change * count / self._fade
            out[:, count:] *= np.float32(self._volume_now)
        np.clip(out, -1.0, 1.0, out=out)
