"""The level channel: two of a token's 14 bits say how loud it is.

Loudness is what the ear misses first and what a network trained on other music gets wrong, so it
is not learnt but sent: the levels of four tokens in a row are one of 256 entries of a codebook,
whose index stands in their four pairs of bits. Groups sit at absolute multiples of four tokens.
Everything else about a token is described relative to its level, so quiet music is treated like
loud music.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from codec.nano.dsp import mel_centres

__all__ = ["ENTRIES", "GROUP", "LevelChannel", "mel_level", "mel_widths"]

GROUP = 4
"""Tokens that share one entry of the codebook."""
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


class LevelChannel(nn.Module):
    """Levels of tokens to digits 0 ... 3 and back, by vector quantisation of four at a time.

    The codebook is sorted by mean level, so that the first digits of an incomplete group, at the
    end of a stream, give its rough level.
    """

    def __init__(self) -> None:
        super().__init__()
        rows = torch.linspace(-7.9, 3.7, ENTRIES).unsqueeze(1).expand(-1, GROUP)
        self.register_buffer("codebook", rows.clone())

    codebook: Tensor

    @staticmethod
    def _grid(
        first_token: Tensor | int, batch: int, tokens: int, device: torch.device
    ) -> tuple[Tensor, Tensor, int]:
        """Group and place in it of every token, ``[batch, tokens]`` each, and groups in all."""
        first = torch.as_tensor(first_token, device=device).reshape(-1, 1) % GROUP
        index = (first + torch.arange(tokens, device=device)).expand(batch, -1)
        return index // GROUP, index % GROUP, (tokens + GROUP - 2) // GROUP + 1

    def write(self, levels: Tensor, first_token: Tensor | int) -> Tensor:
        """Digits of levels ``[batch, tokens]``, int64 of the same shape.

        Groups that reach beyond the window are completed with its outermost level.
        """
        (batch, tokens), device = levels.shape, levels.device
        group, place, groups = self._grid(first_token, batch, tokens, device)
        lead = torch.as_tensor(first_token, device=device).reshape(-1, 1) % GROUP
        wanted = torch.arange(groups * GROUP, device=device) - lead
        wanted = wanted.clamp(0, tokens - 1).expand(batch, -1)
        rows = levels.gather(1, wanted).reshape(-1, GROUP)
        entry = torch.cdist(rows, self.codebook).argmin(dim=1).view(batch, groups)
        return entry.gather(1, group) // BASE ** (GROUP - 1 - place) % BASE

    def read(self, digits: Tensor, first_token: Tensor | int) -> Tensor:
        """Levels of tokens from their digits, both ``[batch, tokens]``.

        A group cut off at its end has the mean of all entries that begin like it; one cut off at
        its beginning, where a listener joined, the level that follows.
        """
        (batch, tokens), device = digits.shape, digits.device
        group, place, groups = self._grid(first_token, batch, tokens, device)
        weight = BASE ** (GROUP - 1 - place)
        entry = torch.zeros(batch, groups, dtype=torch.int64, device=device)
        entry = entry.scatter_add(1, group, digits * weight)
        # How many entries share the digits that are there: 1 for a whole group.
        last = group[:, -1:] == torch.arange(groups, device=device)
        open_end = torch.where(last, BASE ** (GROUP - 1 - place[:, -1:]), 1)
        total = torch.nn.functional.pad(self.codebook.cumsum(dim=0), (0, 0, 1, 0))
        mean = (total[entry + open_end] - total[entry]) / open_end.unsqueeze(-1)
        levels = mean.flatten(1).gather(1, group * GROUP + place)
        # Tokens of a beginning that was cut off.
        lead = -torch.as_tensor(first_token, device=device).reshape(-1, 1) % GROUP
        following = levels.gather(1, lead.clamp_max(tokens - 1).expand(batch, -1))
        return torch.where(torch.arange(tokens, device=device) < lead, following, levels)
