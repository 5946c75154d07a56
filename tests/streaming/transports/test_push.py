"""Senders that push to a relay, over real WebSockets: who gets in, and what is heard."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import time

import numpy as np
import pytest
from websockets.asyncio.client import connect as plain_connect
from websockets.asyncio.server import serve as plain_serve
from websockets.exceptions import ConnectionClosed

from streaming.cli.server import serve_publishers
from streaming.errors import ProtocolError, RefusedError, TransportError
from streaming.send.settings import ServiceSettings
from streaming.stream.listener_session import ListenerSession
from streaming.support.guard import AuthTokens
from streaming.support.stats import StatsWriter
from streaming.support.status_line import StatusLine
from streaming.support.tls import client_context, server_context
from streaming.transports.link import Link
from streaming.transports.push.intake import Intake
from streaming.transports.push.pusher import Push, Pusher
from streaming.transports.reconnecting import Backoff
from streaming.transports.websocket.outlet import WebSocket
from streaming.transports.websocket.server import WebSocketServer
from streaming.wire.messages import (
    MAX_SERVER_MESSAGE,
    End,
    Failure,
    Gap,
    Hello,
    Join,
    Publish,
    StreamInfo,
    Title,
    Tokens,
)
from streaming.wire.parsing import decode
from tests.support.certificates import make_certificate
from tests.support.fault_proxy import FaultProxy
from tests.support.relaying import QUICK, Listening, hub_of, publish, until, values

SECRET = "the publishers' secret"
LISTENERS = "the listeners' secret"


@pytest.fixture(autouse=True)
def _what_is_told_is_in_the_log(caplog):
    caplog.set_level(logging.DEBUG, "streaming")


@contextlib.asynccontextmanager
async def relay(*others, **settings):
    """The server of a relay that waits for publishers; others: outlets beside its WebSocket."""
    stop, opened = asyncio.Event(), asyncio.get_running_loop().create_future()

    class Opening(WebSocket):
        @contextlib.asynccontextmanager
        async def __call__(self, hub):
            async with super().__call__(hub) as server:
                if not opened.done():
                    opened.set_result(server)
                yield server

    listen = {name: settings.pop(name) for name in ("auth_tokens", "tls") if name in settings}
    outlets = [Opening(port=0, intake=Intake(AuthTokens([SECRET])), **listen), *others]
    given, stats = ServiceSettings(**settings), StatsWriter(None)
    serving = asyncio.create_task(serve_publishers(outlets, given, stats, StatusLine(), stop))
    try:
        await asyncio.wait({serving, opened}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        yield opened.result()
    finally:
        stop.set()
        await serving


def pusher(hub, url, secret=SECRET, **options):
    return Pusher(hub, Push(url, secret, **{"backoff": QUICK, **options}))


@contextlib.asynccontextmanager
async def publisher(url, name="me", secret=SECRET):
    """Somebody who says that he publishes, and then whatever a test makes him say."""
    async with plain_connect(url, ping_interval=None) as connection:
        await connection.send(Publish(name, secret).encode())
        yield connection


async def joined(connection):
    """Wait until the relay has let a publisher in; returns what it wants."""
    join = decode(await connection.recv())
    assert isinstance(join, Join)
    return join


async def refused(connection, code):
    failure = decode(await connection.recv())
    assert isinstance(failure, Failure)
    assert failure.code == code
    assert failure.message.endswith(".")
    with pytest.raises(ConnectionClosed):
        await connection.recv()
    return failure.message


# The stream


async def test_what_is_pushed_is_heard_with_its_name_seed_numbers_titles_and_end(caplog):
    hub = hub_of()
    hub.set_title("First", 0, 0.0)
    publish(hub, 10)
    async with relay() as here, pusher(hub, here.url) as pushing:
        await until(lambda: not pushing.away)
        listener = Listening(here.url, Join(history=10_000), waits=True)
        await until(lambda: listener.place == 480)
        hub.set_title("Second", 480, time.monotonic())
        publish(hub, 2)
        await until(lambda: listener.place == 576)
        assert (hub.listeners, hub.joins) == (0, 0)  # a relay is none
        hub.end("the last song", time.monotonic())
        await listener.task
    hello = listener.seen[0]
    assert (hello.stream, hello.seed, hello.first_token, hello.title) == ("s", 5, 0, "First")
    assert (hello.codec, hello.weights, hello.digest) == ("fake", "fake-1", "a" * 64)
    assert hello.delay_s == pytest.approx(0.3)
    assert np.array_equal(listener.tokens, values(0, 576))
    assert listener.of(Title) == [Title("Second", 480)]
    assert listener.seen[-1] == End(576, "the last song")
    assert SECRET not in caplog.text


async def test_after_the_end_of_one_stream_the_relay_waits_for_the_next(caplog):
    async with relay() as here:
        for number, stream in enumerate("st"):
            hub = hub_of(stream)
            publish(hub, 3)
            async with pusher(hub, here.url):
                listener = Listening(here.url, Join(history=1000), waits=True)
                await until(lambda listener=listener: listener.place == 144)
                hub.end("over", time.monotonic())
                await listener.task
            assert listener.seen[0].stream == stream
            assert listener.seen[-1] == End(144, "over")
            await until(lambda n=number: caplog.text.count("waiting for a publisher") == n + 2)


async def test_who_connects_before_a_stream_and_joins_after_it_began_is_asked_to_come_again():
    hub = hub_of()
    publish(hub, 3)
    async with (
        relay() as here,
        plain_connect(here.url, ping_interval=None) as early,
        pusher(hub, here.url),
    ):
        listener = Listening(here.url, Join(history=1000), waits=True)
        await until(lambda: listener.place == 144)
        await early.send(Join().encode())
        await refused(early, "away")
        await listener.end()


async def test_before_the_first_publisher_listeners_are_asked_to_come_again():
    async with relay() as here:
        with pytest.raises(RefusedError, match="Nobody publishes here yet") as refusal:
            await Listening(here.url).task
        assert refusal.value.code == "away"
        waiting = Listening(here.url, Join(history=1000), waits=True)
        await until(lambda: waiting.link and waiting.link.reconnects > 2)
        hub = hub_of()
        publish(hub, 2)
        async with pusher(hub, here.url):
            await until(lambda: waiting.place == 96)
            await waiting.end()


async def test_connections_are_killed_and_every_token_arrives_in_order_once():
    hub = hub_of()
    async with (
        relay() as here,
        FaultProxy(here.port) as proxy,
        pusher(hub, proxy.url) as pushing,
    ):
        publish(hub, 1)
        listener = Listening(here.url, Join(history=1000), waits=True)
        await until(lambda: listener.place == 48)
        for round_ in range(20):
            proxy.kill()
            publish(hub, 2)
            await until(lambda at=48 + 96 * (round_ + 1): listener.place == at)
        assert pushing.reconnects == 20
        assert len(listener.of(Hello)) == 1  # its own connection stood
        await listener.end()
    assert np.array_equal(listener.tokens, values(0, 48 + 20 * 96))
    assert not listener.of(Gap)


async def test_a_relay_that_is_away_is_waited_for_from_the_start_and_later(caplog):
    hub = hub_of()
    publish(hub, 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{taken.getsockname()[1]}"
        async with pusher(hub, url) as pushing:
            await until(lambda: pushing._failed > 3)
        assert pushing.away
    assert caplog.text.count("WARNING") == 1
    assert "coming back to the relay, since nothing listens at" in caplog.text


async def test_a_sender_that_goes_and_means_to_come_back_keeps_the_listeners():
    hub = hub_of()
    publish(hub, 2)
    async with relay() as here:
        async with pusher(hub, here.url):
            listener = Listening(here.url, Join(history=1000), waits=True)
            await until(lambda: listener.place == 96)
            hub.go_away("It was stopped.", time.monotonic())
        again = hub_of()
        publish(again, 5)
        async with pusher(again, here.url):
            await until(lambda: listener.place == 240)
            await listener.end()
    assert np.array_equal(listener.tokens, values(0, 240))
    assert len(listener.of(Hello)) == 1


async def test_a_stream_that_begins_anew_does_so_for_the_relays_listeners():
    hub = hub_of()
    publish(hub, 2)
    async with relay() as here, pusher(hub, here.url):
        listener = Listening(here.url, Join(history=1000), waits=True)
        await until(lambda: listener.place == 96)
        hub.begin_anew(StreamInfo("fake", "fake-1", "a" * 64, 9, "t", 48), 0)
        publish(hub, 1)
        await until(lambda: len(listener.of(Hello)) == 2 and listener.place == 48)
        await listener.end()
    assert [hello.stream for hello in listener.of(Hello)] == ["s", "t"]


async def test_a_relay_pushes_what_was_pushed_to_it():
    hub = hub_of()
    publish(hub, 2)
    async with relay() as last:
        push = Push(last.url, SECRET, backoff=QUICK)
        async with relay(push) as first, pusher(hub, first.url):
            listener = Listening(last.url, Join(history=1000), waits=True)
            await until(lambda: listener.place == 96)
            publish(hub, 2)
            await until(lambda: listener.place == 192)
            await listener.end()
    assert np.array_equal(listener.tokens, values(0, 192))


async def test_hours_of_history_are_no_flood():
    hub = hub_of()
    publish(hub, 95, size=1024)
    async with relay() as here, pusher(hub, here.url):
        # The relay asks for what listeners ask for, then for all that it missed.
        listener = Listening(here.url, Join(history=1000), waits=True)
        await until(lambda: listener.place == 95 * 1024)
        await listener.end()
    raw = relay()
    async with raw as here, publisher(here.url) as rich:
        await joined(rich)
        await rich.send(hub.hello(0, 0.0).encode())
        for first in range(0, 95 * 1024, 1024):  # 170 KB, of which a listener may say 32
            await rich.send(Tokens(first, values(first, first + 1024)).encode())
        listener = Listening(here.url, Join(history=100_000), waits=True)
        await until(lambda: listener.place == 95 * 1024)
        await listener.end()


async def test_it_goes_through_tls(tmp_path):
    cert, key = make_certificate(tmp_path)
    hub = hub_of()
    async with relay(tls=server_context(cert, key)) as here:
        tls = client_context(here.url, cert)
        assert here.url.startswith("wss://")
        async with pusher(hub, here.url, tls=tls) as pushing:
            await until(lambda: not pushing.away)


# Who gets in


async def test_a_wrong_secret_is_refused_once_and_for_all(caplog):
    async with relay(auth_tokens=[LISTENERS]) as here:
        for secret in ("wrong secret", LISTENERS, ""):
            async with pusher(hub_of(), here.url, secret) as pushing:
                with pytest.raises(
                    RefusedError, match=r"The relay closed .* publish token"
                ) as told:
                    await pushing.failed()
            assert told.value.code == "auth"
    assert SECRET not in caplog.text
    assert LISTENERS not in caplog.text


async def test_the_publishers_secret_lets_nobody_listen():
    async with (
        relay(auth_tokens=[LISTENERS]) as here,
        pusher(hub_of(), here.url) as pushing,
    ):
        await until(lambda: not pushing.away)
        for secret in (SECRET, ""):
            async with plain_connect(here.url) as connection:
                await connection.send(Join(auth_token=secret).encode())
                await refused(connection, "auth")


async def test_where_nobody_can_publish_one_is_told():
    server = WebSocketServer(hub_of(), "127.0.0.1", 0)
    async with server, pusher(hub_of(), server.url) as pushing:
        with pytest.raises(RefusedError, match="--accept-push"):
            await pushing.failed()


async def test_a_second_publisher_waits_for_its_turn(caplog):
    first, second = hub_of("s"), hub_of("t")
    publish(second, 1)
    async with relay() as here:
        async with pusher(first, here.url) as pushing:
            await until(lambda: not pushing.away)
            waiting = pusher(second, here.url)
            await waiting.__aenter__()
            await until(lambda: waiting._failed > 2)
            assert "Somebody else publishes here" in caplog.text
            assert not pushing.away
            first.end("over", time.monotonic())
        await until(lambda: not waiting.away)
        listener = Listening(here.url, Join(history=1000), waits=True)
        await until(lambda: listener.place == 48)
        await listener.end()
        await waiting.__aexit__(None, None, None)
    assert listener.seen[0].stream == "t"


async def test_a_publisher_takes_the_place_of_a_connection_that_it_gave_up():
    hub = hub_of()
    publish(hub, 2)
    async with relay() as here, publisher(here.url) as first:
        await joined(first)
        await first.send(hub.hello(0, 0.0).encode())
        await first.send(Tokens(0, values(0, 96)).encode())
        listener = Listening(here.url, Join(history=1000), waits=True)
        await until(lambda: listener.place == 96)
        for name in ("you", ""):
            async with publisher(here.url, name) as other:
                await refused(other, "busy")
        async with publisher(here.url) as second:
            assert (await joined(second)).next_token == 96
            with pytest.raises(ConnectionClosed):
                await first.recv()
            await second.send(hub.hello(96, 0.0).encode())
            await second.send(Tokens(96, values(96, 192)).encode())
            await until(lambda: listener.place == 192)
        assert listener.link.reconnects == 0 or len(listener.of(Hello)) == 1
        await listener.end()
    assert np.array_equal(listener.tokens, values(0, 192))


async def raw_publisher(port, name="silent"):
    """A publisher whose machine has vanished: nothing reads, nothing answers."""
    raw = socket.socket()
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, ("127.0.0.1", port))
    await loop.sock_sendall(
        raw,
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    )
    message = Publish(name, SECRET).encode().encode()
    assert len(message) < 126
    await loop.sock_sendall(raw, b"\x81" + bytes([0x80 | len(message)]) + bytes(4) + message)
    return raw


@contextlib.asynccontextmanager
async def reading(intake):
    """A server with an intake, and what a relay's link hears from there."""
    seen = []
    link = Link(ListenerSession(None), None, intake.dial, backoff=Backoff(0.0, 0.0), anybody=True)

    async def read():
        seen.extend([event async for event in link])

    async with WebSocketServer(hub_of(), "127.0.0.1", 0, intake=intake) as server:
        task = asyncio.create_task(read())
        yield server, link, seen
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await link.close()


async def test_a_publisher_that_has_vanished_frees_its_place(caplog):
    intake = Intake(AuthTokens([SECRET]), silence_s=0.1, timeout_s=0.1)
    async with reading(intake) as (server, link, _):
        raw = await raw_publisher(server.port)
        await until(lambda: " came" in caplog.text)
        hub = hub_of()
        async with pusher(hub, server.url) as pushing:
            await until(lambda: not pushing.away)
        assert link.reconnects == 1
        raw.close()


async def test_a_publisher_that_says_nothing_frees_its_place():
    intake = Intake(AuthTokens([SECRET]))
    async with reading(intake) as (server, link, _):
        link._hello_timeout_s = 0.1
        async with publisher(server.url) as mute:
            await joined(mute)
            async with pusher(hub_of(), server.url) as pushing:
                await until(lambda: not pushing.away)


def test_an_intake_for_everybody_is_refused():
    with pytest.raises(ValueError, match="secret"):
        Intake(AuthTokens())


# Harm


async def test_who_has_no_secret_cannot_flood():
    hub = hub_of()
    publish(hub, 1)
    async with relay() as here, pusher(hub, here.url):
        listener = Listening(here.url, Join(history=1000), waits=True)
        await until(lambda: listener.place == 48)
        for flood in ("x" * 30_000, "x" * (MAX_SERVER_MESSAGE + 1)):
            async with plain_connect(here.url, ping_interval=None) as connection:
                with contextlib.suppress(ConnectionClosed):
                    for _ in range(3):
                        await connection.send(flood)
                    while True:
                        failure = decode(await connection.recv())
                        assert isinstance(failure, Failure)
                        assert failure.code == "protocol"
        async with plain_connect(here.url, ping_interval=None) as connection:
            with contextlib.suppress(ConnectionClosed):
                for number in range(10_000):
                    await connection.ping(f"{number:0100}")
            with pytest.raises(ConnectionClosed):
                await connection.recv()
        publish(hub, 1)
        await until(lambda: listener.place == 96)
        await listener.end()


async def test_a_first_message_that_is_too_long_is_refused():
    async with relay() as here, plain_connect(here.url) as connection:
        await connection.send(Publish("me", "x" * 1024).encode() + " " * 4096)
        assert "too long" in await refused(connection, "protocol")


async def test_a_publisher_that_does_not_read_the_answers_to_its_pings_is_cut(caplog):
    async with relay() as here:
        raw = await raw_publisher(here.port, "flood")
        await until(lambda: " came" in caplog.text)
        ping = (b"\x89" + bytes([0x80 | 125]) + bytes(4) + bytes(125)) * 100
        with contextlib.suppress(OSError):
            while True:
                await asyncio.get_running_loop().sock_sendall(raw, ping)
        raw.close()
        async with pusher(hub_of(), here.url) as pushing:
            await until(lambda: not pushing.away)


@pytest.mark.parametrize(
    "nonsense",
    [b"\xde\xad", "no JSON", Join().encode()],
    ids=["bytes", "text", "a join"],
)
async def test_a_publisher_that_talks_nonsense_is_told_and_the_relay_goes_on(nonsense):
    hub = hub_of()
    publish(hub, 1)
    async with relay() as here:
        async with publisher(here.url) as early:
            await joined(early)
            await early.send(nonsense)
            await refused(early, "protocol")
        async with publisher(here.url) as mad:
            await joined(mad)
            await mad.send(hub.hello(0, 0.0).encode())
            await mad.send(Tokens(0, values(0, 48)).encode())
            listener = Listening(here.url, Join(history=1000), waits=True)
            await until(lambda: listener.place == 48)
            await mad.send(nonsense)
            message = decode(await mad.recv())
            assert isinstance(message, Failure)
            assert message.code == "protocol"
        async with publisher(here.url, "refuses") as refusing:
            await joined(refusing)
            await refusing.send(Failure("auth", "Not with us.").encode())
        publish(hub, 1)
        async with pusher(hub, here.url):
            await until(lambda: listener.place == 96)
            await listener.end()
    assert np.array_equal(listener.tokens, values(0, 96))


# Relays that are none


@contextlib.asynccontextmanager
async def answering(handler):
    async with plain_serve(
        handler, "127.0.0.1", 0, ping_interval=None, close_timeout=0.1
    ) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        (["no JSON"], "not valid JSON"),
        ([hub_of().hello(0, 0.0).encode()], "no relay that takes streams"),
    ],
)
async def test_what_is_no_relay_ends_pushing(answers, told):
    async with answering(saying(*answers)) as url, pusher(hub_of(), url) as pushing:
        with pytest.raises(ProtocolError, match=told):
            await pushing.failed()


def saying(*answers):
    """A relay that says this, whatever it is told."""

    async def handler(connection):
        await connection.recv()
        with contextlib.suppress(ConnectionClosed):
            for answer in answers:
                await connection.send(answer)
        await connection.wait_closed()

    return handler


FLOOD = json.dumps({"type": "applause", "hands": "x" * 4000})


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([Join().encode()], "said something wrong: A listener sends one"),
        ([Failure("auth", "Not any more.").encode()], "Not any more"),
        (["no JSON"], "not valid JSON"),
        ([b"\xff"], "kind 255"),
        (["x" * 60_000], "says more than a listener has to say"),
        (["x" * 70_000], "longer than any message of ours"),
        ([FLOOD] * 100, "says more than a listener has to say"),
    ],
    ids=["a join", "refused", "text", "bytes", "long", "too long", "a flood"],
)
async def test_no_word_of_a_relay_that_has_joined_ends_the_broadcast(answers, told, caplog):
    hub = hub_of()
    publish(hub, 1)
    async with answering(saying(Join().encode(), *answers)) as url:
        settings = Push(url, SECRET, backoff=QUICK)
        # A clock that stands still: no connection lasts, however slow the machine is.
        async with Pusher(hub, settings, clock=lambda: 0.0) as pushing:
            working = asyncio.ensure_future(pushing.failed())
            await until(lambda: pushing.reconnects >= 3 or working.done())
            assert not working.done()
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
    assert caplog.text.count("coming back to the relay") >= 3
    warned = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert len([message for message in warned if told in message]) == 1


async def test_a_relay_that_was_waited_for_and_refuses_us_is_asked_again(caplog):
    async def handler(connection):
        await connection.recv()
        await connection.send(Failure("auth", "Never.").encode())

    hub = hub_of()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with pusher(hub, f"ws://127.0.0.1:{port}") as pushing:
        working = asyncio.ensure_future(pushing.failed())
        await until(lambda: "coming back to the relay" in caplog.text)
        async with plain_serve(handler, "127.0.0.1", port, close_timeout=0.1):
            await until(lambda: caplog.text.count("connection: Never") >= 2 or working.done())
        assert not working.done()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def test_a_relay_that_fails_at_once_is_asked_less_and_less(monkeypatch):
    waits = []

    def wait_s(self, failed, chance):
        waits.append(failed)
        return 0.0

    monkeypatch.setattr(Backoff, "wait_s", wait_s)
    async with (
        answering(saying(Join().encode(), b"\xff")) as url,
        Pusher(hub_of(), Push(url, SECRET), clock=lambda: 0.0),
    ):
        await until(lambda: len(waits) >= 6)
    assert waits[:6] == [0, 1, 2, 3, 4, 5]


async def test_a_relay_that_hangs_up_or_says_nothing_is_tried_again(monkeypatch, caplog):
    monkeypatch.setattr("streaming.transports.push.pusher._ANSWER_S", 0.05)
    calls = 0

    async def handler(connection):
        nonlocal calls
        calls += 1
        await connection.recv()
        if calls == 1:
            return
        if calls == 2:
            await connection.wait_closed()
        await connection.send(Join().encode())

    async with answering(handler) as url, pusher(hub_of(), url) as pushing:
        await until(lambda: calls > 4)
        assert pushing.reconnects > 0
    for told in ("hung up without a word", "did not answer within", "hung up"):
        assert told in caplog.text


async def test_a_relay_that_reads_no_more_is_left(monkeypatch):
    monkeypatch.setattr("streaming.transports.push.pusher._PATIENCE_S", 0.2)
    monkeypatch.setattr("streaming.stream.heartbeat.ask_interval_s", lambda max_lag_s: 0.05)
    calls = 0

    async def handler(connection):
        nonlocal calls
        calls += 1
        await connection.recv()
        await connection.send(Join().encode())
        connection.transport.pause_reading()
        await connection.wait_closed()

    hub = hub_of()
    async with answering(handler) as url, pusher(hub, url) as pushing:
        while calls < 3:
            publish(hub, 1, size=1)  # who has more on the way has longer to answer
            await asyncio.sleep(0.05)
        assert pushing.reconnects >= 1


async def test_a_relay_is_asked_when_the_source_is_silent(monkeypatch):
    monkeypatch.setattr("streaming.stream.heartbeat.IDLE_S", 0.05)
    hub = hub_of()
    async with relay() as here, pusher(hub, here.url) as pushing:
        await until(lambda: not pushing.away)
        asked = []
        ask = Pusher._ask

        async def counted(self, connection, session):
            asked.append(session.heartbeat.deadline_s)
            await ask(self, connection, session)

        monkeypatch.setattr(Pusher, "_ask", counted)
        await until(lambda: len(asked) > 3)
        assert asked == [None] * len(asked)  # each was answered before the next
        assert not pushing.away


async def test_a_relay_that_falls_behind_is_dropped_and_comes_back(monkeypatch):
    joins = []

    async def handler(connection):
        await connection.recv()
        await connection.send(Join().encode())
        joins.append(connection)
        if len(joins) == 1:
            connection.transport.pause_reading()
        await connection.wait_closed()

    hub = hub_of()
    hub.max_lag_s = 3600.0
    async with answering(handler) as url, pusher(hub, url) as pushing:
        await until(lambda: joins)
        publish(hub, 2)
        hub.max_lag_s = 1.0
        while len(joins) < 2:
            publish(hub, 4)
            await asyncio.sleep(0.01)
        await until(lambda: pushing.reconnects >= 1)
        assert hub.dropped_listeners == 0  # no listener was


def test_the_secret_is_shown_nowhere():
    assert SECRET not in repr(Publish("me", SECRET))
    assert SECRET not in repr(Push("ws://a", SECRET))
    assert SECRET not in repr(WebSocket(intake=Intake(AuthTokens([SECRET]))))


async def test_a_publisher_that_cannot_be_told_anything_is_given_up(monkeypatch):
    monkeypatch.setattr("streaming.transports.push.intake._SEND_S", 0.05)
    intake = Intake(AuthTokens([SECRET]))
    async with (
        WebSocketServer(hub_of(), "127.0.0.1", 0, intake=intake) as server,
        publisher(server.url),
    ):
        connection = await intake.dial()

        async def stuck(self, message):
            await asyncio.Event().wait()

        monkeypatch.setattr("websockets.asyncio.connection.Connection.send", stuck)
        with pytest.raises(TransportError, match="does not read"):
            await connection.send(Join())
