"""The sender's side: a hub's stream to a one-way link, whether anybody hears it or not."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

from streaming.errors import SettingsError, TransportError
from streaming.stream.hub import Hub
from streaming.stream.subscription import Subscription
from streaming.support.tasks import cancel
from streaming.transports.oneway.hello import Fec
from streaming.transports.oneway.line import LineQueue
from streaming.transports.oneway.ports import Address, Port
from streaming.transports.oneway.sender import Framer, bit_rate
from streaming.transports.reconnecting import Backoff, Reconnecting
from streaming.wire.messages import Gap, Hello, Join, Message, Title, Tokens

__all__ = ["OneWay", "OneWayPublisher"]

logger = logging.getLogger(__name__)

_RETRY_S: Final = 1.0
_CLOSE_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True)
class OneWay:
    """Send over a one-way link: an :class:`streaming.transports.outlet.Outlet`.

    Attributes:
        bits_per_s: never faster than so; None: as fast as the link carries.
        key: of the frames' tags; empty: they have none.
    """

    address: Address
    fec: Fec | None = None
    bits_per_s: float | None = None
    key: bytes = field(default=b"", repr=False)

    def __call__(self, hub: Hub) -> OneWayPublisher:
        """What sends ``hub``. Raises SettingsError if the link cannot carry the stream."""
        return OneWayPublisher(hub, self)

    @property
    def line_bits_per_s(self) -> float | None:
        """How fast the line is."""
        rates = [r for r in (self.bits_per_s, self.address.bits_per_s) if r is not None]
        return min(rates, default=None)


class OneWayPublisher(Reconnecting):
    """Sends a hub's stream within ``async with``, from its live edge on.

    A device that is lost is waited for; what it misses is dropped.

    Attributes:
        bits_per_s: what the stream takes with all that goes with it.
        line: what waits to be sent.
        losses: how often the link was lost.

    Raises:
        TransportError: on entering, the link cannot be opened.
        SettingsError: the link cannot carry the stream.
    """

    def __init__(
        self, hub: Hub, settings: OneWay, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(Backoff(_RETRY_S, _RETRY_S), clock)
        self._hub = hub
        self._settings = settings
        line = settings.line_bits_per_s
        rate = bit_rate(hub.info.packet_tokens, settings.fec, settings.key)
        self.bits_per_s = rate
        self._framer = Framer(hub.info, settings.fec, settings.key)
        if line is not None and line < rate:
            raise SettingsError(
                f"The stream needs {rate:.0f} bit/s and the line carries {line:.0f}; choose longer "
                "packets (--packet-tokens), less --fec or a faster line."
            )
        self.line = LineQueue(line)
        self.losses = 0
        self._wake = asyncio.Event()
        self._queued = asyncio.Event()
        self._over = False
        self._tasks: list[asyncio.Task[None]] = []
        self._began_s = clock()

    async def __aenter__(self) -> OneWayPublisher:
        port = await self._open()
        logger.info("sending to %s, %.0f bit/s", self._settings.address, self.bits_per_s)
        self._began_s = self._clock()
        pulling = self._pull(self._join())
        self._tasks = [asyncio.create_task(pulling), asyncio.create_task(self._send(port))]
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over = True
        self._wake.set()
        await cancel(*self._tasks, within_s=_CLOSE_TIMEOUT_S)
        self._report()
        for task in self._tasks:
            if not task.cancelled():
                task.result()

    @property
    def url(self) -> str:
        """The link."""
        return str(self._settings.address)

    def figures(self) -> dict[str, Any]:
        """See :class:`streaming.transports.outlet.Running`."""
        return {
            "kind": "oneway",
            "bits_per_s": self.bits_per_s,
            "losses": self.losses,
            "dropped_frames": self.line.dropped,
        }

    async def failed(self) -> None:
        """It waits for a link that was lost."""

    def _join(self) -> Subscription:
        return self._hub.join(Join(history=0), self._clock(), self._wake.set, outlet=True)

    async def _pull(self, subscription: Subscription) -> None:
        """From the hub to the line, until the stream is over."""
        try:
            while True:
                await self._pull_stream(subscription)
                if self._over or self._hub.ended:
                    return
                # We were too slow, or another stream has taken the place of this one.
                self._framer = Framer(self._hub.info, self._settings.fec, self._settings.key)
                self._hub.leave(subscription)
                subscription = self._join()
        except SettingsError as error:
            logger.error("nothing more goes to %s: %s", self._settings.address, error)
        finally:
            self._hub.leave(subscription)
            self._over = True
            self._queued.set()

    async def _pull_stream(self, subscription: Subscription) -> None:
        while True:
            self._wake.clear()
            while (message := subscription.take()) is not None:
                for frame in self._frames(message):
                    self.line.put(frame)
            self._queued.set()
            if subscription.closed or self._over:
                if self._hub.ended and not self._hub.away:
                    for frame in self._framer.end():
                        self.line.put(frame)
                return
            await self._wake.wait()

    def _frames(self, message: Message) -> list[bytes]:
        if isinstance(message, Tokens):
            return self._framer.tokens(message, self._hub.delay_s)
        if isinstance(message, Hello):
            self._framer.title(self._hub.title or message.title)
        elif isinstance(message, Title):
            self._framer.title(message.title)
        elif not isinstance(message, Gap):  # which the next packet tells by its index
            logger.debug("not sent: %s", message.type)
        return []

    async def _open(self) -> Port:
        port = await self._settings.address.open_writer()
        self._connected()
        return port

    async def _send(self, port: Port | None) -> None:
        """From the line's queue to the link, at the line's pace."""
        async for _ in self._attempts():
            try:
                if port is None:
                    port = await self._open()
                    logger.info("the link %s is back", self._settings.address)
                await self._send_all(port)
                return
            except TransportError as error:
                if self.away:
                    logger.debug("not yet: %s", error)
                else:
                    logger.warning("waiting for the link: %s", error)
                    self.losses += 1
            finally:
                if port is not None:
                    port.close()
                    port = None

    async def _send_all(self, port: Port) -> None:
        while True:
            self._queued.clear()
            frame = self.line.take(self._clock())
            if frame is not None:
                await port.write(frame)
                continue
            wait_s = self.line.wait_s(self._clock())
            if wait_s is None and self._over:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._queued.wait()

    def _report(self) -> None:
        took_s = max(1e-3, self._clock() - self._began_s)
        logger.info(
            "to %s: %d bytes, %.0f bit/s%s",
            self._settings.address,
            self.line.sent_bytes,
            8 * self.line.sent_bytes / took_s,
            f", {self.line.dropped} frames dropped" if self.line.dropped else "",
        )
