"""Coded packets in a stream: what they are conditioned on, and whether both ends have it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from codec.errors import DataError
from codec.nano.entropy.coder import CONTEXT, coder_for
from streaming.errors import ProtocolError
from streaming.wire.messages import MAX_INDEX, CodedTokens, Gap, Tokens, encoded_size

if TYPE_CHECKING:
    from streaming.stream.history import History
    from streaming.stream.rewind import RewindBuffer

__all__ = ["MAX_CODED_TOKENS", "PacketReader", "code_packet", "context_before"]

logger = logging.getLogger(__name__)

Ints = NDArray[np.int64]

MAX_CODED_TOKENS: Final = 128
"""Longest packet that is coded, which bounds the work that one message can ask for."""
_NONE: Final[Ints] = np.zeros(0, dtype=np.int64)


def context_before(rewind: RewindBuffer, place: int) -> Ints:
    """The tokens just before ``place`` without a gap between them, at most ``CONTEXT``."""
    start, context = max(rewind.oldest_token, place - CONTEXT), _NONE
    while start < place and (part := rewind.read(start, place - start)) is not None:
        if isinstance(part, Gap):
            context, start = _NONE, part.first_token + part.count
        else:
            context, start = part.tokens, part.end_token
    return context


def code_packet(history: History, packet: Tokens) -> CodedTokens | None:
    """The packet that follows ``history`` in fewer bits; None if it is better sent plainly."""
    info, count = history.info, len(packet.tokens)
    coder = coder_for(info.digest)
    if coder is None or count != info.packet_tokens or count > MAX_CODED_TOKENS:
        return None
    context = context_before(history.rewind, packet.first_token)
    data = coder.encode(packet.tokens, packet.first_token, context)
    coded = CodedTokens(packet.first_token, len(context), data)
    return coded if encoded_size(coded) < encoded_size(packet) else None


class PacketReader:
    """The listener's side: keeps the newest tokens, and decodes packets conditioned on them."""

    def __init__(self) -> None:
        self._recent = _NONE
        self._next = 0

    def note(self, tokens: Tokens) -> None:
        """These came, plain or decoded."""
        if tokens.end_token <= self._next:
            return
        new = tokens.tokens
        if tokens.first_token <= self._next:
            new = np.concatenate([self._recent, new[self._next - tokens.first_token :]])
        self._recent, self._next = new[-CONTEXT:], tokens.end_token

    def read(self, coded: CodedTokens, digest: str, count: int) -> Tokens | None:
        """The tokens of a coded packet; None if tokens before it have not come.

        Args:
            digest: of the weights whose tokens they are.
            count: how many there are.

        Raises:
            ProtocolError: no sender codes such a packet.
        """
        coder = coder_for(digest)
        if coder is None or count > MAX_CODED_TOKENS:
            raise ProtocolError("Coded packets came where none can be decoded.")
        if coded.context > CONTEXT or coded.first_token + count > MAX_INDEX:
            raise ProtocolError("A coded packet is out of range.")
        start = coded.first_token - coded.context - (self._next - len(self._recent))
        end = start + coded.context
        if coded.context and (start < 0 or end > len(self._recent)):
            logger.debug("tokens before token %d are missing", coded.first_token)
            return None
        context = self._recent[start:end] if coded.context else _NONE
        try:
            tokens = coder.decode(coded.data, count, coded.first_token, context)
        except DataError as error:
            raise ProtocolError(str(error)) from None
        return Tokens(coded.first_token, tokens)
