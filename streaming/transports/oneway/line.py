"""What waits to be sent over a line of a known speed: never more than a few seconds of it.

A device takes bytes faster than it sends them, and hides how many it holds. So the line is reckoned
with here: a frame is let go when the one before it must be through.
"""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["LineQueue"]

_MOST_WAITING_S: Final = 8.0
_LEAST_FRAMES: Final = 4
_MOST_FRAMES: Final = 64


class LineQueue:
    """Frames in order; the oldest is dropped if too many wait.

    Args:
        bits_per_s: of the line, without start and stop bits; None: as fast as can be.

    Attributes:
        dropped: frames so far.
        sent_bytes: so far.
    """

    def __init__(self, bits_per_s: float | None) -> None:
        self._bits_per_s = bits_per_s
        self._frames: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._free_s = float("-inf")
        self.dropped = 0
        self.sent_bytes = 0

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frame: bytes) -> None:
        """Let a frame wait for its turn."""
        self._frames.append(frame)
        self._waiting_bytes += len(frame)
        while self._full():
            self._waiting_bytes -= len(self._frames.popleft())
            self.dropped += 1

    def take(self, now_s: float) -> bytes | None:
        """The next frame, if the line is free; it then counts as sent."""
        if not self._frames or now_s < self._free_s:
            return None
        frame = self._frames.popleft()
        self._waiting_bytes -= len(frame)
        self.sent_bytes += len(frame)
        self._free_s = max(now_s, self._free_s) + self._duration_s(len(frame))
        return frame

    def wait_s(self, now_s: float) -> float | None:
        """Seconds until :meth:`take` has something; None if nothing waits."""
        return max(0.0, self._free_s - now_s) if self._frames else None

    def _duration_s(self, count: int) -> float:
        return 0.0 if self._bits_per_s is None else 8 * count / self._bits_per_s

    def _full(self) -> bool:
        if len(self._frames) <= _LEAST_FRAMES:
            return False
        too_long = self._duration_s(self._waiting_bytes) > _MOST_WAITING_S
        return too_long or len(self._frames) > _MOST_FRAMES
