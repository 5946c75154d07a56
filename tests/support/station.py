"""A web server whose answers a test lays down, for sources that are on the web."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Answer", "Station", "answer", "chunked", "icy"]

Answer = Callable[[BaseHTTPRequestHandler], None]
"""Answers one request."""


class Station:
    """Listens on loopback; use it as a context manager.

    Attributes: ``answers`` by path, of which a list is used up but for its last one; ``requests``,
    path and headers of each so far; ``url``.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Answer | list[Answer]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        station = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                station.requests.append((self.path, dict(self.headers)))
                found = station.answers.get(self.path, answer(b"", status=404))
                if isinstance(found, list):
                    found = found.pop(0) if len(found) > 1 else found[0]
                self.close_connection = True
                with contextlib.suppress(OSError):  # whoever asked has gone
                    found(self)

            def log_message(self, format: str, *args: object) -> None:
                """The test looks at ``requests``."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def answer(
    body: bytes, kind: str = "audio/mpeg", status: int = 200, length: int | None = -1, **more: str
) -> Answer:
    """Headers and body; length: as announced, None for none at all."""

    def give(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Type", kind)
        if length is not None:
            request.send_header("Content-Length", str(len(body) if length < 0 else length))
        for name, value in more.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)

    return give


def icy(body: bytes, *titles: bytes, interval: int = 1024, name: str = "A Station") -> Answer:
    """An Internet radio that plays ``body`` under the titles, spread over it evenly, and hangs up.

    Without titles there is no room for them either.
    """
    if not titles:
        return answer(body, length=None, icy_name=name)
    out = b""
    pieces = [body[at : at + interval] for at in range(0, len(body), interval)]
    told = -1
    for number, piece in enumerate(pieces):
        due = number * len(titles) // len(pieces)
        out += piece
        if len(piece) < interval:
            break
        block = b"" if due == told else b"StreamTitle='" + titles[due] + b"';StreamUrl='';"
        told = due
        size = -(-len(block) // 16)
        out += bytes([size]) + block.ljust(16 * size, b"\0")
    return answer(out, length=None, icy_name=name, icy_metaint=str(interval))


def chunked(body: bytes, kind: str = "audio/mpeg") -> Answer:
    """A body whose length is not known before it ends."""

    def give(request: BaseHTTPRequestHandler) -> None:
        request.protocol_version = "HTTP/1.1"
        request.send_response(200)
        request.send_header("Content-Type", kind)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        for at in range(0, len(body), 5000):
            piece = body[at : at + 5000]
            request.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        request.wfile.write(b"0\r\n\r\n")

    return give
