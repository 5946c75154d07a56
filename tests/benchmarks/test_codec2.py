"""Codec2 as a yardstick: its rates, its lag, and that its sound is in its place."""

from __future__ import annotations

import pytest
import torch

from benchmarks import codec2
from benchmarks.codec2 import MODE_700C, MODE_3200, Mode
from benchmarks.programs import ProgramError
from codec.constants import SAMPLE_RATE

pytestmark = pytest.mark.skipif(codec2.problem() is not None, reason=str(codec2.problem()))
MODES = pytest.mark.parametrize("mode", [MODE_700C, MODE_3200], ids=lambda mode: mode.name)


def bursts(seconds: int = 8) -> torch.Tensor:
    """A buzz like a voice's, now and then, on both channels at 48 kHz."""
    time = torch.arange(seconds * SAMPLE_RATE) / SAMPLE_RATE
    voice = sum(torch.sin(2 * torch.pi * 120 * k * time) / k for k in range(1, 25))
    gate = (time % 0.7 < 0.2) | ((time % 1.1 > 0.6) & (time % 1.1 < 0.75))
    return (0.15 * voice * gate).expand(2, -1).contiguous()


def lag_s(original: torch.Tensor, decoded: torch.Tensor) -> float:
    """By how much the loudness of the second lies behind that of the first, in ms steps."""
    step = SAMPLE_RATE // 1000
    levels = [
        x[0].square().unflatten(0, (-1, step)).mean(dim=1).sqrt() for x in (original, decoded)
    ]
    a, b = (torch.fft.rfft(level - level.mean(), 2 * len(level)) for level in levels)
    peak = int(torch.fft.irfft(b * a.conj()).argmax())
    return (peak if peak < len(levels[0]) else peak - 2 * len(levels[0])) / 1000


@MODES
def test_the_lag_that_is_cut_off_is_the_programs_own(mode: Mode) -> None:
    sound = bursts()
    decoded, _ = codec2.round_trip(sound, mode)
    assert decoded.shape == sound.shape
    assert abs(lag_s(sound, decoded)) <= 0.006


@MODES
def test_the_rate_is_the_modes(mode: Mode) -> None:
    decoded, rate = codec2.round_trip(bursts(4), mode)
    assert rate == pytest.approx(700 if mode is MODE_700C else 3200)
    assert torch.equal(decoded[0], decoded[1])
    assert decoded.abs().max() > 0.05


def test_frames_are_as_long_and_as_large_as_is_said() -> None:
    speech = codec2.to_speech(bursts(4))
    assert len(speech) == 2 * 4 * codec2.RATE
    for mode in (MODE_700C, MODE_3200):
        coded = codec2.encode(speech, mode).output
        assert len(coded) == mode.frame_bytes * round(4 / mode.frame_s)
        assert len(codec2.decode(coded, mode).output) == len(speech)


def test_latency_is_a_frame_and_the_lag() -> None:
    assert MODE_700C.latency_s == pytest.approx(0.07)
    assert MODE_3200.latency_s == pytest.approx(0.04)


def test_less_than_a_frame_is_an_error() -> None:
    with pytest.raises(ProgramError, match="c2enc 700C wrote nothing"):
        codec2.round_trip(torch.zeros(2, 480), MODE_700C)
