"""Which weights come with the program. Importable without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["BUNDLED", "BUNDLED_SHA256"]

BUNDLED: Final = Path(__file__).with_name("nano-5.safetensors")
BUNDLED_SHA256: Final = "c7604a4dc34aa70403724e43f0a0d5643203f30b160302f6bb88ce9698bc973b"
"""Digest of the file above; a file that differs is damaged and is not loaded."""
