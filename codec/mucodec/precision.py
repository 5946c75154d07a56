"""Number formats: float32 that is float32, and what a stage computes in half precision.

A GPU's convolutions round the inputs of float32 products to ten bits of mantissa (TF32) unless they
are told not to. That is 1e-3 of a hidden state, which turns tokens over, so what is meant to be
float32 runs inside :func:`exact_float32`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from codec.mucodec.config import Precision

__all__ = ["DTYPES", "exact_float32", "fits"]

DTYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "fp8": torch.float16,
}
"""What the decoder's stages compute in, by the name of a precision. With fp8, the products of the
flow's blocks have eight bits, and all else has float16's."""

_lock = threading.Lock()
_inside = 0
_before = (False, False)


@contextmanager
def exact_float32() -> Iterator[None]:
    """Float32 products and convolutions without TF32, while anybody is inside.

    torch's switches hold for the whole process: the first one in turns them off, the last one out
    puts them back, so that threads do not disturb each other. Half precision is not concerned.
    """
    global _inside, _before
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    with _lock:
        if _inside == 0:
            _before = (convolutions.allow_tf32, products.allow_tf32)
            convolutions.allow_tf32 = products.allow_tf32 = False
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                convolutions.allow_tf32, products.allow_tf32 = _before


def fits(module: nn.Module, dtype: torch.dtype) -> bool:
    """Whether every weight of a module is finite in ``dtype``."""
    most = torch.finfo(dtype).max
    return all(
        bool(weight.abs().max() <= most)
        for weight in module.parameters()
        if weight.is_floating_point() and weight.numel()
    )
