"""A ``.muc`` file in the place of a sender: a listener plays it as it plays a stream's past."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Final

from codec.constants import TOKEN_RATE
from streaming.errors import SettingsError, SourceError
from streaming.files.muc import MucReader
from streaming.stream.hub import HISTORY_TOKENS, Hub
from streaming.stream.sender_session import SenderSession
from streaming.stream.timeline import StartAt
from streaming.wire.messages import Gap, StreamInfo, Title

__all__ = ["FileConnection", "FileHub", "load_hub", "place_in"]

_PACKET_TOKENS: Final = 48
_MOST_TOKENS: Final = 31 * 24 * 3600 * TOKEN_RATE
"""A file is held whole, two bytes a token, its gaps included."""


class FileHub(Hub):
    """All of a file, in a hub that has ended; ``music_from`` is the first token of its music."""

    music_from = 0


def load_hub(path: Path | str, *, force: bool = False) -> FileHub:
    """All of a file in a hub. Blocking; raises SourceError.

    force: also if most of it is missing.
    """
    reader = MucReader(path)
    info = reader.describe()
    header = reader.header
    tokens = header.music_from - header.first_token + info.tokens + info.lost_tokens
    if tokens > _MOST_TOKENS:
        raise SourceError(f"{reader.name} is longer than 31 days; let server.py stream it instead.")
    if not force:
        info.check_silence(reader.name)
    hub = FileHub(
        StreamInfo(**vars(header.identity), packet_tokens=_PACKET_TOKENS),
        history_tokens=max(HISTORY_TOKENS, tokens),
    )
    hub.music_from = header.music_from
    hub.go_on_at(header.first_token)
    for item in reader.items(context=True):
        if isinstance(item, Title):
            hub.restore_title(item)
        elif isinstance(item, Gap):
            hub.rewind.skip(item.count)
        else:
            hub.restore(item.tokens, None)
    hub.timeline = reader.timeline
    hub.end("the file has ended", 0.0)
    return hub


def place_in(hub: FileHub, start: StartAt) -> StartAt:
    """``start`` as a token of the file in ``hub``; what is before its beginning is that.

    Raises SettingsError where the file has no such place.
    """
    first, end = min(hub.music_from, hub.next_token), hub.next_token
    token = start.token or first
    if start.behind_s is not None:
        token = end - round(start.behind_s * TOKEN_RATE)
    elif start.unix_s is not None:
        moment = hub.timeline.token_at(start.unix_s)
        if moment is None:
            raise SettingsError(
                "This file does not say when it was played; give --from as -10m, ten minutes "
                "before its end, or as token:N."
            )
        token = moment
    if token > end:
        raise SettingsError(
            f"This file ends before that place: it holds the tokens from {first} to {end}, 25 a "
            f"second{_hours(hub, first, end)}."
        )
    return StartAt(token=max(first, token))


def _hours(hub: Hub, first: int, end: int) -> str:
    begun_s, ended_s = hub.timeline.time_of(first), hub.timeline.time_of(end)
    if begun_s is None or ended_s is None:
        return ""
    try:
        begun, ended = (datetime.fromtimestamp(unix_s) for unix_s in (begun_s, ended_s))
    except (ValueError, OverflowError, OSError):  # a clock that was wrong by millennia
        return ""
    return f", played from {begun:%Y-%m-%dT%H:%M:%S} to {ended:%Y-%m-%dT%H:%M:%S}"


class FileConnection:
    """A connection to a hub in the same program; see
    :class:`streaming.transports.link.Messages`.
    """

    def __init__(self, hub: Hub) -> None:
        self._session = SenderSession(hub, time.monotonic())

    async def send(self, message: str | bytes) -> None:
        """Take what the listener says."""
        self._session.receive(message, time.monotonic())

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        session = self._session
        while (message := session.take()) is not None or session.waiting:
            if message is not None:
                yield message
            else:  # whoever asks for more has read what there was
                session.heartbeat.ask(time.monotonic())
                session.answered()

    async def close(self) -> None:
        """The listener has gone."""
        self._session.leave()
