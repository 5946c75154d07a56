"""Packing of 14-bit tokens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.errors import DataError
from codec.packing import pack_tokens, packed_size, unpack_tokens

token_lists = st.lists(st.integers(0, 16_383), max_size=200)


@given(token_lists)
def test_round_trip_at_every_length(tokens):
    data = pack_tokens(tokens)
    assert len(data) == packed_size(len(tokens))
    back = unpack_tokens(data)
    assert back.dtype == np.int64
    assert back.tolist() == tokens


@given(token_lists)
def test_bits_are_those_of_one_big_number(tokens):
    bits = "".join(f"{token:014b}" for token in tokens)
    bits += "0" * (-len(bits) % 8)
    assert pack_tokens(tokens) == bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


@given(st.binary(max_size=400))
def test_garbage_is_refused_or_is_the_packing_of_what_it_reads_as(data):
    try:
        tokens = unpack_tokens(data)
    except DataError:
        return
    assert pack_tokens(tokens) == data


def test_default_packet_is_exactly_84_bytes():
    assert packed_size(48) == 84


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32, np.int64, np.uint64])
def test_every_integer_type_is_taken(dtype):
    tokens = np.array([0, 1, 16_383], dtype=dtype)
    assert unpack_tokens(pack_tokens(tokens)).tolist() == [0, 1, 16_383]


@pytest.mark.parametrize(
    "tokens",
    [[-1], [16_384], [1.0], [True], [[1, 2]], 3, ["a"], np.array([2**40])],
)
def test_what_is_no_row_of_tokens_is_our_own_mistake(tokens):
    with pytest.raises(ValueError, match="tokens must"):
        pack_tokens(tokens)


def test_impossible_length_is_refused():
    with pytest.raises(DataError, match="1 bytes"):
        unpack_tokens(b"\0")


def test_padding_that_is_not_zero_is_refused():
    with pytest.raises(DataError, match="padding"):
        unpack_tokens(b"\0\1")
