"""Encoder and deterministic decoder: features to codes, codes to the features' expected value."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from codec.nano.blocks import Stack
from codec.nano.config import NanoConfig
from codec.nano.quantizer import FiniteScalarQuantizer

__all__ = ["Normalizer", "TokenDecoder", "TokenEncoder"]


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
    """Normalised features ``[batch, tokens, feature_dims]`` to five real values a token."""

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
    """Quantised values ``[batch, tokens, 5]`` to expected normalised features and a hidden state.

    The hidden state is what the flow is conditioned on. The input is lifted by sines of several
    frequencies, so that neighbouring levels are easy to tell apart.
    """

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        dims = len(config.levels)
        self.register_buffer("octaves", torch.tensor([1.0, 2.0, 4.0]) * torch.pi, persistent=False)
        self.stack = Stack(
            dims * 7,
            config.decoder_width,
            config.feature_dims,
            config.decoder_blocks,
            config.decoder_reach,
            config.expansion,
        )

    octaves: Tensor

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        angles = (values.unsqueeze(-1) * self.octaves).flatten(-2)
        lifted = torch.cat([values, angles.sin(), angles.cos()], dim=-1)
        hidden = self.stack.hidden(lifted)
        return self.stack.outward(hidden), hidden


class Autoencoder(nn.Module):
    """Encoder, quantiser and decoder together, as they are trained."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        self.config = config
        self.normalizer = Normalizer(config)
        self.encoder = TokenEncoder(config)
        self.quantizer = FiniteScalarQuantizer(config.levels)
        self.decoder = TokenDecoder(config)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``[batch, tokens, dims]`` to their reconstruction and the codes."""
        values, codes = self.quantizer(self.encoder(self.normalizer(features)).float())
        expected, _ = self.decoder(values)
        return self.normalizer.inverse(expected.float()), codes
