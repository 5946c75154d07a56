"""Codecs: sound to tokens and back. Importing this package does not import torch.

>>> import codec                                   # doctest: +SKIP
>>> nano = codec.load("nano")                      # doctest: +SKIP
>>> tokens = nano.sound2code(audio)                # doctest: +SKIP
>>> sound = nano.code2sound(tokens, seed=0)        # doctest: +SKIP
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
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
from codec.errors import (
    CodecError,
    DataError,
    DeviceError,
    SettingError,
    UnknownCodecError,
    WeightsError,
)
from codec.mucodec.config import PRECISIONS

if TYPE_CHECKING:
    from codec.base import Codec
    from codec.mucodec.config import Precision
    from codec.mucodec.model import Part

__all__ = [
    "CHANNELS",
    "CODEBOOK_SIZE",
    "CODECS",
    "PRECISIONS",
    "SAMPLES_PER_TOKEN",
    "SAMPLE_RATE",
    "TOKEN_BITS",
    "TOKEN_RATE",
    "CodecError",
    "CodecTraits",
    "DataError",
    "DeviceError",
    "SettingError",
    "UnknownCodecError",
    "WeightsError",
    "bundled",
    "default_threads",
    "load",
    "require_live_decoding",
    "require_torch",
]


@dataclass(frozen=True)
class CodecTraits:
    """What is known of a codec before it is loaded.

    Attributes:
        parallel: whether its operations are large enough to be shared out among threads. nano's
            are not: two threads are hardly faster on an idle machine, and several times slower on
            one that is not.
        needs_gpu: whether it keeps up with live music on a GPU alone, and so computes there by
            default.
    """

    parallel: bool
    needs_gpu: bool


CODECS = {
    "nano": CodecTraits(parallel=False, needs_gpu=False),
    "mucodec": CodecTraits(parallel=True, needs_gpu=True),
}
"""The codecs that :func:`load` knows, by name."""


def load(
    name: str = "nano",
    weights: Path | str | None = None,
    device: str | None = None,
    part: Part | None = None,
    *,
    compiled: bool | None = None,
    precision: Precision | None = None,
    guidance_interval: tuple[float, float] | None = None,
) -> Codec:
    """Load a codec by name.

    Args:
        weights: another weights file than the one that comes with the program; for mucodec the
            folder of the release's checkpoints, or a file that was converted from them. Without it,
            mucodec's are taken from the cache, or fetched.
        device: as torch names it; by default nano computes on the CPU, without torch, and mucodec
            on a GPU if there is one.
        part: "encoder" or "decoder", to spend memory on that half of mucodec alone; nano loads what
            it is used for.
        compiled: have mucodec's decoder compiled in the background by its ``warm_up`` (default: on
            a GPU).
        precision: of mucodec's decoder, one of :data:`PRECISIONS` (default: float16 on a GPU,
            float32 on a CPU).
        guidance_interval: times of mucodec's flow, 0 to 1, between which guidance is applied
            (default: always).

    Raises:
        UnknownCodecError: there is no codec of that name.
        WeightsError: the weights are missing, damaged or another codec's.
        DeviceError: it cannot compute there.
        SettingError: a precision that the device lacks, or an interval that is none.
    """
    if name not in CODECS:
        raise UnknownCodecError(
            f"there is no codec {name!r} here; choose one of: {', '.join(CODECS)}"
        )
    if name == "nano":
        from codec.nano.weights import load_nano

        return load_nano(weights, device)
    require_torch(name)
    from codec.mucodec.codec import load_mucodec
    from codec.torch_backend import check_device, has_gpu

    place = check_device(device or ("cuda" if has_gpu() else "cpu"))
    return load_mucodec(
        weights,
        place,
        part,
        compiled=compiled,
        precision=precision,
        guidance_interval=guidance_interval,
    )


def _traits(name: str) -> CodecTraits:
    """Those of a codec; one that is not known here is refused when it is loaded."""
    return CODECS.get(name, CodecTraits(parallel=True, needs_gpu=False))


def require_torch(purpose: str) -> None:
    """Raise DeviceError with one sentence if torch is not installed; ``purpose`` needs it."""
    try:
        missing = find_spec("torch") is None
    except ValueError:  # the name is blocked in sys.modules
        missing = True
    if missing:
        raise DeviceError(
            f"{purpose} needs torch, which is not installed; run: pip install 'torch'"
        )


def default_threads(name: str, processes: int = 1) -> int:
    """How many threads are best for a codec on this machine's CPU, in each of ``processes``."""
    return max(1, (os.cpu_count() or 1) // processes) if _traits(name).parallel else 1


def bundled() -> tuple[tuple[str, str, str], ...]:
    """Codec, weights and digest of what comes with the program, found without loading it."""
    from codec.nano.weights import BUNDLED, BUNDLED_SHA256

    return (("nano", BUNDLED.stem, BUNDLED_SHA256),)


def require_live_decoding(name: str) -> None:
    """Raise DeviceError if this machine is too slow to listen to a codec as it is sent."""
    if not _traits(name).needs_gpu:
        return
    require_torch(name)
    from codec.torch_backend import has_gpu

    if not has_gpu():
        raise DeviceError(
            f"this stream is in {name}, whose decoder keeps up with live music on a GPU with 6 GiB "
            "alone, and torch sees none here; listen on a machine that has one, ask for a stream "
            "in nano, or give --torch-device cpu to hear it late and with gaps"
        )
