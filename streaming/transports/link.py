"""A listener's way to its sender, as if the connection never broke.

    connection, again and again ──► ListenerSession ──► what happens in the stream, in order, once

When the connection is lost, :class:`Link` waits a little, dials again and names the token that it
wants next; what was missed then arrives first. A connection is of use if it brings music. Only what
waiting cannot mend ends it: a codec that cannot be decoded here, a key that is refused, something
at the other end that is no sender.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from streaming.errors import ProtocolError, RefusedError, TransportError, UserError
from streaming.stream.listener_session import Event, ListenerSession, State
from streaming.support.tasks import unless
from streaming.support.worker import call_on_thread
from streaming.transports.reconnecting import Backoff, Reconnecting, passing
from streaming.wire.messages import CodedTokens, Failure, Hello, Join, Message

__all__ = ["Dial", "Link", "Messages"]

logger = logging.getLogger(__name__)


class Messages(Protocol):
    """A connection to a sender, such as :class:`streaming.transports.websocket.Connection`."""

    async def send(self, message: Message) -> None:
        """Send one message. Raises TransportError."""
        ...

    def __aiter__(self) -> AsyncIterator[Message]:
        """What arrives, until the sender closes.

        Raises:
            TransportError: the link breaks.
            ProtocolError: what arrives is no message.
        """
        ...

    async def close(self) -> None:
        """Give the connection up; never raises."""
        ...


Dial = Callable[[], Awaitable[Messages]]
"""Makes a connection; raises TransportError."""


class Link(Reconnecting):
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
    """

    def __init__(
        self,
        session: ListenerSession,
        connection: Messages | None,
        dial: Dial | None = None,
        *,
        meet: Callable[[Hello], Awaitable[None]] | None = None,
        observe: Callable[[Event], Awaitable[None]] | None = None,
        rejoin: Callable[[], Join | None] = lambda: None,
        backoff: Backoff | None = None,
        anybody: bool = False,
        hello_timeout_s: float = 20.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(backoff or Backoff(), clock, sleep, chance)
        self.session = session
        self._connection = connection
        self._waits = connection is None
        self._dial = dial
        self._meet = meet
        self._observe = observe
        self._rejoin = rejoin
        self._anybody = anybody
        self._hello_timeout_s = hello_timeout_s
        self._began_tokens = session.traffic.tokens
        self._begun = False  # whether anything has happened yet
        self._next_join: Join | None = None
        self._moved = asyncio.Event()
        if connection is not None:
            self._connected()
        else:
            self._failed = 1  # the first attempt is one to come back already

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
        self._at_once = True

    async def __aiter__(self) -> AsyncIterator[Event]:
        """What happens, in order.

        Raises:
            TransportError: there is no way back.
            ProtocolError: another connection would not help.
        """
        async for _ in self._attempts():
            try:
                if self._connection is None:
                    if self._dial is None:
                        raise ValueError("without a connection a Link needs a way to dial")
                    self._connection = await self._dial()
                    self._connected()
                async for event in self._one(self._connection):
                    self._begun = True
                    yield event
                if self.session.state is State.ENDED:
                    return
                raise TransportError(
                    "The sender hung up in the middle of the stream", "start the listener again"
                )
            except (TransportError, ProtocolError) as error:
                if self._anybody:
                    await self._tell(error)
                if not self._comes_back(error):
                    raise
            await self.close()

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

    def _comes_back(self, error: UserError) -> bool:
        """Whether there is another attempt, and a word about it unless we leave on purpose."""
        met = self._begun or self._waits
        if self._dial is None or not met or not (self._anybody or passing(error)):
            return False
        if self._at_once:
            return True
        if not self.away:
            logger.warning("coming back, since the connection is lost: %s", error.cause)
        else:
            if not self._met and self._failed == 1:
                logger.warning("waiting for the sender: %s", error.cause)
            logger.debug("not yet: %s", error)
        attempts = self._backoff.attempts
        return attempts is None or self._failed < attempts or self._lasted()

    def _lasted(self) -> bool:
        return super()._lasted() and self.session.traffic.tokens > self._began_tokens

    async def _one(self, connection: Messages) -> AsyncIterator[Event]:
        """What happens on one connection, until it ends in good order or is to be left."""
        self._moved.clear()
        self._began_tokens = self.session.traffic.tokens
        if not self._begun:
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
            for event in await self._received(message):
                if self._observe is not None:
                    await self._observe(event)
                yield event
            if self.session.state is State.ENDED:
                return

    async def _received(self, message: Message) -> list[Event]:
        """What a message brought; coded tokens are decoded on a thread, for that takes a while."""
        now_s = self._clock()
        if isinstance(message, CodedTokens):
            return await call_on_thread(self.session.receive, message, now_s)
        return self.session.receive(message, now_s)

    async def _next(self, messages: AsyncIterator[Message]) -> Message | None:
        """The next message; None if there will be none, or this connection is to be left."""
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
        message = await unless(self._moved, anext(messages, None))
        return None if self._moved.is_set() else message
