"""Encoder and deterministic decoder: features to codes, codes to the features' expected value.

A token has three parts: eleven learnt bits, two of the level channel, one of the slow channel.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from codec.nano.blocks import Stack
from codec.nano.config import NanoConfig
from codec.nano.dsp import interpolation_matrix
from codec.nano.level import BASE, LevelChannel, mel_level, mel_widths
from codec.nano.quantizer import FiniteScalarQuantizer
from codec.nano.slow import BANDS, IMAGES, ITEMS, average, read_slow, write_slow

_LEVEL_MEAN, _LEVEL_DEVIATION = 0.8, 1.4
"""Of the training music's levels, to bring them to the networks' range."""
_REFINEMENT = 0.35
"""How far the learnt bits may move a token's level, in ln: 3 dB."""

__all__ = ["Autoencoder", "Normalizer", "TokenDecoder", "TokenEncoder"]


class Normalizer(nn.Module):
    """Features relative to the level to zero mean and unit spread, as in the training music."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(config.feature_dims))
        self.register_buffer("deviation", torch.ones(config.feature_dims))

    mean: Tensor
    deviation: Tensor

    def forward(self, features: Tensor) -> Tensor:
        """Features over their deviation, around zero."""
        return (features - self.mean) / self.deviation

    def inverse(self, normal: Tensor) -> Tensor:
        """Features from what :meth:`forward` gives."""
        return normal * self.deviation + self.mean


class TokenEncoder(nn.Module):
    """Normalised features and level, ``[batch, tokens, feature_dims + 1]``, to four real values."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        self.stack = Stack(
            config.feature_dims + 1,
            config.encoder_width,
            len(config.levels),
            config.encoder_blocks,
            config.encoder_reach,
            config.expansion,
        )

    def forward(self, features: Tensor) -> Tensor:
        """``[batch, tokens, feature_dims + 1]`` to ``[batch, tokens, 4]``."""
        out: Tensor = self.stack(features)
        return out


class TokenDecoder(nn.Module):
    """Quantised values, level and slow channel to expected features and a hidden state.

    The hidden state is what the flow is conditioned on. The values are lifted by sines of several
    frequencies, so that neighbouring levels are easy to tell apart. The slow channel also goes
    straight to the output: the network only describes what departs from it.
    """

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        dims = len(config.levels)
        self.register_buffer("octaves", torch.tensor([1.0, 2.0, 4.0]) * torch.pi, persistent=False)
        self.stack = Stack(
            dims * 7 + 2 * ITEMS + 1,
            config.decoder_width,
            config.feature_dims + 1,
            config.decoder_blocks,
            config.decoder_reach,
            config.expansion,
            config.decoder_memory,
        )
        self.direct = nn.Linear(ITEMS, config.feature_dims, bias=False)

    octaves: Tensor

    def forward(
        self, values: Tensor, level: Tensor, slow: Tensor, known: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What is expected of each token.

        Args:
            values: ``[batch, tokens, 4]``.
            level: ``[batch, tokens, 1]``, normalised.
            slow, known: ``[batch, tokens, 24]``, the former normalised.

        Returns:
            Normalised features ``[batch, tokens, feature_dims]``, a refinement of the level
            ``[batch, tokens]`` and the hidden state ``[batch, tokens, width]``.
        """
        angles = (values.unsqueeze(-1) * self.octaves).flatten(-2)
        lifted = torch.cat([values, angles.sin(), angles.cos(), level, slow, known], dim=-1)
        hidden = self.stack.hidden(lifted)
        out = self.stack.outward(hidden)
        return out[..., :-1] + self.direct(slow), _REFINEMENT * torch.tanh(out[..., -1]), hidden


class Autoencoder(nn.Module):
    """Encoder, quantiser and decoder together, as they are trained."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        self.config = config
        self.normalizer = Normalizer(config)
        self.encoder = TokenEncoder(config)
        self.quantizer = FiniteScalarQuantizer(config.levels)
        self.level = LevelChannel()
        self.decoder = TokenDecoder(config)
        self.fast_codes = math.prod(config.levels)
        self.register_buffer("widths", mel_widths(config.mels), persistent=False)

    widths: Tensor

    def levels(self, features: Tensor) -> Tensor:
        """Level of each token, ``[..., feature_dims]`` to ``[...]``."""
        c = self.config
        mel = features[..., : c.mel_dims].unflatten(-1, (c.mel_frames, c.mels))
        frames = mel_level(mel, self.widths)
        return torch.logsumexp(2 * frames, dim=-1) / 2 - math.log(c.mel_frames) / 2

    def shift(self, features: Tensor, levels: Tensor) -> Tensor:
        """Features with ``levels`` (``[...]``, ln) added to mels and semitones."""
        loud = self.config.mel_dims + self.config.semitone_dims
        place = torch.arange(features.shape[-1], device=features.device)
        mask = (place < loud).to(features.dtype)
        return features + levels.unsqueeze(-1) * mask

    def start_from_slow(self) -> None:
        """Before training: let the slow channel stand for spectrum and image, as it is."""
        c = self.config
        width = c.mels // BANDS
        centres = torch.arange(BANDS, dtype=torch.float64) * width + (width - 1) / 2
        spread = interpolation_matrix(centres, torch.arange(c.mels, dtype=torch.float64))
        _, items = self._slow_statistics()
        image = torch.eye(2 * IMAGES).repeat_interleave(c.stereo_bands // IMAGES, dim=0)
        with torch.no_grad():
            weight = self.decoder.direct.weight
            weight.zero_()
            weight[: c.mel_dims, :BANDS] = spread.repeat(c.mel_frames, 1)
            weight[c.mel_dims + c.semitone_dims :, BANDS:] = image
            weight *= items / self.normalizer.deviation.unsqueeze(1)

    def _slow_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the slow channel's values, ``[24]`` each."""
        return (
            average(self.normalizer.mean, self.config),
            average(self.normalizer.deviation, self.config),
        )

    def values(self, features: Tensor, levels: Tensor) -> Tensor:
        """What is quantised, ``[batch, tokens, 4]``, given the levels that are sent."""
        normal = self.normalizer(self.shift(features, -levels))
        return self.encoder(torch.cat([normal, _level_input(levels)], dim=-1)).float()

    def side_channels(self, features: Tensor, first_token: Tensor | int) -> tuple[Tensor, Tensor]:
        """Digits of level and slow channel, int64 ``[batch, tokens]`` each."""
        levels = self.levels(features)
        return (
            self.level.write(levels, first_token),
            write_slow(features, levels, first_token, self.config),
        )

    def encode(self, features: Tensor, first_token: Tensor | int) -> Tensor:
        """Features ``[batch, tokens, dims]`` to tokens 0 ... 16383, int64 ``[batch, tokens]``."""
        return self.join(features, *self.side_channels(features, first_token), first_token)

    def join(
        self, features: Tensor, level: Tensor, slow: Tensor, first_token: Tensor | int
    ) -> Tensor:
        """:meth:`encode` given the digits of level and slow channel, ``[batch, tokens]``."""
        fast = self.quantizer.encode(self.values(features, self.level.read(level, first_token)))
        return fast + self.fast_codes * (level + BASE * slow)

    def decode(self, tokens: Tensor, first_token: Tensor | int) -> tuple[Tensor, Tensor]:
        """Tokens ``[batch, tokens]`` to expected features and the hidden state."""
        values = self.quantizer.decode(tokens % self.fast_codes)
        rest = tokens // self.fast_codes
        levels = self.level.read(rest % BASE, first_token)
        return self.expect(values, levels, rest // BASE, first_token)

    def expect(
        self, values: Tensor, levels: Tensor, slow: Tensor, first_token: Tensor | int
    ) -> tuple[Tensor, Tensor]:
        """:meth:`decode` from quantised values, levels and slow digits."""
        items, known = read_slow(slow, first_token)
        mean, deviation = self._slow_statistics()
        items = (items - mean) / deviation * known
        normal, refinement, hidden = self.decoder(values, _level_input(levels), items, known)
        shape = self.normalizer.inverse(normal.float())
        # Whatever the network makes of the spectrum, the token is as loud as was sent.
        return self.shift(shape, levels + refinement.float() - self.levels(shape)), hidden

    def forward(self, features: Tensor, first_token: Tensor | int) -> tuple[Tensor, Tensor, Tensor]:
        """Training: features ``[batch, tokens, dims]`` to their reconstruction, codes and values.

        Codes are the learnt ones; values are what the quantiser rounded, in (0, 1).
        """
        level, slow = self.side_channels(features, first_token)
        levels = self.level.read(level, first_token)
        values, codes, unit = self.quantizer(self.values(features, levels))
        expected, _ = self.expect(values, levels, slow, first_token)
        return expected, codes, unit


def _level_input(levels: Tensor) -> Tensor:
    """Levels ``[...]`` in the range of the networks' inputs, ``[..., 1]``."""
    return ((levels - _LEVEL_MEAN) / _LEVEL_DEVIATION).unsqueeze(-1)
