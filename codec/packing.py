"""Tokens of 14 bits to bytes and back, without torch.

Tokens are written one after another, each with its highest bit first (big-endian); the last
byte is filled up with zero bits, fewer than eight. So the number of tokens follows from the number
of bytes: four tokens are seven bytes, and 48 tokens (1.92 s) are exactly 84.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codec.constants import CODEBOOK_SIZE, TOKEN_BITS
from codec.errors import DataError

__all__ = ["pack_tokens", "packed_size", "unpack_tokens"]


def packed_size(count: int) -> int:
    """Bytes that ``count`` tokens take."""
    return -(-count * TOKEN_BITS // 8)


def pack_tokens(tokens: ArrayLike) -> bytes:
    """Pack integer tokens ``[n]``, each in ``0 ... 16383``, into ``packed_size(n)`` bytes.

    Raises:
        ValueError: another shape, type or range; it would be our own mistake.
    """
    array = np.asarray(tokens)
    if array.ndim != 1:
        raise ValueError(f"tokens must have shape [n], got {list(array.shape)}")
    if array.size == 0:
        return b""
    if array.dtype.kind not in "iu":
        raise ValueError(f"tokens must be integers, got {array.dtype}")
    if int(array.min()) < 0 or int(array.max()) >= CODEBOOK_SIZE:
        raise ValueError(f"tokens must lie in 0 ... {CODEBOOK_SIZE - 1}")
    octets = array.astype(">u2").view(np.uint8).reshape(-1, 2)
    bits = np.unpackbits(octets, axis=1)[:, 16 - TOKEN_BITS :]
    return np.packbits(bits).tobytes()


def unpack_tokens(data: bytes) -> NDArray[np.int64]:
    """Unpack the tokens, int64 ``[n]``, that :func:`pack_tokens` made ``data`` from.

    Raises:
        DataError: no tokens give these bytes (impossible length, padding not zero).
    """
    count = len(data) * 8 // TOKEN_BITS
    if packed_size(count) != len(data):
        raise DataError(f"No whole number of {TOKEN_BITS}-bit tokens takes {len(data)} bytes.")
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8))
    if bits[count * TOKEN_BITS :].any():
        raise DataError("The padding bits after the last token are not zero.")
    words = np.zeros((count, 16), dtype=np.uint8)
    words[:, 16 - TOKEN_BITS :] = bits[: count * TOKEN_BITS].reshape(count, TOKEN_BITS)
    return np.packbits(words, axis=1).view(">u2").reshape(count).astype(np.int64)
