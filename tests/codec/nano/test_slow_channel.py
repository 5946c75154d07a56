"""The slow channel: long-term spectrum and stereo image in one bit a token."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from codec.nano.config import NanoConfig
from codec.nano.slow import BANDS, DIGITS, IMAGES, ITEMS, ROUND, average, read_slow, write_slow

CONFIG = NanoConfig()
WHOLE = ROUND + DIGITS


def features(spectrum: Tensor, image: Tensor, tokens: int = 300) -> Tensor:
    """Features that stand at one value per band, ``[1, tokens, dims]``."""
    c = CONFIG
    mel = spectrum.repeat_interleave(c.mels // BANDS).repeat(c.mel_frames)
    stereo = image.repeat_interleave(c.stereo_bands // IMAGES)
    row = torch.cat([mel, torch.zeros(c.semitone_dims), stereo])
    return row.expand(1, tokens, -1)


@pytest.mark.parametrize("first", [0, 1, 119, 1_000_003])
def test_steady_music_arrives_within_a_round(first: int) -> None:
    spectrum, image = torch.linspace(-9, 1, BANDS), torch.linspace(-2, 2, 2 * IMAGES)
    rows = features(spectrum, image)
    levels = torch.full(rows.shape[:2], 2.0)
    digits = write_slow(rows, levels, first, CONFIG)
    assert 0 <= int(digits.min()) <= int(digits.max()) <= 1
    values, known = read_slow(digits, first)
    assert known[0, WHOLE:].min() == 1
    error = (values - torch.cat([spectrum - 2, image])).abs()[0, WHOLE:]
    assert error[:, :BANDS].max() <= 0.2001
    assert error[:, BANDS:].max() <= 0.1001


def test_nothing_is_known_before_it_was_said() -> None:
    rows = features(torch.zeros(BANDS), torch.zeros(2 * IMAGES))
    _, known = read_slow(write_slow(rows, torch.zeros(rows.shape[:2]), 0, CONFIG), 0)
    count = known[0].sum(dim=-1)
    assert torch.equal(count[:ROUND], ((torch.arange(ROUND) + 1) // DIGITS).float())
    assert known[0, 3 * DIGITS - 1].nonzero().flatten().tolist() == [0, BANDS // 2, BANDS + IMAGES]


def test_digits_do_not_depend_on_the_window() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(1, 200, CONFIG.feature_dims, generator=generator)
    levels = torch.randn(1, 200, generator=generator)
    whole = write_slow(rows, levels, 5, CONFIG)
    part = write_slow(rows[:, 40:100], levels[:, 40:100], 45, CONFIG)
    assert torch.equal(part[:, 18:-8], whole[:, 58:92])


def test_rows_of_a_batch_have_places_of_their_own() -> None:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(3, 140, CONFIG.feature_dims, generator=generator)
    levels = torch.randn(3, 140, generator=generator)
    places = torch.tensor([0, 7, 53])
    digits = write_slow(rows, levels, places, CONFIG)
    values, known = read_slow(digits, places)
    for row, place in enumerate(places.tolist()):
        one = slice(row, row + 1)
        alone = write_slow(rows[one], levels[one], place, CONFIG)
        assert torch.equal(alone[0], digits[row])
        read = read_slow(alone, place)
        assert torch.equal(read[0][0], values[row])
        assert torch.equal(read[1][0], known[row])


def test_loud_tokens_count_more() -> None:
    rows = features(torch.full((BANDS,), -6.0), torch.zeros(2 * IMAGES)).clone()
    levels = torch.zeros(rows.shape[:2])
    rows[:, ::2, : CONFIG.mel_dims] = 2.0  # 4 below their level, the quiet ones 6 below theirs
    levels[:, ::2] = 6.0
    values, _ = read_slow(write_slow(rows, levels, 0, CONFIG), 0)
    assert (values[0, -1, :BANDS] > -4.4).all()  # plain means would lie at 5 below


def test_values_beyond_the_range_are_clamped() -> None:
    for value in (-30.0, 20.0):
        rows = features(torch.full((BANDS,), value), torch.full((2 * IMAGES,), value))
        values, _ = read_slow(write_slow(rows, torch.zeros(rows.shape[:2]), 0, CONFIG), 0)
        ends = (-13.4, -3.1) if value < 0 else (-1.0, 3.1)
        assert values[0, -1, :BANDS].unique().item() == pytest.approx(ends[0])
        assert values[0, -1, BANDS:].unique().item() == pytest.approx(ends[1])


def test_averages_are_of_the_items_bands() -> None:
    spectrum, image = torch.randn(BANDS), torch.randn(2 * IMAGES)
    mean = average(features(spectrum, image, 1)[0], CONFIG)
    assert mean.shape == (1, ITEMS)
    torch.testing.assert_close(mean[0], torch.cat([spectrum, image]))
