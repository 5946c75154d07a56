"""What the records of a ``.muc`` file hold: the messages of the wire, and three of its own.

Tokens, titles and gaps are written as they are sent (:mod:`streaming.wire.messages`). A file has no
hello, since that speaks of a live edge; ``stream`` says instead what all of the file has in common.
``clock`` says when a token was played, and ``end`` where the music ends, to the sample.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeAlias

from codec.constants import SAMPLES_PER_TOKEN
from streaming.errors import FormatVersionError, ProtocolError
from streaming.wire.messages import (
    MAX_INDEX,
    MAX_NAME,
    MAX_SEED,
    MAX_UNIX_S,
    Gap,
    Message,
    StreamIdentity,
    Title,
    Tokens,
)
from streaming.wire.parsing import Fields, decode, parse_object

__all__ = [
    "FORMAT_VERSION",
    "MAX_CONTEXT",
    "Clock",
    "Finish",
    "Record",
    "StreamHeader",
    "end_token",
    "message_bytes",
    "read_message",
]

logger = logging.getLogger(__name__)

FORMAT_VERSION: Final = 1
MAX_CONTEXT: Final = 4096
"""Tokens that a file may hold before its music."""
_TOKENS_KIND: Final = b"\x01"


@dataclass(frozen=True)
class StreamHeader(StreamIdentity):
    """Which stream the file is of.

    Attributes:
        first_token: with which the file begins.
        start_token: with which the music begins, if that is later; what is before it is context for
            the decoder and not to be heard.
    """

    type: ClassVar = "stream"
    first_token: int = 0
    start_token: int = 0

    @property
    def music_from(self) -> int:
        """The first token that is to be heard."""
        return max(self.first_token, self.start_token)

    def encode(self) -> bytes:
        """As JSON."""
        fields: dict[str, Any] = {
            "version": FORMAT_VERSION,
            "codec": self.codec,
            "weights": self.weights,
            "digest": self.digest,
            "seed": self.seed,
            "first_token": self.first_token,
        }
        if self.music_from > self.first_token:
            fields["start_token"] = self.start_token
        if self.stream:
            fields["stream"] = self.stream
        return _json(self.type, fields)


@dataclass(frozen=True)
class Clock:
    """``token`` began at the source at the Unix time ``at_s``; later ones follow in real time."""

    type: ClassVar = "clock"
    token: int
    at_s: float

    def encode(self) -> bytes:
        """As JSON."""
        return _json(self.type, {"token": self.token, "at_s": round(self.at_s, 3)})


@dataclass(frozen=True)
class Finish:
    """The music is complete; ``token`` is one past its last token.

    Attributes:
        padding: samples at 48 kHz, 0 to 1919, by which the last token is longer than the music.
    """

    type: ClassVar = "end"
    token: int
    padding: int = 0
    reason: str = ""

    def encode(self) -> bytes:
        """As JSON."""
        fields: dict[str, Any] = {"token": self.token}
        if self.padding:
            fields["padding"] = self.padding
        if self.reason:
            fields["reason"] = self.reason
        return _json(self.type, fields)


Record: TypeAlias = StreamHeader | Clock | Tokens | Title | Gap | Finish


def message_bytes(record: Record) -> bytes:
    """As it is written into a file."""
    encoded = record.encode()
    return encoded if isinstance(encoded, bytes) else encoded.encode()


def read_message(message: bytes) -> Record | None:
    """What one record holds; None for what is wrong, or unknown to this version.

    Trusts nothing. Raises FormatVersionError if the file is for another version.
    """
    try:
        if message.startswith(_TOKENS_KIND):
            return _of_the_wire(decode(message))
        return _read_text(message.decode()) if message.startswith(b"{") else None
    except (ProtocolError, UnicodeDecodeError) as error:
        logger.debug("passing over a record: %s", error)
        return None


def end_token(record: Record) -> int:
    """One past the last token that a record speaks of; 0 if it speaks of none."""
    if isinstance(record, Gap):
        return record.first_token + record.count
    if isinstance(record, Finish):
        return record.token
    return record.end_token if isinstance(record, Tokens) else 0


def _read_text(text: str) -> Record | None:
    kind, read = parse_object(text)
    if kind == StreamHeader.type:
        return _read_header(read)
    if kind == Clock.type:
        return Clock(read.integer("token"), read.seconds("at_s", MAX_UNIX_S))
    if kind == Finish.type:
        padding = read.integer("padding", high=SAMPLES_PER_TOKEN - 1) if read.has("padding") else 0
        return Finish(read.integer("token"), padding, read.text("reason", default=""))
    return _of_the_wire(decode(text)) if kind in (Title.type, Gap.type) else None


def _of_the_wire(message: Message) -> Tokens | Title | Gap | None:
    return message if isinstance(message, (Tokens, Title, Gap)) else None


def _read_header(read: Fields) -> StreamHeader:
    version = read.integer("version", low=1)
    if version != FORMAT_VERSION:
        raise FormatVersionError(
            f"is of version {version} of the format and this program reads version "
            f"{FORMAT_VERSION}; update the program."
        )
    first = read.integer("first_token")
    most = min(MAX_INDEX, first + MAX_CONTEXT)
    start = read.integer("start_token", first, most) if read.has("start_token") else first
    return StreamHeader(
        codec=read.text("codec", MAX_NAME),
        weights=read.text("weights", MAX_NAME),
        digest=read.digest("digest"),
        seed=read.integer("seed", high=MAX_SEED),
        first_token=first,
        stream=read.text("stream", MAX_NAME, default=""),
        start_token=start if start > first else 0,
    )


def _json(kind: str, fields: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, **fields}, ensure_ascii=False, separators=(",", ":")).encode()
