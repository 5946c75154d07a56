"""The sender's program: from arguments to listeners, and every way it can end."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from codec.errors import WeightsError
from streaming.audio.sources import CaptureSource, Playlist, StdinSource
from streaming.cli import server
from streaming.errors import SettingsError
from streaming.stream.listener_session import CodecIdentity, ListenerSession
from streaming.transports.link import Link
from streaming.transports.reconnecting import Backoff
from streaming.transports.websocket import connect
from streaming.wire.messages import End, Hello, Title, Tokens
from tests import ROOT
from tests.support.fake_codec import FakeCodec


def load_fake(name, **options):
    return FakeCodec()


@pytest.fixture
def song(tmp_path):
    """Two seconds of noise at 44.1 kHz."""
    path = tmp_path / "song.wav"
    random = np.random.default_rng(0)
    soundfile.write(path, random.uniform(-0.5, 0.5, (88_200, 2)), 44_100)
    return path


@pytest.fixture
def start_server():
    """Start the program as a process; returns it and where it listens."""
    processes = []

    def start(*arguments, **options):
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.support.fake_server",
                "--port",
                "0",
                *map(str, arguments),
            ],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        processes.append(process)
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"listening on (ws://\S+)", line):
                return process, found[1]
        raise AssertionError("the server did not start: " + "".join(lines))

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


async def listen(url):
    """All that a listener is told until the end."""
    codec = FakeCodec()
    session = ListenerSession(CodecIdentity(codec.name, codec.weights, codec.digest))
    events = []
    async with await connect(url) as connection:
        await connection.send(session.join())
        async for data in connection:
            events += session.receive(data, time.monotonic())
    return events


def stats_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_song_is_streamed_to_its_end(song, tmp_path, capsys):
    stats = tmp_path / "stats.jsonl"
    arguments = [str(song), "--port", "0", "--stats", str(stats), "--packet-tokens", "10"]
    assert server.main(arguments, load_fake) == 0
    lines = stats_of(stats)
    assert lines[0]["time_s"] < lines[-1]["time_s"]
    assert [line.get("final", False) for line in lines] == [False] * (len(lines) - 1) + [True]
    last = lines[-1]
    assert last["tokens"] == 50
    assert last["source_samples"] == 96_000
    assert last["title"] == "song"
    assert last["listeners"] == 0
    assert last["encode_rtf"] > 0
    assert last["payload_bits_per_s"] > 0
    assert last["wire_bits_per_s"] > last["payload_bits_per_s"]
    assert last["max_loop_stall_ms"] >= 0
    log = capsys.readouterr().err
    assert "listening on ws://127.0.0.1:" in log
    assert "sent 2.0 s of sound in 50 tokens" in log


def test_listeners_hear_the_whole_stream_and_its_end(song, start_server):
    process, url = start_server(song, "--preset", "low-latency", "--title", "The title")

    async def three():
        return await asyncio.gather(*(listen(url) for _ in range(3)))

    for events in asyncio.run(three()):
        hello, end = events[0], events[-1]
        assert isinstance(hello, Hello)
        assert (hello.codec, hello.packet_tokens, hello.seed) == ("fake", 8, 0)
        assert end == End(50, "the source has ended")
        tokens = [event for event in events if isinstance(event, Tokens)]
        assert sum(len(packet.tokens) for packet in tokens) == 50 - hello.first_token
        titles = [event.title for event in events if isinstance(event, Title)]
        assert "The title" in [hello.title, *titles]
    _, log = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "listeners at once: at most 3" in log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_stream_in_good_order(song, start_server, tmp_path, number):
    stats = tmp_path / "stats.jsonl"
    process, url = start_server(song, "--loop", "--stats", stats, "--packet-tokens", "5")

    async def interrupted():
        listening = asyncio.create_task(listen(url))
        while not stats.exists() or '"listeners": 1' not in stats.read_text():
            await asyncio.sleep(0.02)
        process.send_signal(number)
        return await listening

    end = asyncio.run(interrupted())[-1]
    assert isinstance(end, End)
    assert end.reason == "the sender was stopped"
    _, log = process.communicate(timeout=20)
    assert process.returncode == 0
    assert re.search(r"sent \d+\.\d s of sound", log)
    assert "Traceback" not in log
    assert stats_of(stats)[-1]["final"] is True


def test_standard_input_is_streamed(start_server):
    process, url = start_server("-", "--raw", "f32", stdin=subprocess.PIPE)
    # Nothing has come in yet, and the server listens all the same.

    async def feed():
        listening = asyncio.create_task(listen(url))
        await asyncio.to_thread(process.stdin.buffer.write, bytes(8 * 48_000))
        process.stdin.close()
        process.stdin = None
        return await listening

    assert asyncio.run(feed())[-1] == End(25, "the source has ended")
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_pipe_that_stays_silent_can_be_interrupted(start_server):
    process, _ = start_server("-", "--raw", "s16", stdin=subprocess.PIPE)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 0  # with the pipe still open


def only_sentence(capsys):
    """The one line on standard error."""
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("server.py: ")
    return line


def test_missing_file_is_said_in_one_sentence(tmp_path, capsys):
    assert server.main([str(tmp_path / "none.wav"), "--port", "0"], load_fake) == 2
    assert "none.wav" in capsys.readouterr().err.splitlines()[-1]


def test_port_in_use_is_said_in_one_sentence(song, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert server.main([str(song), "--port", port], load_fake) == 2
    assert f"Port {port} is in use" in only_sentence(capsys)


def test_damaged_weights_are_said_in_one_sentence(song, capsys):
    def load(name, **options):
        raise WeightsError("The weights are damaged.")

    assert server.main([str(song), "--port", "0"], load) == 2
    assert only_sentence(capsys) == "server.py: The weights are damaged."


def test_unwritable_statistics_are_said_in_one_sentence(song, tmp_path, capsys):
    arguments = [str(song), "--port", "0", "--stats", str(tmp_path)]
    assert server.main(arguments, load_fake) == 2
    assert "statistics" in only_sentence(capsys)


def test_second_interrupt_is_taken_at_once(song, monkeypatch):
    async def run(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(server, "run", run)
    assert server.main([str(song)], load_fake) == 130


def test_interrupt_while_the_codec_is_loaded(song):
    def load(name, **options):
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.05)
        return FakeCodec()

    assert server.main([str(song), "--port", "0"], load) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "65536"],
        ["--port", "http"],
        ["--packet-tokens", "0"],
        ["--packet-tokens", "1025"],
        ["--seed", "-1"],
        ["--codec", "none"],
        ["--preset", "none"],
        ["--unknown"],
    ],
)
def test_arguments_without_meaning_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as exited:
        server.main(arguments, load_fake)
    assert exited.value.code == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ([], Playlist),
        (["a.wav", "folder", "--loop", "--shuffle"], Playlist),
        (["-"], StdinSource),
        (["-", "--raw", "s16:44100"], StdinSource),
        (["--capture"], CaptureSource),
        (["--capture", "3"], CaptureSource),
        (["--capture", "Line In"], CaptureSource),
    ],
)
def test_arguments_name_the_source(arguments, kind):
    assert isinstance(server.make_sound(server.parse_arguments(arguments)), kind)


@pytest.mark.parametrize("arguments", [["a.wav", "--capture", "x"], ["-", "a.wav"]])
def test_sources_that_exclude_each_other_are_refused(arguments):
    with pytest.raises(SettingsError):
        server.make_sound(server.parse_arguments(arguments))


def test_demo_track_is_there():
    assert server.DEMO_TRACK.exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_that_comes_back_goes_on_where_it_stopped(song, start_server, tmp_path, number):
    """With a listener that stays, through the same port, and a store that outlives the server."""
    store = ("--store", tmp_path / "store", "--loop", "--preset", "low-latency", "--seed", "9")
    process, url = start_server(song, *store)
    port = int(url.rsplit(":", 1)[1])
    codec = FakeCodec()
    session = ListenerSession(CodecIdentity(codec.name, codec.weights, codec.digest))

    async def follow():
        link = Link(session, await connect(url), lambda: connect(url), backoff=Backoff(first_s=0.1))
        events, killed = [], False
        async for event in link:
            events.append(event)
            if isinstance(event, Tokens) and event.end_token >= 16 and not killed:
                killed = True
                process.send_signal(number)
                await asyncio.to_thread(process.wait)
                start_server(song, *store[:-2], "--port", port)
            elif link.reconnects and isinstance(event, Tokens):
                await link.close()
                return events

    events = asyncio.run(follow())
    assert [type(event) for event in events].count(Hello) == 1
    place = events[0].first_token
    assert events[0].seed == 9
    for event in events:
        if isinstance(event, Tokens):
            assert event.first_token == place
            place = event.end_token
    assert session.lost_tokens == 0


def test_a_store_of_another_stream_is_refused_in_one_sentence(song, tmp_path, capsys):
    arguments = [str(song), "--port", "0", "--store", str(tmp_path / "store"), "--seed"]
    assert server.main([*arguments, "1"], load_fake) == 0
    assert server.main([*arguments, "2"], load_fake) == 2
    assert "holds a stream of seed 1" in capsys.readouterr().err


def test_a_rewind_time_without_meaning_is_refused(song, capsys):
    assert server.main([str(song), "--rewind", "soon"], load_fake) == 2
    assert "'soon' is no duration" in capsys.readouterr().err
