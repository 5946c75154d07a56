"""The outlet for listeners that connect to us."""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streaming.support.forwarded import Proxies
from streaming.support.guard import AuthTokens, Limits, fit_to_files
from streaming.transports.websocket.guarded import warn_of_strangers
from streaming.transports.websocket.server import WebSocketServer

if TYPE_CHECKING:
    from streaming.stream.hub import Hub
    from streaming.transports.push.intake import Intake

__all__ = ["WebSocket"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WebSocket:
    """Listen for listeners; see :class:`streaming.transports.websocket.server.WebSocketServer`.

    Attributes:
        port: 0 for any free one.
        auth_tokens: of those who may listen; none: everybody may.
        web_player: from which server pages load what it takes to play: ``here``, an address, or
            ``off``.
        intake: takes publishers.
        server: one that listens already, and goes on when this stream is over.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    auth_tokens: Sequence[str] = field(default=(), repr=False)
    limits: Limits = field(default_factory=Limits)
    origins: Sequence[str] = ()
    proxies: Proxies = field(default_factory=Proxies)
    tls: ssl.SSLContext | None = None
    web_player: str = "here"
    intake: Intake | None = None
    server: WebSocketServer | None = None

    @contextlib.asynccontextmanager
    async def __call__(self, hub: Hub) -> AsyncIterator[WebSocketServer]:
        """Serve ``hub`` within ``async with``. Raises TransportError if it cannot listen there."""
        if self.server is not None:
            self.server.present(hub)
            try:
                yield self.server
            finally:
                await self.server.drained()
                self.server.present(None)
            return
        self.warn_of_strangers()
        limits, too_many = fit_to_files(self.limits)
        if too_many:
            logger.warning("%s", too_many)
        async with WebSocketServer(
            hub,
            self.host,
            self.port,
            auth=AuthTokens(self.auth_tokens),
            limits=limits,
            origins=self.origins,
            proxies=self.proxies,
            tls=self.tls,
            intake=self.intake,
        ) as server:
            logger.info("listening on %s", server.url)
            try:
                yield server
            finally:
                await server.drained()

    def warn_of_strangers(self) -> None:
        """Say what is open to whoever can reach the address, or the proxy before it."""
        warn_of_strangers(
            self.host,
            self.proxies,
            self.tls,
            keep_out="" if self.auth_tokens else "--auth-token-file",
            secretive=bool(self.auth_tokens) or self.intake is not None,
        )
