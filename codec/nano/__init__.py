"""nano: the embedded codec, small enough for the repository, faster than real time on two cores.

Importing this package does not import torch; asking it for one of its names does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codec.nano.codec import Nano, load_nano

__all__ = ["Nano", "load_nano"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from codec.nano import codec

        return getattr(codec, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
