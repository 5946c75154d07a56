"""The environment's proxies: for other machines they are used, for this one never."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import pytest

from streaming.errors import TransportError
from streaming.stream.hub import Hub
from streaming.support.guard import is_loopback
from streaming.transports.websocket import connect
from streaming.transports.websocket.server import WebSocketServer
from streaming.wire.messages import StreamInfo
from tests.support.fake_codec import FakeCodec

HOST = "radio.example"
NAMES = ("ws_proxy", "wss_proxy", "socks_proxy", "http_proxy", "https_proxy", "all_proxy")
Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
async def station() -> AsyncIterator[int]:
    """The port of a sender on this machine."""
    hub = Hub(StreamInfo("fake", FakeCodec.weights, FakeCodec.digest, 5, "proxies", 8))
    async with WebSocketServer(hub, "127.0.0.1", 0) as server:
        yield server.port


class Proxy:
    """Leads everybody to this machine, whatever the name; speaks CONNECT, or SOCKS 5.

    Attributes: `asked`, where its clients wanted to go.
    """

    def __init__(self, status: int = 200) -> None:
        self.asked: list[str] = []
        self._status = status

    async def http(self, reader: Reader, writer: Writer) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = request.split(b" ", 2)
        assert method == b"CONNECT"
        self.asked.append(target.decode())
        writer.write(f"HTTP/1.1 {self._status} No Reason\r\n\r\n".encode())
        if self._status == 200:
            await self._pass(int(target.rpartition(b":")[2]), reader, writer)
        writer.close()

    async def socks(self, reader: Reader, writer: Writer) -> None:
        _, methods = await reader.readexactly(2)
        await reader.readexactly(methods)
        writer.write(b"\x05\x00")
        *_, kind = await reader.readexactly(4)
        assert kind == 3  # a name, for us to look up
        name = await reader.readexactly((await reader.readexactly(1))[0])
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.asked.append(f"{name.decode()}:{port}")
        writer.write(b"\x05\x00\x00\x01" + bytes(6))
        await self._pass(port, reader, writer)
        writer.close()

    async def _pass(self, port: int, reader: Reader, writer: Writer) -> None:
        there = await asyncio.open_connection("127.0.0.1", port)

        async def pump(source: Reader, target: Writer) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65_536):
                    target.write(data)
            target.close()

        await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))


@contextlib.asynccontextmanager
async def listening(serve: Callable[[Reader, Writer], Awaitable[None]]) -> AsyncIterator[int]:
    """Serve on a free port of this machine."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def closed_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("http_proxy", "http://127.0.0.1:{}"),
        ("HTTPS_PROXY", "http://127.0.0.1:{}/"),
        ("all_proxy", "127.0.0.1:{}"),
        ("ALL_PROXY", "http://user:secret@127.0.0.1:{}"),
        ("all_proxy", "socks5h://127.0.0.1:{}"),
        ("https_proxy", "socks5h://127.0.0.1:{}"),
        ("ALL_PROXY", "socks://127.0.0.1:{}/"),
    ],
)
async def test_another_machine_is_reached_through_the_proxy(
    variable: str, value: str, station: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy()
    async with listening(proxy.socks if "socks" in value else proxy.http) as port:
        monkeypatch.setenv(variable, value.format(port))
        async with await connect(f"ws://{HOST}:{station}"):
            pass
    assert proxy.asked == [f"{HOST}:{station}"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1.2.3", "[::1]"])
@pytest.mark.parametrize("scheme", ["http", "socks5h"])
async def test_this_machine_is_never_reached_through_a_proxy(
    host: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(StreamInfo("fake", FakeCodec.weights, FakeCodec.digest, 5, "proxies", 8))
    for name in NAMES:
        monkeypatch.setenv(name, f"{scheme}://127.0.0.1:{closed_port()}")
    assert is_loopback(host.strip("[]"))
    try:
        server = WebSocketServer(hub, "::1" if "::" in host else "0.0.0.0", 0)
        await server.__aenter__()
    except Exception:
        if "::" not in host:
            raise
        pytest.skip("this machine has no IPv6")
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_exit(server)
        await stack.enter_async_context(await connect(f"ws://{host}:{server.port}"))


@pytest.mark.parametrize("spared", ["radio.example", ".example", "*"])
async def test_what_no_proxy_names_is_reached_directly(
    spared: str, station: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("all_proxy", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("NO_PROXY", spared)
    with pytest.raises(TransportError, match=r"host in ws://radio\.example:1 is unknown"):
        await connect(f"ws://{HOST}:1")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("http://user:secret@127.0.0.1:{}", "Connection refused"),
        ("socks5h://user:secret@127.0.0.1:{}", "refused"),
        ("http://user:secret@proxy.invalid:{}", "proxy.invalid"),
        ("gopher://user:secret@127.0.0.1:{}", "gopher"),
    ],
)
async def test_a_proxy_that_fails_is_named_without_its_password(
    value: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", value.format(closed_port()))
    with pytest.raises(TransportError) as raised:
        await connect(f"ws://{HOST}:8765")
    assert "through the proxy" in str(raised.value)
    assert reason in str(raised.value)
    assert "secret" not in str(raised.value)
    assert "no_proxy" in str(raised.value)


@pytest.mark.parametrize("status", [407, 502])
async def test_a_proxy_that_refuses_is_named(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(Proxy(status).http) as port:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        with pytest.raises(TransportError, match=rf"through the proxy .*status {status}"):
            await connect(f"ws://{HOST}:8765")


async def test_a_proxy_that_says_nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def say_nothing(reader: Reader, writer: Writer) -> None:
        await reader.read()
        writer.close()

    async with listening(say_nothing) as port:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        with pytest.raises(TransportError, match=r"through the proxy .*no answer within"):
            await connect(f"ws://{HOST}:8765", timeout_s=0.2)


async def test_a_missing_socks_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    async def missing(*arguments: object, **options: object) -> None:
        raise ImportError("connecting through a SOCKS proxy requires python-socks")

    monkeypatch.setattr("websockets.asyncio.client.connect_socks_proxy", missing)
    monkeypatch.setenv("all_proxy", "socks5h://127.0.0.1:9")
    with pytest.raises(TransportError, match=r"pip install 'music350\[socks\]'"):
        await connect(f"ws://{HOST}:8765")
