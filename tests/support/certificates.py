"""Certificates for tests, made on the spot by the ``openssl`` program."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["make_authority", "make_certificate", "make_signed"]

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def make_certificate(folder: Path, name: str = "127.0.0.1", kind: str = "IP") -> tuple[Path, Path]:
    """A self-signed certificate and its key, for an address; skips if there is no openssl."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl program")
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    _make(cert, key, name, "-addext", f"subjectAltName={kind}:{name}")
    return cert, key


def make_authority(folder: Path) -> tuple[Path, Path]:
    """The certificate and key of somebody who signs those of others."""
    cert, key = folder / "authority.pem", folder / "authority.key"
    _make(cert, key, "authority", "-addext", "basicConstraints=critical,CA:TRUE")
    return cert, key


def make_signed(folder: Path, name: str, authority: tuple[Path, Path]) -> tuple[Path, Path]:
    """A certificate and its key, signed by ``authority``."""
    cert, key, request = (folder / f"{name}.{end}" for end in ("pem", "key", "csr"))
    command = ["openssl", "req", *_KEY, "-subj", f"/CN={name}"]
    command += ["-keyout", str(key), "-out", str(request)]
    subprocess.run(command, check=True, capture_output=True)
    command = ["openssl", "x509", "-req", "-in", str(request), "-days", "2", "-out", str(cert)]
    command += ["-CA", str(authority[0]), "-CAkey", str(authority[1]), "-CAcreateserial"]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


def _make(cert: Path, key: Path, name: str, *options: str) -> None:
    command = ["openssl", "req", "-x509", *_KEY, "-days", "2", "-subj", f"/CN={name}"]
    command += ["-keyout", str(key), "-out", str(cert), *options]
    subprocess.run(command, check=True, capture_output=True)
