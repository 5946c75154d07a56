"""Stage 3: the flow-matching decoder on the residual that the deterministic decoder leaves."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from codec.nano.config import NanoConfig
from codec.nano.flow import FlowDecoder
from codec.nano.model import Autoencoder
from codec.nano.slow import ROUND
from training.augment import Augment
from training.checkpoint import Randoms
from training.dataset import FeatureSet
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
from training.samples import Samples, excerpts, listen_to_codec

__all__ = ["main"]

HELD = 12, 200
"""Excerpts and tokens of the validation set, which is always the same."""
STATISTICS = 6
"""Batches from which the residual's deviation is taken."""
EDGE = 8
DROP_CONDITION = 0.1
PREFIX = 0.5
"""Share of excerpts that begin with known tokens, as a window of a stream does."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.train_flow", description=__doc__)
    parser.add_argument("--features", type=Path, required=True, help="of the music, a folder")
    parser.add_argument("--valid", type=Path, required=True, help="features of held-out music")
    parser.add_argument("--codec", type=Path, required=True, help="averaged.pt of stage 1")
    parser.add_argument(
        "--init",
        type=weights_file,
        metavar="FILE",
        help="start from these weights, or from those that are bundled",
    )
    parser.add_argument("--batch", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=240)
    parser.add_argument("--listen", type=Path, metavar="FOLDER", help="held-out music for samples")
    parser.add_argument(
        "--vocoder", type=weights_file, metavar="FILE", help="weights that render the samples"
    )
    add_options(parser, steps=3000, rate=1e-3, seed=3)
    args = parser.parse_args(argv)
    return run_program("train_flow", lambda: train_flow(args))


def train_flow(args: argparse.Namespace) -> None:
    """Stage 3, as the options ask."""
    device = begin(args)
    config = NanoConfig()
    codec = Autoencoder(config)
    load_weights(codec, args.codec)
    codec.to(device).eval().requires_grad_(False)
    music = FeatureSet(args.features, args.seed, device)
    held = FeatureSet(args.valid, 0, device).batch(*HELD)
    augment = Augment(config, args.seed, device)
    generator = torch.Generator().manual_seed(args.seed)
    model = FlowDecoder(config).to(device)

    @torch.no_grad()
    def residual(batch: Tensor) -> tuple[Tensor, Tensor]:
        """Residual features ``[batch, tokens, dims]`` and the decoder's hidden state."""
        places = torch.randint(0, ROUND, (len(batch),), generator=generator).to(device)
        with half_precision(device):
            expected, hidden = codec.decode(codec.encode(batch, places), places)
        return (batch - expected) / codec.normalizer.deviation, hidden.float()

    sample = torch.cat(
        [residual(augment(music.batch(32, 48)))[0].flatten(0, 1) for _ in range(STATISTICS)]
    )
    model.deviation.copy_(sample.std(dim=0).clamp_min(0.02))
    if args.init is not None:
        start_from(model, args.init, "flow.")

    def objective(flow: nn.Module, batch: Tensor, random: torch.Generator) -> Tensor:
        assert isinstance(flow, FlowDecoder)
        target, hidden = residual(batch)
        target = target / flow.deviation
        size, tokens = target.shape[:2]
        # Drawn on the CPU: the same on every device.
        t = torch.rand(size, 1, generator=random).expand(-1, tokens)
        lengths = torch.randint(4, tokens // 2, (size, 1), generator=random)
        given = torch.rand(size, 1, generator=random) < PREFIX
        known = (torch.arange(tokens) < lengths) & given
        t, known = t.masked_fill(known, 1.0).to(device), known.to(device)
        noise = torch.randn(target.shape, generator=random).to(device)
        x = noise + t.unsqueeze(-1) * (target - noise)
        absent = (torch.rand(size, generator=random) < DROP_CONDITION).to(device)
        with half_precision(device):
            given_hidden = flow.condition(hidden)
            given_hidden = torch.where(absent.view(-1, 1, 1), flow.absent, given_hidden)
            end = flow.from_condition(x, t, given_hidden)
        weight = 1 / (1 - t).clamp_min(0.1) ** 2 * ~known
        weight[:, :EDGE] *= 0.2
        weight[:, -EDGE:] = 0
        error = (end.float() - target).square().mean(dim=-1)
        loss: Tensor = (error * weight).sum() / weight.sum()
        return loss

    def losses(step: int) -> dict[str, Tensor]:
        batch = augment(music.batch(args.batch, args.tokens))
        return {"total": objective(model, batch, generator)}

    @torch.inference_mode()
    def validate(averaged: nn.Module) -> dict[str, float]:
        random = torch.Generator().manual_seed(0)
        return {"total": float(objective(averaged, held, random))}

    listen = None
    if args.listen is not None:
        decode = listen_to_codec("flow", config, codec=args.codec, vocoder=args.vocoder)
        listen = Samples(args.out, excerpts(args.listen), decode)
    randoms: Randoms = {"music": music.random, "augment": augment.generator, "flow": generator}
    train(run_of(args), model, losses, validate, randoms, listen)


if __name__ == "__main__":
    sys.exit(main())
