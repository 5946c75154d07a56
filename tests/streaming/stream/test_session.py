"""Both ends of a connection, without one."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.errors import ProtocolError, TransportError
from streaming.stream.hub import Hub
from streaming.stream.listener_session import CodecIdentity, ListenerSession, State
from streaming.stream.sender_session import JOIN_TIMEOUT_S, SenderSession
from streaming.wire.messages import (
    MAX_GAP_TOKENS,
    End,
    Failure,
    Gap,
    Hello,
    Join,
    StreamInfo,
    Title,
    Tokens,
    Unknown,
)
from streaming.wire.parsing import decode

OURS = CodecIdentity("nano", "nano-1", "a" * 64)
HELLO = Hello(
    codec="nano",
    weights="nano-1",
    digest="a" * 64,
    seed=0,
    first_token=100,
    next_token=148,
    age_s=0.0,
    delay_s=0.3,
    packet_tokens=48,
    title="one",
)


def tokens(first, count):
    """Tokens whose values are their own positions."""
    return Tokens(first, np.arange(first, first + count) % 16_384)


def joined(**changes):
    session = ListenerSession(OURS)
    session.receive(replace(HELLO, **changes), 0.0)
    return session


def test_listener_asks_for_history_first():
    session = ListenerSession(OURS, history=64, client="test", next_token=9)
    assert session.join() == Join(64, "test", 9, kinds=(2,))
    assert session.state is State.JOINING


def test_hello_tells_where_the_stream_stands():
    session = ListenerSession(OURS)
    assert session.receive(HELLO, 0.0) == [HELLO]
    assert session.hello == HELLO
    assert session.state is State.STREAMING
    assert session.next_token == 100
    assert session.title == "one"


@pytest.mark.parametrize(
    ("hello", "told"),
    [
        (replace(HELLO, codec="mucodec"), "codec 'mucodec'"),
        (replace(HELLO, digest="b" * 64), "weights 'nano-1'.* 'nano-1' .*--weights"),
        (replace(HELLO, sample_rate=44_100), "44100 Hz"),
        (replace(HELLO, token_rate=50), "50 tokens"),
        (replace(HELLO, token_bits=10), "10 bits"),
    ],
)
def test_what_cannot_be_decoded_is_refused_with_one_sentence(hello, told):
    with pytest.raises(ProtocolError, match=told) as refusal:
        ListenerSession(OURS).receive(hello, 0.0)
    assert str(refusal.value).endswith(".")


def test_other_protocol_version_is_refused():
    hello = {**json.loads(HELLO.encode()), "protocol": 2}
    with pytest.raises(ProtocolError, match="version 2"):
        ListenerSession(OURS).receive(decode(json.dumps(hello)), 0.0)


def test_who_does_not_decode_takes_any_codec():
    session = ListenerSession(None)
    assert session.receive(replace(HELLO, codec="other"), 0.0)


@pytest.mark.parametrize("message", [tokens(0, 1), Title("a", 0), Join()])
def test_sender_that_does_not_begin_with_a_hello_is_refused(message):
    with pytest.raises(ProtocolError, match="hello"):
        ListenerSession(OURS).receive(message, 0.0)


@pytest.mark.parametrize("message", [HELLO, Join()])
def test_messages_out_of_place_are_refused(message):
    with pytest.raises(ProtocolError, match=message.type):
        joined().receive(message, 0.0)


def test_tokens_come_in_order():
    session = joined()
    assert session.receive(tokens(100, 48), 0.0) == [tokens(100, 48)]
    assert session.receive(tokens(148, 48), 1.0) == [tokens(148, 48)]
    assert (session.next_token, session.lost_tokens, session.duplicate_tokens) == (196, 0, 0)


def test_duplicates_are_dropped_and_overlaps_trimmed():
    session = joined()
    session.receive(tokens(100, 48), 0.0)
    assert session.receive(tokens(100, 48), 0.0) == []
    assert session.receive(tokens(10, 4), 0.0) == []
    assert session.receive(tokens(140, 20), 0.0) == [tokens(148, 12)]
    assert session.duplicate_tokens == 48 + 4 + 8
    assert session.lost_tokens == 0


def test_jump_forward_is_a_gap_before_the_tokens():
    session = joined()
    assert session.receive(tokens(110, 5), 0.0) == [Gap(100, 10), tokens(110, 5)]
    assert session.lost_tokens == 10


def test_announced_gap_counts_what_is_not_there_yet():
    session = joined()
    assert session.receive(Gap(95, 10), 0.0) == [Gap(100, 5)]
    assert session.receive(Gap(90, 10), 0.0) == []
    assert session.lost_tokens == 5


HOUR, MONTH = 3600 * 25, 31 * 24 * 3600 * 25


@pytest.mark.parametrize("count", [MAX_GAP_TOKENS, MAX_GAP_TOKENS + 1, HOUR, MONTH, 2**31])
def test_a_gap_of_any_length_is_one_that_is_counted(count, caplog):
    session = joined()
    assert session.receive(tokens(100 + count, 1), 0.0) == [
        Gap(100, count),
        tokens(100 + count, 1),
    ]
    assert (session.lost_tokens, session.gaps) == (count, 1)
    assert ("minutes of the stream are missing" in caplog.text) == (count > MAX_GAP_TOKENS)
    again = joined()
    assert again.receive(Gap(100, count), 0.0) == [Gap(100, count)]
    assert again.receive(End(110 + count), 0.0)[0] == Gap(100 + count, 10)


def test_a_stream_that_jumps_back_is_left_to_come_back_to_it():
    session = interrupted()
    far = tokens(100_000, 48)
    session.receive(far, 1.0)
    repeated = tokens(far.end_token - 2048, 48)
    assert session.receive(repeated, 1.0) == []
    with pytest.raises(TransportError, match="jumped back"):
        session.receive(tokens(148, 48), 1.0)
    session.rejoin()
    back = replace(STREAM, first_token=148, next_token=196)
    assert session.receive(back, 9.0) == [back]
    assert session.receive(tokens(148, 48), 9.0) == [tokens(148, 48)]


def test_titles_are_reported():
    session = joined()
    assert session.receive(Title("two", 120), 0.0) == [Title("two", 120)]
    assert session.title == "two"


def test_end_shows_what_was_lost_before_it_and_closes_the_stream():
    session = joined()
    assert session.receive(End(104, "over"), 0.0) == [Gap(100, 4), End(104, "over")]
    assert session.state is State.ENDED
    assert session.receive(tokens(104, 4), 0.0) == []


def test_error_event_is_raised_in_any_state():
    failure = Failure("lag", "You are too slow.")
    for session in (ListenerSession(OURS), joined()):
        with pytest.raises(ProtocolError, match="too slow"):
            session.receive(failure, 0.0)


def test_unknown_events_are_passed_over():
    for session in (ListenerSession(OURS), joined()):
        assert session.receive(Unknown("applause"), 0.0) == []


def test_rates_leave_history_out():
    session = joined()
    session.receive(tokens(100, 48), 0.0)  # up to the live edge
    session.receive(tokens(148, 48), 1.0)
    session.receive(tokens(196, 48), 2.92)
    assert session.traffic.tokens == 144
    assert session.traffic.payload_bits_per_s(2.92) == pytest.approx(350)


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 60)), max_size=30))
def test_whatever_arrives_every_token_is_reported_once_and_in_order(packets):
    session = joined(first_token=0)
    expected = 0
    for first, count in packets:
        for event in session.receive(tokens(first, count), 0.0):
            assert event.first_token == expected
            if isinstance(event, Gap):
                expected += event.count
            else:
                assert event == tokens(expected, len(event.tokens))
                expected = event.end_token
    assert session.next_token == expected


@given(st.lists(st.binary(max_size=40) | st.text(max_size=40), max_size=5))
def test_garbage_raises_nothing_but_protocol_errors(messages):
    for session in (ListenerSession(OURS), joined()):
        for message in messages:
            try:
                session.receive(decode(message), 0.0)
            except ProtocolError:
                break


STREAM = replace(HELLO, stream="s", first_token=0, next_token=0)


def interrupted(**changes):
    """A session that has got 100 tokens and lost its connection."""
    session = ListenerSession(OURS, client="test")
    session.receive(replace(STREAM, **changes), 0.0)
    session.receive(tokens(0, 100), 0.0)
    return session


def test_who_comes_back_names_the_token_it_wants_next():
    session = interrupted()
    assert session.rejoin() == Join(256, "test", 100, "s", kinds=(2,))
    assert session.receive(replace(STREAM, first_token=100, next_token=148), 9.0) == []
    assert session.receive(tokens(100, 48), 9.0) == [tokens(100, 48)]
    assert (session.lost_tokens, session.duplicate_tokens) == (0, 0)


@pytest.mark.parametrize("count", [30, HOUR, MONTH, 2**31])
def test_what_the_sender_no_longer_holds_is_a_gap(count):
    session = interrupted()
    session.rejoin()
    hello = replace(STREAM, first_token=100 + count, next_token=148 + count)
    assert session.receive(hello, 9.0) == [Gap(100, count)]
    assert session.lost_tokens == count


@pytest.mark.parametrize(
    "changes",
    [
        {"stream": "t"},
        {"stream": ""},
        {"seed": 7},
        {"next_token": 99, "first_token": 90},
    ],
    ids=["another", "nameless", "other seed", "gone back"],
)
def test_another_stream_after_coming_back_begins_anew(changes):
    session = interrupted()
    session.rejoin()
    hello = replace(STREAM, **{"first_token": 90, "next_token": 148, **changes})
    assert session.receive(hello, 9.0) == [hello]
    assert session.next_token == hello.first_token


def test_one_can_begin_anew_on_purpose():
    session = ListenerSession(OURS, join=Join(client="test", at_s=9.0), auth_token="secret")
    expected = Join(client="test", at_s=9.0, auth_token="secret", kinds=(2,))
    assert session.rejoin() == expected
    session.receive(STREAM, 0.0)
    assert session.rejoin(Join(16)) == Join(16, auth_token="secret", kinds=(2,))
    hello = replace(STREAM, first_token=90, next_token=148)
    assert session.receive(hello, 9.0) == [hello]


# The sender's side


def make_hub():
    hub = Hub(StreamInfo("nano", "nano-1", "a" * 64, 0, packet_tokens=48))
    hub.publish(np.arange(48), 0.0)
    return hub


def sent(session):
    messages = []
    while (message := session.take()) is not None:
        messages.append(message)
    return messages


def test_who_joins_is_sent_hello_and_history():
    hub = make_hub()
    session = SenderSession(hub, 0.0)
    assert sent(session) == []
    session.receive(Join(history=16, client="test"), 1.0)
    hello, history = sent(session)
    assert (hello.first_token, hello.next_token, hello.age_s) == (32, 48, 1.0)
    assert history == tokens(32, 16)
    assert session.state is State.STREAMING
    assert session.client == "test"
    assert hub.listeners == 1
    session.leave()
    assert hub.listeners == 0


@pytest.mark.parametrize("message", [End(1), tokens(0, 1)])
def test_anything_but_a_join_is_refused(message):
    hub = make_hub()
    woken = []
    session = SenderSession(hub, 0.0, lambda: woken.append(True))
    session.receive(message, 0.0)
    assert session.state is State.ENDED
    assert woken
    (failure,) = sent(session)
    assert failure == session.failure
    assert failure.code == "protocol"
    session.receive(Join(), 0.0)
    assert hub.listeners == 0
    assert sent(session) == []


def test_second_join_is_refused_and_the_listener_let_go():
    hub = make_hub()
    session = SenderSession(hub, 0.0)
    session.receive(Join(), 0.0)
    session.receive(Join(), 0.0)
    assert hub.listeners == 0
    assert [message.type for message in sent(session)] == ["error"]


def test_unknown_events_of_a_listener_are_passed_over():
    session = SenderSession(make_hub(), 0.0)
    session.receive(Unknown("applause"), 0.0)
    assert session.state is State.JOINING
    assert session.failure is None


def test_who_does_not_join_in_time_is_refused():
    session = SenderSession(make_hub(), 5.0)
    session.tick(5.0 + JOIN_TIMEOUT_S - 0.1)
    assert session.state is State.JOINING
    session.tick(5.0 + JOIN_TIMEOUT_S)
    session.tick(5.0 + JOIN_TIMEOUT_S)
    assert session.failure is not None
    assert session.failure.code == "timeout"
    assert len(sent(session)) == 1


def test_who_joined_has_no_deadline():
    session = SenderSession(make_hub(), 0.0)
    session.receive(Join(), 0.0)
    session.tick(1000.0)
    assert session.state is State.STREAMING


def test_who_was_asked_and_does_not_answer_is_dropped():
    hub = make_hub()
    woken = []
    session = SenderSession(hub, 0.0, lambda: woken.append(True))
    session.receive(Join(), 0.0)
    sent(session)
    session.heartbeat.ask(0.0)
    session.tick(29.0)
    assert session.failure is None
    woken.clear()
    session.tick(30.0)
    session.tick(31.0)
    assert session.state is State.ENDED
    assert woken
    assert (hub.listeners, hub.dropped_listeners) == (0, 1)
    (failure,) = sent(session)
    assert failure == session.failure
    assert failure.code == "lag"


def test_who_catches_up_is_sent_the_rest_when_it_has_answered():
    hub = Hub(StreamInfo("nano", "nano-1", "a" * 64, 0, packet_tokens=48), history_tokens=20_000)
    for _ in range(10):
        hub.publish(np.zeros(1000, np.int64), 0.0)
    woken = []
    session = SenderSession(hub, 0.0, lambda: woken.append(True))
    session.receive(Join(history=10_000), 0.0)
    hub.end("over", 0.0)
    heard, rounds = [], 0
    while True:
        if session.heartbeat.due(0.0):
            session.heartbeat.ask(0.0)
        heard += sent(session)
        if not session.waiting:
            break
        rounds += 1
        assert len(heard) <= 6 * rounds
        woken.clear()
        session.heartbeat.ask(0.0)
        session.answered()
        assert woken
    assert rounds == 2
    assert sum(len(message.tokens) for message in heard if isinstance(message, Tokens)) == 10_000
    assert isinstance(heard[-1], End)
    assert session.state is State.ENDED


def test_a_gap_does_not_count_as_music_on_the_way():
    hub = make_hub()
    session = SenderSession(hub, 0.0)
    session.receive(Join(), 0.0)
    hub.skip(2**31, 0.0)
    hub.publish(np.arange(48), 0.0)
    assert sent(session)[-2:] == [Gap(48, 2**31), Tokens(48 + 2**31, np.arange(48))]
    assert not session.waiting
    assert session.heartbeat.ask(0.0) == hub.max_lag_s


def test_end_of_the_stream_ends_the_session_without_failure():
    hub = make_hub()
    session = SenderSession(hub, 0.0)
    session.receive(Join(history=0), 0.0)
    hub.end("over", 0.0)
    assert session.state is State.ENDED
    assert session.failure is None
    assert sent(session)[-1] == End(48, "over")


def test_lag_ends_the_session_with_a_failure():
    hub = make_hub()
    session = SenderSession(hub, 0.0)
    session.receive(Join(), 0.0)
    hub.publish(np.zeros(1000, dtype=np.int64), 1.0)
    assert session.failure is None  # nobody can have taken it yet
    hub.publish(np.zeros(48, dtype=np.int64), 42.0)
    assert session.failure is not None
    assert session.failure.code == "lag"
    session.refuse(Failure("other", "too late"))
    assert sent(session) == [session.failure]


def test_both_ends_understand_each_other():
    hub = make_hub()
    sender = SenderSession(hub, 0.0)
    listener = ListenerSession(OURS, history=20)
    sender.receive(listener.join(), 0.0)
    hub.publish(np.arange(48, 96), 1.92)
    hub.skip(4, 2.0)
    hub.set_title("two", 100, 2.0)
    hub.publish(np.arange(100, 144), 3.84)
    hub.end("over", 4.0)
    events = []
    while (message := sender.take()) is not None:
        events += listener.receive(message, 4.0)
    assert events[1:] == [
        tokens(28, 20),
        tokens(48, 48),
        Gap(96, 4),
        Title("two", 100),
        tokens(100, 44),
        End(144, "over"),
    ]
    assert listener.lost_tokens == 4
