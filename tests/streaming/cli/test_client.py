"""The listener's program: from arguments to files, and every way it can end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as plain_serve

from codec.errors import DeviceError, WeightsError
from streaming.cli import client
from streaming.cli.client_arguments import make_settings
from streaming.errors import ProtocolError, SettingsError, SinkError, TransportError, UserError
from streaming.files.muc import MucReader
from streaming.receive.settings import CatchUp
from streaming.stream.hub import Hub
from streaming.support.status_line import StatusLine
from streaming.transports.reconnecting import Backoff
from streaming.transports.websocket.server import WebSocketServer
from streaming.wire.messages import StreamInfo
from tests import ROOT
from tests.support.fake_codec import FakeCodec
from tests.support.listening import FakeCard, tokens, whole_sound


class Station:
    """A server with a hub, whose stream the test drives."""

    def __init__(self, hub: Hub, server: WebSocketServer) -> None:
        self.hub = hub
        self.url = server.url
        self.all_tokens = tokens(4000)

    def publish(self, packets: int = 1) -> None:
        for _ in range(packets):
            first = self.hub.next_token
            packet = np.take(self.all_tokens, range(first, first + 48), mode="wrap")
            self.hub.publish(packet, time.monotonic(), 0.3)

    async def play(self) -> None:
        """Publish for ever, twenty times as fast as real time."""
        while True:
            self.publish()
            await asyncio.sleep(0.1)

    async def joined(self) -> None:
        while not self.hub.listeners:
            await asyncio.sleep(0.002)


@pytest.fixture
async def station() -> AsyncIterator[Station]:
    hub = Hub(StreamInfo("fake", "fake-1", FakeCodec.digest, 5, packet_tokens=48))
    async with WebSocketServer(hub, "127.0.0.1", 0) as server:
        yield Station(hub, server)


@pytest.fixture(autouse=True)
def _keep_logging() -> object:
    """`main` sets up logging for a program; tests after it must not notice."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def load_fake(name: str, **options: object) -> FakeCodec:
    return FakeCodec()


async def run(*arguments: object, load_codec=load_fake) -> None:
    parsed = client.parse_arguments([*map(str, arguments), "--threads", "1"])
    await client.run(parsed, load_codec, StatusLine(io.StringIO()))


async def test_a_whole_stream_ends_in_a_file_of_exactly_its_length(
    station: Station, tmp_path: Path
) -> None:
    out, stats = tmp_path / "out.wav", tmp_path / "stats.jsonl"
    running = asyncio.create_task(run(station.url, "--out", out, "--stats", stats))
    await station.joined()
    station.hub.set_title("First song", 0, time.monotonic())
    station.publish(4)
    station.hub.end("over", time.monotonic())
    await running
    audio, rate = soundfile.read(out, dtype="float32")
    assert rate == 48_000
    expected = np.clip(whole_sound(station.all_tokens[:192]), -1, 1).T
    assert audio.shape == expected.shape
    assert np.abs(audio - expected).max() < 1e-4
    final = json.loads(stats.read_text().splitlines()[-1])
    assert final["final"] is True
    assert (final["tokens"], final["samples"], final["lost_tokens"]) == (192, 192 * 1920, 0)
    assert final["title"] == "First song"
    assert final["connected_s"] > 0
    assert 0 < final["first_audio_s"] < 60


async def test_seconds_give_exactly_as_many_samples_in_every_kind_of_file(
    station: Station, tmp_path: Path
) -> None:
    station.publish(10)
    names = [tmp_path / f"out.{suffix}" for suffix in ("wav", "flac", "ogg")]
    outs = [word for name in names for word in ("--out", name)]
    await run(station.url, "--seconds", 1.2345, "--seed", 3, "--preset", "low-latency", *outs)
    for name in names:
        assert soundfile.info(name).frames == round(1.2345 * 48_000)


async def test_the_sound_card_plays_as_well_as_the_file_is_written(
    station: Station, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card, asked = FakeCard(), {}

    def open_card(**wanted: object) -> FakeCard:
        asked.update(wanted)
        return card

    monkeypatch.setattr("streaming.cli.client.SoundCardSink", open_card)
    station.publish(10)
    out = tmp_path / "out.wav"
    options = ["--device", "3", "--volume", "0.5", "--seconds", "1", "--buffer", "0.1"]
    await run(station.url, "--play", "--out", out, *options)
    assert card.samples == soundfile.info(out).frames == 48_000
    assert card.drained == card.closed == 1
    assert (asked["device"], asked["volume"]) == (3, 0.5)
    await run(station.url, "--play", "--device", "USB", "--seconds", "0")
    assert asked["device"] == "USB"
    await run(station.url, "--play", "--seconds", "0")
    assert asked["device"] is None


async def test_a_lost_connection_completes_the_file_and_is_an_error(
    station: Station, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    out, stats = tmp_path / "out.wav", tmp_path / "stats.jsonl"

    async def leave(connection: ServerConnection) -> None:
        await connection.recv()
        outbox = station.hub.join(client_join(), time.monotonic())
        while (message := outbox.take()) is not None:
            await connection.send(message.encode())
        connection.transport.abort()

    station.publish(4)
    async with plain_serve(leave, "127.0.0.1", 0, compression=None) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(TransportError, match="broke"):
            await run(url, "--out", out, "--stats", stats, "--reconnect", 0)
    assert soundfile.info(out).frames % 1920 == 0
    assert soundfile.info(out).frames > 0
    assert json.loads(stats.read_text().splitlines()[-1])["final"] is True
    assert "tokens received" in caplog.text


def client_join():
    from streaming.wire.messages import Join

    return Join()


async def test_a_file_that_is_there_is_written_over_only_where_that_is_asked_for(
    station: Station, tmp_path: Path
) -> None:
    out = tmp_path / "out.wav"
    out.write_bytes(b"precious" * 100_000)
    station.publish(10)
    with pytest.raises(SinkError, match="--overwrite"):
        await run(station.url, "--out", out, "--seconds", 1)
    assert out.read_bytes() == b"precious" * 100_000
    await run(station.url, "--out", out, "--seconds", 1, "--overwrite")
    assert soundfile.info(out).frames == 48_000


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_ends_it_cleanly(
    station: Station,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    number: signal.Signals,
) -> None:
    caplog.set_level(logging.INFO)
    out = tmp_path / "out.wav"
    station.publish(8)
    running = asyncio.create_task(run(station.url, "--out", out))
    await station.joined()
    while not out.exists():
        await asyncio.sleep(0.01)
    os.kill(os.getpid(), number)
    await running
    assert soundfile.info(out).frames > 0
    assert "tokens received" in caplog.text


async def test_a_signal_while_loading_ends_it_before_it_connects(
    station: Station, tmp_path: Path
) -> None:
    def interrupted(name: str, **options: object) -> FakeCodec:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        return FakeCodec()

    await run(station.url, "--out", tmp_path / "out.wav", load_codec=interrupted)
    assert station.hub.listeners == 0
    assert not (tmp_path / "out.wav").exists()


async def test_a_sender_that_comes_later_can_be_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = functools.partial(Backoff, 0.05, 0.1)
    monkeypatch.setattr("streaming.cli.client_arguments.Backoff", quick)
    port, out, stats = free_port(), tmp_path / "out.wav", tmp_path / "stats.jsonl"
    listening = asyncio.create_task(
        run(f"ws://127.0.0.1:{port}", "--wait", "--out", out, "--stats", stats)
    )
    while not stats.exists() or not stats.read_text():
        await asyncio.sleep(0.01)  # it runs, and there is nothing to hear
    hub = Hub(StreamInfo("fake", "fake-1", FakeCodec.digest, 0, packet_tokens=48))
    hub.publish(tokens(48), time.monotonic())
    hub.end("over", time.monotonic())
    async with WebSocketServer(hub, "127.0.0.1", port):
        await listening
    assert soundfile.info(out).frames == 48 * 1920
    assert json.loads(stats.read_text().splitlines()[-1])["reconnects"] == 0


async def test_a_signal_ends_waiting_for_a_sender(tmp_path: Path) -> None:
    stats = tmp_path / "stats.jsonl"
    arguments = ["--wait", "--out", tmp_path / "out.wav", "--stats", stats]
    listening = asyncio.create_task(run(f"ws://127.0.0.1:{free_port()}", *arguments))
    while not stats.exists() or not stats.read_text():
        await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
    await listening
    assert json.loads(stats.read_text().splitlines()[-1])["final"] is True


async def test_a_signal_while_connecting_ends_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"ws://127.0.0.1:{silent.getsockname()[1]}"
        running = asyncio.create_task(run(url, "--out", tmp_path / "out.wav"))
        peer, _ = await asyncio.get_running_loop().run_in_executor(None, silent.accept)
        os.kill(os.getpid(), signal.SIGINT)
        await running
        peer.close()


@contextlib.contextmanager
def answering(reply: bytes):
    """A server that is none of ours: says `reply` to whoever connects."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        async def answer() -> None:
            loop = asyncio.get_running_loop()
            listening.setblocking(False)
            peer, _ = await loop.sock_accept(listening)
            with peer:
                await loop.sock_recv(peer, 1000)
                await loop.sock_sendall(peer, reply)

        task = asyncio.ensure_future(answer())
        yield f"ws://127.0.0.1:{port}"
        task.cancel()


@pytest.mark.parametrize(
    "reply",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"SSH-2.0-x\r\n", b"\xff" * 99, b""],
    ids=["web", "ssh", "noise", "silence"],
)
async def test_servers_of_other_kinds_are_refused(reply: bytes, tmp_path: Path) -> None:
    with answering(reply) as url, pytest.raises(TransportError, match="WebSocket server"):
        await run(url, "--out", tmp_path / "out.wav")
    assert not (tmp_path / "out.wav").exists()


async def test_a_websocket_server_of_another_kind_is_refused(tmp_path: Path) -> None:
    async def chat(connection: ServerConnection) -> None:
        await connection.send("welcome to the chat")
        await connection.wait_closed()

    async with plain_serve(chat, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(ProtocolError, match="JSON"):
            await run(url, "--out", tmp_path / "out.wav")


async def test_another_codec_is_refused_in_one_sentence(tmp_path: Path) -> None:
    hub = Hub(StreamInfo("fake", "fake-2", "f" * 64, 5, packet_tokens=48))
    async with WebSocketServer(hub, "127.0.0.1", 0) as server:
        with pytest.raises(ProtocolError, match="weights"):
            await run(server.url, "--out", tmp_path / "out.wav")


async def test_a_mucodec_stream_is_refused_where_no_gpu_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one sentence that says what it would need, before gigabytes are fetched for nothing."""
    monkeypatch.setattr("codec.torch_backend.has_gpu", lambda: False)
    loaded: list[str] = []

    def load(name: str, **options: object) -> FakeCodec:
        loaded.append(name)
        return FakeCodec()

    hub = Hub(StreamInfo("mucodec", "mucodec-abc", "a" * 64, 5, packet_tokens=48))
    async with WebSocketServer(hub, "127.0.0.1", 0) as server:
        out = tmp_path / "out.wav"
        with pytest.raises(DeviceError, match=r"mucodec.*GPU with 6 GiB.*--torch-device cpu"):
            await run(server.url, "--out", out, load_codec=load)
        assert loaded == ["nano"]
        assert not out.exists()
        # Whoever names a device has been told: the stream is tried.
        with pytest.raises(ProtocolError, match="codec"):
            await run(server.url, "--out", out, "--torch-device", "cpu", load_codec=load)
        assert loaded == ["nano", "nano", "mucodec"]


def test_a_mucodec_listener_without_a_gpu_is_told_before_it_connects(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codec.torch_backend.has_gpu", lambda: False)
    assert client.main(["--codec", "mucodec", "--out", f"{tmp_path}/a.wav"], load_fake) == 2
    assert "keeps up with live music on a GPU" in error_of(capsys)


# From here on `main`, which sets up an event loop of its own.


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence that was printed."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    sentences = [line for line in lines if line.startswith("client.py: ")]
    assert len(sentences) == 1
    assert "Traceback" not in "".join(lines)
    return sentences[0]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Give --play"),
        (["ws://127.0.0.1:{free}", "--out", "{tmp}/a.wav"], "[Nn]othing listens"),
        (["ws://no-such-host.invalid", "--out", "{tmp}/a.wav"], "unknown"),
        (["http://127.0.0.1", "--out", "{tmp}/a.wav"], "ws://HOST:PORT"),
        (["ws://", "--out", "{tmp}/a.wav"], "ws://HOST:PORT"),
        (["ws://[::1", "--out", "{tmp}/a.wav"], "ws://HOST:PORT"),
        (["127.0.0.1:8765", "--out", "{tmp}/a.wav"], "ws://HOST:PORT"),
        (["--out", "{tmp}/a.mp9"], "suffix"),
        (["--out", "{tmp}/a.wav", "--from", "yesterday"], "no place in a stream"),
        (["--out", "{tmp}/a.wav", "--from", "-5y"], "no duration"),
        (["--out", "{tmp}/a.wav", "--ca", "{tmp}/none.pem"], "--ca is for wss://"),
        (["--out", "{tmp}/none/a.wav"], "no such folder"),
        (["--out", "{tmp}/a.wav", "--wait", "--reconnect", "0"], "--wait"),
        (
            ["ws://127.0.0.1:{free}", "--out", "{tmp}/a.wav", "--wait", "--reconnect", "1"],
            "[Nn]othing listens",
        ),
        (["--out", "{tmp}/there.flac"], "there.flac' is there already; .* --overwrite"),
        (["--out", "{tmp}/a.wav", "--stats", "{tmp}/none/s"], "[Ss]tatistics"),
        (["--play", "--device", "no such device"], "device|PortAudio"),
    ],
)
def test_what_cannot_work_is_said_in_one_sentence_with_exit_code_2(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there.flac").write_bytes(b"precious")
    filled = [word.format(tmp=tmp_path, free=free_port()) for word in arguments]
    assert client.main(filled, load_fake) == 2
    assert re.search(words, error_of(capsys))


def test_damaged_weights_are_said_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def damaged(name: str, **options: object) -> FakeCodec:
        raise WeightsError("the weights are damaged; install again")

    assert client.main(["--out", f"{tmp_path}/a.wav"], damaged) == 2
    assert error_of(capsys) == "client.py: the weights are damaged; install again"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seconds", "-1"],
        ["--seconds", "nan"],
        ["--seconds", "soon"],
        ["--volume", "9"],
        ["--seed", "-1"],
        ["--seed", "1.5"],
        ["--steps", "x"],
        ["--threads", "0"],
        ["--buffer", "inf"],
        ["--preset", "none"],
    ],
)
def test_arguments_without_a_meaning_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        client.main([*arguments, "--out", "a.wav"], load_fake)
    assert exit_info.value.code == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ([], "live"),
        (["--from", "-10m", "--play"], "-10m"),
        (["--play", "--from=-1h30m"], "-1h30m"),
        (["--from", "token:5"], "token:5"),
        (["--from", "2026-11-22T20:00"], "2026-11-22T20:00"),
    ],
)
def test_places_in_the_past_are_arguments(words: list[str], place: str) -> None:
    arguments = client.parse_arguments(words)
    assert arguments.start == place
    settings = make_settings(arguments)
    assert settings.start.live is (place == "live")
    # Who listens to the past on purpose stays there.
    assert settings.catch_up is (CatchUp.SPEED if place == "live" else CatchUp.NONE)


async def test_a_listener_hears_the_past_and_goes_back_to_live_on_a_signal(
    station: Station, tmp_path: Path
) -> None:
    station.hub = Hub(
        StreamInfo("fake", "fake-1", FakeCodec.digest, 5, "s", 48), history_tokens=10_000
    )
    async with WebSocketServer(station.hub, "127.0.0.1", 0) as server:
        station.publish(60)
        out, stats = tmp_path / "out.wav", tmp_path / "stats.jsonl"
        options = ["--from", "token:480", "--out", out, "--stats", stats]
        running = asyncio.create_task(run(server.url, *options))
        await station.joined()
        while not out.exists() or soundfile.info(out).frames < 48_000:
            await asyncio.sleep(0.02)
        os.kill(os.getpid(), signal.SIGUSR1)
        while not any(json.loads(line)["reconnects"] for line in stats.read_text().splitlines()):
            await asyncio.sleep(0.05)
        station.hub.end("over", time.monotonic())
        await running
    final = json.loads(stats.read_text().splitlines()[-1])
    assert final["position_s"] == 60 * 48 / 25
    assert final["reconnects"] == 1


def test_devices_are_listed_without_connecting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "list_devices", lambda: ["  0  one", "  1  two"])
    assert client.main(["--list-devices"]) == 0
    assert capsys.readouterr().out == "  0  one\n  1  two\n"
    monkeypatch.setattr(client, "list_devices", list)
    assert client.main(["--list-devices"]) == 0
    assert "no sound device" in capsys.readouterr().out


def test_a_second_interrupt_ends_it_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(name: str) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "list_devices", lambda: interrupt(""))
    assert client.main(["--list-devices"]) == 130


def test_errors_are_one_family() -> None:
    assert issubclass(SettingsError, UserError)


# And as a process.


def test_importing_the_program_does_not_import_torch() -> None:
    code = "import sys, streaming.cli.client; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


async def start_client(*arguments: object) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.fake_client",
        *map(str, arguments),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_bare_samples_go_down_a_pipe(station: Station) -> None:
    playing = asyncio.create_task(station.play())
    process = await start_client(station.url, "--out", "-", "--seconds", "1.5", "--verbose")
    out, err = await process.communicate()
    playing.cancel()
    assert process.returncode == 0, err.decode()
    samples = np.frombuffer(out, dtype="<f4").reshape(-1, 2)
    assert samples.shape == (72_000, 2)
    assert np.sqrt(np.mean(samples**2)) > 0.05
    assert "tokens received" in err.decode()


async def test_a_reader_that_goes_away_ends_it_quietly(station: Station) -> None:
    playing = asyncio.create_task(station.play())
    process = await start_client(station.url, "--out", "-")
    assert process.stdout is not None
    assert process.stderr is not None
    await process.stdout.readexactly(1000)
    process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
    playing = asyncio.create_task(station.play())
    err = await process.stderr.read()
    playing.cancel()
    assert await process.wait() == 0, err.decode()
    assert b"Traceback" not in err


async def test_a_terminal_that_is_closed_ends_a_recorder_in_good_order(
    station: Station, tmp_path: Path
) -> None:
    playing = asyncio.create_task(station.play())
    ours, theirs = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", TERMINAL, station.url, "--save", str(tmp_path / "tape.muc")),
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    while not (tmp_path / "tape.muc").exists():
        assert process.returncode is None
        await asyncio.sleep(0.02)
    os.close(ours)
    assert await process.wait() == 0
    playing.cancel()
    assert MucReader(tmp_path / "tape.muc").describe().complete


TERMINAL = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that its end is told to this program
from streaming.cli import client
sys.exit(client.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_the_process_with_0_though_nobody_reads_its_pipe(
    station: Station, number: signal.Signals
) -> None:
    playing = asyncio.create_task(station.play())
    process = await start_client(station.url, "--out", "-")
    await station.joined()
    assert process.stdout is not None
    assert process.stderr is not None
    await process.stdout.readexactly(1000)
    await asyncio.sleep(0.5)  # more sound comes than a pipe holds
    process.send_signal(number)
    err = await process.stderr.read()
    await process.stdout.read()
    playing.cancel()
    assert await process.wait() == 0, err.decode()
    assert b"tokens received" in err
    assert b"Traceback" not in err


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg")
async def test_any_player_hears_the_stream_and_its_title(station: Station, caplog) -> None:
    caplog.set_level(logging.INFO)
    station.hub.set_title("First song", 0, time.monotonic())
    station.publish(8)
    playing = asyncio.create_task(station.play())
    listening = asyncio.create_task(run(station.url, "--serve", "0"))
    while not (found := re.search(r"listen at http://127.0.0.1:(\d+)/", caplog.text)):
        await asyncio.sleep(0.01)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(found[1]))
    writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    await reader.readuntil(b"title=First song")
    await reader.readexactly(10_000)
    playing.cancel()
    station.hub.end("over", time.monotonic())
    await reader.read()  # ends with the stream
    await listening
    writer.close()
