"""Stage 2: the network that shapes tones and noise, on sound.

Mono mixes of the music are analysed and rendered again; the loss compares short-time spectra at
several resolutions, never phases.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from codec.constants import SAMPLE_RATE, SAMPLES_PER_TOKEN
from codec.nano.config import NanoConfig
from codec.nano.dsp import mel_filterbank
from codec.nano.features import Features
from codec.nano.vocoder import Vocoder
from training.device import half_precision
from training.loop import train
from training.options import (
    add_options,
    begin,
    run_of,
    start_from,
    weights_file,
)
from training.program import run_program
from training.samples import Samples, excerpts, listen_to_vocoder
from training.sound import load_sound, mono

__all__ = ["main"]

SIZES = (512, 2048, 4096)
HELD = 16, 100
"""Excerpts and tokens of the validation set, which is always the same."""
EDGE = 3 * SAMPLES_PER_TOKEN


def pitch_classes(n_fft: int) -> Tensor:
    """Which pitch class each bin from 80 to 2500 Hz is of: float32 ``[12, bins]`` of 0 and 1."""
    hz = torch.arange(n_fft // 2 + 1) * SAMPLE_RATE / n_fft
    inside = (hz >= 80) & (hz <= 2500)
    note = torch.round(69 + 12 * torch.log2(hz.clamp_min(1) / 440)).long() % 12
    return (nn.functional.one_hot(note, 12) * inside.unsqueeze(1)).T.float()


class SpectralLoss(nn.Module):
    """Multi-resolution spectral distance (Yamamoto et al., 2020), log-mel distance, pitch classes.

    guess: mono ``[batch, samples]``; truth: stereo ``[batch, 2, samples]``, whose channels' mean
    power is what counts.
    """

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        self.floor = config.mel_floor
        for size in SIZES:
            self.register_buffer(f"window_{size}", torch.hann_window(size), persistent=False)
            mels = {512: 40, 1024: 80}.get(size, 128)
            self.register_buffer(f"mel_{size}", mel_filterbank(size, mels), persistent=False)
        self.register_buffer("classes", pitch_classes(SIZES[-1]), persistent=False)

    classes: Tensor

    def forward(self, guess: Tensor, truth: Tensor) -> dict[str, Tensor]:
        terms = {name: guess.new_zeros(()) for name in ("mel", "log", "convergence")}
        for size in SIZES:
            window = self.get_buffer(f"window_{size}")
            a = torch.stft(guess, size, size // 4, window=window, return_complex=True).abs()
            both = torch.stft(
                truth.flatten(0, 1), size, size // 4, window=window, return_complex=True
            )
            b = both.abs().square().unflatten(0, (-1, 2)).mean(dim=1).sqrt()
            if size == SIZES[-1]:
                classes_a, classes_b = (self.classes @ x.square() for x in (a, b))
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
        energy = classes_b.sum(dim=1)
        energy = energy / (energy.mean(dim=1, keepdim=True) + 1e-6)
        classes_a, classes_b = (x - x.mean(dim=1, keepdim=True) for x in (classes_a, classes_b))
        likeness = nn.functional.cosine_similarity(classes_a, classes_b, dim=1, eps=1e-8)
        terms["chroma"] = ((1 - likeness) * energy.clamp_max(6)).mean()
        terms["total"] = (
            2 * terms["mel"] + 0.3 * terms["log"] + terms["convergence"] + 2 * terms["chroma"]
        )
        return terms


class Example(NamedTuple):
    """Excerpts ``[batch, 2, samples]``, their features, and what is drawn to render them."""

    audio: Tensor
    mel: Tensor
    notes: Tensor
    start: Tensor
    noise: Tensor
    angle: Tensor


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.train_vocoder", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--music", type=Path, required=True, help="a folder of recordings")
    parser.add_argument("--valid", type=Path, required=True, help="held-out recordings")
    parser.add_argument(
        "--init",
        type=weights_file,
        metavar="FILE",
        help="start from these weights, or from those that are bundled",
    )
    add_options(parser, steps=2000, rate=1e-3, seed=2, cpu=(6, 32), card=(64, 32))
    args = parser.parse_args(argv)
    return run_program("train_vocoder", lambda: train_vocoder(args))


def train_vocoder(args: argparse.Namespace) -> None:
    """Stage 2, as the options ask."""
    generator = begin(args)
    device = generator.device
    config = NanoConfig()
    analyse, criterion = Features(config).to(device), SpectralLoss(config).to(device)
    music = load_sound(args.music, device)
    model = Vocoder(config)
    if args.init is not None:
        start_from(model, args.init, "vocoder.")
    model.to(device)
    c = config

    def analysed(audio: Tensor, random: torch.Generator) -> Example:
        """Of excerpts ``[batch, 2, samples]``, all in one go: they meet within EDGE."""
        size, _, samples = audio.shape
        rows = analyse(audio.transpose(0, 1).flatten(1)).unflatten(0, (size, -1))
        mel, notes, _ = rows.split([c.mel_dims, c.semitone_dims, 2 * c.stereo_bands], dim=-1)
        start = torch.randint(10**7, (size,), generator=random, device=device) * 480
        noise = torch.randn(size, 2, samples, generator=random, device=device)
        # Any rotation of the two renderings is a rendering.
        angle = 2 * torch.pi * torch.rand(size, 1, 1, generator=random, device=device)
        return Example(
            audio,
            mel.reshape(size, -1, c.mels),
            notes.reshape(size, -1, c.semitones),
            start,
            noise,
            angle,
        )

    def rendered(vocoder: Vocoder, example: Example) -> Tensor:
        """Mono sound, ``[batch, samples]``."""
        with torch.no_grad():
            oscillators = vocoder.oscillators(example.notes, example.start)
            bank = vocoder.spectrum(oscillators, c.decimation)
            noise = vocoder.spectrum(example.noise, 1)
        with half_precision(device, vocoder.training):
            pair = vocoder(example.mel, example.notes, bank, noise)
        angle = example.angle
        sound = vocoder.to_signal(angle.cos() * pair[:, 0] + angle.sin() * pair[:, 1])
        return vocoder.level(sound.unsqueeze(1).expand(-1, 2, -1), example.mel)[:, 0]

    def draw() -> tuple[Example]:
        with torch.no_grad():
            return (analysed(mono(music, args.batch, args.tokens, generator), generator),)

    def losses(example: Example) -> dict[str, Tensor]:
        sound = rendered(model, example)
        terms: dict[str, Tensor] = criterion(sound[:, EDGE:-EDGE], example.audio[..., EDGE:-EDGE])
        return terms

    seeded = torch.Generator(device).manual_seed(0)
    held = analysed(mono(load_sound(args.valid, device), *HELD, seeded), seeded)

    @torch.inference_mode()
    def validate(averaged: nn.Module) -> dict[str, float]:
        assert isinstance(averaged, Vocoder)
        sound = rendered(averaged.eval(), held)
        terms = criterion(sound[:, EDGE:-EDGE], held.audio[..., EDGE:-EDGE])
        return {k: float(v) for k, v in terms.items()}

    listen = Samples(args.out, excerpts(args.valid), listen_to_vocoder(config))
    train(run_of(args), model, draw, losses, validate, generator, listen)


if __name__ == "__main__":
    sys.exit(main())
