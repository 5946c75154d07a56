"""The plainest of web hosts: Python's file server, which serves no parts of files."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["plain_host"]


class _QuietHandler(SimpleHTTPRequestHandler):
    def __init__(self, *arguments: Any, more: dict[str, str], **options: Any) -> None:
        self.more = more
        super().__init__(*arguments, **options)

    def end_headers(self) -> None:
        for name, value in self.more.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def plain_host(folder: Path, headers: dict[str, str] | None = None) -> Iterator[str]:
    """Serve a folder on loopback, with more ``headers``; yields its address."""
    handler = functools.partial(_QuietHandler, directory=str(folder), more=headers or {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
