"""Which files are ``.muc`` files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

__all__ = ["MUC_SUFFIX", "muc_files"]

MUC_SUFFIX: Final = ".muc"


def muc_files(paths: Sequence[str | Path]) -> list[Path]:
    """The ``.muc`` files among ``paths``, folders searched at all levels, in order."""
    found: list[Path] = []
    for path in map(Path, paths):
        if path.suffix.lower() == MUC_SUFFIX and not path.is_dir():
            found.append(path)
        elif path.is_dir():
            found += sorted(p for p in path.rglob(f"*{MUC_SUFFIX}") if p.is_file())
    return found
