"""Augmentation of feature batches: mixing, transposition, equaliser, bandwidth, level, stereo.

All of it acts on features, where it costs next to nothing, and widens the training music far beyond
what was rendered: two pieces at a time, in other keys, through other rooms and loudspeakers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from codec.nano.config import NanoConfig
from codec.nano.dsp import interpolation_matrix, mel_centres
from codec.nano.features import image_from_shares, shares_from_image

__all__ = ["Augment"]

_MAX_SHIFT = 4


class Augment:
    """Random changes of features ``[batch, tokens, feature_dims]``; one generator, hence seeded."""

    def __init__(self, config: NanoConfig, seed: int, device: torch.device | str = "cpu") -> None:
        self.config = c = config
        self.device = device
        self.generator = torch.Generator().manual_seed(seed)
        mel_hz = mel_centres(c.mels)
        notes = torch.arange(c.semitones, dtype=torch.float64) + c.semitone_low
        note_hz = 440 * 2 ** ((notes - 69) / 12)
        hz = torch.cat([mel_hz, note_hz]).float().clamp_min(20)
        self.octave = torch.log2(hz / 1000).unsqueeze(0).to(device)
        self.warps = {
            shift: interpolation_matrix(mel_hz, mel_hz / 2 ** (shift / 12)).T.to(device)
            for shift in range(-_MAX_SHIFT, _MAX_SHIFT + 1)
        }
        bands = torch.arange(c.mels) * c.stereo_bands // c.mels
        self.mel_bands = torch.nn.functional.one_hot(bands, c.stereo_bands).float().to(device)

    def _uniform(self, size: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Drawn on the CPU, as everything here: all devices see the same music."""
        drawn = torch.rand(size, generator=self.generator) * (high - low) + low
        return drawn.to(self.device)

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

    def __call__(self, features: Tensor) -> Tensor:
        mel, notes, stereo = self.split(features)
        mel, notes = self._transpose(mel, notes)
        mel, notes, stereo = self._mix(mel, notes, stereo)
        mel, notes = self._filter(mel, notes)
        return self._splice(self.join(mel, notes, self._image(stereo)))

    def _transpose(self, mel: Tensor, notes: Tensor) -> tuple[Tensor, Tensor]:
        out_mel, out_notes = [], []
        shifts = torch.randint(
            -_MAX_SHIFT, _MAX_SHIFT + 1, (len(mel),), generator=self.generator
        ).tolist()
        for row, shift in enumerate(shifts):
            out_mel.append(mel[row] @ self.warps[shift])
            moved = torch.roll(notes[row], shift, dims=-1)
            if shift > 0:
                moved[..., :shift] = 0
            elif shift < 0:
                moved[..., shift:] = 0
            out_notes.append(moved)
        return torch.stack(out_mel), torch.stack(out_notes)

    def _mix(self, mel: Tensor, notes: Tensor, stereo: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Add the next row of the batch, in power, to a fifth of the rows."""
        size = len(mel)
        level = 10 ** (self._uniform(size, -15, 0) / 20)
        level = level * (self._uniform(size) < 0.2)
        gain = level.view(-1, 1, 1, 1)
        other_mel = mel.roll(1, 0) * gain
        other_notes = notes.roll(1, 0) * gain
        power = mel.square().sum(dim=2) @ self.mel_bands
        other = other_mel.square().sum(dim=2) @ self.mel_bands
        share = (other / (power + other + 1e-9)).unsqueeze(2)
        stereo = stereo * (1 - share) + stereo.roll(1, 0) * share
        mel = (mel.square() + other_mel.square()).sqrt()
        return mel, (notes.square() + other_notes.square()).sqrt(), stereo

    def _filter(self, mel: Tensor, notes: Tensor) -> tuple[Tensor, Tensor]:
        """Tilt, bells, bass, now and then a low-pass, and a level: one random curve per row."""
        size = len(mel)
        draw = lambda low, high: self._uniform(size, low, high).view(-1, 1)  # noqa: E731
        sometimes = lambda share: (draw(0, 1) < share).float()  # noqa: E731
        octave = self.octave
        curve = draw(-1.5, 1.0) * octave
        for _ in range(2):
            centre, width = draw(-4.5, 4.0), draw(0.3, 2.0)
            curve = curve + draw(-6, 6) * torch.exp(-((octave - centre) ** 2) / (2 * width**2))
        bass = torch.sigmoid(4 * (draw(-4.3, -2.5) - octave))
        curve = curve + draw(-6, 12) * bass * sometimes(0.5)
        cutoff = math.log2(3.0) + 3.0 * torch.sqrt(draw(0, 1))  # 3 to 24 kHz, mostly high
        curve = curve - draw(30, 200) * sometimes(0.35) * (octave - cutoff).clamp_min(0)
        level = 4 * torch.randn(size, 1, generator=self.generator).to(self.device)
        curve = curve + level.clamp(-12, 8) - sometimes(0.04) * draw(5, 35)
        gain = 10 ** (curve / 20)
        mels = gain[:, : self.config.mels].view(size, 1, 1, -1)
        rest = gain[:, self.config.mels :].view(size, 1, 1, -1)
        return mel * mels, notes * rest

    def _image(self, stereo: Tensor) -> Tensor:
        """Channel swap, mono, one channel alone, antiphase."""
        dice = self._uniform(len(stereo)).view(-1, 1, 1)
        swap = self._uniform(len(stereo)).view(-1, 1, 1) < 0.5
        balance, width = stereo.unbind(dim=2)
        mono, inverted = dice < 0.06, (dice > 0.06) & (dice < 0.10)
        balance = torch.where(swap, -balance, balance).masked_fill(mono, 0.0)
        width = torch.where(inverted, -width, width).masked_fill(mono, -1.0)
        return torch.stack([balance, width], dim=2)

    def _splice(self, features: Tensor) -> Tensor:
        """Let a third of the rows begin with another row or with silence: pieces follow pieces."""
        size, tokens = features.shape[:2]
        silence = self.join(*(torch.zeros_like(part[:1, :1]) for part in self.split(features)))
        others = features.roll(1, 0)
        quiet = self._uniform(size) < 0.3
        before = torch.where(quiet.view(-1, 1, 1), silence, others)
        cut = torch.randint(0, tokens, (size, 1), generator=self.generator).to(self.device)
        cut = cut * (self._uniform(size) < 0.35).unsqueeze(1)
        place = torch.arange(tokens, device=self.device)
        return torch.where((place < cut).unsqueeze(2), before, features)
