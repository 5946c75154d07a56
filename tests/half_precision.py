"""Writes ``tests/data/half.json`` and ``half_*.flac``: what nano sounded like before int8.

    git show COMMIT:codec/nano/nano-5.safetensors > nano-5.safetensors
    python -m tests.half_precision nano-5.safetensors

COMMIT is any that has the file, the last weights in half precision, of which nano-6 was rounded.
``tests/codec/nano/test_int8.py`` holds the bundled weights to it. Tokens are those of the bundled
encoder for the beginning of held-out music, decoded by torch. Sound is kept with 20 bits: 16 are
too few for what is quiet, and 24 add nothing but noise to the file.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import soundfile

import codec
from codec.base import Audio, TokenArray
from codec.nano import load_nano
from tests import DATA

__all__ = ["CLIPS", "Clip", "read"]

CLIPS: Final = ("held_0", "held_1")
"""The music of ``tests/data`` that int8 did most to."""
_TOKENS: Final = 75
_SEED: Final = 0
_STEPS: Final = 1 << 19
"""Levels from 0 to 1."""
_FILE: Final = DATA / "half.json"


@dataclass(frozen=True)
class Clip:
    """Tokens ``[n]`` from the start of a stream, their seed, and their sound in half precision,
    ``[2, 1920 * n]``; original: the music itself, as long."""

    tokens: TokenArray
    seed: int
    sound: Audio
    original: Audio


def read(name: str) -> Clip:
    """One of :data:`CLIPS`."""
    told = json.loads(_FILE.read_text(encoding="utf-8"))
    tokens = np.array(told["tokens"][name])
    sound = soundfile.read(_sound_of(name), dtype="float32")[0].T
    return Clip(tokens, told["seed"], sound, _original(name))


def write(weights: Path) -> None:
    """Make all of it anew, with these weights in half precision."""
    bundled, half = codec.load("nano"), load_nano(weights)
    tokens = {name: bundled.sound2code(_original(name)) for name in CLIPS}
    for name in CLIPS:
        sound = half.code2sound(tokens[name], seed=_SEED)
        exact = np.rint(sound.T * _STEPS) / _STEPS
        soundfile.write(_sound_of(name), exact, codec.SAMPLE_RATE, "PCM_24", compression_level=1.0)
    told = {
        "weights": {"name": half.weights, "sha256": half.digest},
        "seed": _SEED,
        "tokens": {name: tokens[name].tolist() for name in CLIPS},
    }
    _FILE.write_text(json.dumps(told) + "\n", encoding="utf-8")


def _sound_of(name: str) -> Path:
    return DATA / f"{name.replace('held', 'half')}.flac"


def _original(name: str) -> Audio:
    samples = _TOKENS * codec.SAMPLES_PER_TOKEN
    sound: Audio = soundfile.read(DATA / f"{name}.ogg", samples, dtype="float32")[0].T
    return sound


if __name__ == "__main__":
    write(Path(sys.argv[1]))
