"""The benchmark of a broker: that it counts what it says it counts."""

from __future__ import annotations

import os
import socket
import struct

import pytest

from benchmarks.crowd import Member
from benchmarks.mqtt_fanout import cpu_s, measure, rss_bytes
from benchmarks.mqtt_load import MqttLoad, packet, packets, text
from tests.support.mosquitto import mosquitto

__all__ = ["mosquitto"]


async def test_every_packet_reaches_every_subscriber(mosquitto):
    broker = mosquitto()
    result = await measure(broker.port, broker.pid, listeners=5, seconds=1.5, joins=100.0)
    assert (result.listeners, result.dropped) == (5, 0)
    assert result.packets >= 1
    assert 0 < result.p50_ms <= result.p99_ms
    assert result.join_p99_ms > 0


@pytest.mark.parametrize("length", [0, 1, 127, 128, 16_383, 16_384])
def test_packets_are_read_however_they_are_cut(length):
    data = packet(0x30, bytes(length)) + packet(0x20, b"x")
    wanted = [(3, bytes(length)), (2, b"x")]
    for cut in {0, 1, 2, 3, 4, 5, len(data) // 2, len(data) - 1, len(data)} & {
        *range(len(data) + 1)
    }:
        first, rest = packets(data[:cut])
        second, left = packets(rest + data[cut:])
        assert [*first, *second] == wanted
        assert left == b""


def test_tokens_count_and_events_do_not():
    load = MqttLoad(0, 1, 1.0, live="live", window="live/window", packet_tokens=7)
    ours, theirs = socket.socketpair()
    member = Member(ours, 0, 0.0)
    payload = struct.pack(">BI", 1, 77)
    load.take(member, packet(0x31, text("live/window") + b"\0" + payload), 1.0)
    assert member.ready
    data = packet(0x30, text("live") + b"\0" + payload)
    load.take(member, data[:9], 2.0)
    load.take(member, data[9:] + packet(0x30, text("live") + b"\0{}"), 3.0)
    arrivals = load.arrivals()
    assert (arrivals.packets.tolist(), arrivals.times_s.tolist()) == ([11], [3.0])
    assert theirs.recv(100)[0] == 0xA2  # it wants no more windows
    ours.close()
    theirs.close()


def test_a_process_is_seen_to_compute_and_to_take_memory():
    assert cpu_s(os.getpid()) > 0
    assert rss_bytes(os.getpid()) > 1_000_000
