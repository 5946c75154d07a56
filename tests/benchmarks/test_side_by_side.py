"""The side-by-side comparison runs and says what it promises, never how fast anything is."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import codec.nano
from benchmarks import codec2, contestants, opus, side_by_side
from benchmarks.contestants import CONTESTANTS, NANO_WINDOWS, Windows
from benchmarks.measures import MEASURES
from benchmarks.recordings import load
from benchmarks.runners import Facts, Network, NetworkError, Work
from benchmarks.side_by_side import Row, Speed
from codec.base import DecoderWindow, EncoderWindow
from codec.constants import SAMPLE_RATE, SAMPLES_PER_TOKEN
from codec.stream import StreamDecoder, StreamEncoder
from tests.support.fake_codec import FakeCodec
from tests.support.rendition import SONGS

SHORT = ["--seconds=2", "--passes=1", "--json"]
PROGRAMS = {
    name
    for name, problem in [
        ("opus", opus.problem()),
        ("codec2-700c", codec2.problem()),
        ("codec2-3200", codec2.problem()),
    ]
    if problem is None
}


def figures(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    side_by_side.main([str(SONGS[0]), *SHORT, *arguments])
    return json.loads(capsys.readouterr().out)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit_info:
        side_by_side.main(arguments)
    assert exit_info.value.code == 2
    return capsys.readouterr().err


def test_nano_is_measured_on_each_number_of_threads(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(codec.nano.__file__).parent
    monkeypatch.chdir(folder)  # the measuring process must find a relative path as well
    weights = next(folder.glob("*.safetensors")).name
    (row,) = figures(capsys, "--only", "nano", "--threads", "1", "2", f"--weights={weights}")
    assert row["bits_per_s"] == pytest.approx(350)
    assert row["quality"].keys() == MEASURES.keys()
    assert row["facts"]["latency_s"] == pytest.approx(2.24)
    assert row["facts"]["parameters"] > 1e6
    assert [speed["threads"] for speed in row["speeds"]] == [1, 2]
    for speed in row["speeds"]:
        assert speed["encode"]["wall"] > 0
        assert speed["decode"]["wall"] > 0
        assert speed["peak_mb"] is None or speed["peak_mb"] > 100  # torch alone takes that


@pytest.mark.skipif(len(PROGRAMS) < 3, reason="ffmpeg with libopus and codec2 are not installed")
def test_programs_are_measured_once_and_their_streams_weighed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = ["codec2-700c", "codec2-3200", "opus"]
    speech, voice, music = figures(capsys, "--only", *names, "--threads", "1", "2")
    assert speech["bits_per_s"] == pytest.approx(700)
    assert voice["bits_per_s"] == pytest.approx(3200)
    assert 3000 < music["bits_per_s"] < 9000
    assert music["facts"]["latency_s"] == pytest.approx(0.0265)
    for row in (speech, voice, music):
        (speed,) = row["speeds"]
        assert speed["threads"] == 1
        assert speed["encode"]["wall"] > 0
        assert speed["decode"]["wall"] > 0
        assert all(math.isfinite(value) for value in row["quality"].values())
    # Codec2's sound has no highs and no stereo; Opus at least keeps the melody better.
    assert music["quality"]["chroma"] > speech["quality"]["chroma"]


def test_architectures_have_nominal_rates_and_no_quality(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("transformers", reason="the extra `compare` is not installed")
    encodec, mimi = figures(capsys, "--only", "encodec", "mimi", "--threads", "1")
    assert encodec["bits_per_s"] == 3000
    assert encodec["facts"]["latency_s"] == 1.0
    assert mimi["bits_per_s"] == pytest.approx(1100)
    assert mimi["facts"]["latency_s"] == pytest.approx(0.08)
    assert encodec["quality"] == mimi["quality"] == {}
    assert all(row["speeds"][0]["decode"]["cpu"] > 0 for row in (encodec, mimi))


def test_without_the_extra_one_sentence_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert side_by_side.present(["encodec", "dac", "mimi", "nano"]) == ["nano"]
    said = capsys.readouterr().err.splitlines()
    assert said == [contestants.WITHOUT_TRANSFORMERS]
    assert "pip install '.[compare]'" in said[0]


def test_nothing_left_to_measure_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    said = refusal(capsys, str(SONGS[0]), "--only", "mimi")
    assert "none of the codecs asked for can be measured here" in said.splitlines()[-1]


def test_missing_programs_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "apt-get install codec2" in str(codec2.problem())
    opus.problem.cache_clear()
    try:
        assert "apt-get install ffmpeg" in str(opus.problem())
    finally:
        opus.problem.cache_clear()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--only", "mp3"], "invalid choice: 'mp3'"),
        (["--seconds=0.5"], "--seconds must be at least 1"),
        (["--passes=0"], "--passes must be at least 1"),
        (["--threads", "0"], "--threads must be at least 1"),
        (["no-such-folder"], "there is no recording"),
        (["--weights=no-such-file"], "no-such-file"),
    ],
)
def test_what_makes_no_sense_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert sentence in refusal(capsys, *arguments).splitlines()[-1]


def test_a_process_that_cannot_begin_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="measures nano ended with exit code 1"):
        Network("nano", 1, tmp_path / "missing.wav", 2)


def test_a_process_that_is_gone_is_an_error() -> None:
    with Network("nano", 1, SONGS[0], 1) as network:
        assert network.encode().cpu > 0
        network._process.kill()
        network._process.wait()
        with pytest.raises(NetworkError, match="ended with exit code -9"):
            network.decode()


def test_figures_become_a_table() -> None:
    quality = dict.fromkeys(MEASURES, 0.5) | {"level_db": -1.25}
    rows = [
        Row(
            "nano",
            "48 kHz stereo",
            350.0,
            Facts(2.24),
            [
                Speed(1, Work(0.021, 0.02), Work(0.09, 0.08), 400.0),
                Speed(2, Work(0.02, 0.03), Work(0.08, 0.15), 410.4),
            ],
            quality,
        ),
        Row(
            "other",
            "8 kHz mono",
            700.2,
            Facts(0.07),
            [Speed(1, Work(0.0001, 0.0001), Work(1.5, 1.4), None)],
        ),
    ]
    head, rule, nano, other = side_by_side.table(rows).splitlines()
    assert len(head) == len(rule) == len(nano) == len(other)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (head, nano, other)]
    assert cells[0][:10] == [
        *("codec", "sound", "bit/s", "encode, 1 thr.", "decode, 1 thr."),
        *("encode, 2 thr.", "decode, 2 thr.", "CPU, s/s", "latency, ms", "memory, MB"),
    ]
    assert cells[1][2:10] == ["350", "0.021", "0.09", "0.02", "0.08", "0.1", "2240", "410"]
    assert cells[1][-1] == "−1.25"
    assert cells[2][2:10] == ["700", "0.0001", "1.5", "–", "–", "1.4", "70", "–"]
    assert set(cells[2][10:]) == {"–"}


@pytest.mark.parametrize(
    "windows",
    [
        *NANO_WINDOWS.values(),
        Windows(EncoderWindow(3, 5, 2), DecoderWindow(4, 7, 3)),
        Windows(EncoderWindow(3, 6, 1), DecoderWindow(4, 4, 2)),
    ],
)
def test_latency_of_windows_is_that_of_the_engine(windows: Windows) -> None:
    fake = FakeCodec()
    encoder = StreamEncoder(fake, windows.encoder)
    decoder = StreamDecoder(fake, window=windows.decoder)
    silence = np.zeros((2, SAMPLES_PER_TOKEN), np.float32)
    made, longest = 0, 0
    for pushed in range(1, 400):
        decoder.feed(encoder.push(silence))
        for sound in decoder:
            longest = max(longest, pushed - made)  # its first sample waits longest
            made += sound.shape[1] // SAMPLES_PER_TOKEN
    assert made > 300
    assert windows.latency_s == pytest.approx(longest * SAMPLES_PER_TOKEN / SAMPLE_RATE)


def test_every_contestant_with_trained_weights_keeps_the_length() -> None:
    audio = load(SONGS[0], 2)
    for name in PROGRAMS:
        round_trip = CONTESTANTS[name].round_trip
        assert round_trip is not None
        sound, _ = round_trip(None, audio)  # type: ignore[arg-type]
        assert sound.shape == audio.shape
        assert sound.abs().max() > 0.01
