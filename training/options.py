"""What the command lines of the training stages have in common."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn

from codec.nano.weights import BUNDLED
from streaming.errors import SettingsError
from training.checkpoint import stored_weights, warm_start
from training.device import pick_device
from training.loop import Run
from training.report import need_tensorboard

__all__ = ["add_options", "begin", "load_weights", "run_of", "start_from", "weights_file"]


def weights_file(text: str) -> Path:
    """A file of weights; ``bundled`` are those that come with the program."""
    return BUNDLED if text == "bundled" else Path(text)


def add_options(parser: argparse.ArgumentParser, *, steps: int, rate: float, seed: int) -> None:
    """Options that every stage has; the arguments are this stage's defaults."""
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument("--steps", type=int, default=steps, help="of the optimiser (%(default)s)")
    parser.add_argument("--rate", type=float, default=rate, help="learning rate (%(default)s)")
    parser.add_argument("--seed", type=int, default=seed)
    parser.add_argument("--threads", type=int, default=2, help="on a CPU (%(default)s)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument(
        "--compile", action="store_true", help="compile the models' blocks (slow to start)"
    )
    parser.add_argument(
        "--average",
        type=float,
        default=Run.average,
        help="decay of the averaged weights, a step (%(default)s)",
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


def begin(args: argparse.Namespace) -> torch.device:
    """Threads, seed and device of a stage; SettingsError where the options make no sense."""
    for name in ("steps", "threads", "save_every", "report_every"):
        if getattr(args, name) < 1:
            raise SettingsError(f"--{name.replace('_', '-')} must be at least 1")
    if args.tensorboard:
        need_tensorboard()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    return pick_device(args.device)


def run_of(args: argparse.Namespace) -> Run:
    """The run that the options ask for."""
    return Run(
        args.out,
        args.steps,
        args.rate,
        average=args.average,
        report=args.report_every,
        save=args.save_every,
        sample=args.sample_every,
        compiled=args.compile,
        tensorboard=args.tensorboard,
    )


def load_weights(model: nn.Module, path: Path, prefix: str) -> None:
    """Load all of a model's weights from ``averaged.pt`` of an earlier stage or an exported file.

    prefix: of their names where the file holds other models as well.
    Raises SettingsError where the file is missing or another model's.
    """
    try:
        model.load_state_dict(stored_weights(path, prefix))
    except (OSError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        raise SettingsError(
            f"{path} does not hold the weights of this stage's {type(model).__name__}; "
            "train the stage before it first"
        ) from error


def start_from(model: nn.Module, path: Path, prefix: str) -> None:
    """Warm start, and say how much of it fitted; SettingsError where nothing does."""
    if not path.is_file():
        raise SettingsError(f"there are no weights to start from: {path} does not exist")
    taken, own = warm_start(model, path, prefix)
    if not taken or (path == BUNDLED and taken < own):
        raise SettingsError(
            f"{path} holds the weights of another model: {taken} of {own} tensors fit"
        )
    print(f"starting from {taken} of {own} tensors of {path}")
