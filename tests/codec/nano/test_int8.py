"""The bundled weights, whose matrices are int8, sound like those in half precision did."""

from __future__ import annotations

import pytest

import codec
from benchmarks import metrics
from codec.base import Codec
from tests.half_precision import CLIPS, Clip, read


@pytest.fixture(scope="module", params=[None, "cpu"], ids=["onnxruntime", "torch"])
def nano(request: pytest.FixtureRequest) -> Codec:
    return codec.load("nano", device=request.param)


@pytest.fixture(scope="module", params=CLIPS)
def clip(request: pytest.FixtureRequest) -> Clip:
    return read(request.param)


def test_int8_sounds_as_half_precision_did(nano: Codec, clip: Clip) -> None:
    """Measured against that sound, and against the music that both are to be like."""
    sound = nano.code2sound(clip.tokens, seed=clip.seed)
    assert metrics.signal_to_noise_db(clip.sound, sound) >= 40
    assert metrics.log_mel_distance(clip.sound, sound) <= 0.01
    for measure in (metrics.chroma_correlation, metrics.envelope_correlation):
        assert measure(clip.sound, sound) >= 0.998
        before, now = (measure(clip.original, one) for one in (clip.sound, sound))
        assert now == pytest.approx(before, abs=0.002)
