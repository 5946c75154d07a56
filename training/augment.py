"""Augmentation of feature batches: mixing, transposition, equaliser, bandwidth, level, stereo.

All of it acts on features, where it costs next to nothing, and widens the training music far beyond
what was recorded: two pieces at a time, in other keys, through other rooms and loudspeakers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from codec.nano.config import NanoConfig
from codec.nano.dsp import interpolation_matrix, mel_centres
from codec.nano.features import image_from_shares, shares_from_image

__all__ = ["Augment", "Draws"]

_MAX_SHIFT = 4
_SHIFTS = 2 * _MAX_SHIFT + 1
_UNIFORM = 27
"""Random numbers that one row takes."""


class Draws(NamedTuple):
    """What chance says of each row: uniform ``[batch, 27]`` and normal ``[batch, 1]`` numbers."""

    uniform: Tensor
    normal: Tensor


class Augment(nn.Module):
    """Random changes of features ``[batch, tokens, feature_dims]``.

    Chance comes from :meth:`draw` alone, so that the rest is a pure function without loops over
    rows, which can be compiled.
    """

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        self.config = c = config
        mel_hz = mel_centres(c.mels)
        notes = torch.arange(c.semitones, dtype=torch.float64) + c.semitone_low
        note_hz = 440 * 2 ** ((notes - 69) / 12)
        hz = torch.cat([mel_hz, note_hz]).float().clamp_min(20)
        shifts = torch.arange(-_MAX_SHIFT, _MAX_SHIFT + 1)
        warps = [interpolation_matrix(mel_hz, mel_hz / 2 ** (int(s) / 12)).T for s in shifts]
        source = torch.arange(c.semitones) - shifts.unsqueeze(1)
        bands = torch.arange(c.mels) * c.stereo_bands // c.mels

        def constant(name: str, value: Tensor) -> None:
            self.register_buffer(name, value, persistent=False)

        constant("octave", torch.log2(hz / 1000).unsqueeze(0))
        constant("warps", torch.stack(warps))
        constant("source", source.clamp(0, c.semitones - 1))
        constant("inside", ((source >= 0) & (source < c.semitones)).float())
        constant("mel_bands", nn.functional.one_hot(bands, c.stereo_bands).float())

    octave: Tensor
    """Of mels and semitones relative to 1 kHz, ``[1, mels + semitones]``."""
    warps: Tensor
    source: Tensor
    inside: Tensor
    mel_bands: Tensor

    def draw(self, size: int, generator: torch.Generator) -> Draws:
        """For a batch of ``size`` rows, on the generator's device."""
        place = generator.device
        return Draws(
            torch.rand(size, _UNIFORM, generator=generator, device=place),
            torch.randn(size, 1, generator=generator, device=place),
        )

    def forward(self, features: Tensor, draws: Draws) -> Tensor:
        """Features ``[batch, frames, bands]``, changed as ``draws`` say."""
        chance = _Chance(draws.uniform)
        mel, notes, stereo = self.split(features)
        mel, notes = self._transpose(mel, notes, chance.next())
        mel, notes, stereo = self._mix(mel, notes, stereo, chance)
        mel, notes = self._filter(mel, notes, chance, draws.normal)
        return self._splice(self.join(mel, notes, self._image(stereo, chance)), chance)

    def split(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mel magnitudes ``[B, T, 4, mels]``, amplitudes ``[B, T, 2, ...]`` and stereo, the same.

        Stereo as shares of power: left less right, side less mid, over both.
        """
        c = self.config
        sizes = [c.mel_dims, c.semitone_dims, 2 * c.stereo_bands]
        mel, notes, stereo = features.split(sizes, dim=-1)
        mel = (mel.unflatten(-1, (c.mel_frames, c.mels)).exp() - c.mel_floor).clamp_min(0)
        notes = notes.unflatten(-1, (c.semitone_frames, c.semitones)).exp() - c.semitone_floor
        image = shares_from_image(stereo.unflatten(-1, (2, c.stereo_bands)))
        return mel, notes.clamp_min(0), image

    def join(self, mel: Tensor, notes: Tensor, stereo: Tensor) -> Tensor:
        """The inverse of :meth:`split`."""
        c = self.config
        mel = torch.log(mel + c.mel_floor).flatten(-2)
        notes = torch.log(notes + c.semitone_floor).flatten(-2)
        return torch.cat([mel, notes, image_from_shares(stereo).flatten(-2)], dim=-1)

    def _gain(self, mel: Tensor, notes: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        """Times a curve per row, ``[batch, mels + semitones]``."""
        gain = gain.unsqueeze(1).unsqueeze(1)
        return mel * gain[..., : self.config.mels], notes * gain[..., self.config.mels :]

    def _transpose(self, mel: Tensor, notes: Tensor, dice: Tensor) -> tuple[Tensor, Tensor]:
        """By up to four semitones."""
        which = (dice[:, 0] * _SHIFTS).long().clamp_max(_SHIFTS - 1)
        mel = torch.bmm(mel.flatten(1, 2), self.warps[which]).unflatten(1, mel.shape[1:3])
        source = self.source[which].unsqueeze(1).unsqueeze(1).expand_as(notes)
        inside = self.inside[which].unsqueeze(1).unsqueeze(1)
        return mel, notes.gather(-1, source) * inside

    def _mix(
        self, mel: Tensor, notes: Tensor, stereo: Tensor, chance: _Chance
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Add the next row of the batch, in power, to two fifths of the rows.

        A third of those get a crossover: one row gives the bass, the other one the treble.
        """
        mixed = chance.under(0.4)
        crossed = mixed & chance.under(1 / 3)
        level = 10 ** (chance.next(-15, 0) / 20) * mixed
        slope = 4 * torch.sign(chance.next(-1, 1))
        high = torch.sigmoid(slope * (self.octave - chance.next(-2.5, 2.5)))
        own = torch.where(crossed, 1 - high, torch.ones_like(high))
        other = torch.where(crossed, high, level.expand_as(high))
        other_mel, other_notes = self._gain(mel.roll(1, 0), notes.roll(1, 0), other)
        mel, notes = self._gain(mel, notes, own)
        power = mel.square().sum(dim=2) @ self.mel_bands
        added = other_mel.square().sum(dim=2) @ self.mel_bands
        share = (added / (power + added + 1e-9)).unsqueeze(2)
        stereo = stereo * (1 - share) + stereo.roll(1, 0) * share
        mel = (mel.square() + other_mel.square()).sqrt()
        return mel, (notes.square() + other_notes.square()).sqrt(), stereo

    def _filter(
        self, mel: Tensor, notes: Tensor, chance: _Chance, normal: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tilt, bells, bass, now and then a low-pass, and a level: one random curve per row.

        A few rows stay as they are.
        """
        octave = self.octave
        curve = chance.next(-1.3, 0.9) * octave
        for _ in range(2):
            centre, width = chance.next(-4.5, 4.0), chance.next(0.3, 2.0)
            bell = torch.exp(-((octave - centre) ** 2) / (2 * width**2))
            curve = curve + chance.next(-6, 6) * bell
        bass = torch.sigmoid(4 * (chance.next(-4.3, -2.5) - octave))
        curve = curve + chance.next(-6, 10) * bass * chance.under(0.4)
        cutoff = math.log2(3.0) + 3.0 * torch.sqrt(chance.next())  # 3 to 24 kHz, mostly high
        cut = (octave - cutoff).clamp_min(0)
        curve = curve - chance.next(30, 200) * chance.under(0.25) * cut
        curve = curve + (4 * normal).clamp(-12, 8) - chance.under(0.04) * chance.next(5, 35)
        curve = curve * ~chance.under(0.15)
        return self._gain(mel, notes, 10 ** (curve / 20))

    def _image(self, stereo: Tensor, chance: _Chance) -> Tensor:
        """Channel swap, mono, one channel alone, antiphase."""
        dice, swap = chance.next().unsqueeze(-1), chance.under(0.5).unsqueeze(-1)
        balance, width = stereo.unbind(dim=2)
        mono, inverted = dice < 0.06, (dice > 0.06) & (dice < 0.10)
        balance = torch.where(swap, -balance, balance).masked_fill(mono, 0.0)
        width = torch.where(inverted, -width, width).masked_fill(mono, -1.0)
        return torch.stack([balance, width], dim=2)

    def _splice(self, features: Tensor, chance: _Chance) -> Tensor:
        """Let a quarter of the rows begin with another row or with silence, as pieces do."""
        tokens = features.shape[1]
        silence = self.join(*(torch.zeros_like(part[:1, :1]) for part in self.split(features)))
        quiet = chance.under(0.3).unsqueeze(-1)
        before = torch.where(quiet, silence, features.roll(1, 0))
        cut = (chance.next() * tokens * chance.under(0.25)).long()
        place = torch.arange(tokens, device=features.device)
        return torch.where((place < cut).unsqueeze(2), before, features)


class _Chance:
    """Hands out the columns of ``[batch, 27]`` one by one, as ``[batch, 1]``."""

    def __init__(self, uniform: Tensor) -> None:
        self._uniform = uniform
        self._used = 0

    def next(self, low: float = 0.0, high: float = 1.0) -> Tensor:
        column = self._uniform[:, self._used : self._used + 1]
        self._used += 1
        return column * (high - low) + low

    def under(self, share: float) -> Tensor:
        """True in that share of the rows."""
        return self.next() < share
