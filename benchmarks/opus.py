"""Opus at its lowest rates, through ffmpeg: what a user would pick instead.

What libopus does with music at the bottom (ffmpeg 5.1, stereo in):

- ffmpeg refuses ``-b:a`` below 500.
- With a variable rate, ffmpeg's default, every ``-b:a`` from 500 to 4000 gives the same stream of
  about 5 kbit/s: mono, below 4 kHz, in the mode for speech. Frames of 60 ms save a tenth of that.
- With a constant rate (``-vbr off``) and frames of 20 ms the rate is what was asked for, and 1200
  bit/s, three bytes a frame, is the lowest that carries any sound: again mono and below 4 kHz.
  Below that (and below 2400 to 2800 with longer frames) libopus writes packets that say "nothing
  here", and the decoder plays silence.

So there are two yardsticks: *lowest* (1200 bit/s, constant), *default* (500 asked for, variable).
Mono in gives the same rates, since libopus mixes to mono by itself.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from benchmarks.programs import Done, ProgramError, run
from codec.constants import SAMPLE_RATE

__all__ = [
    "DEFAULT",
    "LOWEST",
    "SIX_KBIT",
    "OpusError",
    "OpusSettings",
    "decode_timed",
    "encode",
    "encode_timed",
    "latency_s",
    "packets",
    "problem",
    "round_trip",
]

_RAW = ("-f", "f32le", "-ar", str(SAMPLE_RATE), "-ac")
FRAME_S = 0.02
"""ffmpeg's default."""


class OpusError(Exception):
    """ffmpeg could not encode or decode; the message says what it said."""


@dataclass(frozen=True)
class OpusSettings:
    """bits_per_s: what ffmpeg is asked for. constant: whether that is to be kept."""

    bits_per_s: int
    constant: bool


LOWEST = OpusSettings(1200, constant=True)
DEFAULT = OpusSettings(500, constant=False)
SIX_KBIT = OpusSettings(6000, constant=False)
"""What the format is specified from (RFC 6716, section 1): beside other codecs."""


@cache
def problem() -> str | None:
    """Why there is no Opus on this machine, in a sentence; None if there is."""
    if shutil.which("ffmpeg") is None:
        return "Opus is left out: ffmpeg is not installed; run: apt-get install ffmpeg"
    listed = subprocess.run(
        ["ffmpeg", "-hide_banner", "-encoders"], capture_output=True, text=True, check=False
    )
    if "libopus" not in listed.stdout:
        return "Opus is left out: this ffmpeg is built without libopus."
    return None


def _ffmpeg(arguments: tuple[str, ...], data: bytes) -> Done:
    try:
        return run(("ffmpeg", "-hide_banner", "-loglevel", "error", *arguments), data)
    except ProgramError as error:
        raise OpusError(str(error)) from error


def encode_timed(audio: Tensor, settings: OpusSettings) -> Done:
    """:func:`encode` with how long it took and how much memory."""
    samples = audio.t().contiguous().numpy().astype("<f4").tobytes()
    return _ffmpeg(
        (
            *_RAW,
            str(len(audio)),
            *("-i", "-", "-c:a", "libopus", "-b:a", str(settings.bits_per_s)),
            *("-vbr", "off" if settings.constant else "on", "-f", "ogg", "-"),
        ),
        samples,
    )


def encode(audio: Tensor, settings: OpusSettings) -> bytes:
    """An Ogg Opus file of ``[channels, samples]`` at 48 kHz; raises OpusError."""
    return encode_timed(audio, settings).output


def decode_timed(ogg: bytes) -> Done:
    """The file as interleaved float32 stereo at 48 kHz; raises OpusError."""
    return _ffmpeg(("-c:a", "libopus", "-i", "-", *_RAW, "2", "-"), ogg)


def packets(ogg: bytes) -> Iterator[bytes]:
    """The packets of an Ogg file of one stream (RFC 3533), headers among them."""
    place, packet = 0, b""
    while place < len(ogg):
        if ogg[place : place + 4] != b"OggS":
            raise OpusError("what ffmpeg wrote is no Ogg file")
        lengths = ogg[place + 27 : place + 27 + ogg[place + 26]]
        place += 27 + len(lengths)
        for length in lengths:
            packet += ogg[place : place + length]
            place += length
            if length < 255:  # a packet that goes on fills its segment
                yield packet
                packet = b""


def latency_s(ogg: bytes) -> float:
    """How long a sample waits: for its frame to be complete, and the encoder's lookahead.

    The lookahead is what the file says to skip at its start (RFC 7845, section 4.2).
    """
    return FRAME_S + int.from_bytes(next(packets(ogg))[10:12], "little") / SAMPLE_RATE


def round_trip(audio: Tensor, settings: OpusSettings) -> tuple[Tensor, float]:
    """What Opus makes of a recording, and the bits a second that it really took.

    audio: float32 ``[2, samples]`` at 48 kHz. Returns sound of the same shape, in place (the
    decoder leaves out the encoder's delay), and the rate of the audio packets alone, without Ogg's
    pages and headers. Raises OpusError.
    """
    ogg = encode(audio, settings)
    _head, _tags, *sound = packets(ogg)
    samples = audio.shape[1]
    rate = 8 * sum(map(len, sound)) * SAMPLE_RATE / samples
    raw = decode_timed(ogg).output
    decoded = torch.from_numpy(np.frombuffer(raw, "<f4").reshape(-1, 2).T.copy())[:, :samples]
    return torch.nn.functional.pad(decoded, (0, samples - decoded.shape[1])), rate
