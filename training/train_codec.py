"""Stage 1: encoder, quantiser and deterministic decoder, end to end on features."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from codec.nano.config import NanoConfig
from codec.nano.level import GROUP
from codec.nano.model import Autoencoder
from codec.nano.slow import ROUND
from training.augment import Augment
from training.codebook import level_codebook
from training.dataset import FeatureSet
from training.loop import Run, half_precision, train, warm_start
from training.losses import feature_losses

__all__ = ["main"]

WEIGHTS = {
    "mel": 0.7,
    "loud": 0.4,
    "note": 0.5,
    "shape": 3.0,
    "chroma": 6.0,
    "stereo": 0.35,
    "level": 1.5,
    "envelope": 6.0,
}
EDGE = 8
"""Tokens at both ends of an excerpt that are not scored: their surroundings are cut off."""


def total(guess: Tensor, truth: Tensor, config: NanoConfig) -> dict[str, Tensor]:
    """All loss terms and their weighted sum, away from the excerpt's edges."""
    terms = feature_losses(guess[:, EDGE:-EDGE], truth[:, EDGE:-EDGE], config)
    terms["total"] = sum((WEIGHTS[k] * v for k, v in terms.items()), torch.zeros(()))
    return terms


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--valid", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=9500)
    parser.add_argument("--init", type=Path, help="start from these weights; new layers are fresh")
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=240)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    config = NanoConfig()
    music = FeatureSet(args.features, args.seed)
    held = FeatureSet(args.valid, 0).batch(12, 400)
    augment = Augment(config, args.seed)
    places = torch.Generator().manual_seed(args.seed)
    model = Autoencoder(config)
    # Statistics of the augmented music, which is what the models see.
    sample = torch.cat([augment(music.batch(64, 64)) for _ in range(8)])
    levels = model.levels(sample)
    model.level.codebook.copy_(level_codebook(levels.unflatten(1, (-1, GROUP)).flatten(0, 1)))
    relative = model.shift(sample, -levels).flatten(0, 1)
    model.normalizer.mean.copy_(relative.mean(dim=0))
    model.normalizer.deviation.copy_(relative.std(dim=0).clamp_min(0.05))
    model.start_from_slow()
    if args.init is not None:
        print("starting from", warm_start(model, args.init, "codec."))

    def losses(step: int) -> dict[str, Tensor]:
        batch = augment(music.batch(args.batch, args.tokens))
        with half_precision():
            guess, _ = model(batch, torch.randint(0, ROUND, (len(batch),), generator=places))
        return total(guess.float(), batch, config)

    @torch.inference_mode()
    def validate(averaged: nn.Module) -> dict[str, float]:
        averaged.eval()
        guess, codes = averaged(held, 0)
        shares = torch.bincount(codes.flatten(), minlength=model.fast_codes) / codes.numel()
        entropy = -(shares * torch.log2(shares.clamp_min(1e-12))).sum()
        return {k: float(v) for k, v in total(guess, held, config).items()} | {
            "entropy": float(entropy)
        }

    run = Run(args.out, args.steps, args.rate)
    train(run, model, losses, validate)


if __name__ == "__main__":
    main()
