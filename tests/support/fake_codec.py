"""A tiny real codec without weights, so that tests of the streaming code run in milliseconds.

A token is the loudness and a coarse left/right balance of its 1920 samples, mixed with a little of
the window's context so that window positions matter. The sound is a 440 Hz tone of absolute phase
with that loudness, interpolated between tokens (which needs a margin), plus keyed noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from codec.base import Codec, DecoderWindow, DecodeSettings, EncoderWindow
from codec.constants import SAMPLE_RATE, SAMPLES_PER_TOKEN
from codec.noise import keyed_normal

LEVELS = 1024
BALANCES = 16


class FakeCodec(Codec):
    """Loudness and balance per token; fulfils the whole interface."""

    name = "fake"
    weights = "fake-1"
    digest = "0" * 63 + "1"
    encoder_window = EncoderWindow(left=4, hop=8, lookahead=4)
    decoder_window = DecoderWindow(context=4, hop=8, lookahead=4)
    latent_tokens = 1
    render_margin_tokens = 2
    crossfade_samples = 480

    def encode_window(self, audio: Tensor, window: EncoderWindow, *, first_token: int) -> Tensor:
        assert audio.shape == (2, window.tokens * SAMPLES_PER_TOKEN)
        power = audio.reshape(2, window.tokens, SAMPLES_PER_TOKEN).square().mean(dim=2)
        keep = slice(window.left, window.left + window.hop)
        rms = power.mean(dim=0)[keep].sqrt()
        level = (rms.clamp(0, 1) * (LEVELS - 1)).round().long()
        share = power[0] / power.sum(dim=0).clamp_min(1e-9)
        balance = (share[keep] * (BALANCES - 1)).round().long()
        return level * BALANCES + balance

    def decode_window(
        self,
        tokens: Tensor,
        *,
        first_token: int,
        context: Tensor | None,
        seed: int,
        settings: DecodeSettings,
    ) -> Tensor:
        level = (tokens // BALANCES).float() / (LEVELS - 1)
        share = (tokens % BALANCES).float() / (BALANCES - 1)
        latents = torch.stack([level * (2 * share).sqrt(), level * (2 * (1 - share)).sqrt()], dim=1)
        noise = keyed_normal(seed, first_token, len(tokens), 2)
        temperature = 1.0 if settings.temperature is None else settings.temperature
        latents = latents * (1 + 0.01 * temperature * noise)
        if context is not None:
            latents[: len(context)] = context
        return latents

    def render(self, latents: Tensor, *, first_token: int, seed: int) -> Tensor:
        frames = len(latents)
        at = (torch.arange(frames * SAMPLES_PER_TOKEN) + 0.5) / SAMPLES_PER_TOKEN - 0.5
        at = at.clamp(0, frames - 1)
        low = at.floor().long()
        high = (low + 1).clamp_max(frames - 1)
        part = (at - low).unsqueeze(1)
        gain = latents[low] * (1 - part) + latents[high] * part
        start = first_token * SAMPLES_PER_TOKEN
        time = (torch.arange(start, start + len(at), dtype=torch.float64)) / SAMPLE_RATE
        tone = torch.sin(2 * torch.pi * 440 * time).float() * 2**0.5
        return (gain * tone.unsqueeze(1)).T.contiguous()


def load_none(name: str, **options: object) -> FakeCodec:
    """In the place of ``codec.load`` where nothing may be loaded."""
    raise AssertionError(f"a model was loaded: {name}")


def load_fake(name: str, **options: object) -> FakeCodec:
    """In the place of ``codec.load``; other processes find it by its name."""
    return FakeCodec()
