"""A sender's figures as Prometheus reads them; needs the package prometheus-client.

Nothing is counted here: the parts keep count of themselves, and every scrape reads them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from codec.constants import TOKEN_RATE
from streaming.support.timing import Timing
from streaming.web.status import SenderStatus

__all__ = ["Exposition"]

_PREFIX: Final = "music350_"
_QUANTILES: Final = (0.5, 0.9, 0.99, 1.0)


class Exposition(Collector):
    """The metrics of one sender, with those of its process where the system tells them."""

    def __init__(self, status: SenderStatus) -> None:
        self._status = status
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """No names in advance: they do not clash with those of the process."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every metric as of now."""
        yield from self._stream()
        yield from self._listeners()
        yield from self._timings()

    def _stream(self) -> Iterator[Metric]:
        hub, now_s = self._status.hub, self._status.clock()
        info = InfoMetricFamily(f"{_PREFIX}stream", "What is sent.")
        info.add_metric(
            [], {"codec": hub.info.codec, "weights": hub.info.weights, "stream": hub.info.stream}
        )
        yield info
        well = not self._status.problem()
        yield _gauge("on_air", "1 while the stream is on and packets leave.", float(well))
        yield _counter("sent_tokens", "Tokens released, 25 a second.", hub.traffic.tokens)
        yield _counter(
            "lost_tokens", "Tokens left out because the source lost them.", hub.lost_tokens
        )
        payload = hub.traffic.payload_bits_per_s(now_s)
        yield _gauge("payload_bits_per_second", "The 14-bit tokens and nothing else.", payload)
        wire = hub.traffic.wire_bits_per_s(now_s)
        yield _gauge("wire_bits_per_second", "To one listener, all headers estimated.", wire)
        yield _gauge("packet_seconds", "Sound in a packet.", hub.info.packet_tokens / TOKEN_RATE)
        yield _gauge("delay_seconds", "From a packet's last sample to its release.", hub.delay_s)
        yield _gauge("packet_age_seconds", "Since the last packet left.", hub.age_s(now_s))
        yield _gauge("rewind_seconds", "Of the stream that can be heard again.", hub.history.held_s)

    def _listeners(self) -> Iterator[Metric]:
        hub, gate = self._status.hub, self._status.gate
        yield _gauge("listeners", "Joined now.", hub.listeners)
        yield _gauge("listeners_most", "Joined at once so far.", hub.most_listeners)
        yield _counter("joins", "Listeners that joined, those that came back included.", hub.joins)
        yield _counter("reconnects", "Listeners that came back for what they missed.", hub.returns)
        drops = CounterMetricFamily(
            f"{_PREFIX}drops", "Listeners sent away, by reason.", labels=["reason"]
        )
        for reason in sorted({"auth", "lag", "protocol", "timeout", *hub.drops}):
            drops.add_metric([reason], hub.drops[reason])
        yield drops
        yield _gauge("connections", "Open now, joined or not.", gate.open)
        yield _counter("refused_connections", "Cut since there were too many.", gate.refused)
        lags = sorted(hub.lags_s())
        lag = GaugeMetricFamily(
            f"{_PREFIX}listener_lag_seconds",
            "How far listeners have fallen behind where they were best; 1 is the worst of them.",
            labels=["quantile"],
        )
        for quantile in _QUANTILES:
            place = max(0, math.ceil(quantile * len(lags)) - 1)
            lag.add_metric([f"{quantile:g}"], lags[place] if lags else 0.0)
        yield lag

    def _timings(self) -> Iterator[Metric]:
        stall = self._status.stall.timing
        yield _histogram("loop_late_seconds", "How late the event loop woke a sleeper.", stall)
        encoding = self._status.encoding
        if encoding is not None:
            what = "Computing time per second of sound."
            yield _gauge("encode_real_time_factor", what, encoding.factor())
            yield _histogram("encode_seconds", "Computing time of a window.", encoding.timing)


def _gauge(name: str, what: str, value: float | None) -> Metric:
    return GaugeMetricFamily(f"{_PREFIX}{name}", what, math.nan if value is None else value)


def _counter(name: str, what: str, value: float) -> Metric:
    return CounterMetricFamily(f"{_PREFIX}{name}", what, value)


def _histogram(name: str, what: str, timing: Timing) -> Metric:
    bounds = [*(f"{bound:g}" for bound in timing.bounds_s), "+Inf"]
    buckets = list(zip(bounds, map(float, timing.cumulative()), strict=True))
    return HistogramMetricFamily(f"{_PREFIX}{name}", what, buckets, timing.total_s)
