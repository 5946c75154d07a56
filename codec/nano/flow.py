"""The flow-matching decoder: it restores the texture that the deterministic decoder averages away.

It models the normalised residual between a token's features and their expected value, in a path
from noise at t = 0 to data at t = 1 (Lipman et al., "Flow Matching for Generative Modeling", 2023;
rectified flow). The network predicts the end point, from which the velocity follows. Each token
has a time of its own: known (in-context) tokens stand at t = 1, so continuation is what it is
trained on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from codec.nano.blocks import Block
from codec.nano.config import NanoConfig
from codec.sampling import integrate

__all__ = ["FlowDecoder", "sample"]

_LAST_T = 0.98
"""Velocities divide by 1 - t; the end point is taken as it is beyond this."""


class FlowDecoder(nn.Module):
    """End-point predictor over residual patches ``[batch, tokens, feature_dims]``."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        width = config.flow_width
        self.inward = nn.Linear(config.feature_dims, width)
        self.condition = nn.Linear(config.decoder_width, width)
        self.time = nn.Sequential(nn.Linear(64, width), nn.SiLU())
        self.film = nn.ModuleList(
            nn.Linear(width, 2 * width) for _ in range(config.flow_blocks // 2)
        )
        self.blocks = nn.ModuleList(
            Block(width, config.flow_reach, config.expansion) for _ in range(config.flow_blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.outward = nn.Linear(width, config.feature_dims)
        nn.init.zeros_(self.outward.weight)
        nn.init.zeros_(self.outward.bias)
        self.absent = nn.Parameter(torch.zeros(width))
        self.register_buffer("deviation", torch.ones(config.feature_dims))
        rates = torch.exp(torch.linspace(0, math.log(1000), 32))
        self.register_buffer("rates", rates, persistent=False)

    deviation: Tensor
    rates: Tensor

    def forward(self, x: Tensor, t: Tensor, hidden: Tensor | None) -> Tensor:
        """The velocity, ``[batch, tokens, feature_dims]``.

        Args:
            x: residual over its deviation, noisy, ``[batch, tokens, feature_dims]``.
            t: ``[batch, tokens]`` in 0 ... 1.
            hidden: the decoder's ``[batch, tokens, width]``, or None for the unconditional half of
                guidance.
        """
        given = self.absent.expand(*x.shape[:2], -1) if hidden is None else self.condition(hidden)
        return self.from_condition(x, t, given)

    def from_condition(self, x: Tensor, t: Tensor, given: Tensor) -> Tensor:
        """The same from the condition's embedding ``[batch, tokens, width]``."""
        angles = t.unsqueeze(-1) * self.rates
        emb = self.time(torch.cat([angles.sin(), angles.cos()], dim=-1))
        y = self.inward(x) + given + emb
        for index, block in enumerate(self.blocks):
            # Scale and shift by time and condition in every other block.
            film = self.film[index // 2](emb + given) if index % 2 == 0 else None
            y = block(y, film)
        out: Tensor = self.outward(self.norm(y))
        return out


@torch.inference_mode()
def sample(
    flow: FlowDecoder,
    hidden: Tensor,
    noise: Tensor,
    context: Tensor | None,
    *,
    guidance: float,
    times: Sequence[float],
    solver: str = "euler",
) -> Tensor:
    """A residual from ``noise``, both ``[tokens, feature_dims]`` (over its deviation).

    Args:
        context: residuals of the first tokens, kept as they are.
        guidance: 1 takes one evaluation of the network each time, any other scale two.
    """
    given = hidden.unsqueeze(0)
    known = 0 if context is None else context.shape[0]

    def velocity(x: Tensor, now: float) -> Tensor:
        t = torch.full(x.shape[:2], now).where(torch.arange(x.shape[1]) >= known, 1.0)
        x = put_back(x, now)
        end = flow(x, t, given)
        if guidance != 1.0:
            free = flow(x, t, None)
            end = free + guidance * (end - free)
        return (end - x) / max(1 - now, 1 - _LAST_T)

    def put_back(x: Tensor, now: float) -> Tensor:
        return x if context is None else torch.cat([context.unsqueeze(0), x[:, known:]], dim=1)

    return put_back(integrate(velocity, noise.unsqueeze(0), times, solver), 1.0)[0]
