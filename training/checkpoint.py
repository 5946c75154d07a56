"""What a training needs to resume exactly: weights, optimisers, random generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from codec.nano.torch_weights import load_models
from codec.nano.weights import read_weights
from streaming.errors import SettingsError

__all__ = ["Checkpoint", "Progress", "stored_weights", "warm_start"]


@dataclass
class Progress:
    """How far a training is, and what it has gathered for its next report.

    Attributes:
        seconds: since its program began, over all its parts.
        closing_s: what a report, samples and saving take together.
        slower: of the learning rate, by losses that were not finite.
    """

    step: int = 0
    seconds: float = 0.0
    closing_s: float = 0.0
    slower: float = 1.0
    complete: bool = False
    sums: dict[str, float] = field(default_factory=dict)
    counted: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """``state.pt`` and ``averaged.pt`` of a run, and all that goes into them."""

    folder: Path
    model: nn.Module
    averaged: AveragedModel
    optimizers: Sequence[torch.optim.Optimizer]
    generator: torch.Generator

    @property
    def file(self) -> Path:
        """Where the state is kept."""
        return self.folder / "state.pt"

    def load(self) -> Progress:
        """Take over the last saved state, if there is one; says how far it was.

        Raises:
            SettingsError: for a state that this training cannot go on from.
        """
        if not self.file.exists():
            return Progress()
        state = torch.load(self.file, weights_only=True, map_location="cpu")
        try:
            self.model.load_state_dict(state["model"])
            self.averaged.load_state_dict(state["averaged"])
            for optimizer, stored in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(stored)
            self.generator.set_state(state["generator"])
            return Progress(**state["progress"])
        except (LookupError, RuntimeError, TypeError, ValueError) as error:
            raise SettingsError(
                f"{self.folder} holds a training of another kind, version or device; go on with "
                "what it was begun with, or name another folder"
            ) from error

    def save(self, progress: Progress) -> None:
        """Write both files; an interruption leaves the old ones as they were."""
        state = {
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "generator": self.generator.get_state(),
            "progress": asdict(progress),
        }
        weights = {k: v.cpu() for k, v in self.averaged.module.state_dict().items()}
        # The averaged weights first: a run that counts as complete must have them.
        for content, file in ((weights, self.folder / "averaged.pt"), (state, self.file)):
            part = file.with_suffix(".part")
            torch.save(content, part)
            part.replace(file)


def warm_start(model: nn.Module, path: Path, prefix: str) -> tuple[int, int]:
    """Take over every tensor of another run that still fits; the rest keeps its fresh values.

    Args:
        path, prefix: as for :func:`stored_weights`.

    Returns:
        How many those were, and how many the model has.
    """
    known = stored_weights(path, prefix)
    own = model.state_dict()
    fitting = {name: v for name, v in known.items() if name in own and own[name].shape == v.shape}
    model.load_state_dict(fitting, strict=False)
    return len(fitting), len(own)


def stored_weights(path: Path, prefix: str) -> dict[str, Tensor]:
    """Weights of one model from ``averaged.pt`` of a run, or from an exported file.

    If the file holds other models as well, names begin with ``prefix``.
    Raises WeightsError.
    """
    if path.suffix == ".safetensors":
        stored = load_models(read_weights(path)).state_dict()
    else:
        stored = torch.load(path, weights_only=True, map_location="cpu")
    own = {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}
    return own or stored
