"""The decoder's graphs for a browser, made once for a checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.processes import ROOT

__all__ = ["graphs"]


@pytest.fixture(scope="session")
def graphs() -> Path:
    """The folder that a station of this checkout serves them from."""
    folder = ROOT / "nano-onnx"
    if not (folder / "nano-onnx.json").exists():  # it is written last
        command = [sys.executable, "-m", "codec.nano.onnx_export", "--out", str(folder)]
        subprocess.run(command, cwd=ROOT, check=True)
    return folder
