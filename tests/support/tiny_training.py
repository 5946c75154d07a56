"""Trainings that take seconds: a model of tiny widths, and music of noise and tones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from codec.constants import SAMPLE_RATE
from codec.nano.config import NanoConfig
from training import dataset, samples, train_codec, train_flow, train_texture, train_vocoder

__all__ = ["TINY", "make_features", "make_music", "make_tiny"]

TINY = NanoConfig(
    encoder_width=8,
    encoder_blocks=1,
    decoder_width=8,
    decoder_blocks=1,
    decoder_memory=(2,),
    flow_width=8,
    flow_blocks=2,
    vocoder_width=8,
    vocoder_blocks=1,
    expansion=1,
)
"""The same features and tokens as the real model's."""


def make_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every stage train the tiny model on little, and write a short sample of one piece."""
    for module in (train_codec, train_flow, train_texture, train_vocoder):
        monkeypatch.setattr(module, "NanoConfig", lambda: TINY)
        monkeypatch.setattr(module, "HELD", (2, 40))
    for module in (train_codec, train_flow):
        monkeypatch.setattr(module, "STATISTICS", 1)
    monkeypatch.setattr(samples, "COUNT", 1)
    monkeypatch.setattr(samples, "SECONDS", 1.0)


def make_music(folder: Path, seed: int, pieces: int = 2, seconds: float = 3.0) -> Path:
    """Recordings at 48 kHz: a chord that comes and goes in noise, another one in each piece."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    for piece in range(pieces):
        notes = 110 * 2 ** (random.integers(0, 36, 3) / 12)
        tones = np.sin(2 * np.pi * notes[:, None] * time).sum(axis=0)
        beat = np.exp(-3 * (time % 0.5))
        stereo = random.normal(0, 0.02, (len(time), 2)) + (0.1 * beat * tones)[:, None]
        sf.write(folder / f"{piece:05d}.wav", stereo, SAMPLE_RATE)
    return folder


def make_features(music: Path, out: Path) -> Path:
    """Features of a folder of music."""
    arguments = [f"--music={music}", f"--out={out}", "--device=cpu"]
    assert dataset.main(arguments) == 0
    return out
