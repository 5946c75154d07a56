"""Stage 1: encoder, quantiser and deterministic decoder, end to end on features."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from codec.nano.config import NanoConfig
from codec.nano.level import SPAN
from codec.nano.model import Autoencoder
from codec.nano.slow import ROUND
from training.augment import Augment, Draws
from training.codebook import level_codebooks
from training.dataset import Excerpts, fixed_batch, load_features
from training.device import half_precision
from training.loop import train
from training.losses import feature_losses, unused_bits
from training.options import add_options, begin, run_of, start_from, weights_file
from training.program import run_program
from training.samples import Samples, excerpts, listen_to_codec

__all__ = ["main"]

WEIGHTS = {
    "mel": 0.7,
    "loud": 0.4,
    "note": 0.5,
    "shape": 3.0,
    "chroma": 10.0,
    "stereo": 0.35,
    "level": 1.5,
    "envelope": 10.0,
    "onset": 0.8,
    "flux": 0.2,
    "bands": 0.6,
    "detail": 0.5,
    "unused": 1.0,
}
HELD = 12, 400
"""Excerpts and tokens of the validation set, which is always the same."""
STATISTICS = 8
"""Batches from which means and deviations are taken; the level channel's codebooks: four times."""
LONG = 15 * SPAN
"""Tokens of an excerpt whose levels those codebooks are fitted to."""
SHIFT = SPAN // 2
"""Excerpts begin at multiples of so many tokens, so that levels are known where they are scored."""
EDGE = 8
"""Tokens at both ends of an excerpt that are not scored: their surroundings are cut off."""


def total(model: Autoencoder, guess: Tensor, truth: Tensor, unit: Tensor) -> dict[str, Tensor]:
    """All loss terms and their weighted sum, away from the excerpt's edges."""
    inside = slice(EDGE, -EDGE)
    terms = feature_losses(guess[:, inside], truth[:, inside], model.config, model.widths)
    terms["unused"] = unused_bits(unit, model.config.levels)
    terms["total"] = torch.stack([WEIGHTS[k] * v for k, v in terms.items()]).sum()
    return terms


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.train_codec", description=__doc__)
    parser.add_argument("--features", type=Path, required=True, help="of the music, a folder")
    parser.add_argument("--valid", type=Path, required=True, help="features of held-out music")
    parser.add_argument(
        "--init",
        type=weights_file,
        metavar="FILE",
        help="start from these weights, or from those that are bundled; new layers are fresh",
    )
    parser.add_argument("--listen", type=Path, metavar="FOLDER", help="held-out music for samples")
    parser.add_argument(
        "--vocoder", type=weights_file, metavar="FILE", help="weights that render the samples"
    )
    add_options(parser, steps=9500, rate=1.5e-3, seed=1, cpu=(6, 240), card=(192, 320))
    args = parser.parse_args(argv)
    return run_program("train_codec", lambda: train_codec(args))


def train_codec(args: argparse.Namespace) -> None:
    """Stage 1, as the options ask."""
    generator = begin(args)
    device = generator.device
    config = NanoConfig()
    music = load_features(args.features, device)
    held = fixed_batch(args.valid, *HELD, device)
    augment = Augment(config).to(device)
    model = Autoencoder(config).to(device)
    if args.init is None:
        begin_from(model, music, augment, generator)
    else:
        start_from(model, args.init, "codec.")

    def draw() -> tuple[Tensor, Draws, Tensor]:
        rows = music.batch(args.batch, args.tokens, generator)
        first = torch.randint(2 * ROUND // SHIFT, (args.batch,), generator=generator, device=device)
        return rows, augment.draw(args.batch, generator), first * SHIFT

    def losses(rows: Tensor, draws: Draws, first: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            batch = augment(rows.float(), draws)
        with half_precision(device):
            guess, _, unit = model(batch, first)
        return total(model, guess.float(), batch, unit.float())

    @torch.inference_mode()
    def validate(averaged: nn.Module) -> dict[str, float]:
        averaged.eval()
        guess, codes, unit = averaged(held, 0)
        shares = torch.bincount(codes.flatten(), minlength=model.fast_codes) / codes.numel()
        entropy = -(shares * torch.log2(shares.clamp_min(1e-12))).sum()
        terms = total(model, guess, held, unit)
        return {k: float(v) for k, v in terms.items()} | {"entropy": float(entropy)}

    listen = None
    if args.listen is not None:
        decode = listen_to_codec("codec", config, vocoder=args.vocoder)
        listen = Samples(args.out, excerpts(args.listen), decode)
    train(run_of(args), model, draw, losses, validate, generator, listen)


@torch.no_grad()
def begin_from(
    model: Autoencoder, music: Excerpts, augment: Augment, generator: torch.Generator
) -> None:
    """Means, deviations and level codebooks of the augmented music, which is what models see."""

    def augmented(size: int, tokens: int) -> Tensor:
        batch = music.batch(size, tokens, generator).float()
        return augment(batch, augment.draw(size, generator))

    sample = torch.cat([augmented(64, 64) for _ in range(STATISTICS)])
    relative = model.shift(sample, -model.levels(sample)).flatten(0, 1)
    model.normalizer.mean.copy_(relative.mean(dim=0))
    model.normalizer.deviation.copy_(relative.std(dim=0).clamp_min(0.05))
    pieces = [model.levels(augmented(32, LONG)) for _ in range(4 * STATISTICS)]
    model.level.codebooks.copy_(level_codebooks(torch.cat(pieces)))
    model.start_from_slow()


if __name__ == "__main__":
    sys.exit(main())
