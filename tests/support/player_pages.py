"""The player's files on a port of their own, for tests that run its modules without a station."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

__all__ = ["MODULES", "Pages", "player_files"]

STATIC = Path(__file__).parents[2] / "streaming/web/static"
MODULES = "/player/modules"
"""Where the modules are: two folders below the page, as on a station."""
_TYPES = {".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript"}


def player_files() -> dict[str, Path | bytes]:
    """All static files and an empty page at ``/``."""
    found: dict[str, Path | bytes] = {"/": b"<!doctype html><title>test</title>"}
    found |= {f"/{path.name}": path for path in STATIC.glob("*.*")}
    return found | {f"{MODULES}/{path.name}": path for path in (STATIC / "player").glob("*.js")}


class Pages:
    """Serves ``files``, by path; attributes: ``url``, ``port``."""

    def __init__(self, files: Mapping[str, Path | bytes]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = urlsplit(self.path).path
                found = files.get(path)
                body = found.read_bytes() if isinstance(found, Path) else found or b""
                self.send_response(200 if found is not None else 404)
                kind = _TYPES.get(Path(path).suffix, "application/octet-stream")
                self.send_header("Content-Type", "text/html" if path == "/" else kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/"

    def __enter__(self) -> Pages:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
