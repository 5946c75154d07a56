"""Start rule, live edge and play-out buffer: arithmetic without clocks or sockets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.base import DecoderWindow
from streaming.listen.playout import (
    LiveEdge,
    PlayoutBuffer,
    StartPlan,
    fill_gap,
    plan_start,
)


def block(start: int, samples: int) -> np.ndarray:
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


def test_live_edge_goes_on_with_time_and_trusts_the_earliest_arrival() -> None:
    edge = LiveEdge()
    assert edge.position_s(0.0) is None
    assert edge.latency_s(0.0, 0.0) is None
    edge.arrived(250, 100.0, delay_s=0.5, age_s=1.0)
    assert edge.position_s(100.0) == pytest.approx(11.5)
    assert edge.position_s(103.0) == pytest.approx(14.5)
    edge.arrived(298, 104.0, delay_s=0.5)  # 3 s late: says less than is known
    assert edge.position_s(104.0) == pytest.approx(15.5)
    edge.arrived(346, 104.5, delay_s=0.5)  # 12.92 + 0.5 + 1.92: the old one still wins
    assert edge.latency_s(10.0, 104.5) == pytest.approx(6.0)
    edge.arrived(500, 105.0, delay_s=0.5)
    assert edge.position_s(105.0) == pytest.approx(20.5)


def test_live_edge_forgets_estimates_older_than_a_minute() -> None:
    edge = LiveEdge()
    edge.arrived(25, 0.0, delay_s=10.0)
    edge.arrived(50, 1.0, delay_s=0.0)
    assert edge.position_s(60.0) == pytest.approx(71.0)
    edge.arrived(25 * 61, 61.0, delay_s=0.0)
    assert edge.position_s(61.0) == pytest.approx(61.0 + 1.0)
    edge.arrived(25 * 63, 63.0, delay_s=0.0)
    assert edge.position_s(63.0) == pytest.approx(63.0)


def test_live_edge_memory_is_bounded_by_a_minute_of_packets() -> None:
    edge = LiveEdge()
    for packet in range(10_000):  # a clock that drifts: every lead is less than the one before
        edge.arrived(packet, packet / 25 + packet * 1e-6, delay_s=0.0)
    assert len(edge._leads) <= 60 * 25 + 2


def test_buffer_hands_out_what_was_pushed_in_order() -> None:
    buffer = PlayoutBuffer(1000, capacity_samples=100)
    assert buffer.pull() is None
    buffer.push(block(0, 60))
    assert buffer.has_room
    buffer.push(block(60, 60))
    assert not buffer.has_room
    assert buffer.buffered_samples == 120
    pulled = [buffer.pull(50), buffer.pull(50), buffer.pull(0), buffer.pull()]
    assert [None if p is None else p.shape[1] for p in pulled] == [50, 10, None, 60]
    assert np.array_equal(np.concatenate([p for p in pulled if p is not None], 1), block(0, 120))
    assert buffer.position_sample == 1120
    assert not buffer.exhausted
    buffer.finish()
    assert buffer.exhausted
    assert not buffer.has_room


def test_buffer_cuts_at_its_limit_and_is_finished_then() -> None:
    buffer = PlayoutBuffer(0, capacity_samples=10**6, limit_samples=100)
    buffer.push(block(0, 60))
    assert not buffer.finished
    buffer.push(block(60, 60))
    assert buffer.finished
    buffer.push(block(120, 60))
    assert not buffer.exhausted
    assert buffer.buffered_samples == 100
    while buffer.pull() is not None:
        pass
    assert buffer.samples == 100
    assert buffer.exhausted


def test_buffer_ignores_empty_blocks_and_a_limit_of_nothing_ends_at_once() -> None:
    buffer = PlayoutBuffer(0, capacity_samples=10)
    buffer.push(block(0, 0))
    assert buffer.pull() is None
    assert not buffer.finished
    assert PlayoutBuffer(0, capacity_samples=10, limit_samples=0).exhausted


@given(st.integers(0, 200), st.integers(0, 50))
def test_a_gap_is_filled_with_exactly_as_many_known_tokens(count: int, known: int) -> None:
    last = np.arange(100, 100 + known, dtype=np.int64)
    filled = fill_gap(last, count)
    assert filled.shape == (count,)
    assert filled.dtype == np.int64
    assert set(filled) <= (set(last) if known else {0})
    if known and count:
        assert filled[0] == last[-1]  # goes on from the token heard last


@pytest.mark.parametrize("waiting", [0, 5000])
def test_what_is_cut_off_ends_without_a_step(waiting: int) -> None:
    """Also where all of it was handed out already, in the middle of a loud sound."""
    loud = np.full((2, 1000 + waiting), 0.5, dtype=np.float32)
    buffer = PlayoutBuffer(0, capacity_samples=10**6)
    buffer.push(loud)
    heard = [buffer.pull(1000)]
    buffer.cut()
    buffer.jump(10**6)
    while (part := buffer.pull()) is not None:
        heard.append(part)
    sound = np.concatenate([part for part in heard if part is not None], axis=1)
    assert np.abs(np.diff(sound)).max() < 0.01
    assert np.abs(sound[:, -1]).max() < 0.01
    assert buffer.position_sample == 10**6
    assert buffer.buffered_samples == 0


def test_nothing_is_added_where_silence_is_cut_off() -> None:
    buffer = PlayoutBuffer(0, capacity_samples=10**6)
    buffer.cut()
    buffer.push(np.zeros((2, 100), dtype=np.float32))
    buffer.pull()
    buffer.cut()
    assert buffer.buffered_samples == 0
