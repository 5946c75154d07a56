"""Frames among noise: found where they are whole, and nothing else is found."""

from __future__ import annotations

import hashlib
import random
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streaming.transports.oneway.framing import (
    MAX_FRAME,
    Frame,
    Kind,
    Scanner,
    encode_frame,
    frame_overhead,
)

KINDS = st.sampled_from(Kind)
FRAMES = st.builds(Frame, KINDS, st.binary(max_size=255))


def any_frame(kind, length):
    return b"salt"


def encoded(frame):
    return encode_frame(frame.kind, frame.body, b"salt")


def crc(data):
    """As the standard has it, bit by bit."""
    value = 0xFFFF
    for byte in data:
        value ^= byte << 8
        for _ in range(8):
            value = (value << 1 ^ (0x1021 if value & 0x8000 else 0)) & 0xFFFF
    return value


def scan(data, expect=any_frame):
    scanner = Scanner(expect)
    scanner.push(data)
    return list(iter(scanner.next, None))


def test_the_layout_is_the_documented_one():
    assert crc(b"123456789") == 0x29B1  # the check value of CRC-16/IBM-3740
    for kind, body, salt in ((Kind.HELLO, b"", b""), (Kind.END, b"123", b"before it")):
        begins = bytes((0xA8 + kind, len(body))) + body
        assert encode_frame(kind, body, salt) == begins + crc(salt + begins).to_bytes(2, "big")


@given(st.lists(FRAMES, max_size=5), st.lists(st.integers(1, 40), min_size=1))
def test_frames_come_out_however_the_bytes_are_cut(frames, cuts):
    data = b"".join(map(encoded, frames))
    found: list[Frame] = []
    scanner, at, turn = Scanner(any_frame), 0, 0
    while at < len(data):
        step = cuts[turn % len(cuts)]
        scanner.push(data[at : at + step])
        found += iter(scanner.next, None)
        at, turn = at + step, turn + 1
    assert found == frames
    assert scanner.unread_bytes == 0


@given(st.binary(max_size=300), FRAMES)
def test_a_frame_is_found_behind_anything_within_one_longest_frame(noise, frame):
    scanner = Scanner(any_frame)
    scanner.push(noise + encoded(frame) + bytes(MAX_FRAME))
    found = list(iter(scanner.next, None))
    assert frame in found or any(f.body for f in found[:-1])  # noise that is a frame by chance
    assert scanner.unread_bytes < MAX_FRAME


@given(FRAMES, st.data())
@example(Frame(Kind.TOKENS, bytes(85)), None)
def test_up_to_three_wrong_bits_and_bursts_of_sixteen_are_always_seen(frame, data):
    whole = encoded(frame)
    bits = 8 * len(whole)
    chance = random.Random(0) if data is None else data.draw(st.randoms(use_true_random=False))
    for _ in range(20):
        flips = set(chance.sample(range(bits), chance.randint(1, 3)))
        if chance.random() < 0.5:
            first = chance.randrange(bits - 15)
            flips = {first + i for i in range(16) if chance.random() < 0.5} or {first}
        damaged = bytearray(whole)
        for flip in flips:
            damaged[flip // 8] ^= 128 >> flip % 8
        at_start = Scanner(any_frame)
        at_start.push(bytes(damaged))
        found = at_start.next()
        assert found is None or len(found.body) < len(frame.body)  # one that lies within, by chance


def test_another_salt_is_another_frame():
    whole = encoded(Frame(Kind.TITLE, b"Song"))
    assert scan(whole) == [Frame(Kind.TITLE, b"Song")]
    assert scan(whole, lambda kind, length: b"salz") == []
    assert scan(whole, lambda kind, length: None) == []


def test_a_key_takes_the_checksums_place():
    key, body = b"k" * 16, b"1234"
    data = bytes((0xAD, 4)) + body
    tag = hashlib.blake2s(b"salt" + data, key=key, digest_size=6).digest()
    assert encode_frame(Kind.END, body, b"salt", key) == data + tag
    keyed = Scanner(any_frame, key, lambda kind, body: body[:1])
    keyed.push(
        encode_frame(Kind.END, body, b"salt1", key) + encode_frame(Kind.END, body, b"salt2", key)
    )
    assert list(iter(keyed.next, None)) == [Frame(Kind.END, body)]
    assert frame_overhead(key) == frame_overhead() + 4 == len(data) - 4 + 6


def test_kinds_that_are_not_known_are_passed_over():
    data = bytes((0b10101_110, 0, 0, 0, 0b10101_111)) + encoded(Frame(Kind.END, b"1234"))
    assert scan(data) == [Frame(Kind.END, b"1234")]


def test_what_a_datagram_has_begun_ends_with_it():
    scanner = Scanner(any_frame)
    whole = encoded(Frame(Kind.TITLE, b"Song"))
    scanner.push(whole[:5])
    assert scanner.next() is None
    scanner.clear()
    scanner.push(whole)
    assert scanner.next() == Frame(Kind.TITLE, b"Song")


def test_a_body_that_is_too_long_is_our_own_mistake():
    with pytest.raises(ValueError, match="255"):
        encode_frame(Kind.TITLE, bytes(256))


def test_in_random_bytes_as_much_is_found_as_chance_puts_there():
    # Six kinds of 256 bytes, and one checksum of 65 536: 0.36 in a million places.
    random_bytes = random.Random(1).randbytes(1_000_000)
    found = scan(random_bytes, lambda kind, length: b"" if length == 85 else None)
    assert len(found) <= 1


def test_work_is_bounded_by_a_longest_frame_a_byte():
    asked = []

    def expect(kind, length):
        asked.append(length)
        return b""

    data = bytes((0b10101_001, 255)) * 2000  # every other byte could begin a frame
    scan(data, expect)
    assert len(asked) <= len(data) // 2 + 1
    assert all(a <= b for a, b in pairwise(asked))
