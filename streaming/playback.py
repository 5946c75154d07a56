"""A ``.muc`` file in the place of a sender: a listener plays it as it plays a stream's past."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from codec.constants import TOKEN_RATE
from streaming.errors import SourceError
from streaming.hub import HISTORY_TOKENS, Hub, StreamInfo
from streaming.muc import MucReader
from streaming.protocol import Gap, Title
from streaming.sender_session import SenderSession

__all__ = ["FileConnection", "load_hub"]

_PACKET_TOKENS: Final = 48
_MOST_TOKENS: Final = 31 * 24 * 3600 * TOKEN_RATE
"""A file is held whole, two bytes a token, its gaps included."""


def load_hub(path: Path | str) -> Hub:
    """All of a file in a hub that has ended. Blocking; raises SourceError."""
    reader = MucReader(path)
    info = reader.describe()
    if info.tokens + info.lost_tokens > _MOST_TOKENS:
        raise SourceError(f"{reader.name} is longer than 31 days; let server.py stream it instead.")
    header = reader.header
    hub = Hub(
        StreamInfo(
            header.codec, header.weights, header.digest, header.seed, _PACKET_TOKENS, header.stream
        ),
        history_tokens=max(HISTORY_TOKENS, info.tokens + info.lost_tokens),
    )
    hub.go_on_at(info.first_token)
    for item in reader.items():
        if isinstance(item, Title):
            hub.restore_title(item)
        elif isinstance(item, Gap):
            hub.rewind.skip(item.count)
        else:
            hub.restore(item.tokens, None)
    hub.end("the file has ended", 0.0)
    return hub


class FileConnection:
    """A connection to a hub in the same program; see :class:`streaming.link.Messages`."""

    def __init__(self, hub: Hub) -> None:
        self._session = SenderSession(hub, time.monotonic())

    async def send(self, message: str | bytes) -> None:
        """Take what the listener says."""
        self._session.receive(message, time.monotonic())

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        while (message := self._session.take()) is not None:
            yield message

    async def close(self) -> None:
        """The listener has gone."""
        self._session.leave()
