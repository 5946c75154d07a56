"""A listener's end of a connection without sockets and clocks: fed with messages and times.

:class:`ListenerSession` says what to send and puts what arrives in order; the other end is in
:mod:`streaming.stream.sender_session`. Adapters (:mod:`streaming.transports.websocket`) only move
the messages.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final, TypeAlias

from codec.constants import SAMPLE_RATE, TOKEN_BITS, TOKEN_RATE
from streaming.errors import ProtocolError, RefusedError, TransportError
from streaming.stream.coded import PacketReader
from streaming.stream.traffic import Traffic
from streaming.wire.messages import (
    CODED_KIND,
    MAX_GAP_TOKENS,
    MAX_TOKENS_PER_MESSAGE,
    CodedTokens,
    End,
    Failure,
    Gap,
    Hello,
    Join,
    Message,
    Title,
    Tokens,
    Unknown,
    encoded_size,
)

__all__ = [
    "MOST_REPEATED_TOKENS",
    "CodecIdentity",
    "Event",
    "ListenerSession",
    "State",
]

logger = logging.getLogger(__name__)

MOST_REPEATED_TOKENS: Final = 2 * MAX_TOKENS_PER_MESSAGE
"""A sender repeats no more than this; what lies further back is a stream that has jumped back."""

Event: TypeAlias = Hello | Tokens | Gap | Title | End
"""What :meth:`ListenerSession.receive` reports, in the order of the stream."""


class State(Enum):
    """Where a session stands."""

    JOINING = auto()
    STREAMING = auto()
    ENDED = auto()


@dataclass(frozen=True)
class CodecIdentity:
    """What a listener can decode: a codec with certain weights, SHA-256 ``digest`` in hex."""

    name: str
    weights: str
    digest: str


class ListenerSession:
    """The listener's side: :meth:`join` first, then :meth:`receive` each message.

    When the connection was lost, :meth:`rejoin` gives the first message on the next one. If what
    answers is the same stream, :meth:`receive` goes on where it was, without another Hello, however
    much was missed. If not, or if that stream has gone back to lower numbers, it reports a Hello,
    with which all begins anew.

    Args:
        codec: what can be decoded here, checked against the hello; None accepts every codec (for
            whoever does not decode).
        history: tokens wanted from before the live edge.
        join: the whole first message, instead of history, client and next_token.
        auth_token: the secret that lets us in.

    Attributes:
        hello: as it came last.
        next_token: the index of the token expected next.
        lost_tokens, gaps, duplicate_tokens: so far; gaps are runs of lost tokens.
        title: as last announced.
    """

    def __init__(
        self,
        codec: CodecIdentity | None,
        *,
        history: int = 256,
        client: str = "",
        next_token: int | None = None,
        join: Join | None = None,
        auth_token: str = "",
    ) -> None:
        self._codec = codec
        join = join or Join(history, client, next_token)
        self._join = replace(join, auth_token=auth_token, kinds=(CODED_KIND,))
        self._reader = PacketReader()
        self._resuming = False
        self.state = State.JOINING
        self.hello: Hello | None = None
        self.next_token = 0
        self.lost_tokens = 0
        self.gaps = 0
        self.duplicate_tokens = 0
        self.title = ""
        self.traffic = Traffic()

    def join(self) -> Join:
        """The message to send as soon as the connection stands."""
        return self._join

    def rejoin(self, join: Join | None = None) -> Join:
        """The message to send on a new connection: what is missing is wanted first.

        Args:
            join: begin anew with this instead of going on.
        """
        self.state = State.JOINING
        self._resuming = join is None and self.hello is not None
        if join is not None:
            self._join = replace(join, auth_token=self._join.auth_token, kinds=self._join.kinds)
        if not self._resuming or self.hello is None:
            return self._join
        next_token, stream = self.next_token, self.hello.stream
        return replace(self._join, next_token=next_token, stream=stream, at_s=None)

    def expect(self, codec: CodecIdentity) -> None:
        """From now on this is what can be decoded here."""
        self._codec = codec

    def receive(self, received: Message, now_s: float) -> list[Event]:
        """Take one message; says what it brought, in order and without overlaps.

        A jump forward, of any length, comes as a Gap before the Tokens after it: what to make of it
        is the caller's choice. After an error the connection is of no more use.

        Raises:
            ProtocolError: the message is out of place, or cannot be decoded here.
            RefusedError: it is an error message.
            TransportError: the stream has jumped back.
        """
        message: Message | None = received
        coded_bits = None
        if isinstance(received, CodedTokens):
            coded_bits = 8 * len(received.data)
            message = self._read(received)
        size = encoded_size(received)
        if isinstance(message, Tokens):
            end = message.end_token
            live = self.hello is not None and end > self.hello.next_token
            count = len(message.tokens)
            self.traffic.add(
                size, now_s, tokens=count, end_token=end, live=live, payload_bits=coded_bits
            )
            self._reader.note(message)
        else:
            self.traffic.add(size, now_s, live=self.hello is not None)

        if message is None:
            return []
        if isinstance(message, Failure):
            raise RefusedError(message.code, message.message)
        if isinstance(message, Unknown):
            logger.debug("passing over a message of unknown type %r", message.type)
            return []
        if self.state is State.ENDED:
            logger.debug("passing over what came after the end")
            return []
        if self.state is State.JOINING:
            return self._welcome(message)
        return self._follow(message)

    def _read(self, coded: CodedTokens) -> Tokens | None:
        """Its tokens; None if any on which they are conditioned is missing, so they are lost."""
        hello = self.hello
        if hello is None or self.state is State.JOINING:
            raise ProtocolError("The sender did not begin with a hello; check the address.")
        return self._reader.read(coded, hello.digest, hello.packet_tokens)

    def _welcome(self, message: Message) -> list[Event]:
        if not isinstance(message, Hello):
            raise ProtocolError("The sender did not begin with a hello; check the address.")
        self._check(message)
        goes_on = self._resuming and self._goes_on(message)
        if not goes_on:
            self._reader = PacketReader()
        self.hello = message
        self.state = State.STREAMING
        if goes_on:
            return self._skip_to(message.first_token)
        self.title = message.title
        self.next_token = message.first_token
        return [message]

    def _goes_on(self, hello: Hello) -> bool:
        """Whether ``hello`` begins the rest of the stream that was heard before."""
        before = self.hello
        return (
            before is not None
            and bool(hello.stream)
            and (hello.stream, hello.seed) == (before.stream, before.seed)
            and self.next_token <= hello.next_token
        )

    def _check(self, hello: Hello) -> None:
        rates = (hello.sample_rate, hello.token_rate, hello.token_bits)
        if rates != (SAMPLE_RATE, TOKEN_RATE, TOKEN_BITS):
            raise ProtocolError(
                f"The stream has {hello.token_rate} tokens of {hello.token_bits} bits a second at "
                f"{hello.sample_rate} Hz, and this listener only knows {TOKEN_RATE} of "
                f"{TOKEN_BITS} bits at {SAMPLE_RATE} Hz."
            )
        ours = self._codec
        if ours is None:
            return
        if hello.codec != ours.name:
            raise ProtocolError(
                f"The stream is made with the codec {hello.codec!r} and this listener decodes "
                f"{ours.name!r}; choose the same codec on both sides."
            )
        if hello.digest != ours.digest:
            raise ProtocolError(
                f"The stream is made with the weights {hello.weights!r} ({hello.digest[:12]}…) and "
                f"this listener has {ours.weights!r} ({ours.digest[:12]}…); use the same version "
                "on both sides, or name the stream's weights file with --weights."
            )

    def _follow(self, message: Message) -> list[Event]:
        if isinstance(message, Tokens):
            return self._take_tokens(message)
        if isinstance(message, Gap):
            return self._skip_to(message.first_token + message.count)
        if isinstance(message, Title):
            self.title = message.title
            return [message]
        if isinstance(message, End):
            events = self._skip_to(message.token)
            self.state = State.ENDED
            return [*events, End(self.next_token, message.reason)]
        raise ProtocolError(
            f"The sender sent a {message.type} message in the middle of the stream."
        )

    def _take_tokens(self, message: Tokens) -> list[Event]:
        end = message.end_token
        if self.next_token - end > MOST_REPEATED_TOKENS:
            raise TransportError("The stream has jumped back", "start the listener again")
        overlap = min(max(0, self.next_token - message.first_token), len(message.tokens))
        self.duplicate_tokens += overlap
        if overlap == len(message.tokens):
            return []
        events = self._skip_to(message.first_token)
        self.next_token = end
        return [*events, Tokens(end - len(message.tokens) + overlap, message.tokens[overlap:])]

    def _skip_to(self, token: int) -> list[Event]:
        """Report the tokens from the next one up to ``token`` as lost, if there are any."""
        count = token - self.next_token
        if count <= 0:
            return []
        if count > MAX_GAP_TOKENS:
            minutes = count / TOKEN_RATE / 60
            logger.warning("%.0f minutes of the stream are missing; it begins anew there", minutes)
        gap = Gap(self.next_token, count)
        self.lost_tokens += count
        self.gaps += 1
        self.next_token = token
        return [gap]
