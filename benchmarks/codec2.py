"""Codec2 (David Rowe's codec for speech over radio) through Debian's programs c2enc and c2dec.

It knows 8 kHz mono and nothing else: music is mixed to mono and resampled to it by soxr, and comes
back on both channels.

Bit rates are those of the codec's frames, 64 bits in 20 ms or 28 bits in 40 ms. c2enc fills the
latter up to 32 bits, so that its file takes 800 bit/s; a radio would not send the rest.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import numpy as np
import soxr
import torch
from torch import Tensor

from benchmarks.programs import Done, ProgramError, run
from codec.constants import SAMPLE_RATE

__all__ = ["MODE_700C", "MODE_3200", "RATE", "Mode", "decode", "encode", "problem", "round_trip"]

RATE = 8000
PROGRAMS = ("c2enc", "c2dec")


@dataclass(frozen=True)
class Mode:
    """name: what the programs call it. frame_bytes: of c2enc's output. frame_bits: those in use.

    Attributes:
        lag_s: by how much the decoder's sound lies behind what the encoder read, sample 0 against
            sample 0. It stems from the analysis window, whose middle lies 20 ms back, and from the
            interpolation between frames; 1.0.5 was measured (tests/benchmarks/test_codec2.py).
    """

    name: str
    frame_s: float
    frame_bytes: int
    frame_bits: int
    lag_s: float

    @property
    def latency_s(self) -> float:
        """A frame has to be complete before it is sent; then the lag."""
        return self.frame_s + self.lag_s

    def bits_per_s(self, coded: bytes) -> float:
        """The rate of what c2enc wrote, without what fills frames up to whole bytes."""
        frames = len(coded) / self.frame_bytes
        return self.frame_bits * frames / (frames * self.frame_s)


MODE_700C = Mode("700C", frame_s=0.04, frame_bytes=4, frame_bits=28, lag_s=0.03)
MODE_3200 = Mode("3200", frame_s=0.02, frame_bytes=8, frame_bits=64, lag_s=0.02)


def problem() -> str | None:
    """Why there is no Codec2 on this machine, in a sentence; None if there is."""
    if all(map(shutil.which, PROGRAMS)):
        return None
    return "Codec2 is left out: c2enc and c2dec are not installed; run: apt-get install codec2"


def to_speech(audio: Tensor) -> bytes:
    """What the encoder takes, 16-bit mono at 8 kHz, of ``[2, samples]`` at 48 kHz."""
    mono = soxr.resample(audio.mean(dim=0).numpy(), SAMPLE_RATE, RATE)
    return np.rint(mono.clip(-1, 1) * 32767).astype("<i2").tobytes()


def encode(speech: bytes, mode: Mode) -> Done:
    """c2enc over 16-bit mono at 8 kHz; raises ProgramError."""
    return run(("c2enc", mode.name, "-", "-"), speech)


def decode(coded: bytes, mode: Mode) -> Done:
    """c2dec over what :func:`encode` wrote; raises ProgramError."""
    return run(("c2dec", mode.name, "-", "-"), coded)


def round_trip(audio: Tensor, mode: Mode) -> tuple[Tensor, float]:
    """What Codec2 makes of a recording, and the bits a second that it took.

    audio: float32 ``[2, samples]`` at 48 kHz. Returns mono on both channels, in place (the lag is
    cut off), silence if the last frame was not complete. Raises ProgramError.
    """
    coded = encode(to_speech(audio), mode).output
    if not coded:
        raise ProgramError(f"c2enc {mode.name} wrote nothing")
    speech = np.frombuffer(decode(coded, mode).output, "<i2")[round(mode.lag_s * RATE) :]
    sound = soxr.resample(speech.astype(np.float32) / 32768, RATE, SAMPLE_RATE)
    mono = torch.from_numpy(sound)[: audio.shape[1]]
    mono = torch.nn.functional.pad(mono, (0, audio.shape[1] - len(mono)))
    return mono.expand(2, -1).contiguous(), mode.bits_per_s(coded)
