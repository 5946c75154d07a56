"""Opus as a yardstick: the rates that it really takes, and that its sound is in its place."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import soundfile
import torch

from benchmarks import metrics, opus
from codec.constants import SAMPLE_RATE
from tests.support.rendition import SONGS

pytestmark = pytest.mark.skipif(opus.problem() is not None, reason=str(opus.problem()))


@pytest.fixture(scope="module")
def music() -> torch.Tensor:
    data, _ = soundfile.read(SONGS[0], frames=5 * SAMPLE_RATE, dtype="float32")
    return torch.from_numpy(data.T.copy())


def lag(original: torch.Tensor, decoded: torch.Tensor) -> int:
    """Samples by which the second lies behind the first: the peak of their cross-correlation."""
    size = 2 * original.shape[1]
    a, b = (torch.fft.rfft(x.mean(dim=0), size) for x in (original, decoded))
    peak = int(torch.fft.irfft(b * a.conj(), size).argmax())
    return peak if peak < size // 2 else peak - size


def test_lag_is_found(music: torch.Tensor) -> None:
    assert lag(music, music.roll(100, dims=1)) == 100
    assert lag(music, music.roll(-7, dims=1)) == -7


def test_a_good_rate_is_in_place_to_the_sample(music: torch.Tensor) -> None:
    decoded, rate = opus.round_trip(music, opus.OpusSettings(96_000, constant=True))
    assert decoded.shape == music.shape
    assert lag(music, decoded) == 0
    assert rate == pytest.approx(96_000, rel=0.02)
    assert metrics.level_difference_db(music, decoded) == pytest.approx(0, abs=0.5)


def test_the_default_is_in_place_to_two_milliseconds(music: torch.Tensor) -> None:
    decoded, _ = opus.round_trip(music, opus.DEFAULT)
    assert decoded.shape == music.shape
    assert abs(lag(music, decoded)) < 0.002 * SAMPLE_RATE


def test_the_lowest_rate_is_in_place_to_a_frame() -> None:
    # Three bytes a frame say how loud it is and little else, so loudness is what is compared.
    noise = 0.2 * torch.randn(2, 5 * SAMPLE_RATE, generator=torch.Generator().manual_seed(0))
    time = torch.arange(noise.shape[1]) / SAMPLE_RATE
    bursts = noise * ((time % 0.7 < 0.2) & (time % 1.1 < 0.6))
    decoded, _ = opus.round_trip(bursts, opus.LOWEST)
    assert decoded.shape == bursts.shape
    levels = [
        x.square().mean(dim=0, keepdim=True).unflatten(1, (-1, 48)).mean(dim=2).sqrt()
        for x in (bursts, decoded)
    ]
    assert abs(lag(*(level - level.mean() for level in levels))) <= 20  # milliseconds


def test_the_lowest_constant_rate_is_what_was_asked_for_and_sounds(music: torch.Tensor) -> None:
    decoded, rate = opus.round_trip(music, opus.LOWEST)
    assert rate == pytest.approx(1200, rel=0.02)
    assert metrics.level_difference_db(music, decoded) > -20


def test_the_default_takes_far_more_than_what_was_asked_for(music: torch.Tensor) -> None:
    _, rate = opus.round_trip(music, opus.DEFAULT)
    assert 2000 < rate < 10_000


def test_below_the_lowest_constant_rate_there_is_silence(music: torch.Tensor) -> None:
    decoded, _ = opus.round_trip(music, opus.OpusSettings(1000, constant=True))
    assert decoded.abs().max() < 1e-3


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")
def test_packets_are_those_that_ffprobe_sees(music: torch.Tensor, tmp_path: Path) -> None:
    # At this rate packets are longer than a segment of 255 bytes and go over pages.
    path = tmp_path / "music.opus"
    path.write_bytes(opus.encode(music, opus.OpusSettings(256_000, constant=False)))
    listed = subprocess.run(
        ["ffprobe", "-v", "error", "-show_entries", "packet=size", "-of", "csv=p=0", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    sizes = [int(line.strip(",")) for line in listed.stdout.split()]
    head, tags, *sound = opus.packets(path.read_bytes())
    assert head.startswith(b"OpusHead")
    assert tags.startswith(b"OpusTags")
    assert [len(packet) for packet in sound] == sizes
    assert max(sizes) > 255


def test_what_is_no_ogg_file_is_refused() -> None:
    with pytest.raises(opus.OpusError, match="no Ogg file"):
        list(opus.packets(b"RIFF" + bytes(40)))


def test_what_ffmpeg_refuses_is_said(music: torch.Tensor) -> None:
    with pytest.raises(opus.OpusError, match=r"exit code \d+ and said: .*499"):
        opus.encode(music, opus.OpusSettings(499, constant=True))
