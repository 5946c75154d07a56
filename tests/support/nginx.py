"""A reverse proxy for tests: nginx as a process on loopback, its configuration in a folder.

Import the fixture in a test module: ``from tests.support.nginx import nginx  # noqa: F401``.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.mosquitto import free_port

__all__ = ["Nginx", "nginx"]

_PATIENCE_S = 60.0
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class Nginx:
    """One nginx. server: its ``server`` block, with PORT for the port on which it listens."""

    def __init__(self, folder: Path, server: str) -> None:
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        assert program is not None, "these tests need the web server nginx: apt-get install nginx"
        self.port = free_port()
        self._log = folder / "nginx.log"
        paths = "\n".join(f"{name}_temp_path {folder}/{name};" for name in _TEMPORARY)
        config = folder / "nginx.conf"
        block = server.replace("PORT", str(self.port))
        config.write_text(
            f"daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr info;\n"
            f"events {{}}\nhttp {{ access_log off;\n{paths}\n{block}}}\n"
        )
        command = [program, "-p", str(folder), "-c", str(config)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline_s = time.monotonic() + _PATIENCE_S
        while True:
            assert self._process.poll() is None, f"nginx ended:\n{self.log}"
            assert time.monotonic() < deadline_s, f"nginx does not listen:\n{self.log}"
            try:
                socket.create_connection(("127.0.0.1", self.port), 1.0).close()
            except OSError:
                time.sleep(0.02)
            else:
                return

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def end(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Callable[[str], Nginx]]:
    """Makes proxies that run until the end of the test."""
    made: list[Nginx] = []

    def make(server: str) -> Nginx:
        folder = tmp_path / f"nginx{len(made)}"
        folder.mkdir()
        made.append(Nginx(folder, server))
        return made[-1]

    yield make
    for proxy in made:
        proxy.end()
