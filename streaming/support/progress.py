"""A bar on standard error for work whose end is known; elsewhere a line in the log now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from streaming.support.status_line import StatusLine

__all__ = ["ProgressBar"]

_CELLS: Final = 24


class ProgressBar:
    """Several files, each so many seconds of sound long.

    Args:
        files: how many there are.
        status: where it is shown.
        clock: monotonic seconds.
    """

    def __init__(
        self, files: int, status: StatusLine, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._shares = [0.0] * files
        self._done_s = [0.0] * files
        self._status = status
        self._clock = clock
        self._began_s = clock()

    @property
    def share(self) -> float:
        """From 0 to 1, every file counting the same."""
        return sum(self._shares) / len(self._shares)

    def update(self, index: int, name: str, done_s: float, total_s: float | None) -> None:
        """File ``index`` has come so far."""
        self._done_s[index] = done_s
        self._shares[index] = min(1.0, done_s / total_s) if total_s else 0.0
        self._show(name)

    def finished(self, index: int, name: str) -> None:
        """File ``index`` is done, for good or bad."""
        self._shares[index] = 1.0
        self._show(name)

    def _show(self, name: str) -> None:
        if not self._status.due():
            return
        share, elapsed_s = self.share, max(1e-6, self._clock() - self._began_s)
        parts = [
            f"{_bar(share)} {100 * share:.0f} %",
            f"{sum(self._done_s) / elapsed_s:.1f}× real time",
        ]
        if share:
            parts.append(f"{_minutes(elapsed_s / share - elapsed_s)} left")
        if len(self._shares) > 1:
            parts.append(f"{sum(s == 1.0 for s in self._shares)} of {len(self._shares)} files")
        self._status.update(name, parts)


def _bar(share: float) -> str:
    full = round(_CELLS * share)
    return "█" * full + "░" * (_CELLS - full)


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
