"""Ctrl-C, SIGTERM and SIGHUP as an event, and work that ends with it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Iterator
from typing import TypeVar

__all__ = ["set_on_signals", "unless"]

T = TypeVar("T")


@contextlib.contextmanager
def set_on_signals(stop: asyncio.Event) -> Iterator[None]:
    """Set ``stop`` on the first Ctrl-C, SIGTERM or SIGHUP; a second one has its usual effect.

    A terminal that is closed sends SIGHUP; a program that ignores it (``nohup``) goes on doing so.
    Within the event loop. Where signals cannot be caught (on Windows, outside the main thread),
    nothing changes and Ctrl-C raises KeyboardInterrupt as ever.
    """
    loop = asyncio.get_running_loop()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)

    def restore() -> None:
        for number in numbers:
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.remove_signal_handler(number)

    def caught() -> None:
        stop.set()
        restore()

    for number in numbers:
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, caught)
    try:
        yield
    finally:
        restore()


async def unless(stop: asyncio.Event, work: Awaitable[T]) -> T | None:
    """The result of ``work``, or None when ``stop`` is set before; ``work`` is then cancelled."""
    working = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        stopping.cancel()
        working.cancel()  # does nothing when it is done
        await asyncio.gather(working, stopping, return_exceptions=True)
