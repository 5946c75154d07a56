"""What waits to be sent to one page of the listener's: bounded, and sound gives way first."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

__all__ = ["Feed"]

_MOST_BYTES: Final = 400_000
"""Two seconds of sound."""


class Feed:
    """Messages on their way to a page that may read slowly.

    Attributes:
        dropped: how many messages were left out because the page did not keep up.
    """

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self.dropped = 0
        self._most_bytes = most_bytes
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._state: str | None = None
        self._events: deque[str] = deque()
        self._ready = asyncio.Event()

    def state(self, message: str) -> None:
        """Send the present state; one that was not sent yet is out of date."""
        self._state = message
        self._ready.set()

    def event(self, message: str) -> None:
        """Send an event before everything else that waits, in place of the sound that waits."""
        self.dropped += len(self._waiting)
        self._waiting.clear()
        self._bytes = 0
        self._events.append(message)
        self._ready.set()

    def data(self, message: bytes) -> None:
        """Send sound or a picture of it; the oldest of it goes if there is too much."""
        self._waiting.append(message)
        self._bytes += len(message)
        while self._bytes > self._most_bytes:
            self._bytes -= len(self._waiting.popleft())
            self.dropped += 1
        self._ready.set()

    async def take(self) -> str | bytes:
        """The next message, as soon as there is one."""
        while True:
            if self._events:
                return self._events.popleft()
            if self._state is not None:
                state, self._state = self._state, None
                return state
            if self._waiting:
                message = self._waiting.popleft()
                self._bytes -= len(message)
                return message
            self._ready.clear()
            await self._ready.wait()
