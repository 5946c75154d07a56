"""Subscribers of a broker that say as little as MQTT 5 allows and decode nothing."""

from __future__ import annotations

import struct

from benchmarks.crowd import Crowd, Member

__all__ = ["MqttLoad", "packet", "packets", "text"]

_CONNACK, _PUBLISH = 2, 3


def packet(kind: int, body: bytes) -> bytes:
    """An MQTT packet; its length takes as many bytes as it needs."""
    length, left = bytearray(), len(body)
    while True:
        left, low = divmod(left, 128)
        length.append(low | (128 if left else 0))
        if not left:
            return bytes([kind]) + bytes(length) + body


def text(value: str) -> bytes:
    """A string as MQTT writes it."""
    return struct.pack(">H", len(value)) + value.encode()


def packets(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The whole packets at the beginning of ``data``, kind and body; and the rest."""
    found: list[tuple[int, bytes]] = []
    place = 0
    while len(data) - place >= 2:
        length, at, shift = data[place + 1] & 127, place + 2, 7
        while data[at - 1] & 128:
            if at >= len(data):
                return found, data[place:]
            length |= (data[at] & 127) << shift
            shift, at = shift + 7, at + 1
        if len(data) - at < length:
            break
        found.append((data[place] >> 4, data[at : at + length]))
        place = at + length
    return found, data[place:]


class MqttLoad(Crowd):
    """Subscribers at the broker on ``port``: each takes the retained window, then what is live."""

    def __init__(
        self,
        port: int,
        count: int,
        joins_per_s: float,
        *,
        live: str,
        window: str,
        packet_tokens: int,
    ) -> None:
        # Version 5, a clean start, no keepalive, no properties, a name that the broker makes.
        greeting = packet(0x10, text("MQTT") + bytes([5, 2, 0, 0, 0]) + text(""))
        super().__init__(port, greeting, count, joins_per_s, packet_tokens=packet_tokens)
        self._live = text(live)
        both = b"".join(text(topic) + b"\0" for topic in (live, window))
        self._subscribe = packet(0x82, b"\0\1\0" + both)
        self._unsubscribe = packet(0xA2, b"\0\2\0" + text(window))

    def take(self, listener: Member, data: bytes, now_s: float) -> None:
        """Note when a packet came; anything else is passed over."""
        found, listener.held = packets(listener.held + data if listener.held else data)
        for kind, body in found:
            if kind == _CONNACK:
                listener.raw.send(self._subscribe)
            elif kind == _PUBLISH and body.startswith(self._live):
                at = len(self._live)
                at += 1 + body[at]  # what properties there are
                if body[at] == 1:  # tokens, not an event
                    self.note(listener, int.from_bytes(body[at + 1 : at + 5], "big"), now_s)
            elif kind == _PUBLISH and not listener.ready:
                listener.raw.send(self._unsubscribe)
                self.welcome(listener, now_s)
