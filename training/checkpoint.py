"""What a training needs to go on exactly where it was: weights, optimiser, random generators."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

__all__ = ["Checkpoint", "Progress", "Randoms", "stored_weights", "warm_start"]

Randoms = Mapping[str, "torch.Generator | np.random.Generator"]
"""The generators that a training draws from, by name; all on the CPU, so that every device sees
the same music in the same order."""


@dataclass
class Progress:
    """How far a training is, and what it has gathered for its next report."""

    step: int = 0
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    counted: int = 0


def _states(randoms: Randoms) -> dict[str, Tensor | str]:
    states: dict[str, Tensor | str] = {"torch's own": torch.get_rng_state()}
    for name, random in randoms.items():
        if isinstance(random, torch.Generator):
            states[name] = random.get_state()
        else:
            states[name] = json.dumps(random.bit_generator.state)
    return states


def _restore(randoms: Randoms, states: Mapping[str, Tensor | str]) -> None:
    own = states.get("torch's own")
    if isinstance(own, Tensor):
        torch.set_rng_state(own)
    for name, random in randoms.items():
        state = states.get(name)
        if isinstance(random, torch.Generator) and isinstance(state, Tensor):
            random.set_state(state)
        elif isinstance(random, np.random.Generator) and isinstance(state, str):
            random.bit_generator.state = json.loads(state)


@dataclass(frozen=True)
class Checkpoint:
    """``state.pt`` and ``averaged.pt`` of a run, and all that goes into them."""

    folder: Path
    model: nn.Module
    averaged: AveragedModel
    optimizer: torch.optim.Optimizer
    randoms: Randoms

    @property
    def file(self) -> Path:
        return self.folder / "state.pt"

    def load(self) -> Progress:
        """Take over the last saved state, if there is one; says how far it was.

        A state from before random generators were part of it is read as well; such a run goes on
        with the music in another order.
        """
        if not self.file.exists():
            return Progress()
        state = torch.load(self.file, weights_only=True, map_location="cpu")
        self.model.load_state_dict(state["model"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        _restore(self.randoms, state.get("randoms", {}))
        return Progress(state["step"], **state.get("progress", {}))

    def save(self, progress: Progress) -> None:
        """Write both files; an interruption leaves the old ones as they were."""
        state = {
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": progress.step,
            "progress": {
                "seconds": progress.seconds,
                "sums": progress.sums,
                "counted": progress.counted,
            },
            "randoms": _states(self.randoms),
        }
        weights = {k: v.cpu() for k, v in self.averaged.module.state_dict().items()}
        # The averaged weights first: a run that counts as complete must have them.
        for content, file in ((weights, self.folder / "averaged.pt"), (state, self.file)):
            part = file.with_suffix(".part")
            torch.save(content, part)
            part.replace(file)


def warm_start(model: nn.Module, path: Path, prefix: str) -> tuple[int, int]:
    """Take over every tensor of another run that still fits; the rest keeps its fresh values.

    Returns how many those were, and how many the model has.
    path, prefix: as for :func:`stored_weights`.
    """
    known = stored_weights(path, prefix)
    own = model.state_dict()
    fitting = {name: v for name, v in known.items() if name in own and own[name].shape == v.shape}
    model.load_state_dict(fitting, strict=False)
    return len(fitting), len(own)


def stored_weights(path: Path, prefix: str) -> dict[str, Tensor]:
    """Weights of one model from ``averaged.pt`` of a run, or from an exported file.

    Where other models are in the file as well, names begin with ``prefix``.
    """
    if path.suffix == ".safetensors":
        stored = load_file(path)
    else:
        stored = torch.load(path, weights_only=True, map_location="cpu")
    own = {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}
    return own or stored
