"""Stage 3: the flow-matching decoder on the residual that the deterministic decoder leaves."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from codec.nano.config import NanoConfig
from codec.nano.flow import FlowDecoder
from codec.nano.model import Autoencoder
from codec.nano.slow import ROUND
from training.augment import Augment
from training.dataset import FeatureSet
from training.loop import Run, half_precision, train, warm_start

__all__ = ["main"]

EDGE = 8
DROP_CONDITION = 0.1
PREFIX = 0.5
"""Share of excerpts that begin with known tokens, as a window of a stream does."""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--valid", type=Path, required=True)
    parser.add_argument("--codec", type=Path, required=True, help="averaged.pt of stage 1")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--init", type=Path, help="start from these weights")
    parser.add_argument("--batch", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=240)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    config = NanoConfig()
    codec = Autoencoder(config)
    codec.load_state_dict(torch.load(args.codec, weights_only=True))
    codec.eval().requires_grad_(False)
    music = FeatureSet(args.features, args.seed)
    held = FeatureSet(args.valid, 0).batch(12, 200)
    augment = Augment(config, args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    model = FlowDecoder(config)

    @torch.no_grad()
    def residual(batch: Tensor) -> tuple[Tensor, Tensor]:
        """Residual features ``[batch, tokens, dims]`` and the decoder's hidden state."""
        with half_precision():
            places = torch.randint(0, ROUND, (len(batch),), generator=generator)
            expected, hidden = codec.decode(codec.encode(batch, places), places)
        return (batch - expected) / codec.normalizer.deviation, hidden.float()

    sample = torch.cat([residual(augment(music.batch(32, 48)))[0].flatten(0, 1) for _ in range(6)])
    if args.init is not None:
        print("starting from", warm_start(model, args.init, "flow."))
    model.deviation.copy_(sample.std(dim=0).clamp_min(0.02))

    def objective(flow: nn.Module, batch: Tensor, random: torch.Generator) -> Tensor:
        assert isinstance(flow, FlowDecoder)
        target, hidden = residual(batch)
        target = target / flow.deviation
        size, tokens = target.shape[:2]
        t = torch.rand(size, 1, generator=random).expand(-1, tokens).clone()
        lengths = torch.randint(4, tokens // 2, (size, 1), generator=random)
        given = torch.rand(size, 1, generator=random) < PREFIX
        known = (torch.arange(tokens) < lengths) & given
        t[known] = 1.0
        noise = torch.randn(target.shape, generator=random)
        x = noise + t.unsqueeze(-1) * (target - noise)
        absent = torch.rand(size, generator=random) < DROP_CONDITION
        with half_precision():
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

    train(Run(args.out, args.steps, args.rate), model, losses, validate)


if __name__ == "__main__":
    main()
