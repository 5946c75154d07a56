"""What a running program shows of itself: a status line, statistics, a summary at the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

from streaming.support.stats import StatsWriter
from streaming.support.status_line import StatusLine
from streaming.support.tasks import beside

__all__ = ["Figures", "process_age_s", "watched"]

logger = logging.getLogger(__name__)

_TICK_S: Final = 0.25
_STATS_INTERVAL_S: Final = 1.0

Figures = dict[str, Any]


@contextlib.asynccontextmanager
async def watched(
    figures: Callable[[], Figures],
    parts: Callable[[Figures], list[str]],
    summary: Callable[[Figures], str],
    status: StatusLine,
    stats: StatsWriter,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[None]:
    """Show a service's figures while it runs, and sum them up at the end.

    Args:
        figures: the service's, at the moment of the call.
        parts: what the status line shows after ``title``, the most important first.
        summary: one line about the whole session, for the log.
    """

    async def show() -> None:
        written_s = clock()
        while True:
            await asyncio.sleep(_TICK_S)
            if clock() - written_s >= _STATS_INTERVAL_S:
                written_s += _STATS_INTERVAL_S
                stats.write(figures())
            if status.due():
                shown = figures()
                status.update(shown["title"], parts(shown))

    try:
        async with beside(show()):
            yield
    finally:
        last = figures()
        status.close()
        logger.info("%s", summary(last))
        stats.write(last, final=True)


def process_age_s() -> float | None:
    """Seconds since this process was started, imports and all; None if the system won't say."""
    try:
        stat = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace")
        ticks = int(stat.rpartition(")")[2].split()[19])  # field 22; the name may hold spaces
        started_s = ticks / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started_s
    except (OSError, ValueError, IndexError, AttributeError):
        return None
