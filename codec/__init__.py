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
from codec.errors import CodecError, DeviceError, SettingError, UnknownCodecError, WeightsError

if TYPE_CHECKING:
    from codec.base import Codec
    from codec.mucodec.model import Part

__all__ = [
    "CHANNELS",
    "CODEBOOK_SIZE",
    "CODECS",
    "SAMPLES_PER_TOKEN",
    "SAMPLE_RATE",
    "TOKEN_BITS",
    "TOKEN_RATE",
    "CodecError",
    "DeviceError",
    "SettingError",
    "UnknownCodecError",
    "WeightsError",
    "load",
    "require_live_decoding",
]

CODECS = ("nano", "mucodec")
"""Names that :func:`load` knows."""


def load(
    name: str = "nano",
    weights: Path | str | None = None,
    device: str | None = None,
    part: Part | None = None,
    compiled: bool = False,
) -> Codec:
    """Load a codec by name.

    weights: another weights file than the one that comes with the program; for mucodec the folder
    of the release's checkpoints, or a file that was converted from them. Without it, mucodec's are
    taken from the cache, or fetched. device: as torch names it; by default nano computes on the
    CPU, mucodec on a GPU where there is one. part: "encoder" or "decoder", to spend memory on that
    half of mucodec alone; nano is small and always whole. compiled: have mucodec's decoder compiled
    by its ``warm_up``, which takes a minute and pays on a GPU.
    Raises UnknownCodecError, WeightsError or DeviceError, each with one sentence for the user.
    """
    if name not in CODECS:
        raise UnknownCodecError(
            f"there is no codec {name!r} here; choose one of: {', '.join(CODECS)}"
        )
    place = check_device(device or ("cuda" if name != "nano" and has_gpu() else "cpu"))
    if name == "nano":
        from codec.nano import load_nano

        return load_nano(weights, place)
    from codec.mucodec.codec import load_mucodec

    return load_mucodec(weights, place, part, compiled)


def has_gpu() -> bool:
    """Whether torch sees a GPU."""
    import torch

    return torch.cuda.is_available()


def check_device(device: str) -> str:
    """``device``, if torch can compute there; raises DeviceError if not."""
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        known = "cpu" + (f", cuda (of {torch.cuda.device_count()})" if has_gpu() else "")
        raise DeviceError(
            f"torch cannot compute on {device!r} here; choose one of: {known}"
        ) from error
    return device


def require_live_decoding(name: str) -> None:
    """Raises DeviceError where this machine is too slow to listen to a codec as it is sent."""
    if name == "mucodec" and not has_gpu():
        raise DeviceError(
            "this stream is in mucodec, whose decoder keeps up with live music on a GPU with 8 GiB "
            "alone, and torch sees none here; listen on a machine that has one, ask for a stream "
            "in nano, or give --torch-device cpu to hear it late and with gaps"
        )
