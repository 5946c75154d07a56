"""What nano makes of a recording, and the yardsticks to measure that against."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks import opus
from codec.base import DecodeSettings
from codec.constants import TOKEN_BITS, TOKEN_RATE
from codec.nano import TorchNano
from codec.torch_backend import tensor

__all__ = ["DESCRIPTIONS", "Version", "shuffle_learnt", "versions"]

DESCRIPTIONS = {
    "decoded": "from 25 tokens of 14 bits a second",
    "copy": "the vocoder fed with the original's features: the ceiling",
    "mono": "decoded, left and right mixed: what a mono decoder would reach",
    "mean-mel": "the vocoder fed with the features' mean over time: one constant spectrum",
    "shuffled": "the tokens in random order: the floor",
    "half shuffled": "only what is learnt in random order, the slow channel in place: a harder "
    "floor with the right long-term spectrum and the wrong music",
    "finer": "decoded with more evaluations of the flow",
    "opus-lowest": "the lowest constant rate that carries sound (1200 bit/s asked for)",
    "opus-default": "what ffmpeg makes of its lowest setting (500 bit/s asked for)",
    "opus-6k": "the lowest rate that it is specified for (6000 bit/s asked for)",
}
"""Every version that may be measured or heard, in the order of the tables."""


@dataclass(frozen=True)
class Version:
    """One rendering of a recording.

    Attributes:
        sound: float32 ``[2, samples]``, as long as the original.
        bits_per_s: of what it was made from; None if that is no bit stream.
    """

    name: str
    sound: Tensor
    bits_per_s: float | None


def shuffle_learnt(nano: TorchNano, tokens: Tensor, order: Tensor) -> Tensor:
    """Tokens whose learnt part is in another order, while the slow channel stays in place."""
    fast = nano.models.codec.fast_codes
    return tokens // fast * fast + tokens[order] % fast


def decode(nano: TorchNano, tokens: Tensor, settings: DecodeSettings) -> Tensor:
    """Sound of tokens with the sampler set as asked."""
    return tensor(
        nano.code2sound(tokens, settings.steps, settings.guidance, temperature=settings.temperature)
    )


@torch.inference_mode()
def versions(
    nano: TorchNano,
    audio: Tensor,
    tokens: Tensor,
    settings: DecodeSettings,
    *,
    finer_steps: int | None = None,
) -> Iterator[Version]:
    """All versions of one recording ``[2, samples]`` of whole tokens, one after the other.

    *finer* is there if ``finer_steps`` says how many evaluations, Opus if ffmpeg has it.
    Raises OpusError if ffmpeg fails on this recording.
    """
    payload = float(TOKEN_RATE * TOKEN_BITS)
    decoded = decode(nano, tokens, settings)
    yield Version("decoded", decoded, payload)
    features = nano.features(audio)
    yield Version("copy", tensor(nano.render(features, first_token=0, seed=0)), None)
    yield Version("mono", decoded.mean(dim=0, keepdim=True).expand(2, -1).contiguous(), payload)
    mean = features.mean(dim=0, keepdim=True).expand_as(features).contiguous()
    yield Version("mean-mel", tensor(nano.render(mean, first_token=0, seed=0)), None)
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))
    yield Version("shuffled", decode(nano, tokens[order], settings), payload)
    half = shuffle_learnt(nano, tokens, order)
    yield Version("half shuffled", decode(nano, half, settings), payload)
    if finer_steps is not None:
        finer = replace(settings, steps=finer_steps)
        yield Version("finer", decode(nano, tokens, finer), payload)
    if opus.problem() is None:
        for name, rate in (("opus-lowest", opus.LOWEST), ("opus-default", opus.DEFAULT)):
            yield Version(name, *opus.round_trip(audio, rate))
