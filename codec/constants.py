"""Rates and sizes that every codec in this project shares; importable without torch.

Source: MuCodec, "Ultra Low-Bitrate Music Codec": 25 tokens a second from one codebook of
16384 entries, 48 kHz stereo. The product of the two is the 350 bit/s of the project.
"""

from typing import Final

__all__ = [
    "CHANNELS",
    "CODEBOOK_SIZE",
    "SAMPLES_PER_TOKEN",
    "SAMPLE_RATE",
    "TOKEN_BITS",
    "TOKEN_RATE",
]

SAMPLE_RATE: Final = 48_000
"""Samples a second and channel, in and out."""
CHANNELS: Final = 2
TOKEN_RATE: Final = 25
"""Tokens a second."""
TOKEN_BITS: Final = 14
CODEBOOK_SIZE: Final = 1 << TOKEN_BITS
SAMPLES_PER_TOKEN: Final = SAMPLE_RATE // TOKEN_RATE
