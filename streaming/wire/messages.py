"""The messages on the wire, protocol version 1: what they hold and how they are written.

Text messages are JSON objects with a ``type``: ``join`` from the listener, ``hello``, ``title``,
``gap``, ``end`` and ``error`` from the sender, ``publish`` from a sender that dials a relay, which
answers with ``join``. Binary messages begin with a byte for their kind: ``01`` are tokens, with the
index of the first one (32 bits, big-endian), then the tokens packed to 14 bits each, their count
following from the length; ``02`` is a packet of entropy-coded ones, for listeners whose join names
that kind.

:mod:`streaming.wire.parsing` reads them.
"""

from __future__ import annotations

import json
import struct
import unicodedata
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from codec.constants import SAMPLE_RATE, TOKEN_BITS, TOKEN_RATE
from codec.packing import pack_tokens, packed_size

__all__ = [
    "CODED_HEADER",
    "CODED_KIND",
    "MAX_AUTH_TOKEN",
    "MAX_CLIENT_MESSAGE",
    "MAX_DELAY_S",
    "MAX_GAP_TOKENS",
    "MAX_INDEX",
    "MAX_NAME",
    "MAX_SEED",
    "MAX_SERVER_MESSAGE",
    "MAX_TITLE",
    "MAX_TOKENS_PER_MESSAGE",
    "MAX_UNIX_S",
    "PROTOCOL_VERSION",
    "TOKENS_HEADER",
    "TOKENS_KIND",
    "CodedTokens",
    "End",
    "Failure",
    "Gap",
    "Hello",
    "Join",
    "Message",
    "Publish",
    "StreamIdentity",
    "StreamInfo",
    "Title",
    "Tokens",
    "Unknown",
    "clean_text",
    "encoded_size",
]

PROTOCOL_VERSION: Final = 1
MAX_CLIENT_MESSAGE: Final = 4096
"""Longest message in bytes that a sender takes from a listener."""
MAX_SERVER_MESSAGE: Final = 65_536
"""Longest message in bytes that a listener takes from a sender."""
MAX_TOKENS_PER_MESSAGE: Final = 1024
MAX_INDEX: Final = 2**32 - 1
"""Highest token index: five years of music."""
MAX_GAP_TOKENS: Final = 600 * TOKEN_RATE
"""A longer gap (ten minutes) is closed: what follows it is heard right after what came before."""
MAX_TITLE: Final = 200
"""Characters of a title; longer ones are cut."""
MAX_NAME: Final = 64
MAX_DELAY_S: Final = 86_400.0
MAX_AUTH_TOKEN: Final = 1024
"""Characters of the secret that lets a listener in."""
MAX_UNIX_S: Final = 253_402_300_799.0  # the end of the year 9999
MAX_SEED: Final = 2**53 - 1  # what every JSON implementation can hold exactly

TOKENS_KIND: Final = 1
TOKENS_HEADER: Final = struct.Struct(">BI")
CODED_KIND: Final = 2
CODED_HEADER: Final = struct.Struct(">BIB")
_JOINERS: Final = "\u200c\u200d"  # format characters that words and emoji are written with


@dataclass(frozen=True)
class Join:
    """A listener's first message.

    Attributes:
        history: tokens wanted from before the live edge.
        client: what the listener calls itself.
        next_token: the index of the first token wanted; on coming back, the first not got yet.
        stream: on coming back, the stream of which that is a token; empty for any.
        at_s: what played at this Unix time is wanted instead.
        auth_token: the secret that lets the listener in, if one is needed.
        kinds: of binary messages that the listener takes beside ``01``.
    """

    type: ClassVar = "join"
    history: int = 256
    client: str = ""
    next_token: int | None = None
    stream: str = ""
    at_s: float | None = None
    auth_token: str = field(default="", repr=False)
    kinds: tuple[int, ...] = ()

    def encode(self) -> str:
        """As JSON text."""
        fields: dict[str, Any] = {"protocol": PROTOCOL_VERSION, "history": self.history}
        if self.client:
            fields["client"] = clean_text(self.client, MAX_NAME)
        if self.next_token is not None:
            fields["next_token"] = self.next_token
        if self.stream:
            fields["stream"] = self.stream
        if self.at_s is not None:
            fields["at_s"] = round(self.at_s, 3)
        if self.auth_token:
            fields["auth_token"] = self.auth_token
        if self.kinds:
            fields["kinds"] = list(self.kinds)
        return _to_json(self.type, fields)


@dataclass(frozen=True)
class Publish:
    """A sender's first message to a relay that it dials: it has a stream, if the relay will join.

    Attributes:
        publisher: what this sender calls itself, another with each start. With the same name it
            takes the place of a connection that it has given up and the relay may still take for
            alive.
        auth_token: the secret that lets a publisher in, never the one of listeners.
    """

    type: ClassVar = "publish"
    publisher: str
    auth_token: str = field(default="", repr=False)

    def encode(self) -> str:
        """As JSON text."""
        return _to_json(
            self.type,
            {
                "protocol": PROTOCOL_VERSION,
                "publisher": clean_text(self.publisher, MAX_NAME),
                "auth_token": self.auth_token,
            },
        )


@dataclass(frozen=True)
class StreamIdentity:
    """Which stream it is: what decodes its tokens, and whose numbers they have.

    Attributes:
        digest: SHA-256 of the weights in hex.
        seed: of the decoders' noise.
        stream: names the stream, so that who comes back knows whether it is the same; empty if the
            numbers are nobody else's.
    """

    codec: str
    weights: str
    digest: str
    seed: int = 0
    stream: str = ""

    @property
    def identity(self) -> StreamIdentity:
        """This alone, of a record that holds more."""
        return StreamIdentity(self.codec, self.weights, self.digest, self.seed, self.stream)

    def same_stream(self, other: StreamIdentity) -> bool:
        """Whether both have the same tokens, which sound the same; weights may have two names."""
        ours = (self.codec, self.digest, self.seed, self.stream)
        return ours == (other.codec, other.digest, other.seed, other.stream)


@dataclass(frozen=True)
class StreamInfo(StreamIdentity):
    """What does not change during a stream and is said in every hello."""

    packet_tokens: int = 48

    @property
    def info(self) -> StreamInfo:
        """This alone, of a record that holds more."""
        return StreamInfo(**vars(self.identity), packet_tokens=self.packet_tokens)


@dataclass(frozen=True, kw_only=True)
class Hello(StreamInfo):
    """The sender's first message: all that both ends must agree on, and where the stream stands.

    Times that no listener would believe, from a clock that is wrong by ages, are not written.

    Attributes:
        first_token: index of the first token that follows.
        next_token: the live edge, one past the last token released.
        age_s: seconds since that release.
        delay_s: seconds from a source sample to the release of its token when it is the last of its
            packet (lookahead and computing).
        first_at_s: Unix time at which the first token played at the source, if it is known.
    """

    type: ClassVar = "hello"
    first_token: int
    next_token: int
    age_s: float
    delay_s: float
    title: str = ""
    first_at_s: float | None = None
    sample_rate: int = SAMPLE_RATE
    token_rate: int = TOKEN_RATE
    token_bits: int = TOKEN_BITS

    def encode(self) -> str:
        """As JSON text."""
        optional: dict[str, Any] = {}
        if self.stream:
            optional["stream"] = self.stream
        if self.first_at_s is not None and 0 <= self.first_at_s <= MAX_UNIX_S:
            optional["first_at_s"] = round(self.first_at_s, 3)
        return _to_json(
            self.type,
            {
                "protocol": PROTOCOL_VERSION,
                "codec": self.codec,
                "weights": self.weights,
                "digest": self.digest,
                "sample_rate": self.sample_rate,
                "token_rate": self.token_rate,
                "token_bits": self.token_bits,
                "seed": self.seed,
                "first_token": self.first_token,
                "next_token": self.next_token,
                "age_s": round(min(max(0.0, self.age_s), MAX_DELAY_S), 3),
                "delay_s": round(min(max(0.0, self.delay_s), MAX_DELAY_S), 3),
                "packet_tokens": self.packet_tokens,
                "title": clean_text(self.title),
                **optional,
            },
        )


@dataclass(frozen=True, eq=False)
class Tokens:
    """Tokens int64 ``[n]``, ``1 <= n <= 1024``, at absolute positions from ``first_token`` on."""

    first_token: int
    tokens: NDArray[np.int64]

    @property
    def end_token(self) -> int:
        """Index one past the last token."""
        return self.first_token + len(self.tokens)

    def check(self) -> None:
        """Raise ValueError on tokens or positions that no message can carry."""
        if not 1 <= len(self.tokens) <= MAX_TOKENS_PER_MESSAGE:
            raise ValueError(f"a message carries 1 to {MAX_TOKENS_PER_MESSAGE} tokens")
        if not 0 <= self.first_token <= MAX_INDEX:
            raise ValueError(f"token index {self.first_token} does not fit into a message")
        if self.tokens.min() < 0 or self.tokens.max() >> TOKEN_BITS:
            raise ValueError(f"tokens are numbers of {TOKEN_BITS} bits")

    def encode(self) -> bytes:
        """As a binary message. Raises ValueError as :meth:`check` does."""
        self.check()
        return TOKENS_HEADER.pack(TOKENS_KIND, self.first_token) + pack_tokens(self.tokens)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tokens):
            return NotImplemented
        same_place = self.first_token == other.first_token
        return same_place and np.array_equal(self.tokens, other.tokens)

    def __hash__(self) -> int:
        return hash((self.first_token, self.tokens.tobytes()))


@dataclass(frozen=True)
class CodedTokens:
    """One packet of tokens, as many as the hello says, coded as docs/entropy.md describes.

    Attributes:
        context: how many of the tokens just before ``first_token`` one must have to decode
            ``data``.
    """

    type: ClassVar = "coded"
    first_token: int
    context: int
    data: bytes

    def encode(self) -> bytes:
        """As a binary message. Raises ValueError on positions that it cannot carry."""
        if not 0 <= self.context <= min(self.first_token, 255) or self.first_token > MAX_INDEX:
            raise ValueError(
                f"{self.context} tokens before token {self.first_token} do not fit into a message"
            )
        return CODED_HEADER.pack(CODED_KIND, self.first_token, self.context) + self.data


@dataclass(frozen=True)
class Title:
    """What plays from ``token`` on."""

    type: ClassVar = "title"
    title: str
    token: int

    def encode(self) -> str:
        """As JSON text."""
        return _to_json(self.type, {"title": clean_text(self.title), "token": self.token})


@dataclass(frozen=True)
class Gap:
    """``count`` tokens from ``first_token`` on are missing and will not come."""

    type: ClassVar = "gap"
    first_token: int
    count: int

    def encode(self) -> str:
        """As JSON text."""
        return _to_json(self.type, {"first_token": self.first_token, "count": self.count})


@dataclass(frozen=True)
class End:
    """The stream is over; ``token`` is one past its last token."""

    type: ClassVar = "end"
    token: int
    reason: str = ""

    def encode(self) -> str:
        """As JSON text."""
        return _to_json(self.type, {"token": self.token, "reason": clean_text(self.reason)})


@dataclass(frozen=True)
class Failure:
    """An ``error`` message: why the other end closes the connection.

    Attributes:
        code: a word for programs. ``protocol``, ``timeout``, ``auth``: a fault of the other end's;
            ``lag``: it is too far behind; ``busy``: somebody else publishes there; ``away``: the
            sender goes, or has not come yet, and means to come (back), while after an ``end`` there
            is nothing to come back to.
        message: a sentence for people.
    """

    type: ClassVar = "error"
    code: str
    message: str

    def encode(self) -> str:
        """As JSON text."""
        fields = {"code": clean_text(self.code, MAX_NAME), "message": clean_text(self.message)}
        return _to_json(self.type, fields)


@dataclass(frozen=True)
class Unknown:
    """A message of a type that this version does not know; to be passed over.

    Attributes:
        size: of the message, in bytes.
    """

    type: str
    size: int = field(default=0, compare=False)

    def encode(self) -> str:
        """Raises ValueError: nobody says what nobody knows."""
        raise ValueError(f"a message of type {self.type!r} is not known")


Message: TypeAlias = (
    Join | Publish | Hello | Tokens | CodedTokens | Title | Gap | End | Failure | Unknown
)


def encoded_size(message: Message) -> int:
    """Bytes of ``message`` as it is sent, without those of any transport."""
    if isinstance(message, Tokens):
        return TOKENS_HEADER.size + packed_size(len(message.tokens))
    if isinstance(message, CodedTokens):
        return CODED_HEADER.size + len(message.data)
    if isinstance(message, Unknown):
        return message.size
    return len(message.encode().encode("utf-8", "replace"))


def clean_text(text: str, limit: int = MAX_TITLE) -> str:
    """``text`` on one line: no control or other invisible characters, at most ``limit`` long."""
    kept = (
        " "
        if character.isspace()
        else character
        if character in _JOINERS or unicodedata.category(character)[0] != "C"
        else ""
        for character in text[: 4 * limit]
    )
    return " ".join("".join(kept).split())[:limit].rstrip()


def _to_json(kind: str, fields: dict[str, Any]) -> str:
    return json.dumps({"type": kind, **fields}, ensure_ascii=False, separators=(",", ":"))
