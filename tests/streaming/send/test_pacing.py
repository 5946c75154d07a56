"""The pacer against a clock of our own."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.send.pacing import RealTimePacer


class Clock:
    def __init__(self, time=100.0):
        self.time = time

    def __call__(self):
        return self.time


def test_real_time_is_kept():
    clock = Clock()
    pacer = RealTimePacer(clock)
    assert pacer.due() == 0
    total = 0
    for _ in range(1000):
        clock.time += 0.0123
        due = pacer.due()
        pacer.take(due)
        total += due
    assert total == pytest.approx(12.3 * 48_000, abs=1)
    assert pacer.taken == total
    assert pacer.slipped_s == 0


def test_a_head_start_is_given_once():
    clock = Clock()
    pacer = RealTimePacer(clock, lead_s=2.0)
    assert pacer.due() == 96_000
    pacer.take(96_000)
    assert pacer.due() == 0
    clock.time += 0.5
    assert pacer.due() == 24_000


def test_a_stall_is_caught_up_within_the_bound_and_no_further():
    clock = Clock()
    pacer = RealTimePacer(clock, max_burst_s=0.5)
    clock.time += 0.4
    assert pacer.due() == 19_200
    assert pacer.slipped_s == 0
    clock.time += 3600
    assert pacer.due() == 24_000
    assert pacer.slipped_s == pytest.approx(3599.9)
    pacer.take(24_000)
    assert pacer.due() == 0
    clock.time += 0.1
    assert pacer.due() == pytest.approx(4_800, abs=1)


def test_waiting_as_long_as_told_makes_samples_due():
    clock = Clock(0.1)
    pacer = RealTimePacer(clock, lead_s=0.3)
    for _ in range(10_000):
        pacer.take(1920)
        clock.time += pacer.wait_s(1920)
        assert pacer.due() >= 1920
    assert clock.time == pytest.approx(0.1 - 0.3 + 10_001 * 0.04)


def test_what_is_due_already_needs_no_wait():
    clock = Clock()
    pacer = RealTimePacer(clock)
    clock.time += 0.3
    assert pacer.wait_s(100) == 0.0


def test_restarting_forgets_what_was_owed():
    clock = Clock()
    pacer = RealTimePacer(clock)
    pacer.take(480_000)
    assert pacer.wait_s(0) == pytest.approx(10.0)
    pacer.restart()
    assert pacer.wait_s(0) == 0.0
    clock.time += 0.1
    assert pacer.due() == 4_800


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 50), st.integers(0, 30_000)), max_size=50))
def test_no_clock_however_wild_makes_a_burst(steps):
    clock = Clock()
    pacer = RealTimePacer(clock, lead_s=0.25, max_burst_s=0.5)
    slipped = 0.0
    for step, taken in steps:
        clock.time += step
        assert 0 <= pacer.due() <= 36_000
        assert pacer.slipped_s >= slipped
        slipped = pacer.slipped_s
        pacer.take(taken)
        assert pacer.wait_s(0) >= 0


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="lead_s"):
        RealTimePacer(Clock(), lead_s=-1)
    with pytest.raises(ValueError, match="max_burst_s"):
        RealTimePacer(Clock(), max_burst_s=0)
    with pytest.raises(ValueError, match="cannot take"):
        RealTimePacer(Clock()).take(-1)
