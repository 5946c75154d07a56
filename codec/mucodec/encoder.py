"""The MuQ encoder's front half: sound to the hidden state that the codec quantises.

Zhu et al., "MuQ: Self-Supervised Music Representation Learning with Mel Residual Vector
Quantization", 2025. Its conformer follows the layer layout of Gulati et al., "Conformer", 2020,
as Wav2Vec2-Conformer has it. Names of submodules are those of the published checkpoint.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codec.mucodec.config import MuCodecConfig
from codec.mucodec.dsp import htk_filterbank

__all__ = ["MuqEncoder", "log_mel"]

_N_FFT, _HOP, _RATE = 2048, 240, 24_000
_MEAN, _DEVIATION = 6.768444971712967, 18.417922652295623


def log_mel(mono: Tensor, filters: Tensor) -> Tensor:
    """Normalised log-mels of 24 kHz sound, 100 frames a second.

    Decibels, shifted and scaled by the training data's mean and deviation.

    Args:
        mono: ``[batch, samples]``.
        filters: ``[mels, bins]``.

    Returns:
        ``[batch, mels, samples / 240]``.
    """
    window = torch.hann_window(_N_FFT, device=mono.device)
    spectrum = torch.stft(mono, _N_FFT, _HOP, window=window, return_complex=True)
    power = spectrum.real.square() + spectrum.imag.square()
    decibels = 10 * torch.log10((filters @ power).clamp_min(1e-10))
    return (decibels[..., :-1] - _MEAN) / _DEVIATION


class ResidualConv(nn.Module):
    """Two 3x3 convolutions with batch norm, the first of stride two, beside a strided shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv3 = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
        self.bn3 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.bn3(self.conv3(x)))


class Subsampling(nn.Module):
    """Mels ``[batch, mels, frames]`` to ``[batch, frames / 4, hidden]``: 100 to 25 a second."""

    def __init__(self, config: MuCodecConfig) -> None:
        super().__init__()
        c = config
        self.conv = nn.Sequential(
            ResidualConv(1, c.conv_channels), ResidualConv(c.conv_channels, c.conv_channels)
        )
        self.linear = nn.Linear(c.conv_channels * c.mels // 4, c.hidden)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.conv(mel.unsqueeze(1))  # [batch, channels, bands, frames]
        out: Tensor = self.linear(x.permute(0, 3, 1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(width, expansion * width)
        self.output_dense = nn.Linear(expansion * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.output_dense(F.silu(self.intermediate_dense(x)))
        return out


class SelfAttention(nn.Module):
    """Attention whose input is turned by the rotary embedding *before* queries and keys are made.

    The usual rotary embedding turns the projected heads, which makes attention depend on distances
    alone. This one is how the published encoder was trained: positions within the window matter.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear_q = nn.Linear(width, width)
        self.linear_k = nn.Linear(width, width)
        self.linear_v = nn.Linear(width, width)
        self.linear_out = nn.Linear(width, width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        split = (self.heads, x.shape[-1] // self.heads)
        parts = x.unflatten(-1, split)
        first, second = parts.chunk(2, dim=-1)
        turned = (parts * cos + torch.cat([-second, first], dim=-1) * sin).flatten(-2)
        q, k, v = (
            linear(y).unflatten(-1, split).transpose(1, 2)
            for linear, y in (
                (self.linear_q, turned),
                (self.linear_k, turned),
                (self.linear_v, x),
            )
        )
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)
        out: Tensor = self.linear_out(y)
        return out


class ConvModule(nn.Module):
    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(width)
        self.pointwise_conv1 = nn.Conv1d(width, 2 * width, 1, bias=False)
        self.depthwise_conv = nn.Conv1d(
            width, width, kernel, padding=kernel // 2, groups=width, bias=False
        )
        self.batch_norm = nn.BatchNorm1d(width)
        self.pointwise_conv2 = nn.Conv1d(width, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.glu(self.pointwise_conv1(self.layer_norm(x).transpose(1, 2)), dim=1)
        y = F.silu(self.batch_norm(self.depthwise_conv(y)))
        out: Tensor = self.pointwise_conv2(y).transpose(1, 2)
        return out


class ConformerLayer(nn.Module):
    def __init__(self, config: MuCodecConfig) -> None:
        super().__init__()
        c = config
        self.ffn1_layer_norm = nn.LayerNorm(c.hidden)
        self.ffn1 = FeedForward(c.hidden, c.hidden_expansion)
        self.self_attn_layer_norm = nn.LayerNorm(c.hidden)
        self.self_attn = SelfAttention(c.hidden, c.hidden_heads)
        self.conv_module = ConvModule(c.hidden, c.hidden_kernel)
        self.ffn2_layer_norm = nn.LayerNorm(c.hidden)
        self.ffn2 = FeedForward(c.hidden, c.hidden_expansion)
        self.final_layer_norm = nn.LayerNorm(c.hidden)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + 0.5 * self.ffn1(self.ffn1_layer_norm(x))
        x = x + self.self_attn(self.self_attn_layer_norm(x), cos, sin)
        x = x + self.conv_module(x)
        x = x + 0.5 * self.ffn2(self.ffn2_layer_norm(x))
        out: Tensor = self.final_layer_norm(x)
        return out


class Conformer(nn.Module):
    """The first layers only; returns what the last of them leaves, before any further norm."""

    def __init__(self, config: MuCodecConfig) -> None:
        super().__init__()
        self.head_dims = config.hidden // config.hidden_heads
        self.layers = nn.ModuleList(ConformerLayer(config) for _ in range(config.hidden_layer))

    def positions(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the rotary angles, ``[length, 1, head_dims]`` each."""
        even = torch.arange(0, self.head_dims, 2, device=device).float()
        rates = 1.0 / 10_000 ** (even / self.head_dims)
        angles = torch.arange(length, device=device).float().unsqueeze(1) * rates
        angles = torch.cat([angles, angles], dim=1).unsqueeze(1)
        return angles.cos(), angles.sin()

    def forward(self, x: Tensor) -> Tensor:
        cos, sin = (part.to(x.dtype) for part in self.positions(x.shape[1], x.device))
        for layer in self.layers:
            x = layer(x, cos, sin)
        return x


class MuqEncoder(nn.Module):
    """24 kHz mono ``[batch, samples]`` to hidden states ``[batch, samples / 960, hidden]``."""

    def __init__(self, config: MuCodecConfig) -> None:
        super().__init__()
        self.conv = Subsampling(config)
        self.conformer = Conformer(config)
        self.register_buffer("mel_filters", self.filters(config), persistent=False)

    mel_filters: Tensor

    @staticmethod
    def filters(config: MuCodecConfig) -> Tensor:
        """Mel filters ``[mels, bins]``."""
        return htk_filterbank(_RATE, _N_FFT, config.mels)

    def forward(self, mono: Tensor) -> Tensor:
        """Hidden states of ``mono``."""
        mel = log_mel(mono, self.mel_filters)
        out: Tensor = self.conformer(self.conv(mel.to(self.conv.linear.weight.dtype)))
        return out
