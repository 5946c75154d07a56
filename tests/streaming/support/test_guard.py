"""Who gets in, and what those who should not can do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect as plain_connect
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from streaming.cli import client, server
from streaming.errors import RefusedError, SettingsError, TransportError
from streaming.stream.hub import Hub
from streaming.stream.listener_session import CodecIdentity, ListenerSession
from streaming.support import guard
from streaming.support.forwarded import Proxies
from streaming.support.guard import (
    AUTH_TOKEN_VARIABLE,
    AuthTokens,
    ByteBudget,
    Gate,
    Guesses,
    Limits,
    is_loopback,
    read_auth_tokens,
)
from streaming.support.sparse_log import SparseLog
from streaming.support.stats import LoopStall
from streaming.support.tls import client_context, server_context
from streaming.transports.reconnecting import passing
from streaming.transports.websocket import connect
from streaming.transports.websocket.outlet import WebSocket
from streaming.transports.websocket.server import WebSocketServer
from streaming.web.site import Site
from streaming.web.status import SenderStatus
from streaming.wire.messages import Hello, Join, StreamInfo
from streaming.wire.parsing import decode
from tests.support.certificates import make_certificate

OURS = CodecIdentity("nano", "nano-1", "a" * 64)
SECRET = "correct horse"


def serving(**options: object) -> WebSocketServer:
    hub = Hub(StreamInfo("nano", "nano-1", "a" * 64, 0, packet_tokens=48))
    hub.publish(np.arange(48), time.monotonic())
    return WebSocketServer(hub, "127.0.0.1", 0, **options)  # type: ignore[arg-type]


async def hear(url: str, auth_token: str = "", **options: object) -> Hello:
    """Join and return the hello."""
    session = ListenerSession(OURS, auth_token=auth_token)
    async with await connect(url, **options) as connection:  # type: ignore[arg-type]
        await connection.send(session.join())
        async for data in connection:
            for event in session.receive(data, 0.0):
                assert isinstance(event, Hello)
                return event
    raise AssertionError("no hello")


# Access tokens


def test_only_the_right_secrets_are_admitted():
    tokens = AuthTokens([SECRET, "another secret"])
    assert tokens.admit(SECRET)
    assert tokens.admit("another secret")
    for wrong in ("", "correct hors", "correct horse ", "Correct horse", "\ud800", SECRET * 2):
        assert not tokens.admit(wrong)
    assert tokens
    assert not AuthTokens()
    assert AuthTokens().admit("anything")


async def test_the_secret_may_come_in_the_first_message_or_in_a_header():
    async with serving(auth=AuthTokens([SECRET])) as server:
        assert (await hear(server.url, SECRET)).next_token == 48
        headers = {"Authorization": f"Bearer {SECRET}"}
        async with plain_connect(server.url, additional_headers=headers) as connection:
            await connection.send(Join().encode())
            assert isinstance(decode(await connection.recv()), Hello)


@pytest.mark.parametrize("wrong", ["", "wrong secret", SECRET + "\0"])
async def test_a_wrong_secret_is_refused_in_one_sentence_and_hears_nothing(wrong, caplog):
    async with serving(auth=AuthTokens([SECRET])) as server:
        with pytest.raises(RefusedError, match="access token") as refusal:
            await hear(server.url, wrong)
        assert refusal.value.code == "auth"
        headers = {"Authorization": f"Bearer {wrong.strip(chr(0)) + 'x'}"}
        with pytest.raises(InvalidStatus, match="401"):
            async with plain_connect(server.url, additional_headers=headers):
                pass
        # What is in the address does not count.
        with pytest.raises(RefusedError):
            await hear(f"{server.url}/?auth_token={SECRET.replace(chr(32), chr(43))}", wrong)
        assert server.gate.open <= 1
    assert SECRET not in caplog.text


async def test_a_refused_header_is_one_sentence_for_our_listener(monkeypatch):
    from streaming.transports.websocket import client

    async def with_header(url, **options):
        headers = {"Authorization": "Bearer wrong"}
        return await plain_connect(url, additional_headers=headers, **options)

    monkeypatch.setattr(client, "_Connect", with_header)
    async with serving(auth=AuthTokens([SECRET])) as server:
        with pytest.raises(RefusedError, match="access token"):
            await connect(server.url)


def test_secrets_are_read_from_option_file_and_environment(tmp_path, monkeypatch):
    monkeypatch.delenv(AUTH_TOKEN_VARIABLE, raising=False)
    assert read_auth_tokens(None, None) == []
    monkeypatch.setenv(AUTH_TOKEN_VARIABLE, "from environment")
    assert read_auth_tokens(None, None) == ["from environment"]
    assert read_auth_tokens(SECRET, None) == [SECRET]
    file = tmp_path / "secrets"
    file.write_text("# two listeners\n\nfirst secret\n  second secret \n")
    assert read_auth_tokens(None, file) == ["first secret", "second secret"]
    file.write_bytes(b"\xef\xbb\xbffirst secret\r\n# a remark\r\nsecond secret\r\n")  # Windows
    assert read_auth_tokens(None, file) == ["first secret", "second secret"]


@pytest.mark.parametrize("content", [None, b"", b"# none\n", b"short\n", b"\xff\xfe", b"x" * 2000])
def test_files_without_usable_secrets_are_refused(tmp_path, content):
    file = tmp_path / "secrets"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match="access token"):
        read_auth_tokens(None, file)


def test_the_secret_is_not_shown_with_the_message():
    assert SECRET not in repr(Join(auth_token=SECRET))
    assert SECRET not in repr(WebSocket(auth_tokens=[SECRET]))


@pytest.mark.parametrize(
    ("host", "secrets", "tls", "told"),
    [
        ("127.0.0.1", [], False, ""),
        ("localhost", [], False, ""),
        ("::1", [], False, ""),
        ("0.0.0.0", [], False, "everybody"),
        ("radio.example", [], True, "everybody"),
        ("0.0.0.0", [SECRET], False, "in the clear"),
        ("0.0.0.0", [SECRET], True, ""),
    ],
)
def test_who_opens_the_door_to_strangers_is_warned(host, secrets, tls, told, caplog):
    context = object() if tls else None
    outlet = WebSocket(host=host, auth_tokens=secrets, tls=context)  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        outlet.warn_of_strangers()
    assert (told in caplog.text) if told else not caplog.text
    assert is_loopback(host) is (host in ("127.0.0.1", "localhost", "::1"))


@pytest.mark.parametrize(("secrets", "told"), [([], ["the proxy can listen"]), ([SECRET], [])])
def test_who_is_behind_a_proxy_is_open_to_strangers_too(secrets, told, caplog):
    WebSocket(auth_tokens=secrets, proxies=Proxies(["127.0.0.1"])).warn_of_strangers()
    assert len(caplog.records) == len(told)
    assert all(part in caplog.text for part in told)


# Guesses


class Waiting:
    """A clock that moves on when somebody sleeps."""

    def __init__(self):
        self.now_s = 0.0
        self.waits = []

    async def sleep(self, seconds):
        self.waits.append(seconds)

    def guesses(self, **options):
        return Guesses(clock=lambda: self.now_s, sleep=self.sleep, **options)


def test_guesses_are_slowed_by_address_and_forgiven_with_time():
    guesses = Guesses(free=3, pause_s=1.0, patience_s=2.0)
    assert [guesses.take("a", 0.0) for _ in range(6)] == [0, 0, 0, 1, 2, None]
    assert guesses.take("b", 0.0) == 0
    assert guesses.take("a", 1.0) == 2  # others who wait are before it
    assert guesses.take("a", 4.0) == 0
    assert [guesses.take("a", 100.0) for _ in range(4)] == [0, 0, 0, 1]


def test_right_secrets_are_no_guesses_and_never_wait():
    guesses = Guesses(free=3)
    for _ in range(1000):
        assert guesses.take("a", 0.0) == 0
        guesses.right("a")


def test_a_whole_ipv6_network_guesses_as_one():
    guesses = Guesses(free=2)
    waits = [guesses.take(f"2001:db8::{n}", 0.0) for n in range(4)]
    assert waits == [0, 0, 1, 2]


def test_who_guessed_is_remembered_within_bounds():
    guesses = Guesses(free=1, most=100)
    for number in range(1000):
        guesses.take(f"10.0.{number // 256}.{number % 256}", 0.0)
    assert len(guesses._full_s) == 100
    assert guesses.take("10.0.3.231", 0.0) == 1


async def test_guessing_in_messages_is_slowed_logged_sparsely_and_shuts_nobody_out(caplog):
    waiting = Waiting()
    caplog.set_level(logging.INFO)
    async with serving(auth=AuthTokens([SECRET])) as server:
        server.guesses = waiting.guesses(free=3, patience_s=2.0)
        refusals = []
        for number in range(8):
            with pytest.raises(RefusedError) as refused:
                await hear(server.url, f"wrong secret {number}")
            refusals.append(refused.value.code)
        assert refusals == ["auth"] * 5 + ["busy"] * 3
        assert waiting.waits == [1.0, 2.0]
        waiting.now_s = 1.0
        assert (await hear(server.url, SECRET)).next_token == 48  # late, and not refused
        assert waiting.waits == [1.0, 2.0, 2.0]
    assert caplog.text.count("no right access token") == 1
    assert caplog.text.count(" left") == 1
    assert passing(refused.value)  # so that a listener comes back


async def test_guessing_in_headers_is_slowed_too():
    waiting = Waiting()
    async with serving(auth=AuthTokens([SECRET])) as server:
        server.guesses = waiting.guesses(free=1, patience_s=1.0)
        server.site = Site(
            SenderStatus(server._hub, server.gate, LoopStall()),
            AuthTokens([SECRET]),
            guesses=server.guesses,
        )

        async def status(path, secret, *more):
            head, _ = await ask(server.port, path, f"Authorization: Bearer {secret}", *more)
            return head[9:12]

        upgrade = ("Upgrade: websocket", "Connection: Upgrade")
        assert await status("/", "wrong", *upgrade) == "401"
        assert await status("/status.json", "wrong") == "401"
        assert await status("/metrics", SECRET) == "429"
        assert await status("/", SECRET, *upgrade) == "429"
        assert (await ask(server.port, "/status.json"))[0][9:12] == "401"  # asked for, no guess
        assert waiting.waits == [1.0]
        waiting.now_s = 1.0
        assert await status("/status.json", SECRET) == "200"


async def ask(port, path, *headers):
    """Head and body of the answer to a request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = (f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", "")
    writer.write("\r\n".join(lines).encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    return head, body


def test_a_sparse_log_says_how_much_it_left_out(caplog):
    now_s = 0.0
    log = SparseLog(logging.getLogger("sparse"), clock=lambda: now_s)
    for number in range(5):
        log.warning("it is %d", number)
    now_s = 60.0
    log.warning("it is %d", 5)
    assert [record.getMessage() for record in caplog.records] == [
        "it is 0",
        "it is 5 (and 4 more like this since the last line about it)",
    ]


# Reverse proxies


@pytest.mark.parametrize(
    ("x_forwarded_for", "forwarded", "client"),
    [
        ([], [], "127.0.0.1"),
        (["198.51.100.7"], [], "198.51.100.7"),
        (["1.2.3.4, 198.51.100.7"], [], "198.51.100.7"),
        (["1.2.3.4", "198.51.100.7"], [], "198.51.100.7"),
        (["198.51.100.7, 10.1.2.3, 127.0.0.1"], [], "198.51.100.7"),
        (["10.1.2.3"], [], "10.1.2.3"),
        (["198.51.100.7:4711"], [], "198.51.100.7"),
        (["[2001:db8::7]:4711"], [], "2001:db8::7"),
        (["2001:db8::7"], [], "2001:db8::7"),
        (["::ffff:198.51.100.7"], [], "198.51.100.7"),
        (["198.51.100.7, unknown"], [], "127.0.0.1"),
        (["198.51.100.7, unknown, 10.1.2.3"], [], "10.1.2.3"),
        (["198.51.100.7, unix:"], [], "127.0.0.1"),
        (["198.51.100.7,"], [], "127.0.0.1"),
        ([", ,"], [], "127.0.0.1"),
        (["a" * 5000], [], "127.0.0.1"),
        (["1.2.3.4," * 500 + "198.51.100.7"], [], "198.51.100.7"),
        (["10.0.0.1," * 500], [], "127.0.0.1"),
        ([], ["for=198.51.100.7"], "198.51.100.7"),
        ([], ["For=198.51.100.7;proto=https;by=10.0.0.1"], "198.51.100.7"),
        ([], ['proto=http ; for="198.51.100.7:80"'], "198.51.100.7"),
        ([], ['for=1.2.3.4, for="[2001:db8::7]:4711"'], "2001:db8::7"),
        ([], ['for="a, for=1.2.3.4", for=198.51.100.7'], "198.51.100.7"),
        ([], ['for=", for=198.51.100.7'], "198.51.100.7"),
        ([], ['for="1.2.3.4, for="[2001:db8::7]:4711"'], "127.0.0.1"),
        ([], ["for=198.51.100.7, for=_hidden"], "127.0.0.1"),
        ([], ["for=198.51.100.7, for=10.0.0.1"], "198.51.100.7"),
        ([], ["for=198.51.100.7, proto=http"], "127.0.0.1"),
        ([], ["===;;;,,,"], "127.0.0.1"),
        ([], ['"' * 900], "127.0.0.1"),
        ([], ["for=1.2.3.4," * 5000], "127.0.0.1"),
        (["198.51.100.7"], ["for=198.51.100.7"], "198.51.100.7"),
        (["198.51.100.7"], ["for=1.2.3.4"], "127.0.0.1"),  # one of them is not the proxy's
    ],
)
def test_a_trusted_proxy_says_for_whom_it_asks(x_forwarded_for, forwarded, client):
    proxies = Proxies(["127.0.0.1", "10.0.0.0/8", "::1"])
    headers = Headers()
    for name, values in (("X-Forwarded-For", x_forwarded_for), ("Forwarded", forwarded)):
        for value in values:
            headers[name] = value
    assert proxies.client("127.0.0.1", headers) == client
    assert proxies.client("::ffff:127.0.0.1", headers) == client.replace(
        "127.0.0.1", "::ffff:127.0.0.1"
    )
    assert proxies.client("192.0.2.1", headers) == "192.0.2.1"
    assert Proxies().client("127.0.0.1", headers) == "127.0.0.1"


VALUES = st.text(st.sampled_from('FORfor=",;\\[]:.0123456789 a_é'), max_size=200).map(str.strip)


@given(VALUES, VALUES)
def test_whatever_the_headers_hold_the_client_is_an_address(one, other):
    headers = Headers([("X-Forwarded-For", one), ("Forwarded", other)])
    client = Proxies(["127.0.0.1"]).client("127.0.0.1", headers)
    assert guard.parse_address(client) is not None


@pytest.mark.parametrize("text", ["nginx", "", "10.0.0.0/40", "1.2.3", "unix:/run/x"])
def test_proxies_that_are_no_addresses_are_refused_in_one_sentence(text, capsys):
    assert server.main(["--trust-proxy", text], lambda *_, **__: None) == 2  # type: ignore[arg-type]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"server.py: {text!r} is no address of a proxy; write one such as")


def asking_for(url, address):
    return plain_connect(url, additional_headers={"X-Forwarded-For": address})


async def test_clients_of_a_proxy_are_told_apart(caplog):
    caplog.set_level(logging.INFO)
    proxies = Proxies(["127.0.0.1"])
    async with contextlib.AsyncExitStack() as stack:
        serves = serving(limits=Limits(per_address=1), proxies=proxies)
        server = await stack.enter_async_context(serves)
        for address in ("198.51.100.7", "198.51.100.8", "2001:db8::1"):
            listening = await stack.enter_async_context(asking_for(server.url, address))
            await listening.send(Join().encode())
            await listening.recv()
        with pytest.raises(InvalidStatus, match="503"):
            await asking_for(server.url, "2001:db8::2")
        await until(lambda: server.gate.open == 3)
        assert server.gate.refused == 1
    assert "listener 198.51.100.7 through 127.0.0.1:" in caplog.text


async def test_a_stranger_cannot_pretend_to_be_a_proxy():
    limits, proxies = Limits(per_address=1), Proxies(["192.0.2.1"])
    serves = serving(limits=limits, proxies=proxies)
    async with serves as server, asking_for(server.url, "198.51.100.7"):
        with pytest.raises(InvalidStatus, match="503"):
            await asking_for(server.url, "198.51.100.8")


# Origins


async def test_a_web_page_may_listen_where_it_is_named():
    async with serving(origins=["https://radio.example"]) as server:
        async with plain_connect(server.url, origin=Origin("https://radio.example")) as page:
            await page.send(Join().encode())
            assert isinstance(decode(await page.recv()), Hello)
        with pytest.raises(InvalidStatus, match="403"):
            await plain_connect(server.url, origin=Origin("https://other.example"))
        await hear(server.url)


# Limits


def test_the_gate_counts_in_all_and_by_address():
    gate = Gate(Limits(connections=3, per_address=2, reserve=0))
    places: list[Any] = [gate.enter(address) for address in ("a", "a", "a", "b", "c")]
    assert [place is not None for place in places] == [True, True, False, True, False]
    assert (gate.open, gate.refused) == (3, 2)
    places[0].leave()
    places.append(gate.enter("c"))
    for place in filter(None, places[1:]):
        place.leave()
    assert gate.open == 0


def test_beyond_the_limits_there_is_a_reserve_of_which_nobody_gets_much():
    gate = Gate(Limits(connections=2, per_address=1, reserve=3))
    gate.enter("a")
    gate.enter("b")
    places: list[Any] = [gate.enter(address) for address in "aaabc"]
    assert [place is not None and place.reserved for place in places] == [
        *(True, True, False, True, False)
    ]
    assert (gate.open, gate.refused) == (2, 5)
    places[0].leave()
    places.append(gate.enter("c"))
    assert places[-1].reserved


def test_an_ipv6_network_of_a_customer_is_one_address_and_ipv4_is_what_it_is():
    group = guard.address_group
    assert group("2001:db8:1:2:3:4:5:6") == group("2001:db8:1:2::1") == "2001:db8:1:2::/64"
    assert group("2001:db8:1:3::1") != group("2001:db8:1:2::1")
    assert group("::ffff:192.0.2.7") == group("192.0.2.7") == "192.0.2.7"
    assert group("::ffff:192.0.2.7") != group("::ffff:192.0.2.8")
    assert group("fe80::1%eth0") == "fe80::/64"
    assert group("") == ""
    gate = Gate(Limits(per_address=2, reserve=0))
    hosts = ("2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::3")
    assert [gate.enter(host) is not None for host in hosts] == [True, True, False, True]


def test_what_a_trusted_proxy_asks_for_counts_for_whom_it_asks():
    gate = Gate(Limits(connections=9, per_address=1), lambda address: address == "proxy")
    places: list[Any] = [gate.enter("proxy") for _ in range(3)]
    assert [place.move(client) for place, client in zip(places, "aab", strict=True)] == [
        *(True, False, True)
    ]
    assert (gate.open, gate.refused) == (3, 1)
    places.append(gate.enter("a"))  # on its own way it is the same address
    assert places[-1].reserved
    places[0].leave()
    assert places[1].move("a")


def test_a_budget_of_bytes_fills_up_slowly():
    limits = Limits(burst_bytes=1000, bytes_per_s=10)
    budget = ByteBudget(limits, 0.0)
    assert budget.spend(1000, 0.0)
    assert budget.spend(100, 10.0)
    assert not budget.spend(1, 10.0)
    late = ByteBudget(limits, 0.0)
    assert not late.spend(1001, 1e6)


async def until(condition):
    while not condition():
        await asyncio.sleep(0.005)


async def test_slow_handshakes_are_held_off_and_let_go():
    """Slow loris: a byte now and then, on as many connections as can be had."""
    limits = Limits(connections=30, per_address=20, handshake_s=2.0)
    async with serving(limits=limits) as server:
        writers = []
        # On a slow machine the first ones are let go before the last ones come.
        while server.gate.refused < 40:
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
            writers.append(writer)
            assert server.gate.open <= 20

        async def drip():
            while True:
                for writer in writers:
                    writer.write(b"X")
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        await until(lambda: server.gate.open == 0)  # though bytes still come
        assert (await hear(server.url)).next_token == 48
        dripping.cancel()
        for writer in writers:
            writer.transport.abort()


async def test_connections_count_before_tls_and_slow_tls_handshakes_are_cut(tmp_path):
    """Silent ones, and ones whose handshake trickles in, byte by byte."""
    cert, key = make_certificate(tmp_path)
    limits = Limits(connections=8, per_address=4, handshake_s=1.0, reserve_s=0.5)
    async with serving(limits=limits, tls=server_context(cert, key)) as server:
        writers = [(await asyncio.open_connection("127.0.0.1", server.port))[1] for _ in range(100)]
        door = server._server._door
        await until(lambda: server.gate.refused >= 96)
        assert (server.gate.open, len(door.callers)) == (4, 6)  # and the two of the reserve

        async def drip():
            for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(10_000):
                for writer in writers:
                    writer.write(bytes((byte,)))
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        await until(lambda: not door.callers)
        tls = client_context(server.url, cert)
        heard = None
        async with asyncio.timeout(60):
            while heard is None:
                with contextlib.suppress(TransportError):  # a busy machine may take over a second
                    heard = await hear(server.url, tls=tls)
        assert heard.next_token == 48
        dripping.cancel()
        for writer in writers:
            writer.transport.abort()


async def test_tls_and_websocket_have_their_time_together(tmp_path):
    cert, key = make_certificate(tmp_path)
    limits = Limits(handshake_s=1.0)
    async with serving(limits=limits, tls=server_context(cert, key)) as server:
        tls = client_context(server.url, cert)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", server.port, ssl=tls, server_hostname="127.0.0.1"
        )
        (caller,) = server._server._door.callers.values()
        due_s = caller._cutting.when()
        assert due_s <= asyncio.get_running_loop().time() + 1.0
        assert await reader.read() == b""  # nothing was asked in time
        writer.transport.abort()
        async with await connect(server.url, tls=tls):
            (caller,) = server._server._door.callers.values()
            await until(caller._cutting.cancelled)  # and who is in has no such limit


@pytest.mark.parametrize("encrypted", [False, True])
async def test_who_has_not_asked_for_anything_does_not_hold_up_the_end(tmp_path, encrypted):
    tls = server_context(*make_certificate(tmp_path)) if encrypted else None
    async with serving(limits=Limits(handshake_s=1e6), tls=tls) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await until(lambda: server.gate.open == 1)
    assert await reader.read() == b""
    writer.close()


async def test_health_is_told_when_the_house_is_full_also_over_tls(tmp_path):
    cert, key = make_certificate(tmp_path)
    async with serving(limits=Limits(connections=1), tls=server_context(cert, key)) as server:
        server.site = Site(SenderStatus(server._hub, server.gate, LoopStall()))
        tls = client_context(server.url, cert)
        async with await connect(server.url, tls=tls):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", server.port, ssl=tls, server_hostname="127.0.0.1"
            )
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
            writer.close()
            with pytest.raises(TransportError, match="no more listeners"):
                await connect(server.url, tls=tls)


async def test_without_a_free_file_connections_are_turned_away_and_then_taken_again(caplog):
    async with serving() as server:
        callers = [socket.socket() for _ in range(20)]
        for caller in callers:
            caller.setblocking(False)
        held = []
        with contextlib.suppress(OSError):  # as many as there can be
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
            while True:
                held.append(os.dup(0))
        try:
            place = ("127.0.0.1", server.port)
            loop = asyncio.get_running_loop()
            for caller in callers:
                await loop.sock_connect(caller, place)
                assert await loop.sock_recv(caller, 1) == b""
        finally:
            for number in held:
                os.close(number)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for caller in callers:
            caller.close()
        assert server.gate.open == 0
        assert caplog.text.count("connections are turned away") == 1
        assert "out of system resource" not in caplog.text
        assert (await hear(server.url)).next_token == 48


def in_a_process(program: str, files: tuple[int, int]) -> str:
    """What a Python program prints that has soft and hard limits of open files."""
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, {files})\n"
    done = subprocess.run(
        [sys.executable, "-c", limit + program], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize(
    ("files", "wanted", "connections", "soft"),
    [
        ((1000, 1000), 256, 256, 1000),
        ((100, 1000), 256, 256, 328),  # raised as far as needed
        ((100, 200), 256, 128, 200),  # and as far as allowed
        ((64, 64), 256, 24, 64),
        ((1000, 1000), 2000, 928, 1000),
        ((20, 20), 256, 2, 20),
    ],
)
def test_limits_fit_the_files_that_may_be_open(files, wanted, connections, soft):
    program = (
        "from streaming.support.guard import Limits, fit_to_files\n"
        f"fitting, sentence = fit_to_files(Limits({wanted}))\n"
        "print(fitting.connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0], sentence)"
    )
    found, then, *sentence = in_a_process(program, files).split()
    assert (int(found), int(then)) == (connections, soft)
    assert bool(sentence) == (connections < wanted)
    if sentence:
        assert " ".join(sentence).startswith(f"the limit of {soft} open files leaves room for")


def test_a_server_with_too_few_files_says_so_once_and_serves(tmp_path, capfd):
    song = tmp_path / "song.wav"
    soundfile.write(song, np.zeros((4800, 2)), 48_000)
    limited = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80)); "
        f"sys.argv = ['server.py', {str(song)!r}, '--port', '0']; "
        "runpy.run_module('tests.support.fake_server', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("leaves room for 32 connections instead of 256") == 1
    assert "sent 0.1 s of sound" in done.stderr


async def test_who_floods_is_cut_off_and_costs_the_others_nothing():
    async with serving() as server:
        async with await connect(server.url) as good:
            await good.send(Join())
            async with plain_connect(server.url, ping_interval=None) as flood:
                await flood.send(Join().encode())
                with contextlib.suppress(ConnectionClosed):
                    for number in range(10_000):
                        await flood.ping(f"{number:0100}")
            await until(lambda: server.gate.open == 1)
            server._hub.publish(np.arange(48), time.monotonic())
            server._hub.end("over", time.monotonic())
            messages = [data async for data in good]
        assert len(messages) == 4
    assert server.gate.open == 0


async def test_a_full_server_turns_the_next_one_away_and_takes_it_later():
    async with serving(limits=Limits(connections=1)) as server:
        async with await connect(server.url):
            with pytest.raises(TransportError):
                await connect(server.url)
        await until(lambda: server.gate.open == 0)
        await hear(server.url)


@pytest.mark.parametrize(("status", "told"), [(503, "no more listeners"), (404, "status 404")])
async def test_answers_of_others_are_one_sentence(status, told):
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as other:
        url = f"ws://127.0.0.1:{other.sockets[0].getsockname()[1]}"
        with pytest.raises(TransportError, match=told):
            await connect(url)


@contextlib.asynccontextmanager
async def redirecting(location):
    """A server that sends everybody to ``location``, in which PORT is its own."""

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 302 Found\r\nLocation: {there}\r\n\r\n".encode())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as one:
        port = one.sockets[0].getsockname()[1]
        there = location.replace("PORT", str(port))
        yield f"ws://127.0.0.1:{port}"


@pytest.mark.parametrize(
    "location",
    [
        "ws://localhost:PORT/",
        "ws://127.0.0.2:PORT/",
        "ws://127.0.0.1:9/",
        "//127.0.0.1:9/",
        "http://127.0.0.1/",
        "wss://127.0.0.1:PORT/",
        "ws://user@elsewhere.invalid:PORT/",
        "ws://[",
        "ws://127.0.0.1:99999999/",
    ],
)
async def test_a_redirect_to_another_origin_is_not_followed(location):
    async with redirecting(location) as url:
        with pytest.raises(TransportError, match=r"sends listeners on to .*not followed"):
            await connect(url)


@pytest.mark.parametrize("location", ["/there", "ws://127.0.0.1:PORT/there", "//127.0.0.1:PORT/x"])
async def test_a_redirect_within_the_origin_is_followed(location):
    seen = []

    async def answer(reader, writer):
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        seen.append(request.split()[1])
        there = location.replace("PORT", str(port))
        status = f"302 Found\r\nLocation: {there}" if len(seen) == 1 else "404 None"
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as one:
        port = one.sockets[0].getsockname()[1]
        with pytest.raises(TransportError, match="status 404"):
            await connect(f"ws://127.0.0.1:{port}/here")
    assert seen == ["/here", "/there" if "there" in location else "/x"]


async def test_the_access_token_goes_to_nobody_but_who_was_asked(tmp_path, capsys):
    told = []

    async def other(reader, writer):
        told.append(await reader.read())

    async with await asyncio.start_server(other, "localhost", 0) as elsewhere:
        port = elsewhere.sockets[0].getsockname()[1]
        async with redirecting(f"ws://localhost:{port}/") as url:
            arguments = [url, "--auth-token", SECRET, "--save", str(tmp_path / "a.muc")]
            assert await asyncio.to_thread(client.main, arguments) == 2
    assert told == []
    assert "is not followed" in capsys.readouterr().err


# TLS


async def test_tls_is_heard_by_who_trusts_the_certificate(tmp_path):
    cert, key = make_certificate(tmp_path)
    async with serving(tls=server_context(cert, key), auth=AuthTokens([SECRET])) as server:
        assert server.url.startswith("wss://127.0.0.1:")
        hello = await hear(server.url, SECRET, tls=client_context(server.url, cert))
        assert hello.next_token == 48
        with pytest.raises(TransportError, match=r"cannot be trusted .*--ca"):
            await connect(server.url, tls=client_context(server.url, None))
        with pytest.raises(TransportError, match="no WebSocket server"):
            await connect(server.url.replace("wss", "ws"))


async def test_a_certificate_for_another_name_is_refused(tmp_path):
    cert, key = make_certificate(tmp_path, "radio.example", "DNS")
    async with serving(tls=server_context(cert, key)) as server:
        with pytest.raises(TransportError, match="cannot be trusted"):
            await connect(server.url, tls=client_context(server.url, cert))


async def test_tls_to_a_server_without_is_one_sentence(tmp_path):
    cert, _ = make_certificate(tmp_path)
    async with serving() as server:
        url = server.url.replace("ws:", "wss:")
        with pytest.raises(TransportError, match="speaks no TLS"):
            await connect(url, tls=client_context(url, cert))


def test_files_that_are_no_certificates_are_refused(tmp_path):
    cert, key = make_certificate(tmp_path)
    other, _ = make_certificate(tmp_path, "other.example", "DNS")
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    for pair, told in (
        ((None, key), "--tls-cert"),
        ((tmp_path / "none.pem", key), "no file .*none"),
        ((cert, tmp_path / "none.key"), "no file .*none"),
        ((junk, key), "junk"),
        ((other, key), "cannot be used"),
        ((tmp_path, key), "Cannot read|cannot be used"),
    ):
        with pytest.raises(SettingsError, match=told):
            server_context(*pair)
    assert server_context(None, None) is None
    assert client_context("ws://a", None) is None
    for url, ca in (("ws://a", cert), ("wss://a", junk), ("wss://a", tmp_path / "none.pem")):
        with pytest.raises(SettingsError):
            client_context(url, ca)


# The programs


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--auth-token", "short"], "8 to 1024 characters"),
        (["--auth-token-file", "/none/such"], "Cannot read access tokens"),
    ],
)
def test_bad_secrets_end_both_programs_with_one_sentence(arguments, told, capsys, tmp_path):
    assert server.main(arguments, lambda *_, **__: None) == 2  # type: ignore[arg-type]
    assert told in capsys.readouterr().err
    out = str(tmp_path / "a.wav")
    assert client.main([*arguments, "--out", out], lambda *_, **__: None) == 2  # type: ignore[arg-type]
    assert told in capsys.readouterr().err
    assert not Path(out).exists()
