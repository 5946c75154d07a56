"""MuCodec with the published layout at a size that loads and runs in no time."""

from __future__ import annotations

from codec.mucodec.config import MuCodecConfig
from codec.mucodec.model import MuCodecModel
from tests.support.seeded import fill_model

__all__ = ["TINY", "tiny_model"]

TINY = MuCodecConfig(
    mels=16,
    conv_channels=4,
    hidden=32,
    hidden_heads=4,
    hidden_layer=2,
    code_dims=8,
    latent_channels=4,
    latent_bins=4,
    flow_width=48,
    flow_heads=2,
    flow_layers=1,
    flow_time_dims=16,
    vae_mels=32,
    vae_channels=32,
    vae_multipliers=(1, 1, 1, 1),
    vae_blocks=1,
    vocoder_channels=32,
    vocoder_block_kernels=(3, 7),
    vocoder_dilations=(1, 3),
)


def tiny_model() -> MuCodecModel:
    """All of it, with seeded weights."""
    model = MuCodecModel(TINY)
    fill_model(model)
    return model.eval()
