"""Excerpts of recordings as sound, which the vocoder is trained on."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from torch import Tensor

from codec.constants import SAMPLE_RATE, SAMPLES_PER_TOKEN
from streaming.errors import SettingsError
from training.dataset import Excerpts, recordings

__all__ = ["load_sound", "mono"]


def load_sound(folder: Path, device: torch.device | str = "cpu") -> Excerpts:
    """All recordings of a folder, 16 bit, as ``[tokens, 1920, 2]``.

    Raises:
        SettingsError: if there are none, or one is not at 48 kHz.
    """
    files = recordings(folder)
    if not files:
        raise SettingsError(f"there is no recording in {folder}; see training.render")

    def read(path: Path) -> Tensor:
        data, rate = sf.read(path, dtype="int16", always_2d=True)
        if rate != SAMPLE_RATE:
            raise SettingsError(f"{path} is not at {SAMPLE_RATE} Hz; convert it first")
        whole = len(data) // SAMPLES_PER_TOKEN * SAMPLES_PER_TOKEN
        pair = np.ascontiguousarray(data[:whole, [0, -1 if data.shape[1] < 3 else 1]])
        return torch.from_numpy(pair).view(-1, SAMPLES_PER_TOKEN, 2)

    return Excerpts(map(read, files), device)


def mono(music: Excerpts, size: int, tokens: int, generator: torch.Generator) -> Tensor:
    """Mixes of left and right at random levels, twice each: ``[size, 2, tokens * 1920]``."""
    pairs = music.batch(size, tokens, generator).flatten(1, 2).float() / 2**15
    place = pairs.device
    angle, level = torch.rand(2, size, 1, generator=generator, device=place).unbind(0)
    angle = angle * math.pi / 2
    mix = angle.cos() * pairs[..., 0] + angle.sin() * pairs[..., 1]
    mix = mix * 10 ** ((21 * level - 18) / 20)
    return mix.unsqueeze(1).expand(-1, 2, -1)
