"""The hub: history, joining at any moment, bounded queues."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.stream.history import HISTORY_TOKENS
from streaming.stream.hub import Hub
from streaming.wire.messages import End, Failure, Gap, Hello, Join, StreamInfo, Title, Tokens

INFO = StreamInfo("nano", "nano-1", "a" * 64, 3, packet_tokens=48)


def sent(outbox):
    messages = []
    while (message := outbox.take()) is not None:
        messages.append(message)
    return messages


def heard(messages):
    """Position and values of the tokens in ``messages``, which must follow one another."""
    hello = messages[0]
    assert isinstance(hello, Hello)
    values: list[int] = []
    for message in messages:
        if isinstance(message, Tokens):
            assert message.first_token == hello.first_token + len(values)
            values += message.tokens.tolist()
    return hello.first_token, values


def publish(hub, count, packet=48):
    """Publish ``count`` tokens whose values are their positions, one packet a time."""
    end = hub.next_token + count
    for start in range(hub.next_token, end, packet):
        hub.publish(np.arange(start, min(start + packet, end)) % 16_384, start / 25, 0.4)


@given(
    packet=st.integers(1, 100),
    before=st.integers(0, 1500),
    after=st.integers(0, 300),
    history=st.integers(0, 1200),
)
def test_joining_at_any_moment_leaves_no_hole_and_no_overlap(packet, before, after, history):
    hub = Hub(INFO, max_lag_s=1e9)
    if before:
        publish(hub, before, packet)
    outbox = hub.join(Join(history=history), 0.0)
    if after:
        publish(hub, after, packet)
    first, values = heard(sent(outbox))
    assert values == list(range(first, first + len(values)))
    assert first + len(values) == hub.next_token
    wanted = min(before, history, HISTORY_TOKENS)
    assert before - first >= wanted
    assert before - first <= history


def test_hello_says_what_both_must_agree_on():
    hub = Hub(INFO)
    hub.set_title("one", 0, 0.0)
    hub.publish(np.arange(48), 10.0, delay_s=0.35)
    hello = sent(hub.join(Join(), 10.5))[0]
    assert hello == Hello(
        codec="nano",
        weights="nano-1",
        digest="a" * 64,
        seed=3,
        first_token=0,
        next_token=48,
        age_s=0.5,
        delay_s=0.35,
        packet_tokens=48,
        title="one",
    )


def test_joining_before_the_first_packet():
    hub = Hub(INFO)
    outbox = hub.join(Join(), 5.0)
    (hello,) = sent(outbox)
    assert (hello.first_token, hello.next_token, hello.age_s, hello.title) == (0, 0, 0.0, "")
    publish(hub, 48)
    assert sent(outbox) == [Tokens(0, np.arange(48))]


def test_default_history_is_41_seconds_and_bounded():
    hub = Hub(INFO)
    publish(hub, 48 * 100)
    first, values = heard(sent(hub.join(Join(history=10**9), 0.0)))
    assert 1024 <= len(values) < 1024 + 48
    assert first + len(values) == 4800


def test_long_history_is_split_into_messages():
    hub = Hub(INFO, history_tokens=3000)
    publish(hub, 3000)
    messages = sent(hub.join(Join(history=3000), 0.0))
    assert [len(message.tokens) for message in messages[1:]] == [1024, 1024, 952]


@pytest.mark.parametrize(
    ("next_token", "first"),
    [(4700, 4700), (4800, 4800), (10, 3776), (4801, 4790)],
    ids=["held", "nothing missed", "no longer held", "from another stream"],
)
def test_who_comes_back_goes_on_where_it_was(next_token, first):
    hub = Hub(INFO)
    publish(hub, 4800)
    messages = sent(hub.join(Join(history=10, next_token=next_token), 0.0))
    assert heard(messages)[0] == first


def test_titles_reach_those_who_are_there_and_those_who_join():
    hub = Hub(INFO)
    early = hub.join(Join(), 0.0)
    hub.set_title("one", 0, 0.0)
    hub.set_title("one", 5, 0.0)
    publish(hub, 96)
    hub.set_title("two\n", 90, 4.0)
    hub.set_title("three", 110, 4.0)
    assert hub.title == "three"
    assert [m for m in sent(early) if isinstance(m, Title)] == [
        Title("one", 0),
        Title("two", 90),
        Title("three", 110),
    ]
    messages = sent(hub.join(Join(history=30), 4.0))
    assert messages[0].title == "one"
    # Each just before its token, or as soon as all is sent that there is.
    assert messages[1:] == [
        Tokens(66, np.arange(66, 90)),
        Title("two", 90),
        Tokens(90, np.arange(90, 96)),
        Title("three", 110),
    ]
    assert sent(hub.join(Join(history=0), 4.0))[0].title == "two"


def test_titles_do_not_pile_up():
    hub = Hub(INFO)
    for index in range(1100):
        hub.set_title(f"title {index}", index * 2, 0.0)
    assert len(sent(hub.join(Join(), 0.0))) <= 1025
    publish(hub, 4800)
    messages = sent(hub.join(Join(), 0.0))
    assert messages[0].title == "title 1099"
    assert not [m for m in messages if isinstance(m, Title)]


def test_gap_is_told_then_and_to_those_who_come_later():
    hub = Hub(INFO)
    publish(hub, 48)
    outbox = hub.join(Join(history=0), 0.0)
    hub.skip(10, 2.0)
    assert hub.lost_tokens == 10
    publish(hub, 38)
    assert sent(outbox)[1:] == [Gap(48, 10), Tokens(58, np.arange(58, 96))]
    late = sent(hub.join(Join(), 3.0))
    assert late[1:] == [Tokens(0, np.arange(48)), Gap(48, 10), Tokens(58, np.arange(58, 96))]


def test_end_is_told_once_also_to_who_comes_too_late():
    hub = Hub(INFO)
    outbox = hub.join(Join(), 0.0)
    publish(hub, 48)
    assert not hub.ended
    hub.end("over", 2.0)
    hub.end("again", 2.0)
    assert hub.ended
    assert sent(outbox)[-1] == End(48, "over")
    assert outbox.closed
    late = hub.join(Join(), 3.0)
    assert late.closed
    assert sent(late)[-1] == End(48, "over")


def test_laggard_is_dropped_and_nobody_else():
    hub = Hub(INFO, max_lag_s=30.0)
    woken = []
    slow = hub.join(Join(), 0.0, lambda: woken.append("slow"))
    quick = hub.join(Join(), 0.0)
    assert hub.most_listeners == 2
    received = []
    for _ in range(20):
        publish(hub, 48)
        received += sent(quick)
    assert slow.failure is not None
    assert (hub.listeners, hub.dropped_listeners, hub.most_listeners) == (1, 1, 2)
    assert quick.failure is None
    assert heard(received)[1] == list(range(960))
    assert woken
    (told,) = sent(slow)
    assert isinstance(told, Failure)
    assert "30 s behind" in told.message


def test_lag_counts_live_tokens_that_wait_and_not_history():
    hub = Hub(INFO, max_lag_s=30.0)
    publish(hub, 1024)
    outbox = hub.join(Join(history=1024), 0.0)
    assert outbox.lag_s == 0.0
    publish(hub, 48)
    assert outbox.lag_s == pytest.approx(1.92)
    sent(outbox)
    assert outbox.lag_s == 0.0


def test_a_packet_that_is_longer_than_the_lag_allowed_is_no_lag():
    hub = Hub(INFO, max_lag_s=1.0)
    outbox = hub.join(Join(), 0.0)
    for _ in range(3):
        publish(hub, 48)
        assert outbox.failure is None
        sent(outbox)
    publish(hub, 48)
    publish(hub, 48)
    assert outbox.failure is not None


def test_a_sender_that_goes_away_says_so_after_all_that_it_has_sent():
    hub = Hub(INFO)
    outbox = hub.join(Join(), 0.0)
    publish(hub, 96)
    hub.go_away("It is being restarted.", 1.0)
    hub.end("too late", 2.0)
    assert hub.ended
    assert hub.away
    assert outbox.closed
    messages = sent(outbox)
    assert heard(messages)[1] == list(range(96))
    assert messages[-1] == Failure("away", "It is being restarted.")
    assert outbox.failure is None  # it is no fault of this listener's
    assert sent(hub.join(Join(), 3.0))[-1] == Failure("away", "It is being restarted.")


def titles_of(messages):
    return [message.title for message in messages if isinstance(message, Title)]


@pytest.mark.parametrize("count", [1000, 1100, 5000])
def test_who_joins_the_past_is_told_all_titles_that_are_kept(count):
    hub = Hub(INFO, history_tokens=48 * 5000)
    for index in range(count):
        hub.set_title(f"title {index}", hub.next_token, 0.0)
        publish(hub, 48)
    outbox = hub.join(Join(history=48 * 5000), 0.0)
    told = []
    while (data := outbox.take()) is not None:
        told.append(data)
        publish(hub, 1)  # the stream goes on meanwhile
        if outbox.place >= 48 * count:
            break
    assert outbox.failure is None
    kept = min(1024, count)
    expected = [f"title {index}" for index in range(count - kept, count)]
    assert titles_of(told) == (expected if count > kept else expected[1:])  # or in the hello
    for message, after in itertools.pairwise(told):
        if isinstance(message, Title):
            assert isinstance(after, Tokens)
            assert after.first_token == message.token


def test_a_flood_of_titles_holds_nobody_up_and_takes_no_memory():
    hub = Hub(INFO)
    outbox = hub.join(Join(), 0.0)
    publish(hub, 48)
    for index in range(5000):
        hub.set_title(f"title {index} " + "x" * 1000, index % 7 * 2**29, 0.0)
    told = titles_of(sent(outbox))
    assert told[-1].startswith("title 4999 ")
    assert len(told) < 10
    assert outbox.failure is None
    publish(hub, 4800)
    # Wherever it said that it begins, it does not shut out those after it.
    hub.set_title("after the flood", hub.next_token, 0.0)
    publish(hub, 4800)
    assert hub.hello(hub.next_token, 0.0).title == "after the flood"


def test_traffic_is_what_one_listener_is_sent():
    hub = Hub(INFO)
    publish(hub, 4800)
    assert hub.traffic.tokens == 4800
    assert hub.traffic.payload_bits_per_s(48 * 99 / 25) == pytest.approx(350)


def test_leaving_twice_does_nothing():
    hub = Hub(INFO)
    outbox = hub.join(Join(), 0.0)
    hub.leave(outbox)
    hub.leave(outbox)
    assert hub.listeners == 0


def test_published_tokens_are_not_changed_by_their_owner():
    hub = Hub(INFO)
    tokens = np.arange(48)
    hub.publish(tokens, 0.0)
    tokens[:] = 0
    assert heard(sent(hub.join(Join(), 0.0)))[1] == list(range(48))


def test_a_listener_that_lags_takes_its_packets_in_larger_messages():
    hub = Hub(INFO)
    outbox = hub.join(Join(), 0.0)
    publish(hub, 480)
    assert [len(message.tokens) for message in sent(outbox)[1:]] == [480]


def test_who_catches_up_is_not_behind_but_is_when_it_stops():
    hub = Hub(INFO, history_tokens=10_000, max_lag_s=30.0)
    publish(hub, 10_000)
    outbox = hub.join(Join(next_token=0), 0.0)
    for _ in range(6):
        outbox.take()
        publish(hub, 480)
    assert outbox.failure is None
    for _ in range(2):
        publish(hub, 480)
    assert outbox.failure is not None
    assert hub.dropped_listeners == 1


def test_who_comes_back_to_another_stream_begins_anew():
    hub = Hub(replace(INFO, stream="b"))
    publish(hub, 480)
    assert heard(sent(hub.join(Join(10, next_token=100, stream="b"), 0.0)))[0] == 100
    assert heard(sent(hub.join(Join(10, next_token=100, stream="a"), 0.0)))[0] == 470
    assert sent(hub.join(Join(), 0.0))[0].stream == "b"


def test_an_hour_can_be_asked_for_and_is_told():
    hub = Hub(INFO, history_tokens=10_000)
    for start in range(0, 4800, 48):
        hub.publish(np.arange(48), start / 25, 0.5, unix_s=1_000_000 + (start + 48) / 25 + 0.5)
    hello = sent(hub.join(Join(at_s=1_000_100.0), 0.0))[0]
    assert hello.first_token == 2500
    assert hello.first_at_s == pytest.approx(1_000_100.0)
    assert sent(hub.join(Join(at_s=5.0), 0.0))[0].first_token == 0
    assert sent(hub.join(Join(at_s=2_000_000.0), 0.0))[0].first_token == 4800


def test_an_outlet_is_no_listener():
    hub = Hub(INFO)
    outlet = hub.join(Join(), 0.0, outlet=True)
    listener = hub.join(Join(), 0.0)
    assert (hub.listeners, hub.most_listeners) == (1, 1)
    hub.leave(outlet)
    hub.leave(outlet)  # a second time does nothing
    assert hub.listeners == 1
    hub.leave(listener)
    assert hub.listeners == 0


def test_an_outlet_that_lags_is_dropped_and_counts_as_little():
    hub = Hub(INFO, max_lag_s=1.0)
    outlet = hub.join(Join(), 0.0, outlet=True)
    publish(hub, 480)
    assert outlet.failure is not None
    assert (hub.listeners, hub.dropped_listeners) == (0, 0)


def test_the_newest_tokens_end_at_the_edge_and_begin_after_the_last_gap():
    hub = Hub(INFO)
    assert hub.history.recent(100) is None
    publish(hub, 96)
    assert hub.history.recent(1000) == Tokens(0, np.arange(96))
    assert hub.history.recent(50) == Tokens(46, np.arange(46, 96))
    hub.skip(10, 0.0)
    assert hub.history.recent(50) is None  # nothing is as new as the edge
    publish(hub, 48)
    assert hub.history.recent(100) == Tokens(106, np.arange(106, 154))
    assert hub.history.recent(20) == Tokens(134, np.arange(134, 154))
