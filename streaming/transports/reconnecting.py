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
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from streaming.errors import ProtocolError, RefusedError, TransportError, UserError

__all__ = ["LASTING_S", "Backoff", "Reconnecting", "passing"]

LASTING_S: Final = 1.0
"""A connection that ends sooner was no more than another failed attempt."""
_GROWTH: Final = 1.5
_PASSING: Final = frozenset({"away", "lag", "timeout", "busy"})
"""Codes of refusals after which it may be tried again."""


@dataclass(frozen=True)
class Backoff:
    """How long to wait before each attempt to come back.

    first_s: at most before the first one. most_s: at most before any. attempts: how many in a row
    may fail; None: any number.
    """

    first_s: float = 0.5
    most_s: float = 30.0
    attempts: int | None = None

    def wait_s(self, failed: int, chance: float) -> float:
        """Seconds to wait after ``failed`` attempts in a row; chance: from 0 to 1, by lot."""
        longest_s = min(self.most_s, self.first_s * _GROWTH ** min(failed, 100))
        return longest_s * (0.25 + 0.75 * chance)


def passing(error: Exception) -> bool:
    """Whether waiting may mend it."""
    if isinstance(error, RefusedError):
        return error.code in _PASSING
    return isinstance(error, TransportError)


class Reconnecting:
    """Attempts to connect and to stay connected, as many as it takes.

    ::

        async for attempt in Reconnecting(Backoff(), logger.warning):
            with attempt:
                connection = await dial()
                attempt.connected()
                await use(connection)
                return

    Another attempt follows when the block ends, or raises a TransportError or ProtocolError that
    is passing. Any other error ends it, and so does the last one of ``backoff.attempts``.

    Args:
        backoff: how long to wait before each attempt but the first.
        told: called with each error that is passing.
        passing: whether another attempt may mend an error.
        useful: whether the connection that has just ended was of use, if it lasted.
        failed: attempts in a row that have come to nothing so far.
        clock, sleep, chance: seconds, waiting, and lots from 0 to 1.

    Attributes: ``away``, whether there is no connection just now; ``connections`` so far;
    ``failed``, attempts to come back in a row.
    """

    def __init__(
        self,
        backoff: Backoff,
        told: Callable[[UserError], None],
        *,
        passing: Callable[[UserError], bool] = passing,
        useful: Callable[[], bool] = lambda: True,
        failed: int = 0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.away = True
        self.connections = 0
        self.failed = failed
        self._backoff = backoff
        self._told = told
        self._passing = passing
        self._useful = useful
        self._clock = clock
        self._sleep = sleep
        self._chance = chance
        self._connected_at_s = 0.0
        self._begun = False
        self._at_once = False

    @property
    def reconnects(self) -> int:
        """How often the connection was lost and made again."""
        return max(0, self.connections - 1)

    def connected(self) -> None:
        """There is a connection from now on."""
        self.away = False
        self.connections += 1
        self._connected_at_s = self._clock()
        self._at_once = False

    def at_once(self) -> None:
        """This attempt is given up on purpose: nobody is told, and the next one does not wait."""
        self._at_once = True

    def __aiter__(self) -> Reconnecting:
        return self

    async def __anext__(self) -> Reconnecting:
        if self._begun:
            self.away = True
            if not self._at_once:
                await self._sleep(self._backoff.wait_s(self.failed, self._chance()))
            self.failed += 1
        self._begun, self._at_once = True, False
        return self

    def __enter__(self) -> None:
        """Nothing happens: what counts is how the block ends."""

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        lasted = not self.away and self._clock() - self._connected_at_s >= LASTING_S
        if lasted and self._useful():
            self.failed = 0
        if exc is None:
            return True
        if not isinstance(exc, (TransportError, ProtocolError)) or not self._passing(exc):
            return False
        if self._at_once:
            return True
        self._told(exc)
        attempts = self._backoff.attempts
        return attempts is None or self.failed < attempts
