"""How many threads the models compute with on a CPU, in this process."""

from __future__ import annotations

import sys

__all__ = ["threads", "use_threads"]

_count = 1


def use_threads(count: int) -> None:
    """Have models that are loaded from now on compute with ``count`` threads."""
    global _count
    _count = count
    torch = sys.modules.get("torch")
    if torch is not None:  # else codec.torch_backend tells it
        torch.set_num_threads(count)


def threads() -> int:
    """The number asked for last, 1 at first."""
    return _count
