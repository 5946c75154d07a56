"""What the command lines of the training stages have in common."""

from __future__ import annotations

import argparse
import math
import pickle
import time
from pathlib import Path

import torch
from torch import nn

from codec.errors import WeightsError
from codec.nano.weights import BUNDLED
from streaming.errors import SettingsError
from training.checkpoint import stored_weights, warm_start
from training.device import pick_device
from training.loop import Run
from training.report import need_tensorboard

__all__ = ["add_options", "begin", "load_weights", "run_of", "start_from", "weights_file"]

SHORTEST = 24
"""Tokens of the shortest excerpt of which something is left within its edges."""


def weights_file(text: str) -> Path:
    """A file of weights; ``bundled`` are those that come with the program."""
    return BUNDLED if text == "bundled" else Path(text)


Size = tuple[int, int]
"""Excerpts of a batch and tokens of each."""


def add_options(
    parser: argparse.ArgumentParser, *, steps: int, rate: float, seed: int, cpu: Size, card: Size
) -> None:
    """Options that every stage has; the arguments are this stage's defaults.

    Args:
        cpu, card: batch and tokens on a processor and on a graphics card.
    """
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, default=steps, help="of the optimiser (%(default)s)")
    length.add_argument(
        "--minutes", type=float, help="instead: by the clock, all that the program does included"
    )
    for name, what, index in (("batch", "excerpts at once", 0), ("tokens", "of an excerpt", 1)):
        text = f"{what} ({cpu[index]}; on a graphics card {card[index]})"
        parser.add_argument(f"--{name}", type=int, help=text)
    parser.set_defaults(sizes={"cpu": cpu, "cuda": card})
    parser.add_argument("--rate", type=float, default=rate, help="learning rate (%(default)s)")
    parser.add_argument("--seed", type=int, default=seed)
    parser.add_argument("--threads", type=int, default=2, help="on a CPU (%(default)s)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="compile the whole step, which takes a while at the start (on a graphics card)",
    )
    parser.add_argument(
        "--average",
        type=float,
        default=Run.average,
        help="decay of the averaged weights, a step, at most (%(default)s)",
    )
    parser.add_argument("--save-every", type=int, default=Run.save, metavar="STEPS")
    parser.add_argument("--report-every", type=int, default=Run.report, metavar="STEPS")
    parser.add_argument(
        "--sample-every",
        type=int,
        default=1000,
        metavar="STEPS",
        help="write sound and spectrograms to OUT/samples (%(default)s; 0: never)",
    )
    parser.add_argument("--tensorboard", action="store_true", help="log for TensorBoard as well")


def begin(args: argparse.Namespace) -> torch.Generator:
    """Threads, device and seed of a stage, and the clock of its run.

    Returns:
        The generator that everything is drawn with, on the device. Fills in batch, tokens and
        compile if they are not given.

    Raises:
        SettingsError: if the options make no sense.
    """
    args.began = time.monotonic()
    device = pick_device(args.device)
    batch, tokens = args.sizes[device.type]
    args.batch = batch if args.batch is None else args.batch
    args.tokens = tokens if args.tokens is None else args.tokens
    args.compile = device.type == "cuda" if args.compile is None else args.compile
    for name in ("steps", "threads", "save_every", "report_every", "batch"):
        if getattr(args, name) < 1:
            raise SettingsError(f"--{name.replace('_', '-')} must be at least 1")
    if args.tokens < SHORTEST:
        raise SettingsError(f"--tokens must be at least {SHORTEST}")
    if args.minutes is not None and not 0 < args.minutes < math.inf:
        raise SettingsError("--minutes must be more than 0")
    if args.tensorboard:
        need_tensorboard()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    return torch.Generator(device).manual_seed(args.seed)


def run_of(args: argparse.Namespace) -> Run:
    """The run that the options ask for."""
    return Run(
        args.out,
        args.steps,
        args.rate,
        args.minutes,
        args.began,
        average=args.average,
        report=args.report_every,
        save=args.save_every,
        sample=args.sample_every,
        compiled=args.compile,
        tensorboard=args.tensorboard,
    )


def load_weights(model: nn.Module, path: Path, prefix: str) -> None:
    """Load all of a model's weights from ``averaged.pt`` of an earlier stage or an exported file.

    Args:
        prefix: of their names, if the file holds other models as well.

    Raises:
        SettingsError: if the file is missing or another model's.
    """
    try:
        model.load_state_dict(stored_weights(path, prefix))
    except (OSError, RuntimeError, WeightsError, pickle.UnpicklingError) as error:
        raise SettingsError(
            f"{path} does not hold the weights of this stage's {type(model).__name__}; "
            "train the stage before it first"
        ) from error


def start_from(model: nn.Module, path: Path, prefix: str) -> None:
    """Warm start, and say how much of it fitted; SettingsError if nothing does."""
    if not path.is_file():
        raise SettingsError(f"there are no weights to start from: {path} does not exist")
    taken, own = warm_start(model, path, prefix)
    if not taken or (path == BUNDLED and taken < own):
        raise SettingsError(
            f"{path} holds the weights of another model: {taken} of {own} tensors fit"
        )
    print(f"starting from {taken} of {own} tensors of {path}")
