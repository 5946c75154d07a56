"""What a listener tells about itself: statistics, status line, summary."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from codec.constants import SAMPLE_RATE
from streaming.receive.listener import Listener
from streaming.support.stats import LoopStall, StatsWriter
from streaming.support.status_line import StatusLine, format_bit_rate, format_seconds, printable

__all__ = ["ListenerReport", "process_age_s"]

_TICK_S: Final = 0.25
_STATS_INTERVAL_S: Final = 1.0


def process_age_s() -> float | None:
    """Seconds since this process was started, imports and all; None where the system won't say."""
    try:
        stat = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace")
        ticks = int(stat.rpartition(")")[2].split()[19])  # field 22; the name may hold spaces
        started_s = ticks / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started_s
    except (OSError, ValueError, IndexError, AttributeError):
        return None


class ListenerReport:
    """Figures of a listener while it runs and afterwards.

    Args:
        listener: whom it is about.
        connect_at_s: when connecting began, on ``clock``.
        connected_s: seconds from the start of the program until the connection stood, if known.
        clock: monotonic seconds, the listener's.
    """

    def __init__(
        self,
        listener: Listener,
        connect_at_s: float,
        connected_s: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listener = listener
        self._connect_at_s = connect_at_s
        self._connected_s = connected_s
        self._clock = clock
        self._stall = LoopStall()

    def figures(self) -> dict[str, Any]:
        """The statistics at this moment; None where something is not known (yet).

        ``tokens``: received. ``lost_tokens``: replaced by others. ``payload_bits_per_s`` and
        ``wire_bits_per_s``: over the last minute, without the history sent on joining (see
        :mod:`streaming.support.stats`). ``first_audio_s``: from the start of connecting to the
        first sample handed to a sink. ``latency_s``: from the source to what is heard now, or was
        written to a file last. ``underruns``: of the sound card. ``speed``: at which the sound card
        plays. ``reserve_s``: sound that was left when packets came, smoothed; ``target_s``: how
        much there should be; ``drift_ppm``: by how much the sender's clock is faster.
        ``reconnects``: how often the connection was made again. ``clock_s``: Unix time at which
        what is heard now played at the source, where the sender tells. ``gaps``: runs of lost
        tokens. ``decode_rtf``: computing time per second of sound. ``samples``: handed to the
        sinks. ``buffer_s``: received and not yet heard. ``position_s``: where in the stream the
        next sample lies. ``title``: of what is heard now. ``connected_s``: from the start of the
        program to the connection. ``max_loop_stall_ms``: the longest time that the event loop was
        held up.
        """
        listener, now_s = self._listener, self._clock()
        session, first_at_s = listener.session, listener.output.first_at_s
        return {
            "tokens": session.traffic.tokens,
            "lost_tokens": session.lost_tokens,
            "gaps": session.gaps,
            "payload_bits_per_s": session.traffic.payload_bits_per_s(now_s),
            "wire_bits_per_s": session.traffic.wire_bits_per_s(now_s),
            "first_audio_s": None if first_at_s is None else first_at_s - self._connect_at_s,
            "latency_s": listener.latency_s,
            "underruns": listener.output.underruns,
            "speed": listener.output.speed,
            "reserve_s": listener.jitter.reserve_s,
            "target_s": listener.jitter.target_s,
            "drift_ppm": 1e6 * listener.jitter.drift,
            "reconnects": listener.reconnects,
            "clock_s": listener.clock_s,
            "decode_rtf": None if listener.decoder is None else listener.decoder.rtf.value,
            "samples": listener.samples,
            "buffer_s": listener.buffered_s,
            "position_s": listener.position_s,
            "title": listener.title,
            "connected_s": self._connected_s,
            "max_loop_stall_ms": self._stall.longest_ms,
        }

    def status(self) -> tuple[str, list[str]]:
        """Title and parts for a status line, the most important first."""
        listener, figures = self._listener, self.figures()
        rtf = figures["decode_rtf"]
        parts = [
            f"buffer {format_seconds(figures['buffer_s'])}",
            f"{format_bit_rate(figures['payload_bits_per_s'])}",
            f"wire {format_bit_rate(figures['wire_bits_per_s'])}",
            f"underruns {figures['underruns']}",
            f"real-time factor {'-' if rtf is None else f'{rtf:.2f}'}",
            f"latency {format_seconds(figures['latency_s'])}",
        ]
        if figures["reconnects"]:
            parts.insert(1, f"reconnects {figures['reconnects']}")
        if listener.link is not None and listener.link.away:
            parts.insert(0, "no connection")
        if figures["lost_tokens"]:
            parts.insert(1, f"lost tokens {figures['lost_tokens']}")
        return figures["title"], parts

    def summary(self) -> str:
        """One line about the whole session."""
        figures = self.figures()
        _, parts = self.status()
        played = format_seconds(figures["samples"] / SAMPLE_RATE)
        lost = figures["lost_tokens"]
        received = f"{figures['tokens']} tokens received" + (f", {lost} lost" if lost else "")
        ended = printable(self._listener.end_reason or "")
        return ", ".join(
            [f"{played} of sound", received, *parts[1:]] + ([f"ended: {ended}"] if ended else [])
        )

    async def run(self, status: StatusLine, stats: StatsWriter) -> None:
        """Show and write until cancelled."""
        watch = asyncio.create_task(self._stall.watch())
        written_s = self._clock()
        try:
            while True:
                await asyncio.sleep(_TICK_S)
                if self._clock() - written_s >= _STATS_INTERVAL_S:
                    written_s += _STATS_INTERVAL_S
                    stats.write(self.figures())
                if status.due():
                    status.update(*self.status())
        finally:
            watch.cancel()
