"""A sound card in simulated time: the program's own player, called as a device would call it."""

from __future__ import annotations

import asyncio
from typing import Final

import numpy as np
from numpy.typing import NDArray

from codec.constants import CHANNELS, SAMPLE_RATE
from streaming.audio.resample import VariableResampler
from streaming.audio.sinks.player import Player

__all__ = ["SimulatedCard"]

_PERIOD_S: Final = 0.02
_POLL_S: Final = 0.01

Audio = NDArray[np.float32]


class SimulatedCard:
    """Plays what is written at the speed of simulated time; use :meth:`run` as a task.

    Calls that would wait are coroutines, see :class:`benchmarks.lab.simulated_time.SimulatedLoop`.

    Args:
        heard_s: how much of what was played is kept, from the first sound on.
        prefill_s: see :class:`streaming.audio.sinks.player.Player`.
        device_s: the device's own buffer.

    Attributes: ``speed``; ``silent_s``, how long nothing was to be heard since the first sound.
    """

    def __init__(self, heard_s: float, prefill_s: float = 0.1, device_s: float = 0.1) -> None:
        self._player = Player(SAMPLE_RATE, 4.0, prefill_s)
        self._resampler = VariableResampler(SAMPLE_RATE, SAMPLE_RATE)
        self._device_s = device_s
        self._heard: list[Audio] = []
        self._room = round(heard_s * SAMPLE_RATE)
        self._began = False
        self._ending = False
        self.silent_s = 0.0
        self.speed = 1.0

    @property
    def heard(self) -> Audio:
        """What was played, float32 ``[2, n]``."""
        return np.concatenate([np.zeros((CHANNELS, 0), np.float32), *self._heard], axis=1)

    @property
    def underruns(self) -> int:
        """How often the sound ran out before its end."""
        return self._player.underruns

    @property
    def buffered_samples(self) -> int:
        """Samples written and not heard yet."""
        return self._player.buffered + round(self._device_s * SAMPLE_RATE)

    async def run(self) -> None:
        """The device: takes a block at a time, until cancelled."""
        while True:
            await asyncio.sleep(_PERIOD_S)
            block = np.zeros((CHANNELS, round(_PERIOD_S * SAMPLE_RATE)), np.float32)
            was_silent = self._player.silent
            self._player.fill(block)
            self._began |= not (was_silent and self._player.silent)
            if self._began and was_silent and self._player.silent and not self._ending:
                self.silent_s += _PERIOD_S
            if self._began and self._room > 0:
                self._heard.append(block[:, : self._room])
                self._room -= block.shape[1]

    async def write(self, block: Audio) -> None:
        """Take float32 ``[2, n]``, as there is room."""
        if self.speed != self._resampler.speed:
            self._resampler.speed = self.speed
        block = self._resampler.push(block)
        while block.shape[1]:
            count = self._player.write(block)
            block = block[:, count:]
            if not count:
                await asyncio.sleep(_POLL_S)

    def drop(self) -> None:
        """Fade out and let go of what was written."""
        self._player.drop()

    def interrupt(self) -> None:
        """There is no device to wait for."""

    async def drain(self) -> None:
        """Play to the end."""
        self._ending = True
        self._player.finish()
        while self._player.buffered or not self._player.silent:
            await asyncio.sleep(_POLL_S)

    def close(self) -> None:
        """Fall silent."""
        self._ending = True
        self._player.cut()
