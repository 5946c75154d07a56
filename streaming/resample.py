"""Streaming sample-rate conversion whose output does not depend on the block sizes."""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray

from streaming.errors import SettingsError

__all__ = ["MAX_RATE", "MIN_RATE", "Resampler"]

MIN_RATE = 1_000
MAX_RATE = 768_000


class Resampler:
    """Converts a stream of float32 blocks `[channels, n]` from one sample rate to another.

    Any split of the input gives the same output bit for bit (soxr works on its own fixed
    blocks inside; a test holds it to that), and the whole output has
    `floor(input_samples · out_rate / in_rate + 1/2)` samples. With equal rates the blocks
    pass through untouched.

    Args:
        in_rate: samples per second of the input.
        out_rate: samples per second of the output.
        channels: rows of every block.
        quality: "HQ" (the default: 20 bit, ample for a lossy codec) or "VHQ".

    Raises:
        SettingsError: a rate is outside `MIN_RATE`..`MAX_RATE`.
    """

    def __init__(self, in_rate: int, out_rate: int, channels: int = 2, quality: str = "HQ") -> None:
        for rate in (in_rate, out_rate):
            if not MIN_RATE <= rate <= MAX_RATE:
                raise SettingsError(
                    f"A sample rate of {rate} Hz is outside the supported range of "
                    f"{MIN_RATE} to {MAX_RATE} Hz."
                )
        self.in_rate = in_rate
        self.out_rate = out_rate
        self.channels = channels
        self._stream = (
            None
            if in_rate == out_rate
            else soxr.ResampleStream(in_rate, out_rate, channels, dtype="float32", quality=quality)
        )
        self._finished = False

    def push(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Convert `block` `[channels, n]`; returns what is ready, `[channels, m]`, m ≥ 0."""
        if self._finished:
            raise ValueError("push() after finish(): make a new Resampler for a new stream")
        return self._process(block, last=False)

    def finish(self) -> NDArray[np.float32]:
        """End the stream and return the samples that were still in the filter, `[channels, m]`."""
        nothing = np.zeros((self.channels, 0), np.float32)
        if self._finished:
            return nothing
        self._finished = True
        return self._process(nothing, last=True)

    def _process(self, block: NDArray[np.float32], last: bool) -> NDArray[np.float32]:
        if self._stream is None:
            return block
        frames = np.ascontiguousarray(block.T, dtype=np.float32)
        return np.ascontiguousarray(self._stream.resample_chunk(frames, last=last).T)
