"""The gateway: one sound for any player, in formats that real players play."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from codec.constants import SAMPLE_RATE
from streaming.cli.client import open_gateway
from streaming.cli.client_arguments import read_arguments
from streaming.errors import SettingsError, TransportError
from streaming.support.forwarded import Proxies
from streaming.support.guard import AuthTokens, Limits
from streaming.support.tls import client_context, server_context
from streaming.web import encoding, gateway
from streaming.web.encoding import FORMATS, EncodedStream, Mp3Frames, OggPages, Unit
from streaming.web.gateway import Gateway, with_titles
from tests.streaming.web.test_reverse_proxy import documented
from tests.support.browser import Browser, browser  # noqa: F401
from tests.support.certificates import make_certificate
from tests.support.nginx import Nginx, nginx  # noqa: F401

TONE_HZ = 1000.0
BLOCK = 4800
NAMES = [made.name for made in FORMATS]
SECRET = "correct horse"

_KEPT: list[asyncio.StreamWriter] = []

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg")


@pytest.fixture(autouse=True)
def _undisturbed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(gateway, "_SILENT_S", 1e9)  # on a busy machine the tone may come late
    yield
    _KEPT.clear()


def tone(first: int, count: int = BLOCK) -> np.ndarray:
    at = np.arange(first, first + count) / SAMPLE_RATE
    mono = 0.5 * np.sin(2 * np.pi * TONE_HZ * at)
    return np.stack([mono, mono]).astype(np.float32)


@contextlib.asynccontextmanager
async def opened(plays: bool = True, **options: Any) -> AsyncIterator[Gateway]:
    """A gateway on loopback that plays a tone in time."""
    async with Gateway("127.0.0.1", 0, **options) as serving:
        playing = asyncio.create_task(play(serving)) if plays else None
        yield serving
        if playing is not None:
            playing.cancel()


async def announce(serving: Gateway, title: str) -> None:
    """The title changes, and the gateway has noticed."""
    serving.title = lambda: title
    while serving._last_title != title:
        await asyncio.sleep(0.01)


async def play(serving: Gateway) -> None:
    loop = asyncio.get_running_loop()
    began_s, count = loop.time(), 0
    while True:
        serving.write(tone(count * BLOCK))
        count += 1
        await asyncio.sleep(max(0.0, began_s + count * BLOCK / SAMPLE_RATE - loop.time()))


async def ask(serving: Gateway, path: str, **headers: str) -> tuple[str, asyncio.StreamReader]:
    """The head of an answer, and what reads its body; underscores in headers stand for hyphens."""
    reader, writer = await asyncio.open_connection("127.0.0.1", serving.port)
    fields = {"Host": f"127.0.0.1:{serving.port}", **headers}
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items()]
    writer.write(f"GET {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode())
    _KEPT.append(writer)  # which closes the connection when it is forgotten
    return (await reader.readuntil(b"\r\n\r\n")).decode("latin-1"), reader


async def body(serving: Gateway, path: str, **headers: str) -> str:
    _, reader = await ask(serving, path, **headers)
    return (await reader.read()).decode()


def decoded(sound: bytes, path: Path) -> np.ndarray:
    """What ffmpeg makes of a part of a stream, ``[n, 2]``."""
    path.write_bytes(sound)
    wav = path.with_suffix(".wav")
    command = ["ffmpeg", "-v", "error", "-y", "-i", str(path)]
    command += ["-ar", str(SAMPLE_RATE), str(wav)]
    subprocess.run(command, check=True)
    return soundfile.read(wav, always_2d=True)[0]


def has_tone(samples: np.ndarray) -> bool:
    """Whether the tone is nearly all that is in the loudest tenth of a second."""
    blocks = samples[: len(samples) // BLOCK * BLOCK, 0].reshape(-1, BLOCK)
    loudest = blocks[np.argmax((blocks**2).sum(axis=1))]
    power = np.abs(np.fft.rfft(loudest * np.hanning(BLOCK))) ** 2
    at = round(TONE_HZ * BLOCK / SAMPLE_RATE)
    return bool(power[at - 3 : at + 4].sum() > 0.9 * power.sum() > 0)


# Framing


def encoded(name: str, seconds: float = 2.0) -> bytes:
    made = next(made for made in FORMATS if made.name == name)
    pcm = tone(0, round(seconds * SAMPLE_RATE)).T.tobytes()
    return subprocess.run(made.command("A song"), input=pcm, stdout=subprocess.PIPE).stdout


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return {name: encoded(name) for name in NAMES}


@pytest.mark.parametrize("name", ["opus", "flac"])
def test_an_ogg_stream_is_cut_into_its_pages_after_its_headers(files, name):
    framing = OggPages()
    units = framing.feed(files[name])
    assert units[0].link.head + b"".join(unit.data for unit in units) == files[name]
    assert all(unit.data.startswith(b"OggS") for unit in units)
    assert b"A song" in units[0].link.head
    assert sum(unit.seconds for unit in units) == pytest.approx(2.0, abs=0.05)
    assert len(units) >= 5


def test_every_unit_of_mp3_begins_with_a_frame(files):
    framing = Mp3Frames()
    units = [unit for at in range(0, 40_000, 700) for unit in framing.feed(files["mp3"][at:][:700])]
    assert b"".join(unit.data for unit in units) == files["mp3"][: sum(len(u.data) for u in units)]
    assert all(unit.data[:2] == b"\xff\xfb" for unit in units)
    assert sum(unit.seconds for unit in units) == pytest.approx(2.0, abs=0.1)


@given(cuts=st.lists(st.integers(1, 5000), min_size=1, max_size=20))
def test_pages_do_not_depend_on_how_they_arrive(files, cuts):
    whole = [unit.data for unit in OggPages().feed(files["opus"])]
    framing, got, at = OggPages(), [], 0
    while at < len(files["opus"]):
        for cut in cuts:
            got += [unit.data for unit in framing.feed(files["opus"][at : at + cut])]
            at += cut
    assert got == whole


# Titles among the sound


async def _pieces(sound: bytes, size: int) -> AsyncGenerator[bytes, None]:
    for at in range(0, len(sound), size):
        yield sound[at : at + size]


def _without_titles(data: bytes, interval: int) -> tuple[bytes, list[str]]:
    sound, titles = b"", []
    while len(data) > interval:
        size = 16 * data[interval]
        block = data[interval + 1 :][:size].rstrip(b"\0").decode()
        if block:
            titles.append(re.fullmatch("StreamTitle='(.*)';", block)[1])  # type: ignore[index]
        sound, data = sound + data[:interval], data[interval + 1 + size :]
    return sound + data, titles


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
async def test_titles_stand_between_the_sound_when_they_change(size):
    sound = bytes(range(256)) * 4
    titles = ["One", "One", "Two ’ two", "Two ’ two", *['It\'s; a "song"'] * 20]
    asked = iter(titles)
    told = b"".join(
        [piece async for piece in with_titles(_pieces(sound, size), lambda: next(asked), 100)]
    )
    assert _without_titles(told, 100) == (sound, list(dict.fromkeys(titles)))


async def test_a_title_can_neither_end_early_nor_be_too_long():
    for title in ("a';StreamUrl='b", "ü" * 5000):
        pieces = with_titles(_pieces(bytes(100), 100), lambda title=title: title, 50)  # type: ignore[misc]
        told = b"".join([piece async for piece in pieces])
        sound, titles = _without_titles(told, 50)
        assert sound == bytes(100)
        assert titles[0].startswith(title[:1])
        assert "';" not in titles[0]


# Listeners


@pytest.mark.parametrize("name", NAMES)
async def test_who_joins_in_the_middle_hears_the_sound(tmp_path, name):
    async with opened() as serving:
        head, first = await ask(serving, f"/stream.{name}")
        assert " 200 " in head.partition("\r\n")[0]
        assert next(made.kind for made in FORMATS if made.name == name) in head
        await first.readexactly(40_000)
        _, second = await ask(serving, f"/stream.{name}")
        sound = await second.readexactly(40_000)
    assert has_tone(decoded(sound, tmp_path / f"second.{name}"))


async def test_a_listener_gets_what_was_just_heard_at_once(tmp_path):
    async with opened(plays=False) as serving:
        for at in range(0, 10 * SAMPLE_RATE, BLOCK):
            serving.write(tone(at))
        _, reader = await ask(serving, "/stream.mp3")
        sound = await reader.readexactly(40_000)  # two seconds of the four before
    assert has_tone(decoded(sound, tmp_path / "burst.mp3"))


async def test_all_listeners_of_a_format_share_one_encoder(monkeypatch):
    started = []
    start = asyncio.create_subprocess_exec

    async def counting(*command: str, **options: Any) -> Any:
        started.append(command)
        return await start(*command, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", counting)
    async with opened() as serving:
        for _ in range(5):
            await (await ask(serving, "/stream.opus"))[1].readexactly(1000)
        assert serving.listeners == 5
    assert len(started) == 1


async def test_nobody_listens_and_nothing_is_encoded(monkeypatch):
    monkeypatch.setattr(encoding, "_LINGER_S", 0.1)
    async with opened() as serving:
        reader, writer = await asyncio.open_connection("127.0.0.1", serving.port)
        writer.write(b"GET /stream.mp3 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await reader.readexactly(5000)
        stream = next(one for one in serving._streams if one.format.name == "mp3")
        assert stream.encodes
        writer.close()
        while stream.encodes:
            await asyncio.sleep(0.05)
        await (await ask(serving, "/stream.mp3"))[1].readexactly(5000)  # and again for who comes


async def test_a_slow_listener_is_dropped_and_another_hears_all():
    stream = EncodedStream(FORMATS[0])
    link = encoding.Link(b"head")
    units = [Unit(link, b"%06d" % number, 1.0) for number in range(200)]
    stream._publish(units[:1])
    slow, quick = stream.listen(), stream.listen()
    assert await anext(slow) == await anext(quick) == b"head000000"
    heard = b""
    for unit in units[1:]:
        stream._publish([unit])
        heard += await anext(quick)
    assert heard == b"".join(unit.data for unit in units[1:])
    with pytest.raises(ConnectionAbortedError):
        await anext(slow)
    assert (stream.dropped, stream.listeners) == (1, 1)
    assert len(stream._units) <= 21


async def test_a_title_begins_another_link_of_an_ogg_stream():
    async with opened() as serving:
        await announce(serving, "First song")
        _, reader = await ask(serving, "/stream.opus")
        heard = await reader.readuntil(b"First song")
        await announce(serving, "Second song")
        heard += await reader.readuntil(b"Second song")
        heard += await reader.readexactly(10_000)
    assert heard.count(b"OpusHead") == heard.count(b"OpusTags") == heard.count(b"song")
    serials = {page[14:18] for page in re.split(b"(?=OggS)", heard) if len(page) > 18}
    assert len(serials) >= 2


async def test_an_encoder_that_dies_begins_anew(monkeypatch):
    processes = []
    start = asyncio.create_subprocess_exec

    async def noting(*command: str, **options: Any) -> Any:
        processes.append(await start(*command, **options))
        return processes[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", noting)
    async with opened() as serving:
        _, reader = await ask(serving, "/stream.opus")
        await reader.readuntil(b"OpusHead")
        processes[0].kill()
        await reader.readuntil(b"OpusHead")
        await reader.readexactly(10_000)


async def test_the_end_of_the_stream_ends_the_answer():
    async with opened(plays=False) as serving:
        serving.write(tone(0, SAMPLE_RATE))
        _, reader = await ask(serving, "/stream.flac")
        serving.close()
        heard = await reader.read()
    assert heard.startswith(b"OggS")


async def test_where_nothing_comes_players_get_silence(tmp_path, monkeypatch):
    monkeypatch.setattr(gateway, "_SILENT_S", 0.1)
    async with opened(plays=False) as serving:
        _, reader = await ask(serving, "/stream.mp3")
        sound = await reader.readexactly(30_000)
    assert not np.abs(decoded(sound, tmp_path / "silence.mp3")).max() > 1e-3


# What else is answered


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "audio/ogg"),
        ("audio/mpeg, */*;q=0.5", "audio/mpeg"),
        ("audio/flac", "audio/ogg; codecs=flac"),
        ("audio/ogg", "audio/ogg"),
    ],
)
async def test_the_bare_address_gives_what_is_accepted(accept, kind):
    async with opened() as serving:
        for path in ("/", "/stream"):
            head, _ = await ask(serving, path, Accept=accept)
            assert f"Content-Type: {kind}\r\n" in head


async def test_icy_titles_come_if_they_are_asked_for():
    async with opened() as serving:
        await announce(serving, "A song")
        head, _ = await ask(serving, "/stream.mp3")
        assert "icy-metaint" not in head
        head, reader = await ask(serving, "/stream.mp3", Icy_MetaData="1")
        interval = int(re.findall(r"icy-metaint: (\d+)", head)[0])
        heard = await reader.readexactly(interval + 64)
        assert _without_titles(heard, interval)[1] == ["A song"]
        head, _ = await ask(serving, "/stream.opus", Icy_MetaData="1")
        assert "icy-metaint" not in head


async def test_an_old_radio_speaks_an_old_http():
    async with opened() as serving:
        reader, writer = await asyncio.open_connection("127.0.0.1", serving.port)
        asked = b"GET /stream.mp3 HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n"
        for at in range(len(asked)):  # byte by byte
            writer.write(asked[at : at + 1])
            await asyncio.sleep(0)
        assert (await reader.readline()).endswith(b" 200 OK\r\n")
        await reader.readuntil(b"\r\n\r\n\xff\xfb")
        writer.close()


async def test_playlists_lead_to_the_stream():
    async with opened(plays=False) as serving:
        listed = await body(serving, "/stream.mp3.m3u", Host="radio.test:80")
        assert "not known by that name" in listed
        listed = await body(serving, "/stream.mp3.m3u")
        assert listed.splitlines()[0] == "#EXTM3U"
        assert listed.splitlines()[-1] == f"http://127.0.0.1:{serving.port}/stream.mp3"
        for path in ("/stream.m3u", "/.m3u"):
            assert (await body(serving, path)).splitlines()[-1].endswith("/stream.opus")


async def test_figures_are_those_of_icecast():
    async with opened() as serving:
        await (await ask(serving, "/stream.mp3"))[1].readexactly(1000)
        figures = json.loads(await body(serving, "/status-json.xsl"))["icestats"]
    mp3 = next(one for one in figures["source"] if one["listenurl"].endswith("/stream.mp3"))
    assert mp3["listeners"] == mp3["listener_peak"] == 1
    assert (mp3["server_type"], mp3["bitrate"]) == ("audio/mpeg", 160)


async def test_a_browser_gets_a_page():
    async with opened(plays=False) as serving:
        head, reader = await ask(serving, "/", Accept="text/html,*/*;q=0.8")
        assert "media-src 'self'" in head
        assert b"<audio" in await reader.read()


async def test_there_is_nothing_else():
    async with opened(plays=False) as serving:
        for path in ("/stream.wav", "/x.m3u", "/stream.opus/", "/../server.py"):
            head, reader = await ask(serving, path)
            assert " 404 " in head.partition("\r\n")[0]
            assert b"/stream.opus" in await reader.read()


# Who may listen


def basic(secret: str) -> str:
    return "Basic " + base64.b64encode(f"anybody:{secret}".encode()).decode()


async def test_with_a_token_only_who_names_it_may_listen():
    async with opened(auth=AuthTokens([SECRET])) as serving:
        for wrong in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": basic("wrong")}):
            head, _ = await ask(serving, "/stream.mp3", **wrong)
            assert " 401 " in head.partition("\r\n")[0]
            assert "WWW-Authenticate: Basic" in head
        for right in (f"Bearer {SECRET}", basic(SECRET)):
            head, _ = await ask(serving, "/stream.mp3", Authorization=right)
            assert " 200 " in head.partition("\r\n")[0]
        assert await body(serving, "/healthz") == "ok\n"


@pytest.mark.parametrize("nonsense", ["Basic", "Basic !!!", "Basic /w==", "Digest x", "basic YQ=="])
async def test_nonsense_is_no_token(nonsense):
    async with opened(plays=False, auth=AuthTokens([SECRET])) as serving:
        head, _ = await ask(serving, "/stream.mp3", Authorization=nonsense)
        assert " 401 " in head.partition("\r\n")[0]


async def test_no_page_of_others_may_listen():
    async with opened(plays=False) as serving:
        for strange in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}):
            head, _ = await ask(serving, "/stream.mp3", **strange)
            assert " 403 " in head.partition("\r\n")[0]


async def test_there_is_room_for_so_many(monkeypatch):
    async with opened(limits=Limits(connections=1)) as serving:
        await (await ask(serving, "/stream.mp3"))[1].readexactly(1000)
        head, _ = await ask(serving, "/stream.mp3")
        assert " 503 " in head.partition("\r\n")[0]
        assert "Retry-After" in head


async def test_a_port_in_use_is_said_in_a_sentence():
    async with opened(plays=False) as serving:
        with pytest.raises(TransportError, match=r"it is in use.*choose another: --serve"):
            async with Gateway("127.0.0.1", serving.port):
                pass


async def test_without_ffmpeg_it_says_what_is_missing(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SettingsError, match="--serve needs ffmpeg"):
        async with Gateway("127.0.0.1", 0):
            pass


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("8000", ("127.0.0.1", 8000)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("[::1]:80", ("::1", 80)),
        ("radio.test:8000", ("radio.test", 8000)),
    ],
)
def test_the_option_names_a_place(text, place):
    assert read_arguments(None, ["--serve", text]).serve == place


@pytest.mark.parametrize("wrong", ["", "here", ":8000", "99999", "-1", "a:b"])
def test_a_wrong_place_is_refused_in_a_sentence(capsys, wrong):
    with pytest.raises(SystemExit) as end:
        read_arguments(None, [f"--serve={wrong}"])
    assert end.value.code == 2
    assert "is no place to serve at; write 8000" in capsys.readouterr().err


# Real players


async def finished(*command: object, **options: Any) -> bytes:
    """Run a player that ends by itself; what it said."""
    words = list(map(str, command))
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **options,
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return said


def need(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"no {program}")
    return found


@pytest.mark.system
@pytest.mark.parametrize("name", NAMES)
async def test_ffmpeg_plays_it_and_reads_the_title(tmp_path, name):
    async with opened() as serving:
        await announce(serving, "A song")
        wav = tmp_path / "out.wav"
        said = await finished("ffmpeg", "-t", 5, "-i", f"{serving.url}stream.{name}", wav)
        assert re.search(rb"(?i)title *: A song", said)
        samples, _ = soundfile.read(wav, always_2d=True)
        assert len(samples) == 5 * SAMPLE_RATE
        assert has_tone(samples)


@pytest.mark.system
@pytest.mark.parametrize("name", NAMES)
async def test_mpv_plays_it(tmp_path, name):
    wav = tmp_path / "out.wav"
    options = ["--no-config", "--no-video", "--ao=pcm", f"--ao-pcm-file={wav}", "--length=4"]
    async with opened() as serving:
        await finished(need("mpv"), *options, f"{serving.url}stream.{name}.m3u")
    samples, _ = soundfile.read(wav, always_2d=True)
    assert len(samples) > 3 * SAMPLE_RATE
    assert has_tone(samples)


@pytest.mark.system
@pytest.mark.parametrize("name", NAMES)
async def test_vlc_plays_it(name):
    program = need("cvlc")
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "out.wav"
        options: dict[str, Any] = {"env": {**os.environ, "HOME": folder}}
        if os.geteuid() == 0:  # it refuses to be root
            Path(folder).chmod(0o777)
            options |= {"user": 65534, "group": 65534, "extra_groups": []}
        chain = "#transcode{acodec=s16l,channels=2,samplerate=48000}"
        chain += f":std{{access=file,mux=wav,dst={wav}}}"
        async with opened() as serving:
            playing = await asyncio.create_subprocess_exec(
                *(program, "-q", "--sout", chain, f"{serving.url}stream.{name}"),
                stdin=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                **options,
            )
            wanted = 3 * 4 * SAMPLE_RATE
            try:
                while not wav.exists() or wav.stat().st_size < wanted:
                    assert playing.returncode is None
                    await asyncio.sleep(0.1)
            finally:
                playing.kill()
                await playing.wait()
        samples = np.frombuffer(wav.read_bytes()[1024:][: wanted // 2], "<i2")
        assert has_tone(samples.reshape(-1, 2) / 32768)


@pytest.mark.system
@pytest.mark.parametrize("name", NAMES)
async def test_a_browser_plays_it(browser: Browser, name):  # noqa: F811
    element = "document.querySelector('audio')"

    def look(port: int) -> None:
        browser.open(f"http://127.0.0.1:{port}/")
        play = f"{element}.src = 'stream.{name}'; {element}.muted = true; {element}.play()"
        browser.driver.execute_cdp_cmd(
            "Runtime.evaluate", {"expression": play, "userGesture": True}
        )
        browser.until(lambda: browser.value(f"return {element}.currentTime > 2"))
        assert browser.complaints() == []
        browser.driver.get("about:blank")

    async with opened() as serving:
        await asyncio.to_thread(look, serving.port)


@pytest.mark.system
async def test_curl_gets_it_with_the_token_as_a_password(tmp_path):
    out = tmp_path / "out.mp3"
    async with opened(auth=AuthTokens([SECRET])) as serving:
        url = f"{serving.url}stream.mp3"
        refused = await finished(need("curl"), "-s", "-o", os.devnull, "-w", "%{http_code}", url)
        assert refused == b"401"
        await finished("curl", "-s", "--max-time", 3, "-u", f"me:{SECRET}", "-o", out, url)
    assert has_tone(decoded(out.read_bytes(), tmp_path / "got.mp3"))


async def beginning(count: int, *command: object) -> bytes:
    """The first bytes that a program writes to its standard output; then it is ended."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        return await process.stdout.readexactly(count)
    finally:
        process.kill()
        await process.communicate()


# Encrypted


@pytest.mark.system
async def test_encrypted_it_is_heard_by_who_trusts_the_certificate(tmp_path):
    cert, key = make_certificate(tmp_path)
    async with opened(tls=server_context(cert, key)) as serving:
        assert serving.url == f"https://127.0.0.1:{serving.port}/"
        trusting = (need("curl"), "-sN", "--cacert", cert)
        sound = await beginning(40_000, *trusting, f"{serving.url}stream.mp3")
        assert has_tone(decoded(sound, tmp_path / "curl.mp3"))
        listed = await finished(*trusting, f"{serving.url}stream.flac.m3u")
        assert listed.decode().splitlines()[-1] == f"{serving.url}stream.flac"
        assert await finished("curl", "-s", "-w", "%{http_code}", serving.url) == b"000"
        wav = tmp_path / "ffmpeg.wav"
        asked = ("-tls_verify", 1, "-ca_file", cert, "-t", 2, "-i", f"{serving.url}stream.flac")
        await finished("ffmpeg", *asked, wav)
        assert has_tone(soundfile.read(wav, always_2d=True)[0])


async def test_the_end_of_the_stream_ends_an_encrypted_answer(tmp_path):
    cert, key = make_certificate(tmp_path)
    async with opened(plays=False, tls=server_context(cert, key)) as serving:
        serving.write(tone(0, SAMPLE_RATE))
        trusted = client_context("wss://", cert)
        reader, writer = await asyncio.open_connection("127.0.0.1", serving.port, ssl=trusted)
        writer.write(b"GET /stream.flac HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await reader.readuntil(b"\r\n\r\nOggS")
        serving.close()
        await reader.read()
        writer.close()


# Behind a reverse proxy


@pytest.fixture
def behind(nginx: Callable[[str], Nginx]) -> Callable[..., Nginx]:  # noqa: F811
    """Puts a proxy before a gateway, configured as the document says, at /radio/."""
    return lambda serving, *files: nginx(documented(serving.port, *files))


@pytest.mark.system
async def test_players_of_a_proxy_count_by_their_own_addresses(behind, tmp_path):
    proxies = Proxies(["127.0.0.1"])
    async with opened(proxies=proxies, limits=Limits(per_address=2)) as serving:
        url = f"http://127.0.0.1:{behind(serving).port}/radio/stream.mp3"
        lying = ("-H", "X-Forwarded-For: 198.51.100.1", "-H", "Forwarded: for=198.51.100.2")
        hears = ("curl", "-sN", *lying, "--interface")
        silent = ("-o", os.devnull)
        playing = [
            asyncio.create_task(finished(*hears, "127.0.0.2", *silent, url)) for _ in range(2)
        ]
        while serving.listeners < 2:
            await asyncio.sleep(0.01)
        assert serving._gate._by_group == {"127.0.0.2": 2}
        refused = await finished(*hears, "127.0.0.2", *silent, "-w", "%{http_code}", url)
        assert refused == b"503"
        sound = await beginning(40_000, *hears, "127.0.0.3", url)
        assert has_tone(decoded(sound, tmp_path / "other.mp3"))
        for player in playing:
            player.cancel()
        await asyncio.gather(*playing, return_exceptions=True)


@pytest.mark.system
async def test_playlists_lead_to_the_stream_behind_a_proxy_that_encrypts(behind, tmp_path):
    cert, key = make_certificate(tmp_path)
    wav = tmp_path / "out.wav"
    options = ["--no-config", "--no-video", "--ao=pcm", f"--ao-pcm-file={wav}", "--length=2"]
    options += ["--tls-verify", f"--tls-ca-file={cert}"]
    async with opened(proxies=Proxies(["127.0.0.1"])) as serving:
        url = f"https://127.0.0.1:{behind(serving, cert, key).port}/radio/"
        listed = await finished(need("curl"), "-s", "--cacert", cert, f"{url}stream.opus.m3u")
        assert listed.decode().splitlines()[-1] == "stream.opus"
        await finished(need("mpv"), *options, f"{url}stream.opus.m3u")
    assert has_tone(soundfile.read(wav, always_2d=True)[0])


async def test_a_proxys_name_is_known_if_it_is_given():
    proxies, origin = Proxies(["127.0.0.1"]), "https://radio.example"
    asked = {"Host": "radio.example", "X_Forwarded_For": "198.51.100.1"}
    async with opened(plays=False, proxies=proxies) as serving:
        assert "let --allow-origin name it" in await body(serving, "/", **asked)
    async with opened(plays=False, proxies=proxies, origins=[origin]) as serving:
        for given in ({}, {"Origin": origin}):
            head, _ = await ask(serving, "/stream.mp3", **asked, **given)
            assert " 200 " in head.partition("\r\n")[0]
            assert "X-Accel-Buffering: no" in head
        head, _ = await ask(serving, "/stream.mp3", **asked, Origin="https://evil.example")
        assert " 403 " in head.partition("\r\n")[0]


async def test_whoever_guesses_through_a_proxy_slows_down_nobody_else():
    proxies = Proxies(["127.0.0.1"])
    async with opened(plays=False, proxies=proxies, auth=AuthTokens([SECRET])) as serving:
        for _ in range(2):
            asked = {"Authorization": "Bearer wrong", "X_Forwarded_For": "198.51.100.1"}
            await ask(serving, "/stream.mp3", **asked)
        assert list(serving._guesses._full_s) == ["198.51.100.1"]


# The options


async def test_the_options_are_those_of_the_station(tmp_path):
    cert, key = make_certificate(tmp_path)
    words = ["--serve", "0", "--tls-cert", str(cert), "--tls-key", str(key)]
    words += ["--trust-proxy", "10.0.0.0/8", "--max-listeners", "3", "--max-per-address", "2"]
    words += ["--allow-origin", "https://radio.example"]
    serving = open_gateway(read_arguments(None, words))
    assert serving is not None
    assert serving.url == "https://127.0.0.1:0/"
    assert serving._proxies.trusts("10.1.2.3")
    assert (serving._limits.connections, serving._limits.per_address) == (3, 2)
    assert "radio.example" in serving._names


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--tls-cert", "CERT", "--tls-key", "KEY"], "are for --serve; give that as well"),
        (["--trust-proxy", "127.0.0.1"], "are for --serve; give that as well"),
        (["--serve", "0", "--trust-proxy", "nginx"], "is no address of a proxy"),
        (["--serve", "0", "--tls-key", "KEY"], "--tls-key needs the certificate as well"),
        (["--serve", "0", "--tls-cert", "none.pem"], "There is no file none.pem for TLS"),
    ],
)
async def test_options_that_make_no_sense_are_one_sentence(tmp_path, words, told):
    files = dict(zip(("CERT", "KEY"), map(str, make_certificate(tmp_path)), strict=True))
    with pytest.raises(SettingsError, match=told):
        open_gateway(read_arguments(None, [files.get(word, word) for word in words]))
