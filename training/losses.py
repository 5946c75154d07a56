"""What the token decoder is paid for: mels, semitones, chroma, level and stereo image."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from codec.nano.config import NanoConfig
from codec.nano.level import mel_level, mel_widths

__all__ = ["feature_losses", "unused_bits"]


def _fold(amplitude: Tensor, config: NanoConfig) -> Tensor:
    """Power per pitch class between 80 Hz and 2500 Hz (MIDI 40 to 99), smoothed over 100 ms.

    amplitude: ``[batch, tokens, 2, semitones]``; returns ``[batch, frames, 12]``, 50 a second.
    """
    power = amplitude[..., 40 - config.semitone_low : 100 - config.semitone_low].square()
    classes = power.unflatten(-1, (5, 12)).sum(dim=-2).flatten(1, 2)
    return F.avg_pool1d(classes.transpose(1, 2), 5, stride=1).transpose(1, 2)


def _envelope(mel: Tensor, config: NanoConfig) -> Tensor:
    """Root of a frame's power from its log-mels, ``[batch, tokens, 4]``."""
    mel = mel.unflatten(-1, (config.mel_frames, config.mels))
    return mel_level(mel, mel_widths(config.mels).to(mel.device)).exp()


def feature_losses(guess: Tensor, truth: Tensor, config: NanoConfig) -> dict[str, Tensor]:
    """Loss terms between features ``[batch, tokens, feature_dims]``, each a scalar.

    mel: mean |ln ratio|, the log-mel distance itself. loud: the same weighted by magnitude.
    note: semitone |ln ratio| weighted by amplitude. shape: one minus cosine similarity of the
    semitones. chroma: one minus the correlation of pitch classes, weighted by energy, as it is
    measured on sound in the end.
    stereo: weighted by the band's magnitude. level: error of the frames' and tokens' total
    magnitude over its mean; logarithms alone would settle some decibels too low. envelope: one
    minus the correlation of the tokens' levels over the excerpt, so that the small movements of
    steady music count too.
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
    bands = torch.arange(c.mels, device=guess.device) * c.stereo_bands // c.mels
    power = mel_b.unflatten(-1, (c.mel_frames, c.mels)).exp().mean(dim=-2)
    band_weight = power.new_zeros(*power.shape[:-1], c.stereo_bands).index_add(-1, bands, power)
    band_weight = band_weight.sqrt()
    band_weight = (band_weight / (band_weight.mean(dim=-1, keepdim=True) + 1e-3)).unsqueeze(-2)
    envelope_a, envelope_b = _envelope(mel_a, config), _envelope(mel_b, config)
    level = (envelope_a - envelope_b).abs().mean(dim=(1, 2))
    token_a, token_b = (x.square().mean(dim=-1).sqrt() for x in (envelope_a, envelope_b))
    level = level + (token_a - token_b).abs().mean(dim=1)
    level = level / (envelope_b.mean(dim=(1, 2)) + 0.02)
    centred_a = token_a - token_a.mean(dim=1, keepdim=True)
    centred_b = token_b - token_b.mean(dim=1, keepdim=True)
    correlation = F.cosine_similarity(centred_a, centred_b, dim=1, eps=1e-6)
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
        "envelope": (1 - correlation).mean(),
    }


def unused_bits(unit: Tensor, levels: tuple[int, ...]) -> Tensor:
    """Share of the learnt bits that a batch leaves unused: one minus its code entropy over 11 bits.

    unit: what the quantiser rounds, in (0, 1), ``[..., dims]``. Every value counts for the two
    levels beside it by its distance, so that the entropy has a gradient; all values jointly, so
    that none of them may say what another one says already. As the entropy term of LFQ (Yu et al.,
    "Language Model Beats Diffusion", 2023), for scalars.
    """
    joint = unit.new_ones(unit.shape[:-1].numel(), 1)
    for dim, size in enumerate(levels):
        place = (unit[..., dim].reshape(-1, 1) * size - 0.5).clamp(0, size - 1)
        near = (1 - (place - torch.arange(size, device=unit.device)).abs()).clamp_min(0)
        joint = (joint.unsqueeze(2) * near.unsqueeze(1)).flatten(1)
    shares = joint.mean(dim=0)
    entropy = -(shares * torch.log(shares.clamp_min(1e-9))).sum()
    return 1 - entropy / math.log(math.prod(levels))
