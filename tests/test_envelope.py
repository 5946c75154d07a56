"""The slow channel: long-term spectrum in two bits a token."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from codec.nano.config import NanoConfig
from codec.nano.envelope import BANDS, DIGITS, ROUND, read_envelope, write_digits

CONFIG = NanoConfig()


def features(level: Tensor, tokens: int = 250) -> Tensor:
    """Features whose mels stand at one level per band, ``[1, tokens, dims]``."""
    rows = torch.zeros(1, tokens, CONFIG.feature_dims)
    mel = level.repeat_interleave(CONFIG.mels // BANDS).repeat(CONFIG.mel_frames)
    rows[..., : CONFIG.mel_dims] = mel
    return rows


@pytest.mark.parametrize("first", [0, 1, 95, 1_000_003])
def test_a_steady_spectrum_arrives_within_a_round(first: int) -> None:
    level = torch.linspace(-11, 3, BANDS)
    digits = write_digits(features(level), first, CONFIG)
    assert 0 <= int(digits.min()) <= int(digits.max()) <= 3
    values, known = read_envelope(digits, first)
    assert known[0, ROUND + DIGITS :].min() == 1
    assert (values[0, ROUND + DIGITS :] - level).abs().max() <= 0.126


def test_the_rough_shape_comes_first() -> None:
    digits = write_digits(features(torch.zeros(BANDS)), 0, CONFIG)
    _, known = read_envelope(digits, 0)
    after_four = known[0, 4 * DIGITS].nonzero().flatten().tolist()
    assert after_four == [0, 8, 16, 24]


def test_digits_do_not_depend_on_the_window() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(1, 200, CONFIG.feature_dims, generator=generator)
    whole = write_digits(rows, 5, CONFIG)
    part = write_digits(rows[:, 40:100], 45, CONFIG)
    assert torch.equal(part[:, 18:-8], whole[:, 58:92])


def test_rows_of_a_batch_have_places_of_their_own() -> None:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(3, 120, CONFIG.feature_dims, generator=generator)
    places = torch.tensor([0, 7, 50])
    digits = write_digits(rows, places, CONFIG)
    values, known = read_envelope(digits, places)
    for row in range(3):
        alone = write_digits(rows[row : row + 1], int(places[row]), CONFIG)
        assert torch.equal(alone[0], digits[row])
        one, one_known = read_envelope(alone, int(places[row]))
        assert torch.equal(one[0], values[row])
        assert torch.equal(one_known[0], known[row])


def test_levels_beyond_the_range_are_clamped() -> None:
    for level in (-30.0, 20.0):
        digits = write_digits(features(torch.full((BANDS,), level)), 0, CONFIG)
        values, _ = read_envelope(digits, 0)
        assert values[0, -1].unique().item() == pytest.approx(-11.6 if level < 0 else 4.15)
