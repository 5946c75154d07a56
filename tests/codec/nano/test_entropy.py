"""Entropy coding: the same bytes on every machine, nothing lost, and who is sent what."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import codec
from benchmarks import entropy
from codec.errors import DataError
from codec.nano.entropy import features as model_input
from codec.nano.entropy.coder import CONTEXT, coder_for
from codec.nano.entropy.features import SIZES, features, join_digits, split_digits
from codec.nano.entropy.network import EntropyNetwork
from codec.nano.entropy.range_coder import MAX_TOTAL, RangeDecoder, RangeEncoder
from codec.nano.level import CHAIN, GROUP
from codec.nano.slow import _ORDER, BANDS, DIGITS, IMAGES, ITEMS
from codec.nano.weights import BUNDLED_SHA256
from codec.packing import pack_tokens, packed_size
from streaming.cli import server
from streaming.errors import ProtocolError
from streaming.send.service import open_hub
from streaming.send.settings import ServiceSettings
from streaming.stream.coded import MAX_CODED_TOKENS, PacketReader, context_before
from streaming.stream.hub import Hub
from streaming.stream.listener_session import ListenerSession
from streaming.stream.rewind import RewindBuffer
from streaming.stream.sender_session import SenderSession
from streaming.wire.messages import (
    CODED_KIND,
    CodedTokens,
    Gap,
    Join,
    StreamIdentity,
    StreamInfo,
    Tokens,
)
from streaming.wire.parsing import decode
from tests import DATA

MODEL = Path(codec.__file__).parent / "nano" / "entropy" / "nano-6.npz"
HELD = DATA / "held_0.ogg"
_CODER = coder_for(BUNDLED_SHA256)
assert _CODER is not None
CODER = _CODER
MODEL_SHA256 = "5e0e39ae214d3c35391971b80d7c48b3caa3af4c5637a926e346981b1968286c"
GOLDEN_TOKENS = [
    5313, 4535, 14319, 7873, 16174, 1460, 3889, 2117, 9087, 13687, 6007, 8283,
    8110, 14193, 8014, 3904, 7639, 10010, 1792, 14303, 992, 3682, 4803, 4463,
    10230, 12882, 12087, 2010, 7907, 16001, 2014, 16200, 5991, 8000, 1950, 3440,
]  # fmt: skip
"""From token 96 on, of a held-out render."""
GOLDEN_CONTEXT = "0e6efc2408b8e4d3412d51d7c838505fe3f6eeeabd4768df60"
GOLDEN_ALONE = "06a654455cffb4008cab1ce28174f443069d7d043ef4b5ad93939f"
PACKET = 48
INFO = StreamInfo("nano", "nano-6", BUNDLED_SHA256, 0, "s", PACKET)


def music(count, seed=0):
    """Tokens that the model finds likely: it is asked itself, with random bytes for the rest."""
    rng = np.random.default_rng(seed)
    digits = np.zeros((count, len(SIZES)), dtype=np.int64)
    network = CODER._network
    for index in range(count):
        place, start = np.array([index]), np.array([max(0, index - CONTEXT)])
        middle, outputs = network.begin(features(digits[: index + 1], 0, place, start))
        for digit in range(len(SIZES)):
            weights = network.frequencies(middle, outputs, digit)[0] ** 2.0
            digits[index, digit] = rng.choice(SIZES[digit], p=weights / weights.sum())
            middle, outputs = network.advance(
                middle, outputs, digit, digits[index : index + 1, digit]
            )
    return join_digits(digits)


@pytest.fixture(scope="module")
def stream():
    return music(12 * PACKET)


# ------------------------------------------------------------------------------ range coder


frequencies = st.lists(st.integers(1, 65_537), min_size=2, max_size=8)


@given(st.lists(st.tuples(frequencies, st.integers(0, 7)), max_size=80))
def test_digits_come_back(coded):
    encoder = RangeEncoder()
    wanted = [digit % len(table) for table, digit in coded]
    for (table, _), digit in zip(coded, wanted, strict=True):
        encoder.put(digit, table)
    decoder = RangeDecoder(encoder.finish())
    assert [decoder.take(table) for table, _ in coded] == wanted


def test_a_likely_digit_costs_next_to_nothing_and_an_unlikely_one_what_it_should():
    encoder = RangeEncoder()
    for _ in range(100):
        encoder.put(0, (65_535, 1))
    assert len(encoder.finish()) <= 1
    encoder = RangeEncoder()
    for _ in range(10):
        encoder.put(1, (65_535, 1))
    assert len(encoder.finish()) in (20, 21)  # 16 bits each


def test_bytes_beyond_all_digits_are_refused():
    with pytest.raises(DataError, match="damaged"):
        RangeDecoder(b"\xff" * 5).take([1, 1, 1])  # 3 does not divide 256 ** 5


# ------------------------------------------------------------------------------------ coder


tokens_of = st.lists(st.integers(0, 16_383), min_size=1, max_size=60)


@settings(deadline=None, max_examples=30)
@given(tokens_of, st.integers(0, CONTEXT), st.integers(0, 2**31), st.integers(0, 2**32))
def test_any_tokens_come_back_from_any_place_and_context(tokens, before, first, seed):
    tokens = np.array(tokens)
    context = np.random.default_rng(seed).integers(0, 16_384, before)
    data = CODER.encode(tokens, first + before, context)
    if len(data) < packed_size(len(tokens)):
        got = CODER.decode(data, len(tokens), first + before, context)
        np.testing.assert_array_equal(got, tokens)
    else:
        with pytest.raises(DataError, match="longer than a plain one"):
            CODER.decode(data, len(tokens), first + before, context)


@pytest.mark.parametrize("before", [0, 96, CONTEXT])
def test_what_is_likely_is_shorter_and_comes_back(stream, before):
    first = 5 * PACKET
    packet, context = stream[first : first + PACKET], stream[first - before : first]
    data = CODER.encode(packet, first, context)
    assert len(data) < packed_size(PACKET)
    np.testing.assert_array_equal(CODER.decode(data, PACKET, first, context), packet)


@given(st.binary(max_size=83), st.integers(0, 2**31))
@settings(deadline=None, max_examples=20)
def test_bytes_that_are_nothing_give_tokens_or_one_sentence(data, first):
    try:
        tokens = CODER.decode(data, PACKET, first, np.zeros(0, dtype=np.int64))
    except DataError:
        return
    assert len(tokens) == PACKET
    assert tokens.min() >= 0
    assert tokens.max() < 16_384


def test_other_machines_write_the_same_bytes():
    """If this fails, listeners of an earlier version hear noise: a new model needs a new kind."""
    assert hashlib.sha256(MODEL.read_bytes()).hexdigest() == MODEL_SHA256
    tokens, context = np.array(GOLDEN_TOKENS[20:]), np.array(GOLDEN_TOKENS[:20])
    for before, golden in ((context, GOLDEN_CONTEXT), (context[:0], GOLDEN_ALONE)):
        assert CODER.encode(tokens, 116, before).hex() == golden
        decoded = CODER.decode(bytes.fromhex(golden), 16, 116, before)
        np.testing.assert_array_equal(decoded, tokens)


def test_no_number_of_the_model_is_a_fraction_and_no_frequency_too_large():
    network = EntropyNetwork.load(MODEL)
    for field in fields(network):
        assert getattr(network, field.name).dtype == np.int64
    # Also for what the network never says.
    extreme = replace(network, bias=network.bias * 0 + 2**30)
    for some in (network, extreme):
        rows = np.random.default_rng(0).integers(0, model_input.ROWS, (50, 80))
        middle, outputs = some.begin(rows)
        for place in range(len(SIZES)):
            table = some.frequencies(middle, outputs, place)
            assert table.min() >= 1
            assert table.sum(axis=1).max() <= MAX_TOTAL


def test_a_model_that_is_none_is_refused_with_a_sentence(tmp_path):
    wrong = tmp_path / "model.npz"
    wrong.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="does not hold an entropy model"):
        EntropyNetwork.load(wrong)
    network = EntropyNetwork.load(MODEL)
    replace(network, table=network.table[1:]).save(wrong)
    with pytest.raises(ValueError, match="another shape"):
        EntropyNetwork.load(wrong)


def test_a_model_comes_back_from_its_file(tmp_path):
    network = EntropyNetwork.load(MODEL)
    network.save(tmp_path / "model.npz")
    again = EntropyNetwork.load(tmp_path / "model.npz")
    for field in fields(network):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(network, field.name))


def test_other_weights_have_no_coder():
    assert coder_for("a" * 64) is None


# --------------------------------------------------------------------------- features


def test_digits_are_the_codecs_own():
    """The level in bits 11 and 12, the slow channel in bit 13, as codec/nano/model.py has it."""
    tokens = np.arange(16_384)
    digits = split_digits(tokens)
    np.testing.assert_array_equal(join_digits(digits), tokens)
    np.testing.assert_array_equal(digits[:, 0], tokens // 2048 % 4)
    np.testing.assert_array_equal(digits[:, 1], tokens // 8192)
    np.testing.assert_array_equal(digits[:, 2], tokens // 512 % 4)


def test_the_rounds_are_the_codecs_own():
    assert (model_input._ITEMS, model_input._BITS) == (ITEMS, DIGITS)
    assert model_input._BANDS == BANDS == ITEMS - 2 * IMAGES
    assert (model_input._GROUP, model_input._SPAN) == (GROUP, GROUP * CHAIN)
    np.testing.assert_array_equal(model_input._ORDER, _ORDER.numpy())


def test_what_is_known_of_a_token_depends_on_nothing_from_it_on(stream):
    digits = split_digits(stream[:300])
    places = np.arange(200, 248)
    starts = places - 200
    before = features(digits, 7, places, starts)
    for index, place in enumerate(places):
        changed = digits.copy()
        changed[place:] = 1 - np.minimum(changed[place:], 1)
        changed[: starts[index]] = 0
        alone = features(changed[: place + 1], 7, places[[index]], starts[[index]])
        np.testing.assert_array_equal(alone[0], before[index])


# ----------------------------------------------------------------------------- in a stream


def make_hub(tokens, **options):
    hub = Hub(INFO, entropy_coding=True, **options)
    publish(hub, tokens)
    return hub


def publish(hub, tokens):
    for at in range(0, len(tokens), PACKET):
        publish_packet(hub, tokens[at : at + PACKET])


def publish_packet(hub, tokens):
    coded = hub.code(Tokens(hub.next_token, tokens)) if hub.entropy_coding else None
    hub.publish(tokens, 0.0, coded=coded)


def joined(hub, history=0, kinds=(CODED_KIND,)):
    sender = SenderSession(hub, 0.0)
    sender.receive(Join(history=history, kinds=kinds), 0.0)
    return sender


def taken(sender):
    messages = []
    while (message := sender.take()) is not None:
        messages.append(message)
    return messages


def follow(hub, sender, tokens):
    """Publish packet by packet; the messages that one listener is sent meanwhile."""
    messages = taken(sender)
    for at in range(0, len(tokens), PACKET):
        publish(hub, tokens[at : at + PACKET])
        messages += taken(sender)
    return messages


def kinds(messages):
    return [type(message).__name__ for message in messages]


def heard(listener, messages):
    return [event for m in messages for event in listener.receive(m, 0.0)]


def test_a_listener_that_takes_them_is_sent_coded_packets_that_hold_the_same(stream):
    hub = make_hub(stream[:0])
    messages = follow(hub, joined(hub), stream)
    assert kinds(messages) == ["Hello"] + ["CodedTokens"] * 12
    events = heard(ListenerSession(None), messages)
    got = np.concatenate([h.tokens for h in events if isinstance(h, Tokens)])
    np.testing.assert_array_equal(got, stream)
    coded = [m for m in messages if isinstance(m, CodedTokens)]
    assert [m.context for m in coded[:6]] == [0, 48, 96, 144, 192, 240]


def test_others_are_sent_plain_ones_of_the_same_stream(stream):
    hub = make_hub(stream[:0])
    assert kinds(follow(hub, joined(hub, kinds=()), stream[:96])) == ["Hello", "Tokens", "Tokens"]
    plain = Hub(INFO)
    assert kinds(follow(plain, joined(plain), stream[:96])) == ["Hello", "Tokens", "Tokens"]


def test_who_joins_late_gets_the_past_plainly_and_then_coded_packets(stream):
    hub = make_hub(stream[: 6 * PACKET])
    messages = follow(hub, joined(hub, history=256), stream[6 * PACKET :])
    assert kinds(messages) == ["Hello", "Tokens"] + ["CodedTokens"] * 6
    events = heard(ListenerSession(None), messages)
    got = np.concatenate([h.tokens for h in events if isinstance(h, Tokens)])
    np.testing.assert_array_equal(got, stream[6 * PACKET - 256 :])


def test_who_has_too_little_of_the_past_gets_plain_packets_until_it_has_enough(stream):
    hub = make_hub(stream[: 6 * PACKET])
    messages = follow(hub, joined(hub), stream[6 * PACKET :])
    assert kinds(messages) == ["Hello"] + ["Tokens"] * 5 + ["CodedTokens"]
    assert len(heard(ListenerSession(None), messages)) == 7


@pytest.mark.parametrize("missing", [10, 90_000, 2**31])
def test_nothing_is_told_from_before_a_gap(stream, missing):
    hub = make_hub(stream[:PACKET])
    sender, listener = joined(hub, history=PACKET), ListenerSession(None)
    messages = taken(sender)
    hub.skip(missing, 0.0)
    messages += follow(hub, sender, stream[PACKET : 3 * PACKET])
    coded = [m for m in messages if isinstance(m, CodedTokens)]
    assert [m.context for m in coded] == [0, 0, 48]
    got = [h for h in heard(listener, messages) if isinstance(h, Tokens)]
    np.testing.assert_array_equal(got[-1].tokens, stream[2 * PACKET : 3 * PACKET])
    assert listener.lost_tokens == missing


def test_a_lost_packet_is_a_gap_until_one_stands_for_itself(stream):
    listener = ListenerSession(None)
    hub = Hub(INFO)
    heard(listener, taken(joined(hub)))

    def coded(packet, before):
        first = packet * PACKET
        context = stream[first - before : first]
        data = CODER.encode(stream[first : first + PACKET], first, context)
        return CodedTokens(first, before, data)

    assert len(heard(listener, [coded(0, 0), coded(1, 48)])) == 2
    # Packet 2 is lost, 3 and 4 cannot be told without it.
    assert heard(listener, [coded(3, 144), coded(4, 48)]) == []
    gap, tokens = heard(listener, [coded(5, 0)])
    assert gap == Gap(2 * PACKET, 3 * PACKET)
    assert tokens == Tokens(5 * PACKET, stream[5 * PACKET : 6 * PACKET])
    (tokens,) = heard(listener, [coded(6, 48)])
    assert tokens == Tokens(6 * PACKET, stream[6 * PACKET : 7 * PACKET])
    assert listener.lost_tokens == 3 * PACKET
    # A duplicate is conditioned on what came before it.
    assert heard(listener, [coded(6, 48), coded(6, 0)]) == []
    assert listener.duplicate_tokens == 2 * PACKET


def test_a_packet_is_plain_where_coding_would_not_spare_a_byte():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 16_384, 3 * PACKET)
    hub = make_hub(noise[:0])
    assert kinds(follow(hub, joined(hub), noise)) == ["Hello"] + ["Tokens"] * 3


def test_the_last_packet_is_plain_where_it_is_shorter(stream):
    hub = make_hub(stream[:0])
    assert kinds(follow(hub, joined(hub), stream[: PACKET + 10])) == [
        "Hello",
        "CodedTokens",
        "Tokens",
    ]


def test_the_senders_option_reaches_the_hub(stream):
    asked = server.parse_arguments(["--entropy-coding"]).entropy_coding
    identity = StreamIdentity("nano", "nano-6", BUNDLED_SHA256)
    for chosen in (asked, server.parse_arguments([]).entropy_coding):
        hub, _ = open_hub(ServiceSettings(entropy_coding=chosen), identity, PACKET)
        sent = "CodedTokens" if chosen else "Tokens"
        assert kinds(follow(hub, joined(hub), stream[:PACKET])) == ["Hello", sent]
    assert asked


def test_other_codecs_and_long_packets_stay_plain(stream):
    for info in (
        replace(INFO, codec="mucodec", digest="b" * 64),
        replace(INFO, packet_tokens=MAX_CODED_TOKENS + 4),
    ):
        hub = Hub(info, entropy_coding=True)
        sender = joined(hub)
        publish_packet(hub, stream[: info.packet_tokens])
        assert kinds(taken(sender)) == ["Hello", "Tokens"]


def test_the_payload_that_is_counted_is_that_of_the_coded_bytes(stream):
    hub = make_hub(stream[:0])
    messages, listener = follow(hub, joined(hub), stream), ListenerSession(None)
    heard(listener, messages)
    assert listener.traffic.payload_bits == 8 * sum(len(m.data) for m in messages[1:])
    assert listener.traffic.tokens == len(stream)


def test_coded_packets_that_no_sender_writes_are_refused(stream):
    listener = ListenerSession(None)
    with pytest.raises(ProtocolError, match="did not begin with a hello"):
        listener.receive(CodedTokens(0, 0, b""), 0.0)
    hello = Hub(INFO).hello(0, 0.0)
    for wrong, message, why in (
        (hello, CodedTokens(300, 255, b""), "out of range"),
        (hello, CodedTokens(2**32 - 2, 0, b""), "out of range"),
        (hello, CodedTokens(0, 0, bytes(84)), "longer than a plain one"),
        (replace(hello, digest="c" * 64), CodedTokens(0, 0, b""), "none can be decoded"),
        (replace(hello, packet_tokens=1000), CodedTokens(0, 0, b""), "none can be decoded"),
    ):
        listener = ListenerSession(None)
        listener.receive(wrong, 0.0)
        with pytest.raises(ProtocolError, match=why):
            listener.receive(message, 0.0)


def test_coded_messages_come_back_and_wrong_ones_are_refused():
    message = CodedTokens(1000, 240, b"abc")
    assert decode(message.encode()) == message
    for context, first in ((5, 4), (256, 1000), (0, 2**32)):
        with pytest.raises(ValueError, match="do not fit"):
            CodedTokens(first, context, b"").encode()
    for wrong in (b"\x02\x00\x00", b"\x02\x00\x00\x00\x04\x05"):
        with pytest.raises(ProtocolError):
            decode(wrong)


@pytest.mark.parametrize("wrong", ['"x"', "[256]", "[true]", "[1.5]", str([1] * 17)])
def test_kinds_that_are_none_are_refused(wrong):
    with pytest.raises(ProtocolError, match="'kinds'"):
        decode(f'{{"type":"join","protocol":1,"history":0,"kinds":{wrong}}}')


def test_context_begins_after_the_last_gap_and_where_the_memory_begins(stream):
    rewind = RewindBuffer(1000)
    rewind.append(stream[:100])
    np.testing.assert_array_equal(context_before(rewind, 60), stream[:60])
    rewind.skip(20)
    assert len(context_before(rewind, 120)) == 0
    rewind.append(stream[100:400])
    np.testing.assert_array_equal(context_before(rewind, 130), stream[100:110])
    np.testing.assert_array_equal(context_before(rewind, 400), stream[140:380])


def test_a_reader_that_noted_the_same_twice_has_it_once(stream):
    reader = PacketReader()
    for first, last in ((0, 48), (0, 48), (24, 96), (10, 20)):
        reader.note(Tokens(first, stream[first:last]))
    data = CODER.encode(stream[96:144], 96, stream[:96])
    got = reader.read(CodedTokens(96, 96, data), BUNDLED_SHA256, PACKET)
    assert got == Tokens(96, stream[96:144])


# ------------------------------------------------------------------------------- benchmark


def test_the_benchmark_finds_music_shorter_and_decodes_what_it_coded(capsys):
    assert entropy.main([str(HELD), "--seconds", "8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "200 tokens" in lines[0]
    assert len(lines) == 1 + len(entropy.INTERVALS) * len(entropy.MODES)
    assert all("0 packets wrong" in line for line in lines if " whole:" in line)


def test_the_benchmark_says_what_it_lacks(tmp_path, capsys):
    assert entropy.main([str(tmp_path)]) == 2
    (tmp_path / "model.npz").write_bytes(b"no")
    assert entropy.main([str(HELD), "--model", str(tmp_path / "model.npz")]) == 2
    assert capsys.readouterr().err.count("entropy: ") == 2


def test_figures_count_what_would_be_sent(stream):
    noise = np.random.default_rng(0).integers(0, 16_384, 4 * PACKET)
    likely, not_likely = (
        entropy.code_piece(CODER, tokens, PACKET, "reset", decode=True)
        for tokens in (stream, noise)
    )
    assert likely.coded_bits < 13
    assert likely.message_bytes < 89
    assert likely.wrong == 0
    assert not_likely.coded_bits > 14
    assert not_likely.message_bytes == 89
    assert len(pack_tokens(noise[:PACKET])) + 5 == 89
    assert [entropy.contexts("reset", 48, n) for n in range(6)] == [0, 48, 96, 144, 192, 0]
    assert [entropy.contexts("whole", 48, n) for n in (0, 1, 9)] == [0, 48, CONTEXT]
    assert entropy.contexts("alone", 48, 9) == 0
