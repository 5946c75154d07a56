"""Songs on the web: Internet radio that drops and comes back, files, playlists."""

from __future__ import annotations

import json
import logging
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from streaming.audio.sources import Playlist
from streaming.audio.sources import web as web_module
from streaming.cli import server
from streaming.errors import SourceError
from tests.support.fake_codec import load_fake
from tests.support.station import Answer, Station, answer, chunked, icy

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")

Audio = NDArray[np.float32]
RATE = 48_000


@pytest.fixture
def station() -> Iterator[Station]:
    with Station() as station:
        yield station


def encoded(
    path: Path,
    seconds: float,
    *options: str,
    rate: int = RATE,
    channels: int = 2,
    pitch: float = 440,
) -> bytes:
    """A tone as a file of the kind that its suffix says."""
    t = np.arange(round(seconds * rate)) / rate
    tone = (0.3 * np.sin(2 * np.pi * pitch * t)).astype(np.float32)
    wav = path.with_suffix(".wav")
    soundfile.write(wav, np.stack([tone] * channels, axis=1), rate, subtype="FLOAT")
    if path.suffix != ".wav":
        command = ["ffmpeg", "-v", "error", "-y", "-i", str(wav), *options, str(path)]
        subprocess.run(command, check=True)
    return path.read_bytes()


def read_all(source: Playlist) -> tuple[Audio, list[tuple[str, int]]]:
    """All samples, and each title with the sample from which it holds."""
    titles: list[tuple[str, int]] = []
    blocks: list[Audio] = []
    source.on_title(lambda title: titles.append((title, sum(b.shape[1] for b in blocks))))
    with source:
        while (block := source.read(1920)).shape[1]:
            blocks.append(block)
    return np.concatenate(blocks, axis=1), titles


def loud(block: Audio) -> bool:
    return bool(np.abs(block).max() > 0.1)


def test_a_radio_that_drops_is_come_back_to_with_silence_meanwhile(
    station: Station, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing waits for it: the stream goes on in silence, and with the music when that is back."""
    mp3 = encoded(tmp_path / "a.mp3", 3.0)
    silent = threading.Event()

    def away(request: BaseHTTPRequestHandler) -> None:
        if silent.wait(60):
            answer(b"", status=503)(request)

    back = icy(mp3, b"Second")
    station.answers["/live"] = [icy(mp3, b"First"), answer(b"", status=503), away, back]
    with caplog.at_level(logging.INFO), Playlist([f"{station.url}/live"]) as source:
        assert not source.live  # who reads it keeps time, so that what comes at once is not sent so
        heard = 0
        while heard < 2.8 * RATE:  # a slow machine may leave silence in between
            block = source.read(1920)
            heard += block.shape[1] * loud(block)
        while loud(block := source.read(1920)):
            heard += block.shape[1]
        assert source.title == "First"
        silent.set()
        while not loud(block := source.read(1920)):
            assert block.shape[1]
        while source.title != "Second":
            assert source.read(1920).shape[1]
    assert heard < 3.3 * RATE
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0].endswith("/live' has stopped; silence takes its place until it is back.")
    assert messages[1].endswith("/live' is back.")


def test_titles_of_a_radio_come_with_its_music(station: Station, tmp_path: Path) -> None:
    mp3 = encoded(tmp_path / "a.mp3", 12.0)
    titles = [b"Don't stop", "Ärger – Öl".encode(), "Caf\u00e9".encode("latin-1")]
    station.answers["/live"] = icy(mp3, *titles)
    source = Playlist([f"{station.url}/live"])
    seen: list[tuple[str, int]] = []
    heard = 0
    source.on_title(lambda title: seen.append((title, heard)))
    with source:
        while len(seen) < 4 and heard < 11 * RATE:
            heard += source.read(1920).shape[1]
    assert station.requests[0][1]["Icy-Metadata"] == "1"
    told = [title for title, _ in seen if title != "A Station"]
    assert told == ["Don't stop", "Ärger – Öl", "Café"]
    for due_s, (_, place) in zip((4, 8), seen[-2:], strict=True):  # sooner by what is in pipes
        assert (due_s - 2) * RATE < place < (due_s + 0.3) * RATE


def test_a_title_of_our_own_stays_with_a_radio(station: Station, tmp_path: Path) -> None:
    station.answers["/live"] = icy(encoded(tmp_path / "a.mp3", 3.0), b"Theirs")
    with Playlist([f"{station.url}/live"], title="Ours") as source:
        for _ in range(20):
            source.read(1920)
            assert source.title == "Ours"


def test_a_shoutcast_server_of_the_old_kind_is_understood(tmp_path: Path) -> None:
    mp3 = encoded(tmp_path / "a.mp3", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(b"ICY 200 OK\r\nicy-name:Old Radio\r\n\r\n" + mp3)

        thread = threading.Thread(target=serve)
        thread.start()
        with Playlist([f"http://127.0.0.1:{listening.getsockname()[1]}/"]) as source:
            assert loud(source.read(4800)) or loud(source.read(4800))
            assert source.title == "Old Radio"
        thread.join()


def test_a_radio_of_ogg_links_tells_each_ones_title(station: Station, tmp_path: Path) -> None:
    links = [
        encoded(
            tmp_path / "1.ogg", 2.5, "-metadata", "title=One", "-c:a", "libvorbis", rate=44_100
        ),
        encoded(tmp_path / "2.ogg", 2.5, "-metadata", "title=Two", "-c:a", "libopus", channels=1),
    ]
    station.answers["/live.ogg"] = chunked(b"".join(links), "application/ogg")
    out, titles = read_all(Playlist([f"{station.url}/live.ogg"]))
    assert out.shape == (2, 5 * RATE)
    assert titles == [("One", 0), ("Two", 5 * RATE // 2)]


def test_a_file_on_the_web_is_that_file(station: Station, tmp_path: Path) -> None:
    data = encoded(tmp_path / "song.flac", 2.0, rate=44_100)
    station.answers["/a%20song.flac"] = answer(data, "audio/flac")
    out, titles = read_all(Playlist([f"{station.url}/a song.flac"]))
    np.testing.assert_array_equal(out, read_all(Playlist([tmp_path / "song.flac"]))[0])
    assert titles == [("a song", 0)]


def test_a_file_whose_connection_breaks_goes_on_where_it_was(
    station: Station, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = encoded(tmp_path / "song.flac", 4.0)
    half = len(data) // 2
    station.answers["/song.flac"] = [
        answer(data[:half], "audio/flac", length=len(data)),
        answer(data[half:], "audio/flac", status=206),
    ]
    out, _ = read_all(Playlist([f"{station.url}/song.flac"]))
    np.testing.assert_array_equal(out, read_all(Playlist([tmp_path / "song.flac"]))[0])
    assert station.requests[1][1]["Range"] == f"bytes={half}-"
    assert not caplog.records


def test_a_file_that_cannot_be_gone_on_with_ends_early(
    station: Station, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = encoded(tmp_path / "song.mp3", 4.0)
    station.answers["/song.mp3"] = answer(data[: len(data) // 2], length=len(data))
    out, _ = read_all(Playlist([f"{station.url}/song.mp3"]))
    assert RATE < out.shape[1] < 3 * RATE
    assert "ends early" in caplog.text


def test_a_file_that_ffmpeg_must_seek_in_is_fetched_by_it(station: Station, tmp_path: Path) -> None:
    data = encoded(tmp_path / "song.m4a", 2.0, "-metadata", "title=Seeking")

    def ranges(request: BaseHTTPRequestHandler) -> None:
        first = int(request.headers.get("Range", "bytes=0-").split("=")[1].split("-")[0])
        place = f"bytes {first}-{len(data) - 1}/{len(data)}"
        answer(data[first:], "audio/mp4", status=206, Content_Range=place)(request)

    station.answers["/song.m4a"] = ranges
    out, titles = read_all(Playlist([f"{station.url}/song.m4a"]))
    assert abs(out.shape[1] - 2 * RATE) < 3000
    assert titles == [("Seeking", 0)]


@pytest.mark.parametrize("live", [False, True])
def test_pieces_of_one_stream_are_played_as_one(
    station: Station, tmp_path: Path, live: bool
) -> None:
    (tmp_path / "hls").mkdir()
    pieces = ("-c:a", "aac", "-hls_time", "1", "-hls_list_size", "0")
    encoded(tmp_path / "hls" / "all.m3u8", 5.0, *pieces)
    for path in (tmp_path / "hls").iterdir():
        station.answers[f"/{path.name}"] = answer(path.read_bytes(), "video/mp2t")
    kind = "application/vnd.apple.mpegurl"
    ended = (tmp_path / "hls" / "all.m3u8").read_bytes()
    still_live = answer(ended.replace(b"#EXT-X-ENDLIST", b""), kind)
    station.answers["/all.m3u8"] = [*([still_live] * live), answer(ended, kind)]
    out, _ = read_all(Playlist([f"{station.url}/all.m3u8"]))
    assert abs(out.shape[1] - 5 * RATE) < 6000


PLS = "[playlist]\nFile2={0}/2.wav\nTitle2=x\nFile1=1.wav\nNumberOfEntries=2\n"
M3U = "\ufeff#EXTM3U\n#EXTINF:1,Somebody\n1.wav\r\n\n{0}/2.wav\n"


@pytest.mark.parametrize(("text", "suffix"), [(PLS, "pls"), (M3U, "m3u"), (M3U, "m3u8")])
@pytest.mark.parametrize("local", [True, False])
def test_playlists_stand_for_what_they_name(
    station: Station, tmp_path: Path, text: str, suffix: str, local: bool
) -> None:
    for name in ("1.wav", "2.wav"):
        station.answers[f"/{name}"] = answer(encoded(tmp_path / name, 0.5), "audio/wav")
    data = text.format(station.url).encode()
    station.answers["/list"] = answer(data, "audio/x-mpegurl")
    (tmp_path / f"list.{suffix}").write_bytes(data)
    song = tmp_path / f"list.{suffix}" if local else f"{station.url}/list"
    out, titles = read_all(Playlist([song, song]))
    assert out.shape == (2, 2 * RATE)
    assert [title for title, _ in titles] == ["1", "2", "1", "2"]


def test_a_playlist_from_the_web_names_no_files_here(
    station: Station, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "secret.wav"
    encoded(path, 0.5)
    station.answers["/list.m3u"] = answer(f"file://{path}\n{path}\n".encode(), "text/plain")
    with pytest.raises(SourceError, match="Nothing to play"):
        Playlist([f"{station.url}/list.m3u"]).open()


@pytest.mark.parametrize("endless", [False, True])
def test_playlists_that_lead_nowhere_end(station: Station, endless: bool) -> None:
    station.answers["/list.m3u"] = answer(b"list.m3u\n" if endless else b"#\n", "audio/mpegurl")
    with pytest.raises(SourceError, match=r"list\.m3u' names no songs\.$"):
        Playlist([f"{station.url}/list.m3u"]).open()


def test_what_cannot_be_played_is_skipped_with_a_sentence(
    station: Station, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    station.answers |= {
        "/page": answer(b"<html>", "text/html; charset=utf-8"),
        "/text": answer(b"no audio" * 1000),
        "/empty": answer(b""),
        "/live-text": answer(b"no audio" * 10_000, length=None),
        "/song.wav": answer(encoded(tmp_path / "song.wav", 0.5), "audio/wav"),
    }
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and nothing listens there
        reasons = {
            f"{station.url}/page": "is a web page",
            f"{station.url}/text": "not audio",
            f"{station.url}/empty": "not audio",
            f"{station.url}/live-text": "not audio",
            f"{station.url}/none": "the server answers 404",
            f"http://127.0.0.1:{unused.getsockname()[1]}/": "Connection refused",
            "http://no-such-host.invalid/": "cannot be reached",
            "http://[::1/": "cannot be reached",
            "http://": "cannot be reached",
        }
        with caplog.at_level(logging.WARNING):
            out, _ = read_all(Playlist([*reasons, f"{station.url}/song.wav"]))
    assert out.shape == (2, RATE // 2)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == len(reasons)
    for message, (url, reason) in zip(messages, reasons.items(), strict=True):
        assert message.startswith(f"Skipped: '{url}' ")
        assert reason in message
        assert message.endswith(".")


def test_a_password_goes_to_its_host_alone_and_is_never_shown(
    station: Station, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Station() as other:
        other.answers["/song.wav"] = answer(encoded(tmp_path / "song.wav", 0.5), "audio/wav")
        moved: Answer = answer(b"", status=302, Location=f"{other.url}/song.wav")
        station.answers |= {"/song.wav": moved, "/none": answer(b"", status=404)}
        address = station.url.replace("http://", "http://me:s%C3%A9cret@")
        with caplog.at_level(logging.DEBUG):
            out, titles = read_all(Playlist([f"{address}/none", f"{address}/song.wav"]))
        assert out.shape == (2, RATE // 2)
        assert station.requests[-1][1]["Authorization"] == "Basic bWU6c8OpY3JldA=="
        assert "Authorization" not in other.requests[0][1]
    assert "cret" not in caplog.text + str(titles)


def test_an_address_without_ffmpeg_is_one_sentence(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_module, "ffmpeg_program", lambda: None)
    with pytest.raises(SourceError, match=r"takes ffmpeg, and that is not installed\.$"):
        Playlist([f"{station.url}/song.wav"]).open()


def test_stopping_a_radio_that_has_gone_quiet_ends_it(station: Station, tmp_path: Path) -> None:
    mp3 = encoded(tmp_path / "a.mp3", 3.0)
    done = threading.Event()

    def hold(request: BaseHTTPRequestHandler) -> None:
        icy(mp3)(request)
        request.wfile.flush()
        done.wait(60)

    station.answers["/live"] = hold
    with Playlist([f"{station.url}/live"]) as source:
        while loud(source.read(1920)):
            pass
        threading.Timer(0.2, source.stop).start()
        while source.read(1920).shape[1]:
            pass
    done.set()


def test_the_server_streams_a_radio(
    station: Station, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    station.answers["/live"] = chunked(encoded(tmp_path / "a.mp3", 3.0))
    stats = tmp_path / "stats.jsonl"
    arguments = [f"{station.url}/live", "--port", "0", "--stats", str(stats)]
    assert server.main(arguments, load_fake) == 0
    final = json.loads(stats.read_text().splitlines()[-1])
    assert final["final"]
    assert final["source_samples"] > 2.9 * RATE


def test_an_address_that_looks_like_a_file_of_tokens_is_none() -> None:
    assert not server.holds_tokens("http://radio.example/live.muc")
