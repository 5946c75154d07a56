"""nano in torch, and everything of it that is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from codec.base import Audio, DecodeSettings, EncoderWindow, Latents, TokenArray
from codec.nano.base import (
    DEFAULT_STEPS,
    DEFAULT_TEMPERATURE,
    FLOW_CONTEXT,
    FLOW_PURPOSE,
    Nano,
)
from codec.nano.config import NanoConfig
from codec.nano.dsp import mel_centres, soft_limit
from codec.nano.features import Features
from codec.nano.flow import FlowDecoder, sample
from codec.nano.level import mel_level
from codec.nano.model import Autoencoder
from codec.nano.vocoder import Vocoder
from codec.noise import keyed_normal
from codec.sampling import time_grid
from codec.torch_backend import array, tensor

__all__ = ["NanoModels", "TorchNano", "with_texture"]

_LEAST_TEXTURE, _TEXTURE_FROM_HZ = 0.4, 1800.0
"""How much of the flow's texture goes into low mels, and from where on all of it does: what is
guessed there costs harmony, and it is heard less than in the treble."""


class NanoModels(nn.Module):
    """Everything that is trained, under one roof for one weights file."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        self.codec = Autoencoder(config)
        self.flow = FlowDecoder(config)
        self.vocoder = Vocoder(config)
        self.register_buffer("texture", _texture_amount(config), persistent=False)

    texture: Tensor
    """How much of each feature's residual is taken, ``[feature_dims]``."""


def _texture_amount(config: NanoConfig) -> Tensor:
    high = torch.sigmoid(4 * torch.log2(mel_centres(config.mels) / _TEXTURE_FROM_HZ))
    amount = (_LEAST_TEXTURE + (1 - _LEAST_TEXTURE) * high).float().repeat(config.mel_frames)
    return torch.cat([amount, amount.new_zeros(config.feature_dims - config.mel_dims)])


class TorchNano(Nano):
    """nano in torch: for training, all settings of the flow, and weights in half precision."""

    def __init__(self, models: NanoModels, weights: str, digest: str) -> None:
        self.models = models.eval().requires_grad_(False)
        self.config = models.codec.config
        self.features = Features(self.config)
        self.weights = weights
        self.digest = digest

    @torch.inference_mode()
    def encode_window(self, audio: Audio, window: EncoderWindow, *, first_token: int) -> TokenArray:
        """See the base."""
        features = self.features(tensor(audio)).unsqueeze(0)
        tokens: Tensor = self.models.codec.encode(features, first_token - window.left)[0]
        return array(tokens[window.left : window.left + window.hop])

    @torch.inference_mode()
    def decode_window(
        self,
        tokens: TokenArray,
        *,
        first_token: int,
        context: Latents | None,
        seed: int,
        settings: DecodeSettings,
    ) -> Latents:
        """See the base."""
        codec, flow = self.models.codec, self.models.flow
        steps = DEFAULT_STEPS if settings.steps is None else settings.steps
        guidance = 1.0 if settings.guidance is None else settings.guidance
        temperature = DEFAULT_TEMPERATURE if settings.temperature is None else settings.temperature
        expected, hidden = (
            row[0] for row in codec.decode(tensor(tokens).unsqueeze(0), first_token)
        )
        latents = expected.clone()
        if context is None:
            known, start = None, 0
        else:
            # The token decoder remembers seconds; for texture the last few tokens are enough.
            known, start = len(context), max(0, len(context) - FLOW_CONTEXT)
            latents[:known] = tensor(context)
        if steps:
            unit = codec.normalizer.deviation * flow.deviation
            residual = (latents[start:] - expected[start:]) / unit
            noise = keyed_normal(
                seed,
                first_token + start,
                len(tokens) - start,
                self.config.feature_dims,
                FLOW_PURPOSE,
            )
            residual = sample(
                flow,
                hidden[start:],
                temperature * tensor(noise),
                None if known is None else residual[: known - start],
                guidance=guidance,
                times=time_grid(steps, settings.warp),
                solver=settings.solver,
            )
            new = start if known is None else known
            residual = residual * unit * self.models.texture
            latents[new:] = with_texture(codec, expected[new:], residual[new - start :])
        return array(latents)

    def render(self, latents: Latents, *, first_token: int, seed: int) -> Audio:
        """See the base."""
        sound = self.models.vocoder.render(tensor(latents), first_token, seed)
        return array(soft_limit(sound))


def with_texture(codec: Autoencoder, expected: Tensor, residual: Tensor) -> Tensor:
    """Expected latents with the flow's residual on their mels, both ``[..., feature_dims]``.

    Each frame keeps the power that is expected there: texture moves power between bands and leaves
    loudness to the token decoder, which knows better; random movements of the level are heard as
    pumping. Semitones and stereo image stay at their expected values: the residual of semitones
    leans towards silence (its mean would take tones 4 dB down), that of the image is as good as
    unpredictable, and added noise only widens it.
    """
    c = codec.config
    plain, rest = expected[..., : c.mel_dims], expected[..., c.mel_dims :]
    plain = plain.unflatten(-1, (c.mel_frames, c.mels))
    textured = plain + residual[..., : c.mel_dims].unflatten(-1, (c.mel_frames, c.mels))
    change = mel_level(plain, codec.widths) - mel_level(textured, codec.widths)
    return torch.cat([(textured + change.unsqueeze(-1)).flatten(-2), rest], dim=-1)
