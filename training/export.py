"""Stage 4: put the three stages' averaged weights into the one file that the program loads."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch

from codec.nano.codec import NanoModels, save_nano
from codec.nano.config import NanoConfig

__all__ = ["main"]


@torch.no_grad()
def raise_level(models: NanoModels, gain_db: float) -> None:
    """Add a gain to the expected mels and semitones, in the last layer's bias."""
    codec = models.codec
    levels = codec.config.mel_dims + codec.config.semitone_dims
    shift = gain_db * math.log(10) / 20 / codec.normalizer.deviation[:levels]
    codec.decoder.stack.outward.bias[:levels] += shift


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--codec", type=Path, required=True, help="averaged.pt of train_codec")
    parser.add_argument("--flow", type=Path, help="averaged.pt of train_flow")
    parser.add_argument("--vocoder", type=Path, help="averaged.pt of train_vocoder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", default="nano-2")
    parser.add_argument(
        "--gain-db",
        type=float,
        default=0.0,
        help="raise what the decoder expects: a median of logarithms lies below the mean level",
    )
    args = parser.parse_args(argv)
    models = NanoModels(NanoConfig())
    parts = {"codec": args.codec, "flow": args.flow, "vocoder": args.vocoder}
    for name, path in parts.items():
        if path is not None:
            models.get_submodule(name).load_state_dict(torch.load(path, weights_only=True))
    raise_level(models, args.gain_db)
    card = {
        "name": args.name,
        "data": "procedural music of training/, rendered with FluidSynth; no recordings",
        "license": "MIT",
        "limits": "words of songs are not kept; see docs/nano.md",
    }
    digest = save_nano(models, args.out, card)
    print(f"{digest}  {args.out}  {args.out.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
