"""Range coding (Martin, 1979) of digits with whole-number frequencies, byte by byte.

Python's integers carry by themselves, so there is no carry propagation to get wrong; a packet is
short enough for that. Frequencies may add up to at most ``MAX_TOTAL``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from codec.errors import DataError

__all__ = ["MAX_TOTAL", "RangeDecoder", "RangeEncoder"]

MAX_TOTAL: Final = 1 << 20
_BYTES: Final = 5
_FULL: Final = 1 << 8 * _BYTES
_LEAST: Final = _FULL >> 8


class RangeEncoder:
    """:meth:`put` digits, then :meth:`finish`."""

    def __init__(self) -> None:
        self._low = 0
        self._range = _FULL
        self._bytes = _BYTES

    def put(self, digit: int, frequencies: Sequence[int]) -> None:
        """Code ``digit``, whose frequency is at least 1."""
        unit = self._range // sum(frequencies)
        self._low += unit * sum(frequencies[:digit])
        self._range = unit * frequencies[digit]
        while self._range < _LEAST:
            self._low <<= 8
            self._range <<= 8
            self._bytes += 1

    def finish(self) -> bytes:
        """The shortest bytes that decode to these digits; zeros at the end are left out."""
        value = self._low
        for spared in range(_BYTES, 0, -1):
            step = 1 << 8 * spared
            value = -(-self._low // step) * step
            if value < self._low + self._range:
                break
        return value.to_bytes(self._bytes, "big").rstrip(b"\0")


class RangeDecoder:
    """Reads what :class:`RangeEncoder` wrote, given the same frequencies."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = _BYTES
        self._code = int.from_bytes(data[:_BYTES].ljust(_BYTES, b"\0"), "big")
        self._range = _FULL

    def take(self, frequencies: Sequence[int]) -> int:
        """The next digit. Raises DataError if no encoder writes such bytes."""
        unit = self._range // sum(frequencies)
        place = self._code // unit
        below = 0
        digit = 0
        while place >= below + frequencies[digit]:
            below += frequencies[digit]
            digit += 1
            if digit == len(frequencies):
                raise DataError("A coded packet is damaged.")
        self._code -= unit * below
        self._range = unit * frequencies[digit]
        while self._range < _LEAST:
            following = self._data[self._at] if self._at < len(self._data) else 0
            self._code = self._code << 8 | following
            self._range <<= 8
            self._at += 1
        return digit
