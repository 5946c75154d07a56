"""The decoder's graphs for a browser, made once for a checkout."""

from __future__ import annotations

import subprocess
import sys

import pytest

from scripts.processes import ROOT
from streaming.web.player import files

__all__ = ["graphs"]


@pytest.fixture(scope="session")
def graphs() -> None:
    """Make sure that a station of this checkout has them to serve."""
    folder = ROOT / "nano-onnx"
    if any(file.name.endswith(".onnx") for file in files()):
        return
    command = [sys.executable, "-m", "codec.nano.onnx_export", "--out", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True)
