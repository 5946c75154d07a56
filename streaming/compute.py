"""How many threads a model computes with, and how they wait for each other."""

from __future__ import annotations

import os

__all__ = ["DEFAULT_THREADS", "use_threads"]

DEFAULT_THREADS = min(2, os.cpu_count() or 1)


def use_threads(count: int) -> None:
    """Import torch and let it compute with ``count`` threads; takes seconds the first time.

    Call it before anything else imports torch. OpenMP's threads then sleep while they wait for
    each other. As a rule they spin instead, which is a little faster on a machine that is idle;
    but where sender and listener share two cores, one spins while the other would have work to
    do, and decoding was seen to take ten times as long.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read once, when the library is loaded

    import torch

    torch.set_num_threads(count)
