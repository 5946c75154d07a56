"""Encoder and deterministic decoder: features to codes, codes to the features' expected value."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from codec.nano.blocks import Stack
from codec.nano.config import NanoConfig
from codec.nano.dsp import interpolation_matrix
from codec.nano.envelope import BANDS, read_envelope, write_digits
from codec.nano.quantizer import FiniteScalarQuantizer

__all__ = ["Autoencoder", "Normalizer", "TokenDecoder", "TokenEncoder"]


class Normalizer(nn.Module):
    """Features to zero mean and unit spread, with statistics of the training music.

    One mean and deviation per mel, semitone and stereo band, shared by the frames of a token.
    """

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(config.feature_dims))
        self.register_buffer("deviation", torch.ones(config.feature_dims))

    mean: Tensor
    deviation: Tensor

    def forward(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.deviation

    def inverse(self, normal: Tensor) -> Tensor:
        return normal * self.deviation + self.mean


class TokenEncoder(nn.Module):
    """Normalised features ``[batch, tokens, feature_dims]`` to four real values a token."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        self.stack = Stack(
            config.feature_dims,
            config.encoder_width,
            len(config.levels),
            config.encoder_blocks,
            config.encoder_reach,
            config.expansion,
        )

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.stack(features)
        return out


class TokenDecoder(nn.Module):
    """Quantised values and the slow channel to expected normalised features and a hidden state.

    The hidden state is what the flow is conditioned on. The values are lifted by sines of several
    frequencies, so that neighbouring levels are easy to tell apart. The long-term spectrum also
    goes straight to the output: the network only describes what departs from it.
    """

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        dims = len(config.levels)
        self.register_buffer("octaves", torch.tensor([1.0, 2.0, 4.0]) * torch.pi, persistent=False)
        self.stack = Stack(
            dims * 7 + 2 * BANDS,
            config.decoder_width,
            config.feature_dims,
            config.decoder_blocks,
            config.decoder_reach,
            config.expansion,
            config.decoder_memory,
        )
        self.direct = nn.Linear(BANDS, config.feature_dims, bias=False)

    octaves: Tensor

    def forward(self, values: Tensor, envelope: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """values: ``[batch, tokens, 4]``; envelope (normalised) and known: ``[batch, tokens, 32]``.

        Returns ``[batch, tokens, feature_dims]`` and ``[batch, tokens, width]``.
        """
        angles = (values.unsqueeze(-1) * self.octaves).flatten(-2)
        lifted = torch.cat([values, angles.sin(), angles.cos(), envelope, known], dim=-1)
        hidden = self.stack.hidden(lifted)
        return self.stack.outward(hidden) + self.direct(envelope), hidden


class Autoencoder(nn.Module):
    """Encoder, quantiser and decoder together, as they are trained."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        self.config = config
        self.normalizer = Normalizer(config)
        self.encoder = TokenEncoder(config)
        self.quantizer = FiniteScalarQuantizer(config.levels)
        self.decoder = TokenDecoder(config)
        self.fast_codes = math.prod(config.levels)

    def band_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the slow channel's bands, ``[32]`` each."""
        c = self.config
        shape = (c.mel_frames, BANDS, c.mels // BANDS)
        mean = self.normalizer.mean[: c.mel_dims].reshape(shape).mean(dim=(0, 2))
        deviation = self.normalizer.deviation[: c.mel_dims].reshape(shape).mean(dim=(0, 2))
        return mean, deviation

    def start_from_envelope(self) -> None:
        """Before training: let the long-term spectrum stand for the mels, as it is."""
        c = self.config
        width = c.mels // BANDS
        centres = torch.arange(BANDS, dtype=torch.float64) * width + (width - 1) / 2
        spread = interpolation_matrix(centres, torch.arange(c.mels, dtype=torch.float64))
        _, band_deviation = self.band_statistics()
        deviation = self.normalizer.deviation[: c.mel_dims].unsqueeze(1)
        with torch.no_grad():
            self.decoder.direct.weight.zero_()
            rows = spread.repeat(c.mel_frames, 1) * band_deviation / deviation
            self.decoder.direct.weight[: c.mel_dims] = rows

    def encode(self, features: Tensor, first_token: Tensor | int) -> Tensor:
        """Features ``[batch, tokens, dims]`` to tokens 0 ... 16383, int64 ``[batch, tokens]``."""
        fast = self.quantizer.encode(self.encoder(self.normalizer(features)))
        return fast + self.fast_codes * write_digits(features, first_token, self.config)

    def decode(self, tokens: Tensor, first_token: Tensor | int) -> tuple[Tensor, Tensor]:
        """Tokens ``[batch, tokens]`` to expected normalised features and the hidden state."""
        values = self.quantizer.decode(tokens % self.fast_codes)
        return self.expect(values, tokens // self.fast_codes, first_token)

    def expect(
        self, values: Tensor, digits: Tensor, first_token: Tensor | int
    ) -> tuple[Tensor, Tensor]:
        """:meth:`decode` from quantised values and slow digits."""
        envelope, known = read_envelope(digits, first_token)
        mean, deviation = self.band_statistics()
        expected, hidden = self.decoder(values, (envelope - mean) / deviation * known, known)
        return expected, hidden

    def forward(self, features: Tensor, first_token: Tensor | int) -> tuple[Tensor, Tensor]:
        """Features ``[batch, tokens, dims]`` to their reconstruction and the fast codes."""
        values, codes = self.quantizer(self.encoder(self.normalizer(features)).float())
        digits = write_digits(features, first_token, self.config)
        expected, _ = self.expect(values, digits, first_token)
        return self.normalizer.inverse(expected.float()), codes
