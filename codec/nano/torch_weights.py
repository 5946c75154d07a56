"""nano's weights into torch, and out of it into a packed file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from codec.errors import WeightsError
from codec.nano.codec import NanoModels, TorchNano
from codec.nano.config import NanoConfig
from codec.nano.graphs import constants
from codec.nano.weights import PACKED, Weights, pack, write_packed

__all__ = ["load_models", "load_torch_nano", "packed_tensors", "save_nano"]

_COUNTER = "num_batches_tracked"  # of a batch norm in training; nothing reads it


def load_models(weights: Weights) -> NanoModels:
    """The models with a file's weights. Raises WeightsError with one sentence."""
    models = NanoModels(NanoConfig())
    state = models.state_dict()
    stored = weights.tensors()
    try:
        for name, value in state.items():
            if name.endswith(_COUNTER):
                continue
            given = stored[name]
            if weights.format == PACKED and _is_matrix(name, value):
                scale = stored.get(f"{name}.scale", np.float32(1))
                given = (given.astype(np.float32) * scale).T
            if given.shape != value.shape:
                raise KeyError(name)
            value.copy_(torch.from_numpy(np.ascontiguousarray(given)))
    except KeyError as error:
        raise WeightsError(
            f"{weights.path} holds nano weights of another shape; use the program version it was "
            "made with"
        ) from error
    return models


def load_torch_nano(weights: Weights, device: str = "cpu") -> TorchNano:
    """nano in torch, from a packed file or one in half precision. Raises WeightsError."""
    return TorchNano(load_models(weights).to(device), weights.name, weights.digest)


def _is_matrix(name: str, value: torch.Tensor) -> bool:
    """Whether it is a linear layer's, which files keep ``[in, out]`` and torch the other way."""
    return name.endswith(".weight") and value.ndim == 2


def packed_tensors(
    models: NanoModels, rounded: Mapping[str, NDArray[np.int8]] | None = None
) -> dict[str, NDArray[Any]]:
    """What a packed file of these models holds, in its order; rounded: see :func:`pack`."""
    tensors = {
        name: value.numpy().T if _is_matrix(name, value) else value.numpy()
        for name, value in models.state_dict().items()
        if not name.endswith(_COUNTER)
    }
    return pack(tensors | constants(models), rounded)


def save_nano(
    models: NanoModels,
    path: Path,
    card: dict[str, str],
    rounded: Mapping[str, NDArray[np.int8]] | None = None,
) -> str:
    """Write a packed file with a card of plain strings; returns its SHA-256."""
    return write_packed(packed_tensors(models, rounded), path, card)
