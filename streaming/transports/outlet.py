"""Where a stream goes: WebSocket listeners, a broker, a relay, a one-way link."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from streaming.stream.hub import Hub

__all__ = ["Outlet", "Running"]


class Running(Protocol):
    """An outlet that is open."""

    @property
    def url(self) -> str:
        """Where the stream can be had, without secrets."""

    def figures(self) -> dict[str, Any]:
        """How it is doing: numbers in the units that the names end with; None: not known yet."""

    async def failed(self) -> None:
        """Wait until it is over for good, and raise why; outlets that come back never do."""


class Outlet(Protocol):
    """``async with outlet(hub) as running``: sends the hub's stream somewhere meanwhile.

    A connection that is lost later is made again. Leaving takes leave, after what the hub has still
    to say.
    """

    def __call__(self, hub: Hub) -> AbstractAsyncContextManager[Running]:
        """What sends ``hub``. Entering it raises UserError if that cannot begin."""
        ...
