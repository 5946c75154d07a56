"""Tasks that run beside something else, and end with it."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from streaming.support.tasks import beside, cancel, unless


class Work:
    """Runs until it is told to end; remembers whether it is over, and how."""

    def __init__(self) -> None:
        self.enough = asyncio.Event()
        self.running = asyncio.Event()
        self.ended = ""

    async def run(self) -> str:
        self.running.set()
        try:
            await self.enough.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # as what has to clear up first
            self.ended = "cancelled"
            raise
        self.ended = "by itself"
        return "done"


async def fails() -> None:
    raise ValueError("no")


async def test_work_ends_with_the_block() -> None:
    work = Work()
    async with beside(work.run()):
        await work.running.wait()
        running = not work.ended
    assert running
    assert work.ended == "cancelled"


async def test_work_may_be_awaited_within() -> None:
    work = Work()
    async with beside(work.run()) as task:
        work.enough.set()
        assert await task == "done"


async def test_what_the_block_raises_comes_out_as_it_is() -> None:
    work = Work()

    async def block() -> None:
        async with beside(work.run()):
            await work.running.wait()
            raise KeyError

    with pytest.raises(KeyError):
        await block()
    assert work.ended == "cancelled"


async def test_what_work_raises_goes_to_whoever_awaits_it_alone() -> None:
    async with beside(fails()) as task:
        with pytest.raises(ValueError, match="no"):
            await task
    async with beside(fails()):
        await asyncio.sleep(0)


async def test_a_block_that_is_cancelled_ends_its_work_first() -> None:
    work = Work()

    async def block() -> None:
        async with beside(work.run()):
            await asyncio.Event().wait()

    task = asyncio.create_task(block())
    await work.running.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert work.ended == "cancelled"


async def test_work_that_ends_first_gives_its_result() -> None:
    assert await unless(asyncio.Event(), asyncio.sleep(0, 7)) == 7


async def test_work_that_fails_raises() -> None:
    async def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await unless(asyncio.Event(), fail())


async def test_the_event_cancels_the_work() -> None:
    stop = asyncio.Event()
    cancelled = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.set()

    asyncio.get_running_loop().call_soon(stop.set)
    await unless(stop, work())
    assert cancelled.is_set()


async def test_tasks_are_over_once_they_were_cancelled_however_they_end() -> None:
    works = [Work(), Work()]
    tasks = [asyncio.create_task(work.run()) for work in works]
    broken = asyncio.create_task(fails())
    await asyncio.sleep(0)
    await cancel(*tasks, broken)
    assert [work.ended for work in works] == ["cancelled"] * 2
    assert isinstance(broken.exception(), ValueError)


async def test_tasks_may_be_given_time_to_end_by_themselves() -> None:
    quick, stuck = Work(), Work()
    tasks = [asyncio.create_task(work.run()) for work in (quick, stuck)]
    quick.enough.set()
    await cancel(*tasks, within_s=0.01)
    assert (quick.ended, stuck.ended) == ("by itself", "cancelled")
