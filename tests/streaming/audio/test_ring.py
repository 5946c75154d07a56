"""The ring buffer: nothing lost, nothing twice, nobody waits."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.audio.ring import RingBuffer


def count_up(start, samples):
    line = np.arange(start, start + samples, dtype=np.float32)
    return np.stack([line, -line])


@settings(deadline=None)
@given(st.integers(1, 50), st.lists(st.tuples(st.sampled_from("wrs"), st.integers(0, 70))))
def test_any_sequence_of_writes_and_reads_is_a_queue(capacity, steps):
    ring = RingBuffer(2, capacity)
    written = read = 0
    for step, size in steps:
        waiting = written - read
        assert (ring.available, ring.free) == (waiting, capacity - waiting)
        if step == "w":
            count = ring.write(count_up(written, size))
            assert count == min(size, capacity - waiting)
            written += count
        elif step == "r":
            out = np.full((2, size), np.nan, np.float32)
            count = ring.read_into(out)
            assert count == min(size, waiting)
            np.testing.assert_array_equal(out[:, :count], count_up(read, count))
            assert np.isnan(out[:, count:]).all()
            read += count
        else:
            count = ring.skip(size)
            assert count == min(size, waiting)
            read += count


def test_two_threads_pass_a_long_signal_in_order():
    ring = RingBuffer(2, 1000)
    total = 300_000

    def write():
        sent = 0
        while sent < total:
            count = ring.write(count_up(sent, min(777, total - sent)))
            sent += count
            if not count:
                time.sleep(0)  # it is the other one's turn

    writer = threading.Thread(target=write)
    writer.start()
    out = np.zeros((2, 512), np.float32)
    received = 0
    while received < total:
        count = ring.read_into(out)
        np.testing.assert_array_equal(out[:, :count], count_up(received, count))
        received += count
        if not count:
            time.sleep(0)
    writer.join()


def test_skipping_backwards_does_nothing():
    ring = RingBuffer(1, 4)
    assert ring.skip(-3) == 0


@pytest.mark.parametrize(("channels", "capacity"), [(0, 10), (2, 0)])
def test_a_ring_needs_room(channels, capacity):
    with pytest.raises(ValueError, match="at least 1"):
        RingBuffer(channels, capacity)
