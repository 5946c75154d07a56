"""A model hub on loopback: one repository, files with digests, and connections that break."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["FakeHub", "serve_hub"]


@dataclass
class FakeHub:
    """What the hub holds and what it was asked for; changed by tests while it runs.

    breaks: by file, after how many bytes to cut the next connections, one entry each.
    ranges: first byte of every download asked for, by file. spoilt: files with a byte changed on
    the way.
    """

    repository: str
    files: dict[str, bytes]
    commit: str = "a" * 40
    endpoint: str = ""
    breaks: dict[str, list[int]] = field(default_factory=dict)
    ranges: dict[str, list[int]] = field(default_factory=dict)
    spoilt: set[str] = field(default_factory=set)
    requests: int = 0


@contextlib.contextmanager
def serve_hub(hub: FakeHub) -> Iterator[FakeHub]:
    """Run the hub on a free port; ``hub.endpoint`` is its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            hub.requests += 1
            path = self.path.split("?")[0]
            api = f"/api/models/{hub.repository}"
            files = f"/{hub.repository}/resolve/"
            if path == api or path.startswith(f"{api}/"):
                revision = path.removeprefix(api).removeprefix("/revision/") or "main"
                if revision not in ("main", hub.commit):
                    self.refuse("RevisionNotFound")
                    return
                siblings = [{"rfilename": name} for name in hub.files]
                facts = {"id": hub.repository, "sha": hub.commit, "siblings": siblings}
                self.send(200, json.dumps(facts).encode(), {"Content-Type": "application/json"})
            elif path.startswith(files):
                name = path.removeprefix(files).split("/", 1)[1]
                self.file(name, hub.files[name], body)
            else:
                self.refuse("RepoNotFound")

        def refuse(self, code: str) -> None:
            self.send(404, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

        def file(self, name: str, content: bytes, body: bool) -> None:
            headers = {
                "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
                "X-Repo-Commit": hub.commit,
                "Accept-Ranges": "bytes",
            }
            if not body:
                self.send(200, content, headers, body=False)
                return
            asked = self.headers.get("Range", "bytes=0-")
            first = int(asked.removeprefix("bytes=").split("-")[0])
            hub.ranges.setdefault(name, []).append(first)
            if first:
                headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
            if name in hub.spoilt:
                content = content[:-1] + bytes([content[-1] ^ 1])
            cuts = hub.breaks.get(name)
            cut = cuts.pop(0) if cuts else None
            self.send(206 if first else 200, content[first:], headers, cut=cut)

        def send(
            self,
            status: int,
            content: bytes,
            headers: dict[str, str],
            body: bool = True,
            cut: int | None = None,
        ) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content[:cut])
                if cut is not None:
                    self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
