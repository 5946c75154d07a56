"""A recording beside the music, or of a stream that nobody decodes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, ParamSpec

from streaming.errors import SinkError
from streaming.files.recorder import Recorder
from streaming.stream.listener_session import Event
from streaming.support.tasks import unless
from streaming.support.worker import Worker
from streaming.transports.link import Link
from streaming.wire.messages import End, Hello

__all__ = ["Recording", "record"]

logger = logging.getLogger(__name__)

P = ParamSpec("P")


class Recording:
    """A recorder on a thread of its own, for a listener that also plays.

    Should it fail (a full disk), a warning says so and the music goes on.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._worker = Worker("record")
        self._failed = False

    async def take(self, event: Event) -> None:
        """Write what happened."""
        await self._try(self.recorder.take, event)

    async def hear(self, hello: Hello, token: int, samples: int) -> None:
        """Record from there on; see :meth:`streaming.files.recorder.Recorder.hear`."""
        await self._try(self.recorder.hear, hello, token, samples)

    async def write(self, event: Event) -> None:
        """Write what happened. Raises SinkError."""
        if not self.recorder.full:
            await self._worker.run(self.recorder.take, event)

    def figures(self, link: Link) -> dict[str, Any]:
        """The statistics at this moment of what ``link`` brings, as far as they need no sound.

        ``samples``, ``bytes``: in the file. All others: see
        :meth:`streaming.receive.listener.Listener.figures`.
        """
        session, now_s = link.session, time.monotonic()
        return {
            "tokens": session.traffic.tokens,
            "lost_tokens": session.lost_tokens,
            "gaps": session.gaps,
            "payload_bits_per_s": session.traffic.payload_bits_per_s(now_s),
            "wire_bits_per_s": session.traffic.wire_bits_per_s(now_s),
            "reconnects": link.reconnects,
            "samples": self.recorder.samples,
            "bytes": self.recorder.bytes,
            "title": session.title,
        }

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


async def record(link: Link, recording: Recording, stop: asyncio.Event) -> None:
    """Record what ``link`` brings until it ends, the recorder is full or ``stop`` is set.

    Raises UserError, after everything that came was written.
    """
    reason: str | None = None
    try:
        if await unless(stop, _follow(link, recording)) is None:
            reason = "the recording was stopped"
    finally:
        await recording.close(reason)


async def _follow(link: Link, recording: Recording) -> bool | None:
    """True after the stream's end, None when enough was recorded."""
    async for event in link:
        await recording.write(event)
        if isinstance(event, End):
            return True
        if recording.recorder.full:
            break
    return None
