"""Level control: sane samples of anything, whatever the blocks."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from streaming.audio.level import CEILING, KNEE, MAX_INPUT, limit, sanitise

any_float = arrays(
    np.float32,
    st.tuples(st.just(2), st.integers(0, 60)),
    elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
)


@settings(deadline=None)
@given(any_float)
def test_whatever_comes_in_finite_samples_within_the_ceiling_come_out(block):
    out = limit(sanitise(block))
    assert out.dtype == np.float32
    assert out.shape == block.shape
    assert np.isfinite(out).all()
    assert (np.abs(out) <= CEILING).all()


@settings(deadline=None)
@given(any_float, st.integers(0, 60))
def test_blocks_do_not_matter(block, cut):
    whole = limit(sanitise(block))
    parts = [limit(sanitise(part)) for part in (block[:, :cut], block[:, cut:])]
    assert np.concatenate(parts, axis=1).tobytes() == whole.tobytes()


def test_sane_input_passes_untouched():
    block = np.linspace(-KNEE, KNEE, 1001, dtype=np.float32)[None]
    assert sanitise(block) is block
    assert limit(block) is block


def test_nan_and_infinity_become_silence_and_their_neighbours_stay():
    block = np.array([[0.5, np.nan, -0.25, np.inf, -np.inf, 1e30]], np.float32)
    np.testing.assert_array_equal(sanitise(block), [[0.5, 0, -0.25, 0, 0, MAX_INPUT]])


def test_loud_input_bends_monotonically_and_keeps_its_sign():
    rising = np.linspace(0, 100, 100_001, dtype=np.float32)
    out = limit(np.stack([rising, -rising]))
    assert (np.diff(out[0]) >= 0).all()
    np.testing.assert_array_equal(out[1], -out[0])
    assert out[0, -1] > 0.99


def test_the_knee_has_no_corner():
    around = np.float32(KNEE) + np.linspace(-1e-3, 1e-3, 41, dtype=np.float32)
    slopes = np.diff(limit(around).astype(np.float64)) / np.diff(around.astype(np.float64))
    assert (np.abs(slopes - 1) < 0.03).all()


def test_clipping_music_is_tamed_and_never_wrapped():
    t = np.arange(48_000) / 48_000
    clipping = (100 * np.sin(2 * np.pi * 100 * t)).astype(np.float32)[None]
    out = limit(sanitise(clipping))
    assert np.corrcoef(out[0], np.sign(clipping[0]))[0, 1] > 0.99
    assert (np.sign(out) == np.sign(clipping)).all()
