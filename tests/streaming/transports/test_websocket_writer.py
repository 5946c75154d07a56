"""Sending to many listeners without a task each: order, turns, room, and faults of single ones."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from typing import Any, cast

import numpy as np
import pytest
from websockets.asyncio.client import connect as plain_connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from streaming.stream.hub import Hub
from streaming.stream.sender_session import NO_PUBLISHERS
from streaming.support.tls import client_context, server_context
from streaming.transports.websocket import connect
from streaming.transports.websocket.connection import Framing, GuardedConnection
from streaming.transports.websocket.server import WebSocketServer
from streaming.transports.websocket.writer import Turns, Writer
from streaming.wire.messages import End, Hello, Join, StreamInfo, Title, Tokens
from streaming.wire.parsing import decode
from tests.support.certificates import make_certificate


class FakeTransport:
    def __init__(self):
        self.aborted = False

    def abort(self):
        self.aborted = True


class FakeConnection:
    """What a writer needs of a connection; ``written`` holds what was sent, a write an item."""

    def __init__(self):
        self.has_room = True
        self.written = []
        self.transport = FakeTransport()
        self.on_room = self.on_answer = None

    def send_frames(self, frames):
        self.written.append(frames)

    def question(self):
        return b"<ping>"


class Listeners:
    """A hub and writers of connections that are none."""

    def __init__(self, turn_s=1.0, **options):
        self.hub = Hub(StreamInfo("nano", "nano-1", "a" * 64, 0, packet_tokens=48), **options)
        self.turns = Turns(turn_s)
        self.now_s = 100.0
        self.ended = []
        self.failed = []

    def add(self, join=None):
        connection = FakeConnection()
        writer = Writer(
            cast(GuardedConnection, connection),
            self.hub,
            self.turns,
            lambda: self.now_s,
            admit=lambda secret: None,
            admit_publisher=lambda publish: NO_PUBLISHERS,
            on_end=functools.partial(self.ended.append, connection),
            on_failure=functools.partial(self.failed.append, connection),
        )
        if join is not None:
            writer.session.receive(join, self.now_s)
        return writer, connection

    def publish(self, count=48):
        first = self.hub.next_token
        self.hub.publish(np.arange(first, first + count) % 16_384, self.now_s)


def frame(message):
    encoded = message.encode()
    opcode = Opcode.TEXT if isinstance(encoded, str) else Opcode.BINARY
    data = encoded.encode() if isinstance(encoded, str) else encoded
    return bytes(Frame(opcode, data).serialize(mask=False))


def packet(first, count=48):
    return Tokens(first, np.arange(first, first + count))


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_message_is_framed_once_for_everybody():
    framing = Framing()
    message = packet(0)
    assert framing.frame(message) == frame(message)
    assert framing.frame(message) is framing.frame(message)
    for number in range(100):
        title = Title(f"{number}", 0)
        assert framing.frame(title) == frame(title)
    assert len(framing._frames) < 20


async def test_what_waits_goes_out_in_one_write_and_what_is_live_in_one_each():
    listeners = Listeners()
    listeners.publish()
    _, connection = listeners.add(Join(history=48))
    await settle()
    (burst,) = connection.written
    assert burst.endswith(frame(packet(0)))
    listeners.publish()
    listeners.hub.set_title("two", 96, 0.0)
    await settle()
    assert connection.written[1] == frame(packet(48)) + frame(Title("two", 96))
    listeners.publish()
    await settle()
    assert connection.written[2:] == [frame(packet(96))]


async def test_a_ping_travels_in_one_write_with_tokens():
    listeners = Listeners()
    writer, connection = listeners.add(Join(history=0))
    await settle()
    listeners.now_s += 10.0
    listeners.publish()
    await settle()
    assert connection.written[1:] == [frame(packet(0)) + b"<ping>"]
    assert writer.session.heartbeat.deadline_s == 140.0
    listeners.publish()
    connection.on_answer()
    await settle()
    assert connection.written[2:] == [frame(packet(48))]
    assert writer.session.heartbeat.deadline_s is None


async def test_without_room_nothing_is_written_and_with_room_all_in_order():
    listeners = Listeners()
    _, connection = listeners.add(Join(history=0))
    _, other = listeners.add(Join(history=0))
    await settle()
    connection.has_room = False
    for _ in range(3):
        listeners.publish()
        await settle()
    assert len(connection.written) == 1
    assert other.written[1:] == [frame(packet(first)) for first in (0, 48, 96)]
    connection.has_room = True
    connection.on_room()
    await settle()
    assert connection.written[1:] == [b"".join(frame(packet(first)) for first in (0, 48, 96))]


async def test_who_has_no_room_and_lags_is_given_up_at_once():
    listeners = Listeners(max_lag_s=3.0)
    _, connection = listeners.add(Join(history=0))
    await settle()
    connection.has_room = False
    for _ in range(3):
        listeners.publish()
    assert listeners.failed == [connection]
    assert listeners.hub.listeners == 0
    await settle()
    assert listeners.failed == [connection]


async def test_many_listeners_take_turns_and_the_loop_goes_on_between():
    listeners = Listeners(turn_s=0.0)
    connections = [listeners.add(Join(history=0))[1] for _ in range(20)]
    for _ in range(3):
        await settle()
    listeners.publish()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert 0 < sum(len(connection.written) == 2 for connection in connections) < 20
    listeners.publish()  # who has had its turn gets another, after the others
    for _ in range(5):
        await settle()
    for connection in connections:
        assert b"".join(connection.written[1:]) == frame(packet(0)) + frame(packet(48))


async def test_a_window_is_sent_and_the_rest_when_it_was_answered():
    listeners = Listeners(history_tokens=20_000)
    for _ in range(10):
        listeners.publish(1024)
    writer, connection = listeners.add(Join(history=20_000))
    listeners.hub.end("over", 0.0)
    await settle()
    sent = b"".join(connection.written)
    assert sent.count(b"<ping>") == 1
    assert writer.session.waiting
    assert not listeners.ended
    rounds = 0
    while not listeners.ended:
        rounds += 1
        assert rounds < 10
        connection.on_answer()
        await settle()
    data = b"".join(connection.written)
    assert data.endswith(frame(End(10_240, "over")))
    places = [data.index(frame(packet_of(first))) for first in range(0, 10_240, 1024)]
    assert places == sorted(places)


def packet_of(first):
    return Tokens(first, np.arange(first, first + 1024) % 16_384)


async def test_after_the_end_nothing_is_sent_and_no_timer_runs():
    listeners = Listeners()
    writer, connection = listeners.add(Join(history=0))
    listeners.hub.end("over", 0.0)
    await settle()
    assert listeners.ended == [connection]
    written = list(connection.written)
    assert written[-1].endswith(frame(End(0, "over")))
    writer.wake()
    await settle()
    assert connection.written == written
    assert listeners.ended == [connection]
    assert writer._timer is None


async def test_who_is_stopped_between_being_woken_and_its_turn_is_sent_nothing():
    listeners = Listeners()
    writer, connection = listeners.add(Join(history=0))
    await settle()
    listeners.publish()
    writer.session.leave()
    writer.stop()
    await settle()
    assert len(connection.written) == 1


async def test_a_fault_in_sending_to_one_ends_that_one_alone(caplog):
    listeners = Listeners()
    _, broken = listeners.add(Join(history=0))
    _, other = listeners.add(Join(history=0))
    await settle()

    def fail(frames):
        raise RuntimeError("no such luck")

    broken.send_frames = fail
    listeners.publish()
    await settle()
    assert broken.transport.aborted
    assert other.written[1:] == [frame(packet(0))]
    assert "no such luck" in caplog.text


async def test_an_answer_that_is_there_but_not_read_yet_counts(monkeypatch):
    monkeypatch.setattr("streaming.transports.websocket.writer._GRACE_S", 0.02)
    listeners = Listeners(max_lag_s=3.0)
    writer, connection = listeners.add(Join(history=0))
    await settle()
    listeners.now_s += 1.0
    listeners.publish()
    await settle()
    assert writer.session.heartbeat.deadline_s == 104.0
    listeners.now_s = 110.0  # held up
    writer._ring()
    connection.on_answer()
    await asyncio.sleep(0.05)
    assert writer.session.failure is None
    assert not listeners.failed


async def test_who_has_no_room_in_silence_costs_no_computing(monkeypatch):
    monkeypatch.setattr("streaming.stream.heartbeat.IDLE_S", 0.0)
    listeners = Listeners()
    writer, connection = listeners.add(Join(history=0))
    connection.has_room = False
    await settle()
    assert writer._timer is not None  # that of the time to join by
    writer._timer.cancel()
    writer._tick()
    await settle()
    assert writer._timer is None
    connection.has_room = True
    connection.on_room()
    await settle()
    assert connection.written[-1].endswith(b"<ping>")


# Over sockets


@contextlib.asynccontextmanager
async def serving(**options):
    hub = Hub(StreamInfo("nano", "nano-1", "a" * 64, 0, packet_tokens=48))
    async with WebSocketServer(hub, "127.0.0.1", 0, **options) as server:
        yield hub, server


async def until(condition):
    while not condition():
        await asyncio.sleep(0.002)


async def read(connection, count):
    messages: list[Any] = []
    while len(messages) < count:
        messages.append(decode(await connection.recv()))
    return messages


def publish(hub):
    first = hub.next_token
    hub.publish(np.arange(first, first + 48) % 16_384, time.monotonic())


async def test_pings_of_a_client_are_answered_between_frames_of_tokens():
    async with serving() as (hub, server), plain_connect(server.url) as connection:
        await connection.send(Join(history=0).encode())
        assert isinstance(decode(await connection.recv()), Hello)
        for number in range(20):
            publish(hub)
            pong = await connection.ping()
            publish(hub)
            await pong
            before, after = await read(connection, 2)
            assert (before.first_token, after.first_token) == (96 * number, 96 * number + 48)


async def test_who_closes_while_packets_are_published_ends_in_good_order(caplog):
    async with serving() as (hub, server):
        staying = await plain_connect(server.url)
        await staying.send(Join(history=0).encode())
        await staying.recv()
        for number in range(10):
            async with plain_connect(server.url) as leaving:
                await leaving.send(Join(history=0).encode())
                await leaving.recv()
                await until(lambda: hub.listeners == 2)
                closing = asyncio.create_task(leaving.close())
                for _ in range(3):
                    publish(hub)
                    await asyncio.sleep(0)
                await closing
                assert leaving.close_code == 1000
            await until(lambda: hub.listeners == 1)
            messages = await read(staying, 3)
            assert [message.first_token for message in messages] == [
                144 * number + 48 * n for n in range(3)
            ]
        await staying.close()
    assert "Traceback" not in caplog.text


async def test_over_tls_pings_and_tokens_come_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr("streaming.stream.heartbeat.ask_interval_s", lambda max_lag_s: 0.0)
    certificate, key = make_certificate(tmp_path)
    async with serving(tls=server_context(certificate, key)) as (hub, server):
        tls = client_context(server.url, certificate)
        async with await connect(server.url, tls=tls) as connection:
            await connection.send(Join(history=0))
            messages = aiter(connection)
            assert isinstance(await anext(messages), Hello)
            for number in range(30):
                publish(hub)
                message = await anext(messages)
                assert isinstance(message, Tokens)
                assert message.first_token == 48 * number
            (outbox,) = hub._subscriptions
            assert outbox.lag_s == 0.0


async def test_the_reason_for_sending_somebody_away_comes_after_what_was_sent_before():
    async with serving() as (hub, server), plain_connect(server.url) as connection:
        await connection.send(Join(history=0).encode())
        await connection.recv()
        publish(hub)
        await asyncio.sleep(0)
        hub.end("over", time.monotonic())
        assert await read(connection, 2) == [Tokens(0, np.arange(48)), End(48, "over")]
        with pytest.raises(ConnectionClosed):
            await connection.recv()
        assert connection.close_code == 1000
