"""Stage 3: the flow-matching decoder on the residual that the deterministic decoder leaves."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from codec.nano.config import NanoConfig
from codec.nano.flow import FlowDecoder
from codec.nano.level import SPAN
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

__all__ = ["EDGE", "Residuals", "main"]

HELD = 12, 200
"""Excerpts and tokens of the validation set, which is always the same."""
STATISTICS = 6
"""Batches from which the residual's deviation is taken."""
EDGE = 8
SHIFT = SPAN // 2
"""Excerpts begin at multiples of so many tokens: within EDGE, all levels are known."""
DROP_CONDITION = 0.1
PREFIX = 0.5
"""Share of excerpts that begin with known tokens, as a window of a stream does."""


@dataclass(frozen=True)
class Residuals:
    """What a trained token decoder leaves over, and the flow's loss on it."""

    codec: Autoencoder
    device: torch.device
    random: torch.Generator
    """For the places in the stream that excerpts are taken to come from."""

    @torch.no_grad()
    def __call__(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Expected features ``[batch, tokens, dims]`` and the decoder's hidden state."""
        places = torch.randint(0, 2 * ROUND // SHIFT, (len(batch),), generator=self.random)
        places = SHIFT * places.to(self.device)
        with half_precision(self.device):
            expected, hidden = self.codec.decode(self.codec.encode(batch, places), places)
        return expected, hidden.float()

    def normal(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Residual features over the features' deviation, and the hidden state."""
        expected, hidden = self(batch)
        return (batch - expected) / self.codec.normalizer.deviation, hidden

    @staticmethod
    def known(size: int, tokens: int, random: torch.Generator) -> Tensor:
        """Which tokens are given, as a window of a stream has its first ones: bool, on the CPU."""
        lengths = torch.randint(4, tokens // 2, (size, 1), generator=random)
        given = torch.rand(size, 1, generator=random) < PREFIX
        return (torch.arange(tokens) < lengths) & given

    def flow_loss(
        self, flow: FlowDecoder, batch: Tensor, random: torch.Generator, earliest: float = 0.0
    ) -> Tensor:
        """Flow matching's loss at random times from ``earliest`` on."""
        target, hidden = self.normal(batch)
        target = target / flow.deviation
        size, tokens = target.shape[:2]
        # Drawn on the CPU: the same on every device.
        t = torch.rand(size, 1, generator=random).expand(-1, tokens)
        t = earliest + (1 - earliest) * t
        known = self.known(size, tokens, random)
        t, known = t.masked_fill(known, 1.0).to(self.device), known.to(self.device)
        noise = torch.randn(target.shape, generator=random).to(self.device)
        x = noise + t.unsqueeze(-1) * (target - noise)
        absent = (torch.rand(size, generator=random) < DROP_CONDITION).to(self.device)
        with half_precision(self.device):
            given_hidden = flow.condition(hidden)
            given_hidden = torch.where(absent.view(-1, 1, 1), flow.absent, given_hidden)
            end = flow.from_condition(x, t, given_hidden)
        weight = 1 / (1 - t).clamp_min(0.1) ** 2 * ~known
        weight[:, :EDGE] *= 0.2
        weight[:, -EDGE:] = 0
        error = (end.float() - target).square().mean(dim=-1)
        loss: Tensor = (error * weight).sum() / weight.sum()
        return loss


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
    load_weights(codec, args.codec, "codec.")
    codec.to(device).eval().requires_grad_(False)
    music = FeatureSet(args.features, args.seed, device)
    held = FeatureSet(args.valid, 0, device).batch(*HELD)
    augment = Augment(config, args.seed, device)
    generator = torch.Generator().manual_seed(args.seed)
    model = FlowDecoder(config).to(device)

    residuals = Residuals(codec, device, generator)
    sample = torch.cat(
        [residuals.normal(augment(music.batch(32, 48)))[0].flatten(0, 1) for _ in range(STATISTICS)]
    )
    model.deviation.copy_(sample.std(dim=0).clamp_min(0.02))
    if args.init is not None:
        start_from(model, args.init, "flow.")

    def losses(step: int) -> dict[str, Tensor]:
        batch = augment(music.batch(args.batch, args.tokens))
        return {"total": residuals.flow_loss(model, batch, generator)}

    @torch.inference_mode()
    def validate(averaged: nn.Module) -> dict[str, float]:
        assert isinstance(averaged, FlowDecoder)
        random = torch.Generator().manual_seed(0)
        return {"total": float(residuals.flow_loss(averaged, held, random))}

    listen = None
    if args.listen is not None:
        decode = listen_to_codec("flow", config, codec=args.codec, vocoder=args.vocoder)
        listen = Samples(args.out, excerpts(args.listen), decode)
    randoms: Randoms = {"music": music.random, "augment": augment.generator, "flow": generator}
    train(run_of(args), model, losses, validate, randoms, listen)


if __name__ == "__main__":
    sys.exit(main())
