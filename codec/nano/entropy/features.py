"""What is known before a token of nano arrives, as rows of the entropy model's tables.

A token is six digits (:mod:`codec.nano.model`): two bits of level, one of the slow channel and
four learnt ones. What they are conditioned on: the digits of the last eight tokens, how often each
learnt digit came in the context, where the token stands in the rounds of level and slow channel,
what the present group of each has said so far, and what the slow channel said of the same band and
its neighbours a round ago. Everything is a whole number.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["DIGITS", "LEARNT", "ROWS", "SIZES", "features", "join_digits", "split_digits"]

Ints = NDArray[np.int64]

SIZES: Final = (4, 2, 4, 8, 8, 8)
"""Values of the digits, in the order in which they are coded."""
_PLACES: Final = np.array([11, 13, 9, 0, 6, 3])
"""The lowest bit of each in a token."""
DIGITS: Final = len(SIZES)
LEARNT: Final = slice(2, DIGITS)

_LAGS: Final = 8
_SIZES: Final = np.array(SIZES)
_STARTS: Final = np.concatenate([[0], _SIZES.cumsum()])
_COUNTED: Final = int(_SIZES[LEARNT].sum())
_BUCKETS: Final = 8

# The slow channel (codec/nano/slow.py): 24 values of five bits in turn, 16 of them the spectrum's.
_BITS, _ITEMS, _BANDS = 5, 24, 16
_REVERSED = [int(f"{band:04b}"[::-1], 2) for band in range(_BANDS)]
_IMAGE_ORDER = (4, 6, 5, 7, 0, 2, 1, 3)
_ORDER: Final = np.array(
    [
        item
        for turn, image in enumerate(_IMAGE_ORDER)
        for item in (*_REVERSED[2 * turn : 2 * turn + 2], _BANDS + image)
    ]
)


def _rounds_behind() -> Ints:
    """Groups since the last word about the same value, and the neighbours of it; 0: none."""
    turn = _ORDER.argsort()
    behind = np.zeros((_ITEMS, 3), dtype=np.int64)
    for item in range(_ITEMS):
        kind = (item >= _BANDS) + (item >= _BANDS + 4)
        behind[turn[item], 0] = _ITEMS
        for column, other in ((1, item - 1), (2, item + 1)):
            same = 0 <= other < _ITEMS and (other >= _BANDS) + (other >= _BANDS + 4) == kind
            behind[turn[item], column] = (turn[item] - turn[other]) % _ITEMS if same else 0
    return behind


_BEHIND: Final = _rounds_behind()
_NEAR: Final = 16  # distances that are told apart

# The level channel (codec/nano/level.py): four tokens spell an entry, four entries are a chain.
_GROUP, _SPAN = 4, 16
_LEVEL_NODES = (4**_GROUP - 1) // 3

# Rows of the tables; row 0 stands for what is not known.
_AT_LAGS = 1
_AT_COUNTS = _AT_LAGS + _LAGS * int(_SIZES.sum())
_AT_SPAN = _AT_COUNTS + _COUNTED * _BUCKETS
_AT_TURN = _AT_SPAN + _SPAN
_AT_BIT = _AT_TURN + _ITEMS
_AT_OLD = _AT_BIT + _BITS
_AT_SLOW_NODE = _AT_OLD + 3 * _BITS * _NEAR
_AT_LEVEL_NODE = _AT_SLOW_NODE + 3 * 2**_BITS
_AT_ENTRY = _AT_LEVEL_NODE + 2 * _LEVEL_NODES
ROWS: Final = _AT_ENTRY + 16

_LAG_ROWS: Final = (
    _AT_LAGS + np.arange(_LAGS)[:, None] * int(_SIZES.sum()) + _STARTS[:DIGITS]
)  # [lags, digits]
_COUNT_ROWS: Final = _AT_COUNTS + np.arange(_COUNTED) * _BUCKETS
_COUNT_SIZES: Final = np.repeat(_SIZES[LEARNT], _SIZES[LEARNT])
_OLD_ROWS: Final = _AT_OLD + np.arange(3) * _BITS * _NEAR
_BIT_WEIGHTS: Final = 2 ** np.arange(_BITS - 1, -1, -1)


def split_digits(tokens: Ints) -> Ints:
    """Tokens ``[n]`` to digits ``[n, 6]`` in coding order."""
    return (tokens[:, None] >> _PLACES) & (_SIZES - 1)


def join_digits(digits: Ints) -> Ints:
    """Digits ``[n, 6]`` to tokens ``[n]``."""
    joined: Ints = (digits << _PLACES).sum(axis=1)
    return joined


def features(digits: Ints, first_token: int, places: Ints, starts: Ints) -> Ints:
    """Rows for the tokens at ``places`` of a window.

    Args:
        digits: of the window's tokens, ``[n, 6]``; those from a place on are not looked at.
        first_token: absolute index of the window's first.
        places: ``[m]``.
        starts: where in the window what may be used for each place begins, ``[m]``.

    Returns:
        ``[m, slots]``.
    """
    first, here = starts[:, None], places[:, None]
    index = first_token + places
    # The last tokens.
    back = here - np.arange(1, _LAGS + 1)
    recent = np.where((back >= first)[:, :, None], digits[np.maximum(back, 0)] + _LAG_ROWS, 0)
    # How often each learnt digit came, in quarters of its even share.
    share = _counts(digits, places, starts) * _COUNT_SIZES * 4 // (here - first + 16)
    counted = np.minimum(share, _BUCKETS - 1) + _COUNT_ROWS
    # The slow channel: this group so far, as a place in a binary tree, and what was said before.
    bit, turn = index % _BITS, index // _BITS % _ITEMS
    group = here - bit[:, None]
    prefix = _spelled(digits[:, 1], group, bit, 2)
    low, size = prefix << (_BITS - bit), 1 << (_BITS - bit)
    middle = (low + size // 2)[:, None]
    begun = group - _BITS * _BEHIND[turn]  # [m, 3]
    spelled = np.minimum(begun[:, :, None] + np.arange(_BITS), len(digits) - 1)
    bits = digits[:, 1][np.maximum(spelled, 0)]
    near = bits @ _BIT_WEIGHTS - middle + _NEAR // 2
    near = np.minimum(np.maximum(near, 0), _NEAR - 1)
    known = (begun >= first) & (_BEHIND[turn] > 0) & (group >= first)
    old = np.where(known, _OLD_ROWS + bit[:, None] * _NEAR + near, 0)
    item = _ORDER[turn]
    kind = (item >= _BANDS).astype(np.int64) + (item >= _BANDS + 4)
    node = _AT_SLOW_NODE + kind * 2**_BITS + (1 << bit) - 1 + prefix
    slow_node = np.where(group[:, 0] >= starts, node, 0)
    # The level channel: this group so far, and roughly the one before.
    place = index % _GROUP
    group = here - place[:, None]
    prefix = _spelled(digits[:, 0], group, place, 4)
    later = index % _SPAN >= _GROUP
    node = _AT_LEVEL_NODE + later * _LEVEL_NODES + (4**place - 1) // 3 + prefix
    level_node = np.where(group[:, 0] >= starts, node, 0)
    before = group[:, 0] - _GROUP
    entry = digits[:, 0][np.maximum(before, 0)] * 4 + digits[:, 0][np.maximum(before + 1, 0)]
    entry = np.where(before >= starts, _AT_ENTRY + entry, 0)
    single = np.stack(
        [
            _AT_SPAN + index % _SPAN,
            _AT_TURN + turn,
            _AT_BIT + bit,
            slow_node,
            level_node,
            entry,
        ],
        axis=1,
    )
    return np.concatenate([recent.reshape(len(places), -1), counted, old, single], axis=1)


def _counts(digits: Ints, places: Ints, starts: Ints) -> Ints:
    """How often each value of each learnt digit came from a start to its place, ``[m, 28]``."""
    at = digits[:, LEARNT] + (_STARTS[LEARNT.start : DIGITS] - _STARTS[LEARNT.start])
    if len(places) == 1:  # what decodes asks for one place at a time
        return np.bincount(at[starts[0] : places[0]].ravel(), minlength=_COUNTED)[None]
    seen = np.zeros((len(digits) + 1, _COUNTED), dtype=np.int64)
    np.put_along_axis(seen[1:], at, 1, axis=1)
    seen = seen.cumsum(axis=0)
    return seen[places] - seen[starts]


def _spelled(digits: Ints, group: Ints, place: Ints, base: int) -> Ints:
    """The number that a group's digits before ``place`` spell, ``[m]``."""
    prefix = np.zeros_like(place)
    for position in range(_BITS - 1 if base == 2 else _GROUP - 1):
        at = np.minimum(group[:, 0] + position, len(digits) - 1)
        digit = digits[np.maximum(at, 0)]
        prefix = np.where(position < place, prefix * base + digit, prefix)
    return prefix
