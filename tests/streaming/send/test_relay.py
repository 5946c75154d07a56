"""A relay between real WebSockets: what its listeners hear whatever becomes of its sender."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from dataclasses import replace

import numpy as np
import pytest
from websockets.asyncio.server import serve as plain_serve
from websockets.exceptions import ConnectionClosed

from streaming.errors import RefusedError, TransportError
from streaming.send.broadcast import Broadcast
from streaming.send.forwarding import Upstream
from streaming.send.settings import ServiceSettings
from streaming.support.guard import AuthTokens
from streaming.transports.mqtt.address import MqttAddress
from streaming.transports.mqtt.connection import connect_mqtt
from streaming.transports.mqtt.publisher import Mqtt, MqttPublisher
from streaming.transports.reconnecting import Backoff
from streaming.transports.websocket import connect
from streaming.transports.websocket.outlet import WebSocket
from streaming.transports.websocket.server import WebSocketServer
from streaming.wire.messages import (
    MAX_DELAY_S,
    MAX_GAP_TOKENS,
    MAX_UNIX_S,
    End,
    Gap,
    Hello,
    Join,
    Title,
    Tokens,
)
from tests.support.fault_proxy import FaultProxy
from tests.support.mosquitto import free_port, mosquitto
from tests.support.relaying import Listening, hub_of, publish, until, values

__all__ = ["mosquitto"]

SECRET = "not quite a secret"


@pytest.fixture(autouse=True)
def _what_is_told_is_in_the_log(caplog):
    caplog.set_level(logging.INFO)


def relay(url, *, auth_token="", attempts=None, store=None, backoff=None, waits=False, dial=None):
    """A relay of the sender at ``url`` on any free port."""
    backoff = backoff or Backoff(0.01, 0.05, attempts=attempts)
    upstream = Upstream(dial or (lambda: connect(url)), auth_token, backoff, waits)
    return Broadcast(upstream, None, [WebSocket(port=0)], ServiceSettings(store=store))


async def test_the_stream_keeps_name_seed_numbers_titles_and_end():
    hub = hub_of()
    hub.set_title("First", 0, 0.0)
    publish(hub, 10)
    async with WebSocketServer(hub, "127.0.0.1", 0) as server, relay(server.url) as here:
        listener = Listening(here.urls[0], Join(history=10_000))
        await until(lambda: listener.place == 480)
        hub.set_title("Second", 480, time.monotonic())
        publish(hub, 2)
        await until(lambda: listener.place == 576)
        hub.end("the last song", time.monotonic())
        await listener.task
        await here.finished()
    hello = listener.seen[0]
    assert (hello.stream, hello.seed, hello.first_token, hello.title) == ("s", 5, 0, "First")
    assert (hello.codec, hello.weights, hello.digest) == ("fake", "fake-1", "a" * 64)
    assert hello.packet_tokens == 48
    assert hello.delay_s == pytest.approx(0.3)
    assert np.array_equal(listener.tokens, values(0, 576))
    assert listener.of(Title) == [Title("Second", 480)]
    assert listener.seen[-1] == End(576, "the last song")
    assert not listener.of(Gap)


async def test_hours_are_named_by_the_clock_of_the_first_sender(monkeypatch):
    hub = hub_of()
    publish(hub, 10)
    an_hour_ahead = time.time() + 3600
    hub.history.timeline.__init__()
    hub.history.timeline.note(0, an_hour_ahead - 480 / 25 - 0.3)
    async with WebSocketServer(hub, "127.0.0.1", 0) as server, relay(server.url) as here:
        publish(hub, 1)
        listener = Listening(here.urls[0], Join(history=10_000))
        await until(lambda: listener.place == 528)
        await listener.end()
    assert listener.seen[0].first_at_s == pytest.approx(an_hour_ahead - 480 / 25, abs=2.0)


async def test_listeners_rewind_and_resume_at_the_relay():
    hub = hub_of()
    publish(hub, 10)
    async with WebSocketServer(hub, "127.0.0.1", 0) as server, relay(server.url) as here:
        publish(hub, 10)
        back = Listening(here.urls[0], Join(next_token=100, stream="s"))
        await until(lambda: back.place == 960)
        assert back.seen[0].first_token == 100
        assert np.array_equal(back.tokens, values(100, 960))
        await back.end()
        # One that was with the first sender goes on at the relay as if it were the same.
        moving = Listening(server.url)
        await moving.joined()
        publish(hub, 1)
        await until(lambda: moving.place == 1008)
        moving.url = here.urls[0]
        assert moving.link is not None
        await moving.link._connection.close()
        publish(hub, 2)
        await until(lambda: moving.place == 1104)
        assert len(moving.of(Hello)) == 1
        assert np.array_equal(moving.tokens, values(960, 1104))
        await moving.end()


async def test_listeners_stay_while_the_sender_is_lost_and_miss_nothing():
    hub = hub_of()
    async with (
        WebSocketServer(hub, "127.0.0.1", 0) as server,
        FaultProxy(server.port) as proxy,
        relay(proxy.url) as here,
    ):
        listener = Listening(here.urls[0])
        await listener.joined()
        for round_ in range(1, 6):
            publish(hub, 2)
            await until(lambda at=96 * 2 * round_ - 96: listener.place == at)
            proxy.kill()
            publish(hub, 2)
            await until(lambda at=96 * 2 * round_: listener.place == at)
        assert listener.link.reconnects == 0
        await listener.end()
    assert proxy.kills >= 5
    assert np.array_equal(listener.tokens, values(0, 960))
    assert [type(event) for event in listener.seen].count(Hello) == 1
    assert not listener.of(Gap)


async def after_an_outage(packets, size=48):
    """What a listener of a relay has heard that was cut off for longer than the sender holds.

    Returns the listener, and the gap in what it has heard.
    """
    hub = hub_of(history=1024)
    async with (
        WebSocketServer(hub, "127.0.0.1", 0) as server,
        FaultProxy(server.port) as proxy,
        relay(proxy.url) as here,
    ):
        publish(hub, 1)
        listener = Listening(here.urls[0], Join(history=1000))
        await until(lambda: listener.place == 48)
        proxy.refusing = True
        proxy.kill()
        publish(hub, packets, size)
        proxy.refusing = False
        await until(lambda: listener.place == 48 + packets * size)
        assert listener.link.reconnects == 0
        await listener.end()
    (gap,) = listener.of(Gap)
    assert gap.first_token == 48
    return listener, gap


async def test_what_the_sender_no_longer_has_is_a_gap():
    listener, gap = await after_an_outage(100)
    assert np.array_equal(listener.tokens[48:], values(gap.first_token + gap.count, 4848))


async def test_a_gap_of_more_than_ten_minutes_is_handed_on_as_any_other():
    listener, gap = await after_an_outage(20, size=1024)
    assert gap.count > MAX_GAP_TOKENS
    assert np.array_equal(listener.tokens[48:], values(gap.first_token + gap.count, 20_528))


@contextlib.asynccontextmanager
async def saying(*messages):
    """A sender that says this to everybody, and then nothing."""

    async def handler(connection):
        with contextlib.suppress(ConnectionClosed):
            await connection.recv()
            for message in messages:
                await connection.send(message.encode())
            await connection.wait_closed()

    async with plain_serve(handler, "127.0.0.1", 0, close_timeout=0.1) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("first_at_s", [0.0, 5.0, MAX_UNIX_S / 2, MAX_UNIX_S])
@pytest.mark.parametrize("wrong_s", [0.0, 80_000.0, MAX_DELAY_S])
async def test_a_sender_with_a_clock_that_is_far_off_costs_nobody_the_stream(first_at_s, wrong_s):
    hello = hub_of().hello(0, 0.0)
    hello = replace(hello, next_token=4800, age_s=wrong_s, delay_s=wrong_s, first_at_s=first_at_s)
    packets = [Tokens(at, values(at, at + 48)) for at in range(0, 5760, 48)]
    async with (
        saying(hello, *packets) as url,
        relay(url) as here,
        relay(here.urls[0]) as further,
    ):
        listener = Listening(further.urls[0], Join(history=1000))
        await until(lambda: listener.place == 5760 or listener.task.done())
        await listener.end()
    assert np.array_equal(listener.tokens, values(listener.seen[0].first_token, 5760))


async def test_a_flood_of_titles_does_not_go_through():
    packets = [Tokens(at, values(at, at + 48)) for at in range(0, 96, 48)]
    titles = [Title(f"title {n}", 2**32 - 1 - n) for n in range(5000)]
    last = Title("after the flood", 48)
    everything = (hub_of().hello(0, 0.0), packets[0], *titles, last, packets[1])
    async with saying(*everything) as url, relay(url) as here:
        listener = Listening(here.urls[0], Join(history=1000))
        await until(lambda: listener.place == 96)
        await listener.end()
    assert len(listener.of(Title)) <= 17
    assert listener.session.title == "after the flood"


async def test_another_stream_in_the_senders_place_begins_anew():
    hub = hub_of()
    other = hub_of("t", seed=9)
    publish(other, 1)
    async with contextlib.AsyncExitStack() as sending:
        server = await sending.enter_async_context(WebSocketServer(hub, "127.0.0.1", 0))
        async with relay(server.url) as here:
            publish(hub, 3)
            listener = Listening(here.urls[0], Join(history=1000))
            await until(lambda: listener.place == 144)
            await sending.aclose()
            await sending.enter_async_context(WebSocketServer(other, "127.0.0.1", server.port))
            await until(lambda: len(listener.of(Hello)) == 2)
            publish(other, 2)
            await until(lambda: listener.place == 144)
            other.end("over", time.monotonic())
            await listener.task
            await here.finished()
    hello = listener.of(Hello)[1]
    assert (hello.stream, hello.seed) == ("t", 9)
    last = max(n for n, seen in enumerate(listener.seen) if isinstance(seen, Hello))
    again = [seen.tokens for seen in listener.seen[last:] if isinstance(seen, Tokens)]
    assert np.array_equal(np.concatenate(again), values(0, 144))


async def test_a_chain_of_relays_carries_the_same_stream():
    hub = hub_of()
    publish(hub, 5)
    async with (
        WebSocketServer(hub, "127.0.0.1", 0) as server,
        relay(server.url) as first,
        FaultProxy(int(first.urls[0].rsplit(":", 1)[1])) as proxy,
        relay(proxy.url) as second,
    ):
        listener = Listening(second.urls[0], Join(history=1000))
        await until(lambda: listener.place == 240)
        proxy.kill()
        publish(hub, 3)
        await until(lambda: listener.place == 384)
        hub.end("over", time.monotonic())
        await listener.task
        await first.finished()
        await second.finished()
    assert np.array_equal(listener.tokens, values(0, 384))
    assert listener.seen[0].stream == "s"
    assert listener.seen[-1] == End(384, "over")


async def test_with_a_store_a_relay_goes_on_where_it_stopped(tmp_path):
    hub = hub_of()
    publish(hub, 3)
    async with WebSocketServer(hub, "127.0.0.1", 0) as server:
        async with relay(server.url, store=tmp_path):
            publish(hub, 2)
            await until(lambda: not hub.listeners or tmp_path.glob("*.muc"))
            await asyncio.sleep(0.05)
        publish(hub, 30)  # while the relay is down
        async with relay(server.url, store=tmp_path) as here:
            listener = Listening(here.urls[0], Join(history=100_000))
            await until(lambda: listener.place == 35 * 48)
            await listener.end()
        assert np.array_equal(listener.tokens, values(0, 35 * 48))
        other = hub_of("t")
        async with WebSocketServer(other, "127.0.0.1", 0) as elsewhere:
            with pytest.raises(Exception, match="holds the stream s and this is t"):
                async with relay(elsewhere.url, store=tmp_path):
                    pass


async def test_the_sender_may_ask_for_a_secret():
    hub = hub_of()
    async with WebSocketServer(hub, "127.0.0.1", 0, auth=AuthTokens([SECRET])) as server:
        async with relay(server.url, auth_token=SECRET) as here:
            listener = Listening(here.urls[0])  # the relay's own listeners need none
            await listener.joined()
            await listener.end()
        with pytest.raises(RefusedError, match="access token"):
            async with relay(server.url):
                pass


async def test_a_sender_that_stays_away_is_told_to_listeners(caplog):
    async def lose_the_sender(proxy):
        async with relay(proxy.url, attempts=2) as here:
            publish(hub, 1)
            listener = Listening(here.urls[0], Join(history=1000))
            await until(lambda: listener.place == 48)
            proxy.refusing = True
            proxy.kill()
            try:
                await here.finished()
            finally:
                await until(lambda: "This relay has lost its sender" in caplog.text)
                await listener.end()
                # The stream is not over: a listener waits for the relay.
                assert not listener.of(End)

    hub = hub_of()
    async with WebSocketServer(hub, "127.0.0.1", 0) as server, FaultProxy(server.port) as proxy:
        with pytest.raises(TransportError):
            await lose_the_sender(proxy)


async def test_a_relay_that_is_stopped_says_so(caplog):
    hub = hub_of()
    async with WebSocketServer(hub, "127.0.0.1", 0) as server, relay(server.url) as here:
        listener = Listening(here.urls[0])
        await listener.joined()
        here.stop.set()
        await here.finished()
        await until(lambda: "It was stopped" in caplog.text)
        await listener.end()
    assert not listener.of(End)  # the stream is not over: a listener waits for the relay
    assert hub.listeners == 0


async def test_without_a_sender_there_is_no_relay():
    with pytest.raises(TransportError, match="Nothing listens"):
        async with relay("ws://127.0.0.1:1"):
            pass


async def test_a_sender_that_is_not_there_yet_can_be_waited_for(caplog):
    hub = hub_of()
    publish(hub, 2)
    async with contextlib.AsyncExitStack() as stack:
        port = free_port()

        async def begin():
            await until(lambda: "waiting for the sender" in caplog.text)
            await stack.enter_async_context(WebSocketServer(hub, "127.0.0.1", port))

        beginning = asyncio.create_task(begin())
        async with relay(f"ws://127.0.0.1:{port}", waits=True) as here:
            await beginning
            listener = Listening(here.urls[0], Join(history=1000))
            await until(lambda: listener.place == 96)
            hub.end("over", time.monotonic())
            await listener.task
            await here.finished()
    assert np.array_equal(listener.tokens, values(0, 96))


async def test_waiting_for_a_sender_ends_when_it_is_stopped(caplog):
    async def wait():
        async with here:
            await here.finished()

    here = relay("ws://127.0.0.1:1", waits=True)
    waiting = asyncio.create_task(wait())
    await until(lambda: "waiting for the sender" in caplog.text)
    here.stop.set()
    await waiting
    assert not here.urls


async def test_a_stream_at_a_broker_is_served_over_websockets(mosquitto):
    address = MqttAddress.parse(mosquitto().url("radio/first"))
    hub = hub_of()
    hub.set_title("First", 0, 0.0)
    publish(hub, 3)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(MqttPublisher(hub, Mqtt(address)))
        dial = functools.partial(connect_mqtt, address)
        here = await stack.enter_async_context(relay("", dial=dial, waits=True))
        listener = Listening(here.urls[0], Join(history=1000))
        await until(lambda: listener.place == 144)
        publish(hub, 2)
        hub.set_title("Second", 240, time.monotonic())
        await until(lambda: listener.of(Title))
        hub.end("over", time.monotonic())
        await listener.task
        await here.finished()
    hello = listener.seen[0]
    assert (hello.stream, hello.seed, hello.title) == ("s", 5, "First")
    assert np.array_equal(listener.tokens, values(hello.first_token, 240))
    assert listener.of(Title) == [Title("Second", 240)]
    assert listener.seen[-1] == End(240, "over")


async def test_a_relay_of_a_broker_comes_back_when_that_was_killed(mosquitto):
    broker = mosquitto()
    address = MqttAddress.parse(broker.url("radio"))
    hub = hub_of()
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(MqttPublisher(hub, Mqtt(address)))
        dial = functools.partial(connect_mqtt, address)
        here = await stack.enter_async_context(relay("", dial=dial, waits=True))
        publish(hub, 1)
        listener = Listening(here.urls[0], Join(history=1000))
        await until(lambda: listener.place == 48)
        broker.kill()
        publish(hub, 2)
        broker.start()
        await until(lambda: listener.place == 144)
        publish(hub, 1)
        await until(lambda: listener.place == 192)
        assert listener.link.reconnects == 0
        await listener.end()
    assert np.array_equal(listener.tokens, values(0, 192))


async def test_a_sender_that_has_lost_what_it_sent_begins_anew():
    hub = hub_of()
    shorter = hub_of()
    publish(shorter, 2)
    async with contextlib.AsyncExitStack() as sending:
        server = await sending.enter_async_context(WebSocketServer(hub, "127.0.0.1", 0))
        async with relay(server.url) as here:
            publish(hub, 5)
            listener = Listening(here.urls[0], Join(history=1000))
            await until(lambda: listener.place == 240)
            await sending.aclose()
            await sending.enter_async_context(WebSocketServer(shorter, "127.0.0.1", server.port))
            await until(lambda: len(listener.of(Hello)) == 2)
            publish(shorter, 1)
            await until(lambda: listener.place == 144)
            await listener.end()


async def test_a_stream_without_a_name_is_relayed_as_well(caplog):
    hub = hub_of("")
    publish(hub, 2)
    async with WebSocketServer(hub, "127.0.0.1", 0) as server, relay(server.url) as here:
        listener = Listening(here.urls[0], Join(history=1000))
        await until(lambda: listener.place == 96)
        publish(hub, 1)
        await until(lambda: listener.place == 144)
        await listener.end()
    assert len(listener.of(Hello)) == 1
    assert "another stream" not in caplog.text
