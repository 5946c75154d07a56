"""How a program is doing, and the JSON lines of ``--stats``, for both ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from streaming.errors import UserError, reason_of
from streaming.support.timing import Timing

__all__ = ["LoopStall", "RealTimeFactor", "StatsWriter"]

logger = logging.getLogger(__name__)


class RealTimeFactor:
    """Computing time per second of sound, over the last ``window`` pieces of work."""

    def __init__(self, window: int = 50) -> None:
        self._pieces: deque[tuple[float, float]] = deque(maxlen=window)

    def add(self, busy_s: float, sound_s: float) -> None:
        """Count a piece of work: ``busy_s`` of computing for ``sound_s`` of sound."""
        self._pieces.append((busy_s, sound_s))

    @property
    def value(self) -> float | None:
        """Below 1 is faster than real time; None while nothing was computed."""
        sound_s = sum(sound for _, sound in self._pieces)
        return sum(busy for busy, _ in self._pieces) / sound_s if sound_s > 0 else None


class LoopStall:
    """Measures how long the event loop is held up: how late a task wakes.

    Attributes:
        timing: by how much it woke too late, in seconds.
    """

    def __init__(self, interval_s: float = 0.02) -> None:
        self.interval_s = interval_s
        self.timing = Timing()

    async def watch(self) -> None:
        """Measure until cancelled; to be run beside the work."""
        while True:
            due_s = time.monotonic() + self.interval_s
            await asyncio.sleep(self.interval_s)
            self.timing.add(time.monotonic() - due_s)

    @property
    def longest_s(self) -> float:
        """The longest stall so far."""
        return self.timing.longest_s

    @property
    def longest_ms(self) -> float:
        """The longest stall so far in milliseconds."""
        return self.longest_s * 1000


class StatsWriter:
    """One JSON object a line, to ``path`` or nowhere when it is None; usable in ``with``.

    Raises UserError if the file cannot be opened. Should writing fail later (a full disk), a
    warning says so once and the stream goes on without statistics.
    """

    def __init__(
        self, path: Path | str | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._clock = clock
        self._file: TextIO | None = None
        if path is not None:
            try:
                self._file = Path(path).open("w", encoding="utf-8")  # noqa: SIM115 (see close)
            except OSError as error:
                raise UserError(
                    f"Cannot write statistics to {path} ({reason_of(error)}); choose another file."
                ) from None

    def write(self, values: Mapping[str, Any], *, final: bool = False) -> None:
        """Write ``values`` with ``time_s`` (monotonic) before them; numbers are kept short.

        Args:
            final: mark the last line with ``"final": true``.
        """
        if self._file is None:
            return
        line: dict[str, Any] = {"time_s": self._clock(), **values}
        if final:
            line["final"] = True
        try:
            self._file.write(json.dumps({k: _short(v) for k, v in line.items()}) + "\n")
            self._file.flush()  # so that another program can follow the file
        except OSError as error:
            logger.warning("no more statistics in %s: %s", self._path, reason_of(error))
            self.close()

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # what it still held was told of when it was written
                file.close()

    def __enter__(self) -> StatsWriter:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _short(value: Any) -> Any:
    """Floats to four places, and null for what JSON has no number for."""
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value
