"""Files that are not as they should be: chained, without lengths, damaged, absurd, no files at all.

What is compared with is what was encoded, and where a decoder decides, what ffmpeg makes of it.
"""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from streaming.audio.sinks import FileSink
from streaming.audio.sources import FileSource, Playlist, StdinSource
from streaming.audio.sources import ffmpeg as ffmpeg_module
from streaming.audio.sources import files as files_module
from streaming.audio.sources import playlist as playlist_module
from streaming.audio.sources.base import Source
from streaming.audio.sources.lengths import Promise, promise
from streaming.audio.sources.readers import Reader, SoundFileReader
from streaming.cli import server
from streaming.errors import SourceError
from streaming.files.muc import MucReader
from tests.support.fake_codec import load_fake

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")

Audio = NDArray[np.float32]
RATE = 48_000


@pytest.fixture
def no_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (ffmpeg_module, files_module):
        monkeypatch.setattr(module, "ffmpeg_program", lambda: None)


def noise(seconds: float, rate: int = RATE, channels: int = 2, seed: int = 0) -> Audio:
    """Frames ``[n, channels]`` that no two frames of are alike."""
    shape = (round(seconds * rate), channels)
    return (0.1 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def written(path: Path, sound: Audio, rate: int = RATE, **options: str) -> bytes:
    soundfile.write(path, sound, rate, **options)
    return path.read_bytes()


def ffmpeg(*arguments: str | Path) -> bytes:
    command = ["ffmpeg", "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True).stdout


def encoded(folder: Path, codec: str, kind: str, title: str, sound: Audio, rate: int) -> bytes:
    """Sound as ffmpeg encodes it into a pipe, under a title."""
    written(folder / "in.wav", sound, rate, subtype="FLOAT")
    tags = ("-metadata", f"title={title}", "-metadata", "artist=Somebody")
    return ffmpeg("-i", folder / "in.wav", "-c:a", codec, *tags, "-f", kind, "-")


def read_all(source: Source) -> tuple[Audio, list[tuple[str, int]]]:
    """All samples, and each title with the sample from which it holds."""
    titles: list[tuple[str, int]] = []
    blocks: list[Audio] = []
    source.on_title(lambda title: titles.append((title, sum(b.shape[1] for b in blocks))))
    with source:
        while (block := source.read(4800)).shape[1]:
            blocks.append(block)
    return np.concatenate(blocks, axis=1), titles


def by_ffmpeg(path: Path) -> int:
    """Samples at 48 kHz that ffmpeg finds in a file of that rate."""
    return len(ffmpeg("-i", path, "-map", "0:a:0", "-ac", "1", "-f", "f32le", "-")) // 4


def fed(data: bytes) -> int:
    """A descriptor from which ``data`` comes as from a program at the other end."""
    reading, writing = os.pipe()

    def feed() -> None:
        with os.fdopen(writing, "wb") as file:
            file.write(data)

    threading.Thread(target=feed, daemon=True).start()
    return reading


CHAINS = {
    "vorbis": [("libvorbis", 16_000, 1), ("libvorbis", 44_100, 2), ("libvorbis", 22_050, 1)],
    "opus": [("libopus", 48_000, 1), ("libopus", 48_000, 2), ("libopus", 48_000, 6)],
    "flac": [("flac", 16_000, 1), ("flac", 96_000, 2)],
    "mixed": [("libopus", 48_000, 2), ("flac", 44_100, 1), ("libvorbis", 44_100, 1)],
    "alike": [("libvorbis", 44_100, 2), ("libvorbis", 44_100, 2)],
}


@needs_ffmpeg
@pytest.mark.parametrize("way", ["file", "pipe", "fifo"])
@pytest.mark.parametrize("chain", CHAINS)
def test_every_link_of_a_chain_is_played_under_its_title(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, chain: str, way: str
) -> None:
    """Whatever its rate, its channels and its codec; as long as it was, to the sample."""
    data = b"".join(
        encoded(tmp_path, codec, "ogg", f"Song {number}", noise(2, rate, channels), rate)
        for number, (codec, rate, channels) in enumerate(CHAINS[chain])
    )
    path = tmp_path / "chain.ogg"
    if way == "fifo":
        os.mkfifo(path)
        threading.Thread(target=path.write_bytes, args=(data,), daemon=True).start()
    else:
        path.write_bytes(data)
    source = StdinSource(descriptor=fed(data)) if way == "pipe" else FileSource(path)
    out, titles = read_all(source)
    count = len(CHAINS[chain])
    assert out.shape == (2, count * 2 * RATE)
    assert [title for title, _ in titles] == [f"Somebody – Song {n}" for n in range(count)]
    for number, (_, place) in enumerate(titles):  # sooner by what a resampler holds back
        assert number * 2 * RATE - 1000 < place <= number * 2 * RATE
    for number in range(count):
        assert np.std(out[:, number * 2 * RATE :][:, 5000:90_000]) > 0.02
    assert not caplog.records


@pytest.mark.usefixtures("no_ffmpeg")
def test_chains_need_no_ffmpeg(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = written(tmp_path / "1.ogg", noise(1.5, 44_100), 44_100)
    two = written(tmp_path / "2.opus", noise(1.5, RATE, 1), format="OGG", subtype="OPUS")
    (tmp_path / "chain.ogg").write_bytes(one + two)
    assert read_all(FileSource(tmp_path / "chain.ogg"))[0].shape == (2, 3 * RATE)
    assert not caplog.records


@needs_ffmpeg
def test_a_link_that_cannot_be_decoded_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = written(tmp_path / "good.ogg", noise(1.0))
    bad = bytearray(good)
    at = bad.index(b"vorbis")
    bad[at : at + 6] = b"sibrov"
    for data, descriptor in ((good + bad + good, None), (good + bad + good, True)):
        (tmp_path / "chain.ogg").write_bytes(data)
        source = StdinSource(descriptor=fed(data)) if descriptor else None
        out, _ = read_all(source or FileSource(tmp_path / "chain.ogg"))
        assert out.shape == (2, 2 * RATE)
    assert "a part of it cannot be decoded" in caplog.text


def patched(*edits: tuple[bytes, int, str, int]) -> Callable[[bytes], bytes]:
    """Puts numbers into a file, each so far behind the first of some bytes."""

    def patch(data: bytes) -> bytes:
        out = bytearray(data)
        for mark, behind, layout, value in edits:
            struct.pack_into(layout, out, data.index(mark) + behind, value)
        return bytes(out)

    return patch


def wav_sizes(size: int) -> Callable[[bytes], bytes]:
    return patched((b"RIFF", 4, "<I", size), (b"data", 4, "<I", size))


def flac_total(value: int) -> Callable[[bytes], bytes]:
    def patch(data: bytes) -> bytes:
        packed = int.from_bytes(data[18:26], "big") >> 36 << 36 | value
        return data[:18] + packed.to_bytes(8, "big") + data[26:]

    return patch


ALL_ONES = 0xFFFF_FFFF
UNKNOWN = {
    "wav 0": ("wav", wav_sizes(0)),
    "wav all ones": ("wav", wav_sizes(ALL_ONES)),
    "wav half": ("wav", wav_sizes(0x7FFF_FFFF)),
    "wav half, rounded": ("wav", wav_sizes(0x7FFF_F024)),
    "wav arecord": ("wav", wav_sizes(0x8000_0000)),
    "rf64": (
        "rf64",
        patched((b"ds64", 8, "<Q", 0), (b"ds64", 16, "<Q", 0), (b"ds64", 24, "<Q", 0)),
    ),
    "w64": ("w64", patched((b"riff", 16, "<q", -1), (b"data", 16, "<q", -1))),
    "w64 0": ("w64", patched((b"riff", 16, "<q", 0), (b"data", 16, "<q", 0))),
    "aiff": ("aiff", patched((b"FORM", 4, ">I", 0), (b"SSND", 4, ">I", 0))),
    "aiff all ones": ("aiff", patched((b"FORM", 4, ">I", ALL_ONES), (b"SSND", 4, ">I", ALL_ONES))),
    "caf": ("caf", patched((b"data", 4, ">q", -1))),
    "caf 0": ("caf", patched((b"data", 4, ">q", 0))),
    "au": ("au", patched((b".snd", 8, ">I", ALL_ONES))),
    "au 0": ("au", patched((b".snd", 8, ">I", 0))),
    "au too small": ("au", patched((b".snd", 8, ">I", 5000))),
    "flac": ("flac", flac_total(0)),
    "flac all ones": ("flac", flac_total((1 << 36) - 1)),
    "flac too small": ("flac", flac_total(5000)),
}


@needs_ffmpeg
@pytest.mark.parametrize("case", UNKNOWN)
def test_a_file_that_does_not_know_its_length_is_played_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    """As those are that come from pipes and from recorders that were killed."""
    suffix, patch = UNKNOWN[case]
    path = tmp_path / f"a.{suffix}"
    data = written(path, noise(1.2345), subtype="PCM_16", format=suffix.upper())
    expected, _ = read_all(FileSource(path))
    assert expected.shape == (2, round(1.2345 * RATE))
    path.write_bytes(patch(data))
    np.testing.assert_array_equal(read_all(FileSource(path))[0], expected)
    assert not caplog.records


@needs_ffmpeg
@pytest.mark.parametrize("size", [0, ALL_ONES, 0x7FFF_FFFF])
@pytest.mark.parametrize("codec", ["libmp3lame", "adpcm_ima_wav", "adpcm_ms", "pcm_mulaw"])
def test_a_wav_file_of_any_codec_does_without_a_length(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, codec: str, size: int
) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav_sizes(size)(encoded(tmp_path, codec, "wav", "", noise(2), RATE)))
    out, _ = read_all(FileSource(path))
    assert out.shape[1] == by_ffmpeg(path)
    assert 1.99 * RATE < out.shape[1] < 2.1 * RATE
    assert not caplog.records


PIPED = ["wav", "flac", "aiff", "w64", "caf", "au", "mp3", "ogg", "opus", "adts", "matroska"]


@needs_ffmpeg
@pytest.mark.parametrize("kind", PIPED)
def test_what_ffmpeg_wrote_into_a_pipe_is_played_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    written(tmp_path / "in.wav", noise(2))
    path = tmp_path / f"piped.{kind}"
    path.write_bytes(ffmpeg("-i", tmp_path / "in.wav", "-f", kind, "-"))
    assert 2 * RATE <= read_all(FileSource(path))[0].shape[1] < 2.06 * RATE
    assert not caplog.records


@needs_ffmpeg
@pytest.mark.parametrize("kind", ["wav", "rf64", "w64", "aiff", "caf", "au", "flac"])
def test_a_length_that_the_file_does_not_reach_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    path = tmp_path / f"a.{kind}"
    data = written(path, noise(2), subtype="PCM_16", format=kind.upper())
    path.write_bytes(data[: len(data) // 2])
    assert 0.9 * RATE < read_all(FileSource(path))[0].shape[1] < 1.1 * RATE
    (record,) = caplog.records
    assert f"a.{kind}' was played for " in record.getMessage()
    assert "ends early" in record.getMessage()


@needs_ffmpeg
def test_an_mp3_file_that_was_cut_is_told_by_its_own_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written(tmp_path / "in.wav", noise(4))
    ffmpeg("-i", tmp_path / "in.wav", tmp_path / "a.mp3")
    data = (tmp_path / "a.mp3").read_bytes()
    assert read_all(FileSource(tmp_path / "a.mp3"))[0].shape[1] == 4 * RATE
    assert not caplog.records
    (tmp_path / "a.mp3").write_bytes(data[: len(data) // 2])
    read_all(FileSource(tmp_path / "a.mp3"))
    assert "it ends early" in caplog.text


@needs_ffmpeg
@pytest.mark.parametrize("kind", ["flac", "mp3", "ogg", "opus", "oga", "m4a"])
def test_a_damaged_frame_costs_that_frame(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    written(tmp_path / "in.wav", noise(8))
    path = tmp_path / f"hole.{kind}"
    ffmpeg("-i", tmp_path / "in.wav", *(["-c:a", "flac"] if kind == "oga" else []), path)
    data = bytearray(path.read_bytes())
    at, size = len(data) // 4, 1000 if kind == "mp3" else 100  # longer than one of its frames
    data[at : at + size] = bytes(size)
    path.write_bytes(data)
    out, _ = read_all(FileSource(path))
    assert 5.5 * RATE < out.shape[1] <= 8.1 * RATE  # a page of Ogg may be a second long
    (record,) = caplog.records
    assert f"hole.{kind}' was played for " in record.getMessage()
    assert "it is corrupt" in record.getMessage()
    if kind == "flac":  # exact to the sample on both sides of the hole
        whole, _ = read_all(FileSource(tmp_path / "in.wav"))
        np.testing.assert_array_equal(out[:, :RATE], whole[:, :RATE])
        np.testing.assert_array_equal(out[:, -5 * RATE :], whole[:, -5 * RATE :])


@needs_ffmpeg
def test_damage_is_told_of_standard_input_as_well(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = bytearray(written(tmp_path / "a.flac", noise(4)))
    at = len(data) // 4
    data[at : at + 100] = bytes(100)
    out, _ = read_all(StdinSource(descriptor=fed(bytes(data))))
    assert 3.8 * RATE < out.shape[1] < 4 * RATE
    assert "Standard input was played for 3.9 s only: it is corrupt" in caplog.text


@needs_ffmpeg
def test_a_damaged_link_is_told_and_the_next_one_played(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = written(tmp_path / "1.ogg", noise(8)), written(tmp_path / "2.ogg", noise(2))
    hurt = bytearray(one)
    hurt[len(one) // 2] ^= 1
    (tmp_path / "chain.ogg").write_bytes(hurt + two)
    out, _ = read_all(FileSource(tmp_path / "chain.ogg"))
    assert 8 * RATE < out.shape[1] < 10 * RATE
    intact, _ = read_all(FileSource(tmp_path / "2.ogg"))
    np.testing.assert_array_equal(out[:, -2 * RATE :], intact)
    assert "it is corrupt" in caplog.text


@pytest.mark.parametrize("ffmpeg_is_there", [pytest.param(True, marks=needs_ffmpeg), False])
@pytest.mark.parametrize("rate", [0, 1, 999, 1_411_200, 4_000_000_000])
def test_an_absurd_sample_rate_costs_that_song_alone(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    rate: int,
    ffmpeg_is_there: bool,
) -> None:
    if not ffmpeg_is_there:
        monkeypatch.setattr(files_module, "ffmpeg_program", lambda: None)
    data = written(tmp_path / "good.wav", noise(0.1))
    (tmp_path / "bad.wav").write_bytes(patched((b"fmt ", 12, "<I", rate))(data))
    good = tmp_path / "good.wav"
    out, _ = read_all(Playlist([good, tmp_path / "bad.wav", good]))
    assert out.shape == (2, 2 * 4800)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"Skipped: '{tmp_path / 'bad.wav'}' ")


@needs_ffmpeg
@pytest.mark.parametrize("channels", [0, 3, 64, 65_535])
def test_an_absurd_number_of_channels_costs_that_song_at_most(
    tmp_path: Path, channels: int
) -> None:
    data = written(tmp_path / "good.wav", noise(0.1))
    absurd = patched((b"fmt ", 10, "<H", channels), (b"fmt ", 20, "<H", channels * 2 % 65_536))
    (tmp_path / "bad.wav").write_bytes(absurd(data))
    good = tmp_path / "good.wav"
    out, _ = read_all(Playlist([good, tmp_path / "bad.wav", good]))
    np.testing.assert_array_equal(out[:, :4800], out[:, -4800:])


class _Failing(SoundFileReader):
    def _read(self, frames: int) -> Audio:
        if self.frames_read:
            raise MemoryError
        return super()._read(100)


def test_a_station_survives_any_fault_of_a_reader(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "song.wav", noise(0.1))
    opened = files_module.open_file

    def open_file(path: Path, stopped: threading.Event) -> Reader:
        if path.stem == "opening":
            raise ZeroDivisionError
        if path.stem == "reading":
            return _Failing(tmp_path / "song.wav", "song")
        return opened(path, stopped)

    monkeypatch.setattr(playlist_module, "open_file", open_file)
    names = ("song.wav", "opening.wav", "reading.wav", "song.wav")
    out, _ = read_all(Playlist([tmp_path / name for name in names]))
    assert out.shape == (2, 2 * 4800 + 100)
    messages = [record.getMessage() for record in caplog.records]
    assert "opening.wav' cannot be played: ZeroDivisionError." in messages[0]
    assert "reading.wav' was played for 0.0 s only" in messages[1]


def test_the_server_goes_on_after_a_song_that_cannot_be_played(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path / "good.wav", noise(0.3))
    soundfile.write(tmp_path / "rate.wav", noise(0.02, 1_411_200, 1), 1_411_200)
    stats = tmp_path / "stats.jsonl"
    songs = [str(tmp_path / f"{name}.wav") for name in ("good", "rate", "good")]
    assert server.main([*songs, "--port", "0", "--stats", str(stats)], load_fake) == 0
    assert '"source_samples": 28800' in stats.read_text().splitlines()[-1]
    assert "rate.wav' has 1411200 samples a second" in caplog.text + capsys.readouterr().err


def test_what_is_no_file_is_left_out_of_a_folder(tmp_path: Path) -> None:
    written(tmp_path / "b.wav", noise(0.1))
    os.mkfifo(tmp_path / "a.wav")
    os.mkfifo(tmp_path / "c.ogg")
    out, titles = read_all(Playlist([tmp_path]))
    assert out.shape == (2, 4800)
    assert titles == [("b", 0)]


@needs_ffmpeg
def test_a_named_pipe_is_played_like_any_other(tmp_path: Path) -> None:
    data = written(tmp_path / "a.wav", noise(0.3), subtype="FLOAT")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    threading.Thread(target=pipe.write_bytes, args=(data,), daemon=True).start()
    out, titles = read_all(Playlist([pipe, tmp_path / "a.wav"]))
    np.testing.assert_array_equal(out, np.concatenate([noise(0.3), noise(0.3)]).T)
    assert titles == [("pipe", 0), ("a", 14_400)]


@needs_ffmpeg
def test_a_named_pipe_that_nobody_writes_to_can_be_stopped(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    source = Playlist([tmp_path / "pipe", tmp_path / "pipe"])
    threading.Timer(0.3, source.stop).start()
    with source:
        assert source.read(100).shape == (2, 0)


def test_what_is_neither_file_nor_pipe_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"'/dev/null' is neither a file nor a pipe\.$"):
        FileSource("/dev/null").open()


@pytest.mark.usefixtures("no_ffmpeg")
def test_what_takes_ffmpeg_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match=r"takes ffmpeg, and that is not installed\.$"):
        FileSource(tmp_path / "pipe").open()
    data = flac_total(0)(written(tmp_path / "a.flac", noise(1)))
    (tmp_path / "a.flac").write_bytes(data)
    out, _ = read_all(FileSource(tmp_path / "a.flac"))
    assert 0.9 * RATE < out.shape[1] <= RATE
    assert "ffmpeg may play more of it" in caplog.text


@needs_ffmpeg
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus"])
def test_what_a_killed_listener_wrote_can_be_played(tmp_path: Path, suffix: str) -> None:
    """As much of it as had reached the disk, up to the last frame."""
    sink = FileSink(tmp_path / f"out.{suffix}")
    sound = noise(6).T
    for start in range(0, sound.shape[1], 4800):
        sink.write(sound[:, start : start + 4800])
    data = (tmp_path / f"out.{suffix}").read_bytes()  # the sink is not closed yet
    sink.close()
    (tmp_path / f"killed.{suffix}").write_bytes(data)
    out, _ = read_all(FileSource(tmp_path / f"killed.{suffix}"))
    assert 4 * RATE < out.shape[1] <= 6 * RATE
    if suffix in ("wav", "flac"):
        assert np.abs(out - sound[:, : out.shape[1]]).max() < 1e-4


@needs_ffmpeg
def test_a_chain_is_encoded_with_all_its_titles(tmp_path: Path) -> None:
    from streaming.cli.muc import main

    links = [
        encoded(tmp_path, "libvorbis", "ogg", f"Song {n}", noise(2, 44_100), 44_100) for n in "ab"
    ]
    (tmp_path / "chain.ogg").write_bytes(b"".join(links))
    assert main(["encode", str(tmp_path / "chain.ogg"), str(tmp_path / "a.muc")], load_fake) == 0
    info = MucReader(tmp_path / "a.muc").describe()
    assert info.samples == 4 * RATE
    assert [title.title for title in info.titles] == ["Somebody – Song a", "Somebody – Song b"]


@needs_ffmpeg
@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
def test_sizes_of_blocks_do_not_matter(tmp_path: Path, suffix: str) -> None:
    codec = {"flac": "flac", "ogg": "libvorbis", "mp3": "libmp3lame"}[suffix]
    data = encoded(tmp_path, codec, suffix, "", noise(1, 44_100), 44_100)
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(data + (data if suffix == "ogg" else b""))
    whole, _ = read_all(FileSource(path))
    for frames in (1, 1919, 100_000):
        with FileSource(path) as source:
            blocks = []
            while (block := source.read(frames)).shape[1]:
                blocks.append(block)
        assert np.concatenate(blocks, axis=1).tobytes() == whole.tobytes()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", None),
        (b"RIFF", None),
        (b"RIFF\0\0\0\0AVI ", None),
        (b"FORM\0\0\0\0ILBM", None),
        (b"RIFF\0\0\0\0WAVE", Promise.NONE),
        (b"RIFF\0\0\0\0WAVE" + 2000 * b"junk\0\0\0\0", Promise.NONE),
        (b"RIFF\0\0\0\0WAVEdata\4\0\0\0abcd", Promise.KEPT),
        (b"RIFF\0\0\0\0WAVEdata\5\0\0\0abcd", Promise.BROKEN),
        (b"RIFF\0\0\0\0WAVEodd \1\0\0\0x\0data\4\0\0\0abcd", Promise.KEPT),
        (b"RIFX\0\0\0\0WAVEdata\0\0\0\4abcd", Promise.KEPT),
        (b"RF64\xff\xff\xff\xffWAVEds64\4\0\0\0abcddata\xff\xff\xff\xffabcd", Promise.NONE),
        (b"caff\0\1\0\0data" + struct.pack(">q", -1), Promise.NONE),
        (b"caff\0\1\0\0desc" + struct.pack(">q", -5), Promise.NONE),
        (b".snd\0\0\0\x18", Promise.NONE),
    ],
)
def test_a_header_is_taken_for_what_it_says(data: bytes, expected: Promise | None) -> None:
    assert promise(io.BytesIO(data)) is expected
