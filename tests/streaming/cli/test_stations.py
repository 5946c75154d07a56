"""The programs with streams of tokens: a station, a relay and a recorder without torch or model."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import signal
import subprocess
import sys
import time
import urllib.request
from datetime import UTC, datetime

import numpy as np
import pytest
import soundfile

from streaming.cli import client, server
from streaming.cli.client import find_stream, open_output
from streaming.errors import SettingsError, SourceError, TransportError, UserError
from streaming.files.convert import decode_file
from streaming.files.muc import Finish, MucEncoder, MucMuxer, MucReader, StreamHeader
from streaming.files.muc.messages import Clock, Record
from streaming.files.playback import load_history, place_in
from streaming.send.replay import MucPlaylist
from streaming.stream.hub import Hub
from streaming.stream.listener_session import ListenerSession
from streaming.stream.timeline import StartAt
from streaming.transports.websocket import connect
from streaming.transports.websocket.server import WebSocketServer
from streaming.web import player
from streaming.wire.messages import End, Gap, Hello, StreamInfo, Title, Tokens
from tests import ROOT
from tests.streaming.cli.test_client import run as listen_program
from tests.support.fake_codec import FakeCodec, load_none
from tests.support.listening import tokens, whole_sound

ALL = tokens(300)

# Ends with exit code 3 if a library for models was imported after all, or in a server the one for
# files of sound.
PROGRAM = """
import sys
from streaming.cli import {0}
code = {0}.main(sys.argv[1:])
heavy = ["torch", "onnxruntime"] + ["soundfile"] * ("{0}" == "server")
sys.exit(3 if code == 0 and any(name in sys.modules for name in heavy) else code)
"""


@pytest.fixture
def file(tmp_path):
    """Twelve seconds of a file."""
    encoder = MucEncoder(StreamHeader("fake", "fake-1", FakeCodec.digest, seed=5))
    path = tmp_path / "song.muc"
    path.write_bytes(encoder.title("Song") + encoder.tokens(ALL) + encoder.finish(300 * 1920 - 9))
    return path


@pytest.fixture
def start():
    """Start a program as a process that must not import torch; returns it and its log's file."""
    processes = []

    def begin(name, log, *arguments):
        with log.open("wb") as stderr:
            command = [sys.executable, "-c", PROGRAM.format(name), *map(str, arguments)]
            process = subprocess.Popen(command, cwd=ROOT, stderr=stderr)
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.kill()
        process.wait()


async def address(process, log):
    """Where a server listens."""
    while not (found := re.findall(r"listening on (ws://\S+)", log.read_text())):
        assert process.poll() is None, log.read_text()
        await asyncio.sleep(0.02)
    return found[0]


async def ends(process):
    while (code := process.poll()) is None:
        await asyncio.sleep(0.02)
    return code


async def test_a_station_a_relay_and_a_recorder_need_no_torch(file, tmp_path, start):
    """A file served, relayed twice, recorded and heard: the same tokens and seed everywhere."""
    logs = [tmp_path / f"{n}.log" for n in range(4)]
    station = start("server", logs[0], file, "--loop", "--port", "0", "--packet-tokens", "25")
    url = await address(station, logs[0])
    first = start("server", logs[1], url, "--port", "0")
    second = start("server", logs[2], await address(first, logs[1]), "--port", "0")
    url = await address(second, logs[2])
    recorder = start("client", logs[3], url, "--save", tmp_path / "copy.muc", "--seconds", "3.01")
    session, seen, stopped = ListenerSession(None), [], False
    async with await connect(url) as connection:
        await connection.send(session.join())
        async for data in connection:
            seen += session.receive(data, 0.0)
            if recorder.poll() is not None and not stopped:
                station.send_signal(signal.SIGINT)
                stopped = True
    assert [await ends(p) for p in (station, first, second, recorder)] == [0, 0, 0, 0]
    hello = seen[0]
    assert isinstance(hello, Hello)
    assert (hello.seed, hello.digest, hello.packet_tokens) == (5, FakeCodec.digest, 25)
    heard = np.concatenate([packet.tokens for packet in seen if isinstance(packet, Tokens)])
    looped = np.resize(ALL, hello.first_token + len(heard))
    assert np.array_equal(heard, looped[hello.first_token :])
    assert "Song" in [hello.title, *(t.title for t in seen if isinstance(t, Title))]
    assert seen[-1] == End(len(looped), "the sender was stopped")
    copy = MucReader(tmp_path / "copy.muc")
    info = copy.describe()
    assert (info.header.seed, info.header.stream) == (5, hello.stream)
    assert (info.samples, info.lost_tokens, info.complete) == (144_480, 0, True)
    saved = [item.tokens for item in copy.items() if isinstance(item, Tokens)]
    begin = info.first_token
    assert np.array_equal(np.concatenate(saved), np.resize(ALL, begin + 76)[begin:])
    assert "encode RTF" not in logs[0].read_text()


async def test_a_station_serves_what_browsers_play_with_and_needs_none_of_it(file, tmp_path, start):
    log = tmp_path / "station.log"
    station = start("server", log, file, "--loop", "--port", "0")
    url = (await address(station, log)).replace("ws://", "http://")
    for part in player.files():
        with await asyncio.to_thread(urllib.request.urlopen, f"{url}/{part.url}") as answer:
            content = await asyncio.to_thread(answer.read)
        assert hashlib.sha256(content).hexdigest() == part.sha256
    station.send_signal(signal.SIGINT)
    assert await ends(station) == 0


async def test_a_recording_is_played_and_written_as_it_was_sent(file, tmp_path):
    """`client.py FILE.muc --out`, and --save beside it."""
    out, copy = tmp_path / "out.wav", tmp_path / "copy.muc"
    await listen_program(file, "--out", out, "--save", copy)
    audio, _ = soundfile.read(out, dtype="float32")
    expected = np.clip(whole_sound(ALL), -1, 1).T
    assert audio.shape == expected.shape
    assert np.abs(audio - expected).max() < 1e-4
    assert MucReader(copy).describe().tokens == 300


async def test_a_long_file_without_a_name_is_one_stream(file, tmp_path, caplog):
    """Longer than what a sender sends before an answer; files of `encode` name no stream."""
    long = tokens(20_000)
    encoder = MucEncoder(StreamHeader("fake", "fake-1", FakeCodec.digest, seed=5))
    file.write_bytes(encoder.tokens(long) + encoder.finish(20_000 * 1920))
    copy, alone, stats = (tmp_path / name for name in ("copy.muc", "alone.muc", "stats.jsonl"))
    await listen_program(file, "--save", alone, "--reconnect", "0", load_codec=load_none)
    options = ("--save", copy, "--reconnect", "0", "--stats", stats, "--from", "token:10000")
    await listen_program(file, "--out", tmp_path / "out.wav", *options)
    assert soundfile.info(tmp_path / "out.wav").frames == 10_000 * 1920
    for path, first in ((copy, 10_000), (alone, 0)):
        reader = MucReader(path)
        saved = [item.tokens for item in reader.items() if isinstance(item, Tokens)]
        assert np.array_equal(np.concatenate(saved), long[first:])
        assert reader.describe().complete
    assert "reconnects" not in caplog.text
    assert len(list(tmp_path.glob("*.muc"))) == 3


async def test_a_recording_is_played_from_where_one_wants(file, tmp_path):
    out = tmp_path / "out.wav"
    await listen_program(file, "--out", out, "--from", "token:200", "--seconds", "2")
    audio, _ = soundfile.read(out, dtype="float32")
    expected = np.clip(whole_sound(ALL)[:, 200 * 1920 :][:, : 2 * 48_000], -1, 1).T
    assert np.abs(audio - expected).max() < 1e-4


DAY_S = 1_700_000_000.0


@contextlib.asynccontextmanager
async def live(folder):
    """A stream that goes on, with 40 s of past of which the times are known."""
    hub = Hub(StreamInfo("fake", "fake-1", FakeCodec.digest, 5, "s", 48), history_tokens=10_000)
    played = tokens(5000)

    def publish():
        first = hub.next_token
        packet = np.take(played, range(first, first + 48), mode="wrap")
        hub.publish(packet, time.monotonic(), 0.3, DAY_S + (first + 48) / 25 + 0.3)

    async def go_on():
        while True:
            await asyncio.sleep(0.1)
            publish()

    for _ in range(20):
        publish()
    async with WebSocketServer(hub, "127.0.0.1", 0) as server:
        going = asyncio.create_task(go_on())
        yield server.url, played
        going.cancel()


@contextlib.asynccontextmanager
async def tape(folder):
    """A recording of its first 40 s."""
    muxer = MucMuxer(StreamHeader("fake", "fake-1", FakeCodec.digest, 5, "s", 0))
    played = tokens(5000)
    records: list[Record] = [Clock(0, DAY_S), Finish(960)]
    records[1:1] = [Tokens(n, played[n : n + 48]) for n in range(0, 960, 48)]
    path = folder / "tape.muc"
    path.write_bytes(b"".join(muxer.push(record) for record in records))
    yield str(path), played


@pytest.mark.parametrize("source", [live, tape])
@pytest.mark.parametrize("seconds", ["5", "2.3456"])
@pytest.mark.parametrize(
    ("place", "token"),
    [
        ("live", None),
        ("token:0", 0),
        ("token:100", 100),
        ("token:600", 600),
        (datetime.fromtimestamp(DAY_S + 20, UTC).isoformat(), 500),
        ("-10s", None),
    ],
)
async def test_what_is_saved_is_what_is_written_is_what_was_asked_for(
    tmp_path, source, seconds, place, token
):
    async with source(tmp_path) as (url, played):
        await check_saved(url, played, tmp_path, seconds, place, token)


async def check_saved(url, played, tmp_path, seconds, place, token):
    out, copy, alone = tmp_path / "out.wav", tmp_path / "copy.muc", tmp_path / "alone.muc"
    asked = (url, "--from", place, "--seconds", seconds)
    await listen_program(*asked, "--out", out, "--save", copy)
    samples = round(float(seconds) * 48_000)
    reader = MucReader(copy)
    info = reader.describe()
    assert (info.samples, info.lost_tokens, info.complete) == (samples, 0, True)
    if token is None and url.endswith(".muc"):
        token = 960 - 250 if place == "-10s" else 0
    if token is not None:
        assert info.first_token == token
    saved = np.concatenate([i.tokens for i in reader.items() if isinstance(i, Tokens)])
    assert np.array_equal(saved, np.take(played, range(info.first_token, info.end_token)))
    # The same sound, but for the last window, which looked ahead of what was asked for.
    written, _ = soundfile.read(out, dtype="int16")
    decode_file(copy, tmp_path / "copy.wav", lambda name: FakeCodec())
    heard, _ = soundfile.read(tmp_path / "copy.wav", dtype="int16")
    assert len(written) == len(heard) == samples
    same = samples - 12 * 1920
    assert np.array_equal(written[:same], heard[:same])
    # And the same again as a file, which begins with its music and not with the context.
    await listen_program(copy, "--out", tmp_path / "again.wav")
    again, _ = soundfile.read(tmp_path / "again.wav", dtype="int16")
    assert len(again) == info.tokens * 1920  # a player ends with the last token
    assert np.array_equal(again[:same], heard[:same])
    await listen_program(*asked, "--save", alone, load_codec=load_none)
    info = MucReader(alone).describe()
    assert (info.samples, info.complete) == (samples, True)
    if token is not None:
        assert info.first_token == token


async def test_a_recording_with_context_is_broadcast_without_it(tmp_path):
    copy = tmp_path / "copy.muc"
    async with tape(tmp_path) as (url, played):
        await listen_program(url, "--from", "token:500", "--seconds", "4", "--save", copy)
    assert MucReader(copy).header.first_token == 244
    playlist = MucPlaylist([copy])
    parts = [item for item in playlist.items() if isinstance(item, Tokens)]
    assert parts[0].first_token == 0
    assert np.array_equal(np.concatenate([part.tokens for part in parts]), played[500:600])


async def test_a_recording_most_of_which_is_missing_is_played_only_where_that_is_asked_for(
    file, tmp_path
):
    muxer = MucMuxer(StreamHeader("fake", "fake-1", FakeCodec.digest))
    records = [Tokens(15_000 * n, ALL[:48]) for n in range(11)]
    file.write_bytes(b"".join(muxer.push(record) for record in records))
    out = tmp_path / "out.wav"
    with pytest.raises(SourceError, match=r"song\.muc' holds 21 s of music, .* 5981 s .* --force"):
        await listen_program(file, "--out", out)
    assert not out.exists()
    await listen_program(file, "--out", out, "--force", "--seconds", "3")
    assert soundfile.info(out).frames == 3 * 48_000


def recorded(file, *, first=1000, at_s: float | None = 1_700_000_000.0):
    """What a recorder writes that came into a stream of two minutes, and again after an hour."""
    muxer = MucMuxer(StreamHeader("fake", "fake-1", FakeCodec.digest, first_token=first))
    records: list[Record] = []
    for begin in (first, first + 90_000):
        if at_s is not None:
            records.append(Clock(begin, at_s + (begin - first) / 25))
        records.append(Tokens(begin, ALL))
    file.write_bytes(b"".join(muxer.push(record) for record in records))
    return load_history(file)


@pytest.mark.parametrize(
    ("place", "token"),
    [
        ("token:0", 1000),
        ("token:1100", 1100),
        ("-2s", 1550),
        ("-10m", 1000),
        ("2023-11-14T22:13:24Z", 1100),  # four seconds in
        ("2023-11-14T23:13:25Z", 1425),  # an hour and five seconds: the gap between was closed
        ("2020-01-01", 1000),
        ("2023-11-14T22:50:00Z", 1300),  # nothing played: the next that did
    ],
)
def test_every_place_in_a_recording_can_be_named(file, place, token):
    assert place_in(recorded(file), StartAt.parse(place)) == StartAt(token=token)


@pytest.mark.parametrize(
    ("place", "at_s", "told"),
    [
        ("2024-01-01", 1_700_000_000.0, r"from 1000 to 1600, .* played from 2023-11-1\dT"),
        ("2024-01-01", None, "does not say when it was played"),
        ("token:1700", None, "from 1000 to 1600, 25 a second\\."),
        ("token:1700", 253_402_300_799.0, "25 a second\\."),  # the year 10,000 has no name
    ],
)
def test_a_place_that_a_recording_has_not_is_told(file, place, at_s, told):
    with pytest.raises(SettingsError, match=told):
        place_in(recorded(file, at_s=at_s), StartAt.parse(place))


async def test_a_recording_of_the_middle_of_a_stream_is_heard_from_its_first_token(file, tmp_path):
    recorded(file)
    for place in ("live", "-10m"):
        out = tmp_path / f"{place}.wav"
        await listen_program(file, "--out", out, "--from", place)
        assert soundfile.info(out).frames == 600 * 1920


async def test_a_recording_with_holes_is_played_in_time(file, tmp_path):
    muxer = MucMuxer(StreamHeader("fake", "fake-1", FakeCodec.digest))
    records: list[Record] = [Tokens(0, ALL[:100]), Tokens(150, ALL[150:290]), Finish(300)]
    file.write_bytes(b"".join(muxer.push(record) for record in records))
    await listen_program(file, "--out", tmp_path / "out.wav")
    assert soundfile.info(tmp_path / "out.wav").frames == 300 * 1920


def test_a_recording_of_years_is_not_held_in_memory(file):
    muxer = MucMuxer(StreamHeader("fake", "fake-1", FakeCodec.digest))
    records = [Tokens(15_000 * n, ALL[:1]) for n in range(4500)]
    file.write_bytes(b"".join(muxer.push(record) for record in records))
    with pytest.raises(SourceError, match="longer than 31 days"):
        load_history(file)


async def test_a_recording_with_gaps_of_any_length_is_played_to_its_end(file, tmp_path):
    muxer = MucMuxer(StreamHeader("fake", "fake-1", FakeCodec.digest, seed=5))
    records: list[Record] = [Tokens(0, ALL), Gap(300, 9000), Gap(9300, 9000), Tokens(18_300, ALL)]
    records += [Tokens(18_600 + 2**31, ALL), Finish(18_900 + 2**31)]
    file.write_bytes(b"".join(muxer.push(record) for record in records))
    out = tmp_path / "out.wav"
    await listen_program(file, "--out", out)
    with soundfile.SoundFile(out) as sound:
        assert sound.frames == 900 * 1920


async def test_a_recording_of_another_codec_is_refused(file, tmp_path):
    encoder = MucEncoder(StreamHeader("fake", "fake-2", "b" * 64))
    file.write_bytes(encoder.tokens(ALL) + encoder.finish(300 * 1920))
    with pytest.raises(UserError, match="fake-2"):
        await listen_program(file, "--out", tmp_path / "out.wav")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{}/none.muc"], r"none\.muc' cannot be read"),
        (["{}/bad.muc"], r"bad\.muc' is no \.muc file"),
        (["{}/song.muc", "{}/a.wav"], "cannot be mixed; encode the others first"),
        (["{}/song.muc", "--hop", "8"], "--hop means nothing beside .muc files"),
        (["{}/song.muc", "--capture"], "--capture means nothing"),
        (["ws://127.0.0.1:1"], "Nothing listens"),
        (["ws://"], "ws://HOST:PORT"),
        (["ws://127.0.0.1:1", "ws://127.0.0.1:2"], "cannot be mixed"),
        (["ws://127.0.0.1:1", "--loop"], "--loop means nothing beside the address"),
        (["ws://127.0.0.1:1", "--seed", "0"], "--seed means nothing"),
        (["ws://127.0.0.1:1", "--packet-tokens", "8"], "--packet-tokens means nothing"),
        (["ws://127.0.0.1:1", "--upstream-token", "short"], "8 to 1024 characters"),
        (["ws://127.0.0.1:1", "--ca", "{}/none.pem"], "--ca is for wss://"),
        (["wss://127.0.0.1:1", "--ca", "{}/none.pem"], "none.pem"),
        (["ws://127.0.0.1:1", "--wait", "--reconnect", "0"], "--wait needs more"),
        (["mqtt://127.0.0.1:1/x"], "127.0.0.1:1"),
        (["mqtt://127.0.0.1:1"], "names no topic"),
        (["mqtt://h/x", "--mqtt", "mqtt://u:p@h/x"], "mqtt://h/x cannot be both"),
        (["mqtt://h/x", "--mqtt-window", "3"], "--mqtt-window needs the broker"),
        (["mqtts://h/x", "--mqtt-cert", "{}/none.pem"], "none.pem"),
        (["mqtt://h/x", "--mqtt-user", "me", "--mqtt-password-file", "{}/none"], "password from"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_sentence(file, tmp_path, capsys, arguments, told):
    (tmp_path / "bad.muc").write_bytes(b"nothing")
    words = [word.format(tmp_path) for word in arguments]
    assert server.main([*words, "--port", "0"], load_none) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("server.py: ")
    assert re.search(told, line)


def test_a_folder_is_what_it_holds(file, tmp_path):
    assert server.holds_tokens(str(tmp_path))
    (tmp_path / "song.wav").touch()
    assert not server.holds_tokens(str(tmp_path))
    assert server.holds_tokens(str(file))
    assert not server.holds_tokens(str(tmp_path / "none"))


def test_the_secret_of_the_sender_comes_from_the_environment_as_well(monkeypatch):
    monkeypatch.setenv("MUSIC350_UPSTREAM_TOKEN", "the right secret")
    parse = server.parse_arguments
    assert server.make_upstream(parse(["ws://127.0.0.1:1"])).auth_token == "the right secret"
    monkeypatch.setenv("MUSIC350_AUTH_TOKEN", "another secret")
    monkeypatch.delenv("MUSIC350_UPSTREAM_TOKEN")
    assert server.make_upstream(parse(["ws://127.0.0.1:1", "--reconnect", "3"])).auth_token == ""


def test_the_seed_of_a_file_can_be_another(file, capsys):
    arguments = [str(file), "--port", "0", "--packet-tokens", "300", "--seed", "9", "--title", "T"]
    assert server.main(arguments, load_none) == 0
    assert "sent 12.0 s" in capsys.readouterr().err


async def test_what_is_given_to_client_is_checked_before_anything_is_loaded():
    with pytest.raises(TransportError):
        await find_stream(client.parse_arguments(["x.mp3", "--play"]), StartAt())
    with pytest.raises(SettingsError, match=r"--save FILE\.muc"):
        open_output(client.parse_arguments([]))
