"""What nano is to the engine, whichever of torch and onnxruntime computes it."""

from __future__ import annotations

from typing import Final

from codec.base import Codec, DecoderWindow, EncoderWindow
from codec.constants import SAMPLES_PER_TOKEN

__all__ = [
    "DEFAULT_STEPS",
    "DEFAULT_TEMPERATURE",
    "FLOW_CONTEXT",
    "FLOW_PURPOSE",
    "NOISE_PURPOSE",
    "RENDER_MARGIN",
    "SIDE_PERIOD",
    "Nano",
]

FLOW_PURPOSE: Final = 1
NOISE_PURPOSE: Final = 2
FLOW_CONTEXT: Final = 16
"""Tokens of known latents that the flow sees: its reach to the left."""
DEFAULT_STEPS: Final = 1
"""Evaluations of the flow: it was trained to need no more (training/train_texture.py)."""
DEFAULT_TEMPERATURE: Final = 1.0
SIDE_PERIOD: Final = 240
"""Tokens after which the level channel's chains and the slow channel's rounds meet again."""
RENDER_MARGIN: Final = 6
"""Tokens that the vocoder reaches to both sides."""


class Nano(Codec):
    """Latents are the codec's features themselves: mels, semitones and stereo image of a token."""

    name = "nano"
    encoder_window = EncoderWindow(left=30, hop=24, lookahead=8)
    decoder_window = DecoderWindow(context=128, hop=24, lookahead=8)
    latent_tokens = 1
    render_margin_tokens = RENDER_MARGIN
    crossfade_samples = SAMPLES_PER_TOKEN // 2
