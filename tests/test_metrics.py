"""The objective measures, on sounds whose answers are known."""

from __future__ import annotations

import pytest
import torch

from benchmarks import metrics

RATE = 48_000


def noise(seconds: float = 2, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(2, int(seconds * RATE), generator=generator)


def tone(hz: float, seconds: float = 2) -> torch.Tensor:
    time = torch.arange(int(seconds * RATE), dtype=torch.float64) / RATE
    return (0.3 * torch.sin(2 * torch.pi * hz * time)).float().expand(2, -1).contiguous()


def clicks(times: list[float], seconds: float = 3) -> torch.Tensor:
    """Short bursts of decaying noise."""
    audio = 1e-4 * noise(seconds)
    burst = noise(0.1, 1) * torch.exp(-torch.arange(4800) / 600)
    for time in times:
        start = round(time * RATE)
        audio[:, start : start + 4800] += burst
    return audio


def test_a_sound_is_like_itself() -> None:
    audio = noise() + tone(440)
    assert metrics.log_mel_distance(audio, audio) == 0
    assert metrics.stft_distance(audio, audio) == 0
    assert metrics.chroma_correlation(audio, audio) == pytest.approx(1)
    assert metrics.envelope_correlation(audio, audio) == pytest.approx(1)
    assert metrics.level_difference_db(audio, audio) == pytest.approx(0, abs=1e-5)
    assert metrics.stereo_width_error_db(audio, audio) == 0
    assert metrics.onset_f_measure(audio, audio) == 1
    assert metrics.time_texture(audio, audio) == pytest.approx(1)
    assert metrics.band_texture(audio, audio) == pytest.approx(1)
    assert metrics.bandwidth_error_hz(audio, audio) == 0


def test_antiphase_does_not_cancel() -> None:
    audio = noise()[:1]
    pair, opposite = torch.cat([audio, audio]), torch.cat([audio, -audio])
    assert metrics.log_mel_distance(pair, opposite) < 1e-5
    assert metrics.stft_distance(pair, opposite) < 1e-5
    assert metrics.stereo_width_error_db(pair, opposite) > 60


def test_half_the_amplitude_is_six_decibels_less() -> None:
    audio = noise()
    assert metrics.level_difference_db(audio, audio / 2) == pytest.approx(-6.02, abs=0.01)
    assert metrics.stft_distance(audio, audio / 2) == pytest.approx(0.5, abs=1e-4)
    assert metrics.stft_distance(audio, torch.zeros_like(audio)) == pytest.approx(1)


def test_another_pitch_is_another_chroma() -> None:
    assert metrics.chroma_correlation(tone(440), tone(880)) > 0.95  # an octave is the same class
    assert metrics.chroma_correlation(tone(440), tone(523.25)) < 0.1


def test_onsets_are_where_bursts_begin() -> None:
    times = [0.5, 1.0, 1.3, 2.2]
    found = metrics.onsets(clicks(times))
    assert len(found) == len(times)
    assert all(abs(a - b) < 0.03 for a, b in zip(found, times, strict=True))
    assert metrics.onsets(tone(440)[:, 4800:]) == []


def test_onsets_match_once_and_within_50_ms() -> None:
    truth = clicks([0.5, 1.0, 1.5, 2.0])
    assert metrics.onset_f_measure(truth, clicks([0.53, 0.97, 1.5, 2.0])) == 1
    assert metrics.onset_f_measure(truth, clicks([0.5, 1.0])) == pytest.approx(2 / 3)
    assert metrics.onset_f_measure(truth, clicks([0.6, 1.1, 1.6, 2.1])) == 0
    assert metrics.onset_f_measure(truth, clicks([0.5, 1.0, 1.5, 2.0, 2.5])) == pytest.approx(8 / 9)


def test_smooth_sound_has_less_texture() -> None:
    rough, smooth = noise(), tone(200) + tone(3000)
    assert metrics.time_texture(rough, smooth) < 0.5
    assert metrics.time_texture(smooth, rough) > 2
    assert metrics.band_texture(rough, smooth) > 1.5  # two lines on an empty floor


def test_a_filtered_sound_is_narrower() -> None:
    assert metrics.bandwidth_error_hz(noise() + tone(440), tone(440)) < -10_000


def test_entropy_of_tokens() -> None:
    assert metrics.code_entropy_bits(torch.zeros(100, dtype=torch.int64)) == 0
    assert metrics.code_entropy_bits(torch.arange(1024)) == pytest.approx(10)


def test_seams_show() -> None:
    audio = noise()
    assert metrics.seam_jump(audio, 4800) == pytest.approx(1, abs=0.2)
    audio[:, 4800::9600] += 2.0
    assert metrics.seam_jump(audio, 4800) > 3
