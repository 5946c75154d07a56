"""Music at 350 bits per second, for Python programs: what this package offers, by name.

Everything here is imported when it is first used, so that ``import streaming`` costs next to
nothing and what merely forwards tokens loads no model. What is not named here may change.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # without the typing module: programs begin with this
if TYPE_CHECKING:
    from typing import Any, Final

    from streaming.audio.sinks import FileSink, RawSink, Sink, SoundCardSink
    from streaming.audio.sources import (
        CaptureSource,
        FileSource,
        Playlist,
        RawFormat,
        Source,
        StdinSource,
    )
    from streaming.errors import (
        DeviceError,
        ProtocolError,
        RefusedError,
        SettingsError,
        SinkError,
        SourceError,
        StreamingError,
        TransportError,
        UserError,
    )
    from streaming.files.muc import MucEncoder, MucInfo, MucReader, StreamHeader
    from streaming.listening import listen, tokens
    from streaming.receive.listener import Listener
    from streaming.receive.settings import CatchUp, ListenerSettings
    from streaming.send.broadcast import Broadcast
    from streaming.send.forwarding import Upstream
    from streaming.send.replay import MucPlaylist
    from streaming.send.settings import ServiceSettings
    from streaming.stream.timeline import StartAt
    from streaming.transports.mqtt.publisher import Mqtt
    from streaming.transports.oneway.publisher import OneWay
    from streaming.transports.push.pusher import Push
    from streaming.transports.reconnecting import Backoff
    from streaming.transports.websocket.outlet import WebSocket
    from streaming.wire.messages import End, Gap, Hello, Title, Tokens

__all__ = [
    "Backoff",
    "Broadcast",
    "CaptureSource",
    "CatchUp",
    "DeviceError",
    "End",
    "FileSink",
    "FileSource",
    "Gap",
    "Hello",
    "Listener",
    "ListenerSettings",
    "Mqtt",
    "MucEncoder",
    "MucInfo",
    "MucPlaylist",
    "MucReader",
    "OneWay",
    "Playlist",
    "ProtocolError",
    "Push",
    "RawFormat",
    "RawSink",
    "RefusedError",
    "ServiceSettings",
    "SettingsError",
    "Sink",
    "SinkError",
    "SoundCardSink",
    "Source",
    "SourceError",
    "StartAt",
    "StdinSource",
    "StreamHeader",
    "StreamingError",
    "Title",
    "Tokens",
    "TransportError",
    "Upstream",
    "UserError",
    "WebSocket",
    "listen",
    "tokens",
]

_NAMES: Final = {
    "streaming.audio.sinks": "FileSink RawSink Sink SoundCardSink",
    "streaming.audio.sources": "CaptureSource FileSource Playlist RawFormat Source StdinSource",
    "streaming.errors": "DeviceError ProtocolError RefusedError SettingsError SinkError "
    "SourceError StreamingError TransportError UserError",
    "streaming.files.muc": "MucEncoder MucInfo MucReader StreamHeader",
    "streaming.listening": "listen tokens",
    "streaming.receive.listener": "Listener",
    "streaming.receive.settings": "CatchUp ListenerSettings",
    "streaming.send.broadcast": "Broadcast",
    "streaming.send.forwarding": "Upstream",
    "streaming.send.replay": "MucPlaylist",
    "streaming.send.settings": "ServiceSettings",
    "streaming.stream.timeline": "StartAt",
    "streaming.transports.mqtt.publisher": "Mqtt",
    "streaming.transports.oneway.publisher": "OneWay",
    "streaming.transports.push.pusher": "Push",
    "streaming.transports.reconnecting": "Backoff",
    "streaming.transports.websocket.outlet": "WebSocket",
    "streaming.wire.messages": "End Gap Hello Title Tokens",
}
_HOMES: Final = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
