"""What the sender answers over plain HTTP, to whom, and what it counts."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import json
import re
import socket
import ssl
import time
from collections.abc import AsyncGenerator, Callable
from http import HTTPStatus

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect as plain_connect
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from codec.base import DecoderWindow
from streaming.stream.hub import Hub
from streaming.stream.sender_session import SenderSession
from streaming.support import http
from streaming.support.forwarded import Proxies
from streaming.support.guard import AuthTokens, Gate, Limits
from streaming.support.stats import LoopStall
from streaming.support.timing import Timing
from streaming.support.tls import server_context
from streaming.transports.websocket import connection
from streaming.transports.websocket import server as websocket_server
from streaming.transports.websocket.server import WebSocketServer
from streaming.web.assets import STATIC
from streaming.web.site import Site
from streaming.web.status import Encoding, SenderStatus, latency_terms
from streaming.wire.messages import End, Failure, Join, StreamInfo
from tests.support.certificates import make_certificate

SECRET = "correct horse"
NANO = DecoderWindow(context=128, hop=24, lookahead=8)


class Sending:
    """A hub with its status, on a clock of its own."""

    def __init__(self, packets: int = 3) -> None:
        self.now_s = 1000.0
        self.hub = Hub(StreamInfo("nano", "nano-3", "a" * 64, 0, "s1", 48))
        self.hub.set_title("Tune", 0, self.now_s)
        self.gate = Gate(Limits())
        self.timing = Timing()
        self.stall = LoopStall()
        self.status = SenderStatus(
            self.hub,
            self.gate,
            self.stall,
            Encoding(lambda: 0.125, self.timing),
            NANO,
            clock=lambda: self.now_s,
        )
        for _ in range(packets):
            self.publish()

    def publish(self) -> None:
        self.now_s += 1.92
        self.hub.publish(np.arange(48), self.now_s, delay_s=0.25)

    def site(self, *secrets: str, names: tuple[str, ...] = ()) -> Site:
        return Site(self.status, AuthTokens(secrets), names)


def ask(site: Site, path: str, **headers: str) -> http.Answer:
    fields = {"Host": "127.0.0.1:8765", **headers}
    return asyncio.run(site.answer(path, Headers(list(fields.items()))))


def metrics(site: Site) -> dict[str, float]:
    """Names with labels, as in the text, and values."""
    text = ask(site, "/metrics").body.decode()
    values = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            values[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return values


# Figures


def test_metrics_are_what_the_parts_have_counted():
    sending = Sending(packets=40)
    sending.timing.add(0.03)
    sending.stall.timing.add(0.004)
    sending.hub.skip(5, sending.now_s)
    outbox = sending.hub.join(Join(), sending.now_s)
    while outbox.take() is not None:
        pass
    sending.publish()
    sending.hub.join(Join(next_token=10, stream="s1"), sending.now_s)
    sending.now_s += 0.5
    values = metrics(sending.site())
    assert values["music350_sent_tokens_total"] == 41 * 48
    assert values["music350_lost_tokens_total"] == 5
    assert values["music350_listeners"] == 2
    assert values["music350_joins_total"] == 2
    assert values["music350_reconnects_total"] == 1
    assert values["music350_packet_seconds"] == 1.92
    assert values["music350_packet_age_seconds"] == pytest.approx(0.5)
    assert values["music350_on_air"] == 1
    assert values["music350_payload_bits_per_second"] == pytest.approx(350, rel=0.05)
    assert values["music350_wire_bits_per_second"] > 500
    assert values["music350_listener_lag_seconds{quantile=1}"] == pytest.approx(1.92)
    assert values["music350_encode_real_time_factor"] == 0.125
    assert values["music350_encode_seconds_bucket{le=0.025}"] == 0
    assert values["music350_encode_seconds_bucket{le=0.05}"] == 1
    assert values["music350_encode_seconds_sum"] == 0.03
    assert values["music350_loop_late_seconds_count"] == 1
    assert values["music350_stream_info{codec=nano,stream=s1,weights=nano-3}"] == 1


def test_metrics_of_a_sender_that_encodes_nothing_lack_the_encoder():
    sending = Sending(packets=0)
    sending.status.encoding = None
    values = metrics(sending.site())
    assert not any("encode" in name for name in values)
    assert values["music350_listener_lag_seconds{quantile=1}"] == 0
    assert np.isnan(values["music350_payload_bits_per_second"])


def test_drops_are_counted_by_reason():
    sending = Sending()
    nobody = SenderSession(sending.hub, sending.now_s)
    nobody.tick(sending.now_s + 60)
    SenderSession(sending.hub, sending.now_s).receive(End(0), sending.now_s)
    stranger = SenderSession(
        sending.hub, sending.now_s, admit=lambda secret: Failure("auth", "No.")
    )
    stranger.receive(Join(), sending.now_s)
    sending.hub.join(Join(), sending.now_s)
    for _ in range(20):
        sending.publish()
    values = metrics(sending.site())
    for reason in ("timeout", "protocol", "auth", "lag"):
        assert values[f"music350_drops_total{{reason={reason}}}"] == 1


def test_without_prometheus_client_metrics_say_what_is_missing(monkeypatch):
    real_import = builtins.__import__

    def lacking(name, *arguments, **options):
        if name.startswith(("prometheus_client", "streaming.web.metrics")):
            raise ImportError(name)
        return real_import(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", lacking)
    answer = ask(Sending().site(), "/metrics")
    assert answer.status == HTTPStatus.NOT_IMPLEMENTED
    assert answer.body.decode().count("\n") == 1
    assert b"pip install 'music350[metrics]'" in answer.body


def test_status_is_json_and_names_what_is_not_known_null():
    sending = Sending(packets=0)
    answer = ask(sending.site(), "/status.json?x=1")
    assert answer.kind == "application/json"
    figures = json.loads(answer.body)
    assert figures["stream"]["title"] == "Tune"
    assert figures["listeners"]["lag_most_s"] is None
    assert figures["rates"] == {"payload_bits_per_s": None, "wire_bits_per_s": None}
    assert figures["timings"]["encode_rtf"] == 0.125
    sending.hub.join(Join(), sending.now_s)
    assert json.loads(ask(sending.site(), "/status.json").body)["listeners"]["now"] == 1


def test_the_latency_budget_is_that_of_the_documentation():
    terms = latency_terms(48, 0.32, NANO)
    assert [round(term.seconds, 2) for term in terms] == [1.92, 0.32, 0.96, 0.5]
    low_latency = latency_terms(8, 0.32, DecoderWindow(context=128, hop=8, lookahead=8))
    assert [round(term.seconds, 2) for term in low_latency][2] == 0.32
    assert len(latency_terms(48, 0.32, None)) == 3


def test_health_is_ok_until_packets_stop_or_the_stream_ends():
    sending = Sending(packets=0)
    assert ask(sending.site(), "/healthz").status == HTTPStatus.OK  # nothing has come yet
    sending.publish()
    assert ask(sending.site(), "/healthz").body == b"ok\n"
    sending.now_s += 31
    silent = ask(sending.site(), "/healthz")
    assert (silent.status, silent.body) == (503, b"No packet was sent for 31 s.\n")
    assert metrics(sending.site())["music350_on_air"] == 0
    sending.publish()
    sending.hub.end("over", sending.now_s)
    assert ask(sending.site(), "/healthz").body == b"The stream has ended.\n"


# Who may ask


@pytest.mark.parametrize("path", ["/metrics", "/status.json"])
def test_figures_need_the_access_token_where_one_is_set(path):
    site = Sending().site(SECRET)
    for given in ({}, {"Authorization": "Bearer wrong horse"}, {"Authorization": SECRET}):
        refused = ask(site, path, **given)
        assert refused.status == HTTPStatus.UNAUTHORIZED
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        assert b"Tune" not in refused.body
    assert ask(site, path, Authorization=f"bearer {SECRET}").status == HTTPStatus.OK


def test_health_and_pages_need_no_access_token():
    site = Sending().site(SECRET)
    for path in ("/", "/healthz", "/sender.js", "/page.css"):
        assert ask(site, path).status == HTTPStatus.OK


def test_figures_are_not_for_pages_that_borrow_our_address():
    sending = Sending()
    site = sending.site(names=("radio.example",))
    for host in ("evil.example:8765", "", "[::1", "localhost.evil.example"):
        assert ask(site, "/status.json", Host=host).status == HTTPStatus.MISDIRECTED_REQUEST
    for host in ("localhost:8765", "[::1]:8765", "10.0.0.1", "Radio.example"):
        assert ask(site, "/status.json", Host=host).status == HTTPStatus.OK


def test_what_is_not_there_is_said_to_be_missing():
    for path in ("/nothing", "/../secret", "//x", "/static/page.css", "http://[", "/page.css/"):
        assert ask(Sending().site(), path).status == HTTPStatus.NOT_FOUND


def test_pages_load_nothing_from_elsewhere_and_say_so():
    site = Sending().site()
    for path in ("/", "/sender.js", "/stream.js", "/pictures.js", "/page.css", "/icon.svg"):
        response = ask(site, path).response()
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Content-Length"] == str(len(response.body))
        body = response.body.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in body
        assert "https://" not in body
    page = ask(site, "/").body.decode()
    assert "<style" not in page
    assert " style=" not in page
    assert "onclick" not in page


def test_files_are_compressed_for_browsers_that_take_that():
    site = Sending().site()
    plain = ask(site, "/page.css")
    packed = ask(site, "/page.css", **{"Accept-Encoding": "gzip, deflate"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert len(packed.body) < len(plain.body) / 2


# Over a socket


async def get(server: WebSocketServer, path: str, *headers: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{server.port}", *headers]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    answer = (await reader.read()).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]), body


async def until(happened: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline_s, "waited in vain"
        await asyncio.sleep(0.01)


def serving(**options: object) -> WebSocketServer:
    sending = Sending()
    server = WebSocketServer(sending.hub, "127.0.0.1", 0, **options)  # type: ignore[arg-type]
    server.site = Site(sending.status, AuthTokens(), server.names)
    return server


async def test_plain_requests_are_answered_on_the_port_of_the_stream():
    async with serving() as server:
        assert await get(server, "/healthz") == (200, "ok\n")
        status, body = await get(server, "/status.json")
        assert status == 200
        assert json.loads(body)["stream"]["codec"] == "nano"
        assert (await get(server, "/nothing"))[0] == 404
        await until(lambda: server.gate.open == 0)


async def test_two_hosts_in_one_request_are_no_host():
    async with serving() as server:
        assert (await get(server, "/status.json", "Host: evil.example"))[0] == 421


async def test_our_own_page_may_listen_and_no_other():
    async with serving(origins=["https://radio.example"]) as server:
        ours = f"http://127.0.0.1:{server.port}"
        for origin in (ours, "https://radio.example"):
            async with plain_connect(server.url, origin=Origin(origin)) as page:
                await page.send(Join().encode())
                assert '"hello"' in await page.recv()
        for origin in ("http://127.0.0.1:1", "null", "https://evil.example", "http://["):
            with pytest.raises(InvalidStatus, match="403"):
                await plain_connect(server.url, origin=Origin(origin))


async def test_limits_hold_for_plain_requests_and_health_is_told_beyond_them():
    async with serving(limits=Limits(per_address=1)) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await until(lambda: server.gate.open == 1)
        assert await get(server, "/healthz") == (200, "ok\n")
        assert (await get(server, "/"))[0] == 503
        assert (await get(server, "/status.json?/healthz"))[0] == 503
        with pytest.raises(InvalidStatus, match="503"):
            await plain_connect(server.url)
        assert server.gate.refused == 4
        writer.close()


async def test_health_is_told_over_a_proxy_whose_client_has_too_many_connections():
    proxies = Proxies(["127.0.0.1"])
    async with serving(limits=Limits(per_address=1), proxies=proxies) as server:
        client = {"X-Forwarded-For": "198.51.100.7"}
        async with plain_connect(server.url, additional_headers=client):
            assert (await get(server, "/", "X-Forwarded-For: 198.51.100.7"))[0] == 503
            assert (await get(server, "/healthz", "X-Forwarded-For: 198.51.100.7"))[0] == 200
            assert (await get(server, "/", "X-Forwarded-For: 198.51.100.8"))[0] == 200
            with pytest.raises(InvalidStatus, match="503"):
                await plain_connect(server.url, additional_headers=client)


async def answer_to(port: int, request: bytes) -> tuple[str, str]:
    """Head and body of the answer to bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    head, _, body = (await asyncio.wait_for(reader.read(), 60)).decode().partition("\r\n\r\n")
    writer.close()
    return head, body


async def test_head_is_answered_as_get_without_the_body():
    async with serving() as server:
        for path in ("/healthz", "/", "/nothing"):
            asked = f" {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
            head, body = await answer_to(server.port, b"HEAD" + asked)
            whole = await answer_to(server.port, b"GET" + asked)
            assert (head, body) == (whole[0], "")
            assert f"Content-Length: {len(whole[1].encode())}" in head
        upgrade = b"Host: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        head, _ = await answer_to(server.port, b"HEAD /healthz HTTP/1.1\r\n" + upgrade)
        assert head.startswith("HTTP/1.1 200")


@pytest.mark.parametrize("body", [b"", b"Content-Length: 5\r\n\r\nhello", b"\r\n" + bytes(9000)])
@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"OPTIONS", b"get", b"M-SEARCH"])
async def test_other_methods_are_not_allowed_whatever_they_bring(method, body):
    async with serving() as server:
        request = method + b" /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n" + (body or b"\r\n")
        head, sentence = await answer_to(server.port, request)
        assert head.startswith("HTTP/1.1 405 ")
        assert "Allow: GET, HEAD" in head.split("\r\n")
        assert sentence.count("\n") == 1
        await until(lambda: server.gate.open == 0)


async def test_a_method_that_comes_byte_by_byte_is_read_all_the_same():
    async with serving() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for byte in b"HEAD /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n":
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0)
        assert (await reader.read()).endswith(b"\r\n\r\n")
        writer.close()


def _luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb``, 0 to 1 (WCAG 2.2)."""
    linear = []
    for at in (1, 3, 5):
        value = int(colour[at : at + 2], 16) / 255
        linear.append(value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4)
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_stand_out_as_much_as_people_need(scheme):
    """Text 4.5 to 1, and what has to be told apart without reading 3 to 1 (WCAG 2.2, AA)."""
    css = (STATIC / "page.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"--([\w-]+): (#\w{6});", css.split(":root {")[scheme + 1]))
    for name, least in (("text", 4.5), ("quiet", 4.5), ("warm", 4.5), ("edge", 3), ("bar", 3)):
        for behind in ("ground", "raised"):
            pair = sorted(_luminance(colours[which]) for which in (name, behind))
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= least, (name, behind)
    button = sorted(_luminance(colours[which]) for which in ("accent", "accent-text"))
    assert (button[1] + 0.05) / (button[0] + 0.05) >= 4.5


# Slow readers


def _long(sending: Sending, pieces: int) -> Site:
    """A site that answers everything with so many pieces of 64 KiB."""

    async def body() -> AsyncGenerator[bytes, None]:
        for _ in range(pieces):
            yield bytes(65_536)

    class Long(Site):
        async def answer(self, path: str, headers: Headers, address: str = "") -> http.Answer:
            return http.Answer(HTTPStatus.OK, pieces=body, length=pieces * 65_536)

    return Long(sending.status)


async def _ask_slowly(port: int) -> socket.socket:
    """A request on a connection that has room for little on its way."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, ("127.0.0.1", port))
    await loop.sock_sendall(raw, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    return raw


async def _rest(raw: socket.socket, pause_s: float = 0.0) -> int:
    """Read to the end, however that comes; returns the bytes of the body that came."""
    got = b""
    with contextlib.suppress(ConnectionError):
        while piece := await asyncio.get_running_loop().sock_recv(raw, 65_536):
            got += piece
            await asyncio.sleep(pause_s)
    raw.close()
    return len(got.partition(b"\r\n\r\n")[2])


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(connection, "_STALLED_S", 0.5)
    monkeypatch.setattr(connection, "_LOOK_S", 0.1)


async def test_a_reader_who_takes_nothing_is_cut_off(impatient):
    sending = Sending()
    async with WebSocketServer(sending.hub, "127.0.0.1", 0) as server:
        server.site = _long(sending, pieces=64)
        raw = await _ask_slowly(server.port)
        while server.gate.open == 0:
            await asyncio.sleep(0.01)
        while server.gate.open:
            await asyncio.sleep(0.01)
        assert await _rest(raw) < 64 * 65_536


async def test_a_slow_reader_gets_everything(impatient, monkeypatch):
    monkeypatch.setattr(websocket_server, "CLOSE_TIMEOUT_S", 0.1)  # as the library gives an answer
    sending = Sending()
    limits = Limits(handshake_s=0.5)
    async with WebSocketServer(sending.hub, "127.0.0.1", 0, limits=limits) as server:
        server.site = _long(sending, pieces=8)
        raw = await _ask_slowly(server.port)
        assert await _rest(raw, pause_s=0.05) == 8 * 65_536


async def test_who_reads_slowly_does_not_hold_up_the_end():
    sending = Sending()
    async with WebSocketServer(sending.hub, "127.0.0.1", 0) as server:
        server.site = _long(sending, pieces=64)
        raw = await _ask_slowly(server.port)
        while server.gate.open == 0:
            await asyncio.sleep(0.01)
    assert await _rest(raw) < 64 * 65_536


async def test_who_asks_for_headers_alone_gets_the_length_and_no_body():
    sending = Sending()
    async with WebSocketServer(sending.hub, "127.0.0.1", 0) as server:
        server.site = _long(sending, pieces=2)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"HEAD / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        got = await reader.read()
        assert b"Content-Length: 131072\r\n" in got
        assert got.endswith(b"\r\n\r\n")
        writer.close()


async def test_over_tls_all_of_a_long_answer_arrives(tmp_path):
    cert, key = make_certificate(tmp_path)
    sending = Sending()
    tls = server_context(cert, key)
    async with WebSocketServer(sending.hub, "127.0.0.1", 0, tls=tls) as server:
        server.site = _long(sending, pieces=8)
        trusting = ssl.create_default_context(cafile=cert)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=trusting)
        writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        got = await reader.read()
        assert len(got.partition(b"\r\n\r\n")[2]) == 8 * 65_536
        writer.close()
