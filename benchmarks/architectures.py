"""Architectures of other neural codecs with random weights: what they cost, not how they sound.

They come from the package transformers (extra ``compare``). Arithmetic does not depend on the
values of weights, so nothing is downloaded; what they make of music is noise.

- *EnCodec* for 48 kHz stereo (Défossez et al., 2022) as its authors run it: segments of one second
  that overlap by a hundredth, normalised, at its lowest rate, which is its fastest. A segment is
  seen as a whole, so a sample waits for a second.
- *DAC* for 44.1 kHz (Kumar et al., 2023), all nine codebooks, over five seconds at once. It
  knows one channel: stereo takes twice the bits and the time. Its convolutions look both ways; how
  far is :func:`dac_latency_samples`.
- *Mimi* for 24 kHz speech (Défossez et al., 2024), mono, with the eight codebooks of its paper.
  It is causal: a sample waits for its frame of 80 ms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["ARCHITECTURES", "Architecture", "dac_latency_samples"]

ENCODEC_BITS_PER_S = 3000
MIMI_CODEBOOKS = 8


@dataclass(frozen=True)
class Architecture:
    """A codec's network with random weights, ready to run.

    Attributes:
        encode: float32 ``[1, channels, samples]`` to codes and what belongs to them.
        decode: the way back.
        parameters: how many numbers its weights are.
        latency_s: how long a sample waits at most.
        most_s: how much sound it is given at once, to spare memory and time.
    """

    sample_rate: int
    channels: int
    bits_per_s: float
    latency_s: float
    parameters: int
    encode: Callable[[Tensor], Any]
    decode: Callable[[Any], Tensor]
    most_s: float = math.inf


def _ready(model: Any) -> Any:
    return model.eval().requires_grad_(False)


def _rate(codebooks: int, codebook_size: int, frames_per_s: float) -> float:
    return codebooks * math.log2(codebook_size) * frames_per_s


def _parameters(model: Any) -> int:
    return sum(weights.numel() for weights in model.parameters())


def random_encodec() -> Architecture:
    """EnCodec's published configuration for 48 kHz stereo; raises ImportError."""
    from transformers import EncodecConfig, EncodecModel

    config = EncodecConfig(
        audio_channels=2,
        sampling_rate=48_000,
        normalize=True,
        chunk_length_s=1.0,
        overlap=0.01,
        use_causal_conv=False,
        norm_type="time_group_norm",
        upsampling_ratios=[8, 5, 4, 2],
        target_bandwidths=[3.0, 6.0, 12.0, 24.0],
    )
    model = _ready(EncodecModel(config))
    for layer in model.quantizer.layers:  # they start at zero, which is no usual number
        layer.codebook.embed.normal_()

    def decode(coded: Any) -> Tensor:
        return model.decode(
            coded.audio_codes, coded.audio_scales, last_frame_pad_length=coded.last_frame_pad_length
        )[0]

    return Architecture(
        sample_rate=config.sampling_rate,
        channels=config.audio_channels,
        bits_per_s=ENCODEC_BITS_PER_S,
        latency_s=config.chunk_length / config.sampling_rate,
        parameters=_parameters(model),
        encode=lambda audio: model.encode(audio, bandwidth=ENCODEC_BITS_PER_S / 1000),
        decode=decode,
    )


def dac_latency_samples() -> int:
    """How many samples of input DAC needs, from a sample on, until that sample is final.

    Found by probing: which samples of input a code depends on and which of the output depend on a
    code (where derivatives are not zero). Few channels will do, since strides, kernels and
    dilations alone decide this.
    Raises ImportError.
    """
    from transformers import DacConfig, DacModel

    config = DacConfig(encoder_hidden_size=4, decoder_hidden_size=32, hidden_size=8, n_codebooks=1)
    model = DacModel(config).eval().double()  # in float32 gradients would vanish on their way
    frames, middle = 64, 32
    generator = torch.Generator().manual_seed(0)
    audio = torch.randn(1, 1, frames * config.hop_length, generator=generator, dtype=torch.float64)
    latents = model.encoder(audio.requires_grad_())
    (slope,) = torch.autograd.grad(latents[..., middle].sum(), audio)
    last_heard = int(slope.flatten().nonzero().max())
    change = torch.zeros_like(latents)
    change[..., middle] = 1
    response = torch.func.jvp(model.decoder, (latents.detach(),), (change,))[1]
    first_made = int(response.flatten().nonzero().min())
    return last_heard + 1 - first_made


def random_dac() -> Architecture:
    """DAC's published configuration for 44.1 kHz; raises ImportError."""
    from transformers import DacConfig, DacModel

    config = DacConfig(
        sampling_rate=44_100,
        encoder_hidden_size=64,
        downsampling_ratios=[2, 4, 8, 8],
        decoder_hidden_size=1536,
        upsampling_ratios=[8, 8, 4, 2],
        n_codebooks=9,
        codebook_size=1024,
        codebook_dim=8,
    )
    model = _ready(DacModel(config))
    frames_per_s = config.sampling_rate / config.hop_length
    return Architecture(
        sample_rate=config.sampling_rate,
        channels=1,
        bits_per_s=_rate(config.n_codebooks, config.codebook_size, frames_per_s),
        latency_s=dac_latency_samples() / config.sampling_rate,
        parameters=_parameters(model),
        encode=lambda audio: model.encode(audio).audio_codes,
        decode=lambda codes: model.decode(audio_codes=codes)[0],
        most_s=5,
    )


def random_mimi() -> Architecture:
    """Mimi's published configuration; raises ImportError."""
    from transformers import MimiConfig, MimiModel

    config = MimiConfig()
    model = _ready(MimiModel(config))
    for name, buffer in model.named_buffers():
        if name.endswith("embed_sum"):  # codebooks, which start at zero
            buffer.normal_()
        elif name.endswith("cluster_usage"):
            buffer.fill_(1.0)
    return Architecture(
        sample_rate=config.sampling_rate,
        channels=config.audio_channels,
        bits_per_s=_rate(MIMI_CODEBOOKS, config.codebook_size, config.frame_rate),
        latency_s=1 / config.frame_rate,
        parameters=_parameters(model),
        encode=lambda audio: model.encode(audio, num_quantizers=MIMI_CODEBOOKS).audio_codes,
        decode=lambda codes: model.decode(audio_codes=codes)[0],
    )


ARCHITECTURES: dict[str, Callable[[], Architecture]] = {
    "encodec": random_encodec,
    "dac": random_dac,
    "mimi": random_mimi,
}
