"""Stage 2: the network that shapes tones and noise, on sound.

Mono mixes of the music are analysed and rendered again; the loss compares short-time spectra at
several resolutions, never phases.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from codec.constants import SAMPLE_RATE, SAMPLES_PER_TOKEN
from codec.nano.codec import NanoModels, with_texture
from codec.nano.config import NanoConfig
from codec.nano.dsp import mel_filterbank
from codec.nano.features import Features
from codec.nano.vocoder import Vocoder
from streaming.errors import SettingsError
from training.dataset import Excerpts
from training.device import half_precision
from training.loop import train
from training.options import (
    add_options,
    begin,
    load_weights,
    run_of,
    start_from,
    weights_file,
)
from training.program import run_program
from training.samples import Samples, excerpts, listen_to_vocoder
from training.sound import load_sound, mono
from training.train_flow import HISTORY, Residuals

__all__ = ["main"]

SIZES = (512, 2048, 8192)
OCTAVES_HZ = (200, 400, 800, 1600, 3200, 5000)
"""Edges of the bands whose flatness counts: as far as there are tones."""
WEIGHTS = {"mel": 2.0, "log": 0.3, "convergence": 1.0, "chroma": 2.0, "flat": 0.3}
DECODED = "mel", "chroma", "flat"
"""Terms that count for excerpts that went through tokens. Their spectra are not for the vocoder to
mend, so mel compares with the features, and the other two with the true sound.
"""
HELD = 16, 100
"""Excerpts and tokens of the validation set, which is always the same."""
EDGE = 3 * SAMPLES_PER_TOKEN


def pitch_classes(n_fft: int) -> Tensor:
    """Which pitch class each bin from 80 to 2500 Hz is of: float32 ``[12, bins]`` of 0 and 1."""
    hz = torch.arange(n_fft // 2 + 1) * SAMPLE_RATE / n_fft
    inside = (hz >= 80) & (hz <= 2500)
    note = torch.round(69 + 12 * torch.log2(hz.clamp_min(1) / 440)).long() % 12
    return (nn.functional.one_hot(note, 12) * inside.unsqueeze(1)).T.float()


def octaves(n_fft: int) -> Tensor:
    """Rows that take the mean over the bins of a band: float32 ``[bands, bins]``."""
    hz = torch.arange(n_fft // 2 + 1) * SAMPLE_RATE / n_fft
    rows = torch.stack([((hz >= a) & (hz < b)).float() for a, b in pairwise(OCTAVES_HZ)])
    return rows / rows.sum(dim=1, keepdim=True)


class SpectralLoss(nn.Module):
    """Multi-resolution spectral distance (Yamamoto et al., 2020), log-mel distance, pitch classes.

    And flatness, the geometric over the arithmetic mean power of a band: lines or noise?
    guess: mono ``[batch, samples]``; truth: stereo ``[batch, 2, samples]``, whose channels' mean
    power is what counts.
    """

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        self.floor = config.mel_floor
        for size in SIZES:
            self.register_buffer(f"window_{size}", torch.hann_window(size), persistent=False)
            mels = 40 if size == 512 else 128
            self.register_buffer(f"mel_{size}", mel_filterbank(size, mels), persistent=False)
        self.register_buffer("classes", pitch_classes(SIZES[-1]), persistent=False)
        self.register_buffer("octaves", octaves(SIZES[-1]), persistent=False)

    classes: Tensor
    octaves: Tensor

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
                flat_a, flat_b = (self.flatness(x.square()) for x in (a, b))
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
        terms["flat"] = (flat_a - flat_b).abs().mean()
        terms["total"] = torch.stack([WEIGHTS[k] * v for k, v in terms.items()]).sum()
        return terms

    def flatness(self, power: Tensor) -> Tensor:
        """In ln, ``[batch, bins, frames]`` to ``[batch, bands, frames]``."""
        power = power + 1e-9 * SIZES[-1]
        return self.octaves @ power.log() - (self.octaves @ power).log()


class Example(NamedTuple):
    """Excerpts ``[batch, 2, samples]``, their features, and what is drawn to render them."""

    audio: Tensor
    mel: Tensor
    notes: Tensor
    start: Tensor
    noise: Tensor
    angle: Tensor


@torch.no_grad()
def through_tokens(models: NanoModels, rows: Tensor, random: torch.Generator) -> Tensor:
    """Features as a listener has them, but for the first :data:`HISTORY` tokens."""
    residuals = Residuals(models.codec)
    size, tokens = rows.shape[0], rows.shape[1] - HISTORY
    chance = residuals.draw(size, tokens, random)
    given = residuals.expect(rows, chance.first)
    with half_precision(rows.device):
        end = models.flow(chance.noise, torch.zeros_like(given.hidden[..., 0]), given.hidden)
    unit = models.codec.normalizer.deviation * models.flow.deviation
    return with_texture(models.codec, given.features, end.float() * unit * models.texture)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
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
    parser.add_argument(
        "--decoded",
        type=weights_file,
        metavar="FILE",
        help="half of the excerpts as decoded from tokens with these weights",
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

    coder = None
    if args.decoded is not None:
        if args.batch < 2:
            raise SettingsError("--decoded needs a --batch of at least 2")
        coder = NanoModels(config)
        load_weights(coder, args.decoded, "")
        coder.to(device).eval().requires_grad_(False)
    before = HISTORY if coder is not None else 0

    def analysed(sound: Excerpts, size: int, tokens: int, random: torch.Generator) -> Example:
        """Excerpts, all in one go: they meet within EDGE. The second half is decoded, if asked."""
        audio = mono(sound, size, before + tokens, random)
        rows = analyse(audio.transpose(0, 1).flatten(1)).unflatten(0, (size, -1))
        audio = audio[..., before * SAMPLES_PER_TOKEN :]
        if coder is not None:
            some = size // 2
            decoded = through_tokens(coder, rows[some:], random)
            rows = torch.cat([rows[:some, before:], decoded])
        mel, notes, _ = rows.split([c.mel_dims, c.semitone_dims, 2 * c.stereo_bands], dim=-1)
        samples = audio.shape[-1]
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
            return (analysed(music, args.batch, args.tokens, generator),)

    def scored(vocoder: Vocoder, example: Example) -> dict[str, Tensor]:
        sound = rendered(vocoder, example)
        inside = slice(EDGE, -EDGE)
        if coder is None:
            terms: dict[str, Tensor] = criterion(sound[:, inside], example.audio[..., inside])
            return terms
        some = len(sound) // 2
        terms = criterion(sound[:some, inside], example.audio[:some, :, inside])
        other = criterion(sound[some:, inside], example.audio[some:, :, inside])
        heard = vocoder.spectrum(sound[some:], 1).abs() @ vocoder.mel_filters.T
        error = (torch.log(heard + c.mel_floor) - example.mel[some:]).abs()
        edge = EDGE // SAMPLES_PER_TOKEN * c.mel_frames
        more = {**other, "mel": error[:, edge:-edge].mean()}
        for name in DECODED:
            terms[f"decoded_{name}"] = more[name]
            terms["total"] = terms["total"] + WEIGHTS[name] * more[name]
        return terms

    def losses(example: Example) -> dict[str, Tensor]:
        return scored(model, example)

    seeded = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        held = analysed(load_sound(args.valid, device), *HELD, seeded)

    @torch.inference_mode()
    def validate(averaged: nn.Module) -> dict[str, float]:
        assert isinstance(averaged, Vocoder)
        return {k: float(v) for k, v in scored(averaged.eval(), held).items()}

    listen = Samples(args.out, excerpts(args.valid), listen_to_vocoder(config))
    train(run_of(args), model, draw, losses, validate, generator, listen)


if __name__ == "__main__":
    sys.exit(main())
