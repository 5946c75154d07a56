"""Sinks: what is written is what is heard, filed or piped, and faults are one sentence."""

import errno
import io
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.audio.sinks import FileSink, RawSink, SoundCardSink
from streaming.audio.sinks import soundcard as soundcard_module
from streaming.audio.sinks import wav as wav_module
from streaming.audio.sinks.player import FADE_S, Player
from streaming.audio.sinks.wav import WavWriter
from streaming.errors import DeviceError, SettingsError, SinkClosed, SinkError
from tests import ROOT
from tests.support.fake_sounddevice import install

RATE = 48_000
FADE = round(FADE_S * RATE)


def tone(samples, level=0.5):
    t = np.arange(samples) / RATE
    return (level * np.stack([np.sin(440 * 6.28 * t), np.cos(330 * 6.28 * t)])).astype(np.float32)


def write_in_blocks(sink, signal, size):
    for start in range(0, signal.shape[1], size):
        sink.write(signal[:, start : start + size])


# Files


@pytest.mark.parametrize("suffix", ["wav", "flac", "WAV"])
@pytest.mark.parametrize("size", [7, 1920, 30_000])
def test_lossless_files_hold_every_sample(tmp_path, suffix, size):
    signal = tone(30_000 if size > 7 else 1000)
    with FileSink(tmp_path / f"out.{suffix}") as sink:
        write_in_blocks(sink, signal, size)
        sink.drain()
        assert sink.samples == signal.shape[1]
    read, rate = soundfile.read(tmp_path / f"out.{suffix}")
    assert rate == RATE
    assert np.abs(read.T * 32768 / 32767 - signal).max() <= 0.51 / 32767


@pytest.mark.parametrize("suffix", ["ogg", "opus"])
def test_lossy_files_hold_the_sound(tmp_path, suffix):
    signal = tone(2 * RATE)
    with FileSink(tmp_path / f"out.{suffix}") as sink:
        sink.write(signal)
    read, _ = soundfile.read(tmp_path / f"out.{suffix}")
    assert read.shape == (2 * RATE, 2)
    assert np.corrcoef(read[4800:-4800, 0], signal[0, 4800:-4800])[0, 1] > 0.99


def test_loud_and_broken_samples_are_clipped_and_never_wrapped(tmp_path):
    with FileSink(tmp_path / "out.wav") as sink:
        sink.write(np.array([[2.0, -2.0, np.nan, np.inf], [1.0, -1.0, 0.0, 1e9]], np.float32))
    read, _ = soundfile.read(tmp_path / "out.wav", dtype="int16")
    assert read.tolist() == [[32767, 32767], [-32767, -32767], [0, 0], [0, 32767]]


def test_a_wav_is_valid_while_it_is_written(tmp_path):
    sink = FileSink(tmp_path / "out.wav")
    for seconds in range(1, 4):
        sink.write(tone(RATE))
        assert soundfile.info(tmp_path / "out.wav").frames == seconds * RATE
    sink.write(tone(100))
    sink.close()
    assert soundfile.info(tmp_path / "out.wav").frames == 3 * RATE + 100


def test_a_recording_beyond_the_limit_of_wav_becomes_rf64(tmp_path, monkeypatch):
    monkeypatch.setattr(wav_module, "_SIZE_LIMIT", 100_000)
    monkeypatch.setattr(
        wav_module, "_HEADER", CappedStruct(wav_module._HEADER.format, limit=100_000)
    )
    with FileSink(tmp_path / "out.wav") as sink:
        sink.write(tone(RATE))
        sink.write(tone(RATE))
    data = (tmp_path / "out.wav").read_bytes()
    assert data[:4] == b"RF64"
    read, _ = soundfile.read(tmp_path / "out.wav")
    assert read.shape == (2 * RATE, 2)


class CappedStruct(struct.Struct):
    """Writes the mark for "see ds64" where a test's lower limit stands."""

    def __init__(self, layout, limit):
        super().__init__(layout)
        self.limit = limit

    def pack(self, *values):
        return super().pack(*(0xFFFF_FFFF if value == self.limit else value for value in values))


def test_nothing_is_touched_before_there_is_sound(tmp_path):
    path = tmp_path / "out.wav"
    path.write_bytes(b"precious")
    with FileSink(path, overwrite=True):
        pass
    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus"])
def test_a_file_that_is_there_is_written_over_only_where_that_is_asked_for(tmp_path, suffix):
    path = tmp_path / f"out.{suffix}"
    path.write_bytes(b"precious" * 100_000)
    with pytest.raises(SinkError, match=f"out.{suffix}' is there already; .* give --overwrite"):
        FileSink(path)
    assert path.read_bytes() == b"precious" * 100_000
    with FileSink(path, overwrite=True) as sink:
        sink.write(tone(RATE))
    assert soundfile.info(path).frames == RATE


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_two_programs_never_write_into_one_file(tmp_path, suffix, overwrite):
    path = tmp_path / f"out.{suffix}"
    first, second = (FileSink(path, overwrite=overwrite) for _ in range(2))
    first.write(tone(1000))
    told = "Another program writes to" if overwrite else "is there already"
    with pytest.raises(SinkError, match=told):
        second.write(tone(1000))
    second.close()
    with pytest.raises(SinkError, match=told):  # who comes later is told before there is sound
        FileSink(path, overwrite=overwrite)
    first.write(tone(RATE))
    first.close()
    assert soundfile.info(path).frames == RATE + 1000
    with FileSink(path, overwrite=True) as third:  # the lock has gone with its holder
        third.write(tone(1000))
    assert soundfile.info(path).frames == 1000


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("out", "no suffix of a known audio file; use one of .wav, .flac, .ogg, .opus"),
        ("out.mp7", "no suffix of a known audio file"),
        ("nowhere/out.wav", "there is no such folder"),
        ("file/out.wav", "there is no such folder"),
        ("folder.wav", "it is a folder"),
    ],
)
def test_places_that_cannot_be_written_are_told_at_once(tmp_path, name, sentence):
    (tmp_path / "file").touch()
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(SinkError, match=sentence):
        FileSink(tmp_path / name)


def test_a_file_that_may_not_be_written_is_told_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(SinkError, match=r"permission denied\.$"):
        FileSink(tmp_path / "out.wav")


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_a_full_disk_is_one_sentence(tmp_path, suffix):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    path = tmp_path / f"out.{suffix}"
    path.symlink_to("/dev/full")
    sink = FileSink(path)
    sentence = r"^'.*' cannot be written: .+\.$"
    with pytest.raises(SinkError, match=sentence):  # noqa: PT012 (some encoders notice late)
        for _ in range(100):
            sink.write(np.random.default_rng(0).uniform(-1, 1, (2, 4800)).astype(np.float32))
        sink.close()
    try:
        sink.close()
    except SinkError:
        sink.close()


def test_a_failure_to_create_is_one_sentence(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(soundfile, "SoundFile", refuse)
    with pytest.raises(SinkError, match=r"Permission denied\.$"):
        FileSink(tmp_path / "out.flac").write(tone(10))


def test_a_wav_that_cannot_be_finished_is_one_sentence(tmp_path, monkeypatch):
    sink = FileSink(tmp_path / "out.wav")
    sink.write(tone(10))

    def refuse(self):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(WavWriter, "_mark", refuse)
    with pytest.raises(SinkError, match=r"No space left on device\.$"):
        sink.close()


def test_writing_after_closing_is_a_mistake_of_the_caller(tmp_path):
    sink = FileSink(tmp_path / "out.wav")
    sink.close()
    with pytest.raises(ValueError, match="after close"):
        sink.write(tone(10))


# Pipes


def test_bare_samples_are_interleaved_little_endian_floats():
    stream = io.BytesIO()
    signal = tone(5000)
    with RawSink(stream) as sink:
        write_in_blocks(sink, signal, 777)
        sink.drain()
        assert sink.samples == 5000
    np.testing.assert_array_equal(np.frombuffer(stream.getvalue(), "<f4").reshape(-1, 2).T, signal)


def test_a_reader_that_goes_away_ends_the_sink_quietly():
    code = (
        "import numpy as np\n"
        "from streaming.audio.sinks import RawSink\n"
        "from streaming.errors import SinkClosed\n"
        "with RawSink() as sink:\n"
        "    try:\n"
        "        while True: sink.write(np.zeros((2, 4800), np.float32))\n"
        "    except SinkClosed: pass\n"
        "    try: sink.write(np.zeros((2, 1), np.float32))\n"
        "    except SinkClosed: raise SystemExit(7)\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1000)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 7


class FailingStream(io.BytesIO):
    """A stream that fails at writing or flushing, on a descriptor of its own."""

    def __init__(self, descriptor, error):
        super().__init__()
        self.descriptor = descriptor
        self.error = error

    def fileno(self):
        return self.descriptor

    def flush(self):
        if not self.closed and self.error is not None:
            raise self.error


@pytest.mark.parametrize("moment", ["write", "close"])
@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(errno.ENOSPC, "No space left")])
def test_faults_of_a_pipe(tmp_path, moment, error):
    with (tmp_path / "out").open("wb") as file:
        stream = FailingStream(file.fileno(), error)
        sink = RawSink(stream)
        quiet = isinstance(error, BrokenPipeError)
        if moment == "write":
            with pytest.raises(SinkClosed if quiet else SinkError):
                sink.write(tone(10))
        elif quiet:
            sink.close()
        else:
            with pytest.raises(SinkError, match=r"cannot be written: No space left\.$"):
                sink.close()
        sink.close()
        with pytest.raises(SinkClosed):
            sink.write(tone(10))
        stream.error = None


def test_samples_are_not_poured_onto_a_terminal():
    leader, follower = os.openpty()
    with (
        os.fdopen(follower, "wb", buffering=0) as stream,
        pytest.raises(SinkError, match="terminal"),
    ):
        RawSink(stream)
    os.close(leader)


# The sound card's arithmetic


def play(player, samples, block=480):
    out = np.full((2, samples), np.nan, np.float32)
    for start in range(0, samples, block):
        player.fill(out[:, start : start + block])
    return out


def largest_step(signal):
    return np.abs(np.diff(signal, axis=1)).max()


def test_sound_starts_when_enough_is_there_and_is_played_to_the_end():
    player = Player(RATE, prefill_s=0.1)
    signal = tone(RATE // 2)
    player.write(signal[:, :4800])
    assert not play(player, 960).any()  # the prefill and the reserve are not there yet
    player.write(signal[:, 4800:])
    assert player.buffered == RATE // 2
    player.finish()
    out = play(player, RATE)
    np.testing.assert_array_equal(out[:, FADE : RATE // 2 - FADE], signal[:, FADE:-FADE])
    assert not out[:, RATE // 2 :].any()
    assert (player.buffered, player.underruns, player.silent) == (0, 0, True)


@pytest.mark.parametrize("block", [32, 480, 1024, 20_000])
def test_running_out_fades_without_a_click_and_loses_nothing(block):
    player = Player(RATE, prefill_s=0.01)
    signal = np.ones((2, RATE), np.float32)  # a step would be the loudest click
    pieces = []
    for start in range(0, RATE, RATE // 4):
        player.write(signal[:, start : start + RATE // 4])
        pieces.append(play(player, RATE // 2, block))
    out = np.concatenate(pieces, axis=1)
    assert player.underruns == 4
    assert largest_step(out) < 2 * np.pi / 2 / FADE
    # Every sample was played, those in the fades at half level on average.
    assert out[0].sum() == pytest.approx(RATE - 4 * FADE, abs=8)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 3000)), max_size=40), st.integers(1, 700))
def test_no_pattern_of_writes_and_blocks_clicks(steps, block):
    player = Player(RATE, capacity_s=0.1, prefill_s=0.005)
    pieces, written = [np.zeros((2, 1), np.float32)], 0
    for writing, size in steps:
        if writing:
            written += player.write(np.ones((2, size), np.float32))
        else:
            pieces.append(play(player, size, block))
    player.finish()
    pieces.append(play(player, 10_000, block))
    out = np.concatenate(pieces, axis=1)
    assert largest_step(out) < 4 / FADE
    assert player.buffered == 0
    assert out.sum() <= 2 * written + 1e-3


def test_finishing_is_no_underrun_and_writing_again_goes_on():
    player = Player(RATE, prefill_s=0.01)
    for _ in range(2):
        player.write(tone(9600))
        player.finish()
        assert play(player, 12_000).any()
    player.write(tone(FADE))  # too short to fade in and out: not worth a sound
    player.finish()
    assert not play(player, 480).any()
    assert player.buffered == 0
    assert player.underruns == 0


def test_cutting_fades_out_at_once():
    player = Player(RATE, prefill_s=0.01)
    player.write(np.ones((2, RATE), np.float32))
    before = play(player, 4800)
    player.cut()
    after = play(player, 4800)
    assert largest_step(np.concatenate([before, after], axis=1)) < 4 / FADE
    assert not after[:, FADE:].any()
    assert play(player, 480).any() == 0
    assert player.buffered == 0
    assert player.underruns == 0


def test_what_does_not_fit_is_left_to_the_caller():
    player = Player(RATE, capacity_s=0.1)
    assert player.free == 4800
    assert player.write(tone(6000)) == 4800
    assert player.free == 0


def test_what_was_written_can_be_let_go_with_a_fade_and_what_follows_plays():
    player = Player(RATE, prefill_s=0.01)
    out = np.zeros((2, 480), np.float32)
    player.drop()  # nothing is there yet
    player.write(np.full((2, 4800), 0.5, np.float32))
    player.fill(out)
    player.drop()
    player.write(np.full((2, 4800), -0.5, np.float32))
    heard = [out.copy()]
    for _ in range(9):
        player.fill(out)
        heard.append(out.copy())
    sound = np.concatenate(heard, axis=1)
    assert (sound[:, FADE:480] == 0.5).all()
    falling = np.flatnonzero(sound[0, 480:] <= 0)[0]
    assert falling <= FADE
    assert (sound[:, 480 + FADE : 960] == 0).all()
    assert (sound[:, 960 + FADE :] == -0.5).all()
    assert np.abs(np.diff(sound)).max() < 2 * np.pi / FADE
    assert player.underruns == 0


def test_a_tiny_buffer_still_plays():
    player = Player(RATE, capacity_s=0.0, prefill_s=1.0)
    player.write(np.ones((2, player.free), np.float32))
    assert play(player, 480).any()


@pytest.mark.parametrize("block", [32, 480])
def test_volume_changes_are_smooth(block):
    player = Player(RATE, prefill_s=0.01, volume=0.5)
    player.write(np.full((2, RATE), 0.8, np.float32))
    out = [play(player, 4800, block)]
    player.volume = 1.0
    out.append(play(player, 4800, block))
    player.volume = 4.0
    out.append(play(player, 4800, block))
    player.volume = 0.0
    out.append(play(player, 4800, block))
    assert out[0][0, -1] == pytest.approx(0.4, abs=1e-3)
    assert out[1][0, -1] == pytest.approx(0.8, abs=1e-3)
    assert out[2][0, -1] == 1.0  # clipped, not wrapped
    assert out[3][0, -1] == pytest.approx(0.0, abs=1e-3)
    assert largest_step(np.concatenate(out, axis=1)) < 0.15


# The sound card's sink on a stand-in for a device


@pytest.fixture
def fake(monkeypatch):
    return install(monkeypatch)


class Turning:
    """Runs a fake stream's callback in a thread, as a device does."""

    def __init__(self, stream, block=480):
        self.stream = stream
        self.block = block
        self.heard = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._end.wait(0.001):
            if self.stream.active:
                self.heard.append(self.stream.play(self.block))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._end.set()
        self._thread.join()


def heard_sound(turning):
    """What was heard from the first sound to the last."""
    heard = np.concatenate(turning.heard, axis=1)
    (sounding,) = np.nonzero(np.abs(heard).max(axis=0))
    return heard[:, sounding[0] : sounding[-1] + 1]


def test_the_device_plays_what_was_written(fake):
    signal = np.full((2, RATE), 0.5, np.float32)
    with SoundCardSink(buffer_s=0.2) as sink:
        assert sink.paces
        (stream,) = fake.streams
        assert stream.settings["device"] == 1
        assert stream.settings["samplerate"] == RATE
        with Turning(stream) as turning:
            write_in_blocks(sink, signal, 1920)
            assert sink.free_samples >= 0
            sink.drain()
            assert sink.latency_s == pytest.approx(0.02)
            assert sink.buffered_samples == 960
            sink.close()
    assert stream.closed
    assert not stream.aborted
    assert sink.latency_s == 0
    heard = heard_sound(turning)
    assert abs(heard.shape[1] - RATE) <= 2
    # It has passed a resampler, which rings a little where the sound begins and ends.
    assert np.abs(heard[:, FADE:-FADE] - 0.5).max() < 5e-3
    assert np.abs(heard[:, 1000:-1000] - 0.5).max() < 1e-3
    with pytest.raises(ValueError, match="after close"):
        sink.write(signal)
    sink.close()


def test_closing_fades_out_what_is_playing(fake):
    sink = SoundCardSink()
    with Turning(fake.streams[0]) as turning:
        sink.write(np.full((2, 2 * RATE), 0.5, np.float32))
        while not turning.heard or not turning.heard[-1].any():
            pass
        sink.close()
    assert largest_step(np.pad(heard_sound(turning), ((0, 0), (1, 1)))) < 4 / FADE


def test_a_device_at_another_rate_gets_resampled_sound(fake):
    fake.rates = {44_100}
    with SoundCardSink("front", prefill_s=0.01) as sink:
        assert sink.rate == 44_100
        with Turning(fake.streams[0]) as turning:
            sink.write(np.full((2, RATE), 0.5, np.float32))
            sink.drain()
            assert sink.free_samples == pytest.approx(4 * RATE, abs=2)
    assert abs(heard_sound(turning).shape[1] - 44_100) < 5


def test_a_device_with_one_channel_gets_both(fake):
    with SoundCardSink("Headset", prefill_s=0.0) as sink:
        sink.write(np.stack([np.full(RATE, 0.6), np.zeros(RATE)]).astype(np.float32))
        out = fake.streams[0].play(4800)
    assert out.shape == (1, 4800)
    assert out[0, -1] == pytest.approx(0.3, rel=1e-3)


def test_a_faster_speed_uses_sound_up_sooner(fake):
    with SoundCardSink(prefill_s=0.01) as sink, Turning(fake.streams[0]) as turning:
        sink.speed = 1.01
        write_in_blocks(sink, np.full((2, RATE), 0.5, np.float32), 1920)
        sink.drain()
    assert heard_sound(turning).shape[1] == pytest.approx(RATE / 1.01, abs=100)


def test_a_callback_that_comes_too_late_is_an_underrun_while_sound_plays(fake):
    with SoundCardSink(prefill_s=0.01) as sink:
        stream = fake.streams[0]
        stream.play(480, underflow=True)
        assert sink.underruns == 0  # nothing was playing yet
        sink.write(tone(9600))
        stream.play(480)
        stream.play(480, underflow=True)
        assert sink.underruns == 1


def test_volume_and_underruns_are_the_players(fake):
    with SoundCardSink(volume=0.5, prefill_s=0.0) as sink:
        assert sink.volume == 0.5
        sink.volume = 1.0
        sink.write(tone(4800))
        fake.streams[0].play(9600)
        assert sink.underruns == 1
        with pytest.raises(SettingsError, match="between 0 and 4, not -1"):
            sink.volume = -1
    with pytest.raises(SettingsError, match="volume"):
        SoundCardSink(volume=float("nan"))


def test_a_device_that_is_lost_is_waited_for_and_what_it_held_is_played(fake, monkeypatch, caplog):
    monkeypatch.setattr(soundcard_module, "_RETRY_S", 0.01)
    caplog.set_level("INFO")
    signal = np.full((2, RATE), 0.5, np.float32)
    sink = SoundCardSink(buffer_s=0.2, prefill_s=0.01)
    with Turning(fake.streams[0]) as before:
        write_in_blocks(sink, signal[:, : RATE // 2], 1920)
    fake.streams[0].active = False
    fake.open_error = "Device unavailable"
    writing = threading.Thread(target=write_in_blocks, args=(sink, signal[:, RATE // 2 :], 1920))
    writing.start()
    while not sink.losses:
        pass
    fake.open_error = ""
    while len(fake.streams) < 2:
        pass
    with Turning(fake.streams[1]) as after:
        writing.join()
        sink.drain()
        sink.close()
    heard = heard_sound(before).shape[1] + heard_sound(after).shape[1]
    assert RATE - 1000 < heard < RATE + 1000
    assert largest_step(heard_sound(after)[:, :480]) < 4 / FADE
    assert sink.losses == 1
    assert [record.getMessage() for record in caplog.records] == [
        "The sound output 'Speakers (front)' has stopped; waiting for it.",
        "The sound output 'Speakers (front)' is back.",
    ]


def test_a_device_may_come_back_at_another_rate(fake, monkeypatch):
    monkeypatch.setattr(soundcard_module, "_RETRY_S", 0.01)
    sink = SoundCardSink(buffer_s=0.1, prefill_s=0.01)
    fake.streams[0].active = False
    fake.rates = {44_100}
    writing = threading.Thread(target=sink.write, args=(tone(RATE // 2),))
    writing.start()
    while len(fake.streams) < 2:
        pass
    with Turning(fake.streams[1]):
        writing.join()
        assert sink.rate == 44_100
        sink.close()


def test_who_ends_does_not_wait_for_a_device_that_is_lost(fake, monkeypatch):
    monkeypatch.setattr(soundcard_module, "_STALL_S", 0.05)
    sink = SoundCardSink(buffer_s=0.1)
    sink.write(tone(4000))
    with pytest.raises(SinkError, match=r"'Speakers .front.' has stopped playing"):
        sink.drain()
    fake.open_error = "Device unavailable"
    sink.interrupt()
    with pytest.raises(SinkError, match="has stopped playing"):
        sink.write(tone(RATE))
    sink.close()


def test_a_callback_never_raises_and_plays_silence_instead(fake, monkeypatch):
    def fail(out):
        raise RuntimeError("bug")

    with SoundCardSink() as sink:
        monkeypatch.setattr(sink._player, "fill", fail)
        assert not fake.streams[0].play(480).any()
        assert sink.faults == 1
        monkeypatch.undo()


def test_a_mono_block_longer_than_any_is_played_in_parts(fake, monkeypatch):
    monkeypatch.setattr(soundcard_module, "_MAX_MONO_BLOCK", 1000)
    with SoundCardSink("Headset", prefill_s=0.0) as sink:
        sink.write(np.full((2, RATE), 0.5, np.float32))
        out = fake.streams[0].play(4800)
    assert out[0, 1000:] == pytest.approx(0.5, abs=2e-3)
    assert sink.faults == 0


def test_a_device_that_stands_still_is_not_waited_for(fake):
    """PortAudio's own stop waits until everything was played, which may be never."""
    sink = SoundCardSink()
    sink.write(tone(4800))
    fake.streams[0].play(480)
    sink.close()
    assert fake.streams[0].aborted
    assert fake.streams[0].closed


def test_an_output_that_does_not_open_is_one_sentence(fake):
    fake.open_error = "Device unavailable"
    with pytest.raises(DeviceError, match=r"^The sound output 'Spea.* used: Device unavailable\.$"):
        SoundCardSink()
