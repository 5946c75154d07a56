"""What is held of a stream, as the messages in which it is sent."""

from __future__ import annotations

from typing import Final

from streaming.stream.rewind import RewindBuffer
from streaming.wire.messages import Gap, Tokens

__all__ = ["Packets"]

_NEWEST: Final = 4


class Packets:
    """Reads messages from ``rewind``; the newest packets are encoded once for everybody."""

    def __init__(self, rewind: RewindBuffer) -> None:
        self._rewind = rewind
        # By first token: one past the last, and the message.
        self._newest: dict[int, tuple[int, bytes]] = {}

    def encode(self, packet: Tokens) -> bytes:
        """The message of a packet that is about to be appended, which most listeners take next."""
        message = packet.encode()
        self._newest[packet.first_token] = packet.end_token, message
        if len(self._newest) > _NEWEST:
            del self._newest[next(iter(self._newest))]
        return message

    def read(self, place: int, most: int) -> tuple[bytes | str | None, int]:
        """A message with at most ``most`` tokens from ``place`` on, and the place after it."""
        end, message = self._newest.get(place, (place, b""))
        if message and end == min(place + most, self._rewind.next_token):
            return message, end
        part = self._rewind.read(place, most)
        if part is None:
            return None, place
        end = place + part.count if isinstance(part, Gap) else part.end_token
        return part.encode(), end

    def recent(self, most: int) -> Tokens | None:
        """The newest tokens without a gap between them, at most ``most``; None where none are."""
        place = max(self._rewind.oldest_token, self._rewind.next_token - most)
        newest = None
        while (part := self._rewind.read(place, most)) is not None:
            if isinstance(part, Gap):
                newest, place = None, place + part.count
            else:
                newest, place = part, part.end_token
        return newest

    def forget(self) -> None:
        """Another stream begins."""
        self._newest.clear()
