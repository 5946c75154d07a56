"""Certificates for tests, made on the spot by the ``openssl`` program."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["make_certificate"]


def make_certificate(folder: Path, name: str = "127.0.0.1", kind: str = "IP") -> tuple[Path, Path]:
    """A self-signed certificate and its key, for an address; skips where there is no openssl."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl program")
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", f"/CN={name}", "-keyout", str(key)]
    command += ["-out", str(cert), "-addext", f"subjectAltName={kind}:{name}"]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key
