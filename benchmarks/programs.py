"""Programs of other projects, run with bytes in and bytes out: how long they take, how much memory.

The peak is the kernel's high-water mark of the program's resident memory, looked at while it runs.
What the kernel hands out afterwards (``getrusage``) is no good here: a program that Python starts
begins as a twin of Python, and its peak counts that in.
"""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

__all__ = ["Done", "ProgramError", "peak_mb", "run"]

_TIMEOUT_S = 300.0
_LOOK_EVERY_S = 0.002


class ProgramError(Exception):
    """A program that could not be run or that failed; one sentence with what it said."""


@dataclass(frozen=True)
class Done:
    """What a program wrote, how long it took, start included, and its peak in megabytes.

    Attributes:
        cpu_s: processor time.
        peak_mb: None if there is no ``/proc`` to tell it.
    """

    output: bytes
    seconds: float
    cpu_s: float
    peak_mb: float | None


def peak_mb(process: int | str = "self") -> float | None:
    """The most memory that a living process ever had resident, in MB; None if none can tell."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return None
    kib = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return kib[0] * 1024 / 1e6 if kib else None


class _Watch:
    """Looks at a process's peak until it is gone."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.peak_mb: float | None = None
        self._over = Event()
        self._thread = Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while True:
            self.peak_mb = peak_mb(self.pid) or self.peak_mb  # a zombie has no memory to tell of
            if self._over.wait(_LOOK_EVERY_S):
                return

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def _children_cpu_s() -> float:
    """Processor time of all child processes that have ended so far."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def run(command: Sequence[str], data: bytes) -> Done:
    """Run a program with ``data`` as its standard input; raises ProgramError."""
    name, begin, cpu_begin = command[0], time.perf_counter(), _children_cpu_s()
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except OSError as error:
        raise ProgramError(f"{name} could not be run: {error}") from error
    with process, _Watch(process.pid) as watch:
        try:
            output, said = process.communicate(data, timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise ProgramError(f"{name} did not end within {_TIMEOUT_S:g} s") from error
        seconds = time.perf_counter() - begin
    cpu_s = _children_cpu_s() - cpu_begin
    if process.returncode:
        last = said.decode(errors="replace").strip().splitlines() or ["nothing"]
        raise ProgramError(f"{name} ended with exit code {process.returncode} and said: {last[0]}")
    return Done(output, seconds, cpu_s, watch.peak_mb)
