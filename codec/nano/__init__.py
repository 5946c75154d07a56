"""nano: the embedded codec, small enough for the repository, faster than real time on one core.

Importing this package imports neither torch nor onnxruntime; asking it for one of its names may.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codec.nano.base import Nano
    from codec.nano.codec import TorchNano
    from codec.nano.onnx_codec import OnnxNano
    from codec.nano.weights import load_nano

__all__ = ["Nano", "OnnxNano", "TorchNano", "load_nano"]

_HOMES = {"Nano": "base", "OnnxNano": "onnx_codec", "TorchNano": "codec", "load_nano": "weights"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"codec.nano.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
