"""Files that are there whole or not at all: written under another name and moved at the end."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from streaming.errors import SinkError, reason_of
from streaming.support.ending import undone
from streaming.support.status_line import printable

__all__ = ["written_whole"]


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to, with the same suffix; it is moved there on leaving.

    What was there before stays until then, and for good where an exception ends it. Raises
    SinkError where the place cannot be written to.
    """
    name = f"'{printable(str(path), 300)}'"
    if path.is_dir():
        raise SinkError(f"{name} cannot be written: it is a folder.")
    part = path.with_name(f".{path.stem[:48]}.{secrets.token_hex(4)}.part{path.suffix}")

    def remove() -> None:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)

    with undone(remove):
        try:
            # Here already it shows whether the place can be written to at all.
            part.open("xb").close()
        except OSError as error:
            raise SinkError(f"{name} cannot be written: {reason_of(error)}.") from None
        try:
            yield part
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(path)
        except OSError as error:
            raise SinkError(f"{name} cannot be written: {reason_of(error)}.") from None
        finally:
            remove()
