"""Streams over links that carry bytes one way and nothing else: serial lines, radio, UDP.

The layout of frames is in docs/radio.md. What is said on a link is decided by plain objects
(``sender``, ``receiver``); ``publisher`` and ``connection`` move it between hub or session and a
port, as the adapters of WebSocket and MQTT do.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streaming.stream.hub import Hub
    from streaming.transports.oneway.publisher import LeanPublisher, LeanSettings

__all__ = ["sending"]

logger = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def sending(hub: Hub, settings: LeanSettings | None) -> AsyncIterator[LeanPublisher | None]:
    """Send ``hub`` over a link meanwhile, where one is named. Raises UserError where it fails."""
    if settings is None:
        yield None
        return
    from streaming.transports.oneway.publisher import LeanPublisher

    async with LeanPublisher(hub, settings) as publisher:
        logger.info("sending to %s, %.0f bit/s", settings.address, publisher.bits_per_s)
        yield publisher
