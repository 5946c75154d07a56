"""The codebook of the level channel, fitted to the levels of training music."""

from __future__ import annotations

import torch
from torch import Tensor

from codec.nano.level import BASE, ENTRIES

__all__ = ["level_codebook"]

_ROUNDS = 40
_LOUDNESS = 0.4
"""Exponent of the magnitude by which a group counts: errors in loud music are heard more."""


def level_codebook(groups: Tensor, seed: int = 0) -> Tensor:
    """k-means over levels ``[n, 4]`` in ln; returns the codebook ``[256, 4]``, sorted.

    Sorted by mean level and, within runs of 16, by rise, so that the leading digits of an index
    say most (Lloyd, "Least squares quantization in PCM", 1982).
    """
    random, device = torch.Generator().manual_seed(seed), groups.device
    weight = torch.exp(_LOUDNESS * groups.mean(dim=1))
    first = torch.randperm(len(groups), generator=random)[:ENTRIES]
    book = groups[first.to(device)].clone()
    for _ in range(_ROUNDS):
        nearest = torch.cdist(groups, book).argmin(dim=1)
        total = torch.zeros_like(book).index_add_(0, nearest, groups * weight.unsqueeze(1))
        count = torch.zeros(ENTRIES, device=device).index_add_(0, nearest, weight)
        fresh = groups[torch.randint(len(groups), (ENTRIES,), generator=random).to(device)]
        used = (count > 0).unsqueeze(1)
        book = torch.where(used, total / count.clamp_min(1e-9).unsqueeze(1), fresh)
    book = book[book.mean(dim=1).argsort()].unflatten(0, (-1, BASE * BASE))
    rise = (book[..., 2:].sum(dim=-1) - book[..., :2].sum(dim=-1)).argsort(dim=1)
    return book.gather(1, rise.unsqueeze(-1).expand_as(book)).flatten(0, 1)
