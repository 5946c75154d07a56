"""What a message costs on its way to or from a broker, without TLS."""

from __future__ import annotations

import functools
from typing import Final

from streaming.stream.traffic import Traffic, segment_bytes
from streaming.transports.mqtt.address import MqttAddress

__all__ = ["KEEPALIVE_S", "listener_traffic", "wire_bytes"]

KEEPALIVE_S: Final = 60
"""A listener asks the broker for a sign of life so often, in two bytes; so many come back."""


def wire_bytes(
    topic: str, payload_bytes: int, *, expires: bool = False, acknowledged: bool = False
) -> int:
    """Estimated bytes one way, TCP/IP included, of a PUBLISH packet of MQTT 5.

    Args:
        expires: whether it says when.
        acknowledged: whether it has QoS 1, and so a number.
    """
    # Length of the topic, topic, number, length of the properties, one of them, payload.
    rest = 2 + len(topic.encode()) + 2 * acknowledged + 1 + 5 * expires + payload_bytes
    length = 1 if rest < 128 else 2 if rest < 16_384 else 3
    return segment_bytes(1 + length + rest)


def listener_traffic(address: MqttAddress) -> Traffic:
    """For counting what a listener of the stream at ``address`` receives."""
    topic = address.live("tag4")  # tags are of one length
    framing = functools.partial(wire_bytes, topic)
    return Traffic(framing, 8 * segment_bytes(2) / KEEPALIVE_S)
