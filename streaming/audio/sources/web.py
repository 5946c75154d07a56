"""Songs at web addresses: files, playlists, and Internet radio with its titles."""

from __future__ import annotations

import base64
import contextlib
import http.client
import re
import socket
import threading
import urllib.error
import urllib.request
from pathlib import PurePosixPath
from typing import Any, Final, cast
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

import numpy as np
from numpy.typing import NDArray

from streaming.audio.sources.ffmpeg import FfmpegReader, ffmpeg_program
from streaming.audio.sources.lists import LIST_SUFFIXES, is_hls, list_entries
from streaming.audio.sources.radio import RadioReader
from streaming.audio.sources.readers import ENDS_EARLY, Reader, quoted
from streaming.audio.sources.streams import StreamReader
from streaming.errors import SourceError
from streaming.support.guard import is_loopback
from streaming.support.status_line import printable

__all__ = ["WebStream", "is_web_address", "open_address"]

_TIMEOUT_S: Final = 10.0
"""For each step of connecting, and for a radio to send nothing before it counts as lost."""
_READ_BYTES: Final = 1 << 12
_MOST_LIST_BYTES: Final = 1 << 20
_HLS_END: Final = b"#EXT-X-ENDLIST"
_RESUME_WAITS_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
_UNTOUCHED: Final = "%/:=&?~+!$,;'@()*[]"
_ICY_TITLE: Final = re.compile(rb"StreamTitle='(.*?)';", re.DOTALL)
_LIST_KINDS: Final = frozenset(
    (
        *("audio/mpegurl", "audio/x-mpegurl", "application/mpegurl", "application/x-mpegurl"),
        *("application/vnd.apple.mpegurl", "audio/x-scpls", "application/pls+xml"),
    )
)
# What cannot be decoded from front to back; ffmpeg fetches it piece by piece.
_SEEKING_SUFFIXES: Final = (".m4a", ".m4b", ".mp4", ".mov")
_SEEKING_KINDS: Final = ("audio/mp4", "audio/x-m4a", "video/mp4", "video/quicktime")
_RECONNECTING: Final = ("-reconnect", "1", "-rw_timeout", str(round(_TIMEOUT_S * 1e6)))


def is_web_address(text: str) -> bool:
    """Whether ``text`` is the address of something on the web."""
    return text.lower().startswith(("http://", "https://"))


def open_address(url: str, stopped: threading.Event) -> Reader | list[str]:
    """A reader for an address, or for the addresses that a playlist there names.

    What has a length, or an end, is a file. All else is live: it is played as it comes, and come
    back to when the connection is lost.

    Raises:
        SourceError: it cannot be reached, or is nothing that can be decoded.
    """
    shown = quoted(url)
    if ffmpeg_program() is None:
        raise SourceError(f"{shown} is an address, which takes ffmpeg, and that is not installed.")
    stream = WebStream(url, stopped)
    with contextlib.ExitStack() as unless_played:
        unless_played.callback(stream.close)
        suffix = PurePosixPath(urlsplit(stream.url).path).suffix.lower()
        if stream.kind == "text/html":
            raise SourceError(f"{shown} is a web page; name the address of its stream.")
        if stream.kind in _LIST_KINDS or (
            suffix in LIST_SUFFIXES and not stream.kind.startswith(("audio/", "video/"))
        ):
            data = stream.read_all(_MOST_LIST_BYTES)
            if is_hls(data):
                if _HLS_END in data:
                    return FfmpegReader(url, stream.name, stopped)
                return RadioReader(lambda: FfmpegReader(url, stream.name, stopped), shown)
            entries = [urljoin(stream.url, entry) for entry in list_entries(data)]
            return [entry for entry in entries if is_web_address(entry)]
        if not stream.live and (suffix in _SEEKING_SUFFIXES or stream.kind in _SEEKING_KINDS):
            return FfmpegReader(url, stream.name, stopped, _RECONNECTING)
        unless_played.pop_all()
    if not stream.live:
        return _WebReader(stream, shown, stopped)
    streams = [stream]

    def dial() -> Reader:
        return _WebReader(streams.pop() if streams else WebStream(url, stopped), shown, stopped)

    return RadioReader(dial, shown)


class WebStream:
    """The bytes at an address, without the titles that a radio puts between them.

    If a file's connection is lost, the next one continues at the same byte.

    Args:
        url: ``http://`` or ``https://``; a name and password in it are sent to that host alone.
        stopped: gives up waiting for a lost connection.

    Attributes:
        url: where it was found in the end.
        name: of the station or file.
        kind: MIME type, such as ``audio/mpeg``.
        live: whether it has no length that could be known.
        title: what the station says that it plays; empty if it does not say.
        damage: whether the end was one.

    Raises:
        SourceError: nothing answers there, or not with this.
    """

    def __init__(self, url: str, stopped: threading.Event) -> None:
        self._url = url
        self._stopped = stopped
        self._response = _ask(url)
        self.url = self._response.url
        headers = self._response.headers
        self.kind = headers.get_content_type()
        icy = any(key.lower().startswith(("icy-", "ice-")) for key in headers)
        length = headers.get("Content-Length", "")
        self._length = int(length) if length.isdecimal() and not icy else None
        self.live = self._length is None
        # A stream in chunks says when it ends; of a radio's that is not believed.
        self._says_end = not icy and self._response.chunked
        interval = headers.get("icy-metaint", "")
        self._interval = int(interval) if interval.isdecimal() else 0
        self._until_title = self._interval
        self._received = 0
        self.title = ""
        self.damage: str | None = None
        parts = urlsplit(url)
        fallback = PurePosixPath(unquote(parts.path)).stem if not self.live else ""
        station = _text(headers.get("icy-name", "").encode("latin-1", "replace"))
        self.name = station or fallback or parts.hostname or url

    def read(self) -> bytes:
        """The next bytes, from a new connection if the last one broke; empty at the end."""
        while not self._stopped.is_set():
            try:
                data = self._read()
                ended = not data and (
                    self._received == self._length if self._length is not None else self._says_end
                )
            except (OSError, ValueError, http.client.HTTPException):
                data, ended = b"", False
            self._received += len(data)
            if data or ended:
                return data
            if self.live or not self._resume():
                self.damage = ENDS_EARLY
                return b""
        return b""

    def read_all(self, limit: int) -> bytes:
        """All of it, up to `limit` bytes."""
        found = b""
        while len(found) < limit and (data := self.read()):
            found += data
        return found[:limit]

    def interrupt(self) -> None:
        """Make a `read` that waits in another thread return."""
        self._response.hang_up()

    def close(self) -> None:
        """Interrupt, and close the connection."""
        self.interrupt()
        self._response.close()

    def _read(self) -> bytes:
        if not self._interval:
            return self._response.read1(_READ_BYTES)
        if not self._until_title:
            self._read_title()
            self._until_title = self._interval
        data = self._response.read1(min(_READ_BYTES, self._until_title))
        self._until_title -= len(data)
        return data

    def _read_title(self) -> None:
        size = 16 * int.from_bytes(self._response.read(1), "big")
        found = _ICY_TITLE.search(self._response.read(size))
        if found:
            self.title = _text(found[1])

    def _resume(self) -> bool:
        """Connect again for what is missing of a file; False if that fails."""
        for wait_s in _RESUME_WAITS_S:
            if self._stopped.wait(wait_s):
                return False
            with contextlib.suppress(SourceError):
                response = _ask(self._url, self._received)
                self._response.close()
                self._response = response
                return response.status == http.client.PARTIAL_CONTENT
        return False


class _WebReader(StreamReader):
    """Decodes a stream from the web, under the titles that come with it."""

    def __init__(self, stream: WebStream, shown: str, stopped: threading.Event) -> None:
        self._web = stream
        super().__init__(stream, stream.name, shown, stopped)

    def _read(self, frames: int) -> NDArray[np.float32]:
        block = super()._read(frames)
        self.title = self._web.title or self.title
        if not block.shape[1]:
            # A live stream is damaged wherever one comes in; only how it ends matters.
            self.damage = self._web.damage or (None if self._web.live else self.damage)
        return block

    def interrupt(self) -> None:
        super().interrupt()
        self._web.interrupt()


class _Response(http.client.HTTPResponse):
    """Also understands the status line of Shoutcast's first version, ``ICY 200 OK``."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self._socket = sock

    def hang_up(self) -> None:
        """Make a read that waits in another thread return."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _read_status(self) -> tuple[str, int, str]:
        if not self.fp.peek(4).startswith(b"ICY "):
            return super()._read_status()  # type: ignore[misc]
        _, status, *reason = self.fp.readline(1024).decode("latin-1").split(None, 2)
        if not status.isdecimal():
            raise http.client.BadStatusLine(status)
        return "HTTP/1.0", int(status), "".join(reason).strip()


class _Connection(http.client.HTTPConnection):
    response_class = _Response


class _SecureConnection(http.client.HTTPSConnection):
    response_class = _Response


class _Handler(urllib.request.HTTPSHandler):
    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_SecureConnection, request)

    http_request = https_request = urllib.request.HTTPSHandler.https_request


def _ask(url: str, start: int = 0) -> _Response:
    """Ask for what is at an address, from byte `start` on. Raises SourceError."""
    shown = quoted(url)
    try:
        parts = urlsplit(url)
        path, query = quote(parts.path or "/", _UNTOUCHED), quote(parts.query, _UNTOUCHED)
        request = urllib.request.Request(
            urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], path, query, "")),
            headers={"User-Agent": "music350", "Icy-MetaData": "1"},
        )
        if start:
            request.add_header("Range", f"bytes={start}-")
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            coded = base64.b64encode(pair.encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {coded}")
        response = _opener(parts.hostname or "").open(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        raise SourceError(f"{shown} cannot be played: the server answers {error.code}.") from error
    except urllib.error.URLError as error:
        raise SourceError(f"{shown} cannot be reached: {_reason(error.reason)}.") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise SourceError(f"{shown} cannot be reached: {_reason(error)}.") from error
    return cast(_Response, response)


def _opener(host: str) -> urllib.request.OpenerDirector:
    """What follows redirections, on the web alone, and proxies, but not to this machine."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler({} if is_loopback(host) else None),
        _Handler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _reason(error: object) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return printable(text or type(error).__name__)


def _text(data: bytes) -> str:
    """A station's words: UTF-8, or else Latin-1."""
    try:
        return printable(data.decode(), 200).strip()
    except UnicodeDecodeError:
        return printable(data.decode("latin-1"), 200).strip()
