"""Counters, rates and the statistics file."""

from __future__ import annotations

import asyncio
import json
import math
import time
from pathlib import Path

import pytest

from streaming.errors import UserError
from streaming.stream.traffic import KEEPALIVE_BITS_PER_S, RateMeter, Traffic, wire_bytes
from streaming.support.stats import LoopStall, RealTimeFactor, StatsWriter
from streaming.support.tasks import beside


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (44, 44 + 2 + 52),  # the design's 784 bit/s at one packet a second
        (125, 125 + 2 + 52),
        (126, 126 + 4 + 52),
        (1444, 1444 + 4 + 52),
        (1445, 1445 + 4 + 104),
        (70_000, 70_000 + 10 + 49 * 52),
    ],
)
def test_wire_estimate_counts_all_headers(message, wire):
    assert wire_bytes(message) == wire


def test_default_packets_keep_the_promised_rates():
    traffic = Traffic()
    for packet in range(40):
        traffic.add(89, 1.92 * packet, tokens=48)
    now_s = 1.92 * 39
    assert traffic.payload_bits_per_s(now_s) == pytest.approx(350)
    assert traffic.wire_bits_per_s(now_s) == pytest.approx(
        (89 + 2 + 52) * 8 / 1.92 + KEEPALIVE_BITS_PER_S
    )
    assert (traffic.wire_bits_per_s(now_s) or 1e9) < 650
    assert (traffic.messages, traffic.tokens) == (40, 40 * 48)
    assert traffic.payload_bits == 40 * 672
    assert traffic.wire_bytes == 40 * 143


def test_rates_do_not_swing_between_packets():
    traffic = Traffic()
    for packet in range(10):
        traffic.add(89, 1.92 * packet, tokens=48)
    last_s = 1.92 * 9
    assert traffic.payload_bits_per_s(last_s + 1.9) == pytest.approx(350)


def test_silence_lowers_the_rate():
    meter = RateMeter(window_s=60)
    for second in range(10):
        meter.add(100, second)
    assert meter.per_second(9.5) == pytest.approx(100)
    assert meter.per_second(19) == pytest.approx(900 / 18)
    assert meter.per_second(100) is None


def test_rate_is_unknown_until_there_are_two_moments():
    meter = RateMeter()
    assert meter.per_second(0) is None
    meter.add(5, 1.0)
    assert meter.per_second(1.0) is None
    meter.add(5, 1.0)
    assert meter.per_second(1.0) is None


def test_history_counts_for_totals_and_not_for_rates():
    traffic = Traffic()
    traffic.add(453, 0.0, tokens=256, live=False)
    traffic.add(89, 0.1, tokens=48)
    traffic.add(89, 2.02, tokens=48)
    assert traffic.tokens == 352
    assert traffic.payload_bits_per_s(2.02) == pytest.approx(350)


def test_packets_that_come_in_a_bunch_are_no_faster_stream():
    traffic = Traffic()
    for packet, late_s in enumerate([1.0, 0.0, 0.0, 0.5]):
        traffic.add(89, 1.92 * packet + late_s, tokens=48, end_token=48 * packet)
        traffic.payload_bits_per_s(1.92 * packet + late_s)
    assert traffic.payload_bits_per_s(1.92 * 3 + 0.5) == pytest.approx(350)


def test_tokens_sent_twice_cost_twice():
    traffic = Traffic()
    for packet in range(10):
        traffic.add(89, 1.92 * packet, tokens=48, end_token=48 * packet)
        traffic.add(89, 1.92 * packet, tokens=48, end_token=48 * packet)
    assert traffic.payload_bits_per_s(1.92 * 9) == pytest.approx(700, rel=0.06)


def test_events_count_on_the_wire_with_the_tokens_after_them():
    traffic = Traffic()
    assert traffic.wire_bits_per_s(0) is None
    traffic.add(89, 0.0, tokens=48)
    traffic.add(40, 1.0)
    traffic.add(89, 2.0, tokens=48)
    traffic.add(40, 2.0)
    assert traffic.wire_bits_per_s(2.0) == pytest.approx((143 + 94) * 4 + KEEPALIVE_BITS_PER_S)


def test_real_time_factor_of_the_latest_work():
    factor = RealTimeFactor(window=2)
    assert factor.value is None
    for busy_s in (100.0, 0.1, 0.3):
        factor.add(busy_s, 2.0)
    assert factor.value == pytest.approx(0.1)


async def test_stall_of_the_loop_is_noticed():
    stall = LoopStall(interval_s=0.001)
    async with beside(stall.watch()):
        await asyncio.sleep(0.01)
        time.sleep(0.05)  # the fault to be found
        await asyncio.sleep(0.01)
    assert stall.longest_ms >= 40


def test_statistics_are_json_lines(tmp_path: Path):
    path = tmp_path / "stats.jsonl"
    with StatsWriter(path, clock=lambda: 12.0) as stats:
        stats.write({"tokens": 3, "rtf": 0.123456, "bad": math.nan, "none": None})
        assert json.loads(path.read_text()) == {
            "time_s": 12.0,
            "tokens": 3,
            "rtf": 0.1235,
            "bad": None,
            "none": None,
        }
        stats.write({"title": "a"}, final=True)
    last = json.loads(path.read_text().splitlines()[-1])
    assert last == {"time_s": 12.0, "title": "a", "final": True}


def test_no_path_writes_nowhere():
    with StatsWriter(None) as stats:
        stats.write({"a": 1})


def test_unwritable_file_is_said_at_once(tmp_path: Path):
    with pytest.raises(UserError, match="No such file or directory"):
        StatsWriter(tmp_path / "missing" / "stats.jsonl")


def test_full_disk_ends_the_statistics_and_nothing_else(caplog):
    with StatsWriter("/dev/full") as stats:
        stats.write({"a": 1})
        stats.write({"a": 2})
    assert [record.message for record in caplog.records] == [
        "no more statistics in /dev/full: No space left on device"
    ]


def test_errors_without_a_number_are_said_in_their_own_words(monkeypatch, tmp_path: Path):
    def refuse(*args, **kwargs):
        raise OSError("odd")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match="odd"):
        StatsWriter(tmp_path / "stats.jsonl")
