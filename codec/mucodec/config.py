"""Sizes of the published MuCodec model (0.35 kbps), and what it can compute in.

Tests build smaller ones of the same layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["PRECISIONS", "MuCodecConfig", "Precision"]

Precision = Literal["float32", "float16", "bfloat16", "fp8"]
PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "bfloat16", "fp8")
"""What the decoder can compute in; fp8 is float16 with the flow's products in eight bits."""


@dataclass(frozen=True)
class MuCodecConfig:
    """Every width and depth. The defaults are the published checkpoints'."""

    # MuQ encoder. Only the first `hidden_layer` conformer layers are built: the codec uses the
    # hidden state that they leave.
    mels: int = 128
    conv_channels: int = 512
    hidden: int = 1024
    hidden_heads: int = 16
    hidden_expansion: int = 4
    hidden_kernel: int = 31
    hidden_layer: int = 6

    # Quantiser and condition.
    codebook: int = 16_384
    code_dims: int = 32

    # Latents: per frame of 80 ms, `latent_channels` a stereo channel, by `latent_bins` bins.
    latent_channels: int = 16
    latent_bins: int = 32

    # Flow transformer.
    flow_width: int = 1584
    flow_heads: int = 22
    flow_layers: int = 24
    flow_expansion: int = 4
    flow_time_dims: int = 512
    patch: int = 2
    trained_frames: int = 512

    # Mel VAE.
    vae_mels: int = 256
    vae_channels: int = 128
    vae_multipliers: tuple[int, ...] = (1, 2, 4, 8)
    vae_blocks: int = 2
    vae_groups: int = 32

    # Vocoder.
    vocoder_channels: int = 1536
    vocoder_rates: tuple[int, ...] = (6, 5, 4, 2, 2)
    vocoder_kernels: tuple[int, ...] = (12, 10, 8, 4, 4)
    vocoder_block_kernels: tuple[int, ...] = (3, 7, 11, 15)
    vocoder_dilations: tuple[int, ...] = (1, 3, 5)

    @property
    def condition_channels(self) -> int:
        """Channels of latents and of the condition map: left and right together."""
        return 2 * self.latent_channels
