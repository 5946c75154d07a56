"""Signal processing that the published model was trained with: one resampler and two mel scales.

The definitions are torchaudio's (resampler, HTK mels) and librosa's (Slaney mels), written out here
since torchaudio's wheels do not load beside every build of torch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["halve_rate", "htk_filterbank", "resampling_kernel"]

_WIDTH, _ROLLOFF = 6, 0.99
_TAPS = 28
_LEFT = 13


def resampling_kernel() -> Tensor:
    """Windowed sinc that halves a sample rate, float32 ``[28]``.

    torchaudio's default (sinc_interp_hann, lowpass_filter_width 6, rolloff 0.99) for a ratio of two
    to one; its cut-off is 0.99 of the new Nyquist frequency.
    """
    cutoff = _ROLLOFF  # in units of the new sample rate's half, with times in output samples
    time = torch.arange(-_LEFT, _TAPS - _LEFT, dtype=torch.float64) / 2
    time = (time * cutoff).clamp(-_WIDTH, _WIDTH)
    window = torch.cos(time * math.pi / _WIDTH / 2).square()
    return (torch.sinc(time) * window * cutoff / 2).float()


def halve_rate(audio: Tensor) -> Tensor:
    """48 to 24 kHz: ``[batch, samples]`` to ``[batch, ceil(samples / 2)]``, zeros outside."""
    samples = audio.shape[-1]
    kernel = resampling_kernel().to(audio).view(1, 1, -1)
    padded = F.pad(audio.unsqueeze(1), (_LEFT, _LEFT + 2))
    return F.conv1d(padded, kernel, stride=2)[:, 0, : -(-samples // 2)]


def htk_filterbank(rate: int, n_fft: int, mels: int) -> Tensor:
    """Triangular HTK mel filters of unit peak, 0 Hz to Nyquist, float32 ``[mels, bins]``."""
    top = 2595 * math.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, mels + 2, dtype=torch.float64) / 2595) - 1)
    bins = torch.linspace(0, rate // 2, n_fft // 2 + 1, dtype=torch.float64)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (bins - low) / (centre - low)
    falling = (high - bins) / (high - centre)
    return torch.minimum(rising, falling).clamp_min(0).float()
