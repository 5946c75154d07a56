"""Asking a listener whether it still reads, with times handed in."""

from __future__ import annotations

import pytest

from streaming.stream.heartbeat import IDLE_S, WINDOW_TOKENS, Heartbeat, ask_interval_s


@pytest.mark.parametrize(("max_lag_s", "interval_s"), [(1.0, 1.0), (30.0, 10.0), (3600.0, IDLE_S)])
def test_questions_are_as_far_apart_as_the_lag_allows(max_lag_s, interval_s):
    assert ask_interval_s(max_lag_s) == interval_s
    heartbeat = Heartbeat(max_lag_s, 100.0)
    assert not heartbeat.due(100.0 + interval_s - 0.1)
    assert heartbeat.due(100.0 + interval_s)


def test_who_does_not_answer_within_the_lag_is_overdue():
    heartbeat = Heartbeat(30.0, 0.0)
    heartbeat.sent(48)
    assert heartbeat.ask(10.0) == 30.0
    assert not heartbeat.due(30.0)  # one question at a time
    assert not heartbeat.overdue(39.9)
    assert heartbeat.overdue(40.0)
    heartbeat.answer()
    assert not heartbeat.overdue(1000.0)
    assert heartbeat.due(20.0)


def test_no_more_than_a_window_is_sent_ahead_of_the_answers():
    heartbeat = Heartbeat(30.0, 0.0)
    heartbeat.sent(WINDOW_TOKENS // 2)
    assert heartbeat.due(0.0)
    heartbeat.ask(0.0)
    heartbeat.sent(WINDOW_TOKENS // 2)
    assert heartbeat.full
    heartbeat.answer()  # it has read what was sent before the question, and no more
    assert not heartbeat.full
    heartbeat.sent(WINDOW_TOKENS // 2)
    assert heartbeat.full


def test_who_catches_up_over_a_slow_link_has_the_time_that_it_takes():
    heartbeat = Heartbeat(30.0, 0.0)
    heartbeat.sent(4000)
    assert heartbeat.ask(0.0) == 160.0
    assert not heartbeat.overdue(159.0)
    assert heartbeat.overdue(160.0)


def test_in_silence_a_question_comes_once_a_minute():
    heartbeat = Heartbeat(30.0, 5.0)
    assert heartbeat.idle_at_s == 65.0
    heartbeat.ask(65.0)
    assert heartbeat.idle_at_s == 125.0
