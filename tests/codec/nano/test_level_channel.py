"""The level channel: loudness in two bits a token."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from codec.nano.dsp import mel_filterbank
from codec.nano.level import BASE, ENTRIES, GROUP, SPAN, LevelChannel, mel_level, mel_widths
from training.codebook import level_codebooks


@pytest.fixture(scope="module")
def levels() -> Tensor:
    """A level that wanders as music does, `[rows, tokens]`, ln."""
    generator = torch.Generator().manual_seed(0)
    slow = torch.randn(400, 1, generator=generator)
    slow = slow + 0.15 * torch.randn(400, 64, generator=generator).cumsum(dim=1)
    return slow + 0.3 * torch.randn(400, 64, generator=generator)


@pytest.fixture(scope="module")
def channel(levels: Tensor) -> LevelChannel:
    channel = LevelChannel()
    channel.codebooks.copy_(level_codebooks(levels))
    return channel


@pytest.mark.parametrize("first", [0, 1, 2, 3, 15, 2_000_000_003])
def test_levels_arrive(channel: LevelChannel, levels: Tensor, first: int) -> None:
    digits = channel.write(levels, first)
    assert 0 <= int(digits.min()) <= int(digits.max()) < BASE
    error = channel.read(digits, first) - levels
    inside = error[:, SPAN:-GROUP]
    assert float(inside.square().mean().sqrt()) < 0.2  # 1.7 dB


def test_steady_music_gets_finer_steps_than_an_absolute_codebook_has(
    channel: LevelChannel, levels: Tensor
) -> None:
    """All but the first group of a chain say how they differ from what came before."""
    steady = levels[:, :1] + 0.05 * levels[:, 1:].diff(dim=1).repeat(1, 2)[:, :64]
    error = (channel.read(channel.write(steady, 0), 0) - steady).square().unflatten(1, (-1, SPAN))
    first, rest = error[..., :GROUP].mean(), error[..., GROUP:].mean()
    assert float(rest) < 0.7 * float(first)


@pytest.mark.parametrize("quieter", [1.4, 2.8])
def test_quiet_music_keeps_its_envelope(
    channel: LevelChannel, levels: Tensor, quieter: float
) -> None:
    """12 and 24 dB below the music that the codebooks are fitted to."""
    error = channel.read(channel.write(levels - quieter, 0), 0) - (levels - quieter)
    assert float(error.square().mean().sqrt()) < 0.25


def test_digits_do_not_depend_on_the_window(channel: LevelChannel, levels: Tensor) -> None:
    whole = channel.write(levels, 5)
    part = channel.write(levels[:, 20:50], 25)
    inside = slice(SPAN - 1, -GROUP + 1)
    assert torch.equal(part[:, inside], whole[:, 20:50][:, inside])


def test_rows_of_a_batch_have_places_of_their_own(channel: LevelChannel, levels: Tensor) -> None:
    places = torch.tensor([0, 3, 22])
    digits = channel.write(levels[:3], places)
    read = channel.read(digits, places)
    for row, place in enumerate(places.tolist()):
        alone = channel.write(levels[row : row + 1], place)
        assert torch.equal(alone[0], digits[row])
        assert torch.equal(channel.read(alone, place)[0], read[row])


def test_a_group_cut_off_at_the_end_keeps_its_rough_level(
    channel: LevelChannel, levels: Tensor
) -> None:
    digits = channel.write(levels, 0)
    for kept in (1, 2, 3):
        start = SPAN + GROUP
        read = channel.read(digits[:, : start + kept], 0)
        error = (read[:, start:] - levels[:, start : start + kept]).abs().mean()
        assert float(error) < 0.5 < float(levels.std())


def test_a_chain_cut_off_at_its_beginning_takes_the_level_that_follows(
    channel: LevelChannel, levels: Tensor
) -> None:
    digits = channel.write(levels, 0)
    for cut in (1, 4, 15):
        read = channel.read(digits[:, cut:40], cut)
        unknown = SPAN - cut
        assert torch.equal(read[:, :unknown], read[:, unknown].unsqueeze(1).expand(-1, unknown))
        assert torch.equal(read[:, unknown:], channel.read(digits[:, SPAN:40], SPAN))


def test_a_single_token_is_enough(channel: LevelChannel) -> None:
    for first in range(SPAN):
        assert torch.isfinite(channel.read(torch.tensor([[2]]), first)).all()


def test_the_codebooks_are_sorted_and_used(channel: LevelChannel, levels: Tensor) -> None:
    assert channel.codebooks.shape == (2, ENTRIES, GROUP)
    coarse = channel.codebooks.mean(dim=2).view(2, -1, 16).mean(dim=2)
    assert torch.equal(coarse, coarse.sort(dim=1).values)
    digits = channel.write(levels, 0).unflatten(1, (-1, GROUP))
    entries = (digits * BASE ** torch.arange(GROUP - 1, -1, -1)).sum(dim=-1)
    assert len(entries[:, 1::4].unique()) > 0.9 * ENTRIES


def test_level_of_a_flat_spectrum_is_that_of_its_power() -> None:
    filters, widths = mel_filterbank(1920, 128), mel_widths(128)
    one, two = (torch.log(filters @ torch.full((961,), size)) for size in (0.1, 0.2))
    difference = mel_level(two, widths) - mel_level(one, widths)
    assert float(difference) == pytest.approx(math.log(2), abs=1e-4)
