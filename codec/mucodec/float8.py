"""Matrix products in eight bits (e4m3), at twice the rate of sixteen on the GPUs that have them.

Every row of the input and every row of the weights has a scale of its own, so that one large value
costs the others no bits. Products are added up at higher precision and come out as bfloat16.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Float8Product", "has_float8"]

_MOST = 448.0
"""Largest number of e4m3."""


def has_float8(device: torch.device) -> bool:
    """Whether a device computes it; a CPU does so step by step, rounding as a GPU would."""
    return device.type == "cpu" or torch.cuda.get_device_capability(device) >= (8, 9)


def _round(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows ``[n, k]`` in eight bits, and what each is to be multiplied by, ``[n, 1]``."""
    x = x.float()
    scale = x.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / _MOST
    return (x / scale).clamp(-_MOST, _MOST).to(torch.float8_e4m3fn), scale


class Float8Product(nn.Module):
    """A linear layer's product in eight bits: any float type in, bfloat16 out."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = _round(linear.weight.detach())
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("bias", linear.bias.detach().to(torch.bfloat16), persistent=False)

    weight: Tensor
    scale: Tensor
    bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in]`` of any float type to bfloat16 ``[..., out]``."""
        rows, scale = _round(x.flatten(0, -2))
        if rows.is_cuda:
            y: Tensor = torch._scaled_mm(
                rows,
                self.weight.t(),
                scale,
                self.scale.t(),
                out_dtype=torch.bfloat16,
                use_fast_accum=True,
            )
        else:
            y = rows.float() @ self.weight.float().t()
            y = (y * scale * self.scale.t()).to(torch.bfloat16)
        return (y + self.bias).unflatten(0, x.shape[:-1])
