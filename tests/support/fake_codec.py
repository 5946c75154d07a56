"""A tiny real codec without weights, so that tests of the streaming code run in milliseconds.

A token is the loudness and a coarse left/right balance of its 1920 samples, mixed with a little of
the window's context so that window positions matter. The sound is a 440 Hz tone of absolute phase
with that loudness, interpolated between tokens (which needs a margin), plus keyed noise.
"""

from __future__ import annotations

import numpy as np

from codec.base import (
    Audio,
    Codec,
    DecoderWindow,
    DecodeSettings,
    EncoderWindow,
    Latents,
    TokenArray,
)
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

    def encode_window(self, audio: Audio, window: EncoderWindow, *, first_token: int) -> TokenArray:
        assert audio.shape == (2, window.tokens * SAMPLES_PER_TOKEN)
        power = np.square(audio.reshape(2, window.tokens, SAMPLES_PER_TOKEN)).mean(axis=2)
        keep = slice(window.left, window.left + window.hop)
        rms = np.sqrt(power.mean(axis=0)[keep])
        level = np.rint(rms.clip(0, 1) * (LEVELS - 1)).astype(np.int64)
        share = power[0] / np.maximum(power.sum(axis=0), 1e-9)
        balance = np.rint(share[keep] * (BALANCES - 1)).astype(np.int64)
        return level * BALANCES + balance

    def decode_window(
        self,
        tokens: TokenArray,
        *,
        first_token: int,
        context: Latents | None,
        seed: int,
        settings: DecodeSettings,
    ) -> Latents:
        level = (tokens // BALANCES).astype(np.float32) / (LEVELS - 1)
        share = (tokens % BALANCES).astype(np.float32) / (BALANCES - 1)
        latents = np.stack([level * np.sqrt(2 * share), level * np.sqrt(2 * (1 - share))], axis=1)
        noise = keyed_normal(seed, first_token, len(tokens), 2)
        temperature = 1.0 if settings.temperature is None else settings.temperature
        latents *= 1 + 0.01 * temperature * noise
        if context is not None:
            latents[: len(context)] = context
        return latents

    def render(self, latents: Latents, *, first_token: int, seed: int) -> Audio:
        frames = len(latents)
        at = (np.arange(frames * SAMPLES_PER_TOKEN) + 0.5) / SAMPLES_PER_TOKEN - 0.5
        at = at.clip(0, frames - 1)
        low = at.astype(np.int64)
        high = np.minimum(low + 1, frames - 1)
        part = (at - low)[:, None]
        gain = latents[low] * (1 - part) + latents[high] * part
        start = first_token * SAMPLES_PER_TOKEN
        time = np.arange(start, start + len(at)) / SAMPLE_RATE
        tone = np.sin(2 * np.pi * 440 * time) * 2**0.5
        return np.ascontiguousarray((gain * tone[:, None]).T, dtype=np.float32)


def load_none(name: str, **options: object) -> FakeCodec:
    """In the place of ``codec.load`` where nothing may be loaded."""
    raise AssertionError(f"a model was loaded: {name}")


def load_fake(name: str, **options: object) -> FakeCodec:
    """In the place of ``codec.load``; other processes find it by its name."""
    return FakeCodec()
