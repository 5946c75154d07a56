"""Stage 4: the flow in one evaluation, against a critic that knows what mels look like.

What a flow needs many evaluations for, it learns here to do in its first: from noise at t = 0
straight to a residual whose mels a critic cannot tell from real ones (adversarial distillation,
Sauer et al., 2023). A part of each batch goes on with the flow's own loss at later times.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call

from codec.nano.codec import with_texture
from codec.nano.config import NanoConfig
from codec.nano.flow import FlowDecoder
from codec.nano.model import Autoencoder
from training.augment import Augment
from training.checkpoint import Randoms, warm_start
from training.critic import Critic, critic_loss, generator_losses
from training.dataset import FeatureSet
from training.device import half_precision
from training.loop import train
from training.options import add_options, begin, load_weights, run_of, start_from, weights_file
from training.program import run_program
from training.samples import Samples, excerpts, listen_to_codec
from training.train_flow import EDGE, Residuals

__all__ = ["main"]

HELD = 12, 200
"""Excerpts and tokens of the validation set, which is always the same."""
WEIGHTS = {"near": 0.8, "fooled": 0.7, "unlike": 0.5, "critic": 1.0, "flow": 0.5}
LATER = 0.2
"""Earliest time at which the flow's own loss still counts."""


class Texture(nn.Module):
    """What is trained: the flow, and the critic beside it."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        self.flow = FlowDecoder(config)
        self.critic = Critic(config.mels)


def roughness(mel: Tensor) -> tuple[Tensor, Tensor]:
    """Mean change of log-mels ``[batch, frames, mels]`` from frame to frame and band to band."""
    return mel.diff(dim=1).abs().mean(), mel.diff(dim=2).abs().mean()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.train_texture", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--features", type=Path, required=True, help="of the music, a folder")
    parser.add_argument("--valid", type=Path, required=True, help="features of held-out music")
    parser.add_argument("--codec", type=Path, required=True, help="averaged.pt of stage 1")
    parser.add_argument("--init", type=weights_file, metavar="FILE", help="flow to start from")
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--listen", type=Path, metavar="FOLDER", help="held-out music for samples")
    parser.add_argument(
        "--vocoder", type=weights_file, metavar="FILE", help="weights that render the samples"
    )
    add_options(parser, steps=3000, rate=4e-4, seed=4)
    args = parser.parse_args(argv)
    return run_program("train_texture", lambda: train_texture(args))


def train_texture(args: argparse.Namespace) -> None:
    """Stage 4, as the options ask."""
    device = begin(args)
    config = NanoConfig()
    codec = Autoencoder(config)
    load_weights(codec, args.codec, "codec.")
    codec.to(device).eval().requires_grad_(False)
    music = FeatureSet(args.features, args.seed, device)
    held = FeatureSet(args.valid, 0, device).batch(*HELD)
    augment = Augment(config, args.seed, device)
    generator = torch.Generator().manual_seed(args.seed)
    residuals = Residuals(codec, device, generator)
    model = Texture(config).to(device)
    if args.init is not None:
        start_from(model.flow, args.init, "flow.")
        warm_start(model.critic, args.init, "critic.")  # where it is of this stage
    unit = codec.normalizer.deviation * model.flow.deviation

    def mels(features: Tensor, levels: Tensor) -> Tensor:
        """Normalised mels relative to a token's level, ``[batch, frames, mels]``."""
        normal = codec.normalizer(codec.shift(features, -levels))
        return normal[..., : config.mel_dims].unflatten(-1, (-1, config.mels)).flatten(1, 2)

    def made(flow: FlowDecoder, batch: Tensor, random: torch.Generator) -> tuple[Tensor, ...]:
        """Real, made and expected mels, and which frames were made rather than given."""
        expected, hidden = residuals(batch)
        target = (batch - expected) / unit
        known = residuals.known(len(batch), batch.shape[1], random).to(device)
        noise = torch.randn(target.shape, generator=random).to(device)
        x = torch.where(known.unsqueeze(-1), target, noise)
        with half_precision(device):
            end = flow(x, known.float(), hidden)
        end = torch.where(known.unsqueeze(-1), target, end.float())
        levels = codec.levels(expected)
        real, fake = (with_texture(codec, expected, y * unit) for y in (target, end))
        free = ~known
        free[:, -EDGE:] = False
        free = free.repeat_interleave(config.mel_frames, dim=1)
        return mels(real, levels), mels(fake, levels), mels(expected, levels), free

    def near(real: Tensor, fake: Tensor, free: Tensor) -> Tensor:
        error = (real - fake).abs().mean(dim=-1)
        return (error * free).sum() / free.sum()

    def losses(step: int) -> dict[str, Tensor]:
        batch = augment(music.batch(args.batch, args.tokens))
        rows = max(1, args.batch // 3)
        later = residuals.flow_loss(model.flow, batch[:rows], generator, LATER)
        real, fake, expected, free = made(model.flow, batch[rows:], generator)
        critic = model.critic
        fixed = {name: value.detach() for name, value in critic.named_parameters()}
        with half_precision(device):
            seen = critic(real, expected)
            judged = critic(fake.detach(), expected)
            shown = functional_call(critic, fixed, (fake, expected))
        fooled, unlike = generator_losses(seen, shown)
        terms = {
            "near": near(real, fake, free),
            "fooled": fooled,
            "unlike": unlike,
            "critic": critic_loss(seen, judged),
            "flow": later,
        }
        terms["total"] = sum((WEIGHTS[k] * v for k, v in terms.items()), fooled.new_zeros(()))
        return terms

    @torch.inference_mode()
    def validate(averaged: nn.Module) -> dict[str, float]:
        assert isinstance(averaged, Texture)
        random = torch.Generator().manual_seed(0)
        real, fake, expected, free = made(averaged.flow, held, random)
        in_time, across = (
            float(a / b) for a, b in zip(roughness(fake), roughness(real), strict=True)
        )
        plain = near(real, expected, free)
        return {
            "near": float(near(real, fake, free)),
            "plain": float(plain),
            "time": in_time,
            "bands": across,
            "flow": float(residuals.flow_loss(averaged.flow, held, random, LATER)),
        }

    listen = None
    if args.listen is not None:
        decode = listen_to_codec("flow", config, codec=args.codec, vocoder=args.vocoder)

        def hear(both: nn.Module, audio: Tensor) -> Tensor:
            return decode(both.get_submodule("flow"), audio)

        listen = Samples(args.out, excerpts(args.listen), hear)
    randoms: Randoms = {"music": music.random, "augment": augment.generator, "flow": generator}
    train(run_of(args), model, losses, validate, randoms, listen)


if __name__ == "__main__":
    sys.exit(main())
