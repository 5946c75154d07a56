"""What was sent and what was heard, side by side, and what a rendition must have of its source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from codec.constants import SAMPLE_RATE
from scripts.processes import Stats
from streaming.audio.sources import Playlist
from tests import DATA

__all__ = [
    "LEAST_ENVELOPE_CORRELATION",
    "MOST_FLATNESS",
    "MOST_LEVEL_DIFFERENCE_DB",
    "SONGS",
    "begin",
    "flatness",
    "heard",
    "sent",
]

Audio = NDArray[np.float32]

# A floor under any ten seconds; benchmarks/quality.py measures how good the present codec is.
LEAST_ENVELOPE_CORRELATION = 0.7
MOST_LEVEL_DIFFERENCE_DB = 4.5
MOST_FLATNESS = 0.1  # white noise has 0.76, music below 0.001

SONGS = sorted(DATA.glob("held_*.ogg"))
"""Music that the codec's training never saw, 8 s each."""


def heard(path: Path) -> Audio:
    """A file that a listener wrote, float32 `[2, n]`."""
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    assert rate == SAMPLE_RATE
    assert audio.shape[1] == 2
    return np.ascontiguousarray(audio.T)


def sent(songs: list[Path], first_sample: int, samples: int) -> Audio:
    """What a looped playlist gives the encoder from `first_sample` on, float32 `[2, samples]`."""
    blocks, held = [], 0
    with Playlist(songs, loop=True) as source:
        while held < first_sample + samples:
            blocks.append(source.read(SAMPLE_RATE))
            held += blocks[-1].shape[1]
    return np.concatenate(blocks, axis=1)[:, first_sample : first_sample + samples]


def begin(final: Stats) -> int:
    """Place in the stream of a listener's first sample, from its last statistics."""
    return round(final["position_s"] * SAMPLE_RATE) - int(final["samples"])


def flatness(audio: Audio) -> float:
    """Geometric over arithmetic mean of the power spectrum of `[2, n]`, mean over time."""
    window = torch.hann_window(2048)
    spectrum = torch.stft(torch.from_numpy(audio), 2048, 1024, window=window, return_complex=True)
    power = spectrum.abs().square().mean(dim=0) + 1e-12
    return float((power.log().mean(dim=0).exp() / power.mean(dim=0)).mean())
