"""Sends each listener what its session has for it, for all of them without a task of their own.

A message that is published wakes every listener's :class:`Writer`. They take their turns in the
order in which they were woken, as many as fit into a few milliseconds; then the event loop sees to
its other work before it goes on. A writer sends while its connection has room and is woken when it
has room again, so that one which is stuck costs the others nothing.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from streaming.stream.listener_session import State
from streaming.stream.sender_session import SenderSession
from streaming.transports.websocket.connection import Framing, GuardedConnection
from streaming.wire.messages import Failure, Publish

if TYPE_CHECKING:
    from streaming.stream.hub import Hub

__all__ = ["Turns", "Writer"]

logger = logging.getLogger(__name__)

_TURN_S: Final = 0.005
"""The event loop is held up no longer than this by sending."""
_BATCH_BYTES: Final = 4096
_GRACE_S: Final = 0.1


class Turns:
    """Lets the writers that have something to send do so, one after the other."""

    def __init__(self, turn_s: float = _TURN_S) -> None:
        self.framing = Framing()
        self._turn_s = turn_s
        self._waiting: deque[Writer] = deque()
        self._under_way = False
        self._loop = asyncio.get_running_loop()

    def add(self, writer: Writer) -> None:
        """It is the turn of ``writer`` after those who wait already."""
        self._waiting.append(writer)
        if not self._under_way:
            self._under_way = True
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        waiting, until_s = self._waiting, time.perf_counter() + self._turn_s
        while waiting:
            waiting.popleft().turn()
            if time.perf_counter() >= until_s:
                break
        self._under_way = bool(waiting)
        if waiting:
            self._loop.call_soon(self._go_on)


class Writer:
    """Sends one listener what its ``session`` has for it.

    Args:
        admit, admit_publisher: see :class:`streaming.stream.sender_session.SenderSession`.
        on_end: called once, when all has been sent and nothing more will come.
        on_failure: called when it is sent away.
    """

    __slots__ = (
        "_clock",
        "_connection",
        "_failed",
        "_loop",
        "_on_end",
        "_on_failure",
        "_queued",
        "_stopped",
        "_timer",
        "_timer_s",
        "_turns",
        "session",
    )

    def __init__(
        self,
        connection: GuardedConnection,
        hub: Hub,
        turns: Turns,
        clock: Callable[[], float],
        *,
        admit: Callable[[str], Failure | None],
        admit_publisher: Callable[[Publish], Failure | None],
        on_end: Callable[[], None],
        on_failure: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._turns = turns
        self._clock = clock
        self._on_end = on_end
        self._on_failure = on_failure
        self._queued = False
        self._failed = False
        self._stopped = False
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0
        self.session = SenderSession(hub, clock(), self.wake, admit, admit_publisher)
        connection.on_room = self.wake
        connection.on_answer = self.session.answered
        self._arm()

    def wake(self) -> None:
        """There may be something to send."""
        if not self._queued and not self._stopped:
            self._queued = True
            self._turns.add(self)
        if not self._failed and self.session.failure is not None:
            self._failed = True
            self._on_failure()  # its connection may be stuck, so that its turn never comes

    def stop(self) -> None:
        """Send nothing more; a second time does nothing."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._connection.on_room = self._connection.on_answer = None

    def turn(self) -> None:
        """Send what there is, as far as there is room."""
        self._queued = False
        if self._stopped:
            return
        try:
            emptied = self._send()
            if emptied and self.session.state is State.ENDED and not self.session.waiting:
                self.stop()
                self._on_end()
            elif self._timer is None or self.session.heartbeat.deadline_s is not None:
                self._arm()  # otherwise it rings early enough
        except Exception:  # a fault of ours, which the other listeners must not pay for
            logger.exception("cannot send to a listener")
            self.stop()
            self._connection.transport.abort()

    def _send(self) -> bool:
        """Whether nothing is left to send for now."""
        connection, session = self._connection, self.session
        if not connection.has_room:
            return False
        heartbeat, now_s = session.heartbeat, self._clock()
        emptied = False
        first = session.take()
        if first is not None and session.exhausted and not heartbeat.due(now_s):
            connection.send_frames(self._turns.framing.frame(first))  # as a rule that is all
            return True
        while not emptied and connection.has_room:
            frames, size = [], 0
            while size < _BATCH_BYTES:
                message, first = first or session.take(), None
                if message is None:
                    emptied = True
                    break
                frames.append(self._turns.framing.frame(message))
                size += len(frames[-1])
                if heartbeat.due(now_s):
                    frames.append(self._question(now_s))
            if emptied and session.must_ask(now_s):
                frames.append(self._question(now_s))
            if frames:
                connection.send_frames(frames[0] if len(frames) == 1 else b"".join(frames))
        return emptied

    def _question(self, now_s: float) -> bytes:
        self.session.heartbeat.ask(now_s)
        return self._connection.question()

    def _arm(self) -> None:
        """Have the timer ring when the session wants to be told the time, or earlier."""
        due_s = self.session.due_s
        if self._timer is None or due_s < self._timer_s:
            unasked = self.session.heartbeat.deadline_s is None
            if due_s == math.inf or (unasked and not self._connection.has_room):
                return  # nothing can be asked; there may be room later
            if self._timer is not None:
                self._timer.cancel()
            self._timer_s = due_s
            self._timer = self._loop.call_later(max(0.0, due_s - self._clock()), self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._clock() < self.session.due_s:
            self._arm()
        else:
            # Where this program itself was held up, what is waited for may be there and not read.
            self._timer_s = self.session.due_s
            self._timer = self._loop.call_later(_GRACE_S, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.session.tick(self._clock())
        self.wake()
