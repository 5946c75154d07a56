"""nano's weights: which file comes with the program, how one is laid out, and loading nano from it.

A file is a safetensors file. In the packed form every large matrix is int8 with one float32 scale
per output column (``NAME`` and ``NAME.scale``), and the graphs' constants lie beside the weights.
The tensors begin :data:`DATA_START` bytes into the file and follow each other in a fixed order, so
that the graphs (:mod:`codec.nano.onnx_export`) find them by their offsets in any packed file. Files
of earlier versions, in half precision, load into torch. Importable without torch.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

import codec
from codec.errors import WeightsError

if TYPE_CHECKING:
    from codec.nano.base import Nano

__all__ = [
    "BUNDLED",
    "BUNDLED_SHA256",
    "DATA_START",
    "PACKED",
    "Weights",
    "column_scales",
    "is_packed",
    "load_nano",
    "offsets",
    "pack",
    "read_weights",
    "write_packed",
]

BUNDLED: Final = Path(__file__).with_name("nano-6.safetensors")
BUNDLED_SHA256: Final = "b585f195bb22924a3188f5b4dfd0f026ba3fb0ef9a2cc2844f086938c69ae445"
"""Digest of the file above; a file that differs is damaged and is not loaded."""
PACKED: Final = "music350-nano-int8"
HALF: Final = "music350-nano"
DATA_START: Final = 1 << 16
"""Bytes before the first tensor: eight for the header's length, the header, spaces."""
_LEAST_PACKED: Final = 4096
"""Matrices of fewer numbers stay in float32."""
_EXACT: Final = ("codec.decoder.stack.inward.weight", "codec.decoder.direct.weight")
"""And so do these: small, and next to what the tokens say, they made more noise than all others."""

Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Weights:
    """An opened file: the name and digest that streams know it by, and its format."""

    path: Path
    name: str
    digest: str
    format: str

    def tensors(self) -> Tensors:
        """All tensors as they are stored. Raises WeightsError."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="np") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{self.path} is no readable safetensors file: {error}") from error


def read_weights(weights: Path | str | None = None) -> Weights:
    """The bundled file, or another one.

    The bundled file must have the digest that this program was made with. Any other file is named
    in the hello by its own digest, so that a listener without it refuses.

    Raises:
        WeightsError: a missing, damaged or foreign file.
    """
    from safetensors import SafetensorError, safe_open  # a station needs only the names above

    path = BUNDLED if weights is None else Path(weights)
    if not path.is_file():
        raise WeightsError(f"the nano weights are missing: there is no file {path}; restore it")
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if weights is None and digest != BUNDLED_SHA256:
            raise WeightsError(
                f"the nano weights in {path} are damaged (SHA-256 {digest[:12]}…, expected "
                f"{BUNDLED_SHA256[:12]}…); restore the file from the repository"
            )
        with safe_open(path, framework="np") as file:
            kind = (file.metadata() or {}).get("format")
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is no readable safetensors file: {error}") from error
    if kind not in (PACKED, HALF):
        raise WeightsError(f"{path} does not hold nano weights; give a file that does")
    name = BUNDLED.stem if digest == BUNDLED_SHA256 else path.stem
    return Weights(path, name, digest, kind)


def load_nano(weights: Path | str | None = None, device: str | None = None) -> Nano:
    """nano from the weights that come with the program, or from another file.

    Args:
        device: None computes on the CPU with onnxruntime, or with torch if the file is in half
            precision; a name of torch's computes there with torch.

    Raises:
        WeightsError: see :func:`read_weights`.
        DeviceError: torch is needed and missing, or cannot compute there.
    """
    found = read_weights(weights)
    if device is None and found.format == PACKED:
        from codec.nano.onnx_codec import OnnxNano

        return OnnxNano(found)
    codec.require_torch("nano on another device, or from weights in half precision,")
    from codec.nano.torch_weights import load_torch_nano
    from codec.torch_backend import check_device

    return load_torch_nano(found, check_device(device or "cpu"))


def is_packed(name: str, size: int) -> bool:
    """Whether a linear layer's matrix of so many numbers is stored as int8."""
    return size >= _LEAST_PACKED and name not in _EXACT


def column_scales(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """What int8 values of a matrix ``[in, out]`` are multiplied by, ``[out]``."""
    scales = np.maximum(np.abs(matrix).max(axis=0), np.float32(1e-12)) / np.float32(127)
    return scales.astype(np.float32)


def pack(
    tensors: Mapping[str, NDArray[np.float32]],
    rounded: Mapping[str, NDArray[np.int8]] | None = None,
) -> Tensors:
    """Large matrices ``[in, out]`` to int8 and scales, all else as it is, in a file's order.

    Args:
        rounded: some matrices that were rounded with care, in units of their scales.
    """
    exact: Tensors = {}
    packed: Tensors = {}
    for name, value in tensors.items():
        if name.endswith(".weight") and value.ndim == 2 and is_packed(name, value.size):
            scale = exact[f"{name}.scale"] = column_scales(value)
            careful = (rounded or {}).get(name)
            packed[name] = np.rint(value / scale).astype(np.int8) if careful is None else careful
        else:
            exact[name] = value
    return dict(sorted(exact.items())) | dict(sorted(packed.items()))


def offsets(tensors: Mapping[str, NDArray[Any]]) -> dict[str, tuple[int, int]]:
    """Where each tensor of a packed file lies in it: first byte and length."""
    places, at = {}, DATA_START
    for name, value in tensors.items():
        places[name] = at, value.nbytes
        at += value.nbytes
    return places


def write_packed(tensors: Mapping[str, NDArray[Any]], path: Path, card: dict[str, str]) -> str:
    """Write what :func:`pack` made with a card of plain strings; returns the file's SHA-256."""
    kinds = {np.dtype(np.float32): "F32", np.dtype(np.int8): "I8"}
    header: dict[str, Any] = {"__metadata__": {"format": PACKED, "card": json.dumps(card)}}
    for name, (start, length) in offsets(tensors).items():
        header[name] = {
            "dtype": kinds[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [start - DATA_START, start - DATA_START + length],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    room = DATA_START - 8
    if len(text) > room:
        raise ValueError(f"a header of {len(text)} bytes does not fit into {room}")
    data = b"".join(np.ascontiguousarray(value).tobytes() for value in tensors.values())
    path.write_bytes(struct.pack("<Q", room) + text.ljust(room) + data)
    return hashlib.sha256(path.read_bytes()).hexdigest()
