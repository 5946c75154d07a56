"""Handing blocks to sinks: order, threads, readers that go, failures, closing."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from streaming.errors import SinkClosed, SinkError
from streaming.receive import output as output_module
from streaming.receive.output import Output
from tests.support.listening import FakeCard, MemorySink


def block(samples: int = 100) -> np.ndarray:
    return np.ones((2, samples), np.float32)


async def test_every_sink_gets_every_block_on_a_thread_of_its_own() -> None:
    one, two, card = MemorySink(), MemorySink(), FakeCard()
    output = Output([one, two], card)
    assert output.first_at_s is None
    for _ in range(5):
        await output.write(block())
    await output.drain()
    await output.close()
    await output.close()
    for sink in (one, two, card):
        assert sink.samples == 500
        assert sink.closed == 1
        assert len(sink.threads) == 1
    assert len(one.threads | two.threads | card.threads | {threading.get_ident()}) == 4
    assert output.first_at_s is not None
    assert card.drained == 1


async def test_without_a_sound_card_nothing_is_unheard_and_nothing_to_drain() -> None:
    output = Output([MemorySink()])
    assert output.unheard_samples == 0
    assert output.underruns == 0
    await output.drain()
    await output.close()


async def test_the_sound_card_tells_what_is_unheard_and_how_often_it_ran_dry() -> None:
    card = FakeCard()
    output = Output([], card)
    card.buffered_samples, card.underruns = 4800, 3
    assert (output.unheard_samples, output.underruns) == (4800, 3)
    await output.close()
    assert (output.unheard_samples, output.underruns) == (0, 3)


async def test_the_sound_card_gets_nothing_before_it_is_due(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, slept = [10.0], []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    file, card = MemorySink(), FakeCard()
    output = Output([file], card, clock=lambda: now[0])
    monkeypatch.setattr(asyncio, "sleep", sleep)
    await output.write(block(), due_s=11.5)
    await output.write(block(), due_s=11.5)
    assert slept == [1.5]
    assert output.first_at_s == 10.0  # the file had it at once
    monkeypatch.undo()
    await output.close()


async def test_a_reader_that_goes_leaves_the_other_sinks_alone() -> None:
    pipe, file = MemorySink(fail_at=100, error=SinkClosed("gone")), MemorySink()
    output = Output([pipe, file])
    for _ in range(3):
        await output.write(block())
    assert (pipe.samples, file.samples) == (100, 300)
    await output.close()
    assert pipe.closed == 1


async def test_when_nobody_listens_any_more_the_output_is_closed() -> None:
    output = Output([MemorySink(error=SinkClosed("gone"))])
    with pytest.raises(SinkClosed):
        await output.write(block())
    assert output.first_at_s is None
    await output.close()


async def test_a_sound_card_goes_on_without_the_pipe() -> None:
    card = FakeCard()
    output = Output([MemorySink(error=SinkClosed("gone"))], card)
    await output.write(block())
    await output.write(block())
    assert card.samples == 200
    await output.close()


async def test_a_failing_sink_ends_it_and_all_are_still_closed() -> None:
    bad, good = MemorySink(error=SinkError("disk full")), MemorySink()
    bad.close_error = SinkError("disk still full")
    output = Output([bad, good])
    with pytest.raises(SinkError, match="disk full"):
        await output.write(block())
    with pytest.raises(SinkError, match="still full"):
        await output.close()
    assert good.closed == 1


async def test_a_pipe_that_nobody_reads_does_not_keep_the_program_from_ending(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(output_module, "_CLOSE_TIMEOUT_S", 0.05)
    stuck, file = MemorySink(), MemorySink()
    stuck.gate.clear()
    output = Output([file, stuck])
    writing = asyncio.create_task(output.write(block()))
    while not stuck.threads:
        await asyncio.sleep(0.001)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await output.close()
    assert file.closed == 1
    assert stuck.closed == 0
    assert "left as it is" in caplog.text
    stuck.gate.set()


async def test_an_output_without_sinks_closes_too() -> None:
    await Output().close()
