"""Frequencies of a token's digits: a small network whose every number is an integer.

Sums of table rows, two layers and an exponential from a table. No floating point is involved, and
the sum of integers does not depend on their order, so all machines get the same frequencies.
Numbers stand for 1/1024; sums stay far below 64 bits. :mod:`training.train_entropy` trains the
weights.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from codec.nano.entropy.features import ROWS, SIZES

__all__ = ["FRACTION_BITS", "OUTPUTS", "EntropyNetwork"]

Ints = NDArray[np.int64]

FRACTION_BITS: Final = 10
OUTPUTS: Final = sum(SIZES)
_ENDS: Final = np.cumsum([0, *SIZES]).tolist()
_MOST: Final = 1 << 20  # of a hidden value


@dataclass(frozen=True)
class EntropyNetwork:
    """Integer weights, for ``h`` hidden values and ``k`` more for each digit.

    Attributes:
        table: a row for each of :mod:`~codec.nano.entropy.features`, ``[ROWS, h + 34]``.
        bias: ``[h + 34]``.
        middle, middle_bias: ``[h, 6 k]`` and ``[6 k]``.
        earlier: what the token's digits before say to the middle, ``[34, 6 k]``.
        direct: what they say to the outputs, ``[34, 34]``.
        outward: ``[34, k]``.
        powers: falling exponential in steps of 1/256, from 65536 down.
    """

    table: Ints
    bias: Ints
    middle: Ints
    middle_bias: Ints
    earlier: Ints
    direct: Ints
    outward: Ints
    powers: Ints

    @classmethod
    def load(cls, path: Path) -> EntropyNetwork:
        """From an ``.npz`` of arrays by these names. Raises ValueError if it holds others."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {f.name: file[f.name].astype(np.int64) for f in fields(cls)}
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} does not hold an entropy model: {error}") from error
        network = cls(**arrays)
        if len(network.table) != ROWS or len(network.outward) != OUTPUTS:
            raise ValueError(f"{path} holds an entropy model of another shape")
        return network

    def save(self, path: Path) -> None:
        """Compressed, in the narrowest types that hold the numbers."""
        arrays: dict[str, Any] = {
            f.name: getattr(self, f.name).astype(
                np.int16 if np.abs(getattr(self, f.name)).max() < 2**15 else np.int32
            )
            for f in fields(self)
        }
        np.savez_compressed(path, **arrays)

    def begin(self, rows: Ints) -> tuple[Ints, Ints]:
        """From what is known before tokens, ``[m, slots]``: middle and outputs, ``[m, ...]``."""
        sums = self.table[rows].sum(axis=1) + self.bias
        hidden = np.minimum(np.maximum(sums[:, :-OUTPUTS], 0), _MOST)
        middle = (hidden @ self.middle >> FRACTION_BITS) + self.middle_bias
        return middle, sums[:, -OUTPUTS:]

    def advance(self, middle: Ints, outputs: Ints, place: int, digits: Ints) -> tuple[Ints, Ints]:
        """The same once the digits at ``place``, ``[m]``, are known."""
        rows = _ENDS[place] + digits
        return middle + self.earlier[rows], outputs + self.direct[rows]

    def frequencies(self, middle: Ints, outputs: Ints, place: int) -> Ints:
        """Of the digits' values at ``place``, ``[m, size]``, each at least 1."""
        width = self.outward.shape[1]
        start, end = _ENDS[place], _ENDS[place + 1]
        values = middle[:, place * width : (place + 1) * width]
        values = np.minimum(np.maximum(values, 0), _MOST)
        logits = (values @ self.outward[start:end].T >> FRACTION_BITS) + outputs[:, start:end]
        below = logits.max(axis=1, keepdims=True) - logits >> FRACTION_BITS - 8
        powers: Ints = self.powers[np.minimum(below, len(self.powers) - 1)] + 1
        return powers
