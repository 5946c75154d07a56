"""The last stage: put the trainings' averaged weights into the one file that the program loads.

Beside it comes its model card, a page of the same name; the same is in the file as JSON.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

import streaming
from codec.constants import SAMPLE_RATE
from codec.nano.codec import NanoModels, TorchNano
from codec.nano.config import NanoConfig
from codec.nano.torch_weights import save_nano
from codec.nano.weights import BUNDLED
from streaming.errors import SettingsError
from training.card import (
    BUNDLED_LICENSE,
    LIMITS,
    OWN_DATA,
    ModelCard,
    read_figures,
    steps_of,
)
from training.options import load_weights, weights_file
from training.program import run_program
from training.rounding import rounded
from training.works import WorkList

__all__ = ["export", "main"]

DEMO_TRACK = Path(streaming.__file__).parent / "data" / "demo.ogg"
PITCHES = (0.7, 1.5)


def export(args: argparse.Namespace) -> None:
    """Write the weights and their card, as the options ask."""
    if args.out.suffix != ".safetensors":
        raise SettingsError(f"--out must be named ….safetensors, not {args.out.name}")
    models = NanoModels(NanoConfig())
    steps = {}
    for name in ("codec", "flow", "vocoder"):
        path: Path | None = getattr(args, name)
        if path is not None:
            load_weights(models.get_submodule(name), path, f"{name}.")
            if (count := steps_of(path.parent)) is not None:
                steps[name] = count
    card = ModelCard(
        name=args.name or args.out.stem,
        data=args.data,
        license=args.license or (BUNDLED_LICENSE if args.vocoder == BUNDLED else "MIT"),
        command=args.command,
        limits=args.limits,
        steps=steps,
        figures={} if args.figures is None else read_figures(args.figures),
        works=tuple(work for path in args.works for work in WorkList.read(path).works),
    )
    try:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        digest = save_nano(models, args.out, card.strings(), _rounded(models))
        page = args.out.with_suffix(".md")
        page.write_text(card.markdown(args.out, digest))
    except OSError as error:
        raise SettingsError(f"{args.out} cannot be written: {error.strerror}") from error
    print(f"{digest}  {args.out}  {args.out.stat().st_size / 2**20:.1f} MiB, and {page.name}")


def _rounded(models: NanoModels) -> dict[str, NDArray[np.int8]]:
    """The token decoder's matrices rounded on the demonstration track, at several pitches."""
    track, _ = soundfile.read(DEMO_TRACK, dtype="float32", always_2d=True)
    nano = TorchNano(models, "to be rounded", "")
    variants = [track] + [
        soxr.resample(track, SAMPLE_RATE, round(SAMPLE_RATE * r)) for r in PITCHES
    ]
    return rounded(models, [nano.sound2code(variant.T) for variant in variants])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.export", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--codec", type=Path, required=True, help="averaged.pt of train_codec")
    parser.add_argument("--flow", type=Path, help="averaged.pt of train_flow or train_texture")
    parser.add_argument(
        "--vocoder", type=weights_file, help="averaged.pt of train_vocoder, or `bundled`"
    )
    parser.add_argument("--out", type=Path, required=True, help="the file, ….safetensors")
    card = parser.add_argument_group("what the model card says")
    card.add_argument("--name", help="of the weights (default: the file's)")
    card.add_argument("--data", default=OWN_DATA, help="what was trained on")
    card.add_argument(
        "--license", help=f"(default: MIT; with parts of the bundled weights {BUNDLED_LICENSE})"
    )
    card.add_argument("--command", default="make train", help="what makes these weights")
    card.add_argument("--limits", default=LIMITS)
    card.add_argument(
        "--figures", type=Path, metavar="FILE", help="JSON of python -m benchmarks.quality --json"
    )
    card.add_argument(
        "--works",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="works.json of training.collect_free, to credit the authors; may be given again",
    )
    args = parser.parse_args(argv)
    return run_program("export", lambda: export(args))


if __name__ == "__main__":
    sys.exit(main())
