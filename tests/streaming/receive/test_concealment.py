"""What stands in for lost tokens."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streaming.receive.concealment import fill_gap


@given(st.integers(0, 200), st.integers(0, 50))
def test_a_gap_is_filled_with_exactly_as_many_known_tokens(count: int, known: int) -> None:
    last = np.arange(100, 100 + known, dtype=np.int64)
    filled = fill_gap(last, count)
    assert filled.shape == (count,)
    assert filled.dtype == np.int64
    assert set(filled) <= (set(last) if known else {0})
    if known and count:
        assert filled[0] == last[-1]  # goes on from the token heard last
