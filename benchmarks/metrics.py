"""Objective measures of decoded music, with exact definitions.

All take float32 tensors ``[2, samples]`` at 48 kHz, original first, of equal length, and treat
channels through their powers (antiphase does not cancel).
"""

from __future__ import annotations

import torch
from torch import Tensor

from codec.constants import SAMPLE_RATE
from codec.nano.dsp import mel_filterbank

__all__ = [
    "chroma_correlation",
    "envelope_correlation",
    "level_difference_db",
    "log_mel_distance",
    "seam_jump",
    "stereo_width_error_db",
]


def _magnitude(audio: Tensor, n_fft: int, hop: int) -> Tensor:
    """Root of the channels' mean power, ``[bins, frames]``."""
    spectrum = torch.stft(
        audio, n_fft, hop, window=torch.hann_window(n_fft), return_complex=True, center=True
    )
    return spectrum.abs().square().mean(dim=0).sqrt()


def log_mel_distance(original: Tensor, decoded: Tensor) -> float:
    """Mean |ln(a + 1e-5) - ln(b + 1e-5)| of 128 Slaney mel magnitudes; n_fft 2048, hop 480."""
    filters = mel_filterbank(2048, 128)
    a, b = (torch.log(filters @ _magnitude(x, 2048, 480) + 1e-5) for x in (original, decoded))
    return float((a - b).abs().mean())


def chroma(audio: Tensor) -> Tensor:
    """Power per pitch class between 80 and 2500 Hz, ``[12, frames]``; n_fft 8192, hop 1920."""
    n_fft = 8192
    power = _magnitude(audio, n_fft, 1920).square()
    hz = torch.arange(n_fft // 2 + 1) * SAMPLE_RATE / n_fft
    inside = (hz >= 80) & (hz <= 2500)
    note = torch.round(69 + 12 * torch.log2(hz[inside] / 440)).long() % 12
    return torch.zeros(12, power.shape[1]).index_add_(0, note, power[inside])


def chroma_correlation(original: Tensor, decoded: Tensor) -> float:
    """Pearson correlation of the pitch-class powers per frame, weighted by energy."""
    a, b = chroma(original), chroma(decoded)
    weight = a.sum(dim=0)
    a, b = a - a.mean(dim=0), b - b.mean(dim=0)
    correlation = (a * b).sum(dim=0) / (a.norm(dim=0) * b.norm(dim=0)).clamp_min(1e-12)
    return float((correlation * weight).sum() / weight.sum().clamp_min(1e-12))


def _envelope(audio: Tensor, step_s: float = 0.05) -> Tensor:
    """Root-mean-square level in steps of 50 ms."""
    size = int(SAMPLE_RATE * step_s)
    steps = audio.shape[1] // size
    return audio[:, : steps * size].reshape(2, steps, size).square().mean(dim=(0, 2)).sqrt()


def envelope_correlation(original: Tensor, decoded: Tensor) -> float:
    """Pearson correlation of the level envelopes (root mean square over 50 ms)."""
    pair = torch.stack([_envelope(original), _envelope(decoded)])
    return float(torch.corrcoef(pair)[0, 1])


def level_difference_db(original: Tensor, decoded: Tensor) -> float:
    """Decoded over original level in decibels, over the whole excerpt."""
    ratio = decoded.square().mean() / original.square().mean().clamp_min(1e-12)
    return float(10 * torch.log10(ratio.clamp_min(1e-12)))


def stereo_width_error_db(original: Tensor, decoded: Tensor) -> float:
    """Difference of the side-to-mid power ratios in decibels, over the whole excerpt."""

    def ratio(audio: Tensor) -> Tensor:
        mid, side = audio[0] + audio[1], audio[0] - audio[1]
        return 10 * torch.log10((side.square().mean() + 1e-9) / (mid.square().mean() + 1e-9))

    return float((ratio(decoded) - ratio(original)).abs())


def seam_jump(audio: Tensor, period: int, offset: int = 0) -> float:
    """Sample-to-sample change at seams over that at random places, both over the local level.

    Seams lie at ``offset + k * period`` samples. About 1 where a seam cannot be told from its
    surroundings.
    """
    change = audio.diff(dim=1).abs().amax(dim=0)
    local = (
        torch.nn.functional.avg_pool1d(
            audio.square().mean(dim=0).view(1, 1, -1), 481, stride=1, padding=240
        )
        .view(-1)[1:]
        .sqrt()
    )
    relative = change / (local + 1e-4)
    seams = torch.arange(offset + period, audio.shape[1] - 1, period)
    around = torch.stack([relative[seams + d] for d in (-1, 0, 1)]).amax(dim=0)
    generator = torch.Generator().manual_seed(0)
    places = torch.randint(1, len(relative) - 1, (20_000,), generator=generator)
    usual = torch.stack([relative[places + d] for d in (-1, 0, 1)]).amax(dim=0)
    return float(around.mean() / usual.mean())
