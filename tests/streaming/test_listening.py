"""The front door for listeners, against real servers on loopback."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest

import streaming
from streaming.stream.hub import Hub
from streaming.transports.websocket.server import WebSocketServer
from streaming.wire.messages import StreamInfo
from tests import ROOT
from tests.support.fake_codec import FakeCodec
from tests.support.fault_proxy import FaultProxy
from tests.support.listening import MemorySink, tokens, whole_sound

ALL = tokens(960)
QUICK = streaming.Backoff(first_s=0.01, most_s=0.05)
FROM_START = streaming.ListenerSettings(backoff=QUICK, start=streaming.StartAt(token=0))
WHOLE = streaming.ListenerSettings(backoff=QUICK, history_tokens=len(ALL))


@pytest.fixture
async def hub() -> Hub:
    info = StreamInfo("fake", FakeCodec.weights, FakeCodec.digest, 5, "s", 48)
    return Hub(info, history_tokens=10_000)


@pytest.fixture
async def server(hub: Hub) -> AsyncIterator[WebSocketServer]:
    async with WebSocketServer(hub, "127.0.0.1", 0) as server:
        yield server


def publish(hub: Hub, packets: int) -> None:
    for _ in range(packets):
        first = hub.next_token
        hub.publish(ALL[first : first + 48], time.monotonic(), 0.3)


def end(hub: Hub) -> None:
    hub.end("over", time.monotonic())


def write_muc(path: Path) -> Path:
    header = streaming.StreamHeader("fake", FakeCodec.weights, FakeCodec.digest, 5)
    muc = streaming.MucEncoder(header)
    path.write_bytes(muc.title("Tape") + muc.tokens(ALL) + muc.finish(len(ALL) * 1920))
    return path


def joined(events: Sequence[object]) -> np.ndarray:
    """The tokens among ``events``."""
    return np.concatenate([e.tokens for e in events if isinstance(e, streaming.Tokens)])


async def test_tokens_and_titles_come_as_they_were_sent(hub: Hub, server: WebSocketServer) -> None:
    hub.set_title("First song", 0, time.monotonic())
    publish(hub, 4)
    end(hub)
    async with streaming.tokens(server.url, WHOLE) as stream:
        events = [event async for event in stream]
    assert isinstance(events[0], streaming.Hello)
    assert (events[0].codec, events[0].title) == ("fake", "First song")
    assert np.array_equal(joined(events), ALL[:192])
    assert events[-1] == streaming.End(192, "over")


async def test_tokens_that_were_missed_in_an_outage_come_first(
    hub: Hub, server: WebSocketServer
) -> None:
    async with FaultProxy(server.port) as proxy, streaming.tokens(proxy.url, WHOLE) as stream:
        events = []
        publish(hub, 2)
        async for event in stream:
            events.append(event)
            if isinstance(event, streaming.Tokens) and event.end_token == 96:
                proxy.kill()
                publish(hub, 4)
                end(hub)
        assert stream.reconnects == 1
    assert [type(event) for event in events].count(streaming.Hello) == 1
    assert np.array_equal(joined(events), ALL[: 6 * 48])


async def test_a_file_is_a_stream_from_its_beginning_on(tmp_path: Path) -> None:
    async with streaming.tokens(write_muc(tmp_path / "tape.muc")) as stream:
        events = [event async for event in stream]
    assert np.array_equal(joined(events), ALL)
    assert isinstance(events[-1], streaming.End)


@pytest.mark.parametrize(
    ("address", "error", "words"),
    [
        ("http://radio.example", streaming.TransportError, "write ws://HOST:PORT"),
        ("ws://127.0.0.1:1", streaming.TransportError, "listens"),
        ("mqtt://127.0.0.1:1", streaming.SettingsError, "names no topic"),
        ("mqtt://127.0.0.1:1/radio", streaming.TransportError, "broker"),
        ("none.muc", streaming.SourceError, "cannot be read"),
    ],
)
async def test_an_address_that_leads_nowhere_is_one_error_of_the_tree(
    address: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        async with streaming.tokens(address):
            pass


async def test_a_sender_that_comes_later_can_be_waited_for(hub: Hub) -> None:
    async with WebSocketServer(hub, "127.0.0.1", 0) as server:
        port = server.port
    publish(hub, 1)
    end(hub)
    settings = streaming.ListenerSettings(backoff=QUICK, wait=True)
    async with streaming.tokens(f"ws://127.0.0.1:{port}", settings) as stream:
        following = asyncio.ensure_future(anext(aiter(stream)))
        await asyncio.sleep(0.05)
        assert not following.done()
        async with WebSocketServer(hub, "127.0.0.1", port):
            assert isinstance(await following, streaming.Hello)


async def test_sound_comes_in_blocks_as_it_is_decoded(hub: Hub, server: WebSocketServer) -> None:
    hub.set_title("First song", 0, time.monotonic())
    publish(hub, 4)
    async with streaming.listen(server.url, codec=FakeCodec(), settings=FROM_START) as radio:
        blocks, latency_s = [], None
        async for block in radio:
            blocks.append(block)
            if len(blocks) == 1:
                assert radio.title == "First song"
                latency_s = radio.latency_s
                end(hub)
    sound = np.concatenate(blocks, axis=1)
    assert sound.dtype == np.float32
    assert np.array_equal(sound, whole_sound(ALL[:192]))
    assert latency_s is not None
    assert latency_s > 0
    assert radio.end_reason == "over"


async def test_sound_goes_on_after_an_outage(hub: Hub, server: WebSocketServer) -> None:
    sink = MemorySink()
    async with (
        FaultProxy(server.port) as proxy,
        streaming.listen(proxy.url, sink, codec=FakeCodec(), settings=FROM_START) as radio,
    ):
        publish(hub, 4)
        playing = asyncio.create_task(radio.play())
        while not sink.samples:
            await asyncio.sleep(0.005)
        proxy.kill()
        publish(hub, 4)
        end(hub)
        await playing
        assert radio.reconnects == 1
    assert sink.closed == 1
    assert np.array_equal(sink.sound, whole_sound(ALL[:384]))


async def test_a_listener_goes_back_in_the_stream(hub: Hub, server: WebSocketServer) -> None:
    publish(hub, 20)
    async with streaming.listen(server.url, codec=FakeCodec(), settings=FROM_START) as radio:
        moved = False
        async for _ in radio:
            if radio.position_s > 30 and not moved:
                moved = True
                radio.seek(-20)
            if moved and radio.position_s < 15:
                break
    assert radio.lost_tokens == 0


async def test_a_file_is_decoded_to_its_end(tmp_path: Path) -> None:
    path = write_muc(tmp_path / "tape.muc")
    async with streaming.listen(path, codec=FakeCodec()) as radio:
        sound = np.concatenate([block async for block in radio], axis=1)
    assert np.array_equal(sound, whole_sound(ALL))


async def test_sinks_are_closed_though_there_is_no_connection() -> None:
    sink = MemorySink()
    with pytest.raises(streaming.TransportError, match="listens"):
        async with streaming.listen("ws://127.0.0.1:1", sink, codec=FakeCodec()):
            pass
    assert sink.closed == 1


async def test_a_stream_of_other_weights_is_refused(hub: Hub, server: WebSocketServer) -> None:
    class Other(FakeCodec):
        digest = "e" * 64

    with pytest.raises(streaming.ProtocolError, match="weights"):
        async with streaming.listen(server.url, codec=Other()) as radio:
            await radio.play()


def test_tokens_need_no_model() -> None:
    code = """
import asyncio, sys, time, numpy, streaming
from streaming.stream.hub import Hub
from streaming.wire.messages import StreamInfo
from streaming.transports.websocket.server import WebSocketServer

async def main():
    hub = Hub(StreamInfo("fake", "w", "a" * 64, 0, "s", 48))
    hub.publish(numpy.arange(48), time.monotonic())
    hub.end("over", time.monotonic())
    async with WebSocketServer(hub, "127.0.0.1", 0) as server:
        async with streaming.tokens(server.url) as stream:
            async for event in stream: pass

asyncio.run(main())
sys.exit(str({"torch", "onnxruntime"} & set(sys.modules) or ""))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True)
    assert done.stderr.decode().strip() == ""
