"""The optimisers: Muon for the blocks' matrices, AdamW for everything else."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from codec.nano.blocks import Block
from training.device import has_bfloat16

__all__ = ["Muon", "optimizers_of"]

_DECAY = 0.05
_NEWTON_SCHULZ = 3.4445, -4.7750, 2.0315


class Muon(torch.optim.Optimizer):
    """Momentum, brought to an orthogonal matrix (Jordan et al., "Muon", 2024).

    All matrices of one shape at once: torch's own Muon takes one after the other, which for some
    dozens of small ones is mostly waiting. Steps are as large as Adam's (Liu et al., "Muon is
    Scalable for LLM Training", 2025), so both share a learning rate.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, rounds: int = 5
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "rounds": rounds})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every parameter by its gradient."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    alike[matrix.shape].append(matrix)
            for shape, matrices in alike.items():
                self._step(shape, matrices, group)

    def _step(self, shape: torch.Size, matrices: list[Tensor], group: dict[str, Any]) -> None:
        for matrix in matrices:
            if "momentum" not in self.state[matrix]:
                self.state[matrix]["momentum"] = torch.zeros_like(matrix)
        momenta = [self.state[matrix]["momentum"] for matrix in matrices]
        grads = [matrix.grad for matrix in matrices if matrix.grad is not None]
        torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
        ahead = torch._foreach_lerp(grads, momenta, group["momentum"])  # Nesterov's
        size = 0.2 * math.sqrt(max(shape))
        changes = orthogonal(torch.stack(ahead), group["rounds"]).unbind(0)
        torch._foreach_mul_(matrices, 1 - group["lr"] * _DECAY)
        torch._foreach_add_(matrices, changes, alpha=-group["lr"] * size)


def orthogonal(x: Tensor, rounds: int) -> Tensor:
    """About the nearest orthogonal matrices, ``[n, rows, columns]``, by Newton–Schulz iteration."""
    tall = x.shape[1] > x.shape[2]
    y = (x.mT if tall else x).to(torch.bfloat16 if has_bfloat16(x.device) else torch.float32)
    y = y / (y.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = _NEWTON_SCHULZ
    for _ in range(rounds):
        square = y @ y.mT
        y = a * y + (b * square + c * square @ square) @ y
    return (y.mT if tall else y).to(x.dtype)


def optimizers_of(model: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """What trains a model; all of them take the same learning rate."""
    hidden = [
        matrix
        for module in model.modules()
        if isinstance(module, Block)
        for matrix in (module.up.weight, module.down.weight)
        if matrix.requires_grad
    ]
    chosen = set(hidden)
    rest = [p for p in model.parameters() if p.requires_grad and p not in chosen]
    adam = torch.optim.AdamW(
        [
            {"params": [p for p in rest if p.ndim > 1], "weight_decay": _DECAY},
            {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=rate,
        betas=(0.9, 0.98),
        fused=True,
    )
    return [Muon(hidden, rate), adam] if hidden else [adam]
