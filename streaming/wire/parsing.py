"""Reads the messages of :mod:`streaming.wire.messages`, trusting nothing in them.

Every field is checked for type and range before it is used, and whatever is wrong raises
ProtocolError with one sentence. For later versions' sake fields and types of messages that are not
known here are passed over; binary kinds that are not known are refused, since what they carry would
be missing from the sound.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

from codec.errors import DataError
from codec.packing import unpack_tokens
from streaming.errors import ProtocolError
from streaming.wire.messages import (
    CODED_HEADER,
    CODED_KIND,
    MAX_AUTH_TOKEN,
    MAX_DELAY_S,
    MAX_INDEX,
    MAX_NAME,
    MAX_SEED,
    MAX_SERVER_MESSAGE,
    MAX_TITLE,
    MAX_TOKENS_PER_MESSAGE,
    MAX_UNIX_S,
    PROTOCOL_VERSION,
    TOKENS_HEADER,
    TOKENS_KIND,
    CodedTokens,
    End,
    Failure,
    Gap,
    Hello,
    Join,
    Message,
    Publish,
    Title,
    Tokens,
    Unknown,
    clean_text,
)

__all__ = ["Fields", "decode", "parse_object"]

_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


_JSON: Final = json.JSONDecoder(parse_constant=_refuse)
"""As the standard says, and other languages do: without NaN and infinities."""


def decode(data: str | bytes) -> Message:
    """Read one message; text is JSON, bytes are tokens. Raises ProtocolError on anything else."""
    return _decode_binary(data) if isinstance(data, bytes) else _decode_text(data)


def _decode_binary(data: bytes) -> Tokens | CodedTokens:
    if len(data) > MAX_SERVER_MESSAGE:
        raise ProtocolError(f"A message of {len(data)} bytes is too long.")
    if not data:
        raise ProtocolError("An empty binary message is no part of the protocol.")
    if data[0] == CODED_KIND:
        return _decode_coded(data)
    if data[0] != TOKENS_KIND:
        raise ProtocolError(f"Binary messages of kind {data[0]} are not known to this version.")
    if len(data) <= TOKENS_HEADER.size:
        raise ProtocolError(f"A token message of {len(data)} bytes is too short.")
    _, first_token = TOKENS_HEADER.unpack_from(data)
    try:
        tokens = unpack_tokens(data[TOKENS_HEADER.size :])
    except DataError as error:
        raise ProtocolError(str(error)) from None
    if len(tokens) > MAX_TOKENS_PER_MESSAGE:
        raise ProtocolError(f"A message of {len(tokens)} tokens is too long.")
    if first_token + len(tokens) > MAX_INDEX:
        raise ProtocolError(f"The token index {first_token} is out of range.")
    return Tokens(first_token, tokens)


def _decode_coded(data: bytes) -> CodedTokens:
    if len(data) < CODED_HEADER.size:
        raise ProtocolError(f"A coded message of {len(data)} bytes is too short.")
    _, first_token, context = CODED_HEADER.unpack_from(data)
    if context > first_token:
        raise ProtocolError(f"There are no {context} tokens before token {first_token}.")
    return CodedTokens(first_token, context, data[CODED_HEADER.size :])


def parse_object(data: str) -> tuple[str, Fields]:
    """The ``type`` of a JSON object, and its fields. Raises ProtocolError if it is none."""
    try:
        fields = _JSON.decode(data)
    except (ValueError, RecursionError):
        raise ProtocolError("A text message is not valid JSON.") from None
    if not isinstance(fields, dict):
        raise ProtocolError("A text message is not a JSON object.")
    kind = fields.get("type")
    if not isinstance(kind, str):
        raise ProtocolError("A text message has no type.")
    return kind, Fields(fields, kind)


def _decode_text(data: str) -> Message:
    if len(data) > MAX_SERVER_MESSAGE:
        raise ProtocolError(f"A message of {len(data)} characters is too long.")
    kind, read = parse_object(data)
    decoder = _DECODERS.get(kind)
    if decoder is None:
        return Unknown(clean_text(kind, MAX_NAME), len(data.encode("utf-8", "replace")))
    return decoder(read)


class Fields:
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
        """A whole number from ``low`` to ``high``."""
        value = self._fields.get(name)
        if type(value) is not int or not low <= value <= high:  # a bool is an int, but not here
            raise self._wrong(name, f"a whole number from {low} to {high}")
        return value

    def seconds(self, name: str, high: float = MAX_DELAY_S) -> float:
        """A number of seconds from 0 to ``high``."""
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
        """Text on one line, cut to ``limit`` characters."""
        value = self._fields.get(name, default)
        if not isinstance(value, str):
            raise self._wrong(name, "text")
        return clean_text(value, limit)

    def digest(self, name: str) -> str:
        """A SHA-256 in hex."""
        value = self.text(name, MAX_NAME)
        if not _DIGEST.fullmatch(value):
            where = f"The field {name!r} of the {self._kind} message"
            raise ProtocolError(f"{where} is not 64 hexadecimal digits.")
        return value

    def has(self, name: str) -> bool:
        """Whether it is there and not null."""
        return self._fields.get(name) is not None

    def small_integers(self, name: str, most: int) -> tuple[int, ...]:
        """At most ``most`` whole numbers from 0 to 255; none where the field is missing."""
        values = self._fields.get(name, [])
        right = isinstance(values, list) and len(values) <= most
        if not right or not all(type(value) is int and 0 <= value <= 255 for value in values):
            raise self._wrong(name, f"a list of at most {most} whole numbers from 0 to 255")
        return tuple(values)

    def check_version(self) -> None:
        """Raises ProtocolError if the message is of another protocol version."""
        version = self.integer("protocol", low=1)
        if version != PROTOCOL_VERSION:
            raise ProtocolError(
                f"The other end speaks protocol version {version} and this one version "
                f"{PROTOCOL_VERSION}; update the older of the two."
            )


def _decode_join(read: Fields) -> Join:
    read.check_version()
    return Join(
        history=read.integer("history"),
        client=read.text("client", MAX_NAME, default=""),
        next_token=read.integer("next_token") if read.has("next_token") else None,
        stream=read.text("stream", MAX_NAME, default=""),
        at_s=read.seconds("at_s", MAX_UNIX_S) if read.has("at_s") else None,
        auth_token=read.secret("auth_token"),
        kinds=read.small_integers("kinds", most=16),
    )


def _decode_publish(read: Fields) -> Publish:
    read.check_version()
    return Publish(read.text("publisher", MAX_NAME), read.secret("auth_token"))


def _decode_hello(read: Fields) -> Hello:
    read.check_version()
    hello = Hello(
        codec=read.text("codec", MAX_NAME),
        weights=read.text("weights", MAX_NAME),
        digest=read.digest("digest"),
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


def _decode_title(read: Fields) -> Title:
    return Title(read.text("title"), read.integer("token"))


def _decode_gap(read: Fields) -> Gap:
    gap = Gap(read.integer("first_token"), read.integer("count", low=1))
    if gap.first_token + gap.count > MAX_INDEX:
        raise ProtocolError("The gap ends beyond the highest token index.")
    return gap


def _decode_end(read: Fields) -> End:
    return End(read.integer("token"), read.text("reason", default=""))


def _decode_failure(read: Fields) -> Failure:
    return Failure(read.text("code", MAX_NAME), read.text("message"))


_DECODERS: Final[dict[str, Callable[[Fields], Message]]] = {
    Join.type: _decode_join,
    Publish.type: _decode_publish,
    Hello.type: _decode_hello,
    Title.type: _decode_title,
    Gap.type: _decode_gap,
    End.type: _decode_end,
    Failure.type: _decode_failure,
}
