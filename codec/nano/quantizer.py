"""Finite scalar quantisation (Mentzer et al., 2023): 8 * 8 * 8 * 8 = 2 ** 12 codes.

A batch norm without affine part keeps every value spread over its range, and the sigmoid makes that
spread nearly uniform: the codebook cannot collapse.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["FiniteScalarQuantizer"]


class FiniteScalarQuantizer(nn.Module):
    """``[..., dims]`` real values to codes and back."""

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.levels = levels
        self.norm = nn.BatchNorm1d(len(levels), affine=False, momentum=0.02)
        self.register_buffer("sizes", torch.tensor(levels), persistent=False)
        strides = torch.tensor([1, *levels[:-1]]).cumprod(0)
        self.register_buffer("strides", strides, persistent=False)

    sizes: Tensor
    strides: Tensor

    def indices(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Level per dimension, int64 ``[..., dims]``, and the value in (0, 1) it came from."""
        unit = torch.sigmoid(1.7 * self._normed(x))
        level = torch.minimum((unit * self.sizes).floor().long(), self.sizes - 1)
        return level, unit

    def _normed(self, x: Tensor) -> Tensor:
        norm, shape = self.norm, x.shape
        if self.training:
            normed: Tensor = norm(x.reshape(-1, shape[-1])).reshape(shape)
            return normed
        assert norm.running_mean is not None
        assert norm.running_var is not None
        # Written out, since graphs of free lengths take no batch norm.
        return (x - norm.running_mean) * torch.rsqrt(norm.running_var + norm.eps)

    def encode(self, x: Tensor) -> Tensor:
        """Codes 0 ... 4095, int64 ``[...]``."""
        level, _ = self.indices(x)
        return (level * self.strides).sum(dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes ``[...]`` to values in (-1, 1), float32 ``[..., dims]``."""
        level = codes.unsqueeze(-1) // self.strides % self.sizes
        return (level + 0.5) / self.sizes * 2 - 1

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Training: quantised values with a straight-through gradient, codes, and values in (0, 1).

        The last are the ones that were rounded.
        """
        level, unit = self.indices(x)
        hard = (level + 0.5) / self.sizes * 2 - 1
        soft = unit * 2 - 1
        return soft + (hard - soft).detach(), (level * self.strides).sum(dim=-1), unit
