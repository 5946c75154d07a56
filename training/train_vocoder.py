"""Stage 2: the network that shapes tones and noise, on sound.

Mono mixes of the music are analysed and rendered again; the loss compares short-time spectra at
several resolutions, never phases.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from torch import Tensor, nn

from codec.constants import SAMPLE_RATE, SAMPLES_PER_TOKEN
from codec.nano.config import NanoConfig
from codec.nano.dsp import mel_filterbank
from codec.nano.features import Features
from codec.nano.vocoder import Vocoder
from training.dataset import recordings
from training.loop import Run, half_precision, train

__all__ = ["main"]

SIZES = (512, 2048, 4096)
EDGE = 3 * SAMPLES_PER_TOKEN


class AudioSet:
    """Random mono excerpts of a folder of recordings."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.files = recordings(folder)
        self.frames = [sf.info(file).frames for file in self.files]
        self.random = np.random.default_rng(seed)

    def batch(self, size: int, samples: int) -> Tensor:
        """Excerpts ``[size, samples]``: left, right or a mix, at a random level."""
        rows = []
        for _ in range(size):
            index = int(self.random.integers(len(self.files)))
            start = int(self.random.integers(0, max(1, self.frames[index] - samples)))
            data, rate = sf.read(
                self.files[index], frames=samples, start=start, dtype="float32", always_2d=True
            )
            if rate != SAMPLE_RATE:
                raise ValueError(f"{self.files[index]} is not at {SAMPLE_RATE} Hz")
            angle = self.random.uniform(0, np.pi / 2)
            mono = np.cos(angle) * data[:, 0] + np.sin(angle) * data[:, -1]
            rows.append(
                np.pad(mono, (0, samples - len(mono))) * 10 ** (self.random.uniform(-18, 3) / 20)
            )
        return torch.from_numpy(np.stack(rows).astype(np.float32))


class SpectralLoss(nn.Module):
    """Multi-resolution spectral distance (Yamamoto et al., 2020) and log-mel distance."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        self.floor = config.mel_floor
        for size in SIZES:
            self.register_buffer(f"window_{size}", torch.hann_window(size), persistent=False)
            mels = {512: 40, 1024: 80}.get(size, 128)
            self.register_buffer(f"mel_{size}", mel_filterbank(size, mels), persistent=False)

    def forward(self, guess: Tensor, truth: Tensor) -> dict[str, Tensor]:
        terms = {name: torch.zeros(()) for name in ("mel", "log", "convergence")}
        for size in SIZES:
            window = self.get_buffer(f"window_{size}")
            a, b = (
                torch.stft(x, size, size // 4, window=window, return_complex=True).abs()
                for x in (guess, truth)
            )
            filters = self.get_buffer(f"mel_{size}")
            mel_a, mel_b = (torch.log(filters @ x + self.floor) for x in (a, b))
            scale = 1 / len(SIZES)
            terms["mel"] = terms["mel"] + scale * (mel_a - mel_b).abs().mean()
            level = window.sum() * 1e-5
            terms["log"] = (
                terms["log"] + scale * (torch.log(a + level) - torch.log(b + level)).abs().mean()
            )
            distance = (a - b).square().sum(dim=(1, 2)).clamp_min(1e-9).sqrt()
            norm = b.square().sum(dim=(1, 2)).sqrt() + 1.0
            terms["convergence"] = terms["convergence"] + scale * (distance / norm).mean()
        terms["total"] = 2 * terms["mel"] + 0.3 * terms["log"] + terms["convergence"]
        return terms


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--music", type=Path, required=True)
    parser.add_argument("--valid", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    config = NanoConfig()
    analyse, criterion = Features(config), SpectralLoss(config)
    music = AudioSet(args.music, args.seed)
    held = AudioSet(args.valid, 0).batch(16, 100 * SAMPLES_PER_TOKEN)
    model = Vocoder(config)
    c = config

    def run_batch(
        vocoder: nn.Module, audio: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        assert isinstance(vocoder, Vocoder)
        with torch.no_grad():
            features = torch.stack([analyse(row.expand(2, -1)) for row in audio])
            size, tokens = features.shape[:2]
            mel = features[..., : c.mel_dims].reshape(size, -1, c.mels)
            notes = features[..., c.mel_dims : c.mel_dims + c.semitone_dims]
            notes = notes.reshape(size, -1, c.semitones)
            start = torch.randint(0, 10**7, (size,), generator=generator) * 480
            bank = vocoder.spectrum(vocoder.oscillators(notes, start), c.decimation)
            noise = torch.randn(size, 2, tokens * SAMPLES_PER_TOKEN, generator=generator)
            spectrum = vocoder.spectrum(noise, 1)
        with half_precision(vocoder.training):
            pair = vocoder(mel, notes, bank, spectrum)
        # Any rotation of the two renderings is a rendering.
        angle = 2 * torch.pi * torch.rand(size, 1, 1, generator=generator)
        sound = vocoder.to_signal(angle.cos() * pair[:, 0] + angle.sin() * pair[:, 1])
        terms: dict[str, Tensor] = criterion(sound[:, EDGE:-EDGE], audio[:, EDGE:-EDGE])
        return terms

    generator = torch.Generator().manual_seed(args.seed)

    def losses(step: int) -> dict[str, Tensor]:
        return run_batch(model, music.batch(args.batch, args.tokens * SAMPLES_PER_TOKEN), generator)

    @torch.inference_mode()
    def validate(averaged: nn.Module) -> dict[str, float]:
        averaged.eval()
        terms = run_batch(averaged, held, torch.Generator().manual_seed(0))
        return {k: float(v) for k, v in terms.items()}

    train(Run(args.out, args.steps, args.rate), model, losses, validate)


if __name__ == "__main__":
    main()
