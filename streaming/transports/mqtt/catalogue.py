"""Which streams there are under a topic."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import Final

from streaming.errors import ProtocolError
from streaming.transports.mqtt.address import MqttAddress
from streaming.transports.mqtt.broker import Broker, Received
from streaming.transports.mqtt.view import OFFLINE, read_payload
from streaming.wire.messages import Hello, clean_text

__all__ = ["Listing", "list_streams"]

_QUIET_S: Final = 1.0
"""A broker does not say which retained message was the last; they come at once."""
_MOST_S: Final = 10.0
_MOST_STREAMS: Final = 10_000


@dataclass(frozen=True)
class Listing:
    """A stream at a broker."""

    address: MqttAddress
    hello: Hello
    online: bool


async def list_streams(
    address: MqttAddress, tls: ssl.SSLContext | None = None, quiet_s: float = _QUIET_S
) -> list[Listing]:
    """The streams at ``address`` and one level below it, in the order of their topics.

    What is no hello of ours is left out.

    Args:
        quiet_s: so long after the last one it is taken for the last.

    Raises:
        TransportError: the broker cannot be reached.
        RefusedError: it does not let us read there.
    """
    prefixes = [f"{address.topic}/+" if address.topic else "+"]
    if address.topic:
        prefixes.append(address.topic)
    hellos: dict[str, Hello] = {}
    offline: set[str] = set()
    async with Broker(address, tls) as broker:
        await broker.subscribe(*(f"{p}/{name}" for p in prefixes for name in ("hello", "status")))
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + _MOST_S
        while len(hellos) < _MOST_STREAMS and loop.time() < deadline_s:
            try:
                async with asyncio.timeout(quiet_s):
                    received = await broker.receive()
            except TimeoutError:
                break
            _note(received, hellos, offline)
    return [
        Listing(address.at(topic), hellos[topic], topic not in offline) for topic in sorted(hellos)
    ]


def _note(received: Received, hellos: dict[str, Hello], offline: set[str]) -> None:
    topic, _, name = received.topic.rpartition("/")
    if name == "status":
        if received.payload == OFFLINE:
            offline.add(topic)
        else:
            offline.discard(topic)
        return
    try:
        hello = read_payload(received.payload)
    except ProtocolError:
        return
    if isinstance(hello, Hello) and clean_text(topic) == topic:
        hellos[topic] = hello
