"""Small pieces of signal processing that analysis and synthesis share."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from codec.constants import SAMPLE_RATE

__all__ = [
    "band_edges",
    "band_matrix",
    "frame",
    "interpolation_matrix",
    "lowpass_kernel",
    "mel_centres",
    "mel_filterbank",
    "overlap_add",
    "soft_limit",
]


def _slaney_mel(hz: Tensor) -> Tensor:
    """Slaney's mel scale: linear below 1 kHz, logarithmic above (Auditory Toolbox, 1998)."""
    linear = hz * 3 / 200
    log = 15 + torch.log(hz.clamp_min(1e-3) / 1000) * 27 / math.log(6.4)
    return torch.where(hz < 1000, linear, log)


def _slaney_hz(mel: Tensor) -> Tensor:
    linear = mel * 200 / 3
    log = 1000 * torch.exp((mel - 15) * math.log(6.4) / 27)
    return torch.where(mel < 15, linear, log)


def mel_filterbank(
    n_fft: int, mels: int, sample_rate: int = SAMPLE_RATE, low_hz: float = 0.0
) -> Tensor:
    """Triangular Slaney mel filters of unit area up to Nyquist, float32 ``[mels, bins]``."""
    ends = _slaney_mel(torch.tensor([low_hz, sample_rate / 2], dtype=torch.float64)).tolist()
    edges = _slaney_hz(torch.linspace(ends[0], ends[1], mels + 2, dtype=torch.float64))
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * sample_rate / n_fft
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (bins - low) / (centre - low)
    falling = (high - bins) / (high - centre)
    filters = torch.minimum(rising, falling).clamp_min(0) * 2 / (high - low)
    return filters.float()


def mel_centres(mels: int, sample_rate: int = SAMPLE_RATE) -> Tensor:
    """Centre frequencies in Hz of :func:`mel_filterbank`, float64 ``[mels]``."""
    top = _slaney_mel(torch.tensor([sample_rate / 2], dtype=torch.float64)).item()
    return _slaney_hz(torch.linspace(0, top, mels + 2, dtype=torch.float64))[1:-1]


def band_edges(bands: int, sample_rate: int = SAMPLE_RATE) -> Tensor:
    """Edges in Hz of bands of equal width in mel, float64 ``[bands + 1]``."""
    top = _slaney_mel(torch.tensor([sample_rate / 2], dtype=torch.float64)).item()
    return _slaney_hz(torch.linspace(0, top, bands + 1, dtype=torch.float64))


def band_matrix(n_fft: int, bands: int, sample_rate: int = SAMPLE_RATE) -> Tensor:
    """Which bin lies in which band of :func:`band_edges`, float32 ``[bands, bins]`` of 0 and 1."""
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * sample_rate / n_fft
    index = torch.bucketize(bins, band_edges(bands, sample_rate)[1:-1], right=True)
    return torch.nn.functional.one_hot(index, bands).T.float()


def interpolation_matrix(centres: Tensor, points: Tensor) -> Tensor:
    """Linear interpolation from values at ``centres`` to ``points``, float32 ``[points, centres]``.

    Held constant outside the first and last centre.
    """
    points = points.clamp(float(centres[0]), float(centres[-1]))
    high = torch.searchsorted(centres, points).clamp(1, len(centres) - 1)
    low = high - 1
    part = (points - centres[low]) / (centres[high] - centres[low])
    matrix = torch.zeros(len(points), len(centres), dtype=torch.float64)
    rows = torch.arange(len(points))
    matrix[rows, low] += 1 - part
    matrix[rows, high] += part
    return matrix.float()


def lowpass_kernel(cutoff_hz: float, taps: int, sample_rate: int = SAMPLE_RATE) -> Tensor:
    """Linear-phase low-pass, Blackman-windowed sinc of unit gain at 0 Hz, float32 ``[taps]``."""
    t = torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2
    kernel = torch.sinc(2 * cutoff_hz / sample_rate * t)
    kernel = kernel * torch.blackman_window(taps, periodic=False, dtype=torch.float64)
    return (kernel / kernel.sum()).float()


def frame(signal: Tensor, size: int, hop: int, first_centre: int, frames: int) -> Tensor:
    """Frames of ``size`` samples whose centres sit at ``first_centre + hop * i``; zeros outside.

    Args:
        signal: ``[..., samples]``.

    Returns:
        ``[..., frames, size]``.
    """
    left = size // 2 - first_centre
    right = first_centre + hop * (frames - 1) + (size - size // 2) - signal.shape[-1]
    padded = torch.nn.functional.pad(signal, (max(left, 0), max(right, 0)))
    return padded[..., max(-left, 0) :].unfold(-1, size, hop)[..., :frames, :]


def overlap_add(frames: Tensor, hop: int) -> Tensor:
    """Sum of frames placed every ``hop`` samples.

    Args:
        frames: ``[..., count, size]``, ``size`` a multiple of ``hop``.

    Returns:
        ``[..., (count - 1) * hop + size]``.
    """
    count, size = frames.shape[-2:]
    parts = size // hop
    pieces = frames.unflatten(-1, (parts, hop))
    out = frames.new_zeros(*frames.shape[:-2], count + parts - 1, hop)
    for part in range(parts):
        out[..., part : part + count, :] += pieces[..., part, :]
    return out.flatten(-2)


def soft_limit(sound: Tensor, knee: float = 0.9) -> Tensor:
    """Unchanged up to the knee, then bent smoothly to stay below 1: what is loud never wraps."""
    over = (sound.abs() - knee).clamp_min(0)
    bent = knee + (1 - knee) * torch.tanh(over / (1 - knee))
    return torch.where(over > 0, sound.sign() * bent, sound)
