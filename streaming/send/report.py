"""What a running sender says of itself: statistics, status line, summary."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Protocol

from codec.constants import SAMPLE_RATE, SAMPLES_PER_TOKEN
from streaming.stream.hub import Hub
from streaming.support.stats import LoopStall, StatsWriter
from streaming.support.status_line import StatusLine, format_bit_rate

if TYPE_CHECKING:
    from streaming.transports.mqtt.publisher import MqttPublisher
    from streaming.transports.push.pusher import Pusher

__all__ = ["Feed", "ServiceReport"]

logger = logging.getLogger(__name__)


class Feed(Protocol):
    """What puts tokens into the hub, as far as the reports on it are concerned."""

    @property
    def source_samples(self) -> int:
        """Samples at 48 kHz that have come from the source."""

    @property
    def encode_rtf(self) -> float | None:
        """Computing time per second of sound; None where nothing is encoded."""

    @property
    def reconnects(self) -> int:
        """How often the source was lost and found again."""


class ServiceReport:
    """What the statistics, the status line and the summary say, from the parts' counters."""

    def __init__(
        self,
        hub: Hub,
        feed: Feed,
        stall: LoopStall,
        stats: StatsWriter,
        status: StatusLine,
        publisher: MqttPublisher | None,
        pusher: Pusher | None,
    ) -> None:
        self._publisher = publisher
        self._pusher = pusher
        self._hub = hub
        self._feed = feed
        self._stall = stall
        self._stats = stats
        self._status = status

    async def run(self) -> None:
        """Once a second until cancelled."""
        while True:
            await asyncio.sleep(1.0)
            self._stats.write(self._values())
            self._status.update(self._hub.title, self._parts())

    def finish(self) -> None:
        """The last line of the statistics, and the summary."""
        values = self._values()
        self._stats.write(values, final=True)
        self._status.close()
        seconds = self._feed.source_samples / SAMPLE_RATE
        logger.info(
            "sent %.1f s of sound in %d tokens; %s", seconds, values["tokens"], self._summary()
        )

    def _values(self) -> dict[str, Any]:
        now_s = time.monotonic()
        traffic = self._hub.traffic
        published = None if self._publisher is None else self._publisher.traffic
        return {
            "tokens": self._hub.next_token,
            "lost_tokens": self._hub.lost_tokens,
            "samples": self._hub.next_token * SAMPLES_PER_TOKEN,
            "payload_bits_per_s": traffic.payload_bits_per_s(now_s),
            "wire_bits_per_s": traffic.wire_bits_per_s(now_s),
            "encode_rtf": self._feed.encode_rtf,
            "reconnects": self._feed.reconnects,
            "listeners": self._hub.listeners,
            "dropped_listeners": self._hub.dropped_listeners,
            "rewind_s": self._hub.history.held_s,
            "source_samples": self._feed.source_samples,
            "delay_s": self._hub.delay_s,
            "mqtt_bits_per_s": published and published.wire_bits_per_s(now_s),
            "max_loop_stall_ms": self._stall.longest_ms,
            "title": self._hub.title,
        }

    def _parts(self) -> list[str]:
        now_s = time.monotonic()
        listeners = self._hub.listeners
        traffic = self._hub.traffic
        parts = [
            "1 listener" if listeners == 1 else f"{listeners} listeners",
            f"payload {format_bit_rate(traffic.payload_bits_per_s(now_s))}",
            f"wire {format_bit_rate(traffic.wire_bits_per_s(now_s))}",
        ]
        if self._feed.encode_rtf is not None:
            parts.append(f"encode RTF {self._feed.encode_rtf:.3f}")
        if self._feed.reconnects:
            parts.append(f"reconnects {self._feed.reconnects}")
        if self._publisher is not None:
            published = self._publisher.traffic.wire_bits_per_s(now_s)
            away = " (away)" if self._publisher.away else ""
            parts.append(f"to the broker {format_bit_rate(published)}{away}")
        if self._pusher is not None:
            back = f", reconnects {self._pusher.reconnects}" if self._pusher.reconnects else ""
            parts.append(f"pushed{' (away)' if self._pusher.away else ''}{back}")
        return parts

    def _summary(self) -> str:
        return ", ".join(
            [*self._parts()[1:], f"listeners at once: at most {self._hub.most_listeners}"]
        )
