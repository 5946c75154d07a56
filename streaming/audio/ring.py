"""A ring buffer between one writing thread and one reading thread, without locks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["RingBuffer"]


class RingBuffer:
    """Fixed storage for float32 `[channels, capacity]`: one thread writes, one other reads.

    Each position is a running sample count that only its own side assigns, and it is
    assigned after the samples have been copied; Python's atomic attribute stores make that
    enough. So neither side ever waits for the other, as an audio callback must not.
    """

    def __init__(self, channels: int, capacity: int) -> None:
        if channels < 1 or capacity < 1:
            raise ValueError(f"need channels and capacity of at least 1: {channels}, {capacity}")
        self.capacity = capacity
        self.channels = channels
        self._data = np.zeros((channels, capacity), np.float32)
        self._written = 0
        self._read = 0

    @property
    def available(self) -> int:
        """Samples that can be read now. Only the writer can make it grow."""
        return self._written - self._read

    @property
    def free(self) -> int:
        """Samples that can be written now. Only the reader can make it grow."""
        return self.capacity - (self._written - self._read)

    @property
    def written(self) -> int:
        """Samples written since the start."""
        return self._written

    @property
    def taken(self) -> int:
        """Samples read or skipped since the start."""
        return self._read

    def write(self, block: NDArray[np.float32]) -> int:
        """Copy the start of `block` `[channels, n]` as far as it fits; returns how many samples."""
        count = min(block.shape[1], self.free)
        start = self._written % self.capacity
        first = min(count, self.capacity - start)
        self._data[:, start : start + first] = block[:, :first]
        if first < count:
            self._data[:, : count - first] = block[:, first:count]
        self._written += count
        return count

    def read_into(self, out: NDArray[np.float32]) -> int:
        """Fill the start of `out` `[channels, n]` with what is there; returns how many samples."""
        count = min(out.shape[1], self.available)
        start = self._read % self.capacity
        first = min(count, self.capacity - start)
        out[:, :first] = self._data[:, start : start + first]
        if first < count:
            out[:, first:count] = self._data[:, : count - first]
        self._read += count
        return count

    def skip(self, count: int) -> int:
        """Throw away up to `count` samples on the reading side; returns how many."""
        skipped = min(max(count, 0), self.available)
        self._read += skipped
        return skipped
