"""The messages on the wire, protocol version 1: what they hold, how they are written and read.

Text messages are JSON objects with a ``type``: ``join`` from the listener, ``hello``, ``title``,
``gap``, ``end`` and ``error`` from the sender. Binary messages begin with a byte for their kind;
the only kind so far is tokens: ``01``, the index of the first token (32 bits, big-endian), then the
tokens packed to 14 bits each, their count following from the length.

:func:`decode` trusts nothing: every field is checked for type and range before it is used, and
whatever is wrong raises ProtocolError with one sentence. For later versions' sake fields and event
types that it does not know are passed over; binary kinds that it does not know are refused, since
what they carry would be missing from the sound.
"""

from __future__ import annotations

import json
import re
import struct
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from codec.constants import SAMPLE_RATE, TOKEN_BITS, TOKEN_RATE
from streaming.errors import ProtocolError
from streaming.packing import pack_tokens, unpack_tokens

__all__ = [
    "MAX_AUTH_TOKEN",
    "MAX_CLIENT_MESSAGE",
    "MAX_DELAY_S",
    "MAX_INDEX",
    "MAX_SEED",
    "MAX_SERVER_MESSAGE",
    "MAX_TITLE",
    "MAX_TOKENS_PER_MESSAGE",
    "PROTOCOL_VERSION",
    "End",
    "Failure",
    "Gap",
    "Hello",
    "Join",
    "Message",
    "Title",
    "Tokens",
    "Unknown",
    "clean_text",
    "decode",
]

PROTOCOL_VERSION: Final = 1
MAX_CLIENT_MESSAGE: Final = 4096
"""Longest message in bytes that a sender takes from a listener."""
MAX_SERVER_MESSAGE: Final = 65_536
"""Longest message in bytes that a listener takes from a sender."""
MAX_TOKENS_PER_MESSAGE: Final = 1024
MAX_INDEX: Final = 2**32 - 1
"""Highest token index: five years of music."""
MAX_TITLE: Final = 200
"""Characters of a title; longer ones are cut."""
MAX_NAME: Final = 64
MAX_DELAY_S: Final = 86_400.0
MAX_AUTH_TOKEN: Final = 1024
"""Characters of the secret that lets a listener in."""
MAX_UNIX_S: Final = 253_402_300_799.0  # the end of the year 9999
MAX_SEED: Final = 2**53 - 1  # what every JSON implementation can hold exactly

_TOKENS_KIND: Final = 1
_TOKENS_HEADER: Final = struct.Struct(">BI")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_JOINERS: Final = "\u200c\u200d"  # format characters that words and emoji are written with


@dataclass(frozen=True)
class Join:
    """A listener's first message: ``history`` tokens wanted from before the live edge.

    next_token: the index of the first token wanted, on coming back the first not got yet. stream:
    on coming back, the stream of which that is a token; empty for any. at_s: what played at this
    Unix time is wanted instead. auth_token: the secret that lets the listener in, where one is
    needed.
    """

    type: ClassVar = "join"
    history: int = 256
    client: str = ""
    next_token: int | None = None
    stream: str = ""
    at_s: float | None = None
    auth_token: str = field(default="", repr=False)

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
        return _to_json(self.type, fields)


@dataclass(frozen=True)
class Hello:
    """The sender's first message: all that both ends must agree on, and where the stream stands.

    first_token: index of the first token that follows. next_token: the live edge, one past the last
    token released. age_s: seconds since that release. delay_s: seconds from a source sample to the
    release of its token when it is the last of its packet (lookahead and computing). stream: names
    the stream whose tokens these indices count, so that who comes back knows whether they are the
    same. first_at_s: Unix time at which the first token played at the source, where it is known.
    """

    type: ClassVar = "hello"
    codec: str
    weights: str
    digest: str
    seed: int
    first_token: int
    next_token: int
    age_s: float
    delay_s: float
    packet_tokens: int
    title: str = ""
    stream: str = ""
    first_at_s: float | None = None
    sample_rate: int = SAMPLE_RATE
    token_rate: int = TOKEN_RATE
    token_bits: int = TOKEN_BITS

    def encode(self) -> str:
        """As JSON text."""
        optional: dict[str, Any] = {}
        if self.stream:
            optional["stream"] = self.stream
        if self.first_at_s is not None:
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
                "age_s": round(self.age_s, 3),
                "delay_s": round(self.delay_s, 3),
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

    def encode(self) -> bytes:
        """As a binary message. Raises ValueError on tokens or positions that it cannot carry."""
        if not 1 <= len(self.tokens) <= MAX_TOKENS_PER_MESSAGE:
            raise ValueError(f"a message carries 1 to {MAX_TOKENS_PER_MESSAGE} tokens")
        if not 0 <= self.first_token <= MAX_INDEX:
            raise ValueError(f"token index {self.first_token} does not fit into a message")
        return _TOKENS_HEADER.pack(_TOKENS_KIND, self.first_token) + pack_tokens(self.tokens)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tokens):
            return NotImplemented
        same_place = self.first_token == other.first_token
        return same_place and np.array_equal(self.tokens, other.tokens)

    def __hash__(self) -> int:
        return hash((self.first_token, self.tokens.tobytes()))


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
    """An ``error`` event: why the other end closes the connection.

    code: a word for programs (``protocol``, ``lag``, ``timeout``, ``auth``). message: a sentence
    for people.
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
    """An event of a type that this version does not know; to be passed over."""

    type: str


Message: TypeAlias = Join | Hello | Tokens | Title | Gap | End | Failure | Unknown


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


def decode(data: str | bytes) -> Message:
    """Read one message; text is JSON, bytes are tokens. Raises ProtocolError on anything else."""
    return _decode_binary(data) if isinstance(data, bytes) else _decode_text(data)


def _decode_binary(data: bytes) -> Tokens:
    if len(data) > MAX_SERVER_MESSAGE:
        raise ProtocolError(f"A message of {len(data)} bytes is too long.")
    if not data:
        raise ProtocolError("An empty binary message is no part of the protocol.")
    if data[0] != _TOKENS_KIND:
        raise ProtocolError(f"Binary messages of kind {data[0]} are not known to this version.")
    if len(data) <= _TOKENS_HEADER.size:
        raise ProtocolError(f"A token message of {len(data)} bytes is too short.")
    _, first_token = _TOKENS_HEADER.unpack_from(data)
    tokens = unpack_tokens(data[_TOKENS_HEADER.size :])
    if len(tokens) > MAX_TOKENS_PER_MESSAGE:
        raise ProtocolError(f"A message of {len(tokens)} tokens is too long.")
    if first_token + len(tokens) > MAX_INDEX:
        raise ProtocolError(f"The token index {first_token} is out of range.")
    return Tokens(first_token, tokens)


def _decode_text(data: str) -> Message:
    if len(data) > MAX_SERVER_MESSAGE:
        raise ProtocolError(f"A message of {len(data)} characters is too long.")
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise ProtocolError("A text message is not valid JSON.") from None
    if not isinstance(fields, dict):
        raise ProtocolError("A text message is not a JSON object.")
    kind = fields.get("type")
    if not isinstance(kind, str):
        raise ProtocolError("A text message has no type.")
    read = _Fields(fields, kind)
    decoder = _DECODERS.get(kind)
    return Unknown(clean_text(kind, MAX_NAME)) if decoder is None else decoder(read)


class _Fields:
    """The fields of one JSON message, each checked as it is read."""

    def __init__(self, fields: dict[str, Any], kind: str) -> None:
        self._fields = fields
        self._kind = kind

    def _wrong(self, name: str, expected: str) -> ProtocolError:
        where = f"The field {name!r} of the {self._kind} message"
        return ProtocolError(
            f"{where} is not {expected}." if name in self._fields else f"{where} is missing."
        )

    def integer(self, name: str, low: int = 0, high: int = MAX_INDEX) -> int:
        value = self._fields.get(name)
        if type(value) is not int or not low <= value <= high:  # a bool is an int, but not here
            raise self._wrong(name, f"a whole number from {low} to {high}")
        return value

    def seconds(self, name: str, high: float = MAX_DELAY_S) -> float:
        value: Any = self._fields.get(name)
        # The comparison is false for NaN, and infinities are out of range.
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 <= value <= high:
            raise self._wrong(name, f"a number of seconds from 0 to {high:.0f}")
        return float(value)

    def secret(self, name: str) -> str:
        """As it was sent: cleaning would let a longer secret pass for a shorter one."""
        value = self._fields.get(name, "")
        if not isinstance(value, str) or len(value) > MAX_AUTH_TOKEN:
            raise self._wrong(name, f"text of at most {MAX_AUTH_TOKEN} characters")
        return value

    def text(self, name: str, limit: int = MAX_TITLE, default: str | None = None) -> str:
        value = self._fields.get(name, default)
        if not isinstance(value, str):
            raise self._wrong(name, "text")
        return clean_text(value, limit)

    def has(self, name: str) -> bool:
        return self._fields.get(name) is not None

    def check_version(self) -> None:
        version = self.integer("protocol", low=1)
        if version != PROTOCOL_VERSION:
            raise ProtocolError(
                f"The other end speaks protocol version {version} and this one version "
                f"{PROTOCOL_VERSION}; update the older of the two."
            )


def _decode_join(read: _Fields) -> Join:
    read.check_version()
    return Join(
        history=read.integer("history"),
        client=read.text("client", MAX_NAME, default=""),
        next_token=read.integer("next_token") if read.has("next_token") else None,
        stream=read.text("stream", MAX_NAME, default=""),
        at_s=read.seconds("at_s", MAX_UNIX_S) if read.has("at_s") else None,
        auth_token=read.secret("auth_token"),
    )


def _decode_hello(read: _Fields) -> Hello:
    read.check_version()
    digest = read.text("digest", MAX_NAME)
    if not _DIGEST.fullmatch(digest):
        raise ProtocolError("The field 'digest' of the hello message is not 64 hexadecimal digits.")
    hello = Hello(
        codec=read.text("codec", MAX_NAME),
        weights=read.text("weights", MAX_NAME),
        digest=digest,
        seed=read.integer("seed", high=MAX_SEED),
        first_token=read.integer("first_token"),
        next_token=read.integer("next_token"),
        age_s=read.seconds("age_s"),
        delay_s=read.seconds("delay_s"),
        packet_tokens=read.integer("packet_tokens", 1, MAX_TOKENS_PER_MESSAGE),
        title=read.text("title", default=""),
        stream=read.text("stream", MAX_NAME, default=""),
        first_at_s=read.seconds("first_at_s", MAX_UNIX_S) if read.has("first_at_s") else None,
        sample_rate=read.integer("sample_rate", low=1),
        token_rate=read.integer("token_rate", low=1),
        token_bits=read.integer("token_bits", low=1),
    )
    if hello.first_token > hello.next_token:
        raise ProtocolError("The hello's first token lies after its live edge.")
    return hello


def _decode_title(read: _Fields) -> Title:
    return Title(read.text("title"), read.integer("token"))


def _decode_gap(read: _Fields) -> Gap:
    gap = Gap(read.integer("first_token"), read.integer("count", low=1))
    if gap.first_token + gap.count > MAX_INDEX:
        raise ProtocolError("The gap ends beyond the highest token index.")
    return gap


def _decode_end(read: _Fields) -> End:
    return End(read.integer("token"), read.text("reason", default=""))


def _decode_failure(read: _Fields) -> Failure:
    return Failure(read.text("code", MAX_NAME), read.text("message"))


_DECODERS: Final[dict[str, Callable[[_Fields], Message]]] = {
    Join.type: _decode_join,
    Hello.type: _decode_hello,
    Title.type: _decode_title,
    Gap.type: _decode_gap,
    End.type: _decode_end,
    Failure.type: _decode_failure,
}


def _to_json(kind: str, fields: dict[str, Any]) -> str:
    return json.dumps({"type": kind, **fields}, ensure_ascii=False, separators=(",", ":"))
