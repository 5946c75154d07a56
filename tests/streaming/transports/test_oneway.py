"""Both ends of a one-way link without the link: nothing but bytes, losses and times."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import reedsolo
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.lab.lossy import GilbertElliott
from codec.constants import TOKEN_RATE
from streaming.errors import ProtocolError, SettingsError, TransportError, UserError
from streaming.stream.listener_session import CodecIdentity, ListenerSession
from streaming.transports.oneway import fec as fec_module
from streaming.transports.oneway.fec import FecEncoder, Repair
from streaming.transports.oneway.framing import Kind, encode_frame
from streaming.transports.oneway.hello import Fec, OneWayHello
from streaming.transports.oneway.line import LineQueue
from streaming.transports.oneway.receiver import OneWayReceiver
from streaming.transports.oneway.sender import HELLO_INTERVAL_TOKENS, Framer, bit_rate
from streaming.wire.messages import MAX_INDEX, End, Gap, Hello, StreamInfo, Title, Tokens
from tests import ROOT

OURS = CodecIdentity("nano", "nano-1", "ab" * 32)
INFO = StreamInfo("nano", "nano-1", "ab" * 32, 7, "stream", 48)
CODE = Fec(10, 2)
KEY = bytes(range(16))


def music(first, count=48):
    """Tokens that follow from their places, and look like noise."""
    return Tokens(first, (np.arange(first, first + count) * 7919 + 31) % 16_384)


def receiver(**options):
    return OneWayReceiver(lambda digest: OURS, **options)


def stream(framer, packets, first=0, count=48):
    """Frames of so many packets, each group with the time of its packet."""
    for n in range(packets):
        at = first + n * count
        yield (at + count) / TOKEN_RATE, framer.tokens(music(at, count), 0.32)


def messages(one, data, now_s=0.0) -> list[Any]:
    return one.receive(data, now_s)


def heard(one, timed) -> list[Any]:
    """What comes out of timed groups of frames."""
    return [m for now_s, frames in timed for f in frames for m in messages(one, f, now_s)]


def only(kind, found):
    return [item for item in found if isinstance(item, kind)]


def tuned(fec=None, info=INFO, first=0):
    """A framer and a receiver that has heard its first packet."""
    framer, one = Framer(info, fec), receiver()
    heard(one, stream(framer, 1, first, info.packet_tokens))
    assert one.hello is not None
    return framer, one


@pytest.mark.parametrize(
    ("packet_tokens", "fec", "key", "most"),
    [
        *((8, None, b"", 484), (24, None, b"", 401), (48, None, b"", 380), (143, None, b"", 367)),
        *((48, CODE, b"", 455), (8, None, KEY, 585), (48, None, KEY, 398), (48, CODE, KEY, 476)),
    ],
)
def test_everything_together_takes_as_much_as_it_says(packet_tokens, fec, key, most):
    framer = Framer(replace(INFO, packet_tokens=packet_tokens), fec, key)
    sent_bytes, packets = 0, round(3600 * TOKEN_RATE / packet_tokens)
    for n in range(packets):
        if n % (200 * TOKEN_RATE // packet_tokens) == 0:
            framer.title(f"An Artist of Some Name – The Title of a Song, {n}")
        frames = framer.tokens(music(n * packet_tokens, packet_tokens), 0.3)
        sent_bytes += sum(map(len, frames))
    rate = 8 * sent_bytes / (packets * packet_tokens / TOKEN_RATE)
    assert rate <= most
    assert rate == pytest.approx(bit_rate(packet_tokens, fec, key), rel=0.002)


def test_the_documents_vector_is_what_is_sent():
    text = (ROOT / "docs" / "radio.md").read_text(encoding="utf-8")
    blocks = text.split("### A test vector")[1].split("```")
    info = StreamInfo("nano", "nano", "01234567" * 8, 7, "example", 8)

    def begun(key=b""):
        framer = Framer(info, Fec(2, 1), key)
        framer.title("Song")
        return framer, framer.tokens(Tokens(992, np.arange(1, 9)), 0.32)

    def whole(key=b""):
        framer, frames = begun(key)
        frames += framer.tokens(Tokens(1000, np.arange(9, 17)), 0.32)
        return [*frames, *framer.end()[:1]]

    frames = whole()
    assert blocks[1].split() == " ".join(frame.hex(" ") for frame in frames).split()
    assert blocks[5].split() == " ".join(frame.hex(" ") for frame in whole(KEY)).split()
    framer, _ = begun()
    (short,) = framer.tokens(Tokens(1000, np.arange(9, 12)), 0.32)
    assert blocks[3].split() == short.hex(" ").split()
    one = receiver()
    frames.append(frames[-1])  # an end counts when it has come twice
    hello, *rest = [message for frame in frames for message in messages(one, frame, 1.0)]
    assert (hello.seed, hello.first_token) == (7, 992)
    assert [type(item) for item in rest] == [Tokens, Title, Tokens, End]


@pytest.mark.parametrize("key", [b"", KEY])
@pytest.mark.parametrize("fec", [None, CODE])
@pytest.mark.parametrize("packet_tokens", [1, 7, 25, 48, 143])
def test_what_was_sent_comes_out(packet_tokens, fec, key):
    info = replace(INFO, packet_tokens=packet_tokens)
    framer, one = Framer(info, fec, key), receiver(key=key)
    framer.title("Song")
    found = heard(one, stream(framer, 300, 5, packet_tokens))
    hello, *rest = found
    assert (hello.codec, hello.digest, hello.seed) == ("nano", OURS.digest, 7)
    assert (hello.first_token, hello.next_token, hello.packet_tokens) == (5, 5, packet_tokens)
    assert hello.delay_s == pytest.approx(0.32)
    assert only(Tokens, rest) == [music(5 + n * packet_tokens, packet_tokens) for n in range(300)]
    assert only(Title, rest)[0].title == "Song"


# Frames with a key


def every_kind(key, info=INFO):
    """Frames of a stream that has titles, parity, packets that are not whole, and an end."""
    framer = Framer(info, CODE, key)
    framer.title("Song")
    frames = [frame for _, some in stream(framer, 40) for frame in some]
    frames += framer.tokens(music(40 * 48, 20)) + framer.tokens(music(40 * 48 + 20, 28))
    return [*frames, *framer.end()]


@pytest.mark.parametrize("theirs", [b"", bytes(16), KEY[:-1] + b"x", KEY + b"\0", KEY * 2])
def test_frames_without_the_key_are_nothing(theirs):
    ours = every_kind(KEY)
    forged = every_kind(theirs)
    assert {frame[0] for frame in forged} == {0xA8, 0xA9, 0xAA, 0xAB, 0xAC, 0xAD}
    one = receiver(key=KEY)
    assert [message for frame in forged for message in messages(one, frame, 1.0)] == []
    assert messages(one, ours[0], 1.0)  # now it knows the stream, as whoever forges does
    assert [message for frame in forged for message in messages(one, frame, 1.0)] == []
    without = receiver()
    assert [message for frame in ours for message in messages(without, frame, 1.0)] == []


@given(st.data())
def test_a_frame_that_was_changed_is_no_frame(data):
    one = receiver(key=KEY)
    first, *frames = every_kind(KEY)
    messages(one, first, 1.0)
    frame = bytearray(data.draw(st.sampled_from(frames)))
    at = data.draw(st.integers(0, len(frame) - 1))
    frame[at] ^= data.draw(st.integers(1, 255))
    assert one.receive(bytes(frame), 1.0) == []


def test_what_was_heard_is_not_heard_again_whoever_repeats_it(caplog):
    """All of an hour, at any time: but titles, and duplicates of the last packets."""
    framer, one = Framer(INFO, CODE, KEY), receiver(key=KEY)
    session = ListenerSession(OURS)
    session.join()
    past: list[bytes] = []
    found: list[Any] = []

    def hear(frame, now_s):
        for message in one.receive(frame, now_s):
            found.extend(session.receive(message, now_s))

    for n, (now_s, frames) in enumerate(stream(framer, 1900)):
        for frame in frames:
            hear(frame, now_s)
        past += frames
        if n % 190 == 189:
            for old in past:
                hear(old, now_s + 0.01)
    tokens = only(Tokens, found)
    assert [item.first_token for item in tokens] == list(range(0, 1900 * 48, 48))
    assert all(item == music(item.first_token) for item in tokens)
    assert only(Gap, found) == []
    assert len(only(Hello, found)) == 1
    assert "heard again, and passed over" in caplog.text


def test_without_a_key_the_same_repetition_goes_through():
    """So that the test before holds what the key does, and not what would be so anyhow."""
    framer, one = Framer(INFO), receiver()
    groups = list(stream(framer, 300))
    heard(one, groups)
    hello = groups[0][1][0]
    assert one.receive(hello, 600.0) == []  # one alone is doubted, a second one believed
    with pytest.raises(TransportError, match="jumped back"):
        one.receive(hello, 601.0)


def test_a_stream_that_was_left_is_not_gone_back_to_by_its_recording(caplog):
    reached: dict[bytes, int] = {}
    yesterday = every_kind(KEY, replace(INFO, stream="yesterday"))[:-3]
    one = receiver(key=KEY, reached=reached)
    for frame in yesterday:
        one.receive(frame, 10.0)
    today = Framer(replace(INFO, stream="today"), CODE, KEY)
    begins = today.tokens(music(0), 0.3)
    with pytest.raises(TransportError, match="Another stream"):
        one.receive(begins[0], 100.0)
    two = receiver(key=KEY, reached=reached)
    assert messages(two, one.successor, 100.0)
    heard(two, [(101.0, begins[1:])])
    assert [m for frame in yesterday for m in messages(two, frame, 200.0)] == []
    three = receiver(key=KEY, reached=reached)  # after a device that was lost
    assert [m for frame in yesterday for m in messages(three, frame, 200.0)] == []
    assert only(Tokens, heard(two, [(201.0, today.tokens(music(48), 0.3))])) == [music(48)]


def test_who_tunes_in_later_hears_within_25_seconds_and_knows_what_went_before():
    framer, one = Framer(INFO), receiver()
    list(stream(framer, 200))
    found: list[Any] = []
    waited = 0
    for now_s, frames in stream(framer, 14, 200 * 48):
        waited += not found
        found += heard(one, [(now_s, frames)])
    assert waited <= HELLO_INTERVAL_TOKENS // 48
    hello, *rest = found
    assert hello.first_token == max(200 * 48, hello.next_token - 240)
    packets = only(Tokens, rest)
    assert packets == [music(at) for at in range(hello.first_token, 214 * 48, 48)]


def test_so_much_of_the_past_as_is_wanted():
    framer = Framer(INFO)
    list(stream(framer, 200))
    frames = [f for _, some in stream(framer, 20, 200 * 48) for f in some]
    none, all_of_it = receiver(history=0), receiver(history=100_000)
    (hello, *_), (other, *_) = (messages(one, b"".join(frames)) for one in (none, all_of_it))
    assert hello.first_token == hello.next_token
    assert other.first_token == 200 * 48
    assert len(frames) > 20


@settings(deadline=None)
@given(st.data())
def test_whatever_a_link_does_no_wrong_token_comes_out_and_it_finds_its_feet(data):
    fec = data.draw(st.sampled_from([None, Fec(4, 2)]))
    framer, one = tuned(fec)
    wire = bytearray(b"".join(f for _, some in stream(framer, 12, 48) for f in some))
    for _ in range(data.draw(st.integers(0, 6))):
        at = data.draw(st.integers(0, len(wire) - 1))
        what = data.draw(st.sampled_from(["change", "insert", "delete"]))
        noise = data.draw(st.binary(min_size=1, max_size=60))
        if what == "change":
            wire[at : at + len(noise)] = noise[: len(wire) - at]
        elif what == "insert":
            wire[at:at] = noise
        else:
            del wire[at : at + len(noise)]
    found = messages(one, bytes(wire), 25.0)
    for tokens in only(Tokens, found):
        assert tokens == music(tokens.first_token)
    # One longest frame later, nothing of the damage is left.
    after = heard(one, stream(framer, 40, 13 * 48))
    assert music(52 * 48) in after


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_bytes_that_are_nothing_bring_nothing(pieces):
    for one in (receiver(), receiver(datagrams=True), tuned()[1], tuned(CODE)[1]):
        for piece in pieces:
            assert one.receive(piece, 1.0) == []


@pytest.mark.parametrize("fec", [None, CODE, Fec(4, 2), Fec(1, 1)])
def test_lossy_links_lose_less_with_more_parity(fec):
    framer, one, losses = Framer(INFO, fec), receiver(), GilbertElliott(0.05, 1.5, seed=3)
    session = ListenerSession(OURS)
    session.join()
    timed = list(stream(framer, 2000))
    lost, first = 0, None
    for now_s, frames in timed:
        for frame in frames:
            if losses.lost():
                lost += 1
                continue
            for message in one.receive(frame, now_s):
                for item in session.receive(message, now_s):
                    if isinstance(item, Tokens):
                        first = item.first_token if first is None else first
                        assert np.array_equal(
                            item.tokens, music(item.first_token, len(item.tokens)).tokens
                        )
    share = session.lost_tokens / (2000 * 48)
    assert lost > 50
    if fec is None:
        assert 0.03 < share < 0.07
    else:
        assert share < {10: 0.02, 4: 0.01, 1: 0.02}[fec.data]
        assert one.repaired > 40


@pytest.mark.parametrize("fec", [Fec(10, 2), Fec(3, 3), Fec(1, 1), Fec(64, 8)])
def test_any_so_many_frames_of_a_group_may_be_lost(fec):
    chance = random.Random(fec.data)
    for _ in range(6):
        encoder, repair = FecEncoder(fec), Repair(fec)
        packets = [chance.randbytes(14) for _ in range(4 * fec.data)]
        group = 1 + chance.randrange(2)
        frames: list[tuple[int, int, int | None, bytes]] = []
        for number, payload in enumerate(packets):
            frames.append((number // fec.data, number, None, payload))
            for first, parity, row in encoder.push(number, payload):
                frames.append((first // fec.data, first, parity, row))
        of_group = [i for i, frame in enumerate(frames) if frame[0] == group]
        gone = set(chance.sample(of_group, fec.parity))
        out = []
        for i, (_, number, place, payload) in enumerate(frames):
            if i in gone:
                continue
            if place is None:
                out += repair.packet(number, payload)
            else:
                out += repair.parity(number, place, payload)
        out += repair.flush()
        assert out == list(enumerate(packets))


def test_without_a_loss_nothing_waits_for_parity_and_with_one_not_longer_than_said():
    framer, one = tuned(CODE)
    for n, (now_s, frames) in enumerate(stream(framer, 30, 48)):
        assert only(Tokens, heard(one, [(now_s, frames)])) == [music(48 + 48 * n)]
    # Packet 31, the second of its group of ten, is lost, and more than can be repaired with it.
    out: list[list[Tokens]] = []
    for now_s, frames in stream(framer, 18, 31 * 48):
        gone = len(out) in (0, 3, 5)
        arrived = frames[1:] if gone else frames
        out.append(only(Tokens, heard(one, [(now_s, arrived)])))
    waited = next(i for i, tokens in enumerate(out) if tokens)
    assert waited * 48 / TOKEN_RATE <= CODE.wait_s(48)
    got = [tokens.first_token // 48 for some in out for tokens in some]
    assert got == [n for n in range(31, 49) if n not in (31, 34, 36)]


def test_groups_with_a_hole_at_the_sender_get_no_parity():
    encoder = FecEncoder(Fec(3, 1))
    assert [encoder.push(n, b"ab") for n in (1, 2)] == [[], []]  # it began in the middle
    assert [encoder.push(n, b"ab") for n in (3, 5)] == [[], []]
    assert [len(encoder.push(n, b"ab")) for n in (6, 7, 8)] == [0, 0, 1]


def test_parity_that_does_not_fit_is_given_up():
    repair = Repair(Fec(2, 1))
    assert repair.parity(0, 0, b"ab") == []  # before the first packet
    assert repair.packet(2, b"ab") == [(2, b"ab")]
    assert repair.flush() == []
    assert Repair(Fec(2, 1)).flush() == []


def test_numbers_of_one_byte_hold_across_a_long_loss_and_not_across_a_silence():
    framer, one = tuned()
    lost = list(stream(framer, 150, 48))
    end_s = lost[-1][0]
    assert only(Tokens, heard(one, stream(framer, 1, 151 * 48))) == [music(151 * 48)]
    # 250 packets later eight bits say nothing: not before the next hello.
    list(stream(framer, 250, 152 * 48))
    found = heard(one, ((end_s + 500, f) for _, f in stream(framer, 14, 402 * 48)))
    packets = only(Tokens, found)
    assert packets
    assert all(tokens == music(tokens.first_token) for tokens in packets)
    assert len(packets) < 14


def test_packets_from_nowhere_are_not_believed():
    framer, one = tuned()
    list(stream(framer, 100, 48))
    # A packet 100 packets ahead, two seconds after the last one.
    assert heard(one, [(4.0, framer.tokens(music(101 * 48)))]) == []
    salt = OneWayHello.of(INFO, None).context
    far = encode_frame(Kind.PLACED, (48 * 1000).to_bytes(4, "big") + bytes(7), salt)
    assert one.receive(far, 4.0) == []
    odd = encode_frame(Kind.PLACED, (48).to_bytes(4, "big") + bytes((1, 1)), salt)
    assert one.receive(odd, 4.0) == []  # no tokens take two bytes with such padding
    assert one.receive(encode_frame(Kind.END, bytes(4), salt), 4.0) == []
    before = encode_frame(Kind.TOKENS, bytes((255,)) + bytes(84), salt + b"\0")
    assert one.receive(before, 4.0) == []


def test_the_highest_index_is_the_end():
    last = MAX_INDEX - MAX_INDEX % 48 - 48
    _, one = tuned(first=last - 48)
    salt = OneWayHello.of(INFO, None).context
    low = (last // 48 + 1) % 256
    assert (
        one.receive(encode_frame(Kind.TOKENS, bytes((low,)) + bytes(84), salt + b"\0"), 2.0) == []
    )
    edge = (MAX_INDEX - 1).to_bytes(4, "big")
    assert one.receive(encode_frame(Kind.PLACED, edge + bytes(7), salt), 1e9) == []


def test_packets_that_were_overtaken_come_in_their_places():
    framer, one = tuned()
    groups = [frames for _, frames in stream(framer, 6, 48)]
    groups[2], groups[3] = groups[3], groups[2]
    found = heard(one, [(10.0, frames) for frames in groups])
    assert [t.first_token // 48 for t in only(Tokens, found)] == [1, 2, 4, 3, 5, 6]


@pytest.mark.parametrize("fec", [None, CODE])
def test_a_source_that_loses_tokens_is_told_of_by_the_next_hello(fec):
    framer, one = tuned(fec)
    session = ListenerSession(OURS)
    session.join()
    heard(one, stream(framer, 3, 48))
    found = heard(one, stream(framer, 30, 4 * 48 + 1000))
    assert only(Tokens, found) == [music(1192 + 48 * n) for n in range(30)]


def test_when_that_hello_is_lost_nothing_lands_elsewhere_until_the_next_one():
    framer, one = tuned()
    heard(one, stream(framer, 3, 48))
    groups = list(stream(framer, 30, 4 * 48 + 1000))
    groups[0][1].pop(0)
    packets = only(Tokens, heard(one, groups))
    assert packets == [music(1192 + 48 * n) for n in range(2, 30)]  # behind two packets: again


@pytest.mark.parametrize("fec", [None, CODE])
def test_short_packets_go_with_their_whole_index_and_packets_stay_in_step(fec):
    framer, one = tuned(fec)
    frames = framer.tokens(music(48, 20)) + framer.tokens(music(68, 28)) + framer.tokens(music(96))
    found = [m for f in frames for m in messages(one, f, 3.0)]
    assert found == [music(48, 20), music(68, 28), music(96)]


def test_history_in_one_message_goes_in_packets():
    framer, one = tuned()
    frames = framer.tokens(music(48, 1000))
    found = [m for f in frames for m in messages(one, f, 40.0)]
    packets = only(Tokens, found)
    assert [len(t.tokens) for t in packets] == [48] * 20 + [40]
    assert np.array_equal(np.concatenate([t.tokens for t in packets]), music(48, 1000).tokens)


@pytest.mark.parametrize("fec", [None, CODE])
def test_the_end_is_said_three_times_and_heard_once(fec):
    framer, one = tuned(fec)
    heard(one, stream(framer, 2, 48))
    last = framer.tokens(music(144))  # lost
    last = framer.tokens(music(192))
    frames = [*last, *framer.end()]
    session = ListenerSession(OURS)
    session.join()
    session.receive(
        Hello(
            "nano",
            "n",
            OURS.digest,
            7,
            first_token=144,
            next_token=144,
            age_s=0,
            delay_s=0,
            packet_tokens=48,
        ),
        0.0,
    )
    found = [i for f in frames for m in one.receive(f, 9.0) for i in session.receive(m, 9.0)]
    assert found == [Gap(144, 48), music(192), End(240)]


def test_titles_are_short_and_come_again():
    framer, one = Framer(INFO), receiver()
    framer.title("é" * 100)
    titles = only(Title, heard(one, stream(framer, 800)))
    assert {t.title for t in titles} == {"é" * 24}
    assert len(titles) > 2
    framer.title("Next")
    assert only(Title, heard(one, stream(framer, 1, 800 * 48)))[0].title == "Next"
    framer.title("")
    assert "" in [t.title for t in only(Title, heard(one, stream(framer, 160, 801 * 48)))]


def test_another_stream_takes_the_place_of_one_that_has_gone(caplog):
    framer, one = tuned()
    heard(one, stream(framer, 3, 48))
    other = Framer(replace(INFO, stream="another"))
    groups = list(stream(other, 20))
    # While the first is still heard, the other one is a neighbour.
    for _ in range(3):
        assert heard(one, [(9.0, groups[0][1])]) == []
    assert caplog.text.count("another sender") == 1
    assert heard(one, [(9.0, framer.tokens(music(4 * 48)))]) == [music(4 * 48)]
    with pytest.raises(TransportError, match="Another stream"):
        heard(one, [(60.0, frames) for _, frames in groups])
    after = receiver()
    hello, *_ = messages(after, one.successor)
    assert hello.stream != ""
    assert heard(after, [(60.0, groups[-1][1])])[-1] == music(19 * 48)


def test_a_stream_that_jumps_back_begins_anew():
    _, one = tuned(first=48 * 1000)
    with pytest.raises(TransportError, match="jumped back"):
        heard(one, stream(Framer(INFO), 4, 48))
    assert one.successor


def listening(one):
    """What a session makes of frames, and the session."""
    session = ListenerSession(OURS)
    session.join()

    def feed(now_s, frames):
        return [i for f in frames for m in one.receive(f, now_s) for i in session.receive(m, now_s)]

    return session, feed


@pytest.mark.parametrize("fec", [None, CODE])
@pytest.mark.parametrize("minutes", [5, 11, 60, 31 * 24 * 60, 2**31 // 25 // 60])
def test_a_tunnel_of_any_length_is_one_gap(minutes, fec):
    framer, one = Framer(INFO, fec), receiver()
    session, feed = listening(one)
    for now_s, frames in stream(framer, 3):
        feed(now_s, frames)
    packets = round(minutes * 60 * 25 / 48)
    there = (3 + packets) * 48
    framer = Framer(INFO, fec)
    found = [i for now_s, frames in stream(framer, 20, there) for i in feed(now_s, frames)]
    assert found == [Gap(144, packets * 48), *(music(there + 48 * n) for n in range(20))]
    assert session.lost_tokens == packets * 48


FORGED = {
    "far ahead": lambda there: forged_hello(there + 48 * 1000),
    "as far as can be": lambda there: forged_hello(2**32 - 1000),
    "far back": lambda there: forged_hello(0),
    "another phase": lambda there: forged_hello(there + 48 * 1000 + 7),
    "end": lambda there: encode_frame(Kind.END, there.to_bytes(4, "big"), context()),
    "end ahead": lambda there: encode_frame(Kind.END, (there + 96).to_bytes(4, "big"), context()),
}


def context():
    return OneWayHello.of(INFO, None).context


def forged_hello(next_token):
    return encode_frame(Kind.HELLO, OneWayHello.of(INFO, None).at(next_token, 0.3).encode())


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_one_frame_that_is_forged_costs_nothing(forge):
    framer, one = Framer(INFO), receiver()
    session, feed = listening(one)
    groups = list(stream(framer, 60, 48 * 5000))
    found = []
    for n, (now_s, frames) in enumerate(groups):
        found += feed(now_s, frames)
        if n == 30:
            assert feed(now_s, [forge(48 * 5031)]) == []
    assert found[1:] == [music(48 * (5000 + n)) for n in range(60)]
    assert session.lost_tokens == 0
    assert feed(groups[-1][0], framer.end()) == [End(48 * 5060)]


def test_a_forged_frame_at_the_very_beginning_is_recovered_from():
    framer, one = Framer(INFO), receiver()
    _, feed = listening(one)
    groups = list(stream(framer, 60, 48 * 5000))
    assert feed(groups[0][0], [forged_hello(48 * 200_000)])
    heard_at = None
    for now_s, frames in groups:
        try:
            feed(now_s, frames)
        except TransportError:
            # The stream is where two hellos have said that it is.
            heard_at = now_s
            break
    assert heard_at is not None
    assert heard_at - groups[0][0] <= 2 * HELLO_INTERVAL_TOKENS / TOKEN_RATE
    again = receiver()
    (hello,) = messages(again, one.successor)
    assert 48 * 5000 <= hello.next_token <= 48 * 5060


def test_an_end_that_came_once_counts_when_nothing_follows():
    framer, one = tuned()
    assert one.silence() == []
    heard(one, stream(framer, 2, 48))
    assert messages(one, framer.end()[0], 6.0) == []
    assert one.silence() == [End(144)]
    framer, one = tuned()
    ((now_s, frames),) = stream(framer, 1, 48)
    assert messages(one, framer.end()[0], now_s) == []
    heard(one, [(now_s, frames)])
    assert one.silence() == []


def test_a_source_that_jumps_by_an_hour_at_once_is_followed_when_it_is_said_again():
    framer, one = tuned()
    found = heard(one, stream(framer, 3, 48))
    jumped = [(now_s - 3600, frames) for now_s, frames in stream(framer, 8, 192 + 90_000)]
    found += heard(one, jumped)
    packets = only(Tokens, found)
    assert packets[-6:] == [music(192 + 90_000 + 48 * n) for n in range(2, 8)]


def test_another_stream_that_cannot_be_decoded_here_does_not_end_what_was_heard(caplog):
    def identify(digest):
        if digest == bytes.fromhex("ab" * 4):
            return OURS
        raise ProtocolError("There are no such weights here.")

    framer, one = Framer(INFO), OneWayReceiver(identify)
    heard(one, stream(framer, 3))
    other = Framer(replace(INFO, digest="cd" * 32))
    assert heard(one, ((60.0, frames) for _, frames in stream(other, 3))) == []
    assert "no such weights" in caplog.text
    assert heard(one, [(66.0, framer.tokens(music(144)))]) == [music(144)]


def test_hellos_that_mean_nothing_are_passed_over():
    framer, one = tuned()
    body = OneWayHello.of(INFO, None).encode()
    for wrong in (b"\x20" + body[1:], b"\x13" + body[1:], body[:12] + b"\0" + body[13:]):
        frame = encode_frame(Kind.HELLO, wrong)
        assert one.receive(frame, 1.0) == []
        with pytest.raises(ProtocolError):
            receiver().receive(frame, 1.0)
    with pytest.raises(ProtocolError, match="3 bytes"):
        OneWayHello.decode(b"abc")
    assert only(Tokens, heard(one, stream(framer, 1, 48))) == [music(48)]


def test_what_frames_cannot_carry_is_refused():
    with pytest.raises(SettingsError, match="--packet-tokens 143"):
        Framer(replace(INFO, packet_tokens=144))
    with pytest.raises(SettingsError, match="seed"):
        Framer(replace(INFO, seed=2**32))
    Framer(replace(INFO, seed=2**32 - 1, packet_tokens=143))


def test_codes_by_name():
    assert Fec.parse("10/2") == CODE
    assert CODE.wait_s(48) == pytest.approx(21.12)
    for wrong in (
        "",
        "10",
        "10/",
        "/2",
        "a/b",
        "0/0",
        "2/3",
        "65/1",
        "64/9",
        "-1/1",
        "²/1",
        "1/1/1",
    ):
        with pytest.raises(SettingsError):
            Fec.parse(wrong)


def test_without_the_library_a_listener_hears_what_is_not_lost(monkeypatch, caplog):
    framer, frames = Framer(INFO, CODE), []
    frames = list(stream(framer, 30))
    monkeypatch.setattr(fec_module, "reedsolo", None)
    one = receiver()
    packets = only(Tokens, heard(one, frames))
    assert packets == [music(48 * n) for n in range(30)]
    assert "pip install" in caplog.text
    with pytest.raises(UserError, match="pip install"):
        Framer(INFO, CODE)


def test_parity_that_passed_for_whole_and_is_wrong_is_given_up(monkeypatch):
    repair = Repair(Fec(2, 1))
    repair.packet(0, b"ab")

    def refuse(*args, **options):
        raise reedsolo.ReedSolomonError("no")

    monkeypatch.setattr(repair._codec, "decode", refuse)
    assert repair.parity(0, 0, b"ab") == []
    assert repair.packet(2, b"cd") == [(2, b"cd")]


def test_a_slow_line_is_never_overfilled():
    line = LineQueue(400.0)
    frames = [bytes((n,)) * 50 for n in range(20)]  # a second each
    for frame in frames:
        line.put(frame)
    assert line.dropped == 12  # eight seconds of it wait
    assert line.take(0.0) == frames[12]
    assert line.take(0.5) is None
    assert line.wait_s(0.25) == pytest.approx(0.75)
    sent = [line.take(t / 10) for t in range(10, 100)]
    assert [f for f in sent if f] == frames[13:]
    assert line.wait_s(100.0) is None
    assert line.sent_bytes == 400


def test_a_line_without_a_rate_holds_a_bounded_number():
    line = LineQueue(None)
    for n in range(100):
        line.put(bytes((n,)))
    assert (len(line), line.dropped) == (64, 36)
    assert line.take(0.0) == bytes((36,))
    assert line.take(0.0) == bytes((37,))
