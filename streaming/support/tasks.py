"""Tasks that run beside something else, and end with it.

:class:`asyncio.TaskGroup` would wrap what is raised within into an ExceptionGroup; whoever catches
our errors looks at which one it is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Coroutine
from typing import Any, TypeVar

__all__ = ["beside", "cancel", "unless"]

T = TypeVar("T")


@contextlib.asynccontextmanager
async def beside(work: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Run ``work`` beside what happens within, and no longer; yields its task, to be awaited.

    What it raises goes to whoever awaits it, and to nobody else.
    """
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        await cancel(task)


async def unless(stop: asyncio.Event, work: Awaitable[T]) -> T | None:
    """The result of ``work``, or None when ``stop`` is set before; ``work`` is then cancelled."""
    working = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        await cancel(working, stopping)  # which does nothing to one that is done


async def cancel(*tasks: asyncio.Future[Any], within_s: float = 0.0) -> None:
    """Cancel tasks and wait until they are over; what they raise is of no interest any more.

    Args:
        within_s: time to end by themselves before that.
    """
    if within_s:
        await asyncio.wait(tasks, timeout=within_s)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
