"""What one listener hears, for any player: an HTTP audio stream, as Internet radios send it."""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import errno
import json
import logging
import re
import ssl
import time
from base64 import b64decode
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from types import TracebackType
from typing import Final

import numpy as np
from numpy.typing import NDArray
from websockets.datastructures import Headers
from websockets.http11 import Request

from codec.constants import CHANNELS, SAMPLE_RATE
from streaming.audio.sinks.base import Sink
from streaming.errors import SettingsError, TransportError, reason_of
from streaming.support.forwarded import Proxies
from streaming.support.guard import (
    AuthTokens,
    Gate,
    Guesses,
    Limits,
    fit_to_files,
    is_loopback,
)
from streaming.support.http import (
    FULL_HOUSE,
    HEALTH,
    POLICY,
    TOO_MANY_GUESSES,
    Answer,
    bearer,
    host_is_known,
    one,
    origin_hosts,
    origin_may,
    route,
    text,
)
from streaming.support.sparse_log import SparseLog
from streaming.support.tasks import cancel
from streaming.support.worker import call_on_thread
from streaming.transports.websocket.connection import GuardedConnection
from streaming.transports.websocket.guarded import GuardedServer, warn_of_strangers
from streaming.web.assets import asset
from streaming.web.encoding import BURST_S, FORMATS, EncodedStream, encoders

__all__ = ["Gateway", "with_titles"]

logger = logging.getLogger(__name__)

_TICK_S: Final = 0.25
_SILENT_S: Final = 1.0
"""If nothing has come for so long, players get silence, so that they stay."""
_METAINT: Final = 16_000
_MOST_TITLE_BYTES: Final = 4000
_LAST_S: Final = 3.0
_STREAM: Final = "/stream"
_PLAYLIST: Final = ".m3u"
_POLICY: Final = f"{POLICY}; media-src 'self'"
_FILES: Final = {"/page.css": "page.css", "/icon.svg": "icon.svg"}


class Gateway(Sink):
    """Serves the sound that is written to it, within ``async with``; port 0 takes any free one.

    Make it inside the event loop. The formats of :data:`streaming.web.encoding.FORMATS` that ffmpeg
    can encode are each encoded once, and only while somebody listens.

    Args:
        auth: who may listen: as ``Authorization: Bearer`` or as the password of a user of any name.
        origins: web pages that may listen, such as ``https://radio.example``, besides our own; on
            the loopback interface it is known by their hosts' names as well.
        proxies: reverse proxies that say for whom they ask.
        tls: makes it ``https://``.
        name: of the station.

    Attributes:
        title: asked for what is heard now.

    Raises:
        SettingsError: there is no ffmpeg.
        TransportError: on entering, it cannot listen there.
    """

    def __init__(
        self,
        host: str,
        port: int,
        auth: AuthTokens | None = None,
        limits: Limits | None = None,
        origins: Sequence[str] = (),
        proxies: Proxies | None = None,
        tls: ssl.SSLContext | None = None,
        name: str = "music350",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.port = port
        self.title: Callable[[], str] = str
        self._host = host
        self._auth = auth or AuthTokens()
        self._origins = origins
        self._names = [host, *origin_hosts(origins)]
        self._proxies = proxies or Proxies()
        self._tls = tls
        self._name = name
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._guesses = Guesses(clock=clock)
        self._wrong_secrets = SparseLog(logger)
        self._streams: list[EncodedStream] = []
        self._recent: deque[bytes] = deque()
        self._recent_bytes = 0
        self._last_title = ""
        self._last_s = clock()
        self._silent = True
        self._ended = False
        self._began = datetime.now(UTC)
        self._limits, self._too_many = fit_to_files(limits or Limits())
        self._gate = Gate(self._limits, self._proxies.trusts)
        self._server = GuardedServer(
            self._gate, self._limits, self._refuse, self._answer, tls, max_size=1, max_queue=1
        )
        self._ticking: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where a player finds the stream."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{self._scheme}://{host}:{self.port}/"

    @property
    def _scheme(self) -> str:
        return "https" if self._tls else "http"

    async def __aenter__(self) -> Gateway:
        found = await call_on_thread(encoders)
        self._streams = [EncodedStream(made) for made in FORMATS if made.encoder in found]
        if not self._streams:
            raise SettingsError("--serve needs ffmpeg with libopus; install it, as by your system.")
        try:
            await self._server.open(self._host, self.port)
        except (OSError, OverflowError) as error:
            in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            reason = "it is in use" if in_use else reason_of(error)
            raise TransportError(
                f"Players cannot be served at {self._host} port {self.port} ({reason}); choose "
                "another: --serve [HOST:]PORT."
            ) from None
        self.port = self._server.port
        self._ticking = asyncio.create_task(self._tick())
        logger.info("any player can listen at %s", self.url)
        if self._too_many:
            logger.warning("%s", self._too_many)
        warn_of_strangers(
            self._host,
            self._proxies,
            self._tls,
            keep_out="" if self._auth else "--serve-token-file",
            secretive=bool(self._auth),
        )
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._ticking is not None
        await cancel(self._ticking)
        self._end()
        if exc_type is None:  # players get the rest
            deadline_s = self._clock() + _LAST_S
            while self.listeners and self._clock() < deadline_s:
                await asyncio.sleep(0.05)
        for stream in self._streams:
            await stream.close()
        await self._server.close()

    @property
    def listeners(self) -> int:
        """How many players listen."""
        return sum(stream.listeners for stream in self._streams)

    # As a sink

    def write(self, block: NDArray[np.float32]) -> None:
        """Take float32 ``[2, n]``, in time; from any thread."""
        self._call(self._take, np.ascontiguousarray(block.T, "<f4").tobytes())

    def drain(self) -> None:
        """Nothing to wait for: players are behind."""

    def close(self) -> None:
        """Nothing more comes; from any thread."""
        self._call(self._end)

    def _call(self, call: Callable[..., None], *arguments: bytes) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed
            self._loop.call_soon_threadsafe(call, *arguments)

    def _take(self, pcm: bytes) -> None:
        if self._silent:
            self._fill()
            self._silent = False
        self._last_s = self._clock()
        self._push(pcm)

    def _fill(self) -> None:
        """Silence up to now."""
        now_s = self._clock()
        samples = round((now_s - self._last_s) * SAMPLE_RATE)
        self._last_s = now_s
        self._push(bytes(4 * CHANNELS * max(0, samples)))

    def _push(self, pcm: bytes) -> None:
        self._recent.append(pcm)
        self._recent_bytes += len(pcm)
        most = round(BURST_S * SAMPLE_RATE) * 4 * CHANNELS
        while self._recent_bytes - len(self._recent[0]) >= most:
            self._recent_bytes -= len(self._recent.popleft())
        for stream in self._streams:
            stream.push(pcm)

    def _end(self) -> None:
        self._ended = True
        for stream in self._streams:
            stream.end()

    async def _tick(self) -> None:
        """Titles, silence, and encoders that have failed, until cancelled."""
        while True:
            await asyncio.sleep(_TICK_S)
            if self._ended:
                continue
            if self._clock() - self._last_s >= _SILENT_S:
                self._silent = True
            if self._silent:
                self._fill()
            title = self.title()
            for stream in self._streams:
                if title != self._last_title:
                    stream.turn(title)
                if stream.listeners:
                    stream.begin(self._recent, title)
            self._last_title = title

    # Over HTTP

    async def _refuse(self, connection: GuardedConnection) -> None:
        """There are no WebSockets here: :meth:`_answer` lets none begin."""

    async def _answer(self, connection: GuardedConnection, request: Request) -> Answer:
        where, headers = route(request.path), request.headers
        proxied = self._proxies.trusts(connection.address)
        may_stay = connection.introduce(self._proxies) and not connection.reserved
        if where == HEALTH:
            return text(HTTPStatus.OK, "ok")
        if not may_stay:
            return FULL_HOUSE
        refusal = await self._refusal(headers, connection.address)
        if refusal is not None:
            return refusal
        if where in _FILES:
            return asset(_FILES[where], headers)
        if where == "/" and "text/html" in one(headers, "Accept"):
            page = asset("gateway.html", headers)
            page.headers["Content-Security-Policy"] = _POLICY
            return page
        # Behind a proxy nobody here knows by which address a player has come.
        base = "" if proxied else f"{self._scheme}://{self._authority(headers)}/"
        if where == "/status-json.xsl":
            return self._figures(base)
        stream = self._chosen(where.removesuffix(_PLAYLIST), headers)
        if stream is None:
            return text(
                HTTPStatus.NOT_FOUND,
                "There is nothing here; players find the stream at "
                + ", ".join(_path(stream) for stream in self._streams),
            )
        if where.endswith(_PLAYLIST):
            return self._playlist(stream, where, base)
        return self._stream(stream, headers)

    async def _refusal(self, headers: Headers, address: str) -> Answer | None:
        """Why whoever asks may not listen."""
        # A page elsewhere may let its name point at this machine: then only addresses are ours.
        if is_loopback(self._host) and not host_is_known(headers, self._names):
            return text(
                HTTPStatus.FORBIDDEN,
                "This gateway is not known by that name; ask for its address, or let "
                "--allow-origin name it.",
            )
        if not origin_may(headers, self._origins, [*self._names, *_hosts(headers)]):
            return text(HTTPStatus.FORBIDDEN, "This web page may not listen here.")
        given = bearer(headers) or _password(headers)
        if not self._auth:
            return None
        if given and not await self._guesses.turn(address):
            return text(HTTPStatus.TOO_MANY_REQUESTS, TOO_MANY_GUESSES)
        if self._auth.admit(given):
            self._guesses.right(address)
            return None
        if given:
            self._wrong_secrets.warning("%s has no right access token", address)
        return text(
            HTTPStatus.UNAUTHORIZED,
            "This needs the access token, as the password of any user.",
            WWW_Authenticate='Basic realm="music350", charset="UTF-8"',
        )

    def _chosen(self, where: str, headers: Headers) -> EncodedStream | None:
        """The format that an address or, if it names none, ``Accept`` asks for."""
        for stream in self._streams:
            if where == _path(stream):
                return stream
        if where not in ("/", _STREAM):
            return None
        accepted = one(headers, "Accept").lower()
        named = {"mp3": "audio/mpeg", "flac": "audio/flac", "opus": "audio/ogg"}
        for stream in self._streams:
            if named[stream.format.name] in accepted:
                return stream
        return self._streams[0]

    def _stream(self, stream: EncodedStream, headers: Headers) -> Answer:
        fields = {
            "Cache-Control": "no-cache, no-store",
            "Accept-Ranges": "none",
            "X-Accel-Buffering": "no",  # or nginx would keep minutes for who does not read
            "Vary": "Accept, Icy-MetaData",
            "icy-name": _latin(self._name),
            "icy-pub": "0",
        }
        if stream.format.bits_per_s is not None:
            fields["icy-br"] = str(stream.format.bits_per_s // 1000)
        stream.begin(self._recent, self._last_title)
        titles = not stream.format.titled and one(headers, "Icy-MetaData") == "1"
        if titles:
            fields["icy-metaint"] = str(_METAINT)

        def pieces() -> AsyncGenerator[bytes, None]:
            sound = stream.listen()
            return with_titles(sound, lambda: self._last_title) if titles else sound

        return Answer(HTTPStatus.OK, kind=stream.format.kind, headers=fields, pieces=pieces)

    def _authority(self, headers: Headers) -> str:
        """Host and port by which a player has come."""
        return one(headers, "Host") or f"{self._host}:{self.port}"

    def _playlist(self, stream: EncodedStream, where: str, base: str) -> Answer:
        named = where.removesuffix(_PLAYLIST)
        path = named if named in map(_path, self._streams) else _path(stream)
        lines = f"#EXTM3U\n#EXTINF:-1,{self._name}\n{base}{path[1:]}\n"
        return Answer(HTTPStatus.OK, lines.encode(), "audio/x-mpegurl")

    def _figures(self, base: str) -> Answer:
        """As Icecast tells them."""
        began = self._began.isoformat(timespec="seconds")
        sources = [
            {
                "listenurl": f"{base}{_path(stream)[1:]}",
                "server_name": self._name,
                "server_type": stream.format.kind,
                "title": self._last_title,
                "listeners": stream.listeners,
                "listener_peak": stream.most,
                "slow_listeners": stream.dropped,
                "samplerate": SAMPLE_RATE,
                "channels": CHANNELS,
                "stream_start_iso8601": began,
            }
            | ({"bitrate": rate // 1000} if (rate := stream.format.bits_per_s) else {})
            for stream in self._streams
        ]
        figures = {"icestats": {"server_start_iso8601": began, "source": sources}}
        body = json.dumps(figures, ensure_ascii=False)
        return Answer(HTTPStatus.OK, body.encode(), "application/json")


async def with_titles(
    pieces: AsyncGenerator[bytes, None], title: Callable[[], str], interval: int = _METAINT
) -> AsyncGenerator[bytes, None]:
    """Sound with the title between every ``interval`` bytes of it, if it is another."""
    left, told = interval, ""
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            out = []
            while len(piece) >= left:
                now = title()
                out += [piece[:left], b"\0" if now == told else _icy_block(now)]
                piece, left, told = piece[left:], interval, now
            left -= len(piece)
            yield b"".join([*out, piece])


def _icy_block(title: str) -> bytes:
    # There is no escaping: a quotation mark before a semicolon would end the title.
    plain = title.replace("';", "’;").encode()[:_MOST_TITLE_BYTES]
    block = b"StreamTitle='" + plain.decode(errors="ignore").encode() + b"';"
    size = -(-len(block) // 16)
    return bytes([size]) + block.ljust(16 * size, b"\0")


def _path(stream: EncodedStream) -> str:
    return f"{_STREAM}.{stream.format.name}"


def _hosts(headers: Headers) -> list[str]:
    """The name by which a player has come."""
    return [re.sub(r":\d+$", "", one(headers, "Host"))]


def _password(headers: Headers) -> str:
    """The password in ``Authorization: Basic``; empty if there is none."""
    kind, _, given = one(headers, "Authorization").partition(" ")
    if kind.lower() != "basic":
        return ""
    with contextlib.suppress(binascii.Error, UnicodeDecodeError):
        return b64decode(given.strip(), validate=True).decode().partition(":")[2]
    return ""


def _latin(words: str) -> str:
    """What can stand in a header."""
    return re.sub(r"[^\x20-\x7e\xa0-\xff]", "?", words)
