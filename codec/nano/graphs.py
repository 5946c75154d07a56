"""nano as three plain graphs of real tensors, for machines without torch.

What a window needs besides its tokens (noise, start phases of the oscillators, latents of its
context) comes in from outside, so the graphs hold no state, no generator and no double precision.
Fourier transforms are products with cosine and sine matrices: no complex tensors, no FFT.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from codec.constants import SAMPLES_PER_TOKEN
from codec.nano.base import DEFAULT_STEPS
from codec.nano.codec import NanoModels, with_texture
from codec.nano.dsp import soft_limit
from codec.nano.features import Features, decimate
from codec.nano.flow import sample
from codec.nano.slow import write_slow
from codec.nano.vocoder import Vocoder
from codec.sampling import time_grid

__all__ = [
    "CONSTANTS",
    "LEAST_SHARED",
    "DecoderGraph",
    "EncoderGraph",
    "RealFourier",
    "VocoderGraph",
    "constants",
    "graphs",
]

LEAST_SHARED = 1024
"""Constants of fewer numbers are written into the graphs; the others lie in the weights file:"""
CONSTANTS = (
    "direct.cos",
    "direct.first",
    "direct.second",
    "direct.sin",
    "features.bands.T",
    "features.mel_filters.T",
    "features.semitone_derivative",
    "features.semitone_window",
    "features.window",
    "fourier.cos",
    "fourier.first",
    "fourier.first.T",
    "fourier.second",
    "fourier.second.T",
    "fourier.sin",
    "low_fourier.second",
    "vocoder.band_to_bin.T",
    "vocoder.level_to_bin.T",
    "vocoder.mel_to_bin.T",
    "vocoder.mel_to_level",
    "vocoder.rotation",
    "vocoder.semitone_to_noise.T",
)


class RealFourier(nn.Module):
    """Short-time Fourier transform of a quarter hop and its inverse, by real matrices.

    Size n = a·b is done in two steps of sizes a and b with a rotation between (Cooley and Tukey,
    1965), which takes a tenth of the work of one n by n matrix and next to no room:
    with sample bu + v and bin p + aq, the angle (bu + v)(p + aq)/n is up/a + vp/n + vq/b.
    Spectra are ``[2, ..., frames, bins]``, the real part first.
    """

    def __init__(self, window: Tensor) -> None:
        super().__init__()
        self.size = n = len(window)
        self.hop = n // 4
        self.bins = n // 2 + 1
        # The factors nearest to the root: 40 · 48 of 1920, 20 · 24 of 480.
        self.a = a = max(d for d in range(1, math.isqrt(n) + 1) if n % d == 0)
        self.b = b = n // a
        self.rows = self.bins // a + 1  # of a bins each; the last one is not full

        def circle(left: int, right: int, period: int) -> tuple[Tensor, Tensor]:
            turns = torch.outer(torch.arange(left), torch.arange(right)).double() / period
            return (2 * math.pi * turns).cos(), (2 * math.pi * turns).sin()

        def constant(name: str, value: Tensor) -> None:
            self.register_buffer(name, value.float(), persistent=False)

        constant("window", window)
        cos, sin = circle(a, a, a)
        constant("first", torch.cat([cos, -sin]))  # [2a, a]
        cos, sin = circle(b, self.rows, b)
        constant("second", torch.cat([torch.cat([cos, -sin], 1), torch.cat([sin, cos], 1)]))
        cos, sin = circle(a, b, n)
        constant("cos", cos)
        constant("sin", sin)
        # Bins between the first and the last stand for their mirror images as well.
        weight = torch.full((self.bins,), 2 / n)
        weight[0] = weight[-1] = 1 / n
        constant("weight", weight)

    window: Tensor
    first: Tensor
    second: Tensor
    cos: Tensor
    sin: Tensor
    weight: Tensor

    def analyse(self, signal: Tensor) -> Tensor:
        """``[..., frames * hop]`` to its spectrum; frame i is centred on ``hop * (i + 1/2)``."""
        margin = (self.size - self.hop) // 2
        blocks = F.pad(signal, (margin, margin)).unflatten(-1, (-1, self.hop))
        # Ends counted from the back, since they are written into the graph as they are.
        parts = [blocks[..., part : part - 3 or None, :] for part in range(4)]
        return torch.stack(self.transform(torch.cat(parts, dim=-1)))

    def transform(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Real and imaginary part of windowed frames, ``[..., size]`` to ``[..., bins]``."""
        framed = (frames * self.window).unflatten(-1, (self.a, self.b))
        real, imag = (self.first @ framed).split(self.a, dim=-2)
        turned = torch.cat(
            [real * self.cos + imag * self.sin, imag * self.cos - real * self.sin], dim=-1
        )
        real, imag = (
            part.transpose(-1, -2).flatten(-2)[..., : self.bins]
            for part in (turned @ self.second).split(self.rows, dim=-1)
        )
        return real, imag

    def synthesise(self, spectrum: Tensor) -> Tensor:
        """The inverse, windowed again and overlapped: ``[..., frames * hop]``."""
        weighted = F.pad(spectrum * self.weight, (0, self.rows * self.a - self.bins))
        folded = weighted.unflatten(-1, (self.rows, self.a)).transpose(-1, -2)
        real, imag = (torch.cat([folded[0], folded[1]], dim=-1) @ self.second.T).split(
            self.b, dim=-1
        )
        turned = torch.cat(
            [real * self.cos - imag * self.sin, imag * self.cos + real * self.sin], dim=-2
        )
        framed = (self.first.T @ turned).flatten(-2) * self.window
        pieces = framed.unflatten(-1, (4, self.hop)).unbind(dim=-2)
        placed = [F.pad(piece, (0, 0, part, 3 - part)) for part, piece in enumerate(pieces)]
        signal = (placed[0] + placed[1] + placed[2] + placed[3]).flatten(-2)
        # Overlapped squared Hann windows at a quarter hop sum to 1.5.
        margin = (self.size - self.hop) // 2
        return signal[..., margin:-margin] / 1.5


class EncoderGraph(nn.Module):
    """Sound of a window to its tokens, as :meth:`TorchNano.encode_window` has them."""

    def __init__(self, models: NanoModels) -> None:
        super().__init__()
        self.codec = models.codec
        self.features = Features(models.codec.config)
        self.fourier = RealFourier(self.features.window)
        self.direct = RealFourier(self.features.semitone_window)
        self.derived = RealFourier(self.features.semitone_derivative)

    def forward(self, audio: Tensor, first_token: Tensor) -> Tensor:
        """Tokens of a window.

        Args:
            audio: ``[2, n * 1920]``.
            first_token: int64 ``[]``.

        Returns:
            int64 ``[n]``.
        """
        features, c = self.features, self.features.config
        mel, stereo = features.of_spectrum(*self.fourier.analyse(audio))
        low = decimate(audio, c.decimation, features.lowpass)
        hop = SAMPLES_PER_TOKEN // c.decimation // c.semitone_frames
        # Frames are so many hops long, the last one in part, and cut from the hops as they lie.
        size, hops = c.semitone_n_fft, -(-c.semitone_n_fft // hop)
        left = (size - hop) // 2
        blocks = F.pad(low, (left, (hops - 1) * hop - left)).unflatten(-1, (-1, hop))
        parts = [blocks[..., part : part + 1 - hops or None, :] for part in range(hops)]
        frames = torch.cat(parts, dim=-1)[..., :size]
        keep = slice(features.first_bin, features.last_bin)
        spectra = (*self.direct.transform(frames), *self.derived.transform(frames))
        notes = features.of_pair(*(part[..., keep] for part in spectra))
        rows = torch.cat([mel.flatten(1), notes.flatten(1), stereo.flatten(1)], dim=1)
        # [every] takes all there are: the trace would freeze their number otherwise.
        every = torch.arange(audio.shape[1] // SAMPLES_PER_TOKEN)
        rows = rows[every].unsqueeze(0)
        levels = self.codec.levels(rows)[:, every]
        level = self.codec.level.write(levels, first_token)[:, every]
        slow = write_slow(rows, levels, first_token, c)
        return self.codec.join(rows, level, slow, first_token)[0]


class DecoderGraph(nn.Module):
    """Tokens of a window to its latents, as :meth:`TorchNano.decode_window` has them by default."""

    def __init__(self, models: NanoModels) -> None:
        super().__init__()
        self.codec = models.codec
        self.flow = models.flow
        self.register_buffer("texture", models.texture)

    texture: Tensor

    def forward(
        self, tokens: Tensor, first_token: Tensor, context: Tensor, noise: Tensor
    ) -> Tensor:
        """Latents of a window.

        Args:
            tokens: int64 ``[n]``.
            first_token: int64 ``[]``.
            context: latents of the first tokens, ``[known, feature_dims]``.
            noise: times the temperature, ``[n - start, feature_dims]``, for the tokens that the
                flow sees.

        Returns:
            ``[n, feature_dims]``, the context first.
        """
        expected, hidden = self.codec.decode(tokens.unsqueeze(0), first_token)
        expected, hidden = expected[0], hidden[0]
        known = context.shape[0]
        start = tokens.shape[0] - noise.shape[0]
        unit = self.codec.normalizer.deviation * self.flow.deviation
        residual = sample(
            self.flow,
            hidden[start:],
            noise,
            (context[start:] - expected[start:known]) / unit,
            guidance=1.0,
            times=time_grid(DEFAULT_STEPS),
        )
        residual = residual * unit * self.texture
        new = with_texture(self.codec, expected[known:], residual[known - start :])
        return torch.cat([context, new])


class VocoderGraph(nn.Module):
    """Latents to sound, as :meth:`TorchNano.render` has it."""

    def __init__(self, vocoder: Vocoder) -> None:
        super().__init__()
        self.vocoder = vocoder
        self.fourier = RealFourier(vocoder.window)
        self.low_fourier = RealFourier(vocoder.low_window)

    def forward(self, latents: Tensor, cos: Tensor, sin: Tensor, noise: Tensor) -> Tensor:
        """Sound of latents.

        Args:
            latents: ``[n, feature_dims]``.
            cos, sin: of the oscillators' phases at the start of each segment,
                ``[2 * n + 1, semitones]``.
            noise: ``[2, n * 1920]``.

        Returns:
            ``[2, n * 1920]``.
        """
        vocoder, decimation = self.vocoder, self.vocoder.config.decimation
        mel, notes, image = vocoder.split(latents)
        tones = vocoder.oscillate(notes, cos.unsqueeze(0), sin.unsqueeze(0))[0]
        bank = self.low_fourier.analyse(tones) * decimation
        bank = F.pad(bank, (0, self.fourier.bins - self.low_fourier.bins))
        tone_gain, noise_gain = vocoder.gains(mel, notes, _power(bank).unsqueeze(0))
        one, other = (tone_gain * bank + noise_gain * self.fourier.analyse(noise)).unbind(dim=1)
        left, across, right = vocoder.mixing(image)
        spectra = torch.stack([left * one + across * other, across * one + right * other], dim=1)
        spectra = self.fourier.analyse(self.fourier.synthesise(spectra))
        corrected = spectra * vocoder.correction(_power(spectra), mel[0])
        return soft_limit(self.fourier.synthesise(corrected))


def _power(spectra: Tensor) -> Tensor:
    """Mean power of two channels, ``[2, 2, frames, bins]`` to ``[frames, bins]``."""
    return 0.5 * spectra.square().sum(dim=(0, 1))


def graphs(models: NanoModels) -> dict[str, nn.Module]:
    """All three by name."""
    return {
        "encoder": EncoderGraph(models),
        "decoder": DecoderGraph(models),
        "vocoder": VocoderGraph(models.vocoder),
    }


def constants(models: NanoModels) -> dict[str, NDArray[np.float32]]:
    """What the graphs need besides weights, by name; a matrix ``NAME.T`` is a buffer transposed."""
    buffers: dict[str, Tensor] = {}
    for graph in graphs(models).values():
        buffers |= dict(graph.named_buffers())
    return {
        f"constants.{name}": np.ascontiguousarray(
            buffers[name.removesuffix(".T")].numpy().T
            if name.endswith(".T")
            else buffers[name].numpy()
        )
        for name in CONSTANTS
    }
