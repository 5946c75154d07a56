"""Excerpts of recordings as sound, which the vocoder is trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from torch import Tensor

from codec.constants import SAMPLE_RATE, SAMPLES_PER_TOKEN
from streaming.errors import SettingsError
from training.dataset import recordings

__all__ = ["AudioSet"]


class AudioSet:
    """Random excerpts of a folder of recordings; SettingsError where there are none at 48 kHz."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.files = recordings(folder)
        if not self.files:
            raise SettingsError(f"there is no recording in {folder}; see training.render")
        self.tokens = [sf.info(file).frames // SAMPLES_PER_TOKEN for file in self.files]
        self.random = np.random.default_rng(seed)

    def excerpt(self, tokens: int) -> Tensor:
        """Sound of a random place, ``[2, tokens * 1920]``."""
        index = int(self.random.integers(len(self.files)))
        first = int(self.random.integers(0, max(1, self.tokens[index] - tokens)))
        samples = tokens * SAMPLES_PER_TOKEN
        data, rate = sf.read(
            self.files[index],
            frames=samples,
            start=first * SAMPLES_PER_TOKEN,
            dtype="float32",
            always_2d=True,
        )
        if rate != SAMPLE_RATE:
            raise SettingsError(f"{self.files[index]} is not at {SAMPLE_RATE} Hz; convert it first")
        pair = np.pad(data, ((0, samples - len(data)), (0, 0))).T[[0, -1]]
        return torch.from_numpy(np.ascontiguousarray(pair))

    def mono(self, size: int, tokens: int) -> Tensor:
        """Mixes of left and right at random levels, twice each: ``[size, 2, tokens * 1920]``."""
        rows = []
        for _ in range(size):
            pair = self.excerpt(tokens)
            angle = self.random.uniform(0, np.pi / 2)
            mix = np.cos(angle) * pair[0] + np.sin(angle) * pair[1]
            rows.append(mix.expand(2, -1) * 10 ** (self.random.uniform(-18, 3) / 20))
        return torch.stack(rows).float()
