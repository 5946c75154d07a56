"""Messages: round trips, and nothing believed that comes from outside."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.errors import ProtocolError
from streaming.wire.messages import (
    MAX_CLIENT_MESSAGE,
    MAX_INDEX,
    MAX_SERVER_MESSAGE,
    MAX_TITLE,
    End,
    Failure,
    Gap,
    Hello,
    Join,
    Publish,
    Title,
    Tokens,
    Unknown,
    clean_text,
)
from streaming.wire.parsing import decode

HELLO = Hello(
    codec="nano",
    weights="nano-1",
    digest="0123456789abcdef" * 4,
    seed=7,
    first_token=100,
    next_token=200,
    age_s=0.5,
    delay_s=0.32,
    packet_tokens=48,
    title="Goin' “March”",
)


def altered(message, **changes):
    """The JSON of ``message`` with fields replaced, or removed where the value is ``...``."""
    fields = {**json.loads(message.encode()), **changes}
    return json.dumps({name: value for name, value in fields.items() if value is not ...})


def decoded_or_refused(data):
    """The message; None where it was refused, which is the only exception there may be."""
    try:
        return decode(data)
    except ProtocolError:
        return None


@pytest.mark.parametrize(
    "message",
    [
        Join(),
        Join(history=0, client="client 1.0", next_token=5),
        Publish("0123456789abcdef", "a secret \ud800 as it is"),
        HELLO,
        Tokens(0, np.array([1])),
        Tokens(2**31, np.arange(1024)),
        Title("", 0),
        Title("Nachtmusik – 小夜曲", MAX_INDEX),
        Gap(3, 4),
        End(9, "the source has ended"),
        End(9),
        Failure("lag", "too slow"),
    ],
)
def test_round_trip(message):
    assert decode(message.encode()) == message


@given(
    st.integers(0, MAX_INDEX - 1024),
    st.lists(st.integers(0, 16_383), min_size=1, max_size=1024),
)
def test_token_messages_of_any_size(first_token, tokens):
    message = Tokens(first_token, np.array(tokens))
    back = decode(message.encode())
    assert isinstance(back, Tokens)
    assert back == message
    assert hash(back) == hash(message)
    assert back.end_token == first_token + len(tokens)


def test_token_message_costs_five_bytes_more_than_its_payload():
    assert len(Tokens(0, np.zeros(48, dtype=np.int64)).encode()) == 5 + 84


def test_tokens_differ_from_other_things():
    assert Tokens(0, np.array([1])) != Tokens(1, np.array([1]))
    assert Tokens(0, np.array([1])) != "tokens"


@given(st.binary(max_size=300))
def test_garbage_bytes_are_refused_or_valid(data):
    message = decoded_or_refused(data)
    assert message is None or message.encode() == data


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.text(max_size=200) | json_values.map(json.dumps))
def test_garbage_text_is_refused_or_valid(text):
    decoded_or_refused(text)


@given(
    st.sampled_from(
        [Join(next_token=3), Publish("me", "secret"), HELLO, Title("a", 1), Gap(1, 2), End(3, "x")]
    ),
    st.data(),
)
def test_a_field_of_any_value_is_refused_or_valid(message, data):
    name = data.draw(st.sampled_from(sorted(json.loads(message.encode()))))
    value = data.draw(json_values)
    back = decoded_or_refused(altered(message, **{name: value}))
    assert back is None or isinstance(back, Unknown) or type(back) is type(message)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"seed": True}, "seed"),
        ({"seed": -1}, "seed"),
        ({"seed": 1.0}, "seed"),
        ({"first_token": "1"}, "first_token"),
        ({"next_token": MAX_INDEX + 1}, "next_token"),
        ({"next_token": ...}, "next_token"),
        ({"next_token": 99}, "first token"),
        ({"age_s": -0.1}, "age_s"),
        ({"age_s": math.nan}, "JSON"),
        ({"age_s": math.inf}, "JSON"),
        ({"later": math.nan}, "JSON"),
        ({"delay_s": 10**400}, "delay_s"),
        ({"delay_s": False}, "delay_s"),
        ({"packet_tokens": 0}, "packet_tokens"),
        ({"packet_tokens": 1025}, "packet_tokens"),
        ({"digest": "0" * 63}, "digest"),
        ({"digest": "G" * 64}, "digest"),
        ({"codec": 5}, "codec"),
        ({"codec": ...}, "codec"),
        ({"title": ["a"]}, "title"),
        ({"protocol": 2}, "version 2"),
        ({"protocol": None}, "protocol"),
    ],
)
def test_a_bad_field_of_the_hello_is_named(changes, field):
    with pytest.raises(ProtocolError, match=field):
        decode(altered(HELLO, **changes))


def test_version_is_said_before_other_fields_are_looked_at():
    with pytest.raises(ProtocolError, match="version 9"):
        decode('{"type":"hello","protocol":9}')


def test_unknown_fields_are_passed_over():
    assert decode(altered(HELLO, news=[1, {"a": None}])) == HELLO


def test_unknown_events_are_kept_apart():
    assert decode('{"type":"applause"}') == Unknown("applause")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\3\0\0\0\0\0\0",  # another kind
        b"\1\0\0\0\0",  # no tokens
        b"\1\0\0\0\0\0",  # half a token
        b"\1\xff\xff\xff\xff\0\0",  # ends beyond the last index
        b"\1\0\0\0\0" + bytes(1794),  # 1025 tokens
        bytes(MAX_SERVER_MESSAGE + 1),
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"type":1}',
        "[" * 60_000,
        "1" * 60_000,
        '"' + "a" * MAX_SERVER_MESSAGE + '"',
        '{"type":"gap","first_token":4294967295,"count":1}',
        '{"type":"gap","first_token":1,"count":0}',
        '{"type":"end"}',
        '{"type":"error","code":"a"}',
    ],
)
def test_bad_messages_are_refused(data):
    with pytest.raises(ProtocolError):
        decode(data)


@pytest.mark.parametrize(
    "message",
    [
        Tokens(0, np.zeros(0, dtype=np.int64)),
        Tokens(0, np.zeros(1025, dtype=np.int64)),
        Tokens(-1, np.zeros(1, dtype=np.int64)),
        Tokens(2**32, np.zeros(1, dtype=np.int64)),
    ],
)
def test_tokens_that_fit_no_message_are_our_own_mistake(message):
    with pytest.raises(ValueError, match="token"):
        message.encode()


def test_titles_cannot_steer_a_terminal_or_grow():
    nasty = "\x1b[2JA\u202eB\nC\t\ud800 \u2028" + "x" * 1000
    event = decode(json.dumps({"type": "title", "title": nasty, "token": 0}))
    assert isinstance(event, Title)
    assert event.title.startswith("[2JAB C xxx")
    assert len(event.title) == MAX_TITLE
    assert Title(nasty, 0).encode().isprintable()


def test_joined_characters_survive_cleaning():
    assert clean_text("👩\u200d🎤 می\u200cخواهم") == "👩\u200d🎤 می\u200cخواهم"


def test_longest_join_fits_what_a_sender_takes():
    join = Join(MAX_INDEX, "\N{MUSICAL SYMBOL G CLEF}" * 1000, MAX_INDEX)
    assert len(join.encode().encode()) < MAX_CLIENT_MESSAGE
