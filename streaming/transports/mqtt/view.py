"""What a listener makes of a stream's topics, without a broker.

Hello, window and live messages come out in the order in which a sender would have sent them over a
WebSocket::

    status, hello (retained) ──► which stream it is ──► its window (retained) and live messages

The rest is the same as over a WebSocket: a
:class:`streaming.stream.listener_session.ListenerSession` takes what comes out of here, finds the
gaps and leaves out what came twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from codec.constants import TOKEN_RATE
from streaming.errors import ProtocolError, TransportError
from streaming.stream.listener_session import MOST_REPEATED_TOKENS
from streaming.transports.mqtt.address import MqttAddress, stream_tag
from streaming.transports.mqtt.broker import Received
from streaming.wire.messages import Hello, Join, Message, Tokens
from streaming.wire.parsing import decode

__all__ = [
    "HELLO_WAIT_S",
    "OFFLINE",
    "ONLINE",
    "WINDOW_EXPIRY_S",
    "WINDOW_WAIT_S",
    "StreamView",
    "read_payload",
]

logger = logging.getLogger(__name__)

ONLINE: Final = b"online"
OFFLINE: Final = b"offline"
WINDOW_EXPIRY_S: Final = 30
"""So old may a window be: what plays on longer without news is no live stream."""
HELLO_WAIT_S: Final = 5.0
"""What is retained comes at once; this is for slow links."""
WINDOW_WAIT_S: Final = 2.0
_MOST_EARLY: Final = 256


class StreamView:
    """One listener's way into a stream: feed it with :meth:`receive`, then do what it wants.

    Args:
        join: what the listener asked for: where it was, how much of the past it wants.
        wall: Unix time in seconds.

    Attributes:
        wanted: topics to subscribe to, to be emptied by whoever did so.
        unwanted: topics to unsubscribe from, likewise.
        begun: whether the hello has come out.
    """

    def __init__(
        self, address: MqttAddress, join: Join, wall: Callable[[], float] = time.time
    ) -> None:
        self._address = address
        self._join = join
        self._wall = wall
        self._hello: Hello | None = None
        self._tag = ""
        self._status = ONLINE
        self._early: list[Message] = []
        self.begun = False
        self.wanted = [address.status, address.hello]
        self.unwanted: list[str] = []

    @property
    def met(self) -> bool:
        """Whether it is known which stream it is."""
        return self._hello is not None

    def receive(self, message: Received) -> list[Message]:
        """Take one message from the broker; returns messages for the listener's session.

        Raises:
            TransportError: the sender is away, or another stream has taken the place of this one.
            ProtocolError: something is no message of ours.
        """
        if message.topic == self._address.status:
            self._note_status(message.payload)
        elif message.topic == self._address.hello:
            self._note_hello(message.payload)
        elif self._tag and message.topic == self._address.live(self._tag):
            live = read_payload(message.payload)
            if self.begun:
                return [live]
            self._early.append(live)
            del self._early[_MOST_EARLY:]
        elif self._is_window(message):
            window = read_payload(message.payload)
            if not isinstance(window, Tokens):
                raise ProtocolError("What the broker has kept of the stream is no tokens.")
            return self._begin(window, message.left_s)
        return []

    def waited(self) -> list[Message]:
        """Nothing more has come for a while; returns messages for the listener's session.

        Raises:
            TransportError: there is no stream.
        """
        if self._hello is None:
            raise TransportError(
                f"There is no stream at {self._address}; start the sender first, or see what "
                "there is with --list."
            )
        return [] if self.begun else self._begin(None, None)

    def _is_window(self, message: Received) -> bool:
        """Whether it is the one that we wait for, and not one that was just cleared."""
        ours = bool(self._tag) and message.topic == self._address.window(self._tag)
        return ours and not self.begun and bool(message.payload)

    def _note_status(self, payload: bytes) -> None:
        if payload == OFFLINE and not self.begun:
            raise TransportError(f"The sender of {self._address} is offline; try again later.")
        if payload in (ONLINE, OFFLINE) and payload != self._status:
            self._status = payload
            if self.begun:
                logger.info("the sender is %s", payload.decode())

    def _note_hello(self, payload: bytes) -> None:
        if not payload:
            return  # somebody cleared it; the stream itself may well go on
        hello = read_payload(payload)
        if not isinstance(hello, Hello):
            raise ProtocolError(f"What is at {self._address} is no stream of ours.")
        tag = stream_tag(hello)
        if self.begun and tag != self._tag:
            raise TransportError(f"Another stream has begun at {self._address}.")
        self._hello = hello
        if tag != self._tag:
            if self._tag:
                self.unwanted += self._topics()
            self._tag = tag
            self._early.clear()
            self.wanted += self._topics()

    def _topics(self) -> list[str]:
        return [self._address.live(self._tag), self._address.window(self._tag)]

    def _begin(self, window: Tokens | None, left_s: int | None) -> list[Message]:
        """The hello as a sender would say it now, and the past that is there and wanted."""
        assert self._hello is not None
        first_live = next((m.first_token for m in self._early if isinstance(m, Tokens)), None)
        edge, age_s = self._hello.next_token, 0.0
        if window is not None:
            edge, age_s = window.end_token, self._age_s(window.end_token, left_s)
        elif first_live is not None:
            edge = first_live
        first = edge if window is None else self._first_wanted(window)
        resumed = self._resumed_at()
        if resumed is not None and edge < resumed:
            # What the broker kept is from before we left: the rest will come. But tokens are kept
            # for seconds, so those that lie far back are news: the stream has jumped back.
            told = window is not None or first_live is not None
            if not told or resumed - edge <= MOST_REPEATED_TOKENS:
                first = edge = resumed
        self.begun = True
        self.unwanted.append(self._address.window(self._tag))
        hello = replace(self._hello, first_token=first, next_token=edge, age_s=age_s)
        if hello.first_at_s is not None:
            since_s = (first - self._hello.first_token) / TOKEN_RATE
            hello = replace(hello, first_at_s=hello.first_at_s + since_s)
        messages: list[Message] = [hello]
        if window is not None and first < edge:
            messages.append(Tokens(first, window.tokens[first - window.first_token :]))
        messages += self._early
        self._early.clear()
        return messages

    def _resumed_at(self) -> int | None:
        """The token that a listener which comes back to this very stream wants next."""
        assert self._hello is not None
        same = bool(self._join.stream) and self._join.stream == self._hello.stream
        return self._join.next_token if same else None

    def _first_wanted(self, window: Tokens) -> int:
        """Where in the window the history begins that was asked for."""
        join, end = self._join, window.end_token
        wanted = max(0, end - join.history)
        if join.at_s is not None:
            wanted = window.first_token
        elif self._resumed_at() is not None or not join.stream:
            wanted = wanted if join.next_token is None else join.next_token
        return min(max(wanted, window.first_token), end)

    def _age_s(self, edge: int, left_s: int | None) -> float:
        """Seconds since the packet that ends at ``edge`` was released.

        The clocks of both ends say it to the millisecond where both are right; the broker, which
        counts whole seconds of the window's life, says whether they are.
        """
        if left_s is None:
            return 0.0
        counted_s = max(0, WINDOW_EXPIRY_S - left_s)
        low_s, high_s = max(0.0, counted_s - 1.0), counted_s + 1.0
        hello = self._hello
        if hello is None or hello.first_at_s is None:
            return low_s
        released_s = hello.first_at_s + (edge - hello.first_token) / TOKEN_RATE + hello.delay_s
        return min(max(self._wall() - released_s, low_s), high_s)


def read_payload(payload: bytes) -> Message:
    """The message that a broker has brought: JSON if it begins with a brace, else tokens.

    Raises:
        ProtocolError: it is none.
    """
    return decode(payload.decode("utf-8", "replace") if payload.startswith(b"{") else payload)
