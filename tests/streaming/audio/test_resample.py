"""Sample-rate conversion: the same samples whatever the blocks, and exactly as many."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.audio.resample import Resampler, VariableResampler
from streaming.errors import SettingsError


def noise(samples, seed=0):
    return 0.3 * np.random.default_rng(seed).standard_normal((2, samples)).astype(np.float32)


def convert(signal, rates, sizes, quality="HQ"):
    """The whole output for a signal pushed in blocks of `sizes`, the last one repeated."""
    resampler = Resampler(rates[0], rates[1], quality=quality)
    out, start, sizes = [], 0, list(sizes)
    while start < signal.shape[1]:
        size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
        out.append(resampler.push(signal[:, start : start + size]))
        start += size
    out.append(resampler.finish())
    return np.concatenate(out, axis=1)


@pytest.mark.parametrize("quality", ["HQ", "VHQ"])
@pytest.mark.parametrize(
    "rates",
    [(44_100, 48_000), (22_050, 48_000), (96_000, 48_000), (48_000, 44_100), (8_000, 48_000)],
)
def test_block_sizes_do_not_matter_bit_for_bit(rates, quality):
    signal = noise(20_000)
    whole = convert(signal, rates, [20_000], quality)
    random = np.random.default_rng(1).integers(1, 6000, 200).tolist()
    for sizes in ([480], [1920], [4801], [48_000], random):
        assert convert(signal, rates, sizes, quality).tobytes() == whole.tobytes()
    short = signal[:, :2000]
    assert (
        convert(short, rates, [1], quality).tobytes()
        == convert(short, rates, [2000], quality).tobytes()
    )


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 30_000),
    st.sampled_from([8_000, 11_025, 22_050, 32_000, 44_099, 44_100, 88_200, 96_000, 192_000]),
    st.booleans(),
    st.lists(st.integers(1, 9000), min_size=1, max_size=5),
)
def test_the_length_is_exact(samples, rate, upwards, sizes):
    rates = (rate, 48_000) if upwards else (48_000, rate)
    out = convert(noise(samples), rates, sizes)
    # The nearest whole number; soxr may take either where two are equally near.
    assert abs(2 * out.shape[1] * rates[0] - 2 * samples * rates[1]) <= rates[0]


def test_a_tone_stays_the_same_tone():
    t = np.arange(44_100) / 44_100
    tone = np.stack([np.sin(2 * np.pi * 1000 * t), np.cos(2 * np.pi * 500 * t)]).astype(np.float32)
    out = convert(tone, (44_100, 48_000), [1920])
    t = np.arange(48_000) / 48_000
    expected = np.stack([np.sin(2 * np.pi * 1000 * t), np.cos(2 * np.pi * 500 * t)])
    assert np.abs(out - expected)[:, 1000:-1000].max() < 1e-4


def test_equal_rates_pass_blocks_through():
    signal = noise(100)
    resampler = Resampler(48_000, 48_000)
    assert resampler.push(signal) is signal
    assert resampler.finish().shape == (2, 0)


def test_finish_is_final():
    resampler = Resampler(44_100, 48_000)
    resampler.push(noise(100))
    assert resampler.finish().shape[1] > 0
    assert resampler.finish().shape == (2, 0)
    with pytest.raises(ValueError, match="after finish"):
        resampler.push(noise(1))


@pytest.mark.parametrize("rates", [(0, 48_000), (48_000, 10**9), (-44_100, 48_000)])
def test_impossible_rates_are_refused(rates):
    with pytest.raises(SettingsError, match="outside the supported range"):
        Resampler(*rates)


# At a speed that changes


def residual_db(sound: np.ndarray, frequency: float, rate: int) -> float:
    """What is left of a sine of `frequency` when the best fitting one is taken away."""
    n = np.arange(len(sound))
    phase = 2 * np.pi * frequency * n / rate
    basis = np.stack([np.sin(phase), np.cos(phase)], axis=1)
    fit, *_ = np.linalg.lstsq(basis, sound, rcond=None)
    return float(10 * np.log10(np.mean((sound - basis @ fit) ** 2) / np.mean(sound**2)))


@pytest.mark.parametrize("out_rate", [44_100, 48_000, 96_000])
@pytest.mark.parametrize("speed", [1.0, 1.0001, 0.9999, 1.01])
@pytest.mark.parametrize("frequency", [440, 9000])
def test_a_speed_changes_pitch_and_length_and_adds_no_noise(out_rate, speed, frequency):
    t = np.arange(3 * 48_000) / 48_000
    tone = np.tile(0.5 * np.sin(2 * np.pi * frequency * t), (2, 1)).astype(np.float32)
    resampler = VariableResampler(48_000, out_rate)
    resampler.speed = speed
    out = [resampler.push(tone[:, i : i + 4800]) for i in range(0, tone.shape[1], 4800)]
    sound = np.concatenate([*out, resampler.finish()], axis=1)
    assert abs(sound.shape[1] - 3 * out_rate / speed) < 200
    steady = sound[0, out_rate : 2 * out_rate].astype(np.float64)
    assert residual_db(steady, frequency * speed, out_rate) < -90


def test_a_change_of_speed_has_no_edge():
    t = np.arange(3 * 48_000) / 48_000
    tone = np.tile(0.5 * np.sin(2 * np.pi * 440 * t), (2, 1)).astype(np.float32)
    resampler = VariableResampler(48_000, 48_000)
    out = []
    for i in range(0, tone.shape[1], 4800):
        resampler.speed = 1.01 if i // 4800 % 2 else 0.99
        out.append(resampler.push(tone[:, i : i + 4800]))
    sound = np.concatenate(out, axis=1)[0, 200:]
    assert np.abs(np.diff(sound, 2)).max() < 1.1 * 0.5 * (2 * np.pi * 440 / 48_000 * 1.01) ** 2


def test_speeds_are_bounded():
    resampler = VariableResampler(48_000, 48_000)
    resampler.speed = 9.0
    assert resampler.speed == resampler.MAX_SPEED
    resampler.speed = 0.0
    assert resampler.speed == pytest.approx(1 / resampler.MAX_SPEED)


def test_between_equal_rates_sound_passes_untouched_until_the_speed_changes() -> None:
    t = np.arange(48_000) / 48_000
    sine = np.sin(2 * np.pi * 440 * t).astype(np.float32)
    sound = np.stack([sine, sine])
    resampler = VariableResampler(48_000, 48_000)
    first = np.concatenate(
        [resampler.push(sound[:, i : i + 960]) for i in range(0, 24_000, 960)], 1
    )
    assert np.array_equal(first, sound[:, :24_000])
    resampler.speed = 1.0001
    later = [resampler.push(sound[:, i : i + 960]) for i in range(24_000, 48_000, 960)]
    whole = np.concatenate([first, *later], axis=1)
    # No edge where the filter takes over: no step larger than the sine's own.
    steps = np.abs(np.diff(whole[0], 2))
    assert float(steps[100:-100].max()) < 1.1 * float(np.abs(np.diff(sine, 2)).max())
