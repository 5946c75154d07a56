"""Spectrogram pictures: of a source and of what a listener made of its tokens, or one by one."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from codec.constants import SAMPLE_RATE

__all__ = ["Picture", "draw", "log_spectrogram", "loudest_db", "paint"]

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh

Audio = NDArray[np.float32]
Picture = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Edges of the bands in hertz and levels in decibels: see :func:`log_spectrogram`."""

_HOP = 480
_LONG, _SHORT = 8192, 2048  # STFT windows: fine pitch below the crossover, fine timing above it
_CROSSOVER_HZ = 1000.0
_LOWEST_HZ, _HIGHEST_HZ, _BANDS = 40.0, 20_000.0, 320
_RANGE_DB = 75.0


def _power(mono: Audio, n_fft: int) -> NDArray[np.float64]:
    """Power of a Hann-window STFT, ``[frames, n_fft / 2 + 1]``, a full-scale sine at 1."""
    frames = max(1, -(-len(mono) // _HOP))
    padded = np.pad(mono, (n_fft // 2, n_fft // 2 + frames * _HOP - len(mono)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[: frames * _HOP : _HOP]
    window = np.hanning(n_fft + 1)[:-1]
    power = np.empty((frames, n_fft // 2 + 1))
    for start in range(0, frames, 256):  # in pieces, so that a long recording fits in memory
        spectrum = np.fft.rfft(windows[start : start + 256] * window)
        power[start : start + 256] = np.abs(spectrum) ** 2
    return power / (window.sum() / 2) ** 2


def log_spectrogram(audio: Audio) -> Picture:
    """Levels on a logarithmic frequency axis.

    Args:
        audio: float32 ``[2, samples]`` at 48 kHz.

    Returns:
        The edges of the bands in hertz, ``[bands + 1]``, and the largest level of each band in dB
        of full scale, ``[bands, frames]`` at 100 frames a second; the mean of both channels'
        powers, so that antiphase shows as well.
    """
    edges = np.geomspace(_LOWEST_HZ, _HIGHEST_HZ, _BANDS + 1)
    powers = {n: (_power(audio[0], n) + _power(audio[1], n)) / 2 for n in (_LONG, _SHORT)}
    levels = np.empty((_BANDS, len(powers[_LONG])))
    for band, (low, high) in enumerate(pairwise(edges)):
        n_fft = _LONG if high <= _CROSSOVER_HZ else _SHORT
        first, last = low * n_fft / SAMPLE_RATE, high * n_fft / SAMPLE_RATE
        bins = np.arange(np.ceil(first), np.floor(last) + 1, dtype=int)
        if not len(bins):  # the band lies between two bins
            bins = np.array([round((first + last) / 2)])
        levels[band] = powers[n_fft][:, bins].max(axis=1)
    return edges, 10 * np.log10(levels + 1e-12)


def loudest_db(pictures: Iterable[Picture]) -> float:
    """The upper end of a scale that suits all pictures."""
    return max(float(np.percentile(levels, 99.9)) for _, levels in pictures) + 3.0


def paint(axis: Axes, picture: Picture, top_db: float) -> QuadMesh:
    """Draw one spectrogram on an axis; its scale is the 75 dB below ``top_db``."""
    edges, levels = picture
    seconds = np.arange(levels.shape[1] + 1) * _HOP / SAMPLE_RATE
    mesh = axis.pcolormesh(
        seconds, edges, levels, cmap="magma", vmin=top_db - _RANGE_DB, vmax=top_db, rasterized=True
    )
    axis.set_yscale("log")
    axis.set_ylim(_LOWEST_HZ, _HIGHEST_HZ)
    axis.set_yticks(
        [50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000],
        ["50", "100", "200", "500", "1k", "2k", "5k", "10k", "20k"],
    )
    axis.minorticks_off()
    axis.set_ylabel("Hz")
    return mesh


def draw(
    path: Path, source: Audio, result: Audio, *, title: str, source_label: str, result_label: str
) -> None:
    """Write a PNG with both spectrograms, one above the other, on the same scales.

    Args:
        source, result: float32 ``[2, samples]`` at 48 kHz, beginning at the same moment of the
            music.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    pictures = [log_spectrogram(audio) for audio in (source, result)]
    top_db = loudest_db(pictures)
    figure, axes = plt.subplots(2, 1, figsize=(12, 8), sharex=True, layout="constrained")
    figure.suptitle(title, fontsize=15)
    for axis, picture, label in zip(axes, pictures, (source_label, result_label), strict=True):
        mesh = paint(axis, picture, top_db)
        axis.set_title(label, loc="left", fontsize=11)
    axes[-1].set_xlabel("seconds")
    figure.colorbar(mesh, ax=axes, label="dB of full scale", pad=0.01, aspect=40)
    figure.savefig(path, dpi=110)
    plt.close(figure)
