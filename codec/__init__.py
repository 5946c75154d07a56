"""Codecs: sound to tokens and back. Importing this package does not import torch.

>>> import codec                                   # doctest: +SKIP
>>> nano = codec.load("nano")                      # doctest: +SKIP
>>> tokens = nano.sound2code(audio)                # doctest: +SKIP
>>> sound = nano.code2sound(tokens, seed=0)        # doctest: +SKIP
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from codec.constants import (
    CHANNELS,
    CODEBOOK_SIZE,
    SAMPLE_RATE,
    SAMPLES_PER_TOKEN,
    TOKEN_BITS,
    TOKEN_RATE,
)
from codec.errors import CodecError, UnknownCodecError, WeightsError

if TYPE_CHECKING:
    from codec.base import Codec

__all__ = [
    "CHANNELS",
    "CODEBOOK_SIZE",
    "CODECS",
    "SAMPLES_PER_TOKEN",
    "SAMPLE_RATE",
    "TOKEN_BITS",
    "TOKEN_RATE",
    "CodecError",
    "UnknownCodecError",
    "WeightsError",
    "load",
]

CODECS = ("nano",)
"""Names that :func:`load` knows."""


def load(name: str = "nano", weights: Path | str | None = None, device: str = "cpu") -> Codec:
    """Load a codec by name.

    weights: another weights file than the one that comes with the program.
    Raises UnknownCodecError or WeightsError, each with one sentence for the user.
    """
    if name == "nano":
        from codec.nano import load_nano

        return load_nano(weights, device)
    raise UnknownCodecError(f"there is no codec {name!r} here; choose one of: {', '.join(CODECS)}")
