"""`python -m codec encode | decode | info`: to the sample, whole or not at all."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codec.errors import WeightsError
from streaming.audio.level import limit
from streaming.audio.sinks import FileSink
from streaming.cli.muc import main
from streaming.errors import SinkError, SourceError
from streaming.files.atomic import written_whole
from streaming.files.batch import Job, pair_files
from streaming.files.convert import encode_file
from streaming.files.muc import MucEncoder, MucMuxer, MucReader, StreamHeader
from streaming.support.progress import ProgressBar
from streaming.support.status_line import StatusLine
from streaming.wire.messages import Gap, Title, Tokens
from tests import ROOT
from tests.support.fake_codec import FakeCodec, load_fake, load_none


@pytest.fixture(autouse=True)
def _keep_logging():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def run(*arguments, load_codec=load_fake):
    return main([*map(str, arguments)], load_codec)


def song(path, samples=100_000, rate=48_000, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = np.random.default_rng(seed).uniform(-0.5, 0.5, (samples, 2)).astype(np.float32)
    soundfile.write(path, sound, rate, subtype="FLOAT" if path.suffix == ".wav" else None)
    return limit(np.ascontiguousarray(sound.T))


def tokens_of(path):
    return np.concatenate([i.tokens for i in MucReader(path).items() if isinstance(i, Tokens)])


@pytest.mark.parametrize("samples", [1, 1919, 1920, 1921, 100_000])
def test_music_comes_back_as_long_as_it_was_with_the_tokens_of_a_live_stream(tmp_path, samples):
    sound = song(tmp_path / "a.wav", samples)
    assert run("encode", tmp_path / "a.wav", tmp_path / "a.muc", "--seed", "3") == 0
    info = MucReader(tmp_path / "a.muc").describe()
    assert info.header == StreamHeader("fake", "fake-1", FakeCodec.digest, 3)
    assert (info.samples, info.complete, info.titles) == (samples, True, [Title("a", 0)])
    codec = FakeCodec()
    tokens = codec.sound2code(sound)
    assert np.array_equal(tokens_of(tmp_path / "a.muc"), tokens)
    assert run("decode", tmp_path / "a.muc", tmp_path / "b.wav") == 0
    heard, rate = soundfile.read(tmp_path / "b.wav", dtype="float32", always_2d=True)
    assert (len(heard), rate) == (samples, 48_000)
    expected = codec.code2sound(tokens, seed=3)[:, :samples].clip(-1, 1)
    assert np.abs(heard.T - expected).max() < 1e-4


def test_another_rate_is_as_long_in_seconds(tmp_path):
    song(tmp_path / "a.flac", 44_100, 44_100)
    assert run("encode", tmp_path / "a.flac", tmp_path / "a.muc") == 0
    assert MucReader(tmp_path / "a.muc").describe().samples == 48_000


def test_decoding_takes_seed_and_settings(tmp_path):
    song(tmp_path / "a.wav")
    run("encode", tmp_path / "a.wav", tmp_path / "a.muc")
    sounds = []
    for more in (
        (),
        ("--seed", "9"),
        ("--temperature", "0"),
        ("--seed", "9", "--temperature", "0"),
    ):
        assert run("decode", tmp_path / "a.muc", tmp_path / "b.wav", *more) == 0
        sounds.append(soundfile.read(tmp_path / "b.wav")[0])
    assert not np.array_equal(sounds[0], sounds[1])
    assert np.array_equal(sounds[2], sounds[3])


def test_a_damaged_file_keeps_its_time_and_a_cut_one_ends_early(tmp_path, capsys):
    song(tmp_path / "a.wav", 600 * 1920)
    run("encode", tmp_path / "a.wav", tmp_path / "a.muc")
    run("decode", tmp_path / "a.muc", tmp_path / "whole.wav")
    whole = soundfile.read(tmp_path / "whole.wav")[0]
    data = bytearray((tmp_path / "a.muc").read_bytes())
    middle = len(data) - 300  # in the second record of tokens
    data[middle] ^= 1
    (tmp_path / "damaged.muc").write_bytes(data)
    capsys.readouterr()
    assert run("decode", tmp_path / "damaged.muc", tmp_path / "damaged.wav") == 0
    assert "256 tokens are damaged or missing" in capsys.readouterr().err
    damaged = soundfile.read(tmp_path / "damaged.wav")[0]
    assert len(damaged) == len(whole)
    before = 240 * 1920
    assert np.array_equal(damaged[:before], whole[:before])
    assert np.abs(damaged[300 * 1920 : 500 * 1920]).max() == 0  # one second on, then silence
    assert np.abs(damaged[530 * 1920 :]).max() > 0
    (tmp_path / "cut.muc").write_bytes(bytes(data)[:middle])
    assert run("decode", tmp_path / "cut.muc", tmp_path / "cut.wav") == 0
    cut = soundfile.read(tmp_path / "cut.wav")[0]
    assert len(cut) == 256 * 1920
    assert np.array_equal(cut[:before], whole[:before])


def test_a_stream_that_begins_inside_a_latent_frame_keeps_its_length(tmp_path):
    class Pairs(FakeCodec):
        latent_tokens = 2

        def decode_window(self, tokens, **options):
            return super().decode_window(tokens[::2], **options)

        def render(self, latents, *, first_token, seed):
            double = latents.repeat(2, axis=0)
            return super().render(double, first_token=first_token, seed=seed)

    header = StreamHeader("fake", "fake-1", FakeCodec.digest, first_token=11)
    encoder = MucEncoder(header)
    tokens = np.random.default_rng(0).integers(0, 16_384, 30)
    data = encoder.tokens(tokens) + encoder.finish(30 * 1920 - 100)
    (tmp_path / "a.muc").write_bytes(data)
    assert (
        run("decode", tmp_path / "a.muc", tmp_path / "a.wav", load_codec=lambda n, **o: Pairs())
        == 0
    )
    heard = soundfile.read(tmp_path / "a.wav")[0]
    assert len(heard) == 30 * 1920 - 100
    assert np.abs(heard[:1920]).max() == 0


@pytest.mark.parametrize("jobs", [1, 2])
def test_folders_become_folders_and_what_fails_keeps_nothing_else_from_it(tmp_path, capsys, jobs):
    music = tmp_path / "music"
    for n, name in enumerate(["a.wav", "b/c.flac", "b/c.wav"]):
        song(music / name, 20_000 + n)
    (music / "bad.ogg").write_bytes(b"nothing")
    assert run("encode", music, tmp_path / "out", "--jobs", jobs) == 2
    assert "1 of 4 files failed" in capsys.readouterr().err.splitlines()[-1]
    made = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")}
    assert made == {"a.muc", "b/c.flac.muc", "b/c.wav.muc"}
    assert MucReader(tmp_path / "out/b/c.wav.muc").describe().samples == 20_002
    command = ("decode", tmp_path / "out", tmp_path / "back", "--jobs", jobs, "--format", "flac")
    assert run(*command) == 0
    assert "in 3 files" in capsys.readouterr().err
    assert soundfile.info(tmp_path / "back/b/c.flac.flac").frames == 20_001


def test_one_file_into_a_folder(tmp_path):
    song(tmp_path / "a.wav", 5000)
    (tmp_path / "out").mkdir()
    assert run("encode", tmp_path / "a.wav", tmp_path / "out") == 0
    assert run("decode", tmp_path / "out/a.muc", tmp_path / "out") == 0
    assert soundfile.info(tmp_path / "out/a.wav").frames == 5000


def test_what_fails_midway_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, capsys):
    song(tmp_path / "a.wav")
    for name in ("a.muc", "b.wav"):
        (tmp_path / name).write_bytes(b"old")

    class Failing(FakeCodec):
        def encode_window(self, audio, window, *, first_token):
            raise WeightsError("the weights melted")

    assert (
        run("encode", tmp_path / "a.wav", tmp_path / "a.muc", load_codec=lambda n, **o: Failing())
        == 2
    )
    assert capsys.readouterr().err.splitlines()[-1] == "codec: the weights melted"
    assert (tmp_path / "a.muc").read_bytes() == b"old"
    run("encode", tmp_path / "a.wav", tmp_path / "c.muc")

    def fail(*arguments):
        raise SinkError("the disk is full")

    monkeypatch.setattr(FileSink, "write", fail)
    assert run("decode", tmp_path / "c.muc", tmp_path / "b.wav") == 2
    assert (tmp_path / "b.wav").read_bytes() == b"old"
    assert {p.name for p in tmp_path.iterdir()} == {"a.wav", "a.muc", "b.wav", "c.muc"}


def test_a_file_most_of_which_is_missing_is_decoded_only_where_that_is_asked_for(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("streaming.files.muc.reader._MOST_SILENCE", 100)
    muxer = MucMuxer(StreamHeader("fake", "fake-1", FakeCodec.digest))
    records = [Tokens(50 * n, np.arange(10)) for n in range(12)]
    (tmp_path / "a.muc").write_bytes(b"".join(muxer.push(record) for record in records))
    assert run("decode", tmp_path / "a.muc", tmp_path / "a.wav", load_codec=load_none) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "a.muc' holds 5 s of music, and 18 s are missing in it; --force" in line
    assert {p.name for p in tmp_path.iterdir()} == {"a.muc"}
    assert run("decode", tmp_path / "a.muc", tmp_path / "a.flac", "--force") == 0
    assert soundfile.info(tmp_path / "a.flac").frames == (50 * 11 + 10) * 1920


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file.wav"
    with written_whole(path) as part:
        assert part.suffix == ".wav"
        part.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    with pytest.raises(KeyError), written_whole(path):
        raise KeyError
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
    for bad in (tmp_path, tmp_path / "none" / "a.wav"):
        with pytest.raises(SinkError, match="cannot be written"), written_whole(bad):
            pass
    with pytest.raises(SinkError, match="No space left"), written_whole(path):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("encode none.wav a.muc", r"none\.wav' does not exist"),
        ("encode bad.wav a.muc", r"bad\.wav' "),
        ("encode a.wav a.wav", "must end in .muc"),
        ("encode a.wav none/a.muc", "cannot be written"),
        ("encode empty out", "no files to convert"),
        ("encode music a.wav", "must be one as well"),
        ("decode none.muc b.wav", r"none\.muc' cannot be read"),
        ("decode bad.wav b.wav", r"bad\.wav' is no \.muc file"),
        ("decode good.muc b.xyz", "no suffix of a known audio file"),
        ("decode other.muc b.wav", "codec 'other', not 'fake'"),
        ("decode weights.muc b.wav", r"weights 'fake-2' \(bbbbbbbbbbbb…\) and this program has"),
        ("info none.muc", r"none\.muc' cannot be read"),
        ("info bad.wav", r"no \.muc file"),
        ("info empty", r"no \.muc files in"),
    ],
)
def test_what_cannot_work_is_said_in_one_sentence(tmp_path, capsys, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    song(Path("a.wav"), 3000)
    song(Path("music/a.wav"), 3000)
    Path("empty").mkdir()
    Path("bad.wav").write_text("nothing")
    for name, codec, digest in (
        ("good", "fake", FakeCodec.digest),
        ("other", "other", FakeCodec.digest),
        ("weights", "fake", "b" * 64),
    ):
        encoder = MucEncoder(StreamHeader(codec, "fake-2", digest))
        data = encoder.tokens(np.arange(10)) + encoder.finish(19_200)
        Path(f"{name}.muc").write_bytes(data)
    before = sorted(tmp_path.rglob("*"))
    assert run(*arguments.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("codec: ")
    import re

    assert re.search(told, line)
    assert sorted(tmp_path.rglob("*")) == before


def test_info_says_what_is_there(tmp_path, capsys):
    header = StreamHeader("nano", "nano-3", "a" * 64, 7, "0123456789abcdef", 100)
    encoder = MucEncoder(header)
    data = (
        encoder.title("A \x1b[31msong") + encoder.tokens(np.arange(300)) + encoder.finish(575_000)
    )
    (tmp_path / "a.muc").write_bytes(data)
    damaged = bytearray(data[:-20])
    damaged[400] ^= 1
    (tmp_path / "b.muc").write_bytes(damaged)
    assert run("info", tmp_path / "a.muc", "--json", load_codec=load_none) == 0
    fields = json.loads(capsys.readouterr().out)
    assert fields["samples"] == 575_000
    assert (fields["tokens"], fields["first_token"], fields["complete"]) == (300, 100, True)
    assert (fields["codec"], fields["seed"], fields["stream"]) == ("nano", 7, "0123456789abcdef")
    assert fields["titles"] == [{"token": 100, "title": "A [31msong"}]
    assert fields["bits_per_s"] == round(8 * len(data) / (575_000 / 48_000), 1)
    assert run("info", tmp_path, load_codec=load_none) == 0
    shown = capsys.readouterr().out
    assert "11.979 s, 575000 samples, 300 tokens from 100 on" in shown
    assert "cut off" in shown
    assert "256 lost in 1 gaps" in shown
    assert "damaged" in shown
    assert "\x1b" not in shown


def test_info_takes_several_files_and_one_that_is_bad_keeps_no_other_back(tmp_path, capsys):
    good = MucEncoder(StreamHeader("nano", "nano-3", "a" * 64)).finish(0)
    for name in ("a.muc", "c.muc", "folder/d.muc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(good)
    (tmp_path / "b.muc").write_bytes(b"This is no music.")
    (tmp_path / "empty").mkdir()
    names = ("a.muc", "b.muc", "missing.muc", "empty", "c.muc", "folder")
    paths = [tmp_path / name for name in names]
    assert run("info", paths[0], paths[4], "--json", load_codec=load_none) == 0
    shown = [json.loads(line)["file"] for line in capsys.readouterr().out.splitlines()]
    assert shown == [str(tmp_path / "a.muc"), str(tmp_path / "c.muc")]
    assert run("info", *paths, "--json", load_codec=load_none) == 2
    out, err = capsys.readouterr()
    assert [Path(json.loads(line)["file"]).name for line in out.splitlines()] == [
        *("a.muc", "c.muc", "d.muc")
    ]
    assert [("b.muc" in line, "missing" in line, "empty" in line) for line in err.splitlines()] == [
        *((True, False, False), (False, True, False), (False, False, True), (False, False, True))
    ]
    assert "3 of 6 files failed" in err
    assert "Traceback" not in err


def test_progress_of_a_file_that_does_not_know_its_length_has_no_end(tmp_path):
    song(tmp_path / "a.flac")
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)  # as of a pipe
    (tmp_path / "b.flac").write_bytes(data)
    told = []
    for name in ("a", "b"):
        encode_file(
            tmp_path / f"{name}.flac",
            tmp_path / f"{name}.muc",
            FakeCodec(),
            progress=lambda done_s, total_s: told.append(total_s),
        )
    assert {round(total_s, 3) if total_s else None for total_s in told} == {2.083, None}
    assert np.array_equal(tokens_of(tmp_path / "a.muc"), tokens_of(tmp_path / "b.muc"))


def test_info_needs_no_torch(tmp_path):
    (tmp_path / "a.muc").write_bytes(MucEncoder(StreamHeader("n", "n", "a" * 64)).finish(0))
    script = (
        "import sys; from streaming.cli.muc import main; "
        f"assert main(['info', {str(tmp_path / 'a.muc')!r}]) == 0; "
        "assert 'torch' not in sys.modules and 'soundfile' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_names_that_would_become_one_are_kept_apart():
    folder = Path("music")
    found = [folder / "a.wav", folder / "a.flac", folder / "b.wav"]
    jobs = pair_files(folder, Path("out"), found, ".muc")
    assert [job.out for job in jobs] == [
        Path("out/a.wav.muc"),
        Path("out/a.flac.muc"),
        Path("out/b.muc"),
    ]
    assert jobs[0] == Job(folder / "a.wav", Path("out/a.wav.muc"))
    with pytest.raises(SourceError):
        pair_files(folder, Path("out"), [], ".muc")


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True

    @property
    def text(self) -> str:
        """The last line."""
        return self.getvalue().rsplit("\r", 1)[-1]


def test_progress_is_shown_over_all_files():
    now, terminal = [0.0], Terminal()
    status = StatusLine(terminal, clock=lambda: now[0], columns=200)
    bar = ProgressBar(2, status, lambda: now[0])
    now[0] = 10.0
    bar.update(0, "a.wav", 30.0, 60.0)
    assert bar.share == 0.25
    assert "25 %" in terminal.text
    assert "3.0× real time" in terminal.text
    assert "0:30 left" in terminal.text
    assert "0 of 2 files" in terminal.text
    now[0] = 20.0
    bar.update(1, "b.m4a", 60.0, None)  # of unknown length
    assert bar.share == 0.25
    now[0] = 30.0
    bar.finished(1, "b.m4a")
    assert bar.share == 0.75
    assert "1 of 2 files" in terminal.text


def test_gaps_in_a_file_are_gaps_in_what_is_read(tmp_path):
    header = StreamHeader("fake", "fake-1", FakeCodec.digest)
    encoder = MucEncoder(header)
    data = encoder.tokens(np.arange(600)) + encoder.finish(600 * 1920)
    at = data.index(b"\xf3\x50", 300)  # the record after the first tokens and the second header
    (tmp_path / "a.muc").write_bytes(data[:at] + data[at + 300 :])
    gaps = [item for item in MucReader(tmp_path / "a.muc").items() if isinstance(item, Gap)]
    assert gaps
    assert run("decode", tmp_path / "a.muc", tmp_path / "a.wav") == 0
    assert soundfile.info(tmp_path / "a.wav").frames == 600 * 1920
