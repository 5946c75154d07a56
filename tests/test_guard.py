"""Who gets in, and what those who should not can do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from pathlib import Path

import numpy as np
import pytest
from websockets.asyncio.client import connect as plain_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

import client
import server
from streaming.errors import RefusedError, SettingsError, TransportError
from streaming.guard import (
    AUTH_TOKEN_VARIABLE,
    AuthTokens,
    ByteBudget,
    Gate,
    Limits,
    is_loopback,
    read_auth_tokens,
)
from streaming.hub import Hub, StreamInfo
from streaming.parsing import decode
from streaming.protocol import Hello, Join
from streaming.service import _warn_of_strangers
from streaming.service_settings import ServiceSettings
from streaming.session import CodecIdentity, ListenerSession
from streaming.tls import client_context, server_context
from streaming.websocket import WebSocketServer, connect
from tests.certificates import make_certificate

OURS = CodecIdentity("nano", "nano-1", "a" * 64)
SECRET = "correct horse"


def serving(**options: object) -> WebSocketServer:
    hub = Hub(StreamInfo("nano", "nano-1", "a" * 64, 0, 48))
    hub.publish(np.arange(48), time.monotonic())
    return WebSocketServer(hub, "127.0.0.1", 0, **options)  # type: ignore[arg-type]


async def hear(url: str, auth_token: str = "", **options: object) -> Hello:
    """Join and return the hello."""
    session = ListenerSession(OURS, auth_token=auth_token)
    async with await connect(url, **options) as connection:  # type: ignore[arg-type]
        await connection.send(session.join())
        async for data in connection:
            for happening in session.receive(data, 0.0):
                assert isinstance(happening, Hello)
                return happening
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
    from streaming.websocket import client

    async def with_header(url, **options):
        headers = {"Authorization": "Bearer wrong"}
        return await plain_connect(url, additional_headers=headers, **options)

    monkeypatch.setattr(client, "websocket_connect", with_header)
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
    assert SECRET not in repr(ServiceSettings(auth_tokens=[SECRET]))


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
    settings = ServiceSettings(host=host, auth_tokens=secrets, tls=context)  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        _warn_of_strangers(settings)
    assert (told in caplog.text) if told else not caplog.text
    assert is_loopback(host) is (host in ("127.0.0.1", "localhost", "::1"))


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
    gate = Gate(Limits(connections=3, per_address=2))
    assert [gate.enter(a) for a in ("a", "a", "a", "b", "c")] == [True, True, False, True, False]
    assert (gate.open, gate.refused) == (3, 2)
    gate.leave("a")
    assert gate.enter("c")
    for address in "abc":
        gate.leave(address)
    assert gate.open == 0


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


async def test_who_floods_is_cut_off_and_costs_the_others_nothing():
    async with serving() as server:
        async with await connect(server.url) as good:
            await good.send(Join().encode())
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
