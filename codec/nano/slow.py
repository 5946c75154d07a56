"""The slow channel: one of a token's 14 bits spells out what stays the same for seconds.

The long-term spectrum (equaliser, bandwidth) and the stereo image differ most from one recording
to the next, and a network trained on other music describes them badly. So they are not learnt but
sent: the spectrum in 16 bands relative to the level, side over mid and left over right in four
bands each, in turn, each as five bits in five tokens, a full round in 120 tokens (4.8 s). Spectral
bands come in bit-reversed order, so that the rough shape is there first. Which of them a token is
about follows from its absolute index.
"""

from __future__ import annotations

import torch
from torch import Tensor

from codec.nano.config import NanoConfig

__all__ = ["BANDS", "IMAGES", "ITEMS", "ROUND", "average", "read_slow", "write_slow"]

BANDS = 16
"""Bands of the spectrum."""
IMAGES = 4
"""Bands of the stereo image, each with a width and a balance."""
ITEMS = BANDS + 2 * IMAGES
"""Values: spectrum, then balance, then width, each from low to high."""
DIGITS = 5
"""Tokens, of one bit each, that spell one value."""
ROUND = ITEMS * DIGITS
_BEFORE, _AFTER = 13, 7
"""A value is the mean over tokens ``[5g - 13, 5g + 7)`` around its first token 5g."""
_LOW = torch.tensor([-13.4] * BANDS + [-3.1] * 2 * IMAGES)
_STEP = torch.tensor([0.4] * BANDS + [0.2] * 2 * IMAGES)

_REVERSED = [int(f"{band:04b}"[::-1], 2) for band in range(BANDS)]
_IMAGE_ORDER = [4, 6, 5, 7, 0, 2, 1, 3]
"""Widths before balances."""
_ORDER = torch.tensor(
    [
        item
        for turn in range(2 * IMAGES)
        for item in (*_REVERSED[2 * turn : 2 * turn + 2], BANDS + _IMAGE_ORDER[turn])
    ]
)
"""Two bands of the spectrum, then one value of the image, in turn."""
_TURN = _ORDER.argsort()


def _on(table: Tensor, device: torch.device) -> Tensor:
    """A table on a device, without waiting for what the device is still doing."""
    return table.to(device, non_blocking=True)


def average(rows: Tensor, config: NanoConfig) -> Tensor:
    """Means of features over the items' bands, ``[..., feature_dims]`` to ``[..., 24]``."""
    c = config
    mel = rows[..., : c.mel_dims].unflatten(-1, (c.mel_frames, BANDS, -1)).mean(dim=(-3, -1))
    image = rows[..., c.mel_dims + c.semitone_dims :].unflatten(-1, (2 * IMAGES, -1)).mean(dim=-1)
    return torch.cat([mel, image], dim=-1)


def write_slow(
    features: Tensor, levels: Tensor, first_token: Tensor | int, config: NanoConfig
) -> Tensor:
    """Slow digits 0 and 1 of every token, int64 ``[batch, tokens]``.

    Means near the edges run over what is there.

    Args:
        features: ``[batch, tokens, feature_dims]``.
        levels: of the tokens, ``[batch, tokens]``; loud tokens count more.
        first_token: absolute index of the first, ``[batch]``.
    """
    batch, tokens, device = features.shape[0], features.shape[1], features.device
    rows = average(features, config)
    spectrum, image = rows.split([BANDS, 2 * IMAGES], dim=-1)
    rows = torch.cat([spectrum - levels.unsqueeze(-1), image], dim=-1)
    weight = torch.exp(0.5 * levels).unsqueeze(-1)
    total = torch.cat([rows * weight, weight], dim=-1).double().cumsum(dim=1)
    total = torch.nn.functional.pad(total, (0, 0, 1, 0))  # [batch, tokens + 1, items + 1]
    position = torch.arange(tokens, device=device)
    index = torch.as_tensor(first_token, device=device).reshape(-1, 1) + position
    place = index % DIGITS
    start = position - place  # the group's first token, relative to the window
    low, high = (start - _BEFORE).clamp_min(0), (start + _AFTER).clamp(1, tokens)
    item = _on(_ORDER, device)[index // DIGITS % ITEMS]
    low, high, item = (x.expand(batch, -1).unsqueeze(-1) for x in (low, high, item))
    expand = (-1, -1, ITEMS + 1)
    part = total.gather(1, high.expand(expand)) - total.gather(1, low.expand(expand))
    mean = (part.gather(2, item) / part[..., -1:]).squeeze(-1).float()
    low_value, step = (_on(table, device)[item[..., 0]] for table in (_LOW, _STEP))
    value = ((mean - low_value) / step).round().clamp(0, 2**DIGITS - 1).long()
    return value // 2 ** (DIGITS - 1 - place) % 2


def read_slow(digits: Tensor, first_token: Tensor | int) -> tuple[Tensor, Tensor]:
    """What the slow channel has said by every token, from it and the tokens before.

    Args:
        digits: int64 ``[batch, tokens]``.

    Returns:
        Values (spectrum relative to the level, in ln) and 1 where known, else 0, both float32
        ``[batch, tokens, 24]``.
    """
    (batch, tokens), device = digits.shape, digits.device
    first = torch.as_tensor(first_token, device=device).reshape(-1, 1).expand(batch, 1)
    lead = -first % DIGITS  # of an incomplete first group
    groups = (tokens + DIGITS - 1) // DIGITS  # as many as there may be; the last one may be cut off
    inside = lead + torch.arange(groups * DIGITS, device=device)
    spelled = digits.gather(1, inside.clamp_max(tokens - 1)).unflatten(1, (groups, DIGITS))
    weights = 2 ** torch.arange(DIGITS - 1, -1, -1, device=device)
    number = (spelled * weights).sum(dim=-1)  # [batch, groups]
    # The last group that is complete at each token, and of those the last one about each item.
    position = torch.arange(tokens, device=device)
    complete = torch.div(position - lead + 1, DIGITS, rounding_mode="floor") - 1
    turn_of_first = (first + lead) // DIGITS
    now = complete.unsqueeze(-1)  # [batch, tokens, 1]
    behind = (now + turn_of_first.unsqueeze(-1) - _on(_TURN, device)) % ITEMS
    group = now - behind  # [batch, tokens, items]
    known = (group >= 0) & (now >= 0)
    spot = group.clamp(0, groups - 1).flatten(1)
    values = number.gather(1, spot).unflatten(1, (tokens, ITEMS)) * _on(_STEP, device) + _on(
        _LOW, device
    )
    return values * known, known.float()
