"""A thread for blocking work, so that the event loop never waits for a model, disk or pipe."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, ParamSpec, TypeVar

__all__ = ["MODEL_PATIENCE_S", "Worker", "call_model", "call_on_thread"]

logger = logging.getLogger(__name__)

MODEL_PATIENCE_S: Final = 0.5
"""Time for a model to end what it is at, which may be the import of torch."""
_LAST_PATIENCE_S: Final = 10.0

P = ParamSpec("P")
T = TypeVar("T")

_left_behind: list[threading.Thread] = []


@atexit.register
def _wait_for_the_rest() -> None:
    """An interpreter that ends under a thread in native code crashes, so it waits for them.

    Our programs end without it instead, and do not wait (:func:`streaming.cli.start.start`).
    """
    for thread in _left_behind:
        thread.join(_LAST_PATIENCE_S)


class Worker:
    """One thread that makes blocking calls one after another, awaited from one event loop.

    Unlike an executor's the thread is a daemon: a write that hangs in a pipe which nobody reads
    must not keep the program from ending. An event loop that simulates time has a coroutine
    `blocking_call(worker's name, call, ...)`, which makes the calls instead: no thread could know
    what time it is.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._closed = False
        self._simulated = getattr(self._loop, "blocking_call", None)
        self._turn = asyncio.Lock()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._started = False

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`call(*args, **kwargs)` on the thread; returns what it returns, raises what it raises.

        When the caller is cancelled meanwhile, the call still runs to its end, unheeded.
        """
        if self._closed:
            raise RuntimeError("run() after close()")
        if self._simulated is not None:
            async with self._turn:
                result: T = await self._simulated(self._name, call, *args, **kwargs)
                return result
        if not self._started:
            self._started = True
            self._thread.start()
        future: asyncio.Future[T] = self._loop.create_future()

        def job() -> None:
            if future.cancelled():  # before its turn came
                return
            try:
                result = call(*args, **kwargs)
            except BaseException as error:  # belongs to whoever awaits
                self._report(_settle, future, None, error)
            else:
                self._report(_settle, future, result, None)

        self._jobs.put(job)
        return await future

    async def close(self, timeout_s: float = 5.0) -> bool:
        """Let the work that was asked for end; False when it did not within `timeout_s`."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
        if not self._started:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self._ended.wait()
        except TimeoutError:
            logger.debug("the thread %s is left behind in a call", self._thread.name)
            _left_behind.append(self._thread)
            return False
        self._thread.join()
        return True

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # a block of sound must not live on until the next one comes
        self._report(self._ended.set)

    def _report(self, callback: Callable[..., Any], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            self._loop.call_soon_threadsafe(callback, *args)


async def call_on_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """One blocking call on a thread of its own, see `Worker.run`."""
    worker = Worker(getattr(call, "__name__", "call"))
    try:
        return await worker.run(call, *args, **kwargs)
    finally:
        await worker.close()


async def call_model(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The same for what imports or runs a model.

    A caller that is cancelled meanwhile, as by Ctrl-C, waits no longer than `MODEL_PATIENCE_S`
    for its end.
    """
    worker = Worker("model")
    try:
        return await worker.run(call, *args, **kwargs)
    finally:
        await worker.close(MODEL_PATIENCE_S)


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
