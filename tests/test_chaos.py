"""Connections that are killed, frozen, slowed and refused: every token arrives, in order, once.

The long forms, marked slow, run with ``make chaos``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from pathlib import Path

import numpy as np
import pytest

import streaming
from streaming.listening import find
from streaming.stream.hub import Hub
from streaming.stream.listener_session import CodecIdentity, ListenerSession
from streaming.transports.link import Link
from streaming.transports.reconnecting import Backoff
from streaming.transports.websocket import connect
from streaming.transports.websocket.server import WebSocketServer
from streaming.wire.messages import End, Gap, Hello, StreamInfo, Tokens
from tests.support.fake_codec import FakeCodec
from tests.support.fault_proxy import FaultProxy
from tests.support.listening import MemorySink, tokens, whole_sound

INFO = StreamInfo("fake", FakeCodec.weights, FakeCodec.digest, 5, "chaos", 48)
OURS = CodecIdentity("fake", FakeCodec.weights, FakeCodec.digest)
QUICK = Backoff(first_s=0.05, most_s=0.2)


def values(first: int, end: int) -> np.ndarray:
    return (np.arange(first, end) * 7) % 16_384


async def publish_until(hub: Hub, done: asyncio.Event, interval_s: float) -> None:
    """A packet every ``interval_s``, then the end."""
    while not done.is_set():
        first = hub.next_token
        hub.publish(values(first, first + 48), time.monotonic())
        await asyncio.sleep(interval_s)
    hub.end("over", time.monotonic())


async def follow(
    url: str, silence_s: float = 15.0, met: asyncio.Event | None = None
) -> tuple[Link, int]:
    """Listen to the end across all breaks; returns the link and how many tokens came in order."""
    connection = await connect(url, silence_s=silence_s)
    connection._timeout_s = 1.0  # for answers; the first connection has its time
    link = Link(
        ListenerSession(OURS),
        connection,
        lambda: connect(url, timeout_s=1.0, silence_s=silence_s),
        backoff=QUICK,
    )
    place = None
    async for event in link:
        assert not isinstance(event, Gap)
        if isinstance(event, Hello):
            assert place is None  # the same stream all the time
            place = event.first_token
            if met is not None:
                met.set()
        elif isinstance(event, Tokens):
            assert event.first_token == place
            assert np.array_equal(event.tokens, values(place, event.end_token))
            place = event.end_token
        elif isinstance(event, End):
            assert place == event.token
    await link.close()
    assert place is not None
    return link, place


async def meeting(met: asyncio.Event, following: asyncio.Task[tuple[Link, int]]) -> None:
    """Wait until a listener has got its hello: who was never met may not be there at all."""
    waiting = asyncio.create_task(met.wait())
    await asyncio.wait({waiting, following}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    assert met.is_set(), following.result()  # which raises why it ended before


async def kill_again_and_again(kills: int, seed: int) -> Link:
    """Kill the connections of two listeners at random moments, some while they come back."""
    chance = random.Random(seed)
    hub = Hub(INFO, history_tokens=2_160_000)
    done = asyncio.Event()
    async with (
        WebSocketServer(hub, "127.0.0.1", 0) as server,
        FaultProxy(server.port, chance) as proxy,
    ):
        publishing = asyncio.create_task(publish_until(hub, done, 0.01))
        direct = asyncio.create_task(follow(server.url))
        met = asyncio.Event()
        following = asyncio.create_task(follow(proxy.url, met=met))
        await meeting(met, following)
        while proxy.kills < kills:
            await asyncio.sleep(chance.expovariate(1 / 0.06))
            if chance.random() < 0.1:
                proxy.refusing = not proxy.refusing
            proxy.delay_s = chance.choice([0.0, 0.0, 0.05])
            proxy.bytes_per_s = chance.choice([None, 200_000])
            proxy.kill()
            assert not following.done(), following.result()
        proxy.refusing = False
        done.set()
        await publishing
        link, end = await following
        _, end_of_the_other = await direct
    assert end == end_of_the_other == hub.next_token
    assert link.session.lost_tokens == 0
    return link


async def test_twenty_kills_and_every_token_arrives_in_order_once() -> None:
    link = await kill_again_and_again(20, seed=1)
    assert link.reconnects > 5


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
async def test_two_hundred_kills_and_every_token_arrives_in_order_once(seed: int) -> None:
    link = await kill_again_and_again(200, seed)
    assert link.reconnects > 50


async def test_a_connection_that_says_nothing_any_more_is_left(monkeypatch) -> None:
    hub = Hub(INFO, history_tokens=100_000)
    done = asyncio.Event()
    async with (
        WebSocketServer(hub, "127.0.0.1", 0) as server,
        FaultProxy(server.port) as proxy,
    ):
        publishing = asyncio.create_task(publish_until(hub, done, 0.01))
        met = asyncio.Event()
        following = asyncio.create_task(follow(proxy.url, silence_s=0.1, met=met))
        await meeting(met, following)
        proxy.freeze()
        while proxy.connections < 2:  # until the listener has left it and tries another
            await asyncio.sleep(0.01)
        proxy.thaw()
        done.set()
        await publishing
        link, end = await following
    assert link.reconnects >= 1
    assert end == hub.next_token


async def test_the_sound_is_that_of_an_unbroken_connection(tmp_path: Path) -> None:
    all_tokens = tokens(1200)
    hub = Hub(INFO, history_tokens=100_000)
    file = MemorySink()
    chance = random.Random(4)
    async with (
        WebSocketServer(hub, "127.0.0.1", 0) as server,
        FaultProxy(server.port, chance) as proxy,
    ):
        origin = await find(proxy.url, timeout_s=1.0)
        settings = streaming.ListenerSettings(backoff=QUICK)
        async with streaming.listen(origin, file, codec=FakeCodec(), settings=settings) as radio:
            playing = asyncio.create_task(radio.play())
            while not hub.listeners:
                assert not playing.done(), playing.result()
                await asyncio.sleep(0.005)
            for first in range(0, len(all_tokens), 48):
                hub.publish(all_tokens[first : first + 48], time.monotonic())
                await asyncio.sleep(0.02)
                if chance.random() < 0.3:
                    proxy.kill()
            hub.end("over", time.monotonic())
            await playing
    assert proxy.kills > 2
    assert radio.reconnects > 0
    assert radio.session.lost_tokens == 0
    assert np.array_equal(file.sound, whole_sound(all_tokens)[:, -file.samples :])
    assert file.samples == 1200 * 1920


async def test_a_sender_that_was_killed_goes_on_with_the_same_numbers(tmp_path: Path) -> None:
    """As seen by a listener that stays: no Hello, no gap, nothing twice."""
    from streaming.files.muc import StreamHeader
    from streaming.files.store import TokenStore

    seen: list[object] = []

    def revive() -> tuple[Hub, TokenStore]:
        identity = StreamHeader("fake", "fake-1", FakeCodec.digest)
        store = TokenStore(tmp_path, identity, seed=5, keep_tokens=10_000)
        info = StreamInfo("fake", "fake-1", FakeCodec.digest, 5, store.identity.stream, 48)
        hub = Hub(info, history_tokens=10_000)
        store.restore(hub.history)
        return hub, store

    def send(hub: Hub, store: TokenStore, packets: int) -> None:
        for _ in range(packets):
            packet = Tokens(hub.next_token, values(hub.next_token, hub.next_token + 48))
            store.tokens(packet, 0.0)
            hub.publish(packet.tokens, time.monotonic())

    hub, store = revive()
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(WebSocketServer(hub, "127.0.0.1", 0))
        port = server.port
        url = server.url
        link = Link(ListenerSession(OURS), await connect(url), lambda: connect(url), backoff=QUICK)

        async def listen() -> None:
            seen.extend([event async for event in link])

        listening = asyncio.create_task(listen())
        while not hub.listeners:
            assert not listening.done(), listening.result()
            await asyncio.sleep(0.005)
        send(hub, store, 5)
        await asyncio.sleep(0.05)
    store._lock.close()  # killed: nothing is closed in good order
    hub, store = revive()
    assert hub.next_token == 240
    send(hub, store, 3)  # while the listener is away
    async with WebSocketServer(hub, "127.0.0.1", port):
        while not hub.listeners:
            assert not listening.done(), listening.result()
            await asyncio.sleep(0.005)
        send(hub, store, 2)
        hub.end("over", time.monotonic())
        await listening
    store.close()
    assert [type(h) for h in seen].count(Hello) == 1
    arrived = [h for h in seen if isinstance(h, Tokens)]
    assert np.array_equal(np.concatenate([h.tokens for h in arrived]), values(0, 480))
    assert not any(isinstance(h, Gap) for h in seen)
    assert os.listdir(tmp_path)  # noqa: PTH208
