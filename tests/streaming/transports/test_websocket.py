"""The WebSocket adapters on loopback, with listeners of all manners."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

import numpy as np
import pytest
from websockets.asyncio.client import connect as plain_connect
from websockets.asyncio.server import serve as plain_serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from codec.nano.weights import BUNDLED_SHA256
from streaming.errors import ProtocolError, TransportError
from streaming.stream.hub import Hub
from streaming.stream.listener_session import CodecIdentity, ListenerSession, State
from streaming.transports.websocket import client, connect
from streaming.transports.websocket.server import WebSocketServer
from streaming.wire.messages import (
    MAX_CLIENT_MESSAGE,
    MAX_SERVER_MESSAGE,
    End,
    Failure,
    Hello,
    Join,
    StreamInfo,
    Tokens,
)
from streaming.wire.parsing import decode
from tests.codec.nano.test_entropy import GOLDEN_TOKENS

OURS = CodecIdentity("nano", "nano-1", "a" * 64)


def make_hub(**options):
    return Hub(StreamInfo("nano", "nano-1", "a" * 64, 0, packet_tokens=48), **options)


def publish(hub, count=48):
    first = hub.next_token
    hub.publish(np.arange(first, first + count) % 16_384, time.monotonic())


async def until(condition):
    while not condition():
        await asyncio.sleep(0.002)


@pytest.fixture
async def hub():
    return make_hub()


@pytest.fixture
async def server(hub):
    async with WebSocketServer(hub, "127.0.0.1", 0) as server:
        yield server


async def listen(url, history=256):
    """Listen to the end; returns the tokens heard."""
    session = ListenerSession(OURS, history=history)
    heard = []
    async with await connect(url) as connection:
        await connection.send(session.join())
        async for data in connection:
            for event in session.receive(data, time.monotonic()):
                if isinstance(event, Tokens):
                    heard += event.tokens.tolist()
    assert session.state is State.ENDED
    assert session.lost_tokens == 0
    return heard


async def assert_still_serving(hub, url):
    """Somebody new can listen, live, until the end."""
    before = hub.listeners
    listening = asyncio.create_task(listen(url, history=0))
    await until(lambda: hub.listeners > before)
    first = hub.next_token
    publish(hub)
    hub.end("over", time.monotonic())
    assert await listening == [token % 16_384 for token in range(first, first + 48)]


async def test_several_listeners_hear_the_same_from_where_they_joined(hub, server):
    publish(hub)
    listeners = []
    for count in range(1, 4):
        listeners.append(asyncio.create_task(listen(server.url)))
        await until(lambda count=count: hub.listeners == count)
        publish(hub)
    hub.end("over", time.monotonic())
    for heard in await asyncio.gather(*listeners):
        assert heard == list(range(192))
    await server.drained()
    assert hub.listeners == 0
    assert hub.most_listeners == 3


async def test_listener_that_leaves_disturbs_nobody(hub, server):
    staying = asyncio.create_task(listen(server.url))
    async with await connect(server.url) as leaving:
        await leaving.send(Join())
        await until(lambda: hub.listeners == 2)
        publish(hub)
    await until(lambda: hub.listeners == 1)
    publish(hub)
    hub.end("over", time.monotonic())
    assert await staying == list(range(96))


async def test_listener_that_is_cut_off_disturbs_nobody(hub, server):
    async with plain_connect(server.url) as rude:
        await rude.send(Join().encode())
        await until(lambda: hub.listeners == 1)
        rude.transport.abort()
        await until(lambda: hub.listeners == 0)
    await assert_still_serving(hub, server.url)


async def join_and_read_nothing(port: int) -> socket.socket:
    raw = socket.socket()
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, ("127.0.0.1", port))
    await loop.sock_sendall(
        raw,
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    )
    join = Join().encode().encode()
    await loop.sock_sendall(raw, b"\x81" + bytes([0x80 | len(join)]) + bytes(4) + join)
    return raw


async def test_listener_whose_kernel_hides_that_it_reads_nothing_is_dropped_and_nobody_else(
    monkeypatch,
):
    """Two packets of 91 bytes: no buffer on the way is anywhere near full."""
    monkeypatch.setattr("streaming.transports.websocket.server.CLOSE_TIMEOUT_S", 0.1)
    monkeypatch.setattr("streaming.stream.heartbeat.ask_interval_s", lambda max_lag_s: 0.1)
    hub = make_hub(max_lag_s=3.0)
    async with WebSocketServer(hub, "127.0.0.1", 0) as server:
        good = asyncio.create_task(listen(server.url))
        raw = await join_and_read_nothing(server.port)
        await until(lambda: hub.listeners == 2)
        publish(hub)
        await asyncio.sleep(0.2)  # then it is time to ask
        publish(hub)
        await until(lambda: hub.dropped_listeners)
        assert hub.dropped_listeners == 1
        assert hub.listeners == 1
        publish(hub)
        hub.end("over", time.monotonic())
        assert await good == list(range(144))
        await until(lambda: not server.gate.open)
        raw.close()


async def test_listener_is_asked_when_the_source_is_silent(monkeypatch):
    monkeypatch.setattr("streaming.stream.heartbeat.IDLE_S", 0.05)
    # Until then the timer is set for who does not join, and it is not set again for less.
    monkeypatch.setattr("streaming.stream.sender_session.JOIN_TIMEOUT_S", 5.0)
    hub = make_hub(max_lag_s=3.0)
    async with WebSocketServer(hub, "127.0.0.1", 0) as server:
        async with plain_connect(server.url) as well:
            await well.send(Join().encode())
            raw = await join_and_read_nothing(server.port)
            await until(lambda: hub.listeners == 2)
            await until(lambda: hub.dropped_listeners)
            assert hub.listeners == 1
            publish(hub)
            assert isinstance(decode(await well.recv()), Hello)
            assert isinstance(decode(await well.recv()), Tokens)
        raw.close()


async def test_who_catches_up_is_sent_all_though_the_stream_is_over(monkeypatch):
    hub = make_hub(history_tokens=100_000)
    for _ in range(60):
        publish(hub, 1024)
    hub.end("over", time.monotonic())
    async with WebSocketServer(hub, "127.0.0.1", 0) as server:
        heard = await listen(server.url, history=100_000)
        assert heard == [token % 16_384 for token in range(60 * 1024)]


async def test_a_sender_that_goes_away_closes_in_a_way_that_says_so(hub, server):
    async with plain_connect(server.url) as connection:
        await connection.send(Join().encode())
        await connection.recv()
        hub.go_away("It is being restarted.", time.monotonic())
        assert decode(await connection.recv()) == Failure("away", "It is being restarted.")
        with pytest.raises(ConnectionClosed):
            await connection.recv()
        assert connection.close_code == 1001


async def test_listener_that_never_reads_is_dropped_when_all_is_full(monkeypatch):
    monkeypatch.setattr("streaming.transports.websocket.server.CLOSE_TIMEOUT_S", 0.1)
    hub = make_hub(max_lag_s=400.0)
    async with WebSocketServer(hub, "127.0.0.1", 0) as server:
        good = asyncio.create_task(listen(server.url))
        raw = await join_and_read_nothing(server.port)
        await until(lambda: hub.listeners == 2)
        while not hub.dropped_listeners:
            publish(hub, 1024)
            await asyncio.sleep(0.001)
        publish(hub)
        hub.end("over", time.monotonic())
        heard = await good
        assert heard == [token % 16_384 for token in range(hub.next_token)]
        await server.drained()
        raw.close()


@pytest.mark.parametrize(
    "message",
    [b"\xde\xad\xbe\xef", "not JSON", End(3).encode(), '{"type":"join","protocol":99}'],
    ids=["bytes", "text", "wrong type", "wrong version"],
)
async def test_wrong_first_message_is_answered_with_one_sentence(hub, server, message):
    async with plain_connect(server.url) as connection:
        await connection.send(message)
        failure = decode(await connection.recv())
        assert isinstance(failure, Failure)
        assert failure.code == "protocol"
        assert failure.message.endswith(".")
        with pytest.raises(ConnectionClosed):
            await connection.recv()
        assert connection.close_code == 1002
    await assert_still_serving(hub, server.url)


async def test_garbage_after_joining_ends_that_listener_alone(hub, server):
    async with plain_connect(server.url) as connection:
        await connection.send(Join().encode())
        await connection.recv()
        await connection.send(b"\0" * 100)
        assert isinstance(decode(await connection.recv()), Failure)
    await until(lambda: hub.listeners == 0)
    await assert_still_serving(hub, server.url)


async def test_oversize_message_ends_that_listener_alone(hub, server):
    async with plain_connect(server.url) as connection:
        await connection.send("x" * (MAX_CLIENT_MESSAGE + 1))
        with pytest.raises(ConnectionClosed):
            await connection.recv()
        assert connection.close_code == 1009
    await assert_still_serving(hub, server.url)


async def test_web_pages_cannot_listen_in(hub, server):
    with pytest.raises(InvalidStatus, match="403"):
        await plain_connect(server.url, origin=Origin("http://page.example"))
    await assert_still_serving(hub, server.url)


async def test_bytes_that_are_no_websocket_harm_nobody(hub, server, caplog):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"\x16\x03\x01\x02\x00 garbage\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        await reader.read()
    writer.close()
    await assert_still_serving(hub, server.url)
    assert "Traceback" not in caplog.text


async def test_small_packets_do_not_wait_for_others_to_go_with(hub, server):
    async with plain_connect(server.url):
        (connection,) = server._server.connections
        raw = connection.transport.get_extra_info("socket")
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_who_does_not_join_is_told_and_closed(monkeypatch):
    monkeypatch.setattr("streaming.stream.sender_session.JOIN_TIMEOUT_S", 0.05)
    hub = make_hub()
    async with WebSocketServer(hub, "127.0.0.1", 0) as server:
        async with plain_connect(server.url) as connection:
            failure = decode(await connection.recv())
            assert isinstance(failure, Failure)
            assert failure.code == "timeout"
            with pytest.raises(ConnectionClosed):
                await connection.recv()
            assert connection.close_code == 1008
        monkeypatch.undo()
        await assert_still_serving(hub, server.url)


async def test_stopping_closes_those_who_listen(hub):
    async with WebSocketServer(hub, "127.0.0.1", 0) as server:
        connection = await connect(server.url)
        await connection.send(Join())
        await until(lambda: hub.listeners == 1)
        await server.drained(timeout_s=0.0)
    messages = [data async for data in connection]  # going away is good order
    assert [type(message) for message in messages] == [Hello]
    await connection.close()


async def test_port_in_use_is_said_with_what_to_do(server, hub):
    with pytest.raises(TransportError, match=rf"Port {server.port} is in use; .* --port"):
        async with WebSocketServer(hub, "127.0.0.1", server.port):
            pass


@pytest.mark.parametrize(
    ("host", "port", "told"),
    [
        ("no.such.host.invalid", 0, "unknown host"),
        ("192.0.2.1", 0, "Cannot listen on 192.0.2.1"),
        ("127.0.0.1", 70_000, "Cannot listen on 127.0.0.1 port 70000"),
    ],
)
async def test_where_one_cannot_listen_is_said(hub, host, port, told):
    with pytest.raises(TransportError, match=told):
        async with WebSocketServer(hub, host, port):
            pass


def test_address_of_an_ipv6_host_is_bracketed(hub):
    assert WebSocketServer(hub, "::1", 80).url == "ws://[::1]:80"


# The listener's adapter


@pytest.mark.parametrize("url", ["", "127.0.0.1:80", "http://127.0.0.1", "ws://", "ws://a:b"])
async def test_what_is_no_address_is_refused(url):
    with pytest.raises(TransportError, match="not the address"):
        await connect(url)


async def test_unknown_host_is_said():
    with pytest.raises(TransportError, match="unknown"):
        await connect("ws://no.such.host.invalid:1")


async def test_nothing_listening_is_said():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(TransportError, match="Nothing listens"):
            await connect(f"ws://127.0.0.1:{port}")


async def test_other_network_troubles_are_said(monkeypatch):
    async def fail(*args, **kwargs):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(client, "_Connect", fail)
    with pytest.raises(TransportError, match="Network is unreachable"):
        await connect("ws://127.0.0.1:1")


async def serve_bytes(data):
    """A server that is none of ours: answers anything with ``data``, or not at all."""

    async def answer(reader, writer):
        await reader.read(1)
        if data:
            writer.write(data)
            writer.close()
        else:
            await reader.read()
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    return server, f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    "data", [b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"\0\0\0"]
)
async def test_server_of_another_kind_is_said(data):
    server, url = await serve_bytes(data)
    with pytest.raises(TransportError, match="no WebSocket server"):
        await connect(url)
    server.close()


async def test_server_that_does_not_answer_is_said():
    server, url = await serve_bytes(b"")
    with pytest.raises(TransportError, match="did not answer"):
        await connect(url, timeout_s=0.05)
    server.close()


@contextlib.asynccontextmanager
async def plain_server(handler):
    async with plain_serve(handler, "127.0.0.1", 0, compression=None) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_oversize_message_from_a_sender_is_refused():
    async def handler(connection):
        await connection.send(bytes(MAX_SERVER_MESSAGE + 1))
        await connection.wait_closed()

    async with plain_server(handler) as url, await connect(url) as connection:
        with pytest.raises(ProtocolError, match="longer"):
            await anext(aiter(connection))


async def test_broken_connection_is_said():
    async def handler(connection):
        connection.transport.abort()

    async with plain_server(handler) as url, await connect(url) as connection:
        with pytest.raises(TransportError, match="broke"):
            await anext(aiter(connection))
        with pytest.raises(TransportError, match="broke"):
            await connection.send(Join())


async def test_coded_and_plain_packets_of_one_stream_are_heard_alike():
    """Tokens that repeat are easy to tell from those before them."""
    info = StreamInfo("nano", "nano-6", BUNDLED_SHA256, 0, packet_tokens=48)
    tokens = np.array(GOLDEN_TOKENS[:24] * 2)
    ours = CodecIdentity("nano", "nano-6", BUNDLED_SHA256)
    for entropy_coding in (True, False):
        hub = Hub(info, entropy_coding=entropy_coding)
        session, heard = ListenerSession(ours), []
        async with (
            WebSocketServer(hub, "127.0.0.1", 0) as server,
            await connect(server.url) as connection,
        ):
            await connection.send(session.join())
            await until(lambda hub=hub: hub.listeners)
            for _ in range(3):
                coded = hub.code(Tokens(hub.next_token, tokens)) if entropy_coding else None
                hub.publish(tokens, time.monotonic(), coded=coded)
            hub.end("over", time.monotonic())
            async for data in connection:
                for event in session.receive(data, time.monotonic()):
                    if isinstance(event, Tokens):
                        heard += event.tokens.tolist()
        assert heard == tokens.tolist() * 3
        plain_bits = 3 * 84 * 8
        assert (session.traffic.payload_bits < plain_bits) == entropy_coding
