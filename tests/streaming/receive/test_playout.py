"""Start rule and play-out buffer, without clocks or sockets."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.base import DecoderWindow
from streaming.receive.playout import Block, PlayoutBuffer, StartPlan, plan_start


def ramp(start: int, samples: int) -> np.ndarray:
    return np.tile(np.arange(start, start + samples, dtype=np.float32), (2, 1))


@given(st.integers(0, 5000), st.integers(1, 64), st.integers(0, 32))
def test_decodable_edge_is_the_last_whole_hop_with_its_lookahead(
    tokens: int, hop: int, lookahead: int
) -> None:
    edge = DecoderWindow(context=0, hop=hop, lookahead=lookahead).decodable(tokens)
    assert edge == max(0, (tokens - lookahead) // hop * hop)


def test_start_is_one_packet_interval_less_its_age_plus_margin_behind_the_edge() -> None:
    plan = plan_start(
        next_token=480,
        first_token=224,
        packet_tokens=48,
        age_s=0.92,
        margin_s=0.5,
        hop=16,
        lookahead=8,
    )
    # Edge 464; the next packet comes in 1.0 s; 1.5 s are 37.5 tokens: 38.
    assert plan == StartPlan(464 - 38, 0.0)


def test_without_enough_history_play_out_starts_at_the_first_token_and_waits() -> None:
    plan = plan_start(
        next_token=48, first_token=0, packet_tokens=48, age_s=0.0, margin_s=0.5, hop=16, lookahead=8
    )
    # Edge 32, needed 48 + 12.5: 29 tokens too few.
    assert plan == StartPlan(0, 29 / 25)


def test_a_silent_sender_does_not_move_the_start_past_the_edge() -> None:
    plan = plan_start(
        next_token=480,
        first_token=0,
        packet_tokens=48,
        age_s=100.0,
        margin_s=0.0,
        hop=16,
        lookahead=8,
    )
    assert plan == StartPlan(464, 0.0)


@given(
    packets=st.integers(1, 40),
    packet_tokens=st.integers(1, 100),
    age_part=st.floats(0, 1),
    margin_s=st.floats(0, 2),
    hop=st.integers(1, 40),
    lookahead=st.integers(0, 16),
    history=st.integers(1, 400),
)
def test_play_out_at_once_never_runs_dry(
    packets: int,
    packet_tokens: int,
    age_part: float,
    margin_s: float,
    hop: int,
    lookahead: int,
    history: int,
) -> None:
    next_token = packets * packet_tokens
    first_token = max(0, next_token - history)
    age_s = age_part * packet_tokens / 25
    plan = plan_start(
        next_token=next_token,
        first_token=first_token,
        packet_tokens=packet_tokens,
        age_s=age_s,
        margin_s=margin_s,
        hop=hop,
        lookahead=lookahead,
    )
    assert plan.start_token >= first_token
    assert plan.hold_s >= 0
    spare = []
    window = DecoderWindow(context=0, hop=hop, lookahead=lookahead)
    for arrived in range(3 * hop):
        edge = window.decodable(next_token + arrived * packet_tokens)
        dry_s = (edge - plan.start_token) / 25 + plan.hold_s
        next_packet_s = (arrived + 1) * packet_tokens / 25 - age_s
        spare.append(dry_s - next_packet_s - margin_s)
    assert min(spare) > -1e-6
    if plan.start_token > first_token and next_token >= lookahead:
        assert min(spare) < 1 / 25 + 1e-6  # and no further behind than needed


async def one(buffer: PlayoutBuffer, max_samples: int) -> Block:
    """The next block."""
    block = await buffer.get(max_samples)
    assert block is not None
    return block


async def everything(buffer: PlayoutBuffer, max_samples: int = 10**6) -> list[Block]:
    """What waits, without waiting for more."""
    blocks: list[Block] = []
    while buffer.buffered_samples:
        blocks.append(await one(buffer, max_samples))
    return blocks


async def test_buffer_hands_out_what_was_put_in_order_and_says_where_it_lies() -> None:
    buffer = PlayoutBuffer(capacity_samples=100)
    buffer.begin(1000, due_s=7.0)
    await buffer.put(ramp(0, 60))
    putting = asyncio.create_task(buffer.put(ramp(60, 60)))
    await asyncio.sleep(0)
    assert not putting.done()  # it is full
    assert buffer.buffered_samples == 120
    blocks = [await one(buffer, 50)]
    await asyncio.sleep(0)
    assert putting.done()
    blocks += await everything(buffer, 50)
    assert [(b.first_sample, b.samples) for b in blocks] == [
        (1000, 50),
        (1050, 10),
        (1060, 50),
        (1110, 10),
    ]
    assert {(b.start_sample, b.due_s) for b in blocks} == {(1000, 7.0)}
    assert np.array_equal(np.concatenate([b.sound for b in blocks], 1), ramp(0, 120))
    assert (buffer.position_sample, buffer.samples) == (1120, 120)
    buffer.finish()
    assert await buffer.get(50) is None


async def test_who_waits_for_sound_is_woken_by_it_and_by_the_end() -> None:
    buffer = PlayoutBuffer(capacity_samples=100)
    buffer.begin(0)
    getting = asyncio.create_task(one(buffer, 50))
    await asyncio.sleep(0)
    await buffer.put(ramp(0, 0))
    await asyncio.sleep(0)
    assert not getting.done()  # nothing was in it
    await buffer.put(ramp(0, 10))
    assert (await getting).samples == 10
    ending = asyncio.create_task(buffer.get(50))
    await asyncio.sleep(0)
    buffer.finish()
    assert await ending is None


async def test_buffer_cuts_at_its_limit_and_is_finished_then() -> None:
    buffer = PlayoutBuffer(capacity_samples=10**6, limit_samples=100)
    buffer.begin(0)
    await buffer.put(ramp(0, 60))
    assert not buffer.finished
    await buffer.put(ramp(60, 60))
    assert buffer.finished
    await buffer.put(ramp(120, 60))
    assert buffer.buffered_samples == 100
    await everything(buffer)
    assert buffer.samples == 100
    assert await buffer.get(1) is None
    assert await PlayoutBuffer(capacity_samples=10, limit_samples=0).get(1) is None


async def test_the_limit_counts_what_is_handed_out_and_not_what_was_cut_off() -> None:
    buffer = PlayoutBuffer(capacity_samples=10**6, limit_samples=10_000)
    buffer.begin(0)
    await buffer.put(ramp(0, 20_000))
    buffer.cut()
    buffer.begin(50_000)
    await buffer.put(ramp(0, 20_000))
    await everything(buffer)
    assert buffer.samples == 10_000


@pytest.mark.parametrize("waiting", [0, 5000])
async def test_what_is_cut_off_ends_without_a_step(waiting: int) -> None:
    """Also where all of it was handed out already, in the middle of a loud sound."""
    buffer = PlayoutBuffer(capacity_samples=10**6)
    buffer.begin(0)
    await buffer.put(np.full((2, 1000 + waiting), 0.5, dtype=np.float32))
    heard = [await one(buffer, 1000)]
    buffer.cut()
    await buffer.put(np.ones((2, 100), dtype=np.float32))  # was on its way, and is let go
    buffer.begin(10**6)
    heard += await everything(buffer)
    sound = np.concatenate([block.sound for block in heard], axis=1)
    assert np.abs(np.diff(sound)).max() < 0.01
    assert np.abs(sound[:, -1]).max() < 0.01
    assert (buffer.position_sample, buffer.start_sample) == (10**6, 10**6)


async def test_who_puts_into_a_full_buffer_that_is_cut_waits_no_longer() -> None:
    buffer = PlayoutBuffer(capacity_samples=100)
    buffer.begin(0)
    putting = asyncio.create_task(buffer.put(ramp(0, 5000)))
    await asyncio.sleep(0)
    buffer.cut()
    await putting


async def test_nothing_is_added_where_silence_is_cut_off() -> None:
    buffer = PlayoutBuffer(capacity_samples=10**6)
    buffer.cut()
    buffer.begin(0)
    await buffer.put(np.zeros((2, 100), dtype=np.float32))
    await everything(buffer)
    buffer.cut()
    assert buffer.buffered_samples == 0
