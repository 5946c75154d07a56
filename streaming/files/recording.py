"""A listener that records and does not decode, and what it tells about itself."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final, ParamSpec

from codec.constants import SAMPLE_RATE
from streaming.errors import SinkError
from streaming.files.recorder import Recorder
from streaming.stream.listener_session import Happening
from streaming.support.signals import unless
from streaming.support.stats import LoopStall, StatsWriter
from streaming.support.status_line import StatusLine, format_bit_rate, format_seconds, printable
from streaming.support.worker import Worker
from streaming.transports.link import Link
from streaming.wire.messages import End, Hello

__all__ = ["Recording", "record"]

logger = logging.getLogger(__name__)

_TICK_S: Final = 0.25
_STATS_INTERVAL_S: Final = 1.0

P = ParamSpec("P")


class Recording:
    """A recorder on a thread of its own, for a listener that also plays.

    Should it fail (a full disk), a warning says so and the music goes on.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._worker = Worker("record")
        self._failed = False

    async def take(self, happening: Happening) -> None:
        """Write what happened."""
        await self._try(self.recorder.take, happening)

    async def hear(self, hello: Hello, token: int, samples: int) -> None:
        """Record from there on; see :meth:`streaming.files.recorder.Recorder.hear`."""
        await self._try(self.recorder.hear, hello, token, samples)

    async def write(self, happening: Happening) -> None:
        """Write what happened. Raises SinkError."""
        if not self.recorder.full:
            await self._worker.run(self.recorder.take, happening)

    async def close(self, reason: str | None = None) -> None:
        """Complete the file; reason: why the music ends here, where it does."""
        await self._worker.run(self.recorder.close, None if self._failed else reason)
        await self._worker.close()

    async def _try(self, call: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        if self._failed or self.recorder.full:
            return
        try:
            await self._worker.run(call, *args, **kwargs)
        except SinkError as error:
            self._failed = True
            logger.warning("no more is recorded: %s", error)


async def record(
    link: Link,
    recording: Recording,
    stats: StatsWriter,
    status: StatusLine,
    stop: asyncio.Event,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Record what ``link`` brings until it ends, the recorder is full or ``stop`` is set.

    Raises UserError, after everything that came was written.
    """
    report = _Report(link, recording.recorder, clock)
    reporting = asyncio.ensure_future(report.run(status, stats))
    reason: str | None = None
    try:
        if await unless(stop, _follow(link, recording)) is None:
            reason = "the recording was stopped"
    finally:
        await recording.close(reason)
        await link.close()
        reporting.cancel()
        await asyncio.gather(reporting, return_exceptions=True)
        status.close()
        logger.info("%s", report.summary())
        stats.write(report.figures(), final=True)


async def _follow(link: Link, recording: Recording) -> bool | None:
    """True after the stream's end, None when enough was recorded."""
    async for happening in link:
        await recording.write(happening)
        if isinstance(happening, End):
            return True
        if recording.recorder.full:
            break
    return None


class _Report:
    """Figures of a recording while it runs and afterwards."""

    def __init__(self, link: Link, recorder: Recorder, clock: Callable[[], float]) -> None:
        self._link = link
        self._recorder = recorder
        self._clock = clock
        self._stall = LoopStall()

    def figures(self) -> dict[str, Any]:
        """The statistics at this moment, as far as they have a meaning without sound."""
        session, now_s = self._link.session, self._clock()
        return {
            "tokens": session.traffic.tokens,
            "lost_tokens": session.lost_tokens,
            "gaps": session.gaps,
            "payload_bits_per_s": session.traffic.payload_bits_per_s(now_s),
            "wire_bits_per_s": session.traffic.wire_bits_per_s(now_s),
            "reconnects": self._link.reconnects,
            "samples": self._recorder.samples,
            "bytes": self._recorder.bytes,
            "title": session.title,
            "max_loop_stall_ms": self._stall.longest_ms,
        }

    def parts(self) -> list[str]:
        """For a status line, the most important first."""
        figures = self.figures()
        parts = [
            f"recorded {format_seconds(figures['samples'] / SAMPLE_RATE)}",
            f"{figures['bytes']} bytes",
            format_bit_rate(figures["payload_bits_per_s"]),
            f"wire {format_bit_rate(figures['wire_bits_per_s'])}",
        ]
        if self._link.away:
            parts.insert(0, "no connection")
        if figures["lost_tokens"]:
            parts.append(f"lost tokens {figures['lost_tokens']}")
        if figures["reconnects"]:
            parts.append(f"reconnects {figures['reconnects']}")
        return parts

    def summary(self) -> str:
        """One line about the whole recording."""
        return f"{', '.join(self.parts())}, in {printable(str(self._recorder.path), 300)}"

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
                    status.update(self._link.session.title, self.parts())
        finally:
            watch.cancel()
