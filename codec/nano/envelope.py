"""The slow channel: two of a token's 14 bits spell out the long-term spectrum.

What stays the same for seconds (loudness, equaliser, bandwidth) differs most from one recording to
the next, and a network trained on other music describes it badly. So it is not learnt but sent:
the mean log-mel of 32 bands, in turn, each as six bits in three tokens, a full round in 96 tokens
(3.84 s). The bands come in bit-reversed order, so that the rough shape is there first. Which band
a token is about follows from its absolute index.
"""

from __future__ import annotations

import torch
from torch import Tensor

from codec.nano.config import NanoConfig

__all__ = ["BANDS", "DIGITS", "ROUND", "read_envelope", "write_digits"]

BANDS = 32
DIGITS = 3
"""Tokens, of two bits each, that spell one value."""
ROUND = BANDS * DIGITS
BASE = 4
_BEFORE, _AFTER = 14, 6
"""A value is the mean over tokens ``[3g - 14, 3g + 6)`` around its first token 3g."""
_LOW, _STEP = -11.6, 0.25
_ORDER = [int(f"{band:05b}"[::-1], 2) for band in range(BANDS)]


def write_digits(features: Tensor, first_token: Tensor | int, config: NanoConfig) -> Tensor:
    """Slow digits 0 ... 3 of every token, int64 ``[batch, tokens]``.

    features: ``[batch, tokens, feature_dims]``. first_token: absolute index of the first,
    ``[batch]``. Means near the edges run over what is there.
    """
    batch, tokens = features.shape[:2]
    mel = features[..., : config.mel_dims].unflatten(-1, (config.mel_frames, BANDS, -1))
    rows = mel.mean(dim=(2, 4))  # [batch, tokens, bands]
    total = torch.nn.functional.pad(rows.cumsum(dim=1), (0, 0, 1, 0))
    index = torch.as_tensor(first_token).reshape(-1, 1) + torch.arange(tokens)
    place = index % DIGITS
    start = torch.arange(tokens) - place  # the group's first token, relative to the window
    low, high = (start - _BEFORE).clamp_min(0), (start + _AFTER).clamp(1, tokens)
    band = torch.tensor(_ORDER)[index // DIGITS % BANDS]
    low, high, band = (x.expand(batch, -1).unsqueeze(-1) for x in (low, high, band))
    expand = (-1, -1, BANDS)
    part = total.gather(1, high.expand(expand)) - total.gather(1, low.expand(expand))
    mean = part.gather(2, band)[..., 0] / (high - low)[..., 0]
    level = ((mean - _LOW) / _STEP).round().clamp(0, BASE**DIGITS - 1).long()
    return level // BASE ** (DIGITS - 1 - place) % BASE


def read_envelope(digits: Tensor, first_token: Tensor | int) -> tuple[Tensor, Tensor]:
    """What is known of the long-term spectrum at every token, from it and the tokens before.

    digits: int64 ``[batch, tokens]``. Returns mean log-mels and 1 where known, else 0, both float32
    ``[batch, tokens, 32]``.
    """
    batch, tokens = digits.shape
    first = torch.as_tensor(first_token).reshape(-1).expand(batch)
    values = torch.zeros(batch, tokens, BANDS)
    known = torch.zeros(batch, tokens, BANDS)
    order = torch.tensor(_ORDER)
    rows = torch.arange(batch)
    padded = torch.nn.functional.pad(digits, (0, DIGITS))
    begin = -first % DIGITS  # first whole group of each row
    for group in range((tokens - 1) // DIGITS + 1):
        at = begin + group * DIGITS
        level = sum(
            padded[rows, (at + k).clamp_max(tokens)] * BASE ** (DIGITS - 1 - k)
            for k in range(DIGITS)
        )
        band = order[(first + at) // DIGITS % BANDS]
        # A value holds from its last token on, until its band comes round again.
        later = torch.arange(tokens) >= (at + DIGITS - 1).unsqueeze(1)
        spot = torch.nn.functional.one_hot(band, BANDS).bool()
        here = later.unsqueeze(2) & spot.unsqueeze(1)
        value = (torch.as_tensor(level) * _STEP + _LOW).view(-1, 1, 1)
        values = torch.where(here, value, values)
        known = torch.where(here, 1.0, known)
    return values, known
