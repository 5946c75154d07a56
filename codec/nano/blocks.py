"""The one building block of every nano model: a one-dimensional ConvNeXt block.

Liu et al., "A ConvNet for the 2020s", 2022; in one dimension as Vocos uses it (Siuzdak, 2023).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Block", "Stack"]


class Block(nn.Module):
    """Depthwise convolution over time, then a two-layer perceptron per frame, as a residual.

    ``reach`` = (left, right) taps, so the look-ahead is exact and finite.
    """

    def __init__(
        self, width: int, reach: tuple[int, int], expansion: int, dilation: int = 1
    ) -> None:
        super().__init__()
        self.padding = [side * dilation for side in reach]
        taps = sum(reach) + 1
        self.depthwise = nn.Conv1d(width, width, taps, groups=width, dilation=dilation)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, expansion * width)
        self.down = nn.Linear(expansion * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor, film: Tensor | None = None) -> Tensor:
        """From and to ``[batch, frames, width]``, zeros outside.

        Args:
            film: scale and shift, ``[batch, frames, 2 * width]``, if any.
        """
        y = self.norm(self.convolved(x))
        if film is not None:
            gain, shift = film.chunk(2, dim=-1)
            y = y * (1 + gain) + shift
        return x + self.scale * self.down(F.gelu(self.up(y)))

    def convolved(self, x: Tensor) -> Tensor:
        """Each channel over time, ``[batch, frames, width]`` as x."""
        if not torch.compiler.is_compiling():
            return self.depthwise(F.pad(x.transpose(1, 2), self.padding)).transpose(1, 2)
        # The same as a sum of shifts, which the compiler makes one pass of with what is around.
        padded = F.pad(x, (0, 0, *self.padding))
        weight, y = self.depthwise.weight[:, 0], self.depthwise.bias
        assert y is not None
        for tap in range(weight.shape[1]):
            shift = tap * self.depthwise.dilation[0]
            y = y + weight[:, tap] * padded[:, shift : shift + x.shape[1]]
        return y


class Stack(nn.Module):
    """Linear in, blocks, norm, linear out; ``[batch, frames, inputs]`` to ``[..., outputs]``."""

    def __init__(
        self,
        inputs: int,
        width: int,
        outputs: int,
        blocks: int,
        reach: tuple[int, int],
        expansion: int,
        memory: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.inward = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(Block(width, reach, expansion) for _ in range(blocks))
        # Dilated blocks that look back only: what stays the same for seconds is remembered.
        self.blocks.extend(Block(width, (3, 0), expansion, dilation) for dilation in memory)
        self.norm = nn.LayerNorm(width)
        self.outward = nn.Linear(width, outputs)

    def hidden(self, x: Tensor) -> Tensor:
        """The normalised hidden state before the last linear, ``[batch, frames, width]``."""
        x = self.inward(x)
        for block in self.blocks:
            x = block(x)
        hidden: Tensor = self.norm(x)
        return hidden

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, frames, inputs]`` to ``[batch, frames, outputs]``."""
        out: Tensor = self.outward(self.hidden(x))
        return out
