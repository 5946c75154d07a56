"""The codebooks of the level channel, fitted to the levels of training music."""

from __future__ import annotations

import torch
from torch import Tensor

from codec.nano.level import BASE, CHAIN, ENTRIES, distances, group_level

__all__ = ["level_codebooks"]

_ROUNDS = 12
_PASSES = 3
"""Differences are taken to what was decoded before, which depends on the codebook of differences:
it is fitted anew so many times."""
_QUIET = 0.02
"""Weight of silence beside that of music as loud as its piece is on average."""
_AT_ONCE = 8192
_FADED = 3.5
"""The same music is fitted as well when it is quieter, by as much in ln (30 dB) at most."""


def level_codebooks(pieces: Tensor, seed: int = 0) -> Tensor:
    """Weighted k-means over levels ``[pieces, tokens]`` in ln; the codebooks ``[2, 256, 4]``.

    tokens: a multiple of 16, beginning with a chain. A group counts by its magnitude, relative to
    its piece's, and more where the piece's level moves little: what is to be right in the end is
    the envelope of every piece. (Lloyd, "Least squares quantization in PCM", 1982.)
    """
    random = torch.Generator().manual_seed(seed)
    faded = _FADED * torch.rand(len(pieces), 1, generator=random).to(pieces.device)
    pieces = torch.cat([pieces, pieces - faded])
    magnitude = pieces.exp()
    loud = magnitude.square().mean(dim=1, keepdim=True).sqrt()
    moves = (magnitude.std(dim=1, keepdim=True) / (loud + 1e-9)).clamp_min(0.1)
    groups = pieces.unflatten(1, (-1, 4))
    weight = group_level(groups).squeeze(-1).exp() / (loud + 1e-9) / moves + _QUIET
    chains = groups.unflatten(1, (-1, CHAIN)).flatten(0, 1)
    weight = weight.unflatten(1, (-1, CHAIN)).flatten(0, 1)

    first, rest = chains[:, 0], chains[:, 1:].flatten(0, 1)
    absolute = _fit(first, first, weight[:, 0], None, random)
    relative, before = None, chains[:, :-1]
    for _ in range(_PASSES):
        wanted = rest - group_level(before).flatten(0, 1)
        relative = _fit(rest, wanted, weight[:, 1:].flatten(), relative, random)
        decoded = [absolute[_nearest(first, first, absolute)]]
        for index in range(1, CHAIN - 1):
            reference = group_level(decoded[-1])
            group = chains[:, index]
            decoded.append(relative[_nearest(group, group - reference, relative)] + reference)
        before = torch.stack(decoded, dim=1)
    assert relative is not None
    return torch.stack([_sorted(absolute), _sorted(relative)])


def _nearest(groups: Tensor, wanted: Tensor, book: Tensor) -> Tensor:
    parts = zip(groups.split(_AT_ONCE), wanted.split(_AT_ONCE), strict=True)
    return torch.cat([distances(a, b, book).argmin(dim=-1) for a, b in parts])


def _fit(
    groups: Tensor, wanted: Tensor, weight: Tensor, book: Tensor | None, random: torch.Generator
) -> Tensor:
    """One codebook ``[256, 4]``; entries that nothing is near to are drawn anew."""

    def drawn() -> Tensor:
        chosen = torch.multinomial(weight.cpu(), ENTRIES, generator=random)
        return wanted[chosen.to(wanted.device)]

    book = drawn() if book is None else book
    each = (groups - groups.amax(dim=1, keepdim=True)).exp() * weight.unsqueeze(1)
    for _ in range(_ROUNDS):
        nearest = _nearest(groups, wanted, book)
        total = torch.zeros_like(book).index_add_(0, nearest, each * wanted)
        count = torch.zeros_like(book).index_add_(0, nearest, each)
        used = count.sum(dim=1, keepdim=True) > 0
        book = torch.where(used, total / count.clamp_min(1e-9), drawn())
    return book


def _sorted(book: Tensor) -> Tensor:
    """By mean level and, within runs of 16, by rise: the leading digits of an index say most."""
    book = book[book.mean(dim=1).argsort()].unflatten(0, (-1, BASE * BASE))
    rise = (book[..., 2:].sum(dim=-1) - book[..., :2].sum(dim=-1)).argsort(dim=1)
    return book.gather(1, rise.unsqueeze(-1).expand_as(book)).flatten(0, 1)
