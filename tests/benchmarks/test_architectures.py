"""The architectures beside nano are the published ones, and their latencies are found, not said."""

from __future__ import annotations

import pytest
import torch

from benchmarks import architectures

transformers = pytest.importorskip(
    "transformers", reason="the extra `compare` is not installed", exc_type=ImportError
)


def test_encodec_is_the_published_one() -> None:
    network = architectures.random_encodec()
    with torch.inference_mode():
        coded = network.encode(torch.randn(1, 2, 96_000))
        # Three segments (of a second, overlapping by a hundredth), two codebooks, 150 a second.
        assert list(coded.audio_codes.shape) == [3, 1, 2, 150]
        assert list(network.decode(coded).shape) == [1, 2, 96_000]
    assert network.bits_per_s == 2 * 10 * 150
    assert network.latency_s == 1.0


def test_dac_is_the_published_one() -> None:
    network = architectures.random_dac()
    assert 70e6 < network.parameters < 80e6
    with torch.inference_mode():
        codes = network.encode(torch.randn(1, 1, 512 * 4))
        assert list(codes.shape) == [1, 9, 4]
        assert network.decode(codes).shape[-1] == pytest.approx(512 * 4, abs=512)
    assert network.bits_per_s == pytest.approx(9 * 10 * 44_100 / 512)


def test_dacs_latency_is_what_its_layers_add_up_to() -> None:
    # In samples from the inside out: a code is at 512 samples' steps; each convolution of kernel k
    # and dilation d looks d * (k - 1) / 2 further, in the steps of its layer.
    dilations = (1, 3, 9)
    ahead, step = 0, 1
    reach = [(7, 1, 1)]  # kernel, dilation, step of the encoder's layers, then of the decoder's
    for stride in (2, 4, 8, 8):
        reach += [(7, dilation, step) for dilation in dilations]
        # Kernel 2 s, padding ceil(s / 2): from its own step on, 2 s - 1 - ceil(s / 2) are ahead.
        ahead += (2 * stride - 1 - -(-stride // 2)) * step
        step *= stride
    reach.append((3, 1, step))
    ahead += sum(dilation * (kernel - 1) // 2 * step for kernel, dilation, step in reach)
    behind = (7 - 1) // 2 * step
    for stride in (8, 8, 4, 2):
        step //= stride
        behind += -(-stride // 2) * step  # a transposed convolution's padding
        behind += sum(3 * dilation * step for dilation in dilations)
    behind += 3
    assert architectures.dac_latency_samples() == ahead + 1 + behind


def test_mimi_hears_nothing_beyond_its_frame() -> None:
    network = architectures.random_mimi()
    assert network.bits_per_s == pytest.approx(8 * 11 * 12.5)
    frame = round(network.latency_s * network.sample_rate)
    audio = torch.randn(1, 1, 8 * frame)
    other = audio.clone()
    other[..., 4 * frame :] = torch.randn(4 * frame)
    with torch.inference_mode():
        codes, changed = network.encode(audio), network.encode(other)
        assert list(codes.shape) == [1, 8, 8]
        assert torch.equal(codes[..., :4], changed[..., :4])
        sound, differs = network.decode(codes), network.decode(changed)
    difference = (sound - differs).abs().flatten()
    assert float(difference[: 4 * frame].max()) < 1e-4 * float(difference.max())
