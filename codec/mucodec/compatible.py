"""The published release's own way of encoding a file, fault for fault, for comparisons.

It scales the whole file, cuts it into pieces of 40.97 s that do not overlap (10 ms longer than
the 1024 tokens that come of each), repeats short files, and pads the last piece with the
beginning of the file. :meth:`codec.base.Codec.sound2code` does none of that.
"""

from __future__ import annotations

import torch
from torch import Tensor

from codec.constants import SAMPLE_RATE
from codec.mucodec.level import limit_peak
from codec.mucodec.model import MuCodecModel
from codec.mucodec.precision import exact_float32

__all__ = ["release_codes"]

_WINDOW = 1_966_080
"""Samples of 1024 tokens."""
_PIECE = _WINDOW + 480


@torch.inference_mode()
@exact_float32()
def release_codes(model: MuCodecModel, audio: Tensor, batch: int = 1) -> Tensor:
    """Codes of a whole recording as the release makes them.

    Args:
        audio: float32 ``[2, samples]`` at 48 kHz.
        batch: so many windows are encoded at once.

    Returns:
        int64 ``[int(25 * seconds) + 1]``.
    """
    samples = audio.shape[1]
    if samples == 0:
        return torch.zeros(0, dtype=torch.int64)
    audio = limit_peak(audio.flatten(), 0.8).view_as(audio)
    wanted = samples * 25 // SAMPLE_RATE + 1
    while audio.shape[1] < _PIECE:
        audio = torch.cat([audio, audio], dim=1)
    pieces = audio.shape[1] // _WINDOW + 1
    audio = torch.cat([audio, audio], dim=1)[:, : pieces * _PIECE]
    stack = audio.unflatten(1, (-1, _PIECE)).transpose(0, 1)  # [pieces, 2, samples]
    codes = [model.encode(limit_peak(part, 0.9)) for part in stack.split(batch)]
    return torch.cat(codes).flatten()[:wanted]
