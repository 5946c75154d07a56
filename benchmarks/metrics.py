"""Objective measures of decoded music, with exact definitions.

All take sounds ``[2, samples]`` at 48 kHz, original first, of equal length: float32 tensors, or
:class:`~benchmarks.analysis.Analysis` objects, which keep what several measures share. Magnitudes
are roots of the channels' mean power, so antiphase does not cancel.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.analysis import OCTAVES_HZ, Sound, analysis

__all__ = [
    "balance_error_db",
    "band_level_db",
    "band_texture",
    "bandwidth_error_hz",
    "chroma_correlation",
    "code_entropy_bits",
    "envelope_correlation",
    "flatness_error_db",
    "image_width_error_db",
    "level_difference_db",
    "lit_difference",
    "log_mel_distance",
    "modulation_error_db",
    "onset_f_measure",
    "onsets",
    "peak_error_db",
    "seam_jump",
    "signal_to_noise_db",
    "spectral_convergence",
    "stereo_width_error_db",
    "stft_distance",
    "time_texture",
    "tonal_peaks_difference",
]


def signal_to_noise_db(original: Sound, decoded: Sound) -> float:
    """Power of the original over that of the samples' differences, in decibels.

    For two ways to the same sound: music that was decoded from tokens has other samples than the
    original.
    """
    a, b = (analysis(x).audio for x in (original, decoded))
    return float(10 * torch.log10(a.square().sum() / (a - b).square().sum().clamp_min(1e-12)))


def log_mel_distance(original: Sound, decoded: Sound) -> float:
    """Mean |ln(a + 1e-5) - ln(b + 1e-5)| of 128 Slaney mel magnitudes; n_fft 2048, hop 480."""
    a, b = analysis(original).log_mel, analysis(decoded).log_mel
    return float((a - b).abs().mean())


def spectral_convergence(original: Sound, decoded: Sound, n_fft: int = 8192) -> float:
    """||a - b|| / ||a|| of STFT magnitudes; a quarter of n_fft is the hop.

    0 is a copy, 1 what silence reaches. At 8192 (170 ms) it tells whether partials stand where
    they should and stay steady: buzz and beating show.
    """
    a, b = (analysis(x).magnitude(n_fft, n_fft // 4) for x in (original, decoded))
    return float((a - b).norm() / a.norm().clamp_min(1e-9))


def stft_distance(original: Sound, decoded: Sound) -> float:
    """Mean of the spectral convergences at n_fft 512, 2048 and 8192."""
    return sum(spectral_convergence(original, decoded, n) for n in (512, 2048, 8192)) / 3


def _change(original: Sound, decoded: Sound, dim: int) -> float:
    """Mean change of log-mels from one to the next along a dimension, decoded over original."""
    a, b = (analysis(x).log_mel.diff(dim=dim).abs().mean() for x in (original, decoded))
    return float(b / a.clamp_min(1e-9))


def time_texture(original: Sound, decoded: Sound) -> float:
    """Mean change of log-mels from frame to frame, decoded over original: 1 is as lively."""
    return _change(original, decoded, dim=1)


def band_texture(original: Sound, decoded: Sound) -> float:
    """Mean change of log-mels from band to band, decoded over original: 1 is as rough."""
    return _change(original, decoded, dim=0)


def onsets(audio: Sound) -> list[float]:
    """Times of onsets in seconds, as :attr:`benchmarks.analysis.Analysis.onsets` finds them."""
    return analysis(audio).onsets


def onset_f_measure(original: Sound, decoded: Sound) -> float:
    """F-measure of onsets: those within 50 ms of each other match, each at most once.

    1 if neither has any.
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


def bandwidth_error_hz(original: Sound, decoded: Sound) -> float:
    """Decoded minus original bandwidth: the frequency below which 99 % of the magnitude lies."""
    return analysis(decoded).bandwidth_hz - analysis(original).bandwidth_hz


def code_entropy_bits(tokens: Tensor) -> float:
    """Entropy of the tokens' distribution in bits, at most log2 of their number.

    The plain estimate from counts: with fewer tokens than a few times the codebook it is too low,
    so it is a lower bound of the entropy of the code.
    """
    counts = torch.bincount(tokens).double()
    share = counts[counts > 0] / counts.sum()
    return float(-(share * share.log2()).sum())


def chroma_correlation(original: Sound, decoded: Sound) -> float:
    """Pearson correlation of the pitch-class powers per frame, weighted by energy."""
    a, b = analysis(original).chroma, analysis(decoded).chroma
    weight = a.sum(dim=0)
    a, b = a - a.mean(dim=0), b - b.mean(dim=0)
    correlation = (a * b).sum(dim=0) / (a.norm(dim=0) * b.norm(dim=0)).clamp_min(1e-12)
    return float((correlation * weight).sum() / weight.sum().clamp_min(1e-12))


def envelope_correlation(original: Sound, decoded: Sound) -> float:
    """Pearson correlation of the level envelopes (root mean square over 50 ms).

    0 if either stands still, for then there is nothing to correlate.
    """
    correlation = float(
        torch.corrcoef(torch.stack([analysis(x).envelope for x in (original, decoded)]))[0, 1]
    )
    return 0.0 if math.isnan(correlation) else correlation


def level_difference_db(original: Sound, decoded: Sound) -> float:
    """Decoded over original level in decibels, over the whole excerpt."""
    a, b = (analysis(x).audio.square().mean().clamp_min(1e-12) for x in (original, decoded))
    return float(10 * torch.log10(b / a))


def stereo_width_error_db(original: Sound, decoded: Sound) -> float:
    """|Difference of widths| in decibels, over the whole excerpt.

    Width is the power of L - R over that of L + R, held within ±30 dB. Without that limit a mono
    decoder's error would be whatever floor keeps the logarithm finite; with it, it is the distance
    of the original from 30 dB below mid, beyond which nothing is heard as wide.
    """
    return abs(analysis(decoded).width_db - analysis(original).width_db)


def image_width_error_db(original: Sound, decoded: Sound) -> float:
    """Mean |difference of widths| in decibels over eight bands and steps of half a second.

    Widths as in :func:`stereo_width_error_db`, per band (below 125 Hz, octaves, above 8 kHz) and
    step, weighted by the original's amplitude there: the right width at the wrong time, or in the
    wrong band, is an error.
    """
    a, b = analysis(original).stereo_cells, analysis(decoded).stereo_cells
    return _weighted(a.width_db - b.width_db, a.amplitude)


def balance_error_db(original: Sound, decoded: Sound) -> float:
    """Mean |difference of balances| in decibels over the same bands and steps, same weights.

    Balance is the power of the left over that of the right channel, held within ±30 dB.
    """
    a, b = analysis(original).stereo_cells, analysis(decoded).stereo_cells
    return _weighted(a.balance_db - b.balance_db, a.amplitude)


def lit_difference(original: Sound, decoded: Sound) -> float:
    """Share of semitones that stand out, decoded minus original: above 0 an organ, below 0 a blur.

    See :attr:`benchmarks.analysis.Analysis.lit`.
    """
    return analysis(decoded).lit - analysis(original).lit


def tonal_peaks_difference(original: Sound, decoded: Sound) -> float:
    """Lasting peaks a frame, decoded minus original.

    See :attr:`benchmarks.analysis.Analysis.tonal_peaks`.
    """
    return analysis(decoded).tonal_peaks - analysis(original).tonal_peaks


def flatness_error_db(original: Sound, decoded: Sound) -> float:
    """Mean |difference of flatness| in decibels, band by band and frame by frame.

    Flatness as in :class:`benchmarks.analysis.OctaveBands`. Bands that are more than 60 dB below
    the original's strongest are left out: nobody hears what is in them.
    """
    a, b = analysis(original).octaves, analysis(decoded).octaves
    return float((a.flatness_db - b.flatness_db).abs()[_heard(a.power)].mean())


def peak_error_db(original: Sound, decoded: Sound) -> float:
    """Mean |difference of the strongest bin over the median one| in decibels, in the same bands."""
    a, b = analysis(original).octaves, analysis(decoded).octaves
    return float((a.peak_db - b.peak_db).abs()[_heard(a.power)].mean())


def modulation_error_db(original: Sound, decoded: Sound) -> float:
    """Mean |difference of modulation| in decibels, at 2–4, 4–8 and 8–20 Hz in 32 bands.

    Modulation as in :attr:`benchmarks.analysis.Analysis.modulation_db`. Bands that are more than 50
    dB below the original's strongest are left out.
    """
    a, b = analysis(original), analysis(decoded)
    error = (a.modulation_db - b.modulation_db).abs()
    return float(error[_heard(a.groups.mean(dim=1), 50)].mean())


def band_level_db(original: Sound, decoded: Sound, low_hz: int) -> float:
    """Decoded over original level in decibels, in the band of ``OCTAVES_HZ`` that begins there.

    What is more than 60 dB below the original's strongest band counts as that much below it.
    """
    a, b = analysis(original).octaves.power, analysis(decoded).octaves.power
    band, floor = OCTAVES_HZ.index(low_hz), 1e-6 * a.amax()
    return float(10 * torch.log10((b[band] + floor) / (a[band] + floor)))


def _heard(power: Tensor, most_db: float = 60) -> Tensor:
    """Which bands are no more than so far below the strongest."""
    return power >= power.amax() * 10 ** (-most_db / 10)


def _weighted(error: Tensor, weight: Tensor) -> float:
    return float((error.abs() * weight).sum() / weight.sum().clamp_min(1e-12))


def seam_jump(audio: Sound, period: int, offset: int = 0) -> float:
    """Sample-to-sample change at seams over that at random places, both over the local level.

    Seams lie at ``offset + k * period`` samples. About 1 if a seam does not differ from its
    surroundings. The local level is the root mean square over 10 ms. 1 if there is no seam.
    """
    samples = analysis(audio).audio
    seams = torch.tensor(range(offset + period, samples.shape[1] - 1, period))
    if not len(seams):
        return 1.0
    change = samples.diff(dim=1).abs().amax(dim=0)
    power = samples.square().mean(dim=0).view(1, 1, -1)
    local = F.avg_pool1d(power, 481, stride=1, padding=240).view(-1)[1:].sqrt()
    relative = change / (local + 1e-4)
    around = torch.stack([relative[seams + d] for d in (-1, 0, 1)]).amax(dim=0)
    generator = torch.Generator().manual_seed(0)
    places = torch.randint(1, len(relative) - 1, (20_000,), generator=generator)
    usual = torch.stack([relative[places + d] for d in (-1, 0, 1)]).amax(dim=0)
    return float(around.mean() / usual.mean().clamp_min(1e-9))
