"""torch at a codec's edge: arrays in, tensors inside, arrays out; and where torch can compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.errors import DeviceError
from codec.threads import threads

torch.set_num_threads(threads())

__all__ = ["array", "check_device", "has_gpu", "tensor"]


def tensor(values: NDArray[Any], device: torch.device | str = "cpu") -> Tensor:
    """An array as a tensor on a device; on the CPU both share their memory."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(device)


def array(values: Tensor) -> NDArray[Any]:
    """A tensor as an array, from whatever device."""
    return values.cpu().numpy()


def has_gpu() -> bool:
    """Whether torch sees a GPU."""
    return torch.cuda.is_available()


def check_device(device: str) -> str:
    """``device``, if torch can compute there; raises DeviceError if not."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        known = "cpu" + (f", cuda (of {torch.cuda.device_count()})" if has_gpu() else "")
        raise DeviceError(
            f"torch cannot compute on {device!r} here; choose one of: {known}"
        ) from error
    return device
