"""A stream on the air: what feeds it, where it goes, and how it is doing."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from codec.constants import SAMPLES_PER_TOKEN
from streaming.errors import SettingsError
from streaming.send.settings import ServiceSettings
from streaming.stream.hub import Hub
from streaming.support.stats import LoopStall
from streaming.support.tasks import beside, cancel, unless
from streaming.transports.outlet import Outlet, Running
from streaming.transports.websocket.outlet import WebSocket
from streaming.transports.websocket.server import WebSocketServer
from streaming.web.site import open_site
from streaming.web.status import Encoding

if TYPE_CHECKING:
    from codec.base import Codec, DecoderWindow
    from streaming.audio.sources import Source
    from streaming.send.forwarding import Upstream
    from streaming.send.replay import MucPlaylist

__all__ = ["Broadcast", "Feed"]


class Feed(Protocol):
    """What puts tokens into the hub, as far as the figures are concerned."""

    @property
    def source_samples(self) -> int:
        """Samples at 48 kHz that have come from the source."""

    @property
    def encode_rtf(self) -> float | None:
        """Computing time per second of sound; None if nothing is encoded."""

    @property
    def reconnects(self) -> int:
        """How often the source was lost and found again."""


class Broadcast:
    """Sends a stream to its outlets within ``async with``, until it ends or is left.

    ::

        async with Broadcast(source, codec.load("nano"), [WebSocket(port=0)]) as on_air:
            print(on_air.urls)
            await on_air.finished()

    Args:
        source: sound to encode; or tokens that there are already, as a
            :class:`streaming.MucPlaylist`, a function that opens one, or another sender as an
            :class:`streaming.Upstream`.
        codec: encodes the sound; or a function that loads it, called once, off the event loop.
        outlets: where the stream goes.
        settings: of the stream.
        stop: ends the stream when it is set; it is set on leaving before the stream's end.

    Entering it returns as soon as the stream can be heard, or ``stop`` is set. Raises UserError or
    CodecError with one sentence, on entering why that fails, and later why the stream ended.
    """

    def __init__(
        self,
        source: Source | MucPlaylist | Callable[[], MucPlaylist] | Upstream,
        codec: Codec | Callable[[], Codec] | None = None,
        outlets: Sequence[Outlet] = (),
        settings: ServiceSettings | None = None,
        *,
        stop: asyncio.Event | None = None,
    ) -> None:
        self.settings = settings or ServiceSettings()
        self.stop = stop or asyncio.Event()
        self._serve = _service(source, codec)
        self._outlets = outlets
        self._running: list[Running] = []
        self._hub: Hub | None = None
        self._feed: Feed | None = None
        self._stall = LoopStall()
        self._on_air = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._last: dict[str, Any] = {}

    @property
    def urls(self) -> list[str]:
        """Where the stream can be had, in the order of the outlets."""
        return [running.url for running in self._running]

    async def __aenter__(self) -> Broadcast:
        self._task = asyncio.create_task(self._serve(self))
        waiting = asyncio.create_task(self._on_air.wait())
        try:
            await asyncio.wait({self._task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await cancel(self._task)
            raise
        finally:
            waiting.cancel()
        if self._task.done():
            self._task.result()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._task is not None
        if not self._task.done():
            self.stop.set()
        (result,) = await asyncio.gather(self._task, return_exceptions=True)
        if exc_type is None and isinstance(result, Exception):
            raise result

    async def finished(self) -> None:
        """Wait until the stream is over and everybody was told. Raises what ended it too early."""
        assert self._task is not None
        await asyncio.shield(self._task)

    def figures(self) -> dict[str, Any]:
        """How the stream is doing; the last figures stay. Empty if it never was on the air."""
        return self._last or self._figures()

    def _figures(self) -> dict[str, Any]:
        hub, feed, now_s = self._hub, self._feed, time.monotonic()
        if hub is None or feed is None:
            return {}
        outlets = [{"url": one.url, **one.figures()} for one in self._running]
        mqtt = (one["bits_per_s"] for one in outlets if one["kind"] == "mqtt")
        return {
            "tokens": hub.next_token,
            "lost_tokens": hub.lost_tokens,
            "samples": hub.next_token * SAMPLES_PER_TOKEN,
            "payload_bits_per_s": hub.traffic.payload_bits_per_s(now_s),
            "wire_bits_per_s": hub.traffic.wire_bits_per_s(now_s),
            "encode_rtf": feed.encode_rtf,
            "reconnects": feed.reconnects,
            "listeners": hub.listeners,
            "dropped_listeners": hub.dropped_listeners,
            "rewind_s": hub.history.held_s,
            "source_samples": feed.source_samples,
            "delay_s": hub.delay_s,
            "mqtt_bits_per_s": next(mqtt, None),
            "max_loop_stall_ms": self._stall.longest_ms,
            "title": hub.title,
            "most_listeners": hub.most_listeners,
            "outlets": outlets,
        }

    async def carry(
        self,
        hub: Hub,
        feed: Feed,
        work: Callable[[], Awaitable[None]],
        *,
        outlives: bool,
        encoding: Encoding | None = None,
        decoder: DecoderWindow | None = None,
    ) -> None:
        """Send ``hub`` to the outlets while ``work()`` feeds it or until it is to stop.

        Raises what ``work`` or an outlet raises.

        Args:
            outlives: whether the stream goes on when this program is stopped.
            encoding, decoder: see :func:`streaming.web.site.open_site`.
        """
        async with contextlib.AsyncExitStack() as stack:
            for outlet in self._outlets:
                running = await stack.enter_async_context(outlet(hub))
                self._running.append(running)
                if isinstance(outlet, WebSocket) and isinstance(running, WebSocketServer):
                    open_site(
                        running,
                        hub,
                        self._stall,
                        outlet.auth_tokens,
                        encoding=encoding,
                        decoder=decoder,
                        player=outlet.web_player,
                    )
            self._hub, self._feed = hub, feed
            await stack.enter_async_context(beside(self._stall.watch()))
            self._on_air.set()
            try:
                await unless(self.stop, self._alongside(work()))
            finally:
                if outlives:  # unless the stream has ended: then this comes too late
                    why = "It was stopped, and goes on here when it is back."
                    hub.go_away(why, time.monotonic())
                else:
                    hub.end("the sender was stopped", time.monotonic())
                self._last = self._figures()

    async def _alongside(self, work: Awaitable[None]) -> None:
        """Wait for ``work``, unless an outlet is over for good first."""
        working = asyncio.ensure_future(work)
        tasks = {working, *(asyncio.ensure_future(one.failed()) for one in self._running)}
        pending = tasks
        try:
            while not working.done():
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            await cancel(*tasks)


def _service(source: Any, codec: Any) -> Callable[[Broadcast], Coroutine[Any, Any, None]]:
    """What feeds a hub from ``source`` and has a broadcast carry it."""
    # Here and not above, since each brings along what the others do not need.
    from streaming.send.forwarding import Upstream, serve_files, serve_upstream
    from streaming.send.replay import MucPlaylist
    from streaming.send.service import serve

    if isinstance(source, Upstream):
        return lambda on_air: serve_upstream(source, on_air)
    if isinstance(source, MucPlaylist):
        return lambda on_air: serve_files(lambda: source, on_air)
    if callable(source):
        return lambda on_air: serve_files(source, on_air)
    if codec is None:
        raise SettingsError("Sound has to be encoded: give a codec, such as codec.load('nano').")
    return lambda on_air: serve(source, codec if callable(codec) else lambda: codec, on_air)
