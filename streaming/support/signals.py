"""Ctrl-C, SIGTERM and SIGHUP as an event, and an event loop that ends at once with it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["run_loop", "set_on_signals"]

T = TypeVar("T")


class _Unawaited(ThreadPoolExecutor):
    """Threads that look up names of hosts, which may take a minute where the network is bad."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=True)


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, which at its end does not wait for names that are still being looked up."""
    with asyncio.Runner() as runner:
        runner.get_loop().set_default_executor(_Unawaited())
        return runner.run(main)


@contextlib.contextmanager
def set_on_signals(stop: asyncio.Event) -> Iterator[None]:
    """Set ``stop`` on the first Ctrl-C, SIGTERM or SIGHUP.

    A second one does what it did before: it ends one of our programs at once. A terminal that
    is closed sends SIGHUP; a program that ignores it (``nohup``) goes on doing so. Call it
    within the event loop. If signals cannot be caught (on Windows, outside the main thread),
    nothing changes.
    """
    loop = asyncio.get_running_loop()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number in numbers:
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                if loop.remove_signal_handler(number):
                    signal.signal(number, before[number])

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
