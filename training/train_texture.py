"""Stage 4: the flow in one evaluation, against critics that know what mels look like.

What a flow needs many evaluations for, it learns here to do in its first: from noise at t = 0
straight to a residual whose mels critics cannot tell from real ones (adversarial distillation,
Sauer et al., 2023). A part of each batch goes on with the flow's own loss at later times.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from codec.nano.codec import with_texture
from codec.nano.config import NanoConfig
from codec.nano.flow import FlowDecoder
from codec.nano.model import Autoencoder
from training.augment import Augment, Draws
from training.checkpoint import warm_start
from training.critic import Critics, critic_loss, generator_losses
from training.dataset import fixed_batch, load_features
from training.device import half_precision
from training.loop import train
from training.options import add_options, begin, load_weights, run_of, start_from, weights_file
from training.program import run_program
from training.samples import Samples, excerpts, listen_to_codec
from training.train_flow import EDGE, HISTORY, Chance, Expected, Residuals

__all__ = ["main", "rough"]

HELD = 12, 200
"""Excerpts and tokens of the validation set, which is always the same."""
WEIGHTS = {
    "near": 0.7,
    "fooled": 0.7,
    "unlike": 0.5,
    "critic": 1.0,
    "flow": 0.5,
    "rough": 0.8,
    "power": 0.4,
}
LATER = 0.2
"""Earliest time at which the flow's own loss still counts."""
_REGIONS = 8
"""Of the spectrum, each of which is to be as rough as the original."""


def power(real: Tensor, fake: Tensor, free: Tensor) -> Tensor:
    """Has each region its power? Mean |ln ratio| over the excerpt.

    An expected value of ln has the right mean and no peaks, and so too little power.

    Args:
        real, fake: ln mels relative to the level, ``[batch, frames, mels]``.
    """
    a, b = (
        ((2 * x).exp().unflatten(-1, (_REGIONS, -1)).mean(dim=-1) * free).sum(dim=1)
        for x in (fake, real)
    )
    least = 1e-6 * b.sum(dim=1, keepdim=True)  # so far down nobody hears it
    return ((a + least).log() - (b + least).log()).abs().mean()


class Texture(nn.Module):
    """What is trained: the flow, and the critics beside it."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        self.flow = FlowDecoder(config)
        self.critics = Critics(config.mels)


class Mels(NamedTuple):
    """Normalised mels relative to the level, ``[batch, frames, mels]``.

    Of the original, with the flow's residual and without it.

    Attributes:
        free: which frames count, 0 or 1, ``[batch, frames, 1]``: they were made, not given, and all
            that they need is there.
    """

    real: Tensor
    fake: Tensor
    expected: Tensor
    free: Tensor


def near(real: Tensor, fake: Tensor, free: Tensor) -> Tensor:
    """Mean |difference| over frames that count."""
    return ((real - fake).abs() * free).mean(dim=-1).sum() / free.sum()


def changes(mel: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
    """Mean change from frame to frame and from band to band, ``[batch, 8]`` regions each.

    Args:
        mel: ``[batch, frames, mels]``. Over frames that count.
    """
    both = free[:, 1:] * free[:, :-1]
    found = []
    for change, mask in (
        (mel.diff(dim=1), both),
        (nn.functional.pad(mel.diff(dim=2), (0, 1)), free),
    ):
        region = change.abs().unflatten(-1, (_REGIONS, -1)).mean(dim=-1)
        found.append((region * mask).sum(dim=1) / (mask.sum(dim=1) + 1))
    return found[0], found[1]


def rough(real: Tensor, fake: Tensor, free: Tensor) -> Tensor:
    """Is it as rough as the original? Mean |ln ratio| of :func:`changes`.

    Those from band to band, which critics mind less, count twice.
    """
    pairs = zip(changes(fake, free), changes(real, free), strict=True)
    in_time, across = (((a + 0.05).log() - (b + 0.05).log()).abs().mean() for a, b in pairs)
    return 0.75 * in_time + 1.5 * across


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.train_texture", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--features", type=Path, required=True, help="of the music, a folder")
    parser.add_argument("--valid", type=Path, required=True, help="features of held-out music")
    parser.add_argument("--codec", type=Path, required=True, help="averaged.pt of stage 1")
    parser.add_argument("--init", type=weights_file, metavar="FILE", help="flow to start from")
    parser.add_argument("--listen", type=Path, metavar="FOLDER", help="held-out music for samples")
    parser.add_argument(
        "--vocoder", type=weights_file, metavar="FILE", help="weights that render the samples"
    )
    add_options(parser, steps=3000, rate=5e-4, seed=4, cpu=(6, 128), card=(128, 112))
    args = parser.parse_args(argv)
    return run_program("train_texture", lambda: train_texture(args))


def train_texture(args: argparse.Namespace) -> None:
    """Stage 4, as the options ask."""
    generator = begin(args)
    device = generator.device
    config = NanoConfig()
    codec = Autoencoder(config)
    load_weights(codec, args.codec, "codec.")
    codec.to(device).eval().requires_grad_(False)
    music = load_features(args.features, device)
    augment = Augment(config).to(device)
    residuals = Residuals(codec)
    model = Texture(config).to(device)
    if args.init is not None:
        start_from(model.flow, args.init, "flow.")
        warm_start(model.critics, args.init, "critics.")  # if it is of this stage
    unit = codec.normalizer.deviation * model.flow.deviation

    def mels(features: Tensor, levels: Tensor) -> Tensor:
        normal = codec.normalizer(codec.shift(features, -levels))
        return normal[..., : config.mel_dims].unflatten(-1, (-1, config.mels)).flatten(1, 2)

    def spectrum(normal: Tensor) -> Tensor:
        """ln mels relative to the level, of normalised ones ``[batch, frames, mels]``."""
        frames = normal.unflatten(1, (-1, config.mel_frames)).flatten(2)
        scale = codec.normalizer
        frames = frames * scale.deviation[: config.mel_dims] + scale.mean[: config.mel_dims]
        return frames.unflatten(-1, (config.mel_frames, -1)).flatten(1, 2)

    def made(flow: FlowDecoder, given: Expected, chance: Chance) -> Mels:
        target = residuals.normal(given) / flow.deviation
        known = chance.known.unsqueeze(-1)
        x = torch.where(known, target, chance.noise)
        with half_precision(device):
            end = flow(x, chance.known.float(), given.hidden)
        end = torch.where(known, target, end.float())
        levels = codec.levels(given.features)
        real, fake = (with_texture(codec, given.features, y * unit) for y in (target, end))
        free = (~known).float()
        free = torch.cat([free[:, :-EDGE], torch.zeros_like(free[:, -EDGE:])], dim=1)
        free = free.repeat_interleave(config.mel_frames, dim=1)
        real, fake, expected = (mels(x, levels) for x in (real, fake, given.features))
        return Mels(real, fake, expected, free)

    def draw() -> tuple[Tensor, Draws, Chance]:
        rows = music.batch(args.batch, HISTORY + args.tokens, generator)
        chance = residuals.draw(args.batch, args.tokens, generator)
        return rows, augment.draw(args.batch, generator), chance

    first = slice(max(1, args.batch // 3))
    rest = slice(first.stop, None)
    """Rows for the flow's own loss, and for what it makes at once."""

    def losses(rows: Tensor, draws: Draws, chance: Chance) -> dict[str, Tensor]:
        with torch.no_grad():
            given = residuals.expect(augment(rows.float(), draws), chance.first)
        later = residuals.flow_loss(
            model.flow, Expected(*(x[first] for x in given)), chance.rows(first), LATER
        )
        real, fake, expected, free = made(
            model.flow, Expected(*(x[rest] for x in given)), chance.rows(rest)
        )
        critics = model.critics
        fixed = {name: value.detach() for name, value in critics.named_parameters()}
        with half_precision(device):
            seen = critics(real, expected)
            judged = critics(fake.detach(), expected)
            shown = functional_call(critics, fixed, (fake, expected))
        fooled, unlike = generator_losses(seen, shown)
        terms = {
            "near": near(real, fake, free),
            "fooled": fooled,
            "unlike": unlike,
            "critic": critic_loss(seen, judged),
            "flow": later,
            "rough": rough(real, fake, free),
            "power": power(spectrum(real), spectrum(fake), free),
        }
        terms["total"] = torch.stack([WEIGHTS[k] * v for k, v in terms.items()]).sum()
        return terms

    held = fixed_batch(args.valid, HELD[0], HISTORY + HELD[1], device)
    held_chance = residuals.draw(*HELD, torch.Generator(device).manual_seed(0))

    @torch.inference_mode()
    def validate(averaged: nn.Module) -> dict[str, float]:
        assert isinstance(averaged, Texture)
        given = residuals.expect(held, held_chance.first)
        real, fake, expected, free = made(averaged.flow, given, held_chance)
        pairs = zip(changes(fake, free), changes(real, free), strict=True)
        in_time, across = (float(a.mean() / b.mean()) for a, b in pairs)
        return {
            "near": float(near(real, fake, free)),
            "plain": float(near(real, expected, free)),
            "rough": float(rough(real, fake, free)),
            "power": float(power(spectrum(real), spectrum(fake), free)),
            "plain_power": float(power(spectrum(real), spectrum(expected), free)),
            "time": in_time,
            "bands": across,
            "flow": float(residuals.flow_loss(averaged.flow, given, held_chance, LATER)),
        }

    listen = None
    if args.listen is not None:
        decode = listen_to_codec("flow", config, codec=args.codec, vocoder=args.vocoder)

        def hear(both: nn.Module, audio: Tensor) -> Tensor:
            return decode(both.get_submodule("flow"), audio)

        listen = Samples(args.out, excerpts(args.listen), hear)
    train(run_of(args), model, draw, losses, validate, generator, listen)


if __name__ == "__main__":
    sys.exit(main())
