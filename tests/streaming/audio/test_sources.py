"""Sources: any file, any playlist, any pipe becomes sane 48 kHz stereo."""

import contextlib
import io
import logging
import os
import shutil
import subprocess
import threading

import numpy as np
import pytest
import soundfile

from streaming.audio.sources import FileSource, Playlist, RawFormat, StdinSource
from streaming.audio.sources import ffmpeg as ffmpeg_module
from streaming.audio.sources import files as files_module
from streaming.audio.sources import stdin as stdin_module
from streaming.audio.sources.channels import to_stereo
from streaming.audio.sources.readers import tagged_title
from streaming.errors import SettingsError, SourceError

RATE = 48_000
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")


def tune(seconds=0.5, rate=RATE, channels=2, pitch=440.0):
    """Frames `[n, channels]` of sines an octave apart per channel."""
    t = np.arange(round(seconds * rate)) / rate
    return np.stack(
        [0.4 * np.sin(2 * np.pi * pitch * (1 + channel) * t) for channel in range(channels)], axis=1
    ).astype(np.float32)


def write(path, frames=None, rate=RATE, **options):
    if path.suffix == ".opus":
        options |= {"format": "OGG", "subtype": "OPUS"}
    elif path.suffix in (".wav", ".aiff"):
        options.setdefault("subtype", "FLOAT")
    soundfile.write(path, tune() if frames is None else frames, rate, **options)
    return path


def damaged_copy(path, name, keep=0.5):
    data = path.read_bytes()
    target = path.with_name(name)
    target.write_bytes(data[: int(len(data) * keep)])
    return target


def read_all(source, frames=1920):
    """Everything that a source has, `[2, n]`."""
    blocks = []
    with source:
        while (block := source.read(frames)).shape[1]:
            assert block.shape[0] == 2
            assert block.shape[1] <= frames
            assert block.dtype == np.float32
            blocks.append(block)
        assert source.read(frames).shape == (2, 0)
    return np.concatenate(blocks, axis=1) if blocks else np.zeros((2, 0), np.float32)


@pytest.fixture
def no_ffmpeg(monkeypatch):
    for module in (ffmpeg_module, files_module, stdin_module):
        monkeypatch.setattr(module, "ffmpeg_program", lambda: None)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "opus", "aiff"])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_is_read(tmp_path, suffix, channels):
    frames = tune(channels=channels)
    out = read_all(FileSource(write(tmp_path / f"tune.{suffix}", frames)))
    assert abs(out.shape[1] - len(frames)) <= (2400 if suffix == "mp3" else 0)
    expected = np.broadcast_to(frames.T, (2, len(frames)))
    middle = slice(5000, 15_000)
    for side in range(2):
        cross = np.correlate(out[side, 2000:22_000], expected[side, middle])
        assert cross.max() > 0.8 * np.square(expected[side, middle]).sum()


@pytest.mark.usefixtures("no_ffmpeg")
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "opus"])
def test_the_common_formats_need_no_ffmpeg(tmp_path, suffix):
    out = read_all(FileSource(write(tmp_path / f"tune.{suffix}")))
    assert abs(out.shape[1] - RATE // 2) <= 2400


@needs_ffmpeg
def test_ffmpeg_reads_what_libsndfile_does_not(tmp_path):
    write(tmp_path / "tune.wav")
    command = ["ffmpeg", "-v", "error", "-i", str(tmp_path / "tune.wav"), "-c:a", "aac"]
    command += ["-metadata", "title=A\x1bTune", "-metadata", "artist=Somebody"]
    subprocess.run([*command, str(tmp_path / "tune.m4a")], check=True)
    source = FileSource(tmp_path / "tune.m4a")
    out = read_all(source)
    assert abs(out.shape[1] - RATE // 2) < 3000
    assert np.sqrt(np.mean(out**2)) == pytest.approx(0.28, abs=0.03)
    assert source.title == "Somebody – ATune"


@pytest.mark.usefixtures("no_ffmpeg")
def test_without_ffmpeg_an_unknown_format_is_one_sentence(tmp_path):
    (tmp_path / "tune.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    with pytest.raises(SourceError, match=r"without ffmpeg, which is not installed\.$"):
        FileSource(tmp_path / "tune.m4a").open()


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 96_000])
def test_any_sample_rate_becomes_48_khz_of_exact_length(tmp_path, rate):
    frames = tune(rate=rate, seconds=0.7301)
    out = read_all(FileSource(write(tmp_path / "tune.wav", frames, rate)))
    assert out.shape[1] == (2 * len(frames) * RATE + rate) // (2 * rate)
    expected = tune(seconds=0.7).T
    assert np.abs(out[:, 2000:30_000] - expected[:, 2000:30_000]).max() < 1e-3


def test_read_sizes_do_not_matter(tmp_path):
    path = write(tmp_path / "tune.flac", tune(rate=44_100), 44_100)
    whole = read_all(FileSource(path), 48_000)
    for frames in (1, 480, 1920, 4801):
        assert read_all(FileSource(path), frames).tobytes() == whole.tobytes()


@pytest.mark.parametrize("channels", [3, 4, 5, 6, 7, 8, 9])
def test_many_channels_are_mixed_without_clipping(channels):
    out = to_stereo(np.ones((10, channels), np.float32))
    np.testing.assert_allclose(out, 1.0, atol=0.35)
    assert out.max() <= 1.0 + 1e-6


def test_surround_channels_go_where_they_belong():
    def mixed(channel, **options):
        frames = np.zeros((1, 6), np.float32)
        frames[0, channel] = 1
        return to_stereo(frames, **options)[:, 0]

    left, right = mixed(0)
    assert left > 0.4
    assert right == 0
    assert mixed(2)[0] == mixed(2)[1] > 0.2  # centre
    assert not mixed(3).any()  # low frequencies
    assert mixed(1, ogg_order=True)[0] == mixed(1, ogg_order=True)[1] > 0.2
    assert not mixed(5, ogg_order=True).any()


def test_nan_infinity_and_clipping_are_tamed(tmp_path):
    frames = tune()
    frames[1000] = np.nan
    frames[2000] = np.inf
    frames[3000:3100] = 100.0
    frames[4000:4100] = -1e30
    out = read_all(FileSource(write(tmp_path / "wild.wav", frames)))
    assert np.isfinite(out).all()
    assert np.abs(out).max() < 1
    assert not out[:, 1000].any()
    assert not out[:, 2000].any()
    assert out[:, 3000:3100].min() > 0.99
    assert out[:, 4000:4100].max() < -0.99
    np.testing.assert_array_equal(out[:, 5000:], frames[5000:].T)


def test_playlist_items_join_without_a_gap(tmp_path):
    a, b = tune(0.3), tune(0.21, pitch=300.0)
    paths = [write(tmp_path / "a.wav", a), write(tmp_path / "b.wav", b)]
    out = read_all(Playlist(paths))
    np.testing.assert_array_equal(out, np.concatenate([a, b]).T)


def test_a_tune_cut_in_two_resamples_as_if_it_were_whole(tmp_path):
    frames = tune(rate=44_100)
    whole = read_all(FileSource(write(tmp_path / "whole.wav", frames, 44_100)))
    parts = [
        write(tmp_path / "1.wav", frames[:10_001], 44_100),
        write(tmp_path / "2.wav", frames[10_001:], 44_100),
    ]
    assert read_all(Playlist(parts)).tobytes() == whole.tobytes()


def test_a_change_of_rate_loses_nothing(tmp_path):
    paths = [
        write(tmp_path / "a.wav", tune(0.5, 44_100), 44_100),
        write(tmp_path / "b.wav", tune(0.5, 48_000), 48_000),
        write(tmp_path / "c.wav", tune(0.5, 22_050), 22_050),
    ]
    assert read_all(Playlist(paths)).shape == (2, 72_000)


def test_a_loop_has_no_gap_and_no_end(tmp_path):
    frames = tune(0.1)
    path = write(tmp_path / "a.wav", frames)
    with Playlist([path], loop=True) as source:
        out = np.zeros((2, 0), np.float32)
        while out.shape[1] < 5 * len(frames):
            out = np.concatenate([out, source.read(777)], axis=1)
    expected = np.tile(frames.T, 6)[:, : out.shape[1]]
    np.testing.assert_array_equal(out, expected)


def test_folders_are_searched_and_sorted(tmp_path):
    (tmp_path / "b").mkdir()
    write(tmp_path / "b" / "2.flac", subtype="PCM_16")
    write(tmp_path / "b" / "1.wav")
    write(tmp_path / "c.ogg")
    write(tmp_path / "a.WAV", format="WAV")
    (tmp_path / "cover.jpg").write_bytes(b"\xff\xd8\xff\xe0 no audio")
    titles: list[str] = []
    source = Playlist([tmp_path])
    source.on_title(titles.append)
    read_all(source)
    assert titles == ["a", "1", "2", "c"]


def test_titles_change_exactly_with_the_sound(tmp_path):
    a, b = tune(0.1), tune(0.1)
    paths = [
        write(tmp_path / "a.wav", a),
        write(tmp_path / "b.wav", b),
        write(tmp_path / "a2.wav", a),
    ]
    changes = []
    source = Playlist(paths)
    position = 0
    source.on_title(lambda title: changes.append((title, position)))
    with source:
        assert source.title == "a"
        while count := source.read(1000).shape[1]:
            position += count
    assert changes == [("a", 0), ("b", 4800), ("a2", 9600)]


def test_tags_make_the_title(tmp_path):
    path = tmp_path / "tagged.flac"
    with soundfile.SoundFile(path, "w", RATE, 2) as file:
        file.title = "A\nSong"
        file.artist = "Somebody"
        file.write(tune())
    source = FileSource(path)
    source.open()
    assert source.title == "Somebody – A Song"
    source.close()
    assert tagged_title("", "Somebody", "stem") == "stem"
    assert tagged_title("Song", "", "stem") == "Song"


def test_a_title_of_our_own_stays(tmp_path):
    source = Playlist([write(tmp_path / "a.wav"), write(tmp_path / "b.wav")], title="My radio")
    titles: list[str] = []
    source.on_title(titles.append)
    assert source.title == "My radio"
    read_all(source)
    assert source.title == "My radio"
    assert titles == []


def order(paths, rounds=1, **options):
    """The titles that a playlist plays, as many as `rounds` of it have."""
    titles: list[str] = []
    source = Playlist(paths, loop=rounds > 1, **options)
    source.on_title(titles.append)
    with source:
        while len(titles) < rounds * len(paths) and source.read(48_000).shape[1]:
            pass
    return titles


def test_shuffling_plays_everything_once_in_the_seeds_order(tmp_path):
    paths = [write(tmp_path / f"{n}.wav", tune(0.01)) for n in range(8)]
    names = [str(n) for n in range(8)]
    first = order(paths, shuffle=True, seed=1)
    assert sorted(first) == names
    assert first != names
    assert order(paths, shuffle=True, seed=1) == first
    assert order(paths, shuffle=True, seed=2) != first
    assert order(paths) == names


@pytest.mark.parametrize("with_ffmpeg", [pytest.param(True, marks=needs_ffmpeg), False])
def test_unplayable_items_are_skipped_with_one_warning_each(
    tmp_path, caplog, monkeypatch, with_ffmpeg
):
    if not with_ffmpeg:
        monkeypatch.setattr(files_module, "ffmpeg_program", lambda: None)
    good = write(tmp_path / "good.wav", tune(0.1))
    (tmp_path / "empty.wav").touch()
    write(tmp_path / "silent.wav", tune(0))
    (tmp_path / "text.mp3").write_text("This is not audio.\n" * 1000)
    (tmp_path / "text.txt").write_text("This is not audio.\n" * 1000)
    (tmp_path / "garbage.flac").write_bytes(b"fLaC" + bytes(range(256)) * 40)
    (tmp_path / "nothing").mkdir()
    names = ["missing.wav", "empty.wav", "silent.wav", "text.mp3", "text.txt", "garbage.flac"]
    names += ["nothing", "\0.wav"]
    bad = [tmp_path / name for name in names]
    with caplog.at_level(logging.WARNING):
        out = read_all(Playlist([*bad, good, *bad, good]))
    np.testing.assert_array_equal(out, np.tile(tune(0.1).T, 2))
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2 * len(bad)
    for name in names[:-1]:
        matching = [message for message in messages if name in message]
        assert len(matching) == 2
        assert all(message.count("\n") == 0 and message.endswith(".") for message in matching)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus", "aiff"])
def test_a_truncated_file_plays_as_far_as_it_goes_with_a_warning(tmp_path, caplog, suffix):
    noise = 0.1 * np.random.default_rng(0).standard_normal((8 * RATE, 2)).astype(np.float32)
    path = damaged_copy(write(tmp_path / f"whole.{suffix}", noise), f"cut.{suffix}")
    good = write(tmp_path / "good.wav", tune(0.1))
    with caplog.at_level(logging.WARNING):
        out = read_all(Playlist([path, good]))
    assert 2.5 * RATE < out.shape[1] < 4.5 * RATE
    np.testing.assert_array_equal(out[:, -4800:], tune(0.1).T)
    (record,) = caplog.records
    assert f"cut.{suffix}" in record.getMessage()
    assert "only" in record.getMessage()


def test_a_corrupt_file_plays_up_to_the_damage_and_warns_once_in_a_loop(tmp_path, caplog):
    noise = 0.1 * np.random.default_rng(0).standard_normal((RATE, 2)).astype(np.float32)
    path = write(tmp_path / "corrupt.flac", noise, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 3000] = bytes(3000)
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING), Playlist([path], loop=True) as source:
        total = 0
        while total < 3 * RATE:
            total += source.read(4800).shape[1]
    assert len(caplog.records) == 1
    assert "it is corrupt" in caplog.text


@needs_ffmpeg
def test_a_corrupt_mp3_is_told_by_ffmpeg(tmp_path, caplog):
    noise = 0.1 * np.random.default_rng(0).standard_normal((2 * RATE, 2)).astype(np.float32)
    path = write(tmp_path / "corrupt.mp3", noise)
    data = bytearray(path.read_bytes())
    junk = np.random.default_rng(1).integers(0, 256, 5000, dtype=np.uint8).tobytes()
    data[len(data) // 2 : len(data) // 2 + 5000] = junk
    path.write_bytes(data)
    with caplog.at_level(logging.DEBUG):
        out = read_all(FileSource(path))
    assert out.shape[1] > RATE
    assert "corrupt" in caplog.text


@pytest.mark.parametrize("loop", [False, True])
def test_when_nothing_can_be_played_the_reason_is_told_at_once(tmp_path, loop):
    with pytest.raises(SourceError, match=r"^Nothing to play: '.*missing.wav' does not exist\.$"):
        Playlist([tmp_path / "missing.wav"], loop=loop).open()
    (tmp_path / "empty.wav").touch()
    with pytest.raises(SourceError, match=r"2 items failed, the last one so: '.*' is empty\.$"):
        Playlist([tmp_path / "missing.wav", tmp_path], loop=loop).open()
    with pytest.raises(SourceError, match="no files were named"):
        Playlist([], loop=loop).open()


def test_a_loop_whose_files_vanish_ends_in_an_error(tmp_path):
    path = write(tmp_path / "a.wav", tune(0.1))
    with Playlist([path], loop=True) as source:
        source.read(1920)
        path.unlink()
        for _ in range(3):
            with contextlib.suppress(SourceError):
                source.read(48_000)
        with pytest.raises(SourceError, match="does not exist"):
            source.read(48_000)


def test_unreadable_places_are_one_sentence(tmp_path, monkeypatch, caplog):
    path = write(tmp_path / "a.wav")

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(type(path), "open", refuse)
    with pytest.raises(SourceError, match=r"cannot be read: Permission denied\.$"):
        FileSource(path).open()
    monkeypatch.undo()

    def walk(folder, onerror):
        onerror(PermissionError(13, "Permission denied", str(folder)))
        return iter(())

    monkeypatch.setattr(os, "walk", walk)
    with pytest.raises(SourceError, match="Nothing to play"):
        Playlist([tmp_path]).open()


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(SourceError, match="is a folder"):
        files_module.open_file(tmp_path, threading.Event())


def test_stopping_ends_the_stream(tmp_path):
    with Playlist([write(tmp_path / "a.wav")], loop=True) as source:
        assert source.read(100).shape[1] == 100
        source.stop()
        for _ in range(1000):
            if source.read(1920).shape[1] == 0:
                break
        assert source.read(1920).shape == (2, 0)
        source.close()
        source.close()


def test_a_stopped_playlist_opens_nothing(tmp_path):
    source = Playlist([write(tmp_path / "a.wav")])
    source.stop()
    source.open()
    assert source.read(10).shape == (2, 0)
    assert source._next_reader() is None


def test_reads_must_ask_for_something(tmp_path):
    with pytest.raises(ValueError, match="at least 1"):
        FileSource(write(tmp_path / "a.wav")).read(0)


def pipe_with(data):
    """A descriptor from which `data` comes as from a program at the other end."""
    reading, writing = os.pipe()

    def feed():
        with os.fdopen(writing, "wb") as file, contextlib.suppress(BrokenPipeError):
            file.write(data)

    threading.Thread(target=feed, daemon=True).start()
    return reading


def wav_bytes(seconds=0.5):
    file = io.BytesIO()
    soundfile.write(file, tune(seconds), RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


@pytest.mark.parametrize("with_ffmpeg", [pytest.param(True, marks=needs_ffmpeg), False])
def test_wav_comes_in_through_a_pipe(monkeypatch, with_ffmpeg):
    if not with_ffmpeg:
        monkeypatch.setattr(stdin_module, "ffmpeg_program", lambda: None)
    source = StdinSource(descriptor=pipe_with(wav_bytes()))
    np.testing.assert_array_equal(read_all(source), tune().T)
    assert source.title == "standard input"


@needs_ffmpeg
def test_any_format_comes_in_through_a_pipe_with_ffmpeg(tmp_path):
    path = write(tmp_path / "a.flac", tune(0.5, 44_100), 44_100)
    out = read_all(StdinSource(descriptor=pipe_with(path.read_bytes()), title="Live"))
    assert abs(out.shape[1] - RATE // 2) < 100


@pytest.mark.usefixtures("no_ffmpeg")
def test_without_ffmpeg_a_redirected_file_of_any_known_format_works(tmp_path):
    path = write(tmp_path / "a.flac")
    with path.open("rb") as file:
        assert read_all(StdinSource(descriptor=file.fileno())).shape[1] == RATE // 2


@pytest.mark.usefixtures("no_ffmpeg")
def test_without_ffmpeg_other_input_is_refused_with_advice(tmp_path):
    with pytest.raises(SourceError, match="without ffmpeg a pipe must carry WAV"):
        StdinSource(descriptor=pipe_with(b"no audio" * 10_000)).open()
    path = tmp_path / "text"
    path.write_text("no audio")
    with path.open("rb") as file, pytest.raises(SourceError, match="install ffmpeg"):
        StdinSource(descriptor=file.fileno()).open()


@needs_ffmpeg
@pytest.mark.parametrize("data", [b"", b"no audio" * 10_000])
def test_nothing_playable_on_standard_input_is_an_error(data):
    with pytest.raises(SourceError, match=r"^Standard input is not audio that can be decoded\.$"):
        StdinSource(descriptor=pipe_with(data)).open()


def test_bare_samples_come_in_whatever_the_pieces():
    frames = tune()
    as_float = StdinSource(RawFormat("f32"), descriptor=pipe_with(frames.tobytes() + b"odd"))
    np.testing.assert_array_equal(read_all(as_float), frames.T)
    ints = (frames[:, 0] * 32768).astype("<i2")
    as_ints = StdinSource(
        RawFormat("s16", 48_000, 1), descriptor=pipe_with(b"".join([ints.tobytes()]))
    )
    np.testing.assert_array_equal(read_all(as_ints)[1], ints / np.float32(32768))


def test_bare_samples_arrive_while_the_pipe_stays_open():
    reading, writing = os.pipe()
    os.write(writing, bytes(5))
    source = StdinSource(RawFormat("f32"), descriptor=reading)
    threading.Timer(0.3, os.write, (writing, bytes(11))).start()
    with source:
        assert source.read(100).shape[1] == 2
        threading.Timer(0.3, source.stop).start()
        assert source.read(100).shape[1] == 0
    os.close(writing)
    os.close(reading)


@needs_ffmpeg
def test_stopping_interrupts_a_wait_for_ffmpeg():
    reading, writing = os.pipe()
    feeder = threading.Thread(target=os.write, args=(writing, wav_bytes(3.0)[:600_000]))
    feeder.start()
    with StdinSource(descriptor=reading) as source:
        threading.Timer(0.5, source.stop).start()
        while source.read(48_000).shape[1]:
            pass
    os.close(writing)
    os.close(reading)
    feeder.join()


@needs_ffmpeg
def test_stopping_interrupts_ffmpeg_in_its_search_for_audio():
    reading, writing = os.pipe()
    os.write(writing, wav_bytes()[:1000])
    source = StdinSource(descriptor=reading)
    threading.Timer(0.5, source.stop).start()
    with source:
        assert source.read(100).shape[1] == 0
    os.close(writing)
    os.close(reading)


def test_stopping_interrupts_a_wait_for_the_first_input():
    reading, writing = os.pipe()
    source = StdinSource(descriptor=reading)
    threading.Timer(0.3, source.stop).start()
    with source:
        assert source.read(100).shape[1] == 0
    os.close(writing)
    os.close(reading)


def test_a_terminal_is_no_source(monkeypatch):
    leader, follower = os.openpty()
    with pytest.raises(SourceError, match="is a terminal"):
        StdinSource(descriptor=follower).open()
    os.close(leader)
    os.close(follower)


def test_standard_input_is_the_default(monkeypatch):
    reading = pipe_with(wav_bytes())
    with os.fdopen(reading, "rb") as file:
        monkeypatch.setattr("sys.stdin", file)
        assert read_all(StdinSource()).shape[1] == RATE // 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("f32", RawFormat("f32", 48_000, 2)),
        ("f32le", RawFormat("f32", 48_000, 2)),
        ("s16:44100", RawFormat("s16", 44_100, 2)),
        ("s16le:44100:1", RawFormat("s16", 44_100, 1)),
    ],
)
def test_sample_formats_are_understood(text, expected):
    assert RawFormat.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "u8", "s16:fast", "s16:44100:0", "s16:44100:99", "s16:5", "s16:1:2:3", "s16:"]
)
def test_other_sample_formats_are_refused(text):
    with pytest.raises(SettingsError, match="is not a sample format"):
        RawFormat.parse(text)


@needs_ffmpeg
def test_ffmpeg_troubles_are_contained(tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SourceError, match="not installed"):
        ffmpeg_module.FfmpegReader(path, "a", threading.Event())
    monkeypatch.setattr(ffmpeg_module, "ffmpeg_program", lambda: "/nowhere/ffmpeg")
    with pytest.raises(SourceError, match="does not start"):
        ffmpeg_module.FfmpegReader(path, "a", threading.Event())
    monkeypatch.undo()
    reader = ffmpeg_module.FfmpegReader(path, "a", threading.Event())

    def wait(timeout):
        raise subprocess.TimeoutExpired("ffmpeg", timeout)

    monkeypatch.setattr(reader._process, "wait", wait)
    while reader.read(4800).shape[1]:
        pass
    assert reader.damage is None
    monkeypatch.undo()
    reader.close()
    reader.close()
    assert reader.read(10).shape[1] == 0
