"""A sender's end of a connection without sockets and clocks: fed with messages and times."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from streaming.stream.heartbeat import Heartbeat
from streaming.stream.listener_session import State
from streaming.wire.messages import CodedTokens, Failure, Join, Message, Publish, Tokens, Unknown

if TYPE_CHECKING:
    from streaming.stream.hub import Hub
    from streaming.stream.subscription import Subscription

__all__ = ["JOIN_TIMEOUT_S", "NO_PUBLISHERS", "SenderSession"]

logger = logging.getLogger(__name__)

JOIN_TIMEOUT_S: Final = 20.0
"""Time that a listener has for its first message, which may have a slow link before it."""
NO_PUBLISHERS: Final = Failure(
    "auth", "Nobody can publish here; a relay that takes streams is started with --accept-push."
)


class SenderSession:
    """The sender's side of one connection: joins it to the hub, refuses nonsense, drops who lags.

    Whoever moves the messages asks the listener when ``heartbeat`` is due, and says when it has
    :meth:`answered`.

    Args:
        wake: called, on the thread that runs the hub, whenever :meth:`take` has something new or
            the session ended.
        admit: why a listener with the secret in the join message is not let in; None lets it in.
        admit_publisher: the same for a publisher. If it is admitted, this session ends,
            ``publishes`` says so, and others read the connection.
        outlet: see :meth:`streaming.stream.hub.Hub.join`.
    """

    __slots__ = (
        "_admit",
        "_admit_publisher",
        "_hub",
        "_outlet",
        "_refusal",
        "_refusal_taken",
        "_subscription",
        "_wake",
        "client",
        "heartbeat",
        "join_deadline_s",
        "publishes",
    )

    def __init__(
        self,
        hub: Hub,
        now_s: float,
        wake: Callable[[], None] = lambda: None,
        admit: Callable[[str], Failure | None] = lambda auth_token: None,
        admit_publisher: Callable[[Publish], Failure | None] = lambda publish: NO_PUBLISHERS,
        *,
        outlet: bool = False,
    ) -> None:
        self._hub = hub
        self._admit = admit
        self._admit_publisher = admit_publisher
        self._outlet = outlet
        self._wake = wake
        self._subscription: Subscription | None = None
        self._refusal: Failure | None = None
        self._refusal_taken = False
        self.join_deadline_s = now_s + JOIN_TIMEOUT_S
        self.heartbeat = Heartbeat(hub.max_lag_s, now_s)
        self.client = ""
        self.publishes = False

    @property
    def failure(self) -> Failure | None:
        """Why the sender ends this connection, if it is for a fault of the listener's."""
        if self._refusal is not None:
            return self._refusal
        return self._subscription.failure if self._subscription is not None else None

    @property
    def state(self) -> State:
        """Where the session stands; ENDED when nothing more follows what :meth:`take` returns."""
        closed = self._subscription is not None and self._subscription.closed
        if self._refusal is not None or self.publishes or closed:
            return State.ENDED
        return State.JOINING if self._subscription is None else State.STREAMING

    @property
    def waiting(self) -> bool:
        """Whether :meth:`take` has more as soon as the listener has answered."""
        return self.heartbeat.full and self._subscription is not None and self.failure is None

    @property
    def due_s(self) -> float:
        """When to :meth:`tick`, and then to see whether the listener is to be asked."""
        if self.failure is not None:
            return math.inf
        if self._subscription is None:
            return self.join_deadline_s
        asked_until_s = self.heartbeat.deadline_s
        return self.heartbeat.idle_at_s if asked_until_s is None else asked_until_s

    def must_ask(self, now_s: float) -> bool:
        """Whether to ask the listener though nothing is sent now."""
        subscription, heartbeat = self._subscription, self.heartbeat
        if subscription is None or heartbeat.deadline_s is not None:
            return False
        return self.waiting or (not subscription.closed and now_s >= heartbeat.idle_at_s)

    def receive(self, message: Message, now_s: float) -> None:
        """Take one message from the listener; a wrong one ends the session with a failure."""
        if self.state is State.ENDED:
            return
        if isinstance(message, Unknown):
            logger.debug("passing over a message of unknown type %r", message.type)
        elif self._subscription is None and isinstance(message, Publish):
            refusal = self._admit_publisher(message)
            if refusal is not None:
                self.refuse(refusal)
            else:
                self.publishes = True
        elif not isinstance(message, Join) or self._subscription is not None:
            wrong = "A listener sends one join message and nothing else."
            self.refuse(Failure("protocol", wrong))
        elif (refusal := self._admit(message.auth_token)) is not None:
            self.refuse(refusal)
        else:
            self.client = message.client
            self._subscription = self._hub.join(message, now_s, self._wake, outlet=self._outlet)

    def refuse(self, failure: Failure) -> None:
        """End the session with ``failure`` as its last message."""
        if self.state is not State.ENDED:
            self._refusal = failure
            self._hub.drops[failure.code] += not self._outlet
            self.leave()
            self._wake()

    def tick(self, now_s: float) -> None:
        """Let time pass: a listener that does not join, or does not answer, in time must go."""
        if self.state is State.JOINING and now_s >= self.join_deadline_s:
            self.refuse(Failure("timeout", f"No join message came within {JOIN_TIMEOUT_S:.0f} s."))
        elif self._subscription is not None and self.heartbeat.overdue(now_s):
            self._hub.drop(self._subscription)

    def answered(self) -> None:
        """The listener has read what was sent before it was asked by the heartbeat."""
        self.heartbeat.answer()
        self._wake()

    def take(self) -> Message | None:
        """The next message to send, which then counts as sent; None when there is none now."""
        if self._refusal is not None:
            refusal = None if self._refusal_taken else self._refusal
            self._refusal_taken = True
            return refusal
        subscription = self._subscription
        if subscription is None or self.waiting:
            return None
        place = subscription.place
        message = subscription.take()
        if isinstance(message, (Tokens, CodedTokens)):  # a gap is passed over without a token
            self.heartbeat.sent(subscription.place - place)
        return message

    @property
    def exhausted(self) -> bool:
        """Whether :meth:`take` has nothing now, though more may be on the way."""
        return self._subscription is not None and self._subscription.exhausted

    def leave(self) -> None:
        """The connection is gone: the hub forgets this listener."""
        if self._subscription is not None:
            self._hub.leave(self._subscription)
