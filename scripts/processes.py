"""`server.py` and `client.py` as processes: started, watched through their ``--stats``, ended."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "Program",
    "ProgramError",
    "Server",
    "Stats",
    "exit_on_sigterm",
    "free_port",
    "read_stats",
]

ROOT = Path(__file__).resolve().parent.parent
Stats: TypeAlias = dict[str, Any]

_POLL_S = 0.02
_PATIENCE_S = 10.0


class ProgramError(Exception):
    """A program ended early, did not end, or did not do what it was started for."""


def exit_on_sigterm() -> None:
    """Let SIGTERM leave through every ``with``, so that no program stays behind."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def free_port() -> int:
    """A TCP port of this machine that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def read_stats(path: Path) -> list[Stats]:
    """The lines of a ``--stats`` file so far; one that is being written is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


class Program:
    """One of this project's programs, running within ``with``; ended on the way out.

    Args:
        log: file for its output; None: the same as ours.
        discard_stdout: only stderr goes there.
    """

    def __init__(
        self,
        arguments: Sequence[str | Path],
        *,
        log: Path | None = None,
        discard_stdout: bool = False,
    ) -> None:
        self.name = str(arguments[0])
        self.started_s = time.monotonic()
        self._arguments = [sys.executable, *map(str, arguments)]
        self._log = log
        self._discard_stdout = discard_stdout
        self._output: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._output = None if self._log is None else self._log.open("wb")
        self.started_s = time.monotonic()
        self._process = subprocess.Popen(
            self._arguments,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if self._discard_stdout else self._output,
            stderr=self._output,
        )
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running process; raises RuntimeError outside ``with``."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process

    def wait(self, timeout_s: float) -> int:
        """Wait for its own end and return the exit code; ProgramError after ``timeout_s``."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ProgramError(f"{self.name} did not end within {timeout_s:.0f} s") from None

    def wait_for(self, condition: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
        """Wait until ``condition()``; ProgramError on an early end or after ``timeout_s``."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            if self.process.poll() is not None:
                raise ProgramError(f"{self.name} ended before {what}{self.tail()}")
            if time.monotonic() > deadline_s:
                raise ProgramError(f"no {what} from {self.name} within {timeout_s:.0f} s")
            time.sleep(_POLL_S)

    def stop(self) -> int:
        """End it the way Ctrl-C does, harder if that does not help; returns the exit code."""
        for end in (lambda: self.process.send_signal(signal.SIGINT), self.process.terminate):
            if self.process.poll() is None:
                end()
                try:
                    self.process.wait(_PATIENCE_S)
                except subprocess.TimeoutExpired:
                    continue
        self.process.kill()  # nothing happens if it has ended
        code = self.process.wait()
        if self._output is not None:
            self._output.close()
        return code

    def tail(self, lines: int = 8) -> str:
        """The last lines of its log, to be put after a message; empty if it has none."""
        if self._log is None or not self._log.exists():
            return ""
        text = self._log.read_text(encoding="utf-8", errors="replace").strip()
        return "".join(f"\n    {line}" for line in text.splitlines()[-lines:])


class Server(Program):
    """`server.py` on a free port of this machine, its log and statistics in ``folder``."""

    def __init__(self, folder: Path, *arguments: str | Path) -> None:
        self.stats_path = folder / "server.jsonl"
        port = free_port()
        self.url = f"ws://127.0.0.1:{port}"
        super().__init__(
            [
                *("server.py", *arguments),
                *("--host", "127.0.0.1", "--port", str(port), "--stats", self.stats_path),
            ],
            log=folder / "server.log",
        )

    @property
    def stats(self) -> Stats:
        """The newest line of its statistics; empty before the first."""
        lines = read_stats(self.stats_path)
        return lines[-1] if lines else {}

    def wait_for_tokens(self, tokens: int, timeout_s: float = 60.0) -> None:
        """Wait until so many tokens were released: a past for a listener to start from."""
        self.wait_for(lambda: self.stats.get("tokens", 0) >= tokens, "tokens", timeout_s)
