"""Noise that is kept and drawn ahead is that of the keyed generator, and drawn once."""

from __future__ import annotations

import numpy as np
import pytest

from codec.mucodec import noise
from codec.mucodec.noise import NoiseAhead
from codec.noise import keyed_normal


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """Seed, first frame and number of frames of every draw."""
    calls: list[tuple[int, int, int]] = []

    def draw(
        seed: int, first: int, frames: int, width: int, purpose: int
    ) -> np.typing.NDArray[np.float32]:
        calls.append((seed, first, frames))
        return keyed_normal(seed, first, frames, width, purpose)

    monkeypatch.setattr(noise, "keyed_normal", draw)
    return calls


@pytest.mark.parametrize("ahead", [False, True])
def test_windows_have_the_noise_of_their_frames(
    ahead: bool, drawn: list[tuple[int, int, int]]
) -> None:
    """Those of a stream's start, its steady state, and a jump; of two streams in turns."""
    kept = NoiseAhead(6, 3)
    windows = [(0, 10), (0, 14), (2, 16), (6, 16), (10, 16), (60, 16), (40, 16), (44, 12)]
    for first, frames in windows:
        for seed in (1, 2):
            expected = keyed_normal(seed, first, frames, 6, 3)
            assert np.array_equal(kept.rows(seed, first, frames), expected)
            if ahead:
                kept.draw_ahead(seed)


def test_the_next_windows_noise_is_there_when_it_is_wanted(
    drawn: list[tuple[int, int, int]],
) -> None:
    kept = NoiseAhead(6, 3)
    for first in (0, 4):
        kept.rows(1, first, 16)
        kept.draw_ahead(1)
    assert drawn == [(1, 0, 16), (1, 16, 4), (1, 20, 4)]
    drawn.clear()
    kept.rows(1, 8, 16)
    assert drawn == []


def test_only_some_streams_are_kept(drawn: list[tuple[int, int, int]]) -> None:
    kept = NoiseAhead(6, 3)
    for seed in range(20):
        kept.rows(seed, 0, 4)
    assert len(kept._kept) == 8
    kept.draw_ahead(0)  # forgotten: nothing to do
    drawn.clear()
    kept.rows(19, 0, 4)
    assert drawn == []
