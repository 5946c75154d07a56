"""The benchmark of a broker: that it counts what it says it counts."""

from __future__ import annotations

import os
import struct

import pytest

from benchmarks.mqtt_fanout import Subscriber, cpu_s, measure, packet, rss_bytes, text
from tests.mosquitto import mosquitto

__all__ = ["mosquitto"]


async def test_every_packet_reaches_every_subscriber(mosquitto):
    broker = mosquitto()
    result = await measure(broker.port, broker.pid, listeners=5, seconds=1.5, joins=100.0)
    assert (result.listeners, result.dropped) == (5, 0)
    assert result.packets >= 1
    assert 0 < result.p50_ms <= result.p99_ms
    assert result.join_p99_ms > 0


@pytest.mark.parametrize("length", [0, 1, 127, 128, 16_383, 16_384])
async def test_packets_are_read_however_they_are_cut(length):
    arrived: list[int] = []
    one = Subscriber("live", "window", arrived.append)
    one._transport = object()  # type: ignore[assignment]  # nothing is to be said
    payload = struct.pack(">BI", 1, 77) + bytes(length)
    data = packet(0x30, text("live") + b"\0" + payload) * 2
    for byte in data:
        one.data_received(bytes([byte]))
    assert arrived == [77, 77]
    one.data_received(packet(0x30, text("live") + b"\0" + b"{}"))  # an event
    assert arrived == [77, 77]


def test_a_process_is_seen_to_compute_and_to_take_memory():
    assert cpu_s(os.getpid()) > 0
    assert rss_bytes(os.getpid()) > 1_000_000
