"""Silences in a stream, whatever blocks it comes in; and the simulated link."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.lab.lossy import GilbertElliott, LossyLink
from streaming.audio.fading import FADE_SAMPLES, Envelope, fade_out
from streaming.errors import SettingsError
from streaming.wire.messages import Tokens


@given(st.lists(st.integers(0, 9000), min_size=1, max_size=10), st.integers(0, 12_000))
def test_silences_do_not_depend_on_the_blocks(sizes, first):
    def shaped(blocks):
        envelope = Envelope(1000)
        envelope.silence(1000 + first, 1000 + first + 5000, fall_samples=2000)
        for block in blocks:
            envelope.apply(block)
        return np.concatenate(blocks, axis=1)

    whole = shaped([np.ones((2, sum(sizes)), np.float32)])
    assert np.array_equal(shaped([np.ones((2, n), np.float32) for n in sizes]), whole)
    gains = whole[0]
    assert (gains[:first] == 1).all()
    assert (gains[first + 2000 : first + 5000] == 0).all()
    assert (gains[first + 5000 + FADE_SAMPLES :] == 1).all()
    assert np.abs(np.diff(gains)).max(initial=0.0) < 2 / FADE_SAMPLES


def test_a_fade_is_smooth_and_its_reverse_the_rest():
    gains = fade_out(100)
    assert (np.diff(gains) < 0).all()
    assert np.allclose(gains + gains[::-1], 1)
    assert fade_out(0).shape == (0,)


@pytest.mark.parametrize(("loss", "burst"), [(0.05, 2.0), (0.2, 5.0), (0.0, 1.0), (0.5, 1.0)])
def test_losses_have_their_share_and_length(loss, burst):
    link = GilbertElliott(loss, burst, seed=1)
    lost = np.array([link.lost() for _ in range(200_000)])
    assert lost.mean() == pytest.approx(loss, abs=0.01)
    if loss and burst > 1:
        bursts = np.count_nonzero(np.diff(lost.astype(int)) == 1)
        assert lost.sum() / bursts == pytest.approx(burst, rel=0.05)


@pytest.mark.parametrize(
    ("loss", "burst"), [(1.0, 2.0), (-0.1, 2.0), (0.1, 0.5), (float("nan"), 2)]
)
def test_links_that_cannot_be_are_refused(loss, burst):
    with pytest.raises(SettingsError, match="No link"):
        GilbertElliott(loss, burst)


def test_a_link_keeps_the_order_and_is_the_same_for_the_same_seed():
    sent = [(k * 0.3, Tokens(k * 8, np.zeros(8, np.int64))) for k in range(1000)]
    link = LossyLink(delay_s=0.1, jitter_s=0.5, loss=0.1, seed=4)
    arrived = list(link.deliver(sent))
    assert arrived == list(link.deliver(sent))
    times = [at for at, _ in arrived]
    assert times == sorted(times)
    assert all(at >= packet.first_token / 8 * 0.3 + 0.1 for at, packet in arrived)
    assert [p.first_token for _, p in arrived] == sorted(p.first_token for _, p in arrived)
