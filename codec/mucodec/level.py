"""Levels as the published model was trained with: peaks are limited, never raised."""

from __future__ import annotations

from torch import Tensor

__all__ = ["limit_peak"]


def limit_peak(audio: Tensor, peak: float) -> Tensor:
    """Scale each row of ``[..., samples]`` whose peak lies above ``peak`` down to it."""
    highest = audio.abs().amax(dim=-1, keepdim=True)
    return audio * (peak / highest.clamp_min(peak))
