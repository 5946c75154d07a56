"""The sender's side: a hub's stream to a relay that waits for it, whether anybody listens or not.

    hub ─► SenderSession ─► connection, again and again ─► relay

We dial and name the secret. From then on the relay is a listener: it joins, and asks for what it
has missed when we come back. In the hub it does not count as one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

from streaming.errors import ProtocolError, RefusedError, TransportError
from streaming.stream.heartbeat import Heartbeat
from streaming.stream.hub import Hub
from streaming.stream.listener_session import State
from streaming.stream.sender_session import SenderSession
from streaming.support.guard import ByteBudget, Limits
from streaming.support.tasks import cancel
from streaming.transports.reconnecting import Backoff, Reconnecting, passing
from streaming.transports.websocket.client import Connection, connect
from streaming.transports.websocket.common import CLOSE_TIMEOUT_S
from streaming.wire.messages import Failure, Join, Message, Publish
from streaming.wire.parsing import decode

__all__ = ["Push", "Pusher"]

logger = logging.getLogger(__name__)

_ANSWER_S: Final = 10.0
"""Time for the relay to join, once it was told that we publish."""
_PATIENCE_S: Final = 15.0
"""Within so long the relay must say that it has read what it was sent; it is asked every third."""


@dataclass(frozen=True)
class Push:
    """Push to a relay: an :class:`streaming.transports.outlet.Outlet`.

    Attributes:
        url: of the relay.
        auth_token: its publish token.
        tls: for ``wss://``.
        backoff: how to come back.
    """

    url: str
    auth_token: str = field(repr=False)
    tls: ssl.SSLContext | None = None
    backoff: Backoff = field(default_factory=Backoff)

    def __call__(self, hub: Hub) -> Pusher:
        """What pushes ``hub``; nothing is connected yet."""
        return Pusher(hub, self)


class Pusher(Reconnecting):
    """Pushes a hub to a relay within ``async with``, across as many connections as it takes.

    A relay that is away is waited for, from the first attempt on and for ever. What waiting cannot
    mend (a secret that is refused, something that is no relay) comes out of :meth:`failed` if it
    answers the first attempt, when somebody is there to mend it. Later no word of a relay's does:
    it is warned of and asked again, less and less. Leaving takes leave of the relay, after what the
    hub has still to say.
    """

    def __init__(
        self, hub: Hub, settings: Push, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(settings.backoff, clock)
        self._hub = hub
        self._settings = settings
        self._publisher = secrets.token_hex(8)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Pusher:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._task is not None
        if self.away or not self._hub.ended:
            self._task.cancel()
        await cancel(self._task, within_s=CLOSE_TIMEOUT_S)

    @property
    def url(self) -> str:
        """Of the relay."""
        return self._settings.url

    def figures(self) -> dict[str, Any]:
        """See :class:`streaming.transports.outlet.Running`."""
        return {"kind": "push", "away": self.away, "reconnects": self.reconnects}

    async def failed(self) -> None:
        """Wait until the stream is over. Raises ProtocolError if the relay refuses us at first."""
        assert self._task is not None
        await asyncio.shield(self._task)

    async def _run(self) -> None:
        """Push until the stream is over."""
        last_cause = ""
        async for _ in self._attempts():
            try:
                async with await self._connect() as connection:
                    await self._push(connection)
                if self._hub.ended:
                    return
            except (TransportError, ProtocolError) as error:
                if not (passing(error) or self._failed or self._met):
                    raise
                if self._lasted():
                    last_cause = ""
                told = logger.debug if error.cause == last_cause else logger.warning
                told("coming back to the relay, since %s", error.cause)
                last_cause = error.cause

    async def _connect(self) -> Connection:
        return await connect(self._settings.url, silence_s=None, tls=self._settings.tls)

    async def _push(self, connection: Connection) -> None:
        """Push on one connection, until the hub has no more for it."""
        join = await self._introduce(connection)
        wake = asyncio.Event()

        def woken() -> None:
            wake.set()
            if session.failure is not None:  # the writer may be stuck in a send that never ends
                asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, connection.abort)

        now_s = self._clock()
        session = SenderSession(self._hub, now_s, woken, outlet=True)
        session.heartbeat = Heartbeat(min(_PATIENCE_S, self._hub.max_lag_s), now_s)
        session.receive(join, now_s)
        tasks = [
            asyncio.create_task(self._read(connection, session)),
            asyncio.create_task(self._write(connection, session, wake)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            session.leave()
            await cancel(*tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()
        if session.failure is not None and session.failure.code == "protocol":
            raise ProtocolError(f"The relay said something wrong: {session.failure.message}")

    async def _introduce(self, connection: Connection) -> Join:
        """Say who we are; returns the relay's join message."""
        url = self._settings.url
        await connection.send(Publish(self._publisher, self._settings.auth_token))
        try:
            async with asyncio.timeout(_ANSWER_S):
                answer = await anext(aiter(connection), None)
        except TimeoutError:
            raise TransportError(f"{url} did not answer within {_ANSWER_S:.0f} s.") from None
        if answer is None:
            raise TransportError(f"{url} hung up without a word.")
        answer = _checked(answer)
        if not isinstance(answer, Join):
            raise ProtocolError(f"What answers at {url} is no relay that takes streams.")
        self._connected()
        logger.info("pushing to %s%s", url, " again" if self.reconnects else "")
        return answer

    async def _read(self, connection: Connection, session: SenderSession) -> None:
        budget = ByteBudget(Limits(), self._clock())
        async for data in connection.received():
            if not budget.spend(len(data), self._clock()):
                raise ProtocolError("The relay says more than a listener has to say.")
            session.receive(_checked(decode(data)), self._clock())
        raise TransportError(f"{self._settings.url} hung up.")

    async def _write(
        self, connection: Connection, session: SenderSession, wake: asyncio.Event
    ) -> None:
        heartbeat = session.heartbeat
        while True:
            wake.clear()
            while (message := session.take()) is not None:
                with connection.one_packet():
                    await connection.send(message)
                    if heartbeat.due(self._clock()):
                        await self._ask(connection, session)
            if session.state is State.ENDED and not session.waiting:
                return
            idle = self._clock() >= heartbeat.idle_at_s
            if (idle or session.waiting) and heartbeat.deadline_s is None:
                await self._ask(connection, session)
            left_s = heartbeat.idle_at_s - self._clock()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.01, left_s)):
                    await wake.wait()

    async def _ask(self, connection: Connection, session: SenderSession) -> None:
        """A relay that does not answer is left: its connection may be dead without a word."""
        patience_s = session.heartbeat.ask(self._clock())
        await connection.ask(patience_s, session.answered)


def _checked(message: Message) -> Message:
    """What the relay says. Raises RefusedError if that is why it hangs up."""
    if isinstance(message, Failure):
        raise RefusedError(message.code, message.message, by="relay")
    return message
