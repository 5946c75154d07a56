"""The objective measures, on sounds whose answers are known."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks import metrics
from benchmarks.analysis import Analysis
from benchmarks.measures import MEASURES, compare

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
    assert metrics.spectral_convergence(audio, audio) == 0
    assert metrics.image_width_error_db(audio, audio) == 0
    assert metrics.balance_error_db(audio, audio) == 0
    assert metrics.lit_difference(audio, audio) == 0
    assert metrics.tonal_peaks_difference(audio, audio) == 0
    assert metrics.flatness_error_db(audio, audio) == 0
    assert metrics.peak_error_db(audio, audio) == 0
    assert metrics.modulation_error_db(audio, audio) == 0
    assert metrics.band_level_db(audio, audio, 5000) == 0


def test_noise_at_a_tenth_of_the_amplitude_is_20_db() -> None:
    assert metrics.signal_to_noise_db(noise(), noise() * 1.1) == pytest.approx(20, abs=1e-3)
    assert metrics.signal_to_noise_db(noise(), noise() + 0.1 * noise(seed=1)) == pytest.approx(
        20, abs=0.1
    )


def test_every_measure_says_what_a_copy_has() -> None:
    audio = noise() + tone(440)
    figures = compare(Analysis(audio), Analysis(audio))
    for name, measure in MEASURES.items():
        assert figures[name] == pytest.approx(measure.good, abs=0.2 if name == "seam" else 1e-5)


def test_shared_analysis_gives_what_the_samples_give() -> None:
    original, decoded = noise() + tone(440), 0.7 * noise(seed=1) + tone(523.25)
    shared = compare(Analysis(original), Analysis(decoded))
    assert shared["log_mel"] == metrics.log_mel_distance(original, decoded)
    assert shared["chroma"] == metrics.chroma_correlation(original, decoded)
    assert shared["sc_8192"] == metrics.spectral_convergence(original, decoded)
    assert shared["onset_f"] == metrics.onset_f_measure(original, decoded)
    assert shared["image_db"] == metrics.image_width_error_db(original, decoded)


@pytest.mark.parametrize("silent", ["original", "decoded", "both"])
def test_silence_is_measured_without_infinities(silent: str) -> None:
    sounds = {"original": noise(), "decoded": noise(seed=1)}
    for name in sounds if silent == "both" else [silent]:
        sounds[name] = torch.zeros_like(sounds[name])
    figures = compare(Analysis(sounds["original"]), Analysis(sounds["decoded"]))
    assert all(math.isfinite(value) for value in figures.values())
    if silent == "both":
        assert figures["log_mel"] == figures["width_db"] == figures["balance_db"] == 0


def test_antiphase_does_not_cancel() -> None:
    audio = noise()[:1]
    pair, opposite = torch.cat([audio, audio]), torch.cat([audio, -audio])
    assert metrics.log_mel_distance(pair, opposite) < 1e-5
    assert metrics.stft_distance(pair, opposite) < 1e-5
    assert metrics.stereo_width_error_db(pair, opposite) == pytest.approx(
        60
    )  # the limits' distance


def test_half_the_amplitude_is_six_decibels_less() -> None:
    audio = noise()
    assert metrics.level_difference_db(audio, audio / 2) == pytest.approx(-6.02, abs=0.01)
    assert metrics.stft_distance(audio, audio / 2) == pytest.approx(0.5, abs=1e-4)
    assert metrics.stft_distance(audio, torch.zeros_like(audio)) == pytest.approx(1)


def test_convergence_at_8192_hears_buzz() -> None:
    clean = tone(441.0)
    time = torch.arange(clean.shape[1]) / RATE
    buzzing = clean * (1 + torch.cos(2 * torch.pi * 100 * time))  # as frames of 10 ms would do
    # Two partials of half the amplitude, 100 Hz away on either side, are what it adds.
    assert metrics.spectral_convergence(clean, buzzing) == pytest.approx(0.5**0.5, abs=0.02)
    assert metrics.spectral_convergence(clean, 0.5 * clean) == pytest.approx(0.5, abs=1e-4)
    assert metrics.spectral_convergence(clean, tone(880.0)) == pytest.approx(2**0.5, abs=0.05)


def wide(db: float, seconds: float = 2) -> torch.Tensor:
    """Noise whose side has so many decibels less power than its mid."""
    mid, side = noise(seconds)[0], noise(seconds, 1)[0] * 10 ** (db / 20)
    return torch.stack([mid + side, mid - side])


def mono(audio: torch.Tensor) -> torch.Tensor:
    return audio.mean(dim=0, keepdim=True).expand(2, -1)


def test_a_mono_decoder_errs_by_what_the_original_has_above_30_dB_below_mid() -> None:  # noqa: N802
    assert metrics.stereo_width_error_db(wide(-10), mono(wide(-10))) == pytest.approx(20, abs=0.1)
    assert metrics.image_width_error_db(wide(-10), mono(wide(-10))) == pytest.approx(20, abs=0.5)
    assert metrics.stereo_width_error_db(wide(-10), wide(-16)) == pytest.approx(6, abs=0.1)
    assert metrics.stereo_width_error_db(wide(-40), mono(wide(-40))) == 0
    assert metrics.image_width_error_db(wide(-50), mono(wide(-50))) == 0


def test_the_right_width_at_the_wrong_time_or_place_is_an_error_of_the_image() -> None:
    early = torch.cat([wide(0), wide(-20)], dim=1)
    late = torch.cat([wide(-20), wide(0)], dim=1)
    assert metrics.stereo_width_error_db(early, late) < 0.1
    assert metrics.image_width_error_db(early, late) == pytest.approx(20, abs=1)
    low, high = tone(200), tone(6000)
    opposite = torch.tensor([[1.0], [-0.9]])
    assert metrics.stereo_width_error_db(low + opposite * high, opposite * low + high) < 0.1
    assert metrics.image_width_error_db(low + opposite * high, opposite * low + high) > 40


def test_balance_tells_left_from_right() -> None:
    left = noise() * torch.tensor([[1.0], [0.0]])
    assert metrics.balance_error_db(left, left.flip(0)) == pytest.approx(60, abs=0.1)
    assert metrics.balance_error_db(left, mono(left)) == pytest.approx(30, abs=0.1)
    assert metrics.stereo_width_error_db(left, left.flip(0)) < 1e-4
    half = left + 0.5 * left.flip(0)
    assert metrics.balance_error_db(half, mono(half)) == pytest.approx(6.02, abs=0.1)


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


def organ(keys: range, seconds: float = 2) -> torch.Tensor:
    """Steady sines on keys of the piano (MIDI numbers)."""
    return torch.stack([tone(440 * 2 ** ((key - 69) / 12), seconds) for key in keys]).mean(dim=0)


def test_an_organ_is_lit_and_noise_is_not() -> None:
    assert Analysis(organ(range(67, 112))).lit > 0.85
    assert Analysis(organ(range(67, 112, 3))).lit == pytest.approx(1 / 3, abs=0.03)
    assert Analysis(noise()).lit < 0.05
    assert metrics.lit_difference(noise(), 0.1 * noise() + organ(range(67, 112))) > 0.8
    assert metrics.lit_difference(organ(range(67, 112)), noise()) < -0.8


def test_peaks_are_tonal_that_last() -> None:
    assert Analysis(organ(range(60, 108, 4))).tonal_peaks == pytest.approx(12, abs=0.1)
    assert Analysis(noise()).tonal_peaks < 0.5
    glide = torch.cat([tone(400 * 1.1**step, 0.1) for step in range(20)], dim=1)
    assert Analysis(glide).tonal_peaks < 0.5
    assert metrics.tonal_peaks_difference(tone(440), tone(440) + tone(1200)) == pytest.approx(1)


def test_flatness_tells_noise_from_lines() -> None:
    lines = organ(range(55, 128, 4))
    assert Analysis(noise()).octaves.flatness_db.mean() == pytest.approx(-1.2, abs=0.3)
    assert Analysis(lines).octaves.flatness_db.mean() < -15
    assert metrics.flatness_error_db(noise(), noise(seed=1)) < 0.5
    assert metrics.flatness_error_db(noise(), lines) > 14
    assert metrics.peak_error_db(noise(), noise(seed=1)) < 1.5
    assert metrics.peak_error_db(noise(), lines) > 25
    # What cannot be heard does not count.
    assert metrics.flatness_error_db(tone(300), tone(300) + 1e-6 * tone(8000)) < 0.1


def test_modulation_hears_a_tremolo_and_its_rate() -> None:
    time = torch.arange(2 * RATE) / RATE
    slow, fast = ((1 + 0.8 * torch.sin(2 * torch.pi * hz * time)) * noise() for hz in (3, 6))
    assert metrics.modulation_error_db(noise(), noise(seed=1)) < 4
    assert metrics.modulation_error_db(slow, 0.5 * slow) < 0.1
    moved = Analysis(slow).modulation_db - Analysis(noise()).modulation_db
    assert moved[8:, 0].mean() > 10  # below 500 Hz, noise itself moves as much
    assert abs(moved[8:, 2].mean()) < 3
    assert metrics.modulation_error_db(slow, fast) > metrics.modulation_error_db(noise(), slow) > 4


def test_levels_of_bands_are_their_own() -> None:
    low, high = tone(440), 0.1 * tone(7000)
    assert metrics.band_level_db(low + high, low + 2 * high, 5000) == pytest.approx(6.02, abs=0.05)
    assert metrics.band_level_db(low + high, low + 2 * high, 10_000) == pytest.approx(0, abs=0.1)
    assert metrics.band_level_db(low + high, low, 5000) == pytest.approx(-30, abs=12)
    assert metrics.band_level_db(low, low + 1e-6 * high, 5000) == pytest.approx(0, abs=0.05)


def test_a_filtered_sound_is_narrower() -> None:
    assert metrics.bandwidth_error_hz(noise() + tone(440), tone(440)) < -10_000


def test_entropy_of_tokens() -> None:
    assert metrics.code_entropy_bits(torch.zeros(100, dtype=torch.int64)) == 0
    assert metrics.code_entropy_bits(torch.arange(1024)) == pytest.approx(10)
    assert metrics.code_entropy_bits(torch.tensor([5, 5, 5, 9])) == pytest.approx(0.8113, abs=1e-4)


def test_seams_show() -> None:
    audio = noise()
    assert metrics.seam_jump(audio, 4800) == pytest.approx(1, abs=0.2)
    audio[:, 4800::9600] += 2.0
    assert metrics.seam_jump(audio, 4800) > 3
    assert metrics.seam_jump(audio, audio.shape[1]) == 1  # there is no seam


def test_a_level_that_stands_still_correlates_with_nothing() -> None:
    steady = torch.full((2, RATE), 0.25)
    assert metrics.envelope_correlation(noise(1), steady) == pytest.approx(0, abs=0.2)
    assert metrics.envelope_correlation(noise(1), torch.zeros(2, RATE)) == 0
