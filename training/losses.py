"""What the token decoder is paid for: mels, semitones, chroma, level, attacks, movement, image."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from codec.nano.config import NanoConfig
from codec.nano.level import mel_level

__all__ = ["attack_losses", "feature_losses", "movement_losses", "unused_bits"]

_BANDS = 16
"""Bands whose movement is compared."""


def _windows(x: Tensor, size: int, fold: Callable[[Tensor, Tensor], Tensor], dim: int) -> Tensor:
    """``size`` neighbours along ``dim`` folded into one, at every place that has them all.

    As shifts of the whole tensor, which compile into one pass.
    """
    length = x.shape[dim] - size + 1
    return reduce(fold, (x.narrow(dim, shift, length) for shift in range(size)))


def _correlated(guess: Tensor, truth: Tensor, eps: float) -> Tensor:
    """Correlation over the second dimension, ``[batch, n]`` to ``[batch]``."""
    guess, truth = (x - x.mean(dim=1, keepdim=True) for x in (guess, truth))
    return F.cosine_similarity(guess, truth, dim=1, eps=eps)


def _fold(amplitude: Tensor, config: NanoConfig) -> Tensor:
    """Power per pitch class between 80 Hz and 2500 Hz (MIDI 40 to 99), smoothed over 100 ms.

    Args:
        amplitude: ``[batch, tokens, 2, semitones]``.

    Returns:
        ``[batch, frames, 12]``, 50 a second.
    """
    power = amplitude[..., 40 - config.semitone_low : 100 - config.semitone_low].square()
    classes = power.unflatten(-1, (5, 12)).sum(dim=-2).flatten(1, 2)
    return _windows(classes, 5, torch.add, dim=1) / 5


def _token_level(mel: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
    """Roots of the power of frames ``[batch, tokens, 4]`` and of tokens ``[batch, tokens]``.

    Args:
        mel: ``[batch, tokens, 4, mels]``.
    """
    frames = mel_level(mel, widths).exp()
    return frames, frames.square().mean(dim=-1).sqrt()


def feature_losses(
    guess: Tensor, truth: Tensor, config: NanoConfig, widths: Tensor
) -> dict[str, Tensor]:
    """Loss terms between features ``[batch, tokens, feature_dims]``, each a scalar.

    mel: mean |ln ratio|, the log-mel distance itself. loud: the same weighted by magnitude.
    note: semitone |ln ratio| weighted by amplitude. shape: one minus cosine similarity of the
    semitones. chroma: one minus the correlation of pitch classes, weighted by energy, as it is
    measured on sound in the end.
    stereo: weighted by the band's magnitude. level: error of the frames' and tokens' total
    magnitude over its mean; logarithms alone would settle some decibels too low. envelope: one
    minus the correlation of the tokens' levels over the excerpt, so that the small movements of
    steady music count too.
    Then those of :func:`attack_losses` and :func:`movement_losses`.

    Args:
        widths: of the mels, as :func:`codec.nano.level.mel_widths` has them, on the same device.
    """
    c = config
    sizes = [c.mel_dims, c.semitone_dims, 2 * c.stereo_bands]
    mel_a, note_a, image_a = guess.split(sizes, dim=-1)
    mel_b, note_b, image_b = truth.split(sizes, dim=-1)
    weight = (mel_b * 0.5).exp()
    error = (mel_a - mel_b).abs()
    note_a = note_a.unflatten(-1, (c.semitone_frames, c.semitones))
    note_b = note_b.unflatten(-1, (c.semitone_frames, c.semitones))
    amp_a = (note_a.exp() - c.semitone_floor).clamp_min(1e-6)
    amp_b = (note_b.exp() - c.semitone_floor).clamp_min(1e-6)
    note_weight = amp_b / (amp_b.amax(dim=-1, keepdim=True) + 1e-3)
    frame_weight = amp_b.square().sum(dim=-1).sqrt()
    frame_weight = frame_weight / (frame_weight.mean(dim=(1, 2), keepdim=True) + 1e-3)
    shape = 1 - F.cosine_similarity(amp_a, amp_b, dim=-1)
    chroma_a, chroma_b = _fold(amp_a, c), _fold(amp_b, c)
    energy = chroma_b.sum(dim=-1)
    energy = (energy / (energy.mean(dim=1, keepdim=True) + 1e-6)).clamp_max(6)
    centred_a = chroma_a - chroma_a.mean(dim=-1, keepdim=True)
    centred_b = chroma_b - chroma_b.mean(dim=-1, keepdim=True)
    chroma = 1 - F.cosine_similarity(centred_a, centred_b, dim=-1, eps=1e-8)
    frames_a = mel_a.unflatten(-1, (c.mel_frames, c.mels))
    frames_b = mel_b.unflatten(-1, (c.mel_frames, c.mels))
    bands = torch.arange(c.mels, device=guess.device) * c.stereo_bands // c.mels
    power = frames_b.exp().mean(dim=-2)
    band_weight = power.new_zeros(*power.shape[:-1], c.stereo_bands).index_add(-1, bands, power)
    band_weight = band_weight.sqrt()
    band_weight = (band_weight / (band_weight.mean(dim=-1, keepdim=True) + 1e-3)).unsqueeze(-2)
    envelope_a, token_a = _token_level(frames_a, widths)
    envelope_b, token_b = _token_level(frames_b, widths)
    level = (envelope_a - envelope_b).abs().mean(dim=(1, 2))
    level = level + (token_a - token_b).abs().mean(dim=1)
    level = level / (envelope_b.mean(dim=(1, 2)) + 0.02)
    image = (image_a - image_b).abs().unflatten(-1, (2, c.stereo_bands))
    return {
        "mel": error.mean(),
        "loud": (error * weight).mean() / weight.mean(),
        "note": ((note_a - note_b).abs() * (0.05 + note_weight)).sum(dim=-1).mean()
        / (0.05 + note_weight).sum(dim=-1).mean(),
        "shape": (shape * frame_weight).mean(),
        "chroma": (chroma * energy).mean(),
        "stereo": (image * band_weight).mean(),
        "level": level.mean(),
        "envelope": (1 - _correlated(token_a, token_b, 1e-6)).mean(),
        **attack_losses(frames_a, frames_b, c.mel_floor),
        **movement_losses(frames_a, frames_b, token_a.log(), token_b.log()),
    }


def attack_losses(guess: Tensor, truth: Tensor, floor: float) -> dict[str, Tensor]:
    """Between log-mels ``[batch, tokens, 4, mels]``: are attacks where they were, and as sharp?

    Both hear what an onset detector hears, the spectral flux: the mean rise of ln(1 + 1000 m) over
    20 ms. onset: one minus the correlation of the fluxes over the excerpt. flux: error of the
    flux's peaks within 50 ms over their mean, since an expected value has attacks in the right
    place that are too soft.
    """

    def flux(mel: Tensor) -> Tensor:
        loud = torch.log1p(1000 * (mel.exp() - floor).clamp_min(0)).flatten(1, 2)
        return (loud[:, 2:] - loud[:, :-2]).clamp_min(0).mean(dim=-1)

    flux_a, flux_b = flux(guess), flux(truth)
    peak_a, peak_b = (_windows(x, 5, torch.maximum, dim=1) for x in (flux_a, flux_b))
    height = (peak_a - peak_b).abs().mean(dim=1) / (peak_b.mean(dim=1) + 0.05)
    return {"onset": (1 - _correlated(flux_a, flux_b, 1e-4)).mean(), "flux": height.mean()}


def movement_losses(
    guess: Tensor, truth: Tensor, level_a: Tensor, level_b: Tensor
) -> dict[str, Tensor]:
    """Between log-mels ``[batch, tokens, 4, mels]``: does the spectrum move, and has it detail?

    levels: of the tokens, ln, ``[batch, tokens]``; loud tokens count more.
    bands: one minus the correlation over the excerpt of 16 bands relative to the level, by how
    much each of them moves. detail: one minus the cosine similarity of the spectra's fine
    structure, which is what is left of them less their mean over nine mels.
    """
    rows_a, rows_b = guess.mean(dim=-2), truth.mean(dim=-2)
    sound = (0.5 * level_b).exp().unsqueeze(-1)
    sound = sound / (sound.sum(dim=1, keepdim=True) + 1e-6)
    bands = []
    for rows, level in ((rows_a, level_a), (rows_b, level_b)):
        band = rows.unflatten(-1, (_BANDS, -1)).mean(dim=-1) - level.unsqueeze(-1)
        bands.append(band - (band * sound).sum(dim=1, keepdim=True))
    cross = (bands[0] * bands[1] * sound).sum(dim=1)
    spread_a, spread_b = ((band.square() * sound).sum(dim=1) for band in bands)
    similar = cross / ((spread_a + 1e-3) * (spread_b + 1e-3)).sqrt()
    moves = (spread_b + 1e-6).sqrt()
    fine_a, fine_b = (x[..., 4:-4] - _windows(x, 9, torch.add, -1) / 9 for x in (rows_a, rows_b))
    alike = F.cosine_similarity(fine_a, fine_b, dim=-1, eps=1e-3)
    return {
        "bands": ((1 - similar) * moves / (moves + 0.3)).mean(),
        "detail": ((1 - alike) * sound.squeeze(-1)).sum(dim=1).mean(),
    }


def unused_bits(unit: Tensor, levels: tuple[int, ...]) -> Tensor:
    """Share of the learnt bits that a batch leaves unused: one minus its code entropy over 11 bits.

    Args:
        unit: what the quantiser rounds, in (0, 1), ``[..., dims]``. Every value counts for the two
            levels beside it by its distance, so that the entropy has a gradient; all values
            jointly, so that none of them may say what another one says already. As the entropy term
            of LFQ (Yu et al., "Language Model Beats Diffusion", 2023), for scalars.
    """
    near = []
    for dim, size in enumerate(levels):
        place = (unit[..., dim].reshape(-1, 1) * size - 0.5).clamp(0, size - 1)
        near.append((1 - (place - torch.arange(size, device=unit.device)).abs()).clamp_min(0))

    def joint(a: Tensor, b: Tensor) -> Tensor:
        return (a.unsqueeze(2) * b.unsqueeze(1)).flatten(1)

    # The mean over the batch of all values' products, as one product of two halves.
    half = len(near) // 2
    first, second = reduce(joint, near[:half]), reduce(joint, near[half:])
    shares = (first.T @ second).flatten() / len(first)
    entropy = -(shares * torch.log(shares.clamp_min(1e-9))).sum()
    return 1 - entropy / math.log(math.prod(levels))
