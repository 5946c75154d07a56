"""A sender and a listener for a long time, over a link that is cut now and then.

``python -m tests.soak --minutes 60`` (`make soak`) streams in real time, ``--speed 20`` 20 times
as fast. It ends with 1 when a token is lost or memory has grown, and prints the figures as JSON.
The codec is the one of the tests, so that what is measured is everything around the models.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import streaming
from codec.constants import TOKEN_RATE
from streaming.files.muc import StreamHeader
from streaming.files.store import TokenStore
from streaming.stream.hub import Hub
from streaming.transports.websocket.server import WebSocketServer
from streaming.wire.messages import StreamInfo, Tokens
from tests.support.fake_codec import FakeCodec
from tests.support.fault_proxy import FaultProxy

__all__ = ["main", "soak"]

PACKET = 48
MOST_GROWTH_MB = 16.0


def memory_mb() -> float:
    """Resident size of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def soak(seconds: float, speed: float, kill_every_s: float, folder: Path) -> dict[str, float]:
    """Stream for ``seconds``; returns the figures."""
    store = TokenStore(
        folder, StreamHeader("fake", "fake-1", FakeCodec.digest), keep_tokens=250_000
    )
    info = StreamInfo("fake", "fake-1", FakeCodec.digest, 0, store.identity.stream, PACKET)
    hub = Hub(info, history_tokens=250_000)
    chance = random.Random(0)
    sizes: list[float] = []
    settings = streaming.ListenerSettings(backoff=streaming.Backoff(first_s=0.2, most_s=1.0))
    async with (
        WebSocketServer(hub, "127.0.0.1", 0) as server,
        FaultProxy(server.port, chance) as proxy,
        streaming.listen(proxy.url, codec=FakeCodec(), settings=settings) as radio,
    ):
        playing = asyncio.create_task(radio.play())
        while not hub.listeners:
            await asyncio.sleep(0.01)
        began_s = time.monotonic()
        next_kill_s = kill_every_s
        next_size_s = 0.0
        while (passed_s := time.monotonic() - began_s) < seconds and not playing.done():
            while hub.next_token < TOKEN_RATE * passed_s * speed:
                first = hub.next_token
                packet = (np.arange(first, first + PACKET) * 7) % 16_384
                store.tokens(Tokens(first, packet), time.time())
                hub.publish(packet, time.monotonic(), 0.3, time.time())
            if passed_s >= next_kill_s:
                next_kill_s += kill_every_s * chance.uniform(0.5, 1.5)
                proxy.kill()
            if passed_s >= next_size_s:
                next_size_s += seconds / 100
                sizes.append(memory_mb())
            await asyncio.sleep(PACKET / TOKEN_RATE / speed / 2)
        hub.end("over", time.monotonic())
        await playing
    store.close()
    quarter = len(sizes) // 4
    return {
        "stream_s": hub.next_token / TOKEN_RATE,
        "tokens_sent": hub.next_token,
        "tokens_heard": radio.samples / 1920,
        "lost_tokens": radio.session.lost_tokens,
        "kills": proxy.kills,
        "reconnects": radio.reconnects,
        "memory_mb": sizes[-1],
        "growth_mb": sizes[-1] - sizes[quarter],
    }


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--kill-every", type=float, default=30.0, metavar="S")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="music350-soak-") as folder:
        seconds = 60 * options.minutes
        figures = asyncio.run(soak(seconds, options.speed, options.kill_every, Path(folder)))
    sys.stdout.write(json.dumps(figures) + "\n")
    lost = figures["lost_tokens"] or figures["tokens_heard"] != figures["tokens_sent"]
    return 1 if lost or figures["growth_mb"] > MOST_GROWTH_MB else 0


if __name__ == "__main__":
    sys.exit(main())
