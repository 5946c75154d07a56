"""What the sender holds of its own stream, and when that was."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.errors import SettingsError
from streaming.stream.rewind import RewindBuffer
from streaming.stream.timeline import CONTEXT_TOKENS, StartAt, Timeline, parse_duration_s
from streaming.wire.messages import MAX_INDEX, Gap, Join, Tokens

DAY_TOKENS = 24 * 3600 * 25


def values(first, count):
    return (np.arange(first, first + count) * 7) % 16_384


@given(
    st.integers(1, 20_000),
    st.lists(st.tuples(st.booleans(), st.integers(1, 3000)), max_size=30),
    st.integers(1, 5000),
)
def test_what_is_held_can_be_read_back_gaps_included(capacity, steps, most):
    buffer = RewindBuffer(capacity)
    present: list[bool] = []
    for there, count in steps:
        if there:
            buffer.append(values(buffer.next_token, count))
        else:
            buffer.skip(count)
        present += [there] * count
    assert buffer.next_token == len(present)
    assert buffer.next_token - buffer.oldest_token <= capacity
    place = buffer.oldest_token
    while (part := buffer.read(place, most)) is not None:
        assert part.first_token == place
        if isinstance(part, Gap):
            assert not any(present[place : place + part.count])
            place += part.count
        else:
            assert len(part.tokens) <= most
            assert all(present[place : part.end_token])
            assert np.array_equal(part.tokens, values(place, len(part.tokens)))
            place = part.end_token
    assert place == buffer.next_token


def test_what_is_no_longer_held_is_a_gap():
    buffer = RewindBuffer(100)
    buffer.append(values(0, 10_000))
    assert buffer.oldest_token == 9900
    assert buffer.read(0, 10) == Gap(0, 9900)
    assert buffer.read(10_000, 10) is None


def test_a_day_takes_little_more_than_four_megabytes():
    buffer = RewindBuffer(DAY_TOKENS)
    for start in range(0, 3 * DAY_TOKENS // 2, 100_000):
        buffer.append(values(start, 100_000))
    assert sum(block.nbytes for block in buffer._blocks.values()) < 4.4e6
    part = buffer.read(buffer.oldest_token, 1024)
    assert part == Tokens(buffer.oldest_token, values(buffer.oldest_token, 1024))


def test_a_gap_takes_neither_memory_nor_time():
    buffer = RewindBuffer(2**32)
    for _ in range(3):
        buffer.append(np.arange(48))
        buffer.skip(2**30)
    buffer.append(np.arange(48))
    assert sum(block.nbytes for block in buffer._blocks.values()) <= 4 * 8192
    assert buffer.read(48, 1024) == Gap(48, 2**30)
    assert buffer.read(buffer.next_token - 48, 1024) == Tokens(3 * (48 + 2**30), np.arange(48))


def test_a_stream_that_goes_on_from_before_begins_at_its_index():
    buffer = RewindBuffer(1000)
    buffer.start(12_345)
    assert (buffer.oldest_token, buffer.next_token) == (12_345, 12_345)
    buffer.append(values(12_345, 10))
    assert buffer.read(12_345, 99) == Tokens(12_345, values(12_345, 10))


def test_a_buffer_without_room_is_refused():
    with pytest.raises(ValueError, match="room"):
        RewindBuffer(0)


# Times


def test_tokens_and_times_are_arithmetic():
    timeline = Timeline()
    assert timeline.time_of(5) is None
    assert timeline.token_at(5.0) is None
    for token in range(0, 100_000, 48):
        timeline.note(token, 1e9 + token / 25 + 0.3 * (token % 3))  # no clock is exact
    assert timeline._tokens == [0]
    assert timeline.time_of(50_000) == 1e9 + 2000
    assert timeline.token_at(1e9 + 2000) == 50_000
    assert timeline.token_at(0.0) == 0


def test_a_sender_that_was_down_has_a_hole_in_its_times_and_none_in_its_tokens():
    timeline = Timeline()
    timeline.note(0, 1000.0)
    timeline.note(250, 1010.0)
    timeline.note(500, 5000.0)  # an hour later it goes on counting
    assert timeline.time_of(499) == pytest.approx(1019.96)
    assert timeline.time_of(500) == 5000.0
    assert timeline.token_at(1015.0) == 375
    assert timeline.token_at(3000.0) == 500
    assert timeline.token_at(5001.0) == 525
    timeline.forget_before(600)
    assert timeline._tokens == [500]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("10m", 600), ("24h", 86_400), ("1h30m", 5400), ("0.5s", 0.5)],
)
def test_durations_are_read(text, seconds):
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "10x", "-5", "1h-3m", "1" * 40, "9" * 20, "¹s", "5 m"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(SettingsError, match="no duration"):
        parse_duration_s(text)


def test_places_in_a_stream_are_read():
    assert StartAt.parse("live").live
    assert StartAt.parse("-10m") == StartAt(behind_s=600)
    assert StartAt.parse("token:12345") == StartAt(token=12_345)
    assert StartAt.parse("2026-11-22T20:00+00:00") == StartAt(unix_s=1_795_377_600)
    assert StartAt.parse("2026-11-22T20:00Z") == StartAt(unix_s=1_795_377_600)
    local = time.mktime((2026, 11, 22, 20, 0, 0, 0, 0, -1))
    assert StartAt.parse("2026-11-22T20:00") == StartAt(unix_s=local)


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "-", "-5y", "token:", "token:-1", "token:²", f"token:{2**32}", "25:00"],
)
def test_what_is_no_place_is_refused(text):
    with pytest.raises(SettingsError):
        StartAt.parse(text)


def test_a_place_is_asked_for_with_context_before_it():
    assert StartAt().join(256, "c") == Join(256, "c")
    assert StartAt(behind_s=600).join(256, "c") == Join(15_000 + CONTEXT_TOKENS, "c")
    assert StartAt(token=1000).join(9, "") == Join(9, next_token=1000 - CONTEXT_TOKENS)
    assert StartAt(token=10).join(9, "") == Join(9, next_token=0)
    assert StartAt(unix_s=1000.0).join(9, "") == Join(9, at_s=1000 - CONTEXT_TOKENS / 25)
    assert StartAt(behind_s=1e9).join(9, "").history == MAX_INDEX
    assert StartAt(token=1000).first_heard(744) == 1000
    assert StartAt(token=1000).first_heard(1200) == 1200
    assert StartAt(behind_s=9.0).first_heard(700) == 700 + CONTEXT_TOKENS
    assert StartAt(behind_s=9.0).first_heard(0) == 0
