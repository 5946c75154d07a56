"""Packets that were lost, from those that were not: Reed–Solomon across packets.

Of every ``data`` packets in a row, byte *i* of each and byte *i* of ``parity`` more frames are one
code word over GF(256) (polynomial 11D, generator 2, first root 1: what reedsolo does by default).
Which frames are missing is known, so any ``parity`` of them can be.

The parity of a group follows it one frame a packet, so that a slow line is never far behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from streaming.errors import UserError
from streaming.transports.oneway.hello import Fec

try:
    import reedsolo
except ModuleNotFoundError:  # an extra; whoever needs it is told by check_library
    if not TYPE_CHECKING:
        reedsolo = None

__all__ = ["FecEncoder", "Repair", "check_library"]

_OVERDUE: Final = 4096


def check_library() -> None:
    """Raise UserError if reedsolo is not installed."""
    if reedsolo is None:
        raise UserError(
            "Reed–Solomon needs the Python package reedsolo; install it: "
            "pip install 'reedsolo>=1.7'."
        )


def _codec(fec: Fec) -> reedsolo.RSCodec:
    check_library()
    return reedsolo.RSCodec(fec.parity, nsize=fec.data + fec.parity)


class FecEncoder:
    """Makes parity of packets that follow one another; :meth:`push` each of them."""

    def __init__(self, fec: Fec) -> None:
        self._fec = fec
        self._codec = _codec(fec)
        self._group: list[bytes] = []
        self._next = -1
        self._waiting: list[tuple[int, int, bytes]] = []

    def push(self, number: int, payload: bytes) -> list[tuple[int, int, bytes]]:
        """The next packet; returns parity to be sent after it.

        Returns:
            At most one frame: number of the group's first packet, place among the group's parity,
            payload.
        """
        if number != self._next or number % self._fec.data == 0:
            # A group that has a hole, or began before we did, gets no parity.
            self._group = []
        self._next = number + 1
        self._group.append(payload)
        if number % self._fec.data == self._fec.data - 1 and len(self._group) == self._fec.data:
            first = number + 1 - self._fec.data
            self._waiting += [(first, j, row) for j, row in enumerate(self._parity())]
        return [self._waiting.pop(0)] if self._waiting else []

    def _parity(self) -> list[bytes]:
        columns = [self._codec.encode(bytes(column)) for column in zip(*self._group, strict=True)]
        rows = zip(*(column[self._fec.data :] for column in columns), strict=True)
        return [bytes(row) for row in rows]


class Repair:
    """Puts packets in order, and those that were lost back in.

    A packet after a hole is held until the hole is filled, or until the last frame that could have
    filled it is overdue. Without a hole nothing waits. All methods return what is to be handed on:
    numbers and payloads, numbers ascending.

    Attributes:
        repaired: how many packets were recovered so far.
    """

    def __init__(self, fec: Fec) -> None:
        self._fec = fec
        self._codec = _codec(fec)
        self._next: int | None = None
        self._highest = -1
        self._packets: dict[int, bytes] = {}
        self._parity: dict[int, dict[int, bytes]] = {}
        self.repaired = 0

    def packet(self, number: int, payload: bytes) -> list[tuple[int, bytes]]:
        """A packet came."""
        if self._next is None:
            self._next = number
        self._highest = max(self._highest, number)
        self._packets.setdefault(number, payload)
        return self._release()

    def parity(self, first: int, place: int, payload: bytes) -> list[tuple[int, bytes]]:
        """A parity frame came.

        Args:
            first: number of its group's first packet.
            place: its place among the group's parity.
        """
        self._highest = max(self._highest, first + self._fec.data - 1 + place)
        self._parity.setdefault(first, {})[place] = payload
        return [] if self._next is None else self._release()

    def flush(self) -> list[tuple[int, bytes]]:
        """Nothing more comes: what was held, with its holes."""
        if self._next is None:
            return []
        self._highest += _OVERDUE
        return self._release()

    def _release(self) -> list[tuple[int, bytes]]:
        assert self._next is not None
        out: list[tuple[int, bytes]] = []
        while True:
            if self._next in self._packets:
                out.append((self._next, self._packets[self._next]))
                self._next += 1
            elif self._next > self._highest or not (self._recover() or self._skip()):
                break
        self._forget()
        return out

    def _skip(self) -> bool:
        """Go on behind the hole, if there is something and nothing can fill it any more."""
        assert self._next is not None
        group = self._next - self._next % self._fec.data
        if self._highest < group + self._fec.data + self._fec.parity - 1:
            return False
        later = [number for number in self._packets if number > self._next]
        group += self._fec.data
        later += [first for first in self._parity if first >= group]
        if not later:
            return False
        self._next = min(later)
        return True

    def _recover(self) -> bool:
        """Fill the group with a hole at the next packet; whether that could be done."""
        assert self._next is not None
        data, parity = self._fec.data, self._fec.parity
        first = self._next - self._next % data
        rows = [self._packets.get(first + i) for i in range(data)]
        rows += [self._parity.get(first, {}).get(j) for j in range(parity)]
        missing = [i for i, row in enumerate(rows) if row is None]
        if len(missing) > parity:
            return False
        length = max(len(row) for row in rows if row is not None)
        filled = [row if row is not None else bytes(length) for row in rows]
        try:
            columns = [
                self._codec.decode(bytearray(column), erase_pos=missing, only_erasures=True)[0]
                for column in zip(*filled, strict=True)
            ]
        except reedsolo.ReedSolomonError:  # a frame that passed for whole was not
            self._parity.pop(first, None)
            return False
        for i in missing:
            if i < data:
                self._packets[first + i] = bytes(column[i] for column in columns)
                self.repaired += first + i >= self._next
        return True

    def _forget(self) -> None:
        """What is needed for no group any more."""
        assert self._next is not None
        oldest = self._next - self._next % self._fec.data
        for number in [n for n in self._packets if n < oldest]:
            del self._packets[number]
        for first in [n for n in self._parity if n < oldest]:
            del self._parity[first]
