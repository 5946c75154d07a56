"""Sound as columns of a spectrogram, a byte a band."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from codec.constants import CHANNELS, SAMPLE_RATE

__all__ = ["BANDS", "COLUMN_SAMPLES", "HIGHEST_HZ", "LOWEST_HZ", "Spectrum"]

BANDS: Final = 96
COLUMN_SAMPLES: Final = SAMPLE_RATE // 20
LOWEST_HZ: Final = 40.0
HIGHEST_HZ: Final = 16_000.0
_WINDOW: Final = 4096
_FLOOR_DB: Final = -96.0
_CEILING_DB: Final = -18.0  # of a band; full scale is spread over many of them


def _filters() -> NDArray[np.float32]:
    """Which share of a bin's power goes into which band, ``[BANDS, bins]``.

    Triangles on a logarithmic scale; where bins are further apart than bands, the nearest one.
    """
    centres = np.geomspace(LOWEST_HZ, HIGHEST_HZ, BANDS)
    bins_hz = np.fft.rfftfreq(_WINDOW, 1 / SAMPLE_RATE)
    bins_hz[0] = bins_hz[1] / 2
    step = np.log(centres[1] / centres[0])
    away = np.abs(np.log(bins_hz)[None, :] - np.log(centres)[:, None]) / step
    shares = np.maximum(0.0, 1.0 - away)
    empty = shares.sum(axis=1) < 0.5
    nearest = np.abs(bins_hz[None, :] - centres[:, None]).argmin(axis=1)
    shares[empty] = 0.0
    shares[empty, nearest[empty]] = 1.0
    return shares.astype(np.float32)


class Spectrum:
    """Cuts sound into columns of 50 ms; each sees the 85 ms that end with it."""

    def __init__(self) -> None:
        self._filters = _filters()
        self._window = np.hanning(_WINDOW).astype(np.float32) * np.float32(4 / _WINDOW)
        self._held = np.zeros((CHANNELS, _WINDOW), np.float32)
        self._fresh = 0

    def push(self, block: NDArray[np.float32]) -> list[bytes]:
        """Take float32 ``[2, n]``; returns the columns that it completes, lowest band first.

        0 is -96 dB or less, 255 is -18 dB or more, both channels together.
        """
        columns = []
        while block.shape[1]:
            part = block[:, : COLUMN_SAMPLES - self._fresh]
            block = block[:, part.shape[1] :]
            self._held = np.concatenate([self._held, part], axis=1)[:, -_WINDOW:]
            self._fresh += part.shape[1]
            if self._fresh == COLUMN_SAMPLES:
                self._fresh = 0
                columns.append(self._column())
        return columns

    def _column(self) -> bytes:
        spectrum = np.fft.rfft(self._held * self._window, axis=1)
        power = (spectrum.real**2 + spectrum.imag**2).mean(axis=0).astype(np.float32)
        level_db = 10 * np.log10(self._filters @ power + 1e-12)
        share = (level_db - _FLOOR_DB) / (_CEILING_DB - _FLOOR_DB)
        return np.rint(255 * np.clip(share, 0, 1)).astype(np.uint8).tobytes()
