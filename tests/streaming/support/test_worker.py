"""The worker thread: order, errors, cancellation and calls that hang."""

from __future__ import annotations

import asyncio
import threading

import pytest

from streaming.support.worker import Worker, call_on_thread


async def test_calls_run_in_order_on_one_other_thread() -> None:
    worker = Worker("test")
    seen: list[tuple[int, str]] = []

    def note(number: int, *, word: str) -> int:
        seen.append((number, word))
        return threading.get_ident()

    idents = await asyncio.gather(*(worker.run(note, n, word="x") for n in range(20)))
    assert seen == [(n, "x") for n in range(20)]
    assert len(set(idents)) == 1
    assert idents[0] != threading.get_ident()
    assert await worker.close()


async def test_errors_reach_the_caller_and_the_thread_goes_on() -> None:
    worker = Worker("test")
    with pytest.raises(ZeroDivisionError):
        await worker.run(lambda: 1 // 0)
    assert await worker.run(lambda: 7) == 7
    assert await worker.close()
    assert await worker.close()  # a second time does nothing
    with pytest.raises(RuntimeError, match="after close"):
        await worker.run(lambda: 7)


async def test_a_cancelled_caller_leaves_the_running_call_to_its_end() -> None:
    worker = Worker("test")
    started, release, done = threading.Event(), threading.Event(), threading.Event()

    def slow() -> None:
        started.set()
        release.wait()
        done.set()

    running = asyncio.create_task(worker.run(slow))
    waiting = asyncio.create_task(worker.run(pytest.fail, "was cancelled before its turn"))
    while not started.is_set():
        await asyncio.sleep(0.001)
    running.cancel()
    waiting.cancel()
    await asyncio.gather(running, waiting, return_exceptions=True)
    release.set()
    assert await worker.close()
    assert done.is_set()


async def test_an_error_after_the_caller_was_cancelled_is_dropped() -> None:
    worker = Worker("test")
    started, release = threading.Event(), threading.Event()

    def fail_late() -> None:
        started.set()
        release.wait()
        raise ValueError("nobody listens")

    running = asyncio.create_task(worker.run(fail_late))
    while not started.is_set():
        await asyncio.sleep(0.001)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    release.set()
    assert await worker.close()


def test_a_call_that_hangs_is_left_behind() -> None:
    begun, release, threads = threading.Event(), threading.Event(), []

    def hang() -> None:
        begun.set()
        release.wait()

    async def main() -> bool:
        worker = Worker("hanging")
        threads.append(worker._thread)
        task = asyncio.create_task(worker.run(hang))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        return await worker.close(timeout_s=0.05)

    assert asyncio.run(main()) is False
    release.set()  # the loop is closed by now; the thread must still end quietly
    threads[0].join(5)
    assert not threads[0].is_alive()


async def test_single_calls_have_a_thread_of_their_own() -> None:
    assert await call_on_thread(int, "12", base=8) == 10
    with pytest.raises(ValueError, match="invalid literal"):
        await call_on_thread(int, "x")
