"""Files of the pages: where they lie, and a request for one of them."""

from __future__ import annotations

import functools
import gzip
from http import HTTPStatus
from pathlib import Path
from typing import Final

from websockets.datastructures import Headers

from streaming.support.http import Answer, takes_gzip

__all__ = ["STATIC", "TYPES", "asset"]

STATIC: Final = Path(__file__).parent / "static"
"""The folder of the pages' files."""
TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
"""Kinds of content, by what a file's name ends with."""


def asset(name: str, headers: Headers) -> Answer:
    """A file of the pages, compressed if the browser takes that."""
    plain, packed = _read(name)
    kind = TYPES[Path(name).suffix]
    fields = {"Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if takes_gzip(headers):
        return Answer(HTTPStatus.OK, packed, kind, {**fields, "Content-Encoding": "gzip"})
    return Answer(HTTPStatus.OK, plain, kind, fields)


@functools.cache
def _read(name: str) -> tuple[bytes, bytes]:
    plain = (STATIC / name).read_bytes()
    return plain, gzip.compress(plain, mtime=0)
