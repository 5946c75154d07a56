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
from training.augment import Augment
from training.checkpoint import Randoms
from training.codebook import level_codebooks
from training.dataset import FeatureSet
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
    "chroma": 8.0,
    "stereo": 0.35,
    "level": 1.5,
    "envelope": 8.0,
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


def total(guess: Tensor, truth: Tensor, unit: Tensor, config: NanoConfig) -> dict[str, Tensor]:
    """All loss terms and their weighted sum, away from the excerpt's edges."""
    terms = feature_losses(guess[:, EDGE:-EDGE], truth[:, EDGE:-EDGE], config)
    terms["unused"] = unused_bits(unit, config.levels)
    terms["total"] = sum((WEIGHTS[k] * v for k, v in terms.items()), guess.new_zeros(()))
    return terms


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.train_codec", description=__doc__)
    parser.add_argument("--features", type=Path, required=True, help="of the music, a folder")
    parser.add_argument("--valid", type=Path, required=True, help="features of held-out music")
    parser.add_argument(
        "--init",
        type=weights_file,
        metavar="FILE",
        help="start from these weights, or from those that are bundled; new layers are fresh",
    )
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=240)
    parser.add_argument("--listen", type=Path, metavar="FOLDER", help="held-out music for samples")
    parser.add_argument(
        "--vocoder", type=weights_file, metavar="FILE", help="weights that render the samples"
    )
    add_options(parser, steps=9500, rate=1.5e-3, seed=1)
    args = parser.parse_args(argv)
    return run_program("train_codec", lambda: train_codec(args))


def train_codec(args: argparse.Namespace) -> None:
    """Stage 1, as the options ask."""
    device = begin(args)
    config = NanoConfig()
    music = FeatureSet(args.features, args.seed, device)
    held = FeatureSet(args.valid, 0, device).batch(*HELD)
    augment = Augment(config, args.seed, device)
    places = torch.Generator().manual_seed(args.seed)
    model = Autoencoder(config).to(device)
    # Statistics of the augmented music, which is what the models see.
    sample = torch.cat([augment(music.batch(64, 64)) for _ in range(STATISTICS)])
    relative = model.shift(sample, -model.levels(sample)).flatten(0, 1)
    model.normalizer.mean.copy_(relative.mean(dim=0))
    model.normalizer.deviation.copy_(relative.std(dim=0).clamp_min(0.05))
    pieces = [model.levels(augment(music.batch(32, LONG))) for _ in range(4 * STATISTICS)]
    model.level.codebooks.copy_(level_codebooks(torch.cat(pieces)))
    model.start_from_slow()
    if args.init is not None:
        start_from(model, args.init, "codec.")

    def losses(step: int) -> dict[str, Tensor]:
        batch = augment(music.batch(args.batch, args.tokens))
        first = torch.randint(0, 2 * ROUND // SHIFT, (len(batch),), generator=places).to(device)
        with half_precision(device):
            guess, _, unit = model(batch, first * SHIFT)
        return total(guess.float(), batch, unit, config)

    @torch.inference_mode()
    def validate(averaged: nn.Module) -> dict[str, float]:
        averaged.eval()
        guess, codes, unit = averaged(held, 0)
        shares = torch.bincount(codes.flatten(), minlength=model.fast_codes) / codes.numel()
        entropy = -(shares * torch.log2(shares.clamp_min(1e-12))).sum()
        return {k: float(v) for k, v in total(guess, held, unit, config).items()} | {
            "entropy": float(entropy)
        }

    listen = None
    if args.listen is not None:
        decode = listen_to_codec("codec", config, vocoder=args.vocoder)
        listen = Samples(args.out, excerpts(args.listen), decode)
    randoms: Randoms = {"music": music.random, "augment": augment.generator, "places": places}
    train(run_of(args), model, losses, validate, randoms, listen)


if __name__ == "__main__":
    sys.exit(main())
