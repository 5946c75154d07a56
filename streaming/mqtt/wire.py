"""What a message costs on its way to or from a broker, without TLS."""

from __future__ import annotations

from streaming.stats import segment_bytes

__all__ = ["wire_bytes"]


def wire_bytes(
    topic: str, payload_bytes: int, *, expires: bool = False, acknowledged: bool = False
) -> int:
    """Estimated bytes one way, TCP/IP included, of a PUBLISH packet of MQTT 5.

    expires: it says when. acknowledged: it has QoS 1, and so a number.
    """
    # Length of the topic, topic, number, length of the properties, one of them, payload.
    rest = 2 + len(topic.encode()) + 2 * acknowledged + 1 + 5 * expires + payload_bytes
    length = 1 if rest < 128 else 2 if rest < 16_384 else 3
    return segment_bytes(1 + length + rest)
