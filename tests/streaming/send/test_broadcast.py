"""The front door of the sending side: a source, a codec, outlets."""

import asyncio

import numpy as np
import pytest

import streaming
from streaming.errors import SettingsError, SourceError, TransportError
from tests.streaming.send.test_sender import Clip
from tests.support.fake_codec import FakeCodec
from tests.support.relaying import Listening


def music(seconds):
    return np.zeros((2, 48_000 * seconds), np.float32)


async def test_a_stream_is_heard_where_its_handle_says():
    outlets = [streaming.WebSocket(port=0)]
    held = asyncio.Event()

    class Held(Clip):
        def _open(self):
            asyncio.run_coroutine_threadsafe(held.wait(), loop).result(60)

    loop = asyncio.get_running_loop()
    async with streaming.Broadcast(Held(music(4)), FakeCodec(), outlets) as on_air:
        (url,) = on_air.urls
        listener = Listening(url)
        await listener.joined()
        assert on_air.figures()["listeners"] == 1
        held.set()
        await on_air.finished()
        await listener.task
    assert isinstance(listener.seen[-1], streaming.End)
    assert listener.place == 100
    figures = on_air.figures()  # which stay
    assert (figures["tokens"], figures["most_listeners"]) == (100, 1)
    assert figures["outlets"][0]["url"] == url


async def test_leaving_it_ends_the_stream_for_everybody():
    class Endless(Clip):
        live = False

    async with streaming.Broadcast(
        Endless(music(600)), FakeCodec, [streaming.WebSocket(port=0)]
    ) as on_air:
        listener = Listening(on_air.urls[0])
        await listener.joined()
    await listener.task
    assert listener.seen[-1].reason == "the sender was stopped"


async def test_what_ends_it_too_early_is_raised_by_what_waits_for_the_end():
    clip = Clip(music(2), error=SourceError("The pipe broke."))
    with pytest.raises(SourceError, match="pipe"):
        async with streaming.Broadcast(clip, FakeCodec()) as on_air:
            await on_air.finished()


async def test_an_outlet_that_cannot_open_is_said_on_entering():
    long = Clip(music(600))
    async with streaming.Broadcast(long, FakeCodec(), [streaming.WebSocket(port=0)]) as a:
        taken = streaming.WebSocket(port=int(a.urls[0].rsplit(":", 1)[1]))
        with pytest.raises(TransportError, match="is in use"):
            async with streaming.Broadcast(Clip(music(1)), FakeCodec(), [taken]):
                pass


def test_sound_needs_a_codec():
    with pytest.raises(SettingsError, match="codec"):
        streaming.Broadcast(Clip(music(1)))


async def test_work_that_is_done_ends_it_though_outlets_go_on_and_its_errors_come_out():
    class Idle:
        url = "idle:"
        entered = left = 0

        def __call__(self, hub):
            return self

        async def __aenter__(self):
            self.entered += 1
            return self

        async def __aexit__(self, *error):
            self.left += 1

        def figures(self):
            return {"kind": "idle"}

        async def failed(self):
            await asyncio.Event().wait()

    idle = Idle()
    async with streaming.Broadcast(Clip(music(1)), FakeCodec(), [idle]) as on_air:
        assert on_air.urls == ["idle:"]
        await on_air.finished()
    assert (idle.entered, idle.left) == (1, 1)
