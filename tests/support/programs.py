"""`server.py` and `client.py` as processes, for tests that watch them from outside.

Import the fixture in a test module: `from tests.support.programs import programs  # noqa: F401`.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from scripts.processes import ROOT, Stats, read_stats

__all__ = ["Programs", "Running", "programs"]

_PATIENCE_S = 180.0


class Running:
    """A program with its log and its statistics in files side by side."""

    def __init__(self, process: subprocess.Popen[bytes], base: Path) -> None:
        self.process = process
        self.base = base

    def file(self, suffix: str) -> Path:
        """A file of this program's name."""
        return self.base.with_suffix(suffix)

    @property
    def log(self) -> str:
        """What it has said on standard error so far."""
        return self.file(".log").read_text(encoding="utf-8", errors="replace")

    @property
    def stats(self) -> list[Stats]:
        """The lines of its statistics so far."""
        return read_stats(self.file(".jsonl"))

    @property
    def final(self) -> Stats:
        """The last line of the statistics, the only one that says so."""
        stats = self.stats
        assert [line.get("final", False) for line in stats] == [False] * (len(stats) - 1) + [True]
        return stats[-1]

    def latest(self, figure: str) -> Any:
        """A figure from the newest line of the statistics; 0 while there is none."""
        stats = self.stats
        return (stats[-1][figure] if stats else None) or 0

    def until(self, happened: Callable[[], object]) -> None:
        """Wait until something has happened, however long it takes on a busy machine."""
        deadline_s = time.monotonic() + _PATIENCE_S
        while not happened():
            assert self.process.poll() is None, f"ended early:\n{self.log}"
            assert time.monotonic() < deadline_s, f"waited in vain:\n{self.log}"
            time.sleep(0.02)

    def ends(self) -> int:
        """Wait for its end; returns the exit code."""
        return self.process.wait(_PATIENCE_S)

    def interrupt(self) -> int:
        """What Ctrl-C does; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.ends()


class Programs:
    """Starts programs, each with one thread for its models; what still runs at the end is killed.

    Attributes: `folder`, which holds what they write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: list[Running] = []

    def start(
        self,
        name: str,
        *arguments: object,
        stdin: int = subprocess.DEVNULL,
        stdout: IO[bytes] | int = subprocess.DEVNULL,
        env: dict[str, str] | None = None,
    ) -> Running:
        """Start a Python program under a name of its own."""
        base = self.folder / name
        with base.with_suffix(".log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                cwd=ROOT,
                env={**(env or os.environ), "OMP_NUM_THREADS": "1"},
                stdin=stdin,
                stdout=stdout,
                stderr=log,
            )
        running = Running(process, base)
        self._running.append(running)
        return running

    def server(self, name: str, *arguments: object, **options: Any) -> tuple[Running, str]:
        """A server that listens, and where."""
        stats = self.folder / f"{name}.jsonl"
        command = ("server.py", *arguments, "--port", "0", "--threads", "1", "--stats", stats)
        server = self.start(name, *command, **options)
        server.until(lambda: "listening on" in server.log)
        return server, re.findall(r"listening on (ws://\S+)", server.log)[0]

    def client(self, name: str, url: str, *arguments: object, **options: Any) -> Running:
        """A listener to `url`."""
        stats = self.folder / f"{name}.jsonl"
        command = ("client.py", url, *arguments, "--threads", "1", "--stats", stats)
        return self.start(name, *command, **options)

    def end(self) -> None:
        """Kill what still runs."""
        for running in self._running:
            if running.process.poll() is None:
                running.process.kill()
            running.process.wait()
            if running.process.stdin is not None:
                with contextlib.suppress(OSError):
                    running.process.stdin.close()


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """Programs that end with the tests of a module."""
    started = Programs(tmp_path_factory.mktemp("programs"))
    yield started
    started.end()
