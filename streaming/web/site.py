"""The sender's own web site: a page to watch, figures, health."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from websockets.datastructures import Headers

from streaming.support.guard import AuthTokens, Guesses
from streaming.support.http import (
    HEALTH,
    TOO_MANY_GUESSES,
    Answer,
    bearer,
    host_is_known,
    route,
    text,
)
from streaming.support.sparse_log import SparseLog
from streaming.support.worker import call_on_thread
from streaming.web.assets import asset
from streaming.web.player import Player
from streaming.web.status import Encoding, SenderStatus

if TYPE_CHECKING:
    from codec.base import DecoderWindow
    from streaming.stream.hub import Hub
    from streaming.support.stats import LoopStall
    from streaming.transports.websocket.server import WebSocketServer
    from streaming.web.metrics import Exposition

__all__ = ["Site", "open_site"]

logger = logging.getLogger(__name__)

_FILES: Final = {
    "/": "sender.html",
    "/sender.js": "sender.js",
    "/stream.js": "stream.js",
    "/pictures.js": "pictures.js",
    "/spectrogram.js": "spectrogram.js",
    "/page.css": "page.css",
    "/icon.svg": "icon.svg",
}


class Site:
    """Answers what is asked over plain HTTP; plain but for the first import of prometheus-client.

    Args:
        status: of the sender.
        auth: who may see figures; pages and health are for everybody.
        names: hosts by which this server is known besides its addresses.
        guesses: slows down who names wrong secrets.
        player: the files with which the page plays; without them it cannot.
    """

    def __init__(
        self,
        status: SenderStatus,
        auth: AuthTokens | None = None,
        names: Sequence[str] = (),
        guesses: Guesses | None = None,
        player: Player | None = None,
    ) -> None:
        self._status = status
        self._auth = auth or AuthTokens()
        self._names = names
        self._guesses = guesses or Guesses()
        self._player = player
        self._wrong_secrets = SparseLog(logger)
        self._exposition: Exposition | None = None

    async def answer(self, path: str, headers: Headers, address: str = "") -> Answer:
        """What is at ``path``, the target of a GET request from ``address``."""
        where = route(path)
        if where in _FILES:
            page = asset(_FILES[where], headers)
            if where == "/" and self._player is not None:
                page.headers["Content-Security-Policy"] = self._player.policy
            return page
        if self._player is not None and (found := await self._player.answer(where, headers)):
            return found
        if where == "/player.json":  # with no files the page does not offer to play
            return Answer(HTTPStatus.OK, b"[]", "application/json")
        if where == HEALTH:
            problem = self._status.problem()
            status = HTTPStatus.SERVICE_UNAVAILABLE if problem else HTTPStatus.OK
            return text(status, problem or "ok")
        if where not in ("/metrics", "/status.json"):
            return text(
                HTTPStatus.NOT_FOUND, "There is nothing here; / is a page to watch the stream."
            )
        refusal = await self._refusal(bearer(headers), address)
        if refusal is not None:
            return refusal
        return await self._metrics() if where == "/metrics" else self._figures(headers)

    async def _refusal(self, given: str, address: str) -> Answer | None:
        """Why who names the secret ``given`` may not see figures."""
        guessed = bool(self._auth and given)
        if guessed and not await self._guesses.turn(address):
            return text(HTTPStatus.TOO_MANY_REQUESTS, TOO_MANY_GUESSES)
        if self._auth.admit(given):
            if guessed:
                self._guesses.right(address)
            return None
        if guessed:
            self._wrong_secrets.warning("%s has no right access token for figures", address)
        return text(
            HTTPStatus.UNAUTHORIZED,
            "This needs the access token, in the header Authorization: Bearer TOKEN.",
            WWW_Authenticate="Bearer",
        )

    def _figures(self, headers: Headers) -> Answer:
        # The title of somebody's sound input is not for pages that only borrow our address.
        if not self._auth and not host_is_known(headers, self._names):
            return text(
                HTTPStatus.MISDIRECTED_REQUEST,
                "This server is not known by that name; ask for its address, or let "
                "--allow-origin name it.",
            )
        figures = json.dumps(_short(self._status.figures()), ensure_ascii=False, allow_nan=False)
        return Answer(HTTPStatus.OK, figures.encode(), "application/json")

    async def _metrics(self) -> Answer:
        if self._exposition is None:
            try:
                module = await call_on_thread(_import_metrics)
            except ImportError:
                return text(
                    HTTPStatus.NOT_IMPLEMENTED,
                    "Metrics need the package prometheus-client: pip install 'music350[metrics]'.",
                )
            self._exposition = module(self._status)
        return Answer(
            HTTPStatus.OK, self._exposition.text(), "text/plain; version=0.0.4; charset=utf-8"
        )


def open_site(
    server: WebSocketServer,
    hub: Hub,
    stall: LoopStall,
    secrets: Sequence[str] = (),
    *,
    encoding: Encoding | None = None,
    decoder: DecoderWindow | None = None,
    player: str = "here",
) -> SenderStatus:
    """Have a server answer plain requests as well; see :class:`SenderStatus`.

    Args:
        player: from which server pages load what it takes to play: ``here``, an address, or
            ``off``.
    """
    status = SenderStatus(hub, server.gate, stall, encoding, decoder)
    loads = None if player == "off" else Player("" if player == "here" else player)
    server.site = Site(status, AuthTokens(secrets), server.names, server.guesses, loads)
    return status


def _import_metrics() -> type[Exposition]:
    from streaming.web.metrics import Exposition

    return Exposition


def _short(value: object) -> object:
    """Floats to four places, throughout."""
    if isinstance(value, dict):
        return {name: _short(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_short(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value
