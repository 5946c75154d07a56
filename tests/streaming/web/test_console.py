"""The listener's page: what it is told, what it may ask for, and how little it can hold up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from websockets.asyncio.client import connect as plain_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from codec.constants import SAMPLE_RATE
from streaming.cli import client
from streaming.errors import TransportError
from streaming.receive.output import Output
from streaming.stream.timeline import StartAt
from streaming.support.guard import Guesses
from streaming.web.clock_card import ClockCard
from streaming.web.console import Console, Wish, parse_wish
from streaming.web.controls import ListenerControls
from streaming.web.feed import Feed
from streaming.web.monitor import Monitor
from streaming.web.spectrum import BANDS, COLUMN_SAMPLES, HIGHEST_HZ, LOWEST_HZ, Spectrum
from streaming.wire.messages import End
from tests.support.listening import FakeCard, Script, hello, play, scripted, token_messages, tokens


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def block(seconds: float, hz: float = 440.0) -> np.ndarray:
    at = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return np.tile(0.5 * np.sin(2 * np.pi * hz * at), (2, 1)).astype(np.float32)


# A clock for a sound card


def test_a_clock_card_takes_sound_at_the_pace_of_time():
    clock = Clock()
    card = ClockCard(0.5, clock, clock.sleep)
    for _ in range(100):
        card.write(block(0.1))
    assert clock.now_s == pytest.approx(10.0 - 0.5, abs=0.15)
    assert card.buffered_samples == pytest.approx(0.5 * SAMPLE_RATE, abs=0.15 * SAMPLE_RATE)
    card.drain()
    assert clock.now_s == pytest.approx(10.0, abs=0.05)
    assert card.buffered_samples == 0


def test_a_clock_card_plays_faster_when_told():
    clock = Clock()
    card = ClockCard(10.0, clock, clock.sleep)
    card.write(block(2.0))
    clock.sleep(0.5)
    assert card.buffered_samples == 1.5 * SAMPLE_RATE
    card.speed = 2.0
    clock.sleep(0.5)
    assert card.speed == 2.0
    assert card.buffered_samples == 0.5 * SAMPLE_RATE


def test_a_clock_card_that_runs_dry_counts_it_and_waits_for_more():
    clock = Clock()
    card = ClockCard(1.0, clock, clock.sleep)
    card.write(block(0.05))  # too little to begin with
    clock.sleep(1.0)
    assert (card.underruns, card.buffered_samples) == (0, 2400)
    card.write(block(0.05))
    clock.sleep(1.0)
    assert (card.buffered_samples, card.underruns) == (0, 1)
    clock.sleep(1.0)
    assert card.buffered_samples == 0
    assert card.underruns == 1


def test_a_clock_card_drops_what_it_holds_and_is_interrupted():
    clock = Clock()
    card = ClockCard(0.2, clock, clock.sleep)
    card.write(block(5.0))
    card.drop()
    assert (card.buffered_samples, card.underruns) == (0, 0)
    card.write(block(5.0))
    card.close()
    card.write(block(5.0))  # waits no longer
    card.drain()
    assert clock.now_s == 0.0


# The picture


@pytest.mark.parametrize("hz", [110.0, 1000.0, 8000.0])
def test_a_tone_stands_out_in_its_band(hz):
    columns = Spectrum().push(block(0.5, hz))
    assert [len(column) for column in columns] == [BANDS] * 10
    centres = np.geomspace(LOWEST_HZ, HIGHEST_HZ, BANDS)
    loudest = int(np.argmax(list(columns[-1])))
    assert centres[loudest] == pytest.approx(hz, rel=0.1)
    assert columns[-1][loudest] > 150


def test_columns_do_not_depend_on_the_blocks_that_sound_comes_in():
    sound = block(1.0, 300.0)
    spectrum = Spectrum()
    pieces = [
        column for at in range(0, 48_000, 700) for column in spectrum.push(sound[:, at : at + 700])
    ]
    assert pieces == Spectrum().push(sound)


def test_silence_is_black():
    (column,) = Spectrum().push(np.zeros((2, COLUMN_SAMPLES), np.float32))
    assert set(column) == {0}


# The monitor


def test_a_monitor_hands_everything_on_and_keeps_what_was_not_shown():
    card = FakeCard()
    monitor = Monitor(card)
    sound = block(0.3)
    monitor.write(sound[:, :7200])
    card.buffered_samples = 4800
    assert monitor.heard_samples == 2400
    monitor.write(sound[:, 7200:])
    np.testing.assert_array_equal(card.sound, sound)
    (first,) = monitor.pieces(7200)
    assert (first.first_sample, first.samples) == (0, 7200)
    pcm = np.frombuffer(first.pcm, "<i2").reshape(-1, 2)
    np.testing.assert_allclose(pcm.T / 32767, sound[:, :7200], atol=1e-4)
    assert [piece.first_sample for piece in monitor.pieces(10**9)] == [7200]
    assert monitor.pieces(10**9) == []
    assert [column.index for column in monitor.columns()] == list(range(6))
    assert monitor.columns() == []


def test_a_monitor_forgets_what_nobody_takes():
    monitor = Monitor(FakeCard())
    for _ in range(300):
        monitor.write(np.zeros((2, 4800), np.float32))
    assert monitor.pieces(10**9)[0].first_sample >= 19 * SAMPLE_RATE
    assert len(monitor.columns()) == 200


def test_what_is_dropped_leaves_no_hole_in_the_picture():
    card = FakeCard()
    monitor = Monitor(card)
    monitor.write(block(1.0))
    card.buffered_samples = 38_400
    assert monitor.heard_samples == 9600
    monitor.drop()
    assert (card.dropped, monitor.drops, monitor.pieces(10**9)) == (1, 1, [])
    card.buffered_samples = 0
    assert monitor.heard_samples == 9600
    monitor.write(block(0.1))
    assert [column.index for column in monitor.columns()] == [4, 5]
    assert monitor.heard_samples == 9600 + 4800


def test_a_monitor_is_its_card_in_everything_else():
    card = FakeCard()
    monitor = Monitor(card)
    monitor.speed = 1.01
    card.underruns, card.buffered_samples = 3, 7
    assert (card.speed, monitor.speed, monitor.underruns, monitor.buffered_samples) == (
        *(1.01, 1.01, 3, 7),
    )
    monitor.drain()
    monitor.interrupt()
    monitor.close()
    assert (card.drained, card.interrupted, card.closed) == (1, True, 1)


# What waits for a page


async def test_a_page_that_does_not_keep_up_loses_the_oldest_sound_and_no_event():
    feed = Feed(most_bytes=100)
    for number in range(10):
        feed.data(bytes([number]) * 30)
    feed.state("old")
    feed.state("new")
    assert feed.dropped == 7
    assert [await feed.take() for _ in range(4)] == ["new", *(bytes([n]) * 30 for n in (7, 8, 9))]
    feed.data(b"x")
    feed.event("flush")
    assert await feed.take() == "flush"
    assert feed.dropped == 8
    waiting = asyncio.ensure_future(feed.take())
    await asyncio.sleep(0)
    feed.data(b"y")
    assert await waiting == b"y"


# What a page may ask for


def test_wishes_are_read_and_nonsense_is_none():
    assert parse_wish('{"type":"seek","value":-60}') == Wish("seek", -60.0)
    assert parse_wish('{"type":"live"}') == Wish("live")
    assert parse_wish('{"type":"sound","value":1}') == Wish("sound", 1.0)
    for nonsense in (
        *("", "[]", "7", '{"type":1}', '{"type":"quit"}', '{"type":"volume","value":1.5}'),
        *('{"type":"seek","value":NaN}', '{"type":"seek","value":"far"}', "[" * 200),
        *('{"type":"seek","value":1e9}', '{"type":["live"]}'),
    ):
        assert parse_wish(nonsense) is None


# The server of the page


class Recorder:
    """Controls that only remember."""

    def __init__(self) -> None:
        self.volume = 1.0
        self.seeks: list[float] = []
        self.lives = 0

    def figures(self) -> dict[str, object]:
        return {"title": "Tune"}

    def seek(self, seconds: float) -> None:
        self.seeks.append(seconds)

    def go_live(self) -> None:
        self.lives += 1


@contextlib.asynccontextmanager
async def console():
    card = FakeCard()
    controls = Recorder()
    async with Console(monitor := Monitor(card), controls, 0) as page:
        yield page, monitor, controls


async def until(happened: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline_s, "waited in vain"
        await asyncio.sleep(0.01)


async def messages(socket, wanted: Callable[[Any], bool]) -> Any:
    """The first message that is wanted; text as JSON."""
    while True:
        data = await asyncio.wait_for(socket.recv(), 60)
        message = json.loads(data) if isinstance(data, str) else data
        if wanted(message):
            return message


def kind(number: int) -> Callable[[Any], bool]:
    return lambda message: isinstance(message, bytes) and message[0] == number


def event(name: str) -> Callable[[Any], bool]:
    return lambda message: isinstance(message, dict) and message["type"] == name


def websocket(page: Console) -> str:
    return page.url.replace("http", "ws")


async def test_a_page_is_told_the_state_the_picture_and_on_request_the_sound():
    async with console() as (page, monitor, _), plain_connect(websocket(page)) as socket:
        assert (await messages(socket, event("hello")))["bands"] == BANDS
        assert (await messages(socket, event("state")))["title"] == "Tune"
        monitor.write(block(0.1))
        column = await messages(socket, lambda message: isinstance(message, bytes))
        assert column[:8] == struct.pack(">B3xI", 1, 0)
        assert len(column) == 8 + BANDS
        await socket.send('{"type":"sound","value":1}')
        await until(lambda: all(p.sound for p in page._pages))
        monitor.write(block(0.1))
        sound = await messages(socket, kind(2))
        assert sound[:8] == struct.pack(">B3xI", 2, 4800)
        assert len(sound) == 8 + 4 * 4800


async def test_sound_goes_out_when_it_is_nearly_due_and_not_before():
    async with (
        console() as (page, monitor, _),
        # What is unread has no limit: at one the library would wait for us as it closes.
        plain_connect(websocket(page), max_queue=None) as socket,
    ):
        await socket.send('{"type":"sound","value":1}')
        await until(lambda: any(p.sound for p in page._pages))
        card = monitor.card
        card.buffered_samples = 4 * SAMPLE_RATE  # all that follows is in the card, unheard
        for _ in range(40):
            monitor.write(block(0.1))
        await messages(socket, kind(1))
        held = monitor._pieces[0].first_sample
        assert held == 5 * 4800  # half a second has gone out
        card.buffered_samples = 0
        await until(lambda: not monitor._pieces)


async def test_a_page_that_asks_is_heard():
    async with console() as (page, _, controls), plain_connect(websocket(page)) as socket:
        page._clock = lambda: 100.0  # it stands still, so that "too soon" is so on any machine
        await socket.send('{"type":"volume","value":0.25}')
        await messages(socket, lambda m: event("state")(m) and m["volume"] == 0.25)
        await socket.send('{"type":"seek","value":-60}')
        await socket.send('{"type":"seek","value":-60}')  # too soon after the first
        await until(lambda: controls.seeks)
        page._seek_from_s = 0.0
        await socket.send('{"type":"live"}')
        await until(lambda: controls.lives)
        assert controls.seeks == [-60.0]


async def test_sound_that_is_dropped_is_dropped_in_the_page_too():
    async with console() as (page, monitor, _), plain_connect(websocket(page)) as socket:
        await messages(socket, event("state"))
        monitor.write(block(0.1))
        await messages(socket, kind(1))
        monitor.drop()
        assert (await messages(socket, event("flush")))["heard"] == 4800


async def test_nonsense_ends_the_connection_and_nothing_else():
    async with console() as (page, _, _), plain_connect(websocket(page)) as good:
        async with plain_connect(websocket(page)) as bad:
            await bad.send("nonsense")
            with pytest.raises(ConnectionClosed, match="1008"):
                await messages(bad, lambda message: False)
        await messages(good, event("state"))


async def test_the_page_is_for_this_machine_and_itself_alone():
    async with console() as (page, _, _):
        ours = Origin(page.url.rsplit("/", 2)[0])
        async with plain_connect(websocket(page), origin=ours):
            pass
        with pytest.raises(InvalidStatus, match="403"):
            await plain_connect(websocket(page), origin=Origin("http://evil.example"))
        with pytest.raises(InvalidStatus, match="421"):
            await plain_connect(
                websocket(page).replace("127.0.0.1", "evil.example"),
                host="127.0.0.1",
                port=page.port,
                origin=Origin("http://x"),
            )
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(8):
                await stack.enter_async_context(plain_connect(websocket(page)))
            with pytest.raises(InvalidStatus, match="503"):
                await plain_connect(websocket(page))


async def test_files_and_figures_of_the_page_are_there():
    async with console() as (page, _, _):

        async def get(path: str) -> str:
            reader, writer = await asyncio.open_connection("127.0.0.1", page.port)
            asked = urlsplit(page.url).path + path
            writer.write(f"GET {asked} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            answer = (await reader.read()).decode()
            writer.close()
            return answer

        scripts = ("listener.js", "audio-thread.js", "spectrogram.js", "sound.js", "stream.js")
        for path in ("", *scripts):
            answer = await get(path)
            assert answer.startswith("HTTP/1.1 200")
            assert "Referrer-Policy: no-referrer" in answer
        assert '"title": "Tune"' in await get("status.json")
        assert (await get("server.py")).startswith("HTTP/1.1 404")


async def answer_of(page: Console, path: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", page.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    return answer


async def test_who_does_not_know_the_secret_sees_and_controls_nothing(caplog):
    async with console() as (page, _, controls):
        secret = urlsplit(page.url).path.strip("/")
        assert len(secret) >= 20
        wrong = secret[:-1] + ("A" if secret[-1] != "A" else "B")
        for path in ("/", "/status.json", "/listener.js", "//", f"/{wrong}/", f"/{wrong}", "/x/y"):
            answer = await answer_of(page, path)
            assert answer.startswith("HTTP/1.1 404")
            assert "Tune" not in answer
            assert secret not in answer
        for path in ("", wrong):
            with pytest.raises(InvalidStatus, match="404"):
                await plain_connect(f"ws://127.0.0.1:{page.port}/{path}")
        assert controls.volume == 1.0
        assert caplog.text.count("wrong secret") == 1


async def test_the_secret_is_another_each_time():
    async with console() as (one, _, _), console() as (two, _, _):
        assert urlsplit(one.url).path != urlsplit(two.url).path


async def test_guesses_of_the_secret_are_slowed_and_the_page_is_not():
    async with console() as (page, _, _):
        waited: list[float] = []

        async def sleep(seconds: float) -> None:
            waited.append(seconds)

        page._guesses = Guesses(free=3, clock=lambda: 0.0, sleep=sleep)
        answers = [(await answer_of(page, f"/guess{n}/"))[9:12] for n in range(13)]
        assert answers == ["404"] * 11 + ["429"] * 2
        assert waited == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
        async with plain_connect(websocket(page)) as socket:
            await messages(socket, event("state"))


async def test_silent_connections_and_floods_do_not_take_the_page_over():
    async def flood(page: Console) -> None:
        async with plain_connect(websocket(page)) as socket:
            while True:
                await socket.send('{"type":"volume","value":1}')
                await asyncio.sleep(0)

    async with console() as (page, _, _):
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(flood(page), 60)
        silent = [await asyncio.open_connection("127.0.0.1", page.port) for _ in range(90)]
        await until(lambda: page._server._door._gate.refused >= 26)
        assert len(page._server._door.callers) == 64
        for _, writer in silent:
            writer.transport.abort()
        await until(lambda: not page._server._door.callers)


async def test_a_port_in_use_is_one_sentence():
    async with console() as (page, _, _):
        with pytest.raises(TransportError, match=r"in use.*--web=PORT"):
            async with Console(Monitor(FakeCard()), Recorder(), page.port):
                pass


# The listener behind it


async def test_the_page_moves_the_listener_in_the_stream_and_sets_the_volume(monkeypatch):
    class Card:
        volume = 0.5

    moves: list[StartAt] = []
    all_tokens = tokens(480)
    connection = Script(hello(next_token=480), *token_messages(all_tokens), End(480).encode())
    listener = scripted(Output(card=FakeCard()), connection)
    controls = ListenerControls(listener, Card())  # type: ignore[arg-type]
    assert controls.figures()["connected"] is False
    await play(listener)
    monkeypatch.setattr(listener, "go_to", moves.append)
    figures = controls.figures()
    assert figures["title"] == "Song"
    assert figures["plays"] is True
    heard = listener.heard_sample // 1920
    controls.seek(-10)
    controls.seek(-1e4)
    controls.seek(1e4)
    controls.go_live()
    assert moves == [StartAt(token=heard - 250), StartAt(token=0), StartAt(), StartAt()]
    assert controls.volume == 0.5
    controls.volume = 0.25
    assert (Card.volume, controls._card.volume) == (0.5, 0.25)  # type: ignore[union-attr]


def test_the_port_of_the_page_may_be_left_out_before_the_address():
    parsed = client.parse_arguments(["--web", "ws://radio.example"])
    assert (parsed.web, parsed.url) == (8766, "ws://radio.example")
    assert client.parse_arguments(["ws://radio.example", "--web", "0"]).web == 0
    assert client.parse_arguments(["--web"]).web == 8766
    assert client.parse_arguments([]).web is None
