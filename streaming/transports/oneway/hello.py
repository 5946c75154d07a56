"""What a listener must know before it can make sound of frames, in 18 bytes."""

from __future__ import annotations

import binascii
import struct
from dataclasses import dataclass, replace
from typing import Final

from codec.constants import TOKEN_RATE
from codec.packing import packed_size
from streaming.errors import ProtocolError, SettingsError
from streaming.transports.oneway.framing import MAX_BODY
from streaming.wire.messages import MAX_INDEX, StreamInfo

__all__ = [
    "DIGEST_BYTES",
    "HELLO_BYTES",
    "MAX_DATA",
    "MAX_PACKET_TOKENS",
    "MAX_PARITY",
    "MAX_SEED",
    "MAX_TITLE_BYTES",
    "Fec",
    "OneWayHello",
]

VERSION: Final = 1
DIGEST_BYTES: Final = 4
MAX_SEED: Final = 2**32 - 1
MAX_PACKET_TOKENS: Final = 143
"""One token fewer, with its whole index before it, still fits into a frame."""
MAX_DATA: Final = 64
MAX_PARITY: Final = 8
MAX_TITLE_BYTES: Final = 48
_BODY: Final = struct.Struct(">BB4sHIBIB")
_CONTEXT_BYTES: Final = 13
HELLO_BYTES: Final = _BODY.size

assert packed_size(MAX_PACKET_TOKENS - 1) + 4 <= MAX_BODY


@dataclass(frozen=True)
class Fec:
    """Reed–Solomon across packets: ``parity`` frames more for every ``data`` packets."""

    data: int
    parity: int

    def __post_init__(self) -> None:
        if not self.exists(self.data, self.parity):
            raise SettingsError(
                f"There is no code of {self.data}/{self.parity}; write DATA/PARITY such as 10/2, "
                f"up to {MAX_DATA} packets and {MAX_PARITY} more, these not more than those."
            )

    @staticmethod
    def exists(data: int, parity: int) -> bool:
        """Whether there is such a code."""
        return 1 <= parity <= MAX_PARITY and parity <= data <= MAX_DATA

    @classmethod
    def parse(cls, text: str) -> Fec:
        """Read ``10/2``. Raises SettingsError."""
        data, slash, parity = text.partition("/")
        if not slash or not all(
            n.isascii() and n.isdecimal() and len(n) < 4 for n in (data, parity)
        ):
            raise SettingsError(f"{text!r} is no code; write DATA/PARITY, such as 10/2.")
        return cls(int(data), int(parity))

    def wait_s(self, packet_tokens: int) -> float:
        """How long a packet that was lost may take longer than one that was not."""
        return (self.data + self.parity - 1) * packet_tokens / TOKEN_RATE


@dataclass(frozen=True)
class OneWayHello:
    """A stream as its frames tell it.

    Attributes:
        digest: the first bytes of the weights' SHA-256.
        stream_tag: 16 bits that follow from the stream's name.
        next_token: the index of the first token that follows.
        delay_s: as in :class:`streaming.wire.messages.Hello`.
    """

    digest: bytes
    stream_tag: int
    seed: int
    packet_tokens: int
    next_token: int = 0
    delay_s: float = 0.0
    fec: Fec | None = None

    @classmethod
    def of(cls, info: StreamInfo, fec: Fec | None) -> OneWayHello:
        """What is said of a stream. Raises SettingsError if frames cannot carry it."""
        if info.packet_tokens > MAX_PACKET_TOKENS:
            raise SettingsError(
                f"A packet of {info.packet_tokens} tokens is too long for a frame; choose "
                f"--packet-tokens {MAX_PACKET_TOKENS} or fewer."
            )
        if info.seed > MAX_SEED:
            raise SettingsError(
                f"The seed {info.seed} does not fit into the hello of --serial and --udp; choose "
                f"one up to {MAX_SEED}."
            )
        digest = bytes.fromhex(info.digest)[:DIGEST_BYTES]
        tag = binascii.crc_hqx(info.stream.encode(), 0xFFFF)
        return cls(digest, tag, info.seed, info.packet_tokens, fec=fec)

    def at(self, next_token: int, delay_s: float) -> OneWayHello:
        """The same with the stream at another place."""
        return replace(self, next_token=next_token, delay_s=delay_s)

    def encode(self) -> bytes:
        """As the body of a frame."""
        data, parity = (self.fec.data, self.fec.parity) if self.fec else (0, 0)
        return _BODY.pack(
            VERSION << 4 | parity,
            data,
            self.digest,
            self.stream_tag,
            self.seed,
            self.packet_tokens,
            self.next_token,
            min(255, round(self.delay_s * TOKEN_RATE)),
        )

    @property
    def context(self) -> bytes:
        """What does not change while the stream lasts: the salt of all its other frames."""
        return self.encode()[:_CONTEXT_BYTES]

    @classmethod
    def decode(cls, body: bytes) -> OneWayHello:
        """Read what :meth:`encode` wrote. Raises ProtocolError."""
        if len(body) != HELLO_BYTES:
            raise ProtocolError(f"A hello of {len(body)} bytes is none.")
        first, data, digest, tag, seed, packet_tokens, next_token, delay = _BODY.unpack(body)
        version, parity = first >> 4, first & 15
        if version != VERSION:
            raise ProtocolError(
                f"The sender's frames are of version {version} and this listener's of version "
                f"{VERSION}; update the older of the two."
            )
        coded = data or parity
        if coded and not Fec.exists(data, parity):
            raise ProtocolError(f"The hello names a code of {data}/{parity}, which there is not.")
        if not 1 <= packet_tokens <= MAX_PACKET_TOKENS or next_token > MAX_INDEX - packet_tokens:
            raise ProtocolError("The hello names packets that no frame can carry.")
        fec = Fec(data, parity) if coded else None
        return cls(digest, tag, seed, packet_tokens, next_token, delay / TOKEN_RATE, fec)
