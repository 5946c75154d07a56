"""The sender's end of a one-way link, without the link: the stream's messages to frames.

Nobody answers, so nothing is said once: the hello comes back every 25 s, the title as often as
``TITLE_BITS_PER_S`` lets it, the end three times.
"""

from __future__ import annotations

from typing import Final

from codec.constants import TOKEN_RATE
from codec.packing import pack_tokens, packed_size
from streaming.transports.oneway.fec import FecEncoder
from streaming.transports.oneway.framing import Kind, encode_frame, frame_overhead
from streaming.transports.oneway.hello import HELLO_BYTES, MAX_TITLE_BYTES, Fec, OneWayHello
from streaming.wire.messages import StreamInfo, Tokens, clean_text

__all__ = ["HELLO_INTERVAL_TOKENS", "TITLE_BITS_PER_S", "Framer", "bit_rate"]

HELLO_INTERVAL_TOKENS: Final = 624
"""24.96 s: thirteen packets of 48 tokens."""
_HELLO_AGAIN_TOKENS: Final = 96
"""Behind a jump, in case that the hello which tells of it is lost."""
TITLE_BITS_PER_S: Final = 1.5
_END_COPIES: Final = 3


class Framer:
    """Frames of one stream. All methods return them in the order in which they are to be sent.

    Args:
        info: the stream.
        fec: the code across packets, if any.
        key: of the frames' tags, if they have any.

    Raises:
        SettingsError: frames cannot carry the stream.
    """

    def __init__(self, info: StreamInfo, fec: Fec | None = None, key: bytes = b"") -> None:
        self._key = key
        self._hello = OneWayHello.of(info, fec)
        self._context = self._hello.context
        self._packet_tokens = info.packet_tokens
        self._fec = fec
        self._encoder = None if fec is None else FecEncoder(fec)
        self._next: int | None = None
        self._phase = 0
        self._since_hello = 0
        self._title = b""
        self._title_is_new = False
        self._max_title_frame = MAX_TITLE_BYTES + frame_overhead(key)
        self._title_bytes = float(self._max_title_frame)  # that may be spent

    def title(self, title: str) -> None:
        """What plays from here on; sent with the packets."""
        data = clean_text(title).encode()
        cut = data[:MAX_TITLE_BYTES].decode("utf-8", "ignore").encode()
        self._title_is_new = cut != self._title
        self._title = cut

    def tokens(self, tokens: Tokens, delay_s: float = 0.0) -> list[bytes]:
        """Tokens of any number, cut into packets.

        Args:
            delay_s: see the hello.
        """
        frames: list[bytes] = []
        first = tokens.first_token
        if first != self._next:
            frames += self._say_hello(first, delay_s)
            self._since_hello = HELLO_INTERVAL_TOKENS - _HELLO_AGAIN_TOKENS
        while first < tokens.end_token:
            # Up to the next place where a packet begins, so that what follows is in step again.
            room = self._packet_tokens - (first - self._phase) % self._packet_tokens
            at = first - tokens.first_token
            part = Tokens(first, tokens.tokens[at : at + room])
            frames += self._packet(part)
            first = part.end_token
            frames += self._beside(len(part.tokens), delay_s)
        return frames

    def end(self) -> list[bytes]:
        """The stream is over."""
        body = (self._next or 0).to_bytes(4, "big")
        return [self._frame(Kind.END, body)] * _END_COPIES

    def _frame(self, kind: Kind, body: bytes) -> bytes:
        return encode_frame(kind, body, self._context, self._key)

    def _numbered(self, kind: Kind, number: int, rest: bytes) -> bytes:
        """A frame that says the low byte of a packet's number; with a key all of it counts."""
        salt = (
            self._context
            + bytes((self._phase,))
            + (number.to_bytes(4, "big") if self._key else b"")
        )
        return encode_frame(kind, bytes((number & 255,)) + rest, salt, self._key)

    def _packet(self, part: Tokens) -> list[bytes]:
        payload = pack_tokens(part.tokens)
        first, self._next = part.first_token, part.end_token
        if len(part.tokens) != self._packet_tokens:
            body = first.to_bytes(4, "big") + payload
            return [self._frame(Kind.PLACED, body)]
        number = (first - self._phase) // self._packet_tokens
        frames = [self._numbered(Kind.TOKENS, number, payload)]
        if self._encoder is not None:
            for group, place, row in self._encoder.push(number, payload):
                frames.append(self._numbered(Kind.PARITY, group, bytes((place,)) + row))
        return frames

    def _beside(self, sent_tokens: int, delay_s: float) -> list[bytes]:
        """Title and hello, if it is time for them."""
        assert self._next is not None
        frames = []
        earned = TITLE_BITS_PER_S / 8 * sent_tokens / TOKEN_RATE
        self._title_bytes = min(2.0 * self._max_title_frame, self._title_bytes + earned)
        frame = self._frame(Kind.TITLE, self._title)
        # What is told again must leave enough for what may come to be told.
        needed = len(frame) if self._title_is_new else self._max_title_frame + len(frame)
        if (self._title or self._title_is_new) and self._title_bytes >= needed:
            self._title_bytes -= len(frame)
            self._title_is_new = False
            frames.append(frame)
        self._since_hello += sent_tokens
        if self._since_hello >= HELLO_INTERVAL_TOKENS:
            frames += self._say_hello(self._next, delay_s)
        return frames

    def _say_hello(self, next_token: int, delay_s: float) -> list[bytes]:
        self._since_hello = 0
        self._next = next_token
        phase = next_token % self._packet_tokens
        if phase != self._phase and self._fec is not None:
            self._encoder = FecEncoder(self._fec)  # packets are numbered anew
        self._phase = phase
        hello = self._hello.at(next_token, delay_s)
        return [encode_frame(Kind.HELLO, hello.encode(), key=self._key)]


def bit_rate(packet_tokens: int, fec: Fec | None = None, key: bytes = b"") -> float:
    """Bits a second of everything: packets, hello, title, parity, and tags if there is a key."""
    packet_s = packet_tokens / TOKEN_RATE
    packet = frame_overhead(key) + 1 + packed_size(packet_tokens)
    hello_s = -(-HELLO_INTERVAL_TOKENS // packet_tokens) * packet_s
    beside = 8 * (HELLO_BYTES + frame_overhead(key)) / hello_s
    parity = 0.0 if fec is None else (packet + 1) * fec.parity / fec.data
    return 8 * (packet + parity) / packet_s + beside + TITLE_BITS_PER_S
