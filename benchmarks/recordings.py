"""Recordings for benchmarks: found in folders, read as stereo at 48 kHz."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
import torch
from torch import Tensor

from codec.constants import SAMPLE_RATE, SAMPLES_PER_TOKEN

__all__ = ["SHORTEST_S", "SUFFIXES", "MusicError", "find", "load"]

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".opus")
SHORTEST_S = 1.0


class MusicError(Exception):
    """A recording that cannot be measured; one sentence."""


def find(places: Sequence[Path]) -> list[Path]:
    """The recordings among files and below folders, in the order given; raises MusicError."""
    files = [
        file
        for place in places
        for file in (sorted(place.rglob("*")) if place.is_dir() else [place])
        if file.suffix.lower() in SUFFIXES and file.is_file()
    ]
    if not files:
        raise MusicError(
            f"there is no recording ({', '.join(SUFFIXES)}) in {', '.join(map(str, places))}; "
            "give files or folders that hold some"
        )
    return files


def load(path: Path, seconds: float) -> Tensor:
    """The first ``seconds`` of a recording as ``[2, samples]`` at 48 kHz, whole tokens only.

    Mono is put on both channels, of surround the first two are taken. Raises MusicError.
    """
    try:
        with sf.SoundFile(path) as file:
            rate = file.samplerate
            data = file.read(int(seconds * rate), dtype="float32", always_2d=True)
    except sf.SoundFileError as error:
        raise MusicError(f"{path} cannot be read as sound: {error}") from error
    if len(data) < SHORTEST_S * rate:
        raise MusicError(f"{path} is shorter than {SHORTEST_S:g} s; give longer recordings")
    if rate != SAMPLE_RATE:
        data = soxr.resample(data, rate, SAMPLE_RATE)
    audio = torch.from_numpy(np.ascontiguousarray(data.T)).nan_to_num()
    audio = audio[:2] if len(audio) > 1 else audio.expand(2, -1)
    return audio[:, : audio.shape[1] // SAMPLES_PER_TOKEN * SAMPLES_PER_TOKEN].contiguous()
