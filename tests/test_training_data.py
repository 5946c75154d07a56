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
from streaming.errors import SettingsError
from training import collect, train_all
from training.dataset import FeatureSet, load_audio
from training.sound import AudioSet

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
    batch = FeatureSet(tmp_path, 0).batch(2, 12)
    assert batch.shape == (2, 12, dims)
    assert batch[0, :, 0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]


def test_the_vocoder_refuses_a_folder_without_music(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no recording"):
        AudioSet(tmp_path, 0)
