"""What a trial keeps of what passes: the song, the decoded sound, how long packets took."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codec.constants import CHANNELS, SAMPLE_RATE
from streaming.audio.sinks.base import Sink
from streaming.audio.sources.playlist import Playlist
from streaming.stream.hub import Hub
from streaming.stream.listener_session import Event
from streaming.wire.messages import Tokens

__all__ = ["Arrivals", "DecodedSound", "KeptPlaylist"]

Audio = NDArray[np.float32]


class KeptPlaylist(Playlist):
    """A song, over and over, of which the first part is kept to compare with."""

    def __init__(self, song: Path, keep_s: float) -> None:
        super().__init__([song], loop=True)
        self._room = round(keep_s * SAMPLE_RATE)
        self._kept: list[Audio] = []

    def read(self, frames: int) -> Audio:
        """The next block, of which a copy is kept."""
        block = super().read(frames)
        if self._room > 0:
            self._kept.append(block[:, : self._room].copy())
            self._room -= block.shape[1]
        return block

    @property
    def kept(self) -> Audio:
        """What was read first, float32 ``[2, n]``."""
        return np.concatenate([np.zeros((CHANNELS, 0), np.float32), *self._kept], axis=1)


class DecodedSound(Sink):
    """Puts decoded sound where it belongs in the stream, beginning where it begins."""

    def __init__(self, keep_s: float) -> None:
        self.sound = np.zeros((CHANNELS, round(keep_s * SAMPLE_RATE)), np.float32)
        self.first_sample: int | None = None
        self.end = 0
        self.place: Callable[[], int] = lambda: 0

    def write(self, block: Audio) -> None:
        """Put the block in its place, as far as sound is kept."""
        first = self.place() - block.shape[1]
        if self.first_sample is None:
            self.first_sample = first
        start = first - self.first_sample
        if 0 <= start < self.sound.shape[1]:
            part = block[:, : self.sound.shape[1] - start]
            self.sound[:, start : start + part.shape[1]] = part
            self.end = max(self.end, start + part.shape[1])

    def drain(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing to release."""


class Arrivals:
    """When packets were released and when they came."""

    def __init__(self, hub: Hub, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._released_s: dict[int, float] = {}
        self.transits_s: list[float] = []
        publish = hub.publish

        def noted(tokens: NDArray[np.int64], *args: Any, **options: Any) -> None:
            publish(tokens, *args, **options)
            self._released_s[hub.next_token] = clock()

        hub.publish = noted  # type: ignore[method-assign]

    async def observe(self, event: Event) -> None:
        """A listener's observer."""
        if isinstance(event, Tokens):
            released_s = self._released_s.pop(event.end_token, None)
            if released_s is not None:
                self.transits_s.append(self._clock() - released_s)
