"""What a stream costs: rates of payload and wire.

Rates are measured over a sliding window between the first and the last message in it, so that a
packet every two seconds does not read as 0 and 700 bit/s in turn. The payload is the 14-bit tokens
and nothing else; the wire rate is an estimate, one way, of what they cost with all headers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from codec.constants import TOKEN_BITS, TOKEN_RATE
from streaming.stream.heartbeat import ask_interval_s

__all__ = ["KEEPALIVE_BITS_PER_S", "RateMeter", "Traffic", "segment_bytes", "wire_bytes"]

_TCP_IP_HEADERS: Final = 52
"""20 bytes of IPv4, 20 of TCP and 12 of TCP timestamps a segment."""
_SEGMENT_BYTES: Final = 1448
_MAX_AMOUNTS: Final = 4096  # a minute of the shortest packets is 1500
_PING_BYTES: Final = 6
_PING_INTERVAL_S: Final = ask_interval_s(30.0)
"""The sender's pings travel with tokens; the answers go the other way."""


def wire_bytes(message_bytes: int) -> int:
    """Estimated bytes on the wire, one way, of a WebSocket message from the server (no TLS)."""
    header = 2 if message_bytes <= 125 else 4 if message_bytes <= 65_535 else 10
    return segment_bytes(message_bytes + header)


def segment_bytes(stream_bytes: int) -> int:
    """Bytes on the wire, one way, of ``stream_bytes`` that go into a TCP connection at once."""
    return stream_bytes + -(-stream_bytes // _SEGMENT_BYTES) * _TCP_IP_HEADERS


KEEPALIVE_BITS_PER_S: Final = _PING_BYTES * 8 / _PING_INTERVAL_S
"""What the sender's pings add to the wire rate, as often as they are by default."""


class RateMeter:
    """Amounts per second over a sliding window.

    The amount that opens the window does not count, only the time since: 672 bits every 1.92 s are
    350 bit/s from the second message on. ``None`` until then. A silence counts as soon as it is
    longer than the mean distance of messages.

    Amounts may say where in a stream they end. Then the time between two is at least the stream's
    own: packets that were held up on the way and come in a bunch are no faster stream.
    """

    def __init__(self, window_s: float = 60.0) -> None:
        self.window_s = window_s
        self._amounts: deque[tuple[float, float, float]] = deque(maxlen=_MAX_AMOUNTS)

    def add(self, amount: float, now_s: float, stream_s: float = 0.0) -> None:
        """Count ``amount`` at ``now_s`` (monotonic seconds), ``stream_s`` into the stream."""
        self._amounts.append((now_s, stream_s, amount))
        self._forget(now_s)

    def per_second(self, now_s: float) -> float | None:
        """The rate, or None while there is nothing to measure it between."""
        self._forget(now_s)
        if len(self._amounts) < 2:
            return None
        (start_s, stream_start_s, opening), (last_s, stream_last_s, _) = (
            self._amounts[0],
            self._amounts[-1],
        )
        elapsed_s = max(last_s - start_s, stream_last_s - stream_start_s)
        mean_s = elapsed_s / (len(self._amounts) - 1)
        elapsed_s = max(elapsed_s, now_s - mean_s - start_s)
        if elapsed_s <= 0:
            return None
        return (sum(amount for _, _, amount in self._amounts) - opening) / elapsed_s

    def _forget(self, now_s: float) -> None:
        while self._amounts and self._amounts[0][0] < now_s - self.window_s:
            self._amounts.popleft()


class Traffic:
    """What one direction of one connection carries: totals, and rates of the live part.

    Args:
        framing: bytes on the wire of a message of so many bytes; a WebSocket's by default.
        keepalive_bits_per_s: what comes on top; a WebSocket's by default.
    """

    def __init__(
        self,
        framing: Callable[[int], int] = wire_bytes,
        keepalive_bits_per_s: float = KEEPALIVE_BITS_PER_S,
    ) -> None:
        self._framing = framing
        self._keepalive_bits_per_s = keepalive_bits_per_s
        self.messages = 0
        self.tokens = 0
        self.payload_bits = 0
        self.wire_bytes = 0
        self._payload = RateMeter()
        self._wire = RateMeter()
        self._pending_bytes = 0

    def add(
        self,
        message_bytes: int,
        now_s: float,
        *,
        tokens: int = 0,
        end_token: int = 0,
        live: bool = True,
        payload_bits: int | None = None,
    ) -> None:
        """Count a message of ``message_bytes`` with ``tokens``, the last one before ``end_token``.

        Args:
            live: whether it counts for the rates; the burst of history after joining does not.
            payload_bits: what the tokens took, if they are coded in fewer bits.
        """
        on_wire = self._framing(message_bytes)
        self.messages += 1
        self.tokens += tokens
        payload_bits = tokens * TOKEN_BITS if payload_bits is None else payload_bits
        self.payload_bits += payload_bits
        self.wire_bytes += on_wire
        if not live:
            return
        # Other messages count together with the tokens that follow, so that both rates are measured
        # between the same moments and agree from the second packet on.
        self._pending_bytes += on_wire
        if tokens:
            stream_s = end_token / TOKEN_RATE
            self._payload.add(payload_bits, now_s, stream_s)
            self._wire.add(8 * self._pending_bytes, now_s, stream_s)
            self._pending_bytes = 0

    def payload_bits_per_s(self, now_s: float) -> float | None:
        """Bits of live tokens a second, or None while unknown."""
        return self._payload.per_second(now_s)

    def wire_bits_per_s(self, now_s: float) -> float | None:
        """Estimated live bits a second on the wire, keepalive included, or None while unknown."""
        rate = self._wire.per_second(now_s)
        return None if rate is None else rate + self._keepalive_bits_per_s
