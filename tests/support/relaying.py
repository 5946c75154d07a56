"""What tests of relays share: a stream of tokens that follow from their numbers, a listener."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np

from streaming.stream.hub import Hub
from streaming.stream.listener_session import ListenerSession
from streaming.transports.link import Link
from streaming.transports.reconnecting import Backoff
from streaming.transports.websocket import connect
from streaming.wire.messages import Hello, Join, StreamInfo, Tokens

__all__ = ["QUICK", "Listening", "hub_of", "publish", "until", "values"]

QUICK = Backoff(first_s=0.01, most_s=0.05)


def values(first, end):
    return (np.arange(first, end) * 7919) % 16_384


def hub_of(stream="s", *, seed=5, history=100_000):
    info = StreamInfo("fake", "fake-1", "a" * 64, seed, stream, 48)
    return Hub(info, history_tokens=history)


def publish(hub, packets, size=48):
    for _ in range(packets):
        first = hub.next_token
        hub.publish(values(first, first + size), time.monotonic(), 0.3, time.time())


async def until(happened, within_s=60.0):
    """Wait for it; a test that waits in vain fails instead of holding up all others."""

    async def wait():
        while not happened():
            await asyncio.sleep(0.005)

    await asyncio.wait_for(wait(), within_s)


class Listening:
    """A listener that remembers, and comes back as listeners do; waits: from the start on."""

    def __init__(self, url, join=None, *, waits=False):
        self.url = url
        self.waits = waits
        self.seen = []
        self.session = ListenerSession(None, join=join or Join(history=0))
        self.link: Any = None
        self.task = asyncio.create_task(self._run())

    async def _run(self):
        dial = lambda: connect(self.url)  # noqa: E731
        first = None if self.waits else await dial()
        self.link = Link(self.session, first, dial, backoff=QUICK)
        try:
            async for event in self.link:
                self.seen.append(event)
        finally:
            await self.link.close()

    def of(self, kind):
        return [event for event in self.seen if isinstance(event, kind)]

    @property
    def place(self):
        return self.session.next_token

    @property
    def tokens(self):
        pieces = [packet.tokens for packet in self.of(Tokens)]
        return np.concatenate([np.zeros(0, dtype=np.int64), *pieces])

    async def joined(self):
        await until(lambda: self.of(Hello))

    async def end(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
