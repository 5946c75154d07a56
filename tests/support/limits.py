"""A system that refuses: what a full disk or too many open files look like to a program."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator

__all__ = ["limited"]


@contextlib.contextmanager
def limited(what: int, limit: int) -> Iterator[None]:
    """Within it this process gets no more of a resource, such as `resource.RLIMIT_FSIZE`."""
    soft, hard = resource.getrlimit(what)
    resource.setrlimit(what, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(what, (soft, hard))
