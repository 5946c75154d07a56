"""Where a publisher comes in: a relay's connections to senders that dial it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from websockets.asyncio.connection import Connection as WebSocket

from streaming.errors import TransportError
from streaming.support.guard import AuthTokens
from streaming.support.sparse_log import SparseLog
from streaming.transports.link import Messages
from streaming.transports.websocket.client import SILENCE_S, TIMEOUT_S, Connection
from streaming.transports.websocket.common import CLOSE_TIMEOUT_S, peer
from streaming.wire.messages import Failure, Message, Publish

__all__ = ["Intake"]

logger = logging.getLogger(__name__)

_SEND_S: Final = 10.0
"""Time for the little that is said to a publisher, before it counts as one that does not read."""


@dataclass(frozen=True)
class _Holder:
    """Who publishes: what it calls itself, and its connection."""

    publisher: str
    connection: WebSocket


class Intake:
    """Lets in one publisher at a time, and only with a secret of its own.

    A connection is admitted by :meth:`admit`, held by :meth:`hold` while it stands, and handed by
    :meth:`dial` to whoever reads it, a :class:`streaming.transports.link.Link`. A publisher that
    has vanished without a word is noticed by that reader within ``silence_s`` and the ``timeout_s``
    that a ping has; until then others find its place taken, and it comes back into it at once.
    Needs a running event loop.

    Args:
        auth: the publishers' secrets.

    Raises:
        ValueError: there is no secret.
    """

    def __init__(
        self, auth: AuthTokens, silence_s: float = SILENCE_S, timeout_s: float = TIMEOUT_S
    ) -> None:
        if not auth:
            raise ValueError("whoever takes publishers needs a secret to know them by")
        self._auth = auth
        self._silence_s = silence_s
        self._timeout_s = timeout_s
        self._wrong_secrets = SparseLog(logger)
        self._holder: _Holder | None = None
        self._fresh = asyncio.Event()  # the holder's connection was handed to nobody yet

    def admit(self, connection: WebSocket, publish: Publish) -> Failure | None:
        """Give the place to ``connection``, or say why not."""
        if not self._auth.admit(publish.auth_token):
            self._wrong_secrets.warning("publisher %s has no right publish token", peer(connection))
            return Failure("auth", "This relay needs a publish token, and yours is not right.")
        holder = self._holder
        if holder is not None:
            if not publish.publisher or holder.publisher != publish.publisher:
                logger.debug("publisher %s finds the place taken", peer(connection))
                return Failure("busy", "Somebody else publishes here; try again later.")
            holder.connection.transport.abort()  # its publisher has given it up
        self._holder = _Holder(publish.publisher, connection)
        self._fresh.set()
        logger.info("publisher %s came", peer(connection))
        return None

    async def hold(self, connection: WebSocket) -> None:
        """Wait until an admitted connection is over, and free its place."""
        try:
            await connection.wait_closed()
        finally:
            logger.info("publisher %s left", peer(connection))
            if self._holder is not None and self._holder.connection is connection:
                self._holder = None

    async def dial(self) -> Messages:
        """The next publisher's connection, as soon as there is one."""
        while True:
            await self._fresh.wait()
            self._fresh.clear()
            if self._holder is not None:
                connection = self._holder.connection
                name = f"publisher {peer(connection)}"
                return _FromPublisher(connection, name, self._silence_s, self._timeout_s)


class _FromPublisher(Connection):
    """What a publisher sends; one that does not read cannot hold us up."""

    async def send(self, message: Message) -> None:
        try:
            async with asyncio.timeout(_SEND_S):
                await super().send(message)
        except TimeoutError:
            raise TransportError("The publisher does not read what it is told.") from None

    async def close(self) -> None:
        asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self.abort)
        await super().close()
