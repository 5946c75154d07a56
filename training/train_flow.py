"""Stage 3: the flow-matching decoder on the residual that the deterministic decoder leaves."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from codec.nano import Nano
from codec.nano.config import NanoConfig
from codec.nano.flow import FlowDecoder
from codec.nano.level import SPAN
from codec.nano.model import Autoencoder
from codec.nano.slow import ROUND
from training.augment import Augment, Draws
from training.dataset import fixed_batch, load_features
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

__all__ = ["EDGE", "HISTORY", "Chance", "Expected", "Residuals", "main"]

HELD = 12, 200
"""Excerpts and tokens of the validation set, which is always the same."""
HISTORY = Nano.decoder_window.context
"""Tokens before an excerpt that the token decoder remembers, as in a stream."""
STATISTICS = 6
"""Batches from which the residual's deviation is taken."""
EDGE = 8
"""Tokens at the end of an excerpt that are not scored: what follows them is cut off."""
SHIFT = SPAN // 2
"""Excerpts begin at multiples of so many tokens, as those of the codec's training."""
DROP_CONDITION = 0.1
PREFIX = 0.5
"""Share of excerpts that begin with known tokens, as a window of a stream does."""


class Expected(NamedTuple):
    """Features ``[batch, tokens, dims]``, what the decoder expects there, and its hidden state."""

    truth: Tensor
    features: Tensor
    hidden: Tensor


class Chance(NamedTuple):
    """What chance says of excerpts ``[batch, tokens]`` for the flow.

    Attributes:
        first: tokens of the stream before them.
        known: which are given, as a window of a stream has its first ones, bool.
        noise: ``[batch, tokens, dims]``.
        time: 0 to 1, ``[batch, 1]``.
        absent: which have no condition, bool ``[batch, 1, 1]``.
    """

    first: Tensor
    known: Tensor
    noise: Tensor
    time: Tensor
    absent: Tensor

    def rows(self, part: slice) -> Chance:
        """Those of a part of the batch."""
        return Chance(*(value[part] for value in self))


@dataclass(frozen=True)
class Residuals:
    """What a trained token decoder leaves over, and the flow's loss on it."""

    codec: Autoencoder

    def draw(self, size: int, tokens: int, generator: torch.Generator) -> Chance:
        """Draw them for ``size`` windows of ``tokens`` tokens."""
        place = generator.device

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, device=place)

        turns = 2 * ROUND // SHIFT
        first = torch.randint(turns, (size,), generator=generator, device=place) * SHIFT
        lengths = torch.randint(4, tokens // 2, (size, 1), generator=generator, device=place)
        known = (torch.arange(tokens, device=place) < lengths) & (uniform(size, 1) < PREFIX)
        dims = self.codec.config.feature_dims
        noise = torch.randn(size, tokens, dims, generator=generator, device=place)
        return Chance(first, known, noise, uniform(size, 1), uniform(size, 1, 1) < DROP_CONDITION)

    @torch.no_grad()
    def expect(self, batch: Tensor, first: Tensor) -> Expected:
        """Of a batch after :data:`HISTORY` tokens of its music, which are left out."""
        with half_precision(batch.device):
            expected, hidden = self.codec.decode(self.codec.encode(batch, first), first)
        rows = (batch, expected.float(), hidden.float())
        return Expected(*(x[:, HISTORY:] for x in rows))

    def normal(self, given: Expected) -> Tensor:
        """The residual over the features' deviation."""
        return (given.truth - given.features) / self.codec.normalizer.deviation

    def flow_loss(
        self, flow: FlowDecoder, given: Expected, chance: Chance, earliest: float = 0.0
    ) -> Tensor:
        """Flow matching's loss at random times from ``earliest`` on."""
        target = self.normal(given) / flow.deviation
        t = (earliest + (1 - earliest) * chance.time).expand(-1, target.shape[1])
        t = t.masked_fill(chance.known, 1.0)
        x = chance.noise + t.unsqueeze(-1) * (target - chance.noise)
        with half_precision(x.device):
            condition = torch.where(chance.absent, flow.absent, flow.condition(given.hidden))
            end = flow.from_condition(x, t, condition)
        weight = 1 / (1 - t).clamp_min(0.1) ** 2 * ~chance.known
        error = (end.float() - target).square().mean(dim=-1)
        weight, error = weight[:, :-EDGE], error[:, :-EDGE]
        return (error * weight).sum() / weight.sum()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
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
    parser.add_argument("--listen", type=Path, metavar="FOLDER", help="held-out music for samples")
    parser.add_argument(
        "--vocoder", type=weights_file, metavar="FILE", help="weights that render the samples"
    )
    add_options(parser, steps=3000, rate=1e-3, seed=3, cpu=(5, 240), card=(128, 240))
    args = parser.parse_args(argv)
    return run_program("train_flow", lambda: train_flow(args))


def train_flow(args: argparse.Namespace) -> None:
    """Stage 3, as the options ask."""
    generator = begin(args)
    device = generator.device
    config = NanoConfig()
    codec = Autoencoder(config)
    load_weights(codec, args.codec, "codec.")
    codec.to(device).eval().requires_grad_(False)
    music = load_features(args.features, device)
    augment = Augment(config).to(device)
    model = FlowDecoder(config).to(device)
    residuals = Residuals(codec)

    def draw(size: int, tokens: int) -> tuple[Tensor, Draws, Chance]:
        """Draw them for ``size`` windows of ``tokens`` tokens."""
        rows = music.batch(size, HISTORY + tokens, generator)
        return rows, augment.draw(size, generator), residuals.draw(size, tokens, generator)

    def expect(rows: Tensor, draws: Draws, chance: Chance) -> Expected:
        with torch.no_grad():
            return residuals.expect(augment(rows.float(), draws), chance.first)

    if args.init is None:
        found = [residuals.normal(expect(*draw(32, 48))).flatten(0, 1) for _ in range(STATISTICS)]
        model.deviation.copy_(torch.cat(found).std(dim=0).clamp_min(0.02))
    else:
        start_from(model, args.init, "flow.")

    def losses(rows: Tensor, draws: Draws, chance: Chance) -> dict[str, Tensor]:
        return {"total": residuals.flow_loss(model, expect(rows, draws, chance), chance)}

    held = fixed_batch(args.valid, HELD[0], HISTORY + HELD[1], device)
    seeded = torch.Generator(device).manual_seed(0)
    held_chance = residuals.draw(*HELD, seeded)

    @torch.inference_mode()
    def validate(averaged: nn.Module) -> dict[str, float]:
        assert isinstance(averaged, FlowDecoder)
        given = residuals.expect(held, held_chance.first)
        return {"total": float(residuals.flow_loss(averaged, given, held_chance))}

    listen = None
    if args.listen is not None:
        decode = listen_to_codec("flow", config, codec=args.codec, vocoder=args.vocoder)
        listen = Samples(args.out, excerpts(args.listen), decode)
    train(
        run_of(args),
        model,
        lambda: draw(args.batch, args.tokens),
        losses,
        validate,
        generator,
        listen,
    )


if __name__ == "__main__":
    sys.exit(main())
