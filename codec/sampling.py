"""Solvers of the flow's differential equation, shared by all codecs.

A flow-matching decoder moves latents from noise at t = 0 to music at t = 1 along a velocity that
its network predicts (Lipman et al., "Flow Matching for Generative Modeling", 2023). Importable
without torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    Velocity = Callable[[Tensor, float], Tensor]

__all__ = ["SOLVERS", "integrate", "time_grid"]


def time_grid(steps: int, warp: float = 1.0) -> list[float]:
    """Times from 0 to 1 in ``steps`` steps: ``(i / steps) ** warp``.

    warp 1 is uniform; above 1 the steps near noise are the small ones, below 1 those near music.
    """
    return [(step / steps) ** warp for step in range(steps + 1)]


def _euler(velocity: Velocity, x: Tensor, now: float, then: float) -> Tensor:
    return x + (then - now) * velocity(x, now)


def _midpoint(velocity: Velocity, x: Tensor, now: float, then: float) -> Tensor:
    middle = x + (then - now) / 2 * velocity(x, now)
    return x + (then - now) * velocity(middle, (now + then) / 2)


def _heun(velocity: Velocity, x: Tensor, now: float, then: float) -> Tensor:
    first = velocity(x, now)
    second = velocity(x + (then - now) * first, then)
    return x + (then - now) / 2 * (first + second)


SOLVERS = {"euler": _euler, "midpoint": _midpoint, "heun": _heun}
"""Solvers by name. A step takes one evaluation of the velocity with Euler's method, two with the
explicit midpoint and Heun's."""


def integrate(
    velocity: Velocity,
    x: Tensor,
    times: Sequence[float],
    solver: str = "euler",
    prepare: Callable[[Tensor, float], Tensor] | None = None,
) -> Tensor:
    """Latents at the last of ``times`` from those at the first.

    Args:
        velocity: by latents and time.
        x: latents at the first time.
        prepare: applied to the latents before each step, to put in-context ones where they belong.
    """
    advance = SOLVERS[solver]
    for now, then in itertools.pairwise(times):
        if prepare is not None:
            x = prepare(x, now)
        x = advance(velocity, x, now, then)
    return x
