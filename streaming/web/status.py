"""What a running sender tells about itself, for `/status.json`, `/healthz` and `/metrics`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from codec.constants import TOKEN_RATE
from streaming.stream.hub import Hub
from streaming.support.guard import Gate
from streaming.support.stats import LoopStall
from streaming.support.timing import Timing

if TYPE_CHECKING:
    from codec.base import DecoderWindow

__all__ = ["Encoding", "SenderStatus", "Term", "latency_terms"]

_SILENCE_S: Final = 30.0
"""After so long without a packet a stream that had begun is not well."""
_LISTENERS_RESERVE_S: Final = 0.5
"""What a listener keeps in reserve unless it is told otherwise."""


@dataclass(frozen=True)
class Term:
    """One part of the time from the source to the ear."""

    what: str
    seconds: float


@dataclass(frozen=True)
class Encoding:
    """How the encoder is doing.

    Attributes:
        factor: computing time per second of sound, if known.
        timing: of its windows, in seconds.
    """

    factor: Callable[[], float | None]
    timing: Timing


@dataclass
class SenderStatus:
    """A sender's parts, and what can be said about them at any moment.

    Attributes:
        encoding: None if nothing is encoded, as in a relay.
        decoder: the window that a listener of this codec decodes with, if it is known.
        clock: the hub's.
    """

    hub: Hub
    gate: Gate
    stall: LoopStall
    encoding: Encoding | None = None
    decoder: DecoderWindow | None = None
    clock: Callable[[], float] = time.monotonic
    started_s: float = field(default_factory=time.time)

    def problem(self) -> str:
        """Why this sender is not well, in a sentence; empty while it is."""
        if self.hub.ended:
            return "The stream has ended."
        silent_s = self.hub.age_s(self.clock())
        patience_s = max(_SILENCE_S, 3 * self.hub.info.packet_tokens / TOKEN_RATE)
        if silent_s is not None and silent_s > patience_s:
            return f"No packet was sent for {silent_s:.0f} s."
        return ""

    def figures(self) -> dict[str, Any]:
        """Everything as JSON: numbers in the units that the names end with; null: not known yet."""
        now_s, hub = self.clock(), self.hub
        lags = sorted(hub.lags_s())
        encoding = self.encoding
        return {
            "stream": {
                "title": hub.title,
                "codec": hub.info.codec,
                "weights": hub.info.weights,
                "name": hub.info.stream,
                "packet_tokens": hub.info.packet_tokens,
                "next_token": hub.next_token,
                "lost_tokens": hub.lost_tokens,
                "rewind_s": hub.history.held_s,
                "ended": hub.ended,
                "problem": self.problem(),
            },
            "listeners": {
                "now": hub.listeners,
                "most": hub.most_listeners,
                "joined": hub.joins,
                "came_back": hub.returns,
                "dropped": dict(hub.drops),
                "connections": self.gate.open,
                "refused_connections": self.gate.refused,
                "lag_median_s": lags[len(lags) // 2] if lags else None,
                "lag_most_s": lags[-1] if lags else None,
            },
            "rates": {
                "payload_bits_per_s": hub.traffic.payload_bits_per_s(now_s),
                "wire_bits_per_s": hub.traffic.wire_bits_per_s(now_s),
            },
            "timings": {
                "encode_rtf": None if encoding is None else encoding.factor(),
                "encode_p99_s": None if encoding is None else encoding.timing.quantile_s(0.99),
                "loop_late_p99_s": self.stall.timing.quantile_s(0.99),
                "loop_late_most_s": self.stall.longest_s,
                "up_s": time.time() - self.started_s,
            },
            "latency": [
                {"what": term.what, "seconds": term.seconds}
                for term in latency_terms(hub.info.packet_tokens, hub.delay_s, self.decoder)
            ],
        }


def latency_terms(
    packet_tokens: int, delay_s: float, decoder: DecoderWindow | None
) -> Sequence[Term]:
    """From a source sample to the ear, for the sample that waits longest; the network comes on top.

    Args:
        delay_s: of the last sample of a packet, from the source to its release.
    """
    terms = [
        Term("a packet fills", packet_tokens / TOKEN_RATE),
        Term("the encoder looks ahead and computes", delay_s),
    ]
    if decoder is not None:
        hop, lookahead = decoder.hop, decoder.lookahead
        ends = (packet_tokens * (count + 1) for count in range(hop))
        waits = [end - (end - lookahead) // hop * hop for end in ends]
        terms.append(Term("a listener's decoder looks ahead", max(waits) / TOKEN_RATE))
    terms.append(Term("a listener's reserve against late packets", _LISTENERS_RESERVE_S))
    return terms
