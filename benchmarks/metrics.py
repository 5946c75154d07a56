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
    "band_texture",
    "bandwidth_error_hz",
    "chroma_correlation",
    "code_entropy_bits",
    "envelope_correlation",
    "level_difference_db",
    "log_mel_distance",
    "onset_f_measure",
    "onsets",
    "seam_jump",
    "stereo_width_error_db",
    "stft_distance",
    "time_texture",
]


def _magnitude(audio: Tensor, n_fft: int, hop: int) -> Tensor:
    """Root of the channels' mean power, ``[bins, frames]``."""
    spectrum = torch.stft(
        audio, n_fft, hop, window=torch.hann_window(n_fft), return_complex=True, center=True
    )
    return spectrum.abs().square().mean(dim=0).sqrt()


def _mel(audio: Tensor) -> Tensor:
    """128 Slaney mel magnitudes, ``[128, frames]``; n_fft 2048, hop 480."""
    return mel_filterbank(2048, 128) @ _magnitude(audio, 2048, 480)


def _log_mel(audio: Tensor) -> Tensor:
    """ln(m + 1e-5) of :func:`_mel`."""
    return torch.log(_mel(audio) + 1e-5)


def _change(original: Tensor, decoded: Tensor, dim: int) -> float:
    """Mean change of log-mels from one to the next along a dimension, decoded over original."""
    a, b = (_log_mel(x).diff(dim=dim).abs().mean() for x in (original, decoded))
    return float(b / a.clamp_min(1e-9))


def log_mel_distance(original: Tensor, decoded: Tensor) -> float:
    """Mean |ln(a + 1e-5) - ln(b + 1e-5)| of 128 Slaney mel magnitudes; n_fft 2048, hop 480."""
    return float((_log_mel(original) - _log_mel(decoded)).abs().mean())


def stft_distance(original: Tensor, decoded: Tensor) -> float:
    """Mean over n_fft 512, 2048, 8192 of the spectral convergence ||a - b|| / ||a||.

    A quarter of n_fft is the hop; magnitudes are roots of the channels' mean power.
    """
    distances = []
    for size in (512, 2048, 8192):
        a, b = (_magnitude(x, size, size // 4) for x in (original, decoded))
        distances.append((a - b).norm() / a.norm().clamp_min(1e-9))
    return float(torch.stack(distances).mean())


def time_texture(original: Tensor, decoded: Tensor) -> float:
    """Mean change of log-mels from frame to frame, decoded over original: 1 is as lively."""
    return _change(original, decoded, dim=1)


def band_texture(original: Tensor, decoded: Tensor) -> float:
    """Mean change of log-mels from band to band, decoded over original: 1 is as rough."""
    return _change(original, decoded, dim=0)


def onsets(audio: Tensor) -> list[float]:
    """Times of onsets in seconds: peaks of the spectral flux (Böck et al., DAFx 2012).

    Flux is the mean over 128 mels of the rise of ln(1 + 1000 m) over 20 ms. A peak is the highest
    of 60 ms and stands out from the mean of 200 ms around it. The first and last 30 ms, where the
    analysis window hangs over, are left out.
    """
    level = torch.log1p(1000 * _mel(audio))
    flux = (level[:, 2:] - level[:, :-2]).clamp_min(0).mean(dim=0)
    row = flux.view(1, 1, -1)
    highest = torch.nn.functional.max_pool1d(row, 7, stride=1, padding=3).flatten()
    around = torch.nn.functional.avg_pool1d(
        row, 21, stride=1, padding=10, count_include_pad=False
    ).flatten()
    peaks = (flux >= highest) & (flux > around + 0.15)
    peaks[:3] = peaks[-3:] = False
    return [(int(frame) + 1) * 0.01 for frame in peaks.nonzero().flatten()]


def onset_f_measure(original: Tensor, decoded: Tensor) -> float:
    """F-measure of onsets: those within 50 ms of each other match, each at most once.

    1 where neither has any.
    """
    truth, guess = onsets(original), onsets(decoded)
    if not truth and not guess:
        return 1.0
    matched, first = 0, 0
    for time in truth:  # both ascend, so the earliest that is left is the best to take
        while first < len(guess) and guess[first] < time - 0.05:
            first += 1
        if first < len(guess) and guess[first] <= time + 0.05:
            matched += 1
            first += 1
    return 2 * matched / (len(truth) + len(guess))


def bandwidth_error_hz(original: Tensor, decoded: Tensor) -> float:
    """Decoded minus original bandwidth: the frequency below which 99 % of the magnitude lies."""

    def bandwidth(audio: Tensor) -> float:
        share = _magnitude(audio, 2048, 480).mean(dim=1).cumsum(0)
        return float((share < 0.99 * share[-1]).sum()) * SAMPLE_RATE / 2048

    return bandwidth(decoded) - bandwidth(original)


def code_entropy_bits(tokens: Tensor) -> float:
    """Entropy of the tokens' distribution in bits, at most log2 of their number."""
    counts = torch.bincount(tokens).double()
    share = counts[counts > 0] / counts.sum()
    return float(-(share * share.log2()).sum())


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
