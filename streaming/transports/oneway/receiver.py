"""A listener's end of a one-way link, without the link: frames to the messages of a session.

    bytes ──► frames ──► the packets' whole indices ──► repair ──► hello, tokens, titles, end

What comes out is what a sender would have sent over a WebSocket, and goes into a
:class:`streaming.stream.listener_session.ListenerSession`, which finds the gaps. Until a hello is
heard nothing comes out, but what was received before it is kept and read again with what it tells:
so a listener that tunes in begins with up to 40 s of context.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Sequence
from typing import Final

from codec.constants import TOKEN_RATE
from codec.errors import DataError
from codec.packing import packed_size, unpack_tokens
from streaming.errors import ProtocolError, TransportError, UserError
from streaming.stream.listener_session import CodecIdentity
from streaming.support.sparse_log import SparseLog
from streaming.transports.oneway.fec import Repair
from streaming.transports.oneway.framing import Frame, Kind, Scanner, encode_frame
from streaming.transports.oneway.hello import HELLO_BYTES, MAX_TITLE_BYTES, OneWayHello
from streaming.wire.messages import MAX_INDEX, End, Hello, Message, Title, Tokens, clean_text

__all__ = ["OneWayReceiver"]

logger = logging.getLogger(__name__)
_repeated = SparseLog(logger)

Identify = Callable[[bytes], CodecIdentity]
"""The codec whose weights have a SHA-256 that begins so. Raises ProtocolError."""

_KEPT_BYTES: Final = 2048
_BACK_PACKETS: Final = 32
"""So much later than in its turn a packet may come; what is further back counts as ahead."""
_SURE_PACKETS: Final = 192
"""After a silence of so many packets their numbers of eight bits say nothing."""
_STILL_HERE_S: Final = 6.0
"""Who was heard within this time, and two packets more, has not gone for another one to come."""
_SLACK_S: Final = 60.0
"""By so much a stream may have run ahead of the time since the last packet."""
_SURE_IN_DOUBT_PACKETS: Final = 8
"""How near a packet must be while it is not sure that the stream is where we take it to be."""


class OneWayReceiver:
    """Feed it with :meth:`receive`; the first message that comes out is a hello.

    A checksum of 16 bits is no proof, and anybody may send on a link. So no single frame takes the
    stream to another place than time allows, and none ends it: a second one must say the same.

    Args:
        identify: which codec it is.
        history: at most so many tokens from before the hello are wanted.
        datagrams: whether no frame goes on in the bytes that come next.
        key: without which no frame is believed; with one, nothing that has been heard already is
            heard again.
        reached: how far each stream had come by its context, to be kept from one receiver to the
            next.

    Attributes:
        hello: as it was heard last.
        successor: the frame with which another stream has begun, to begin anew with.
    """

    def __init__(
        self,
        identify: Identify,
        history: int = 256,
        *,
        datagrams: bool = False,
        key: bytes = b"",
        reached: dict[bytes, int] | None = None,
    ) -> None:
        self._identify = identify
        self._history = history
        self._datagrams = datagrams
        self._key = key
        self._reached = {} if reached is None else reached
        self._scanner = self._new_scanner()
        self._heard = b""  # before the hello
        self._context = b""
        self._next = 0
        self._phase = 0
        self._heard_s = 0.0
        self._repair: Repair | None = None
        self._earlier_repairs = 0
        self._told_of_another = False
        self._doubtful: tuple[OneWayHello, float] | None = None  # a jump said once, and when
        self._end: int | None = None  # an end that was said once
        self.hello: OneWayHello | None = None
        self.successor = b""

    @property
    def repaired(self) -> int:
        """How many packets were recovered."""
        return self._earlier_repairs + (0 if self._repair is None else self._repair.repaired)

    def receive(self, data: bytes, now_s: float) -> list[Message]:
        """Take what came from the link; returns messages for the listener's session.

        Raises:
            ProtocolError: the stream cannot be decoded here.
            TransportError: another one has taken its place.
        """
        if self.hello is None:
            self._heard = (self._heard + data)[-_KEPT_BYTES:]
        out: list[Message] = []
        self._scanner.push(data)
        while (frame := self._scanner.next()) is not None:
            if self.hello is None:
                out += self._tune_in(frame, now_s)
            else:
                out += self._take(frame, now_s)
        if self._datagrams:
            self._scanner.clear()
        if self.hello is not None:
            self._reached[self._context] = self._next
        return out

    def _new_scanner(self) -> Scanner:
        return Scanner(self._salt, self._key, self._place)

    def _place(self, kind: Kind, body: bytes) -> bytes:
        """The whole number of a frame that says the low byte of it: a key vouches for it too."""
        if kind not in (Kind.TOKENS, Kind.PARITY):
            return b""
        nearest = self._nearest if kind is Kind.TOKENS else self._nearest_before
        return (nearest(body[0]) % 2**32).to_bytes(4, "big")

    def silence(self) -> list[Message]:
        """Nothing has come for long; returns messages for the listener's session."""
        return [] if self._end is None else [*self._finish(self._end)]

    def _salt(self, kind: Kind, length: int) -> bytes | None:
        """What the checksum of such a frame begins with, if there can be one."""
        if kind is Kind.HELLO:
            return b"" if length == HELLO_BYTES else None
        if self.hello is None:
            return None
        whole = packed_size(self.hello.packet_tokens)
        if kind is Kind.TOKENS:
            return self._context + bytes((self._phase,)) if length == 1 + whole else None
        if kind is Kind.PARITY:
            fits = self.hello.fec is not None and length == 2 + whole
            return self._context + bytes((self._phase,)) if fits else None
        fits = {
            Kind.PLACED: 4 < length < 4 + whole,
            Kind.TITLE: length <= MAX_TITLE_BYTES,
            Kind.END: length == 4,
        }[kind]
        return self._context if fits else None

    def _tune_in(self, frame: Frame, now_s: float) -> list[Message]:
        """Begin with the first hello, and with what was heard before it."""
        said = OneWayHello.decode(frame.body)
        if self._is_past(said):
            return []
        codec = self._identify(said.digest)
        self._context, self.hello = said.context, said
        self._anchor(said, now_s)
        past = self._past(said)
        self._next, self._heard_s = said.next_token, now_s
        first = past[0].first_token if past else said.next_token
        hello = Hello(
            codec=codec.name,
            weights=codec.weights,
            digest=codec.digest,
            seed=said.seed,
            first_token=first,
            next_token=said.next_token,
            age_s=0.0,
            delay_s=said.delay_s,
            packet_tokens=said.packet_tokens,
            stream=f"{said.stream_tag:04x}",
        )
        return [hello, *past]

    def _past(self, said: OneWayHello) -> list[Tokens]:
        """What was heard before the hello, as far as it is wanted."""
        base = max(0, self._number(said.next_token) - _SURE_PACKETS)
        self._next, self._heard_s = self._phase + base * said.packet_tokens, -math.inf
        scanner = self._new_scanner()
        scanner.push(self._heard[: len(self._heard) - self._scanner.unread_bytes])
        self._heard = b""
        past: list[Tokens] = []
        while (frame := scanner.next()) is not None:
            if frame.kind in (Kind.TOKENS, Kind.PARITY):
                past += [item for item in self._take(frame, 0.0) if isinstance(item, Tokens)]
        oldest = said.next_token - self._history
        return [tokens for tokens in past if oldest <= tokens.first_token < said.next_token]

    def _number(self, token: int) -> int:
        assert self.hello is not None
        return (token - self._phase) // self.hello.packet_tokens

    def _nearest(self, low: int) -> int:
        """The number of a packet that ends in the byte ``low``."""
        base = self._number(self._next)
        ahead = (low - base) % 256
        return base + ahead - (256 if ahead >= 256 - _BACK_PACKETS else 0)

    def _nearest_before(self, low: int) -> int:
        """The same of a packet that has been sent."""
        base = self._number(self._next)
        return base - (base - low) % 256

    def _anchor(self, said: OneWayHello, now_s: float) -> None:
        """The stream stands where the hello says."""
        self._next = said.next_token
        self._phase = said.next_token % said.packet_tokens
        self._heard_s = now_s
        self._renew_repair(said)

    def _take(self, frame: Frame, now_s: float) -> Sequence[Tokens | Title | End]:
        body = frame.body
        if frame.kind is Kind.HELLO:
            return self._hear_again(body, now_s)
        if frame.kind is Kind.TOKENS:
            return self._packet(body[0], body[1:], now_s)
        if frame.kind is Kind.PARITY:
            return self._parity(body[0], body[1], body[2:])
        if frame.kind is Kind.PLACED:
            return self._placed(int.from_bytes(body[:4], "big"), body[4:], now_s)
        if frame.kind is Kind.TITLE:
            return [Title(clean_text(body.decode("utf-8", "replace")), self._next)]
        end = int.from_bytes(body, "big")
        before, self._end = self._end, end if self._near(end, now_s) else None
        return [] if self._end is None or self._end != before else self._finish(end)

    def _finish(self, end: int) -> list[Tokens | End]:
        held = [] if self._repair is None else self._repair.flush()
        return [*self._tokens(held), End(end)]

    def _near(self, token: int, now_s: float) -> bool:
        """Whether the stream can have come to ``token`` since the last packet."""
        return 0 <= token - self._next <= self._reach(now_s)

    def _reach(self, now_s: float) -> float:
        """How many tokens the stream can have gone on by since the last packet."""
        return (now_s - self._heard_s + _SLACK_S) * TOKEN_RATE

    def _packet(self, low: int, payload: bytes, now_s: float) -> list[Tokens]:
        """A packet whose number ends in the byte ``low``."""
        hello = self.hello
        assert hello is not None
        packet_s = hello.packet_tokens / TOKEN_RATE
        number = self._nearest(low)
        ahead = number - self._number(self._next)
        silent_s = now_s - self._heard_s
        unsure = _SURE_PACKETS * packet_s < silent_s < math.inf
        if self._doubtful is not None:
            unsure |= abs(ahead) > _SURE_IN_DOUBT_PACKETS
        if unsure or ahead * packet_s > silent_s + _SLACK_S:
            return []
        end = self._phase + (number + 1) * hello.packet_tokens
        if number < 0 or end > MAX_INDEX:
            return []
        self._next, self._heard_s = max(self._next, end), max(self._heard_s, now_s)
        self._end = None
        if self._repair is None:
            return self._tokens([(number, payload)])
        return self._tokens(self._repair.packet(number, payload))

    def _parity(self, low: int, place: int, payload: bytes) -> list[Tokens]:
        if self._repair is None or self.hello is None or self.hello.fec is None:
            return []
        fec, first = self.hello.fec, self._nearest_before(low)
        back = self._number(self._next) - first
        late = back > fec.data + fec.parity + _BACK_PACKETS
        if late or first < 0 or first % fec.data or place >= fec.parity:
            return []
        return self._tokens(self._repair.parity(first, place, payload))

    def _placed(self, first: int, payload: bytes, now_s: float) -> list[Tokens]:
        """Tokens that are no whole packet."""
        assert self.hello is not None
        if not self._near(first, now_s):
            return []
        try:
            tokens = Tokens(first, unpack_tokens(payload))
        except DataError:
            return []
        if tokens.end_token > MAX_INDEX:
            return []
        held = [] if self._repair is None else self._repair.flush()
        self._next, self._heard_s, self._end = tokens.end_token, now_s, None
        if self.hello.fec is not None:
            self._renew_repair(self.hello)
        return [*self._tokens(held), tokens]

    def _hear_again(self, body: bytes, now_s: float) -> list[Tokens]:
        """A hello in the middle of the stream: of this one as a rule."""
        assert self.hello is not None
        try:
            said = OneWayHello.decode(body)
        except ProtocolError as error:
            logger.debug("passing over a hello: %s", error)
            return []
        if self._is_past(said):
            return []
        if said.context != self._context:
            if self._takes_the_place(said, now_s):
                self.successor = encode_frame(Kind.HELLO, body, key=self._key)
                raise TransportError("Another stream has begun on this link.")
            return []
        ahead = said.next_token - self._next
        if not self._believed(said, now_s):
            return []
        if ahead < -_BACK_PACKETS * said.packet_tokens:
            self.successor = encode_frame(Kind.HELLO, body, key=self._key)
            raise TransportError("The stream on this link has jumped back.")
        self.hello = said
        if ahead <= 0:
            return []
        tokens: list[Tokens] = []
        if said.next_token % said.packet_tokens != self._phase:
            tokens = self._tokens([] if self._repair is None else self._repair.flush())
            self._anchor(said, now_s)
        self._next, self._heard_s = said.next_token, now_s
        return tokens

    def _is_past(self, said: OneWayHello) -> bool:
        """Whether somebody repeats a hello that was heard before; without a key it may be true."""
        past = self._reached.get(said.context, -1)
        if said.context == self._context:  # in which one may be overtaken
            past -= _BACK_PACKETS * said.packet_tokens
        if not self._key or said.next_token > past:
            return False
        _repeated.warning("what was sent before is heard again, and passed over")
        return True

    def _takes_the_place(self, other: OneWayHello, now_s: float) -> bool:
        """Whether ``other`` is what is to be heard from now on."""
        packet_s = other.packet_tokens / TOKEN_RATE
        why = "another sender is heard on this link too"
        if now_s - self._heard_s >= _STILL_HERE_S + 2 * packet_s:
            try:
                self._identify(other.digest)
            except ProtocolError as error:
                why = f"another sender is heard on this link: {error}"
            else:
                return True
        if not self._told_of_another:
            logger.warning("%s", why)
            self._told_of_another = True
        return False

    def _believed(self, said: OneWayHello, now_s: float) -> bool:
        """Whether the stream is where ``said`` says: time allows it, or it was said before."""
        back = _BACK_PACKETS * said.packet_tokens
        before, self._doubtful = self._doubtful, None
        if -back <= said.next_token - self._next <= self._reach(now_s):
            return True
        if before is not None:
            first, at_s = before
            since = said.next_token - first.next_token
            if 0 <= since <= (now_s - at_s + _SLACK_S) * TOKEN_RATE:
                return True
        self._doubtful = said, now_s
        return False

    def _renew_repair(self, hello: OneWayHello) -> None:
        self._earlier_repairs = self.repaired
        self._repair = _repair(hello)

    def _tokens(self, packets: list[tuple[int, bytes]]) -> list[Tokens]:
        """Packets by number and payload as tokens; those that hold none are left out."""
        assert self.hello is not None
        out = []
        for number, payload in packets:
            with contextlib.suppress(DataError):  # padding that is not zero
                first = self._phase + number * self.hello.packet_tokens
                out.append(Tokens(first, unpack_tokens(payload)))
        return out


def _repair(hello: OneWayHello) -> Repair | None:
    if hello.fec is None:
        return None
    try:
        return Repair(hello.fec)
    except UserError as error:
        logger.warning("losses are not repaired: %s", error)
        return None
