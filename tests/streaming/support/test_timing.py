"""Durations in classes."""

from __future__ import annotations

from streaming.support.timing import Timing


def test_durations_are_counted_by_upper_bounds():
    timing = Timing((0.1, 1.0))
    for duration_s in (0.05, 0.1, 0.5, 3.0, -1.0):
        timing.add(duration_s)
    assert timing.cumulative() == [3, 4, 5]
    assert (timing.count, timing.longest_s) == (5, 3.0)
    assert timing.total_s == 0.05 + 0.1 + 0.5 + 3.0


def test_quantiles_are_no_more_than_the_bound_and_no_less_than_the_truth():
    timing = Timing((0.1, 1.0))
    assert timing.quantile_s(0.5) is None
    timing.add(0.04)
    assert timing.quantile_s(0.5) == 0.04  # the longest one
    for duration_s in (0.2, 0.3, 7.0):
        timing.add(duration_s)
    assert timing.quantile_s(0.25) == 0.1
    assert timing.quantile_s(0.5) == 1.0
    assert timing.quantile_s(1.0) == 7.0
