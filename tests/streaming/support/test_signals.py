"""Ctrl-C, SIGTERM and SIGHUP as an event, and how the event loop ends."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from streaming.support.signals import run_loop, set_on_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_sets_the_event_and_the_next_one_is_as_ever(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    stop = asyncio.Event()
    with set_on_signals(stop):
        assert signal.getsignal(number) is not before
        os.kill(os.getpid(), number)
        await asyncio.wait_for(stop.wait(), 5)
        assert signal.getsignal(number) is before
    assert signal.getsignal(number) is before


async def test_a_program_that_is_to_outlive_its_terminal_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        stop = asyncio.Event()
        with set_on_signals(stop):
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(0.05)
            assert not stop.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_outside_the_main_thread_nothing_changes() -> None:
    failures: list[BaseException] = []

    async def use() -> None:
        with set_on_signals(asyncio.Event()):
            pass

    def run() -> None:
        try:
            asyncio.run(use())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not failures


def test_the_loop_ends_under_a_name_that_is_still_being_looked_up() -> None:
    release, begun = threading.Event(), threading.Event()

    def look_up() -> None:
        begun.set()
        release.wait()

    async def run() -> int:
        asyncio.get_running_loop().run_in_executor(None, look_up)
        while not begun.is_set():
            await asyncio.sleep(0.001)
        return 7

    try:
        assert run_loop(run()) == 7
    finally:
        release.set()
