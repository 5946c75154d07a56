"""Any number of channels to stereo."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streaming.audio.level import sanitise

__all__ = ["to_stereo"]

_SIDE: Final = math.sqrt(0.5)  # -3 dB, as in ITU-R BS.775 for centre and surrounds

# Where each channel goes, in the order of WAV and FLAC files. The low-frequency channel is
# left out, as BS.775 does.
_PLACES: Final = {
    "L": (1.0, 0.0),
    "R": (0.0, 1.0),
    "C": (_SIDE, _SIDE),
    "W": (0.0, 0.0),
    "l": (_SIDE, 0.0),
    "r": (0.0, _SIDE),
    "b": (0.5, 0.5),
}
_WAV_ORDER: Final = {3: "LRC", 4: "LRlr", 5: "LRClr", 6: "LRCWlr", 7: "LRCWblr", 8: "LRCWlrlr"}
# Ogg streams have their own order (Vorbis I specification, section 4.3.9).
_OGG_ORDER: Final = {3: "LCR", 4: "LRlr", 5: "LCRlr", 6: "LCRlrW", 7: "LCRlrbW", 8: "LCRlrlrW"}


def to_stereo(frames: NDArray[np.float32], ogg_order: bool = False) -> NDArray[np.float32]:
    """Sanitise interleaved `frames` `[n, channels]` and mix them to float32 `[2, n]`.

    Mono goes to both sides unchanged; more than two channels are weighted as in
    ITU-R BS.775 and scaled so that full scale everywhere cannot clip. Layouts beyond eight
    channels have no common meaning: even ones go left, odd ones right.
    """
    frames = sanitise(frames)
    channels = frames.shape[1]
    if channels == 1:
        return np.ascontiguousarray(np.broadcast_to(frames.T, (2, frames.shape[0])))
    if channels == 2:
        return np.ascontiguousarray(frames.T)
    order = (_OGG_ORDER if ogg_order else _WAV_ORDER).get(channels)
    if order is None:
        order = "LR" * (channels // 2) + "C" * (channels % 2)
    weights = np.array([_PLACES[place] for place in order], np.float64)
    weights /= weights.sum(axis=0).max()
    # A sum in a fixed order: a matrix product may round differently for other block sizes.
    out = np.zeros((2, frames.shape[0]), np.float32)
    for index in range(channels):
        for side in range(2):
            out[side] += np.float32(weights[index, side]) * frames[:, index]
    return out
