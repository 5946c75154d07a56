"""Packets of tokens to fewer bytes and back, given the tokens before them.

Nothing is learnt during a stream and no state is kept: the meaning of a packet's bytes depends on
its tokens' positions and on as many tokens before it as both ends agree on, from none (the packet
stands for itself) to ``CONTEXT``. So a listener that has those tokens can decode the packet,
whenever it joined, and one that lacks any of them knows that it cannot.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from codec.errors import DataError
from codec.nano.entropy.features import DIGITS, features, join_digits, split_digits
from codec.nano.entropy.network import EntropyNetwork
from codec.nano.entropy.range_coder import RangeDecoder, RangeEncoder
from codec.nano.weights import BUNDLED_SHA256
from codec.packing import packed_size

__all__ = ["CONTEXT", "TokenCoder", "coder_for"]

Ints = NDArray[np.int64]

CONTEXT: Final = 240
"""Most tokens that a packet is conditioned on: two rounds of the slow channel, 9.6 s."""
_MODELS: Final = {
    BUNDLED_SHA256: "nano-6.npz",
}
"""By the digest of the weights whose tokens they were trained on."""


@cache
def coder_for(digest: str) -> TokenCoder | None:
    """The coder for tokens of the weights with this SHA-256; None if there is none."""
    name = _MODELS.get(digest)
    if name is None:
        return None
    return TokenCoder(EntropyNetwork.load(Path(__file__).with_name(name)))


class TokenCoder:
    """Codes packets with one model; keeps no state."""

    def __init__(self, network: EntropyNetwork) -> None:
        self._network = network

    def encode(self, tokens: Ints, first_token: int, context: Ints) -> bytes:
        """Bytes of tokens ``[n]`` from index ``first_token`` on, conditioned on ``context``.

        Args:
            context: the tokens just before, at most ``CONTEXT``.

        Returns:
            Bytes; if they are more than the tokens packed plainly, they are not decoded.
        """
        before, count = len(context), len(tokens)
        digits = split_digits(np.concatenate([context, tokens]))
        places = before + np.arange(count)
        rows = features(digits, first_token - before, places, np.zeros_like(places))
        middle, outputs = self._network.begin(rows)
        columns: list[list[list[int]]] = []
        for place in range(DIGITS):
            columns.append(self._network.frequencies(middle, outputs, place).tolist())
            middle, outputs = self._network.advance(middle, outputs, place, digits[before:, place])
        encoder = RangeEncoder()
        for index, token in enumerate(digits[before:].tolist()):
            for digit, column in zip(token, columns, strict=True):
                encoder.put(digit, column[index])
        return encoder.finish()

    def decode(self, data: bytes, count: int, first_token: int, context: Ints) -> Ints:
        """The ``count`` tokens that :meth:`encode` made ``data`` from, given the same context.

        The work depends on ``count`` alone.

        Raises:
            DataError: ``data`` was not made by it.
        """
        if len(data) >= packed_size(count):
            raise DataError(f"A coded packet of {len(data)} bytes is longer than a plain one.")
        before = len(context)
        digits = np.zeros((before + count, DIGITS), dtype=np.int64)
        digits[:before] = split_digits(context)
        decoder, network = RangeDecoder(data), self._network
        start = np.zeros(1, dtype=np.int64)
        for index in range(before, before + count):
            rows = features(digits[: index + 1], first_token - before, start + index, start)
            middle, outputs = network.begin(rows)
            for place in range(DIGITS):
                frequencies = network.frequencies(middle, outputs, place)
                digits[index, place] = decoder.take(frequencies[0].tolist())
                middle, outputs = network.advance(
                    middle, outputs, place, digits[index : index + 1, place]
                )
        return join_digits(digits[before:])
