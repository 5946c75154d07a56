"""The mel autoencoder between latents and log-mels, in both directions.

AudioLDM's (Liu et al., 2023), which is the convolutional autoencoder of Rombach et al., "Latent
Diffusion", 2022, on one-channel images of mels. Names of submodules are those of the checkpoint.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codec.mucodec.config import MuCodecConfig
from codec.nano.dsp import mel_filterbank

__all__ = ["MelVae", "vae_log_mel"]

_N_FFT, _HOP = 2048, 480
_ATTENTION_ROWS = 2048


def vae_log_mel(audio: Tensor, mels: int) -> Tensor:
    """ln mel magnitudes of 48 kHz sound: ``[batch, samples]`` to ``[batch, frames, mels]``."""
    window = torch.hann_window(_N_FFT, device=audio.device)
    magnitude = torch.stft(audio, _N_FFT, _HOP, window=window, return_complex=True).abs()
    filters = mel_filterbank(_N_FFT, mels, low_hz=20.0).to(audio)
    return torch.log((filters @ magnitude).clamp_min(1e-5)).transpose(1, 2)


def norm_silu(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """``silu(norm(x))``.

    A compiler gets it written for channels-last memory, to make one pass of it: torch's own group
    norm computes in contiguous memory alone, so that every convolution would have its map copied.
    """
    if not torch.compiler.is_compiling():
        return F.silu(norm(x))
    last = x.permute(0, 2, 3, 1)
    # [batch, places, groups, channels of a group]
    rows = last.flatten(1, 2).unflatten(2, (norm.num_groups, -1)).float()
    variance, mean = torch.var_mean(rows, dim=(1, 3), keepdim=True, correction=0)
    normal = ((rows - mean) * torch.rsqrt(variance + norm.eps)).reshape(last.shape)
    return F.silu(normal * norm.weight.float() + norm.bias.float()).to(x.dtype).permute(0, 3, 1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of one head over ``[batch, places, channels]``, some thousand places at a time.

    Heads as wide as this one have no fused kernel in half precision; two products and a softmax
    are eight times faster than what is there for float32, and blocks of rows bound the memory.
    """
    q = q * q.shape[-1] ** -0.5  # before the product, whose range is narrow in float16
    keys = k.transpose(1, 2)
    blocks = [torch.softmax(rows @ keys, dim=-1) @ v for rows in q.split(_ATTENTION_ROWS, dim=1)]
    return torch.cat(blocks, dim=1)


def _norm(channels: int, config: MuCodecConfig) -> nn.GroupNorm:
    return nn.GroupNorm(config.vae_groups, channels, eps=1e-6)


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, config: MuCodecConfig) -> None:
        super().__init__()
        self.norm1 = _norm(inputs, config)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = _norm(outputs, config)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(norm_silu(self.norm1, x))
        y = self.conv2(norm_silu(self.norm2, y))
        out: Tensor = self.nin_shortcut(x) + y
        return out


class AttentionBlock(nn.Module):
    """Attention of one head over all places of the map."""

    def __init__(self, channels: int, config: MuCodecConfig) -> None:
        super().__init__()
        self.norm = _norm(channels, config)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        normal = self.norm(x)
        q, k, v = (part(normal).flatten(2).transpose(1, 2) for part in (self.q, self.k, self.v))
        y = attend(q, k, v).transpose(1, 2).reshape(x.shape)
        out: Tensor = x + self.proj_out(y)
        return out


class Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return out


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class Middle(nn.Module):
    def __init__(self, channels: int, config: MuCodecConfig) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels, config)
        self.attn_1 = AttentionBlock(channels, config)
        self.block_2 = ResidualBlock(channels, channels, config)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return out


class Level(nn.Module):
    """Residual blocks at one resolution, then a change of resolution unless it is the last."""

    def __init__(
        self, inputs: int, outputs: int, blocks: int, resample: str | None, config: MuCodecConfig
    ) -> None:
        super().__init__()
        widths = [inputs] + [outputs] * (blocks - 1)
        self.block = nn.ModuleList(ResidualBlock(width, outputs, config) for width in widths)
        if resample == "down":
            self.downsample = Downsample(outputs)
        elif resample == "up":
            self.upsample = Upsample(outputs)
        self.resample = resample

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        if self.resample == "down":
            x = self.downsample(x)
        elif self.resample == "up":
            x = self.upsample(x)
        return x


class MelEncoder(nn.Module):
    def __init__(self, config: MuCodecConfig) -> None:
        super().__init__()
        c = config
        widths = [c.vae_channels * m for m in c.vae_multipliers]
        self.conv_in = nn.Conv2d(1, c.vae_channels, 3, padding=1)
        inputs = [c.vae_channels, *widths[:-1]]
        last = len(widths) - 1
        self.down = nn.ModuleList(
            Level(a, b, c.vae_blocks, "down" if i < last else None, c)
            for i, (a, b) in enumerate(zip(inputs, widths, strict=True))
        )
        self.mid = Middle(widths[-1], c)
        self.norm_out = _norm(widths[-1], c)
        self.conv_out = nn.Conv2d(widths[-1], 2 * c.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        out: Tensor = self.conv_out(norm_silu(self.norm_out, self.mid(x)))
        return out


class MelDecoder(nn.Module):
    def __init__(self, config: MuCodecConfig) -> None:
        super().__init__()
        c = config
        widths = [c.vae_channels * m for m in c.vae_multipliers]
        self.conv_in = nn.Conv2d(c.latent_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], c)
        # Numbered by resolution, so the last level runs first.
        inputs = [*widths[1:], widths[-1]]
        self.up = nn.ModuleList(
            Level(a, b, c.vae_blocks + 1, "up" if i > 0 else None, c)
            for i, (a, b) in enumerate(zip(inputs, widths, strict=True))
        )
        self.norm_out = _norm(widths[0], c)
        self.conv_out = nn.Conv2d(widths[0], 1, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            x = level(x)
        out: Tensor = self.conv_out(norm_silu(self.norm_out, x))
        return out


class MelVae(nn.Module):
    """Log-mels ``[batch, frames, mels]``; latents ``[batch, channels, frames / 8, mels / 8]``.

    Args:
        decoder_only: without :meth:`encode`, which making sound of tokens does not need.
    """

    def __init__(self, config: MuCodecConfig, decoder_only: bool = False) -> None:
        super().__init__()
        c = config
        if not decoder_only:
            self.encoder = MelEncoder(c)
            self.quant_conv = nn.Conv2d(2 * c.latent_channels, 2 * c.latent_channels, 1)
        self.decoder = MelDecoder(c)
        self.post_quant_conv = nn.Conv2d(c.latent_channels, c.latent_channels, 1)

    def encode(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the posterior; frames must be a multiple of 8."""
        moments = self.quant_conv(self.encoder(mel.unsqueeze(1)))
        mean, log_variance = moments.chunk(2, dim=1)
        return mean, log_variance.clamp(-30, 20)

    def decode(self, latents: Tensor, scale_factor: Tensor | float) -> Tensor:
        """Log-mels of the flow's latents, which are ``scale_factor`` times the VAE's."""
        z = (latents / scale_factor).to(self.post_quant_conv.weight.dtype)
        out: Tensor = self.decoder(self.post_quant_conv(z))
        return out[:, 0]
