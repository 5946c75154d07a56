"""Coming back: one connection after another, until what they are for is done.

Waiting times grow by half from one attempt to the next, so that little is added to an outage, and
are spread by chance, so that a thousand listeners of a sender that comes back do not come back at
the same moment. They begin anew once a connection has been of use for a while, so that whoever lets
us in and then fails is asked less and less.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from streaming.errors import RefusedError, TransportError

__all__ = ["LASTING_S", "Backoff", "Reconnecting", "passing"]

LASTING_S: Final = 1.0
"""A connection that ends sooner was no more than another failed attempt."""
_GROWTH: Final = 1.5
_PASSING: Final = frozenset({"away", "lag", "timeout", "busy"})
"""Codes of refusals after which it may be tried again."""


@dataclass(frozen=True)
class Backoff:
    """How long to wait before each attempt to come back.

    Attributes:
        first_s: at most before the first one.
        most_s: at most before any.
        attempts: how many in a row may fail; None: any number.
    """

    first_s: float = 0.5
    most_s: float = 30.0
    attempts: int | None = None

    def wait_s(self, failed: int, chance: float) -> float:
        """Seconds to wait after ``failed`` attempts in a row.

        Args:
            chance: from 0 to 1, by lot.
        """
        longest_s = min(self.most_s, self.first_s * _GROWTH ** min(failed, 100))
        return longest_s * (0.25 + 0.75 * chance)


def passing(error: Exception) -> bool:
    """Whether waiting may mend it."""
    if isinstance(error, RefusedError):
        return error.code in _PASSING
    return isinstance(error, TransportError)


class Reconnecting:
    """Base of what connects, and comes back when the connection is lost.

    ::

        async for _ in self._attempts():
            try:
                async with await dial() as connection:
                    self._connected()
                    return await use(connection)
            except TransportError as error:
                logger.warning("coming back, since %s", error.cause)

    Args:
        backoff: how long to wait before each attempt but the first.
        clock, sleep, chance: seconds, waiting, and lots from 0 to 1.

    Attributes:
        away: whether there is no connection just now.
        reconnects: so far.
    """

    def __init__(
        self,
        backoff: Backoff,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.away = True
        self.reconnects = 0
        self._backoff = backoff
        self._clock = clock
        self._sleep = sleep
        self._chance = chance
        self._failed = 0  # attempts to come back in a row
        self._met = False  # whether there ever was a connection
        self._connected_at_s = 0.0
        self._at_once = False  # whether the next attempt follows without a wait

    async def _attempts(self) -> AsyncIterator[None]:
        """One, and then another whenever the next is asked for, after a wait."""
        yield
        while True:
            if self._lasted():
                self._failed = 0
            self.away = True
            if not self._at_once:
                await self._sleep(self._backoff.wait_s(self._failed, self._chance()))
            self._at_once = False
            self._failed += 1
            yield

    def _connected(self) -> None:
        """There is a connection from now on."""
        self.away = self._at_once = False
        self.reconnects += self._met
        self._met = True
        self._connected_at_s = self._clock()

    def _lasted(self) -> bool:
        """Whether this attempt led to a connection that was of use for a while."""
        return not self.away and self._clock() - self._connected_at_s >= LASTING_S
