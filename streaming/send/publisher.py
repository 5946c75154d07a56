"""Tokens on their way into a hub: first to disk, where that is asked, and coded in fewer bits."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from codec.constants import SAMPLES_PER_TOKEN
from streaming.files.store import TokenStore
from streaming.stream.hub import Hub
from streaming.support.worker import Worker
from streaming.wire.messages import Gap, Title, Tokens

__all__ = ["Publisher"]


class Publisher:
    """Publishes to ``hub``, after writing to ``store`` what a listener is about to get.

    Needs a running event loop.

    Args:
        clock: monotonic seconds.
        wall: Unix time in seconds.
    """

    def __init__(
        self,
        hub: Hub,
        store: TokenStore | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.hub = hub
        self._store = store
        self._worker = Worker("publish")
        self._clock = clock
        self._wall = wall

    @property
    def samples(self) -> int:
        """How many samples the stream has come to."""
        return self.hub.next_token * SAMPLES_PER_TOKEN

    async def tokens(
        self,
        tokens: NDArray[np.int64],
        *,
        came_s: float | None = None,
        delay_s: float = 0.0,
        age_s: float = 0.0,
        ended_s: float | None = None,
    ) -> None:
        """The next packet, int64 ``[n]``.

        Args:
            came_s: when its last sample came from the source, by our clock.
            delay_s: if it was encoded elsewhere, seconds from that sample to its release.
            age_s: how long ago that release was.
            ended_s: Unix time of that sample, by the source's clock if that is not ours.
        """
        if came_s is not None:
            delay_s = self._clock() - came_s
        if ended_s is None:
            ended_s = self._wall() - age_s - delay_s
        packet, coded = Tokens(self.hub.next_token, tokens), None
        if self._store is not None:
            await self._worker.run(self._store.tokens, packet, ended_s)
        if self.hub.entropy_coding:
            coded = await self._worker.run(self.hub.code, packet)
        now_s = self._clock() - age_s
        if came_s is not None:
            delay_s = now_s - came_s
        unix_s = ended_s + delay_s
        self.hub.publish(tokens, now_s, delay_s, unix_s, late=age_s > 0, coded=coded)

    async def gap(self, count: int) -> None:
        """``count`` tokens are missing."""
        if self._store is not None:
            await self._worker.run(self._store.gap, Gap(self.hub.next_token, count))
        self.hub.skip(count, self._clock())

    async def title(self, title: str, token: int) -> None:
        """What plays from ``token`` on."""
        if self.hub.set_title(title, token, self._clock()) and self._store is not None:
            await self._worker.run(self._store.title, Title(self.hub.title, token))

    def end(self, reason: str) -> None:
        """Nothing follows."""
        self.hub.end(reason, self._clock())

    def go_away(self, reason: str) -> None:
        """Nothing follows here for now, but the stream is not over."""
        self.hub.go_away(reason, self._clock())

    async def drop_store(self) -> None:
        """From now on nothing is stored."""
        store, self._store = self._store, None
        if store is not None:
            await self._worker.run(store.close)

    async def close(self) -> None:
        """Complete what is stored."""
        await self.drop_store()
        await self._worker.close()
