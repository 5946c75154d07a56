"""Sender and listener as real programs, with the real codec: what is heard against what was sent.

Real time is most of what these tests take, so one broadcast serves many of them. Nothing here
depends on how fast the machine is: every wait is for something that happens.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as websocket_connect

import codec
from benchmarks.metrics import envelope_correlation, level_difference_db
from codec.stream import StreamDecoder, StreamEncoder
from tests.support.programs import Programs, Running, programs
from tests.support.pulse import (
    PulseServer,
    aligned_correlation,
    judged_if_served,
    pulse,
    read_samples,
)
from tests.support.rendition import (
    LEAST_ENVELOPE_CORRELATION,
    MOST_FLATNESS,
    MOST_LEVEL_DIFFERENCE_DB,
    SONGS,
    begin,
    flatness,
    heard,
    sent,
)

__all__ = ["programs", "pulse"]

Audio = NDArray[np.float32]

RATE = 48_000
TOKEN = 1920
PACKET = 48
TITLE = "Held out"
FIGURES = {"tokens", "payload_bits_per_s", "wire_bits_per_s", "max_loop_stall_ms", "title"}
CLIENT_FIGURES = FIGURES | {
    *("lost_tokens", "first_audio_s", "latency_s", "underruns", "decode_rtf"),
    *("samples", "position_s", "buffer_s", "connected_s"),
}
SERVER_FIGURES = FIGURES | {
    *("encode_rtf", "listeners", "dropped_listeners", "source_samples", "delay_s")
}


@pytest.fixture(scope="module")
def station(programs: Programs) -> Iterator[tuple[Running, str]]:
    """A server that streams music which the codec's training never saw, round and round."""
    server, url = programs.server("station", *SONGS, "--loop", "--title", TITLE)
    yield server, url
    assert server.interrupt() == 0
    assert server.final["listeners"] == 0
    assert "Traceback" not in server.log


def assert_rendition(source: Audio, result: Audio) -> None:
    """The result plays what the source does, at the same time and as loud; it is no noise."""
    assert source.shape == result.shape
    assert np.isfinite(result).all()
    original, decoded = torch.from_numpy(source), torch.from_numpy(result)
    assert abs(level_difference_db(original, decoded)) <= MOST_LEVEL_DIFFERENCE_DB
    assert flatness(result) <= MOST_FLATNESS
    correlation = envelope_correlation(original, decoded)
    assert correlation >= LEAST_ENVELOPE_CORRELATION
    for shift_s in (-1.0, -0.5, 0.5, 1.0):
        elsewhere = torch.roll(decoded, round(shift_s * RATE), dims=1)
        assert envelope_correlation(original, elsewhere) < correlation


@dataclass
class Broadcast:
    """What became of several listeners to one server, of whom some fared ill."""

    server: Running
    whole: Running
    """Asked for ten seconds, as a file and as a pipe."""
    killed: Running
    late: Running
    """Came when the others had long been listening."""
    lasting: Running
    """Listened from first to last, then was interrupted."""

    @property
    def finished(self) -> tuple[Running, ...]:
        """Those that came to an end of their own."""
        return self.whole, self.late, self.lasting


@pytest.fixture(scope="module")
def broadcast(programs: Programs, station: tuple[Running, str]) -> Broadcast:
    server, url = station
    folder = programs.folder
    with (folder / "whole.f32").open("wb") as pipe:
        outs = ("--out", folder / "whole.wav", "--out", "-")
        whole = programs.client("whole", url, *outs, "--seconds", "10.00001", stdout=pipe)
    lasting = programs.client("lasting", url, "--out", folder / "lasting.flac")
    killed = programs.client("killed", url, "--out", folder / "killed.wav")
    server.until(lambda: server.latest("listeners") == 3)
    killed.until(lambda: killed.latest("samples") > 2 * RATE)
    killed.process.kill()
    send_garbage(url)
    server.until(lambda: server.latest("tokens") >= 3 * PACKET)
    out = folder / "late.wav"
    late = programs.client("late", url, "--out", out, "--seconds", "6", "--verbose")
    assert late.ends() == 0, late.log
    lasting.until(lambda: lasting.latest("position_s") >= late.final["position_s"])
    assert lasting.interrupt() == 0, lasting.log
    assert whole.ends() == 0, whole.log
    server.until(lambda: server.latest("tokens") >= whole.final["tokens"])
    return Broadcast(server, whole, killed, late, lasting)


def send_garbage(url: str) -> None:
    """Noise instead of a handshake, and instead of the first message."""
    noise = np.random.default_rng(0).bytes(2000)
    host, port = re.findall(r"ws://(.+):(\d+)", url)[0]
    with socket.create_connection((host, int(port))) as plain, contextlib.suppress(OSError):
        plain.sendall(noise)
    with websocket_connect(url) as connection:
        connection.send(noise)
        assert json.loads(connection.recv())["type"] == "error"
        with pytest.raises(ConnectionClosed):
            connection.recv()


def test_listener_hears_what_was_sent(broadcast: Broadcast) -> None:
    whole = broadcast.whole
    result = heard(whole.file(".wav"))
    assert result.shape == (2, 480_000)  # round(10.00001 * RATE)
    assert_rendition(sent(SONGS, begin(whole.final), 480_000), result)


def test_statistics_of_the_listener_are_complete_and_plausible(broadcast: Broadcast) -> None:
    final = broadcast.whole.final
    assert final.keys() >= CLIENT_FIGURES
    assert final["samples"] == 480_000
    assert final["tokens"] >= 250
    assert final["lost_tokens"] == final["underruns"] == 0
    assert 0 < final["payload_bits_per_s"] <= 351
    assert final["payload_bits_per_s"] < final["wire_bits_per_s"] <= 650
    for figure in ("first_audio_s", "connected_s", "latency_s", "decode_rtf"):
        assert final[figure] > 0
    assert final["title"] == TITLE
    assert begin(final) % TOKEN == 0


def test_statistics_of_the_server_are_complete_and_plausible(broadcast: Broadcast) -> None:
    last = broadcast.server.stats[-1]
    assert last.keys() >= SERVER_FIGURES
    assert 0 < last["payload_bits_per_s"] <= 351
    assert last["payload_bits_per_s"] < last["wire_bits_per_s"] <= 650
    assert last["source_samples"] >= last["tokens"] * TOKEN
    assert last["encode_rtf"] > 0
    assert last["dropped_listeners"] == 0


def test_pipe_carries_what_the_file_holds(broadcast: Broadcast) -> None:
    whole = broadcast.whole
    assert whole.file(".f32").stat().st_size == 480_000 * 2 * 4
    piped = read_samples(whole.file(".f32"))
    error = np.abs(np.clip(piped, -1, 1) - heard(whole.file(".wav")))
    assert error.max() < 2 / 32_768  # rounding to 16 bits


def test_late_listener_starts_at_once_from_what_went_before(broadcast: Broadcast) -> None:
    final = broadcast.late.final
    first_token = round((final["position_s"] + final["buffer_s"]) * 25) - final["tokens"]
    assert begin(final) // TOKEN - first_token >= PACKET
    assert re.search(r"starting at token \d+, in 0\.00 s", broadcast.late.log)


def test_listeners_hear_the_same(broadcast: Broadcast) -> None:
    late, lasting = broadcast.late.final, broadcast.lasting.final
    one = heard(broadcast.late.file(".wav"))
    other = heard(broadcast.lasting.file(".flac"))[:, begin(late) - begin(lasting) :]
    shared = min(one.shape[1], other.shape[1])
    assert shared > 5 * RATE
    # The first window has nothing rendered before it to go on from: where it leads, time brings
    # both together.
    one, other = one[:, 4 * RATE : shared], other[:, 4 * RATE : shared]
    assert np.linalg.norm(one - other) < 0.01 * np.linalg.norm(other)


def test_listener_that_is_killed_disturbs_nobody(broadcast: Broadcast) -> None:
    assert broadcast.server.process.poll() is None
    assert heard(broadcast.killed.file(".wav")).shape[1] >= RATE
    for listener in broadcast.finished:
        assert listener.final["lost_tokens"] == 0
        assert "Traceback" not in listener.log
    assert "Traceback" not in broadcast.server.log


def test_ctrl_c_ends_a_listener_in_good_order(broadcast: Broadcast) -> None:
    lasting = broadcast.lasting
    assert heard(lasting.file(".flac")).shape[1] == lasting.final["samples"] > 0
    assert re.search(r"\d s of sound, \d+ tokens received", lasting.log.splitlines()[-1])


def test_sound_card_plays_what_the_file_holds(
    programs: Programs, station: tuple[Running, str], pulse: PulseServer
) -> None:
    def play(number: int) -> None:
        out, recorded = (programs.folder / f"played{number}{suffix}" for suffix in (".wav", ".f32"))
        options = ("--play", "--out", out, "--seconds", "5", "--buffer", "1")
        recorder = pulse.record(recorded)
        try:
            client = programs.client(f"played{number}", station[1], *options, env=pulse.env)
            assert client.ends() == 0, client.log
            time.sleep(0.3)  # for what is between the sound server and the recorder
        finally:
            recorder.terminate()
            recorder.wait()
        assert heard(out).shape == (2, 5 * RATE)
        correlation, _ = aligned_correlation(heard(out), read_samples(recorded))
        assert (client.final["underruns"], correlation > 0.95) == (0, True), client.log

    judged_if_served(play)


def test_pipe_is_heard_from_its_first_sample_to_its_last_as_offline(programs: Programs) -> None:
    """What a listener hears of a whole stream is what the codec makes of it in one piece."""
    music = 0.5 * heard(SONGS[0])[:, RATE : RATE + 100_000]
    server, url = programs.server(
        "fed", "-", "--raw", "f32", "--preset", "low-latency", "--seed", "7", stdin=subprocess.PIPE
    )
    out = programs.folder / "all.wav"
    client = programs.client("all", url, "--out", out, "--preset", "low-latency")
    server.until(lambda: server.latest("listeners") == 1)
    assert server.process.stdin is not None
    server.process.stdin.write(np.ascontiguousarray(music.T).tobytes())
    server.process.stdin.close()
    assert client.ends() == 0, client.log
    assert server.ends() == 0, server.log
    assert server.final["source_samples"] == 100_000
    assert server.final["tokens"] == client.final["tokens"] == 53
    assert begin(client.final) == 0
    assert "the source has ended" in client.log

    torch.set_num_threads(1)
    nano = codec.load("nano")
    encoder = StreamEncoder(nano, replace(nano.encoder_window, hop=8))
    tokens = np.concatenate([encoder.push(music), encoder.finish()])
    decoder = StreamDecoder(nano, seed=7, window=replace(nano.decoder_window, hop=8))
    decoder.feed(tokens)
    decoder.finish()
    expected = np.concatenate(list(decoder), axis=1).clip(-1, 1)
    assert expected.shape == (2, 53 * TOKEN)
    np.testing.assert_allclose(heard(out), expected, atol=1e-3)


def test_playlist_goes_on_past_bad_files_until_ctrl_c(programs: Programs, tmp_path: Path) -> None:
    music = heard(SONGS[0])[:, RATE : 3 * RATE].T
    good, text, empty = (tmp_path / name for name in ("good.ogg", "text.wav", "empty.flac"))
    truncated, corrupt, noise = (tmp_path / f"{n}.flac" for n in ("truncated", "corrupt", "noise"))
    soundfile.write(good, music, RATE)
    text.write_text("This is no music. " * 100)
    empty.touch()
    soundfile.write(truncated, music, RATE)
    whole = truncated.read_bytes()
    truncated.write_bytes(whole[: len(whole) // 2])
    rubbish = np.random.default_rng(0).bytes(len(whole) // 4)
    corrupt.write_bytes(whole[: len(whole) // 2] + rubbish + whole[3 * len(whole) // 4 :])
    noise.write_bytes(b"fLaC" + rubbish)
    songs = [text, empty, truncated, tmp_path / "missing.wav", corrupt, noise, good]

    server, url = programs.server("playlist", *songs, "--loop")
    out = tmp_path / "out.wav"
    client = programs.client("playing", url, "--out", out)
    client.until(lambda: client.latest("samples") >= 4 * RATE)
    assert server.interrupt() == 0, server.log
    assert client.ends() == 0, client.log
    warnings = [line for line in server.log.splitlines() if str(tmp_path) in line]
    assert len(warnings) == len(songs) - 1
    for song, warning in zip(songs, warnings, strict=False):
        assert str(song) in warning
    assert "the sender was stopped" in client.log
    final = client.final
    assert final["position_s"] * 25 == pytest.approx(server.final["tokens"])
    result = heard(out)
    assert result.shape[1] == final["samples"]
    assert_rendition(sent(songs, begin(final), result.shape[1]), result)
