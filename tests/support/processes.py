"""Processes of other programs: which there are below one, and letting them stand still."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["descendants", "stopped"]


def descendants(process: int, mark: str) -> list[int]:
    """Those below ``process`` whose command lines have ``mark``."""
    found: list[int] = []
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            with suppress(OSError):
                command = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                found += [child] if mark in command else []
                found += descendants(child, mark)
    return found


@contextmanager
def stopped(processes: Sequence[int]) -> Iterator[None]:
    """They stand still within."""
    assert processes
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)
