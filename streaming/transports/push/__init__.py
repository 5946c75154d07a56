"""Streams that a sender pushes to a relay, instead of the relay fetching them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streaming.stream.hub import Hub
    from streaming.transports.push.pusher import Pusher, PushSettings

__all__ = ["pushing"]


@contextlib.asynccontextmanager
async def pushing(hub: Hub, settings: PushSettings | None) -> AsyncIterator[Pusher | None]:
    """Push ``hub`` meanwhile, where a relay is named."""
    if settings is None:
        yield None
        return
    from streaming.transports.push.pusher import Pusher

    async with Pusher(hub, settings) as pusher:
        yield pusher
