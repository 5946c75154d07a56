"""Streams through a broker: thin adapters between MQTT topics and the sessions.

aiomqtt is imported where a broker is asked for, and not before.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streaming.stream.hub import Hub
    from streaming.transports.mqtt.publisher import MqttPublisher, MqttSettings

__all__ = ["publishing"]

logger = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def publishing(
    hub: Hub, settings: MqttSettings | None
) -> AsyncIterator[MqttPublisher | None]:
    """Publish ``hub`` meanwhile, where a broker is named. Raises UserError where it fails."""
    if settings is None:
        yield None
        return
    from streaming.transports.mqtt.publisher import MqttPublisher

    async with MqttPublisher(hub, settings) as publisher:
        logger.info("publishing to %s", settings.address)
        yield publisher
