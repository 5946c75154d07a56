"""What a browser needs to play the stream by itself: which files, their digests, where each is.

Their addresses hold their digests, so that browsers may keep them for good. Modules import one
another by name: they are all in one folder, whose digest is that of all of them together.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, replace
from http import HTTPStatus
from io import BufferedReader
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from websockets.datastructures import Headers

from codec.nano.weights import BUNDLED
from streaming.support.http import POLICY, Answer, part, takes_gzip, text
from streaming.support.worker import Worker, call_on_thread
from streaming.web.assets import STATIC, TYPES

__all__ = ["Player", "PlayerFile", "files", "manifest"]

_VENDOR: Final = STATIC / "vendor"
_NANO: Final = (
    BUNDLED,
    *(BUNDLED.with_name(f"nano-{graph}.onnx") for graph in ("decoder", "vocoder")),
)
"""Weights, and the graphs that have them in their places."""
_LARGE_BYTES: Final = 1 << 20
_READ_BYTES: Final = 1 << 16
_MOST_READERS: Final = 32
_SCRIPTS: Final = (".js", ".mjs")


@dataclass(frozen=True)
class PlayerFile:
    """One of the player's files.

    Attributes:
        sha256, size: of what it holds, however it lies on the disk.
        gzip_bytes: what goes to a browser that takes gzip.
        folder: the digest in its address.
        path: where it lies, compressed if that ends with ``.gz``.
    """

    name: str
    sha256: str
    size: int
    gzip_bytes: int
    folder: str
    path: Path

    @property
    def url(self) -> str:
        """Its address, relative to the page's."""
        return f"player/{self.folder}/{self.name}"

    @property
    def script(self) -> bool:
        """Whether it is a script, which a browser takes from the page's own server alone."""
        return self.name.endswith(_SCRIPTS)

    @property
    def packed(self) -> bool:
        """Whether it lies on the disk compressed."""
        return self.path.suffix == ".gz"

    @property
    def large(self) -> bool:
        """Whether it is sent as it lies there, in pieces, and never held in memory."""
        return self.packed or self.size > _LARGE_BYTES


def files() -> tuple[PlayerFile, ...]:
    """The player's files as they are now; reads all of them if one has changed."""
    return _described(tuple((path, path.stat().st_mtime_ns) for path in _paths()))


def manifest(elsewhere: str = "") -> list[dict[str, Any]]:
    """What ``player.json`` says: name, sha256, bytes, gzip_bytes and url of each file.

    Nothing is listed if there are no graphs: then no page can play.

    Args:
        elsewhere: address of another server that has the same files, and serves all but the
            scripts.
    """
    listed = files()
    if not any(file.name.endswith(".onnx") for file in listed):
        return []
    return [
        {
            "name": file.name,
            "sha256": file.sha256,
            "bytes": file.size,
            "gzip_bytes": file.gzip_bytes,
            "url": file.url if file.script or not elsewhere else f"{elsewhere}/{file.url}",
        }
        for file in listed
    ]


def _paths() -> Iterator[Path]:
    """Where the files lie; this is the list of them."""
    yield from sorted((STATIC / "player").glob("*.js"))
    yield from sorted(_VENDOR.glob("*.gz"))
    yield from _NANO


@functools.lru_cache(maxsize=1)
def _described(paths: tuple[tuple[Path, int], ...]) -> tuple[PlayerFile, ...]:
    found = []
    for path, _ in paths:
        with _open(path) as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
            size = content.tell()
        name = path.name.removesuffix(".gz")
        file = PlayerFile(name, digest, size, 0, digest, path)
        gzip_bytes = path.stat().st_size if file.large else len(_compressed(path))
        found.append(replace(file, gzip_bytes=gzip_bytes))
    ours = [file.sha256 for file in found if file.path.suffix == ".js"]
    folder = hashlib.sha256("".join(ours).encode()).hexdigest()
    return tuple(
        replace(file, folder=folder) if file.path.suffix == ".js" else file for file in found
    )


def _open(path: Path, *, as_it_lies: bool = False) -> BufferedReader | gzip.GzipFile:
    """What a file holds, decompressed if it lies compressed."""
    if path.suffix == ".gz" and not as_it_lies:
        return gzip.GzipFile(path)
    return path.open("rb")


def _compressed(path: Path) -> bytes:
    return _compressed_once(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _compressed_once(path: Path, changed_ns: int) -> bytes:
    return gzip.compress(path.read_bytes(), mtime=0)


class Player:
    """Answers requests for ``player.json`` and for the files.

    Args:
        elsewhere: address of another server that has the same files, and serves all but the
            scripts: for a station whose uplink is thin.

    Attributes:
        policy: the Content-Security-Policy under which a page can play.
        readers: how many large files are being sent.
    """

    def __init__(self, elsewhere: str = "") -> None:
        self._elsewhere = elsewhere.rstrip("/")
        sources = "'self'"
        if elsewhere:
            other = urlsplit(elsewhere)
            sources += f" {other.scheme}://{other.netloc}"
        policy = POLICY.replace("script-src 'self'", "script-src 'self' 'wasm-unsafe-eval'")
        policy = policy.replace("connect-src 'self'", f"connect-src {sources}")
        self.policy = f"{policy}; media-src blob:"
        self.readers = 0

    async def answer(self, where: str, headers: Headers) -> Answer | None:
        """What is at the path ``where``; None if it is nothing of ours."""
        if where == "/player.json":
            listed = json.dumps(await call_on_thread(manifest, self._elsewhere))
            return Answer(HTTPStatus.OK, listed.encode(), "application/json")
        for file in await call_on_thread(files) if where.startswith("/player/") else ():
            if where == f"/{file.url}":
                return self._file(file, headers)
        return None

    def _file(self, file: PlayerFile, headers: Headers) -> Answer:
        coded = takes_gzip(headers) and (file.packed or not file.large)
        etag = f'"{file.sha256}-gzip"' if coded else f'"{file.sha256}"'
        size = file.gzip_bytes if coded else file.size
        fields = {
            "Cache-Control": "public, max-age=31536000, immutable",
            "Vary": "Accept-Encoding",
            "ETag": etag,
            "Accept-Ranges": "bytes",
            # The pages of other stations may read them here.
            "Access-Control-Allow-Origin": "*",
            "Cross-Origin-Resource-Policy": "cross-origin",
            "Content-Security-Policy": self.policy,  # a worker goes by that of its script
        }
        kind = TYPES.get(Path(file.name).suffix, "application/octet-stream")
        known = [tag.strip() for tag in ",".join(headers.get_all("If-None-Match")).split(",")]
        if etag in known or f"W/{etag}" in known or "*" in known:
            return Answer(HTTPStatus.NOT_MODIFIED, kind=kind, headers=fields)
        asked = part(headers, etag, size)
        if asked is not None and not asked:
            return text(
                HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
                f"It has {size} bytes.",
                Content_Range=f"bytes */{size}",
            )
        if coded:
            fields["Content-Encoding"] = "gzip"
        status = HTTPStatus.OK
        if asked is not None:
            status = HTTPStatus.PARTIAL_CONTENT
            fields["Content-Range"] = f"bytes {asked.start}-{asked.stop - 1}/{size}"
        wanted = range(size) if asked is None else asked
        if not file.large:
            body = _compressed(file.path) if coded else file.path.read_bytes()
            return Answer(status, body[wanted.start : wanted.stop], kind, fields)
        if self.readers >= _MOST_READERS:
            return text(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "Too many are loading the player just now; try again in a few seconds.",
                Retry_After="10",
                Access_Control_Allow_Origin="*",
            )
        return Answer(
            status,
            kind=kind,
            headers=fields,
            pieces=functools.partial(self._pieces, file.path, coded, wanted),
            length=len(wanted),
        )

    async def _pieces(self, path: Path, coded: bool, wanted: range) -> AsyncGenerator[bytes, None]:
        """Bytes of a file, read from the disk as they are taken."""
        self.readers += 1
        worker = Worker("file")
        try:
            opened = await worker.run(_open, path, as_it_lies=coded)
            with opened as content:
                await worker.run(content.seek, wanted.start)
                left = len(wanted)
                while left:
                    piece = await worker.run(content.read, min(_READ_BYTES, left))
                    if not piece:
                        raise OSError(f"{path} became shorter while it was sent")
                    left -= len(piece)
                    yield piece
        finally:
            self.readers -= 1
            await worker.close()
