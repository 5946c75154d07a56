"""Music of one's own as training data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from codec.constants import SAMPLE_RATE
from codec.nano.config import NanoConfig
from codec.nano.features import Features
from streaming.errors import SettingsError
from training import collect, dataset, train_all
from training.dataset import Excerpts, extract, load_audio, load_features, other_version
from training.sound import load_sound, mono

Refused = Callable[..., str]


def tone(path: Path, rate: int, channels: int, seconds: float = 6.0, hz: float = 440.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(seconds * rate)) / rate
    sound = 0.3 * np.sin(2 * np.pi * hz * time)
    sf.write(path, np.repeat(sound[:, None], channels, axis=1), rate)
    return path


def gather(tmp_path: Path, needed_s: float = 1.0) -> tuple[Path, Path]:
    music, held = tmp_path / "music", tmp_path / "held"
    collect.collect(tmp_path / "data", music, held, needed_s)
    return music, held


def wavs(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.wav"))


def test_any_file_becomes_stereo_at_48_khz(tmp_path: Path) -> None:
    data = tmp_path / "data"
    tone(data / "mono.wav", 44_100, 1)
    tone(data / "album" / "one.ogg", 32_000, 2)
    tone(data / "album" / "two.mp3", 44_100, 2)
    (data / "cover.jpg").write_bytes(b"no music")
    music, held = gather(tmp_path)
    found = [*wavs(music), *wavs(held)]
    assert sorted(path.stem.split("-", 1)[1] for path in found) == ["mono", "one", "two"]
    for path in found:
        audio = load_audio(path)  # refuses any other rate
        assert audio.shape[0] == 2
        assert audio.shape[1] == pytest.approx(6 * SAMPLE_RATE, abs=0.1 * SAMPLE_RATE)
        middle = audio[0, 2 * SAMPLE_RATE : 4 * SAMPLE_RATE]
        assert int(torch.fft.rfft(middle).abs().argmax()) == 880  # bins of half a hertz


def test_what_cannot_be_read_is_skipped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    for name in ("a", "b"):
        tone(data / f"{name}.wav", SAMPLE_RATE, 2)
    (data / "broken.flac").write_bytes(b"fLaC but nothing else")
    (data / "empty.mp3").touch()
    tone(data / "jingle.wav", SAMPLE_RATE, 2, seconds=1)
    music, held = gather(tmp_path)
    assert len(wavs(music)) + len(wavs(held)) == 2
    warned = [record.getMessage() for record in caplog.records]
    assert len(warned) == 3
    for name in ("broken.flac", "empty.mp3", "jingle.wav"):
        assert any(name in line and line.startswith("skipped: ") for line in warned)
    assert not list(tmp_path.rglob("*.part"))


def test_files_are_held_out_by_name_and_stay_so(tmp_path: Path) -> None:
    for number in range(12):
        tone(tmp_path / "data" / f"{number}.wav", 8_000, 1, seconds=4)
    music, held = gather(tmp_path)
    first = wavs(music), wavs(held)
    expected = sum(collect.is_held_out(f"{number}.wav") for number in range(12))
    assert len(first[1]) == max(1, expected)
    tone(tmp_path / "data" / "12.wav", 8_000, 1, seconds=4)
    gather(tmp_path)
    assert set(first[0]) <= set(wavs(music))
    assert set(first[1]) <= set(wavs(held))
    assert len(wavs(music)) + len(wavs(held)) == 13


def test_about_a_tenth_of_all_names_is_held_out() -> None:
    count = sum(collect.is_held_out(f"album {n // 12}/{n % 12:02d}.flac") for n in range(2000))
    assert 150 < count < 250


def test_two_files_are_split_into_one_each(tmp_path: Path) -> None:
    for name in ("a", "b"):
        tone(tmp_path / "data" / f"{name}.wav", 8_000, 1)
    music, held = gather(tmp_path)
    assert (len(wavs(music)), len(wavs(held))) == (1, 1)
    count, seconds = collect.extent(music)
    assert count == 1
    assert seconds == pytest.approx(6.0, abs=0.01)


def test_what_is_there_already_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        tone(tmp_path / "data" / f"{name}.wav", 8_000, 1)
    gather(tmp_path)
    monkeypatch.setattr(collect, "_convert", lambda path, target: pytest.fail("read again"))
    gather(tmp_path)


def _nothing(data: Path) -> None:
    data.mkdir()


def _missing(data: Path) -> None:
    pass


def _broken(data: Path) -> None:
    data.mkdir()
    (data / "a.mp3").write_bytes(b"\0" * 2000)


def _single(data: Path) -> None:
    tone(data / "a.wav", 8_000, 1)


def _short(data: Path) -> None:
    for name in ("a", "b"):
        tone(data / f"{name}.wav", 8_000, 1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_missing, "there is no folder"),
        (_nothing, "there is no music in"),
        (_broken, "none of the 1 files"),
        (_single, "two are needed"),
        (_short, "too little music: 0.1 minutes to train on, where at least 2 are needed"),
    ],
)
def test_data_that_will_not_do_is_one_sentence(
    make: Callable[[Path], None], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    make(data)
    folders = [f"--music={tmp_path / 'music'}", f"--held={tmp_path / 'held'}"]
    assert collect.main([f"--data={data}", *folders]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if words in line]
    assert len(said) == 1
    assert said[0].startswith("collect: ")


def test_an_empty_folder_ends_the_whole_chain_with_code_2(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    arguments = ["--data", str(tmp_path / "data"), "--folder", str(tmp_path / "run")]
    assert train_all.main([*arguments, "--fine-tune"]) == 2
    errors = capfd.readouterr().err.splitlines()
    assert len(errors) == 1
    assert "there is no music in" in errors[0]


def test_pieces_shorter_than_an_excerpt_are_repeated(tmp_path: Path) -> None:
    dims = NanoConfig().feature_dims
    short = np.arange(5, dtype=np.float16)[:, None].repeat(dims, axis=1)
    np.save(tmp_path / "short.npy", short)
    batch = load_features(tmp_path).batch(2, 12, torch.Generator())
    assert batch.shape == (2, 12, dims)
    assert batch[0, :, 0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]


def test_excerpts_come_from_everywhere_alike_and_never_from_two_pieces() -> None:
    lengths = [40, 400, 60]
    pieces = [torch.stack([torch.full((n,), i), torch.arange(n)], 1) for i, n in enumerate(lengths)]
    batch = Excerpts(pieces).batch(4000, 20, torch.Generator().manual_seed(1))
    assert (batch[:, :, 0] == batch[:, :1, 0]).all()
    assert (batch[:, 1:, 1] - batch[:, :-1, 1] == 1).all()
    shares = torch.bincount(batch[:, 0, 0], minlength=3) / len(batch)
    assert shares.tolist() == pytest.approx([0.08, 0.8, 0.12], abs=0.03)
    starts = batch[batch[:, 0, 0] == 1][:, 0, 1]
    assert starts.min() < 10
    assert starts.max() > 370


def test_features_of_long_recordings_have_no_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are analysed a minute at a time, which must not show."""
    features = Features(NanoConfig())
    audio = 0.1 * torch.randn(2, 60 * 1920, generator=torch.Generator().manual_seed(1))
    whole = extract(features, audio)
    monkeypatch.setattr(dataset, "_PIECE", 16)
    torch.testing.assert_close(extract(features, audio), whole, rtol=1e-3, atol=1e-3)


def test_other_versions_are_the_same_music_at_another_speed() -> None:
    time = torch.arange(4 * SAMPLE_RATE, dtype=torch.float64) / SAMPLE_RATE
    pair = torch.stack([torch.sin(2 * torch.pi * hz * time) for hz in (300, 500)]).float()
    speeds, mixes = set(), set()
    for seed in range(40):
        version = other_version(pair, np.random.default_rng(seed))
        speed = version.shape[1] / pair.shape[1]
        assert 0.8 <= speed <= 1.25
        assert abs(speed - 1) >= 0.03
        spectrum = torch.fft.rfft(version).abs()
        tones = [round(hz * 4) for hz in (300, 500)]  # bins are as long as the recording
        left, right = spectrum[:, tones[0]].tolist()
        others = spectrum.index_fill(1, torch.tensor(tones), 0)
        assert others.max() < 0.01 * spectrum.max()
        speeds.add(speed)
        mixes.add(round(left / (left + right), 3))
    assert len(speeds) > 20
    assert len(mixes) > 20


def test_versions_are_files_of_their_own_and_the_same_each_time(tmp_path: Path) -> None:
    tone(tmp_path / "music" / "one.wav", SAMPLE_RATE, 2, seconds=3)
    for out in ("a", "b"):
        arguments = [f"--music={tmp_path / 'music'}", f"--out={tmp_path / out}", "--versions=3"]
        assert dataset.main([*arguments, "--device=cpu"]) == 0
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["one.wav.1.npy", "one.wav.2.npy", "one.wav.npy"]
    for name in names:
        first, second = (np.load(tmp_path / out / name) for out in ("a", "b"))
        assert np.array_equal(first, second)
        assert len(first) > 45


def test_the_vocoder_refuses_a_folder_without_music(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no recording"):
        load_sound(tmp_path)
    tone(tmp_path / "slow.wav", 44_100, 2)
    with pytest.raises(SettingsError, match="is not at 48000 Hz"):
        load_sound(tmp_path)


def test_the_vocoder_hears_mixes_of_left_and_right(tmp_path: Path) -> None:
    tone(tmp_path / "mono.wav", SAMPLE_RATE, 1, seconds=2)
    sound = mono(load_sound(tmp_path), 8, 10, torch.Generator().manual_seed(1))
    assert sound.shape == (8, 2, 10 * 1920)
    assert torch.equal(sound[:, 0], sound[:, 1])
    peaks = sound[:, 0].abs().amax(dim=1)
    assert 0.3 * 10 ** (-18 / 20) < peaks.min() < peaks.max() < 0.3 * 2**0.5 * 10 ** (3 / 20)
