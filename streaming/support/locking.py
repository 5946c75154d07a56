"""Files that one program at a time writes to."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # on Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

__all__ = ["lock", "sync_folder"]


def lock(descriptor: int) -> None:
    """Hold an open file until it is closed; BlockingIOError if another program holds it.

    The system lets go of it however the holder ends. A file system without locks locks nothing.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # not supported here, which is no reason to write nothing
        return


def sync_folder(folder: Path) -> None:
    """Bring to the disk which files there are in ``folder``, as far as the system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
