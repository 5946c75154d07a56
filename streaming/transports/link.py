"""A listener's way to its sender, as if the connection never broke.

    connection, again and again ──► ListenerSession ──► what happens in the stream, in order, once

When the connection is lost, :class:`Link` waits a little, dials again and names the token that it
wants next; what was missed then arrives first. Waiting times grow by half from one attempt to the
next, so that little is added to an outage, and are spread by chance, so that a thousand listeners
of a sender that comes back do not come back at the same moment. They begin anew once a connection
has brought music for a while, so a sender that lets us in and then fails is asked less and less.
Only what waiting cannot mend ends it: a codec that cannot be decoded here, a key that is refused,
something at the other end that is no sender.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from streaming.errors import ProtocolError, RefusedError, TransportError, UserError
from streaming.stream.listener_session import Happening, ListenerSession, State
from streaming.support.worker import call_on_thread
from streaming.wire.messages import CodedTokens, Failure, Hello, Join, Message

__all__ = ["LASTING_S", "Backoff", "Dial", "Link", "Messages", "passing"]

logger = logging.getLogger(__name__)

LASTING_S: Final = 1.0
"""A connection that ends sooner was no more than another failed attempt."""
_GROWTH: Final = 1.5
_PASSING: Final = frozenset({"away", "lag", "timeout", "busy"})
"""Codes of refusals after which it may be tried again."""


class Messages(Protocol):
    """A connection to a sender, such as :class:`streaming.transports.websocket.Connection`."""

    async def send(self, message: Message) -> None:
        """Send one message. Raises TransportError."""
        ...

    def __aiter__(self) -> AsyncIterator[Message]:
        """What arrives, until the sender closes; raises TransportError where the link breaks and
        ProtocolError on what is no message."""
        ...

    async def close(self) -> None:
        """Give the connection up; never raises."""
        ...


Dial = Callable[[], Awaitable[Messages]]
"""Makes a connection; raises TransportError."""


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


class Link:
    """What happens in a stream, across as many connections as it takes.

    Iterate over it once: a Hello, then Tokens, Gaps and Titles in order, then End. A second Hello
    says that something else begins: another stream, or the same elsewhere after :meth:`go_to`.

    Args:
        session: not joined yet.
        connection: the first one; None: dial for it, and wait for a sender that is not there yet
            as for one that has gone.
        dial: makes another one; None: the first break is the end, raised as TransportError.
        meet: called with each hello before the session checks it; may load a codec.
        observe: told of everything before it comes out, such as a recorder.
        rejoin: asked on coming back; what it returns is sent instead of asking for what was missed.
        anybody: another may answer the next time, so that what one does wrong is not the end: it is
            told, and ``dial`` called again.
        hello_timeout_s: time for the sender's first message.
        clock, sleep, chance: seconds, waiting, and lots from 0 to 1.

    Attributes: ``reconnects`` so far; ``away``, whether there is no connection just now.
    """

    def __init__(
        self,
        session: ListenerSession,
        connection: Messages | None,
        dial: Dial | None = None,
        *,
        meet: Callable[[Hello], Awaitable[None]] | None = None,
        observe: Callable[[Happening], Awaitable[None]] | None = None,
        rejoin: Callable[[], Join | None] = lambda: None,
        backoff: Backoff | None = None,
        anybody: bool = False,
        hello_timeout_s: float = 20.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.session = session
        self.reconnects = 0
        self.away = False
        self._connection = connection
        self._waits = connection is None
        self._dial = dial
        self._meet = meet
        self._observe = observe
        self._rejoin = rejoin
        self._backoff = backoff or Backoff()
        self._anybody = anybody
        self._hello_timeout_s = hello_timeout_s
        self._clock = clock
        self._sleep = sleep
        self._chance = chance
        self._failed = 0
        self._began_s = clock()
        self._began_tokens = session.traffic.tokens
        self._next_join: Join | None = None
        self._moved = asyncio.Event()

    @property
    def can_move(self) -> bool:
        """Whether :meth:`go_to` has a way to make another connection."""
        return self._dial is not None

    def go_to(self, join: Join) -> None:
        """Leave the place in the stream and begin anew with ``join``, as soon as can be."""
        if self._dial is None:
            raise ValueError("go_to() needs a way to dial")
        self._next_join = join
        self._moved.set()

    async def __aiter__(self) -> AsyncIterator[Happening]:
        """Raises TransportError where there is no way back, ProtocolError where none would help."""
        first = True
        if self._connection is None:
            await self._come_back(None)
            self.reconnects = 0
        while True:
            try:
                assert self._connection is not None
                async for happening in self._one(self._connection, first=first):
                    first = False
                    yield happening
                if self.session.state is State.ENDED:
                    return
                raise TransportError(
                    "The sender hung up in the middle of the stream", "start the listener again"
                )
            except (TransportError, ProtocolError) as error:
                if self._anybody:
                    await self._tell(error)
                elif not passing(error):
                    raise
                if self._dial is None or (first and not self._waits):
                    raise
                await self._come_back(error)

    async def close(self) -> None:
        """Close the connection that there is."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _tell(self, error: Exception) -> None:
        """Say why we hang up, to who has said something wrong."""
        wrong = isinstance(error, ProtocolError) and not isinstance(error, RefusedError)
        if wrong and self._connection is not None:
            with contextlib.suppress(TransportError):
                await self._connection.send(Failure("protocol", str(error)))

    async def _one(self, connection: Messages, *, first: bool) -> AsyncIterator[Happening]:
        """What happens on one connection, until it ends in good order or is to be left."""
        self._moved.clear()
        self._began_s, self._began_tokens = self._clock(), self.session.traffic.tokens
        if first:
            await connection.send(self.session.join())
        else:
            join, self._next_join = self._next_join or self._rejoin(), None
            await connection.send(self.session.rejoin(join))
        messages = aiter(connection)
        while True:
            message = await self._next(messages)
            if message is None:
                return
            joining = self.session.state is State.JOINING
            if joining and isinstance(message, Hello) and self._meet is not None:
                await self._meet(message)
            for happening in await self._received(message):
                if self._observe is not None:
                    await self._observe(happening)
                yield happening
            if self.session.state is State.ENDED:
                return

    async def _received(self, message: Message) -> list[Happening]:
        """What a message brought; coded tokens are decoded on a thread, for that takes a while."""
        now_s = self._clock()
        if isinstance(message, CodedTokens):
            return await call_on_thread(self.session.receive, message, now_s)
        return self.session.receive(message, now_s)

    async def _next(self, messages: AsyncIterator[Message]) -> Message | None:
        """The next message; None where there will be none, or this connection is to be left."""
        if self.session.state is State.JOINING:
            timeout_s = self._hello_timeout_s
            try:
                async with asyncio.timeout(timeout_s):
                    return await anext(messages)
            except TimeoutError:
                raise TransportError(
                    f"The sender said nothing for {timeout_s:.0f} s; check the address."
                ) from None
            except StopAsyncIteration:
                raise TransportError("The sender hung up without a word; try again.") from None
        if self._dial is None:
            return await anext(messages, None)
        waiting: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(anext(messages, None)),
            asyncio.ensure_future(self._moved.wait()),
        ]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if self._moved.is_set():
                return None
            message: Message | None = waiting[0].result()
            return message
        finally:
            for future in waiting:
                future.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _come_back(self, reason: UserError | None) -> None:
        """Dial until there is a connection (again), at once where there is no reason to wait."""
        if self._dial is None:
            raise ValueError("without a connection a Link needs a way to dial")
        await self.close()
        self.away = True
        brought = self.session.traffic.tokens > self._began_tokens
        if brought and self._clock() - self._began_s >= LASTING_S:
            self._failed = 0
        if reason is not None and not self._moved.is_set():
            logger.warning("coming back, since the connection is lost: %s", reason.cause)
        while True:
            attempts = self._backoff.attempts
            if reason is not None and not self._moved.is_set():
                if attempts is not None and self._failed >= attempts:
                    raise reason
                await self._sleep(self._backoff.wait_s(self._failed, self._chance()))
            self._failed += 1
            try:
                self._connection = await self._dial()
            except TransportError as error:
                if reason is None:
                    logger.warning("waiting for the sender: %s", error.cause)
                logger.debug("not yet: %s", error)
                self._moved.clear()
                reason = error
            else:
                self.away = False
                self.reconnects += 1
                return


def passing(error: Exception) -> bool:
    """Whether waiting may mend it."""
    if isinstance(error, RefusedError):
        return error.code in _PASSING
    return isinstance(error, TransportError)
