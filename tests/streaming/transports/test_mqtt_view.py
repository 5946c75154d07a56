"""What a listener makes of topics: no broker, no socket, no clock."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.errors import ProtocolError, TransportError, UserError
from streaming.stream.listener_session import CodecIdentity, ListenerSession
from streaming.transports.mqtt.address import MqttAddress, stream_tag
from streaming.transports.mqtt.broker import Received
from streaming.transports.mqtt.view import OFFLINE, ONLINE, WINDOW_EXPIRY_S, StreamView
from streaming.wire.messages import End, Gap, Hello, Join, Title, Tokens

ADDRESS = MqttAddress.parse("mqtt://h/radio")
HELLO = Hello(
    "nano",
    "nano-1",
    "a" * 64,
    3,
    first_token=0,
    next_token=0,
    age_s=0.0,
    delay_s=0.4,
    packet_tokens=48,
    title="Song",
    stream="stream",
    first_at_s=1000.0,
)
TAG = stream_tag(HELLO)
OTHER = replace(HELLO, stream="another")
OURS = CodecIdentity("nano", "nano-1", "a" * 64)


def view(wall_s=0.0, **join):
    return StreamView(ADDRESS, Join(**join), wall=lambda: wall_s)


def tokens(first, end):
    return Tokens(first, np.arange(first, end) % 16_384)


def status(payload):
    return Received(ADDRESS.status, payload)


def hello(said=HELLO):
    return Received(ADDRESS.hello, said.encode().encode())


def window(first, end, left_s=WINDOW_EXPIRY_S, tag=TAG):
    return Received(ADDRESS.window(tag), tokens(first, end).encode(), left_s)


def live(message, tag=TAG):
    data = message.encode()
    return Received(ADDRESS.live(tag), data if isinstance(data, bytes) else data.encode())


def decoded(messages: list[str | bytes]) -> list[Any]:
    return list(messages)


def out(view: StreamView, *received: Received) -> list[Any]:
    return [data for message in received for data in view.receive(message)]


def met(**join):
    """A view that knows the stream."""
    one = view(**join)
    assert out(one, status(ONLINE), hello()) == []
    return one


def test_hello_comes_first_then_the_window_then_live():
    one = view()
    assert one.wanted == [ADDRESS.status, ADDRESS.hello]
    one.wanted.clear()
    assert out(one, status(ONLINE), hello()) == []
    assert one.wanted == [ADDRESS.live(TAG), ADDRESS.window(TAG)]
    said, past = out(one, window(100, 356))
    assert isinstance(said, Hello)
    assert (said.first_token, said.next_token, said.title) == (100, 356, "Song")
    assert said.first_at_s == 1004.0
    assert past == tokens(100, 356)
    assert one.unwanted == [ADDRESS.window(TAG)]
    assert out(one, live(tokens(356, 404))) == [tokens(356, 404)]
    assert out(one, live(Title("Next", 404))) == [Title("Next", 404)]
    assert out(one, window(148, 404)) == []  # on its way before we wanted it no longer


def test_live_messages_that_overtake_the_window_wait_for_it():
    one = met()
    assert out(one, live(tokens(356, 404)), live(Gap(404, 48))) == []
    said, past, *rest = out(one, window(100, 356))
    assert said.next_token == 356
    assert past == tokens(100, 356)
    assert rest == [tokens(356, 404), Gap(404, 48)]


def test_without_a_window_it_begins_with_what_comes_live():
    one = met()
    assert out(one, live(tokens(356, 404))) == []
    said, first = decoded(one.waited())
    assert (said.first_token, said.next_token) == (356, 356)
    assert first == tokens(356, 404)
    assert one.waited() == []


def test_a_stream_without_tokens_begins_where_its_hello_says():
    one = met()
    (said,) = decoded(one.waited())
    assert (said.first_token, said.next_token) == (0, 0)


def test_as_much_of_the_past_as_is_wanted():
    said, past = out(met(history=10), window(100, 356))
    assert (said.first_token, past) == (346, tokens(346, 356))
    (said,) = out(met(history=0), window(100, 356))
    assert (said.first_token, said.next_token) == (356, 356)
    said, past = out(met(history=10, at_s=5.0), window(100, 356))
    assert (said.first_token, past) == (100, tokens(100, 356))
    said, past = out(met(next_token=200), window(100, 356))
    assert (said.first_token, past) == (200, tokens(200, 356))
    (said,) = out(met(next_token=9999), window(100, 356))
    assert said.first_token == 356


def test_who_comes_back_gets_what_was_missed():
    said, past = out(met(next_token=300, stream="stream"), window(100, 356))
    assert (said.first_token, past) == (300, tokens(300, 356))


def test_who_comes_back_to_another_stream_begins_anew():
    said, past = out(met(history=10, next_token=300, stream="gone"), window(100, 356))
    assert (said.first_token, past) == (346, tokens(346, 356))


def test_a_window_from_before_we_left_is_not_heard_again():
    one = met(next_token=400, stream="stream")
    (said,) = out(one, window(100, 356))
    assert (said.first_token, said.next_token) == (400, 400)
    session = ListenerSession(OURS)
    session.receive(replace(HELLO, next_token=0), 0.0)
    session.receive(tokens(0, 400), 0.0)
    session.rejoin()
    assert session.receive(said, 1.0) == []  # goes on, nothing is repeated
    assert session.lost_tokens == 0


def test_what_an_old_sender_left_is_not_mixed_with_the_new_stream():
    one = met()
    one.wanted.clear()
    assert out(one, live(tokens(356, 404)), hello(OTHER)) == []  # the new sender, before we began
    other = stream_tag(OTHER)
    assert one.wanted == [ADDRESS.live(other), ADDRESS.window(other)]
    assert set(one.unwanted) == {ADDRESS.live(TAG), ADDRESS.window(TAG)}
    assert out(one, window(100, 356), live(tokens(404, 452))) == []  # both of the old one
    said, past = out(one, window(0, 48, tag=other))
    assert (said.stream, said.first_token, past) == ("another", 0, tokens(0, 48))


def test_another_stream_in_the_middle_breaks_the_connection():
    one = met()
    out(one, window(100, 356))
    assert out(one, hello(replace(HELLO, title="Next"))) == []  # the same one
    with pytest.raises(TransportError, match="Another stream"):
        one.receive(hello(OTHER))


def test_a_sender_that_is_offline_is_none_to_join_and_one_to_wait_for(caplog):
    with pytest.raises(TransportError, match="offline"):
        view().receive(status(OFFLINE))
    one = met()
    out(one, window(100, 356))
    with caplog.at_level("INFO"):
        for word in (OFFLINE, OFFLINE, b"nonsense", ONLINE, ONLINE):
            assert out(one, status(word)) == []
    assert [record.getMessage() for record in caplog.records] == [
        "the sender is offline",
        "the sender is online",
    ]


def test_no_hello_is_no_stream():
    with pytest.raises(TransportError, match="--list"):
        view().waited()


@pytest.mark.parametrize(
    "payload", [b"{", b"\xff\xfe", b"[1]", End(3).encode().encode(), b'{"type":"hello"}']
)
def test_a_hello_that_is_none_is_refused(payload):
    with pytest.raises(ProtocolError):
        view().receive(Received(ADDRESS.hello, payload))


def test_what_was_cleared_is_passed_over_and_what_is_no_window_refused():
    one = view()
    assert out(one, Received(ADDRESS.hello, b""), status(ONLINE), hello()) == []
    assert out(one, Received(ADDRESS.window(TAG), b"")) == []
    assert out(one, Received("elsewhere", b"x")) == []
    assert not one.begun
    coded = b"\x02\0\0\0\0\0abc"  # through a broker only plain ones go
    for payload in (b"\x03nonsense", coded, Title("x", 0).encode().encode()):
        with pytest.raises(ProtocolError):
            one.receive(Received(ADDRESS.window(TAG), payload))


def age_s(wall_s, left_s, said=HELLO):
    """With the first token at 1000 s, token 356 was released at 1014.64 s."""
    one = view(wall_s)
    one.receive(hello(said))
    first, *_ = out(one, window(100, 356, left_s))
    return first.age_s


def test_the_age_of_the_window_is_the_clocks_as_far_as_the_broker_confirms_it():
    assert age_s(1016.04, WINDOW_EXPIRY_S - 1) == pytest.approx(1.4)
    assert age_s(5.0, WINDOW_EXPIRY_S - 3) == 2.0  # a clock that is wrong
    assert age_s(9e9, WINDOW_EXPIRY_S - 3) == 4.0
    assert age_s(1016.04, WINDOW_EXPIRY_S - 3, replace(HELLO, first_at_s=None)) == 2.0
    assert age_s(1016.04, None) == 0.0  # a broker that does not count


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(1, 300)), max_size=6), st.integers(0, 9))
def test_whatever_overlaps_comes_out_in_order_and_once(pieces, begin_after):
    """Windows and live messages in any order, through the session that all transports share."""
    one, session = met(), ListenerSession(OURS)
    heard: list[int] = []
    messages = [live(tokens(first, first + count)) for first, count in pieces]
    messages.insert(min(begin_after, len(messages)), window(100, 356))
    for message in messages:
        for data in one.receive(message):
            for event in session.receive(data, 0.0):
                if isinstance(event, Tokens):
                    assert event == tokens(event.first_token, event.end_token)
                    heard += range(event.first_token, event.end_token)
    assert heard == sorted(set(heard))


TOPICS = st.sampled_from([ADDRESS.status, ADDRESS.hello, ADDRESS.live(TAG), ADDRESS.window(TAG)])
OUR_PAYLOADS = [HELLO.encode().encode(), tokens(0, 48).encode(), b'{"type":"end","token":1}']
PAYLOADS = st.binary(max_size=40) | st.sampled_from(OUR_PAYLOADS)
LEFT = st.none() | st.integers(0, 2**32 - 1)


@given(st.lists(st.tuples(TOPICS, PAYLOADS, LEFT), max_size=8))
def test_whatever_a_stranger_publishes_is_refused_or_passed_over(messages):
    one, session = view(), ListenerSession(OURS)
    with contextlib.suppress(UserError):  # and nothing else
        for topic, payload, left_s in messages:
            for data in one.receive(Received(topic, payload, left_s)):
                session.receive(data, 0.0)
        for data in one.waited():
            session.receive(data, 0.0)


@pytest.mark.parametrize("minutes", [9, 11, 60, 31 * 24 * 60, 2**31 // 25 // 60])
def test_a_sender_that_was_cut_off_for_any_time_is_heard_again(minutes):
    session, one = ListenerSession(OURS), view()
    found: list[Any] = []

    def feed(*received: Received) -> None:
        found.extend(i for r in received for m in one.receive(r) for i in session.receive(m, 0.0))

    feed(status(ONLINE), hello(), window(0, 480), live(tokens(480, 528)))
    there = 528 + 60 * 25 * minutes
    later = replace(HELLO, first_token=there, next_token=there, first_at_s=1000.0 + there / 25)
    feed(status(ONLINE), hello(later), live(tokens(there - 256, there)))
    assert found[-2:] == [Gap(528, there - 256 - 528), tokens(there - 256, there)]
    assert session.lost_tokens == there - 256 - 528


def test_a_stream_that_goes_back_to_lower_numbers_begins_anew():
    session = ListenerSession(OURS)
    one = view()
    for received in (status(ONLINE), hello(), window(99_000, 100_000)):
        for message in one.receive(received):
            session.receive(message, 0.0)
    (message,) = one.receive(live(tokens(0, 48)))
    with pytest.raises(TransportError, match="jumped back"):
        session.receive(message, 0.0)
    join = session.rejoin()
    assert isinstance(join, Join)
    again = StreamView(ADDRESS, join, wall=lambda: 0.0)
    found: list[Any] = []
    for received in (status(ONLINE), hello(), window(0, 96), live(tokens(96, 144))):
        for message in again.receive(received):
            found += session.receive(message, 0.0)
    said, *music = found
    assert (said.first_token, said.next_token) == (96, 96)
    assert music == [tokens(96, 144)]
