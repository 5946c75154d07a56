"""The level channel: two of a token's 14 bits say how loud it is.

The ear notices wrong loudness first, and a network trained on other music gets it wrong, so it is
not learnt but sent: the levels of four tokens in a row are one of 256 entries of a codebook,
whose index stands in their four pairs of bits. Four groups in a row are a chain, at absolute
multiples of 16 tokens: the first says how loud it is, each other one how it differs from the one
before, from a codebook of its own. So steady music gets fine steps at any level, and a listener
that joined late or lost tokens knows the level again after at most 0.64 s. Everything else about a
token is described relative to its level, so quiet music is treated like loud music.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from codec.nano.dsp import mel_centres

__all__ = [
    "BASE",
    "CHAIN",
    "ENTRIES",
    "GROUP",
    "SPAN",
    "LevelChannel",
    "distances",
    "group_level",
    "mel_level",
    "mel_widths",
]

GROUP = 4
"""Tokens that share one entry of a codebook."""
CHAIN = 4
"""Groups of which each follows from the one before; the first stands for itself."""
SPAN = GROUP * CHAIN
BASE = 4
"""Values of a level digit: two bits."""
ENTRIES = BASE**GROUP


def mel_widths(mels: int) -> Tensor:
    """Bandwidths of the mel filters over that of the first, float32 ``[mels]``.

    Filters have unit area, so the power in a band is its squared mel magnitude times this.
    """
    hz = mel_centres(mels)
    width: Tensor = torch.gradient(hz)[0] / (hz[1] - hz[0])
    return width.float()


def mel_level(mel: Tensor, widths: Tensor) -> Tensor:
    """Level of frames, the ln of the root of their power: ``[..., mels]`` to ``[...]``."""
    return torch.logsumexp(2 * mel + widths.log(), dim=-1) / 2


def group_level(levels: Tensor) -> Tensor:
    """Level of the groups' mean power, ``[..., 4]`` to ``[..., 1]``."""
    return torch.logsumexp(2 * levels, dim=-1, keepdim=True) / 2 - math.log(GROUP) / 2


def distances(groups: Tensor, wanted: Tensor, codebook: Tensor) -> Tensor:
    """Squared errors of groups to all entries; each row lacks a constant.

    Errors count by the tokens' magnitudes, since those of the loudest one are heard most.

    Args:
        groups: ``[..., 4]``.
        wanted: the groups as the codebook describes them, absolute or relative, ``[..., 4]``.
        codebook: ``[256, 4]``.

    Returns:
        ``[..., 256]``.
    """
    weight = (groups - groups.amax(dim=-1, keepdim=True)).exp()
    return weight @ codebook.square().T - 2 * (weight * wanted) @ codebook.T


class LevelChannel(nn.Module):
    """Levels of tokens to digits 0 ... 3 and back, by vector quantisation of four at a time.

    Codebooks are sorted by mean level, so that the first digits of an incomplete group, at the end
    of a stream, give its rough level.
    """

    def __init__(self) -> None:
        super().__init__()
        absolute, relative = (torch.linspace(*ends, ENTRIES) for ends in ((-7.9, 3.7), (-2.0, 2.0)))
        rows = torch.stack([absolute, relative]).unsqueeze(2).expand(-1, -1, GROUP)
        self.register_buffer("codebooks", rows.clone())

    codebooks: Tensor
    """The one of first groups and the one of all others, ``[2, 256, 4]``."""

    @staticmethod
    def _lead(first_token: Tensor | int, device: torch.device) -> Tensor:
        """Tokens by which a window begins after a chain's beginning, ``[batch or 1, 1]``."""
        return torch.as_tensor(first_token, device=device).reshape(-1, 1) % SPAN

    def write(self, levels: Tensor, first_token: Tensor | int) -> Tensor:
        """Digits of levels ``[batch, tokens]``, int64 of the same shape.

        Chains that reach beyond the window are completed with its outermost levels.
        """
        (batch, tokens), device = levels.shape, levels.device
        lead = self._lead(first_token, device)
        slots = (tokens + 2 * SPAN - 2) // SPAN * SPAN
        wanted = (torch.arange(slots, device=device) - lead).clamp(0, tokens - 1)
        chains = levels.gather(1, wanted.expand(batch, -1)).unflatten(1, (-1, CHAIN, GROUP))
        entries: list[Tensor] = []
        reference = chains.new_zeros(1)
        for index in range(CHAIN):
            book = self.codebooks[min(index, 1)]
            group = chains[:, :, index]
            entries.append(distances(group, group - reference, book).argmin(dim=-1))
            reference = group_level(book[entries[-1]] + reference)
        digit = BASE ** torch.arange(GROUP - 1, -1, -1, device=device)
        digits = (torch.stack(entries, dim=2).unsqueeze(3) // digit % BASE).flatten(1)
        place = lead + torch.arange(tokens, device=device)
        return digits.gather(1, place.expand(batch, -1))

    def read(self, digits: Tensor, first_token: Tensor | int) -> Tensor:
        """Levels of tokens from their digits, both ``[batch, tokens]``.

        A group cut off at its end has the mean of all entries that begin like it; a chain cut off
        at its beginning, where a listener joined, the level that follows.
        """
        (batch, tokens), device = digits.shape, digits.device
        lead = self._lead(first_token, device)
        slots = (tokens + 2 * SPAN - 2) // SPAN * SPAN
        place = (lead + torch.arange(tokens, device=device)).expand(batch, -1)
        digit = BASE ** (GROUP - 1 - place % GROUP)
        entry = torch.zeros(batch, slots // GROUP, dtype=torch.int64, device=device)
        entry = entry.scatter_add(1, place // GROUP, digits * digit)
        # How many entries share the digits that are there: 1 for a whole group.
        last = torch.arange(slots // GROUP, device=device) == place[:, -1:] // GROUP
        share = torch.where(last, digit[:, -1:], 1)
        entry, share = entry.unflatten(1, (-1, CHAIN)), share.unflatten(1, (-1, CHAIN))
        totals = torch.nn.functional.pad(self.codebooks.cumsum(dim=1), (0, 0, 1, 0))
        groups: list[Tensor] = []
        for index in range(CHAIN):
            total, start, count = totals[min(index, 1)], entry[..., index], share[..., index]
            group = (total[start + count] - total[start]) / count.unsqueeze(-1)
            groups.append(group + group_level(groups[-1]) if groups else group)
        levels = torch.stack(groups, dim=2).flatten(1).gather(1, place)
        # Tokens of a chain whose beginning was cut off.
        unknown = -lead % SPAN
        following = levels.gather(1, unknown.clamp_max(tokens - 1).expand(batch, -1))
        return torch.where(torch.arange(tokens, device=device) < unknown, following, levels)
