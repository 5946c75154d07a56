"""A ``.muc`` file in the place of a sender: a listener plays it as it plays a stream's past."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Final

from codec.constants import TOKEN_RATE
from streaming.errors import SettingsError, SourceError
from streaming.files.muc import MucReader
from streaming.stream.history import HISTORY_TOKENS, Cursor, History
from streaming.stream.timeline import StartAt
from streaming.wire.messages import End, Gap, Join, Message, StreamInfo, Title

__all__ = ["FileConnection", "FileHistory", "load_history", "place_in"]

_PACKET_TOKENS: Final = 48
_MOST_TOKENS: Final = 31 * 24 * 3600 * TOKEN_RATE
"""A file is held whole, two bytes a token, its gaps included."""


class FileHistory(History):
    """All of a file.

    Attributes:
        music_from: the first token of its music.
    """

    music_from = 0


def load_history(path: Path | str, *, force: bool = False) -> FileHistory:
    """All of a file, read on this thread.

    Args:
        force: also if most of it is missing.

    Raises:
        SourceError: it cannot be read, is too long, or most of it is missing.
    """
    reader = MucReader(path)
    info = reader.describe()
    header = reader.header
    tokens = header.music_from - header.first_token + info.tokens + info.lost_tokens
    if tokens > _MOST_TOKENS:
        raise SourceError(f"{reader.name} is longer than 31 days; let server.py stream it instead.")
    if not force:
        info.check_silence(reader.name)
    stream = StreamInfo(**vars(header.identity), packet_tokens=_PACKET_TOKENS)
    history = FileHistory(stream, max(HISTORY_TOKENS, tokens))
    history.music_from = header.music_from
    history.go_on_at(header.first_token)
    for item in reader.items(context=True):
        if isinstance(item, Title):
            history.append_title(item.title, item.token)
        elif isinstance(item, Gap):
            history.skip(item.count)
        else:
            history.append(item.tokens)
    history.timeline = reader.timeline
    return history


def place_in(history: FileHistory, start: StartAt) -> StartAt:
    """``start`` as a token of the file in ``history``; what is before its beginning is that.

    Raises:
        SettingsError: the file has no such place.
    """
    first, end = min(history.music_from, history.next_token), history.next_token
    token = start.token or first
    if start.behind_s is not None:
        token = end - round(start.behind_s * TOKEN_RATE)
    elif start.unix_s is not None:
        moment = history.timeline.token_at(start.unix_s)
        if moment is None:
            raise SettingsError(
                "This file does not say when it was played; give --from as -10m, ten minutes "
                "before its end, or as token:N."
            )
        token = moment
    if token > end:
        raise SettingsError(
            f"This file ends before that place: it holds the tokens from {first} to {end}, 25 a "
            f"second{_hours(history, first, end)}."
        )
    return StartAt(token=max(first, token))


def _hours(history: History, first: int, end: int) -> str:
    begun_s, ended_s = history.timeline.time_of(first), history.timeline.time_of(end)
    if begun_s is None or ended_s is None:
        return ""
    try:
        begun, ended = (datetime.fromtimestamp(unix_s) for unix_s in (begun_s, ended_s))
    except (ValueError, OverflowError, OSError):  # a clock that was wrong by millennia
        return ""
    return f", played from {begun:%Y-%m-%dT%H:%M:%S} to {ended:%Y-%m-%dT%H:%M:%S}"


class FileConnection:
    """A connection to a recording; see :class:`streaming.transports.link.Messages`."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._first_token = 0

    async def send(self, message: Message) -> None:
        """Take what the listener says."""
        if isinstance(message, Join):
            self._first_token = self._history.first_token(message)

    async def __aiter__(self) -> AsyncIterator[Message]:
        yield self._history.hello(self._first_token)
        cursor = Cursor(self._history, self._first_token)
        while (message := cursor.take()) is not None:
            yield message
        yield End(self._history.next_token, "the file has ended")

    async def close(self) -> None:
        """The listener has gone."""
