"""A Mosquitto broker for tests: its own process on loopback, its configuration in a folder.

Import the fixture where it is used:
``from tests.support.mosquitto import mosquitto  # noqa: F401``.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

__all__ = ["Mosquitto", "mosquitto"]

_PATIENCE_S = 60.0


class Mosquitto:
    """One broker, which may be killed and started again on the same port.

    settings: lines of mosquitto.conf after the listener. persistent: what is retained survives a
    kill, as of the last :meth:`save`.
    """

    def __init__(self, folder: Path, *settings: str, persistent: bool = False) -> None:
        self.folder = folder
        self.port = free_port()
        self._log = folder / "mosquitto.log"
        lines = [f"listener {self.port} 127.0.0.1", *settings]
        if not any(line.startswith(("password_file", "allow_anonymous")) for line in settings):
            lines.append("allow_anonymous true")
        if os.geteuid() == 0:
            lines.append("user root")  # otherwise it gives up the rights to its own folder
        if persistent:
            lines += ["persistence true", f"persistence_location {folder}/"]
        self._config = folder / "mosquitto.conf"
        self._config.write_text("\n".join([*lines, "log_dest stderr", ""]))
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, topic: str = "", login: str = "", scheme: str = "mqtt") -> str:
        """Address of a topic here."""
        return f"{scheme}://{login}127.0.0.1:{self.port}/{topic}"

    @property
    def pid(self) -> int:
        """Number of its process."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def start(self) -> None:
        """Start it and wait until it listens."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [mosquitto_program(), "-c", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline_s = time.monotonic() + _PATIENCE_S
        while True:
            assert self._process.poll() is None, f"mosquitto ended:\n{self.log}"
            assert time.monotonic() < deadline_s, f"mosquitto does not listen:\n{self.log}"
            try:
                socket.create_connection(("127.0.0.1", self.port), 1.0).close()
            except OSError:
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """End it as a power cut would."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def stop(self) -> None:
        """End it in good order; what is persistent is saved."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(_PATIENCE_S)


def mosquitto_program() -> str:
    """The program; Debian has it where only root looks. A machine without it fails the tests."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    assert program is not None, "these tests need the Mosquitto broker: apt-get install mosquitto"
    return program


def free_port() -> int:
    """A port on loopback that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Callable[..., Mosquitto]]:
    """Makes brokers that run until the end of the test."""
    made: list[Mosquitto] = []

    def make(*settings: str, **options: bool) -> Mosquitto:
        folder = tmp_path / f"broker{len(made)}"
        folder.mkdir()
        made.append(Mosquitto(folder, *settings, **options))
        made[-1].start()
        return made[-1]

    yield make
    for broker in made:
        broker.kill()
