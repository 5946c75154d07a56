"""A page on the listener's own machine: a spectrogram, figures, controls, and the sound itself."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import secrets
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Protocol

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request

from codec.constants import SAMPLE_RATE
from streaming.errors import TransportError, reason_of
from streaming.support.guard import AuthTokens, Gate, Guesses, Limits
from streaming.support.http import (
    FULL_HOUSE,
    TOO_MANY_GUESSES,
    Answer,
    host_is_known,
    origin_may,
    route,
    text,
)
from streaming.support.sparse_log import SparseLog
from streaming.support.tasks import beside, cancel
from streaming.transports.websocket.connection import GuardedConnection
from streaming.transports.websocket.guarded import GuardedServer
from streaming.web.assets import asset
from streaming.web.feed import Feed
from streaming.web.monitor import Column, Monitor, Piece
from streaming.web.spectrum import BANDS, COLUMN_SAMPLES, HIGHEST_HZ, LOWEST_HZ

__all__ = ["Console", "Controls", "Wish", "parse_wish"]

logger = logging.getLogger(__name__)

_HOST: Final = "127.0.0.1"
_TICK_S: Final = 0.05
_STATE_TICKS: Final = 5
_LEAD_S: Final = 0.5
"""A page has so much of the sound before it is due."""
_MOST_MESSAGE: Final = 256
_MOST_PAGES: Final = 8
_LIMITS: Final = Limits(64, 64, burst_bytes=65_536, bytes_per_s=4096.0, reserve=0)
"""A page says little, but more than a listener: a volume that is moved says so many times."""
_MOST_SEEK_S: Final = 86_400.0
_SEEK_PAUSE_S: Final = 0.3
_MOST_VOLUME: Final = 1.0
_BAD_MESSAGE: Final = 1008
_COLUMNS_KIND: Final = 1
_PCM_KIND: Final = 2
_HEADER: Final = struct.Struct(">B3xI")  # kind, index of the first column or sample (modulo 2**32)
_FILES: Final = {
    "": "listener.html",
    "listener.js": "listener.js",
    "spectrogram.js": "spectrogram.js",
    "pictures.js": "pictures.js",
    "stream.js": "stream.js",
    "sound.js": "sound.js",
    "audio-thread.js": "player/audio-thread.js",
    "cubic.js": "player/cubic.js",
    "page.css": "page.css",
    "icon.svg": "icon.svg",
}


class Controls(Protocol):
    """What the page can ask of the listener."""

    volume: float
    """Factor on the sound, 0 to 1."""

    def figures(self) -> Mapping[str, Any]:
        """What is to be shown; JSON values."""

    def seek(self, seconds: float) -> None:
        """Go back (negative) or forward in the stream."""

    def go_live(self) -> None:
        """Go to the live edge."""


@dataclass(frozen=True)
class Wish:
    """What a page has asked for: ``sound`` (value 0 or 1), ``volume``, ``seek`` or ``live``."""

    what: str
    value: float = 0.0


def parse_wish(data: str | bytes) -> Wish | None:
    """Read a page's message; None if it is none of ours."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    what, value = fields.get("type"), fields.get("value", 0)
    bounds = {"sound": (0, 1), "volume": (0, _MOST_VOLUME), "seek": (-_MOST_SEEK_S, _MOST_SEEK_S)}
    if what == "live":
        return Wish(what)
    if not isinstance(what, str) or what not in bounds or not isinstance(value, (int, float)):
        return None
    low, high = bounds[what]
    return Wish(what, float(value)) if low <= value <= high else None  # NaN is not


@dataclass(eq=False)
class _Page:
    """An open page."""

    feed: Feed = field(default_factory=Feed)
    sound: bool = False


class Console:
    """Serves the page on this machine alone, within ``async with``; port 0 takes any free one.

    Others may be on this machine as well. So the page is in a folder whose name is a secret, made
    anew each time, and outside of it there is nothing.

    Raises TransportError if it cannot listen there.
    """

    def __init__(
        self,
        monitor: Monitor,
        controls: Controls,
        port: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.port = port
        self._monitor = monitor
        self._controls = controls
        self._clock = clock
        self._pages: set[_Page] = set()
        self._drops = monitor.drops
        self._seek_from_s = 0.0
        self._place_wished: Wish | None = None
        self._secret = secrets.token_urlsafe(16)
        self._auth = AuthTokens([self._secret])
        self._guesses = Guesses(clock=clock)
        self._wrong_secrets = SparseLog(logger)
        self._server = GuardedServer(
            Gate(_LIMITS),
            _LIMITS,
            self._serve,
            self._answer,
            max_size=_MOST_MESSAGE,
            max_queue=4,
            write_limit=65_536,
            close_timeout=1.0,
        )
        self._pumping: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where the page is, with its secret."""
        return f"http://{_HOST}:{self.port}/{self._secret}/"

    async def __aenter__(self) -> Console:
        try:
            await self._server.open(_HOST, self.port)
        except OSError as error:
            in_use = error.errno == errno.EADDRINUSE
            reason = "it is in use" if in_use else reason_of(error)
            raise TransportError(
                f"The page cannot be at port {self.port} ({reason}); choose another: --web=PORT."
            ) from None
        self.port = self._server.port
        self._pumping = asyncio.create_task(self._pump())
        logger.info("to watch and to listen in a browser: %s", self.url)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._pumping is not None
        await cancel(self._pumping)
        await self._server.close()

    async def _answer(self, connection: GuardedConnection, request: Request) -> Answer | None:
        headers = request.headers
        # A page elsewhere may let its name point at this machine: only addresses are ours.
        if not host_is_known(headers):
            wanted = f"Ask for http://{_HOST}:{self.port}"
            return text(HTTPStatus.MISDIRECTED_REQUEST, wanted)
        folder, _, name = route(request.path).removeprefix("/").partition("/")
        if not self._auth.admit(folder):
            return await self._refusal(folder, connection.address)
        if connection.wants_websocket:
            if not origin_may(headers, ()):
                return text(HTTPStatus.FORBIDDEN, "Only the page from here may.")
            return FULL_HOUSE if len(self._pages) >= _MOST_PAGES else None
        if name == "status.json":
            return text(HTTPStatus.OK, self._state(), Content_Type="application/json")
        if name in _FILES:
            return asset(_FILES[name], headers)
        return text(HTTPStatus.NOT_FOUND, "There is nothing here.")

    async def _refusal(self, guess: str, address: str) -> Answer:
        """What who does not know the secret is told, later and later."""
        if guess:
            self._wrong_secrets.warning("somebody asked for the page with a wrong secret")
            if not await self._guesses.turn(address):
                return text(HTTPStatus.TOO_MANY_REQUESTS, TOO_MANY_GUESSES)
        return text(
            HTTPStatus.NOT_FOUND,
            "There is nothing here: the address of the page ends with a secret, which the listener "
            "says when it starts.",
        )

    async def _serve(self, connection: GuardedConnection) -> None:
        connection.stay()
        page = _Page()
        page.feed.event(
            json.dumps(
                {
                    "type": "hello",
                    "sample_rate": SAMPLE_RATE,
                    "column_samples": COLUMN_SAMPLES,
                    "bands": BANDS,
                    "lowest_hz": LOWEST_HZ,
                    "highest_hz": HIGHEST_HZ,
                }
            )
        )
        page.feed.state(self._state())
        self._pages.add(page)
        try:
            async with beside(_write(connection, page.feed)):
                async for data in connection:
                    wish = parse_wish(data)
                    if wish is None:
                        await connection.close(_BAD_MESSAGE)
                        return
                    self._fulfil(page, wish)
        except ConnectionClosed as closed:
            logger.debug("a page has gone: %s", closed)
        finally:
            self._pages.discard(page)

    def _fulfil(self, page: _Page, wish: Wish) -> None:
        if wish.what == "sound":
            page.sound = bool(wish.value)
        elif wish.what == "volume":
            self._controls.volume = wish.value
            self._tell_all()
        else:  # each makes a new connection: of those that come quickly, the last one counts
            self._place_wished = wish
            self._go_there()

    def _go_there(self) -> None:
        """Go to the place that was asked for last, unless the last move was just now."""
        wish, now_s = self._place_wished, self._clock()
        if wish is None or now_s < self._seek_from_s:
            return
        self._place_wished = None
        self._seek_from_s = now_s + _SEEK_PAUSE_S
        if wish.what == "live":
            self._controls.go_live()
        else:
            self._controls.seek(wish.value)

    async def _pump(self) -> None:
        """From the monitor to the pages, until cancelled."""
        tick = 0
        while True:
            await asyncio.sleep(_TICK_S)
            tick += 1
            self._move()
            self._go_there()
            if tick % _STATE_TICKS == 0:
                self._tell_all()

    def _move(self) -> None:
        if self._drops != self._monitor.drops:
            self._drops = self._monitor.drops
            flush = json.dumps({"type": "flush", "heard": self._monitor.heard_samples})
            for page in self._pages:
                page.feed.event(flush)
        due = self._monitor.heard_samples + round(_LEAD_S * SAMPLE_RATE)
        pieces = [_piece_message(piece) for piece in self._monitor.pieces(due)]
        columns = [_column_message(column) for column in self._monitor.columns()]
        for page in self._pages:
            for message in columns:
                page.feed.data(message)
            if page.sound:
                for message in pieces:
                    page.feed.data(message)

    def _tell_all(self) -> None:
        state = self._state()
        for page in self._pages:
            page.feed.state(state)

    def _state(self) -> str:
        fields = {
            "type": "state",
            "heard": self._monitor.heard_samples,
            "volume": self._controls.volume,
            **self._controls.figures(),
        }
        return json.dumps(fields, ensure_ascii=False)


async def _write(connection: GuardedConnection, feed: Feed) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await connection.send(await feed.take())


def _piece_message(piece: Piece) -> bytes:
    return _HEADER.pack(_PCM_KIND, piece.first_sample % 2**32) + piece.pcm


def _column_message(column: Column) -> bytes:
    return _HEADER.pack(_COLUMNS_KIND, column.index % 2**32) + column.bands
